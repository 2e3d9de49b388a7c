//! Whether there is a container, whether it is ours and whether it was made to the end.

use std::time::Duration;

use phoenix_crds::conditions::{ConditionType as C, Reason};
use proxmox_client::{ErrorKind, TaskState};

use super::{Decision, Draft, ON_WAKE, View};
use crate::{
    condition::{Finding, Truth},
    engine::Verdict,
    fleet::{Barred, Health, Presence, Turn},
    lxc::{
        desired::{Present, Source},
        mark::{Mark, Ownership},
        observe::{Observed, TaskSeen},
        step::{Site, Step},
    },
};

const CREATION: [&str; 2] = ["vzcreate", "vzclone"];
/// How often a lock of somebody's is looked at; its end also shows in the fleet's poll.
const LOCKED_RECHECK: Duration = Duration::from_secs(10);
/// The effect of an order to high availability is looked for at this pace, if the fleet's poll doesn't show it before.
const HA_RECHECK: Duration = Duration::from_secs(5);

/// Proxmox can be asked, and it is the one that was pinned.
pub(super) fn reachable(view: &View<'_>, draft: &mut Draft) -> Decision {
    let decision = connection(view.observed, &view.target.hypervisor, draft);
    if decision.is_none() {
        draft.met(
            C::HypervisorReady,
            Reason::Connected,
            format!("Hypervisor {} is connected.", view.target.hypervisor),
        );
    }
    decision
}

/// As `reachable`, without a word where all is well.
pub(super) fn connection(observed: &Observed, hypervisor: &str, draft: &mut Draft) -> Decision {
    let unknown = |message: String| Finding {
        truth: Truth::Unknown,
        ..Finding::working(C::HypervisorReady, Reason::Unreachable, message)
    };
    let see = format!(
        "What it needs stands in its own conditions (`kubectl describe hypervisor {hypervisor}`); this goes on by itself then."
    );
    match (&observed.health, &observed.barred) {
        (Health::Failed { kind, message }, _) => {
            draft.partial = true;
            let what = match kind {
                ErrorKind::Untrusted { .. } => "has a certificate that is not trusted",
                ErrorKind::Unauthorized | ErrorKind::TwoFactor => "refuses its API token",
                ErrorKind::Forbidden => "denies its API token the rights that it needs",
                ErrorKind::NoQuorum => "has no quorum",
                _ => "does not answer",
            };
            draft.found(unknown(format!(
                "Hypervisor {hypervisor} {what}: {message}. {see}"
            )));
            Some(Verdict::Wait { until: ON_WAKE })
        }
        (Health::Unknown, _) | (_, Some(Barred::Unchecked)) => {
            draft.partial = true;
            if observed.reported.connected {
                // an operator that has just started: what was said stands until something else is known
                return Some(Verdict::Wait { until: ON_WAKE });
            }
            draft.found(unknown(format!(
                "Hypervisor {hypervisor} is not connected yet. {see}"
            )));
            Some(Verdict::Wait { until: ON_WAKE })
        }
        (Health::Connected, Some(Barred::Identity(why))) => {
            draft.partial = true;
            draft.blocked(
                C::HypervisorReady,
                Reason::IdentityChanged,
                format!("Nothing is changed through hypervisor {hypervisor}: {why}"),
            )
        }
        (Health::Connected, None) => None,
    }
}

/// A task of ours runs.
pub(super) fn task(view: &View<'_>, draft: &mut Draft) -> Decision {
    running_task(view.observed, draft)
}

pub(super) fn running_task(observed: &Observed, draft: &mut Draft) -> Decision {
    if let Some(task) = observed.asked_ha() {
        draft.partial = true;
        let (condition, reason) = purpose(&task.kind);
        return draft.wait(
            condition,
            reason,
            "High availability was asked to, and has not done so yet.",
            HA_RECHECK,
        );
    }
    let task = observed
        .task
        .as_ref()
        .filter(|t| t.state == TaskState::Running)?;
    draft.partial = true;
    let (condition, reason) = purpose(&task.kind);
    draft.wait(
        condition,
        reason,
        format!("Proxmox task {} is running.", task.kind),
        ON_WAKE,
    )
}

