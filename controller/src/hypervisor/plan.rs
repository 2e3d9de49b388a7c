//! What is found of the connection, and whether changes may pass through it.

use std::time::Duration;

use kube::ResourceExt;
use phoenix_crds::{
    Hypervisor,
    conditions::{ConditionType as C, Reason},
    hypervisor::Identity,
};
use proxmox_client::ErrorKind;

use super::{
    Step,
    desired::Desired,
    observe::{Inventory, Observed},
    ssh::KeyPair,
};
use crate::{
    condition::{Finding, Truth, said_true},
    engine::{Plan, Verdict},
    fleet::{Barred, Health},
};

const RECHECK: Duration = Duration::from_secs(30);

pub(crate) fn plan(object: &Hypervisor, desired: &Desired, observed: &Observed) -> Plan<Step> {
    let mut findings = Vec::new();
    let verdict = decide(object, desired, observed, &mut findings);
    let partial = observed.inventory.is_none();
    Plan {
        findings,
        verdict,
        ahead: Vec::new(),
        partial,
    }
}

fn decide(
    object: &Hypervisor,
    desired: &Desired,
    observed: &Observed,
    findings: &mut Vec<Finding>,
) -> Verdict<Step> {
    if desired.deleting {
        if desired.users.is_empty() {
            return Verdict::Gone;
        }
        let message = format!(
            "Waiting for those who use it: {}. It goes when they are gone.",
            desired.users.join(", ")
        );
        findings.push(Finding::working(C::Ready, Reason::Deleting, message));
    }
    findings.extend(desired.ssh.finding(&object.name_any()));
    if desired.ssh == KeyPair::Missing {
        // before anything is created that is to know it
        return Verdict::Do(Step::MakeSshKey);
    }
    match &observed.health {
        None | Some(Health::Unknown) if was_connected(object) => {
            // an operator that has just started: what was said stands until something else is known
            return Verdict::Wait { until: RECHECK };
        }
        None | Some(Health::Unknown) => {
            findings.push(Finding::working(
                C::Connected,
                Reason::Unreachable,
                format!("Connecting to {}.", object.spec.endpoints.join(", ")),
            ));
            return Verdict::Wait { until: RECHECK };
        }
        Some(Health::Failed { kind, message }) => {
            if let ErrorKind::Unauthorized | ErrorKind::TwoFactor | ErrorKind::Forbidden = kind {
                // who refuses us is there
                findings.push(Finding::met(
                    C::Connected,
                    Reason::Connected,
                    "Proxmox VE answers.",
                ));
            }
            findings.push(failed(object, &desired.secret, kind, message));
            return Verdict::Wait { until: RECHECK };
        }
        Some(Health::Connected) => {}
    }
    let Some(inventory) = &observed.inventory else {
        return Verdict::Wait { until: RECHECK };
    };
    if let Some(changed) = changed(object, inventory) {
        findings.push(Finding::stalled(
            C::Connected,
            Reason::IdentityChanged,
            changed.clone(),
        ));
        if !matches!(observed.barred, Some(Barred::Identity(_))) {
            return Verdict::Do(Step::Bar { why: changed });
        }
        return Verdict::Blocked {
            recheck: Some(RECHECK),
        };
    }
    if !inventory.quorate {
        let message =
            "The cluster has no quorum: nothing can be changed until enough of its nodes are back.";
        findings.push(Finding::working(C::Connected, Reason::NoQuorum, message));
        return Verdict::Wait { until: RECHECK };
    }
    findings.push(Finding::met(
        C::Connected,
        Reason::Connected,
        format!("Proxmox VE {} answers.", inventory.version),
    ));
    if inventory.missing.is_empty() {
        findings.push(Finding::met(C::Authorized, Reason::Authorized, ""));
    } else {
        let message = format!(
            "the token lacks privileges: {}. Grant them with `pveum acl modify` (see manifests/hypervisor).",
            inventory.missing.join(", ")
        );
        findings.push(Finding::stalled(
            C::Authorized,
            Reason::PrivilegesMissing,
            message,
        ));
    }
    if observed.barred.is_some() {
        return Verdict::Do(Step::Admit);
    }
    Verdict::Done {
        recheck: observed.drift,
    }
}

fn was_connected(object: &Hypervisor) -> bool {
    let status = object.status.as_ref();
    status.is_some_and(|s| said_true(&s.conditions, C::Connected))
}

fn failed(object: &Hypervisor, secret: &str, kind: &ErrorKind, message: &str) -> Finding {
    let endpoints = object.spec.endpoints.join(", ");
    let message = message.trim_end_matches(['.', '!']);
    match kind {
        ErrorKind::Untrusted { presented } => Finding::working(
            C::Connected,
            Reason::CertificateUntrusted,
            format!(
                "{endpoints} presented a certificate with the SHA-256 fingerprint {presented}, which is not trusted. Compare it with `pvenode cert \
                 info` on the host; if it is the same, put it into spec.tls.fingerprints (or the CA into spec.tls.caBundle)."
            ),
        ),
        ErrorKind::Unauthorized | ErrorKind::TwoFactor => Finding::stalled(
            C::Authorized,
            Reason::TokenInvalid,
            format!(
                "Proxmox refuses the API token of Secret {secret}: {message}. Check tokenId (user@realm!name) and tokenSecret, and that user and \
                 token are enabled and not expired."
            ),
        ),
        ErrorKind::Forbidden => Finding::stalled(
            C::Authorized,
            Reason::PrivilegesMissing,
            format!(
                "Proxmox denies the API token of Secret {secret} what it asks for: {message}. Grant user and token the privileges of \
                 manifests/hypervisor with `pveum acl modify`."
            ),
        ),
        ErrorKind::NoQuorum => Finding::working(
            C::Connected,
            Reason::NoQuorum,
            format!("The cluster has no quorum: {message}."),
        ),
        _ => Finding {
            truth: Truth::False,
            ..Finding::working(
                C::Connected,
                Reason::Unreachable,
                format!("None of {endpoints} answers: {message}. Check address, port and network."),
            )
        },
    }
}

