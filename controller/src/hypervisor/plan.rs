//! What is found of the connection, and whether changes may pass through it.

use std::time::Duration;

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
};
use crate::{
    condition::{Finding, Truth},
    engine::{Plan, Verdict},
    fleet::{Barred, Health},
};

const RECHECK: Duration = Duration::from_secs(30);

pub(crate) fn plan(object: &Hypervisor, desired: &Desired, observed: &Observed) -> Plan<Step> {
    let mut findings = Vec::new();
    let verdict = decide(object, desired, observed, &mut findings);
    let partial = observed.inventory.is_none();
    Plan { findings, verdict, ahead: Vec::new(), partial }
}

fn decide(object: &Hypervisor, desired: &Desired, observed: &Observed, findings: &mut Vec<Finding>) -> Verdict<Step> {
    if desired.deleting {
        if desired.users.is_empty() {
            return Verdict::Gone;
        }
        let message = format!("Waiting for those who use it: {}. It goes when they are gone.", desired.users.join(", "));
        findings.push(Finding::working(C::Ready, Reason::Deleting, message));
    }
    match &observed.health {
        None | Some(Health::Unknown) => {
            findings.push(Finding::working(C::Connected, Reason::Unreachable, format!("Connecting to {}.", object.spec.endpoints.join(", "))));
            return Verdict::Wait { until: RECHECK };
        }
        Some(Health::Failed { kind, message }) => {
            findings.push(failed(object, &desired.secret, kind, message));
            return Verdict::Wait { until: RECHECK };
        }
        Some(Health::Connected) => {}
    }
    let Some(inventory) = &observed.inventory else { return Verdict::Wait { until: RECHECK } };
    if let Some(changed) = changed(object, inventory) {
        findings.push(Finding::stalled(C::Connected, Reason::IdentityChanged, changed));
        return Verdict::Blocked { recheck: Some(RECHECK) };
    }
    if !inventory.quorate {
        let message = "The cluster has no quorum: nothing can be changed until enough of its nodes are back.";
        findings.push(Finding::working(C::Connected, Reason::NoQuorum, message));
        return Verdict::Wait { until: RECHECK };
    }
    findings.push(Finding::met(C::Connected, Reason::Connected, format!("Proxmox VE {} answers.", inventory.version)));
    if inventory.missing.is_empty() {
        findings.push(Finding::met(C::Authorized, Reason::Authorized, ""));
    } else {
        let message = format!("the token lacks privileges: {}. Grant them with `pveum acl modify` (see manifests/hypervisor).", inventory.missing.join(", "));
        findings.push(Finding::stalled(C::Authorized, Reason::PrivilegesMissing, message));
    }
    if observed.barred == Some(Barred::Unchecked) {
        return Verdict::Do(Step::Admit);
    }
    Verdict::Done { recheck: observed.drift }
}

fn failed(object: &Hypervisor, secret: &str, kind: &ErrorKind, message: &str) -> Finding {
    let endpoints = object.spec.endpoints.join(", ");
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
        ErrorKind::Forbidden => Finding::stalled(C::Authorized, Reason::PrivilegesMissing, format!("Proxmox refuses to answer: {message}.")),
        ErrorKind::NoQuorum => Finding::working(C::Connected, Reason::NoQuorum, format!("The cluster has no quorum: {message}.")),
        _ => Finding {
            truth: Truth::False,
            ..Finding::working(C::Connected, Reason::Unreachable, format!("None of {endpoints} answers: {message}. Check address, port and network."))
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
        return Some(format!("another Proxmox answers: its CA has the fingerprint {is}, not {pinned}. {how}"));
    }
    let names: Vec<&str> = inventory.nodes.iter().map(|(name, ..)| name.as_str()).collect();
    let stranger = !pinned.node_names.is_empty() && !pinned.node_names.iter().any(|n| names.contains(&n.as_str()));
    stranger.then(|| format!("another Proxmox answers: its nodes are {}, not {}. {how}", names.join(", "), pinned.node_names.join(", ")))
}