/// What a task is for.
pub(super) fn purpose(kind: &str) -> (C, Reason) {
    match kind {
        "vzclone" => (C::Created, Reason::Cloning),
        "vzstart" | "hastart" => (C::PowerInSync, Reason::Starting),
        "vzshutdown" | "vzstop" | "hastop" => (C::PowerInSync, Reason::Stopping),
        "vzsnapshot" | "vztemplate" => (C::Sealed, Reason::Snapshotting),
        "resize" => (C::ConfigInSync, Reason::Applying),
        "vzdestroy" => (C::Ready, Reason::Deleting),
        _ => (C::Created, Reason::Creating),
    }
}

/// The hypervisor lets its spec ask for all that. A container that is there already is left as it is.
pub(super) fn allowed(view: &View<'_>, draft: &mut Draft) -> Decision {
    let refusal = view.present.not_allowed.as_ref()?;
    let there = view.seen().is_some() && view.mark().is_some();
    draft.partial = there;
    let message = if there {
        format!("{refusal} The container is left as it is until then.")
    } else {
        refusal.clone()
    };
    draft.blocked(C::Created, Reason::NotAllowed, message)
}

/// A VMID is chosen, and stands in the status before it is used.
pub(super) fn vmid(view: &View<'_>, draft: &mut Draft) -> Decision {
    let range = &view.present.range;
    if let Some(pinned) = view.present.pinned.filter(|v| !range.contains(v)) {
        let message = format!(
            "spec.vmid {pinned} is outside of the range {}–{} that hypervisor {} gives us; choose another, or widen spec.vmidRange there.",
            range.start(),
            range.end(),
            view.target.hypervisor
        );
        return draft.blocked(C::Created, Reason::NotAllowed, message);
    }
    if view.target.vmid.is_some() {
        return None;
    }
    choose(view, draft)
}

fn choose(view: &View<'_>, draft: &mut Draft) -> Decision {
    let Some(vmid) = view.observed.candidate else {
        let range = &view.present.range;
        let message = format!(
            "no VMID between {} and {} is free on hypervisor {}; widen spec.vmidRange there or remove what is not needed.",
            range.start(),
            range.end(),
            view.target.hypervisor
        );
        return draft.blocked(C::Created, Reason::NotAllowed, message);
    };
    draft.step(C::Created, Reason::Creating, Step::ReserveVmid { vmid })
}

/// There is a container under our VMID, and it is ours; or it is made.
pub(super) fn exists(view: &View<'_>, draft: &mut Draft) -> Decision {
    source_found(view, draft);
    let (vmid, look) = (view.target.vmid?, view.observed.look.as_ref()?);
    match (&look.presence, &view.observed.ownership) {
        (Presence::Absent, _) => make(view, vmid, draft),
        (Presence::Hidden { what }, _) => foreign(view, draft, what),
        (Presence::Here(_), Some(Ownership::Ours(_))) => None,
        (Presence::Here(seen), Some(Ownership::Another(mark))) => {
            let name = seen.config.hostname().unwrap_or("?");
            let message = format!(
                "container {vmid} ({name}) belongs to {} {}/{} of installation {}; it is left alone. Choose another spec.vmid in a new object.",
                mark.kind, mark.namespace, mark.name, mark.instance
            );
            draft.blocked(C::Created, Reason::OwnedByAnother, message)
        }
        (Presence::Here(seen), _) if view.observed.was_created => {
            // what was known of it stands: it is the same container, only that we may not touch it
            draft.partial = true;
            let mark = view.observed.lost_mark.clone().unwrap_or_else(|| Mark {
                created: true,
                ..view.target.mark(vmid)
            });
            let message = format!(
                "container {vmid} ({}) no longer carries the mark that says it is ours, so it is left alone. Somebody edited its \
                 description; put `{mark}` back as its last line, or delete this object to let go of it.",
                seen.config.hostname().unwrap_or("?")
            );
            draft.stalled(C::Created, Reason::OwnershipLost, message);
            Some(Verdict::Blocked {
                recheck: Some(view.observed.interval),
            })
        }
        (Presence::Here(seen), _) => {
            let what = format!(
                "VMID {vmid} is taken by container {:?}, which is not ours",
                seen.config.hostname().unwrap_or("?")
            );
            foreign(view, draft, &what)
        }
    }
}