/// Another Proxmox than the one that was pinned: one CA and node names stand for it. A node that joined is no other cluster.
fn changed(object: &Hypervisor, inventory: &Inventory) -> Option<String> {
    let pinned: &Identity = object.status.as_ref()?.identity.as_ref()?;
    let how = "Nothing is changed there. If that is meant (a reinstalled host, a new CA), make a new Hypervisor object for it.";
    if let (Some(pinned), Some(is)) = (&pinned.ca_fingerprint, &inventory.ca)
        && pinned != is
    {
        return Some(format!(
            "another Proxmox answers: its CA has the fingerprint {is}, not {pinned}. {how}"
        ));
    }
    let names: Vec<&str> = inventory
        .nodes
        .iter()
        .map(|(name, ..)| name.as_str())
        .collect();
    let stranger = !pinned.node_names.is_empty()
        && !pinned
            .node_names
            .iter()
            .any(|n| names.contains(&n.as_str()));
    stranger.then(|| {
        format!(
            "another Proxmox answers: its nodes are {}, not {}. {how}",
            names.join(", "),
            pinned.node_names.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::condition::Progress;

    #[test]
    fn the_ssh_key_is_made_once_and_a_broken_one_is_told_and_left() {
        let broken = KeyPair::Broken("Secret x holds no SSH key".to_owned());
        let rows = [
            (KeyPair::Unwanted, None, false),
            (KeyPair::Missing, Some(Reason::Creating), true),
            (broken, Some(Reason::Invalid), false),
        ];
        for (ssh, reason, made) in rows {
            let plan = plan_of(ErrorKind::Unreachable, ssh);
            let told = plan.findings.iter().find(|f| f.condition == C::SshKeyReady);
            assert_eq!(told.map(|f| f.reason), reason);
            assert_eq!(matches!(plan.verdict, Verdict::Do(Step::MakeSshKey)), made);
        }
    }

    fn plan_with(kind: ErrorKind) -> Plan<Step> {
        plan_of(kind, KeyPair::Unwanted)
    }

    fn plan_of(kind: ErrorKind, ssh: KeyPair) -> Plan<Step> {
        let object = json!({
            "apiVersion": "phoenix-hypervisor.io/v1alpha1", "kind": "Hypervisor", "metadata": {"name": "home"},
            "spec": {"endpoints": ["https://pve.lan:8006"], "credentialsSecret": "home"},
        });
        let desired = Desired {
            deleting: false,
            cluster: None,
            users: Vec::new(),
            ssh,
            secret: "phoenix-system/home".to_owned(),
        };
        let health = Some(Health::Failed {
            kind,
            message: "no way!".to_owned(),
        });
        plan(
            &serde_json::from_value(object).unwrap(),
            &desired,
            &Observed {
                health,
                ..Observed::default()
            },
        )
    }

    #[test]
    fn a_failed_poll_is_told_where_it_belongs_with_what_to_do() {
        let presented = "F4:FD:25:70:E8:1F:6E:1D:F9:EC:58:BD:B0:4B:EE:82:7F:DB:EF:C3:63:7E:75:67:C9:EA:E4:E3:89:5B:FE:94";
        let (working, stalled) = (Progress::Reconciling, Progress::Stalled);
        let rows = [
            (
                ErrorKind::Unreachable,
                C::Connected,
                Reason::Unreachable,
                working,
                "None of https://pve.lan:8006 answers: no way. Check address",
            ),
            (
                ErrorKind::Untrusted {
                    presented: presented.parse().unwrap(),
                },
                C::Connected,
                Reason::CertificateUntrusted,
                working,
                presented,
            ),
            (
                ErrorKind::NoQuorum,
                C::Connected,
                Reason::NoQuorum,
                working,
                "no quorum",
            ),
            (
                ErrorKind::Unauthorized,
                C::Authorized,
                Reason::TokenInvalid,
                stalled,
                "Secret phoenix-system/home: no way. Check tokenId",
            ),
            (
                ErrorKind::Forbidden,
                C::Authorized,
                Reason::PrivilegesMissing,
                stalled,
                "`pveum acl modify`",
            ),
        ];
        for (kind, condition, reason, progress, says) in rows {
            let plan = plan_with(kind.clone());
            let told = plan.findings.last().unwrap();
            assert_eq!(
                (told.condition, told.truth, told.reason, told.progress),
                (condition, Truth::False, reason, progress),
                "{kind:?}"
            );
            assert!(told.message.contains(says), "{}", told.message);
            assert!(plan.partial && matches!(plan.verdict, Verdict::Wait { .. }));
            // a Proxmox that refuses us is connected to
            let connected = plan
                .findings
                .iter()
                .any(|f| f.condition == C::Connected && f.truth == Truth::True);
            assert_eq!(connected, condition == C::Authorized, "{kind:?}");
        }
    }
}