fn source_found(view: &View<'_>, draft: &mut Draft) {
    let message = match &view.present.source {
        Source::OsTemplate(volume) => format!("OS template {volume}."),
        Source::Template(t) => format!(
            "LxcTemplate {} is sealed in {} (revision {}).",
            t.name, t.snapshot, t.revision
        ),
    };
    draft.met(C::SourceReady, Reason::Sealed, message);
}

/// Somebody else's guest: another VMID where we may choose, the user's move where it is pinned.
fn foreign(view: &View<'_>, draft: &mut Draft, what: &str) -> Decision {
    if view.present.pinned.is_none() && view.observed.candidate.is_some() {
        return choose(view, draft);
    }
    let message = format!(
        "{what}; it is left alone. Choose another spec.vmid in a new object, or remove that guest yourself."
    );
    draft.blocked(C::Created, Reason::VmidTaken, message)
}

fn make(view: &View<'_>, vmid: u32, draft: &mut Draft) -> Decision {
    if let Some(failure) = view.failure_of(&CREATION) {
        let full = failure.message.contains("out of space");
        let reason = if full {
            Reason::StorageFull
        } else {
            Reason::TaskFailed
        };
        let message = format!(
            "Creating container {vmid} failed (attempt {}): {}",
            failure.count, failure.message
        );
        if let Some(wait) = draft.pause(failure, C::Created, reason, message) {
            return Some(wait);
        }
    }
    if let Some(missing) = missing_bridge(view) {
        return draft.blocked(C::ConfigInSync, Reason::Invalid, missing);
    }
    let mark = view.target.mark(vmid);
    let site = Site {
        node: view.present.node.clone(),
        vmid,
    };
    match &view.present.source {
        Source::OsTemplate(volume) => {
            let params = create_params(
                view.present,
                volume,
                &mark,
                view.observed.ssh_key.as_deref(),
            );
            draft.step(C::Created, Reason::Creating, Step::Create { site, params })
        }
        Source::Template(source) => {
            if let Some(Turn::Behind(before)) = &view.observed.turn {
                let message = format!(
                    "Waiting to clone {}: {} {}/{} is before.",
                    source.name, before.kind, before.namespace, before.name
                );
                return draft.wait(C::Created, Reason::Queued, message, ON_WAKE);
            }
            let params = clone_params(view.present, source, &mark);
            let step = Step::Clone {
                site: Site {
                    node: source.node.clone(),
                    vmid,
                },
                source: source.vmid,
                template: source.name.clone(),
                params,
            };
            draft.step(C::Created, Reason::Cloning, step)
        }
    }
}

/// A bridge that the node lacks: Proxmox would store it all the same and then refuse every later change.
pub(super) fn missing_bridge(view: &View<'_>) -> Option<String> {
    let bridges = view.observed.bridges.as_ref()?;
    let net = view
        .present
        .nets
        .iter()
        .flatten()
        .find(|net| !bridges.contains(&net.bridge))?;
    Some(format!(
        "spec.network {:?}: node {} has no bridge {:?} (it has {}); nothing was changed.",
        net.name,
        view.present.node,
        net.bridge,
        bridges.join(", ")
    ))
}

fn create_params(
    present: &Present,
    volume: &str,
    mark: &Mark,
    ssh_key: Option<&str>,
) -> Vec<(String, String)> {
    let mut params: Vec<(String, String)> = Vec::new();
    let mut add = |key: &str, value: String| params.push((key.to_owned(), value));
    add("vmid", mark.vmid.to_string());
    add("ostemplate", volume.to_owned());
    add(
        "description",
        mark.describe(present.description.as_deref().unwrap_or_default()),
    );
    add("hostname", present.hostname.clone());
    add("cmode", "shell".to_owned());
    if let Some(key) = ssh_key {
        add("ssh-public-keys", key.to_owned());
    }
    if let Some(pool) = &present.pool {
        add("pool", pool.clone());
    }
    let unprivileged = present.unprivileged.unwrap_or(true);
    add("unprivileged", u8::from(unprivileged).to_string());
    if let Some(storage) = &present.storage {
        add(
            "rootfs",
            format!("{storage}:{}", present.disk_gib.unwrap_or(8)),
        );
    }
    for (key, value) in &present.keys {
        // what only root may set follows by a PUT of its own
        if *key == "features" && !super::config::only_nesting(value) {
            continue;
        }
        add(key, value.clone());
    }
    if unprivileged && !present.keys.contains_key("features") {
        add("features", "nesting=1".to_owned());
    }
    for (i, net) in present.nets.iter().flatten().enumerate() {
        add(&format!("net{i}"), net.merge(None).to_string());
    }
    params
}

fn clone_params(
    present: &Present,
    source: &crate::lxc::desired::SourceTemplate,
    mark: &Mark,
) -> Vec<(String, String)> {
    let mut params = vec![
        ("newid".to_owned(), mark.vmid.to_string()),
        ("hostname".to_owned(), present.hostname.clone()),
        (
            "description".to_owned(),
            mark.describe(present.description.as_deref().unwrap_or_default()),
        ),
        ("full".to_owned(), u8::from(!source.linked).to_string()),
    ];
    if let Some(snapshot) = &source.clone_snapshot {
        params.push(("snapname".to_owned(), snapshot.clone()));
    }
    if let Some(pool) = &present.pool {
        params.push(("pool".to_owned(), pool.clone()));
    }
    if let (false, Some(storage)) = (source.linked, &present.storage) {
        params.push(("storage".to_owned(), storage.clone()));
    }
    if present.node != source.node {
        params.push(("target".to_owned(), present.node.clone()));
    }
    params
}

/// It was made to the end: the mark says so durably, or the task that we saw end lets us write it.
pub(super) fn created(view: &View<'_>, draft: &mut Draft) -> Decision {
    let (mark, seen, site) = (view.mark()?, view.seen()?, view.site()?);
    if mark.created {
        let mut message = format!("Container {} on node {}", site.vmid, seen.node);
        if let Some(chosen) = view.observed.reported.placement.as_ref()
            && chosen.node == seen.node
        {
            message = format!("{message}, chosen since {}", chosen.reason);
        }
        draft.met(C::Created, Reason::Created, format!("{message}."));
        return None;
    }
    let ended = |t: &TaskSeen| {
        CREATION.contains(&t.kind.as_str())
            && matches!(t.state, TaskState::Ok | TaskState::Warnings(_))
    };
    if view.observed.task.as_ref().is_some_and(ended) {
        let grown = Mark {
            created: true,
            ..mark.clone()
        };
        return draft.step(
            C::Created,
            Reason::Creating,
            super::config::write_mark(seen, &site, &grown, "the mark that it was created"),
        );
    }
    if view.observed.active_task {
        return draft.wait(
            C::Created,
            Reason::Creating,
            format!(
                "A Proxmox task is still working on container {}.",
                site.vmid
            ),
            Duration::from_secs(2),
        );
    }
    if let Some(lock) = seen.config.lock() {
        return locked(draft, site.vmid, lock, false);
    }
    draft.step(
        C::Created,
        Reason::Creating,
        Step::Destroy {
            site,
            half_made: true,
        },
    )
}

/// Nothing holds its config.
pub(super) fn unlocked(view: &View<'_>, draft: &mut Draft) -> Decision {
    let lock = view.seen()?.config.lock()?;
    // it may run and serve meanwhile: what was found of that still stands
    draft.partial = true;
    locked(draft, view.target.vmid?, lock, view.observed.active_task)
}

/// A lock of Proxmox: a backup or a migration ends by itself, what a dead task left only a person can remove.
pub(super) fn locked(draft: &mut Draft, vmid: u32, lock: &str, active: bool) -> Decision {
    if active || matches!(lock, "backup" | "migrate" | "fstrim" | "mounted") {
        let message = format!(
            "Container {vmid} is busy: Proxmox holds it locked ({lock}) and nothing is changed meanwhile."
        );
        return draft.wait(C::Created, Reason::Busy, message, LOCKED_RECHECK);
    }
    let message = format!(
        "container {vmid} is locked ({lock}) and no task that we can see holds it: a task died half-way. Once you have made sure that \
         nothing works on it, run `pct unlock {vmid}` on its node; no API call can."
    );
    draft.stalled(C::Created, Reason::Locked, message);
    Some(Verdict::Blocked {
        recheck: Some(LOCKED_RECHECK),
    })
}
