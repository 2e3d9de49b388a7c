//! The way out: nothing is stopped before all that hinders was checked, and nothing is destroyed that isn't ours.

use std::time::Duration;

use phoenix_crds::conditions::{ConditionType as C, Reason};
use proxmox_client::TaskState;

use super::{Decision, Draft, ON_WAKE, presence};
use crate::{
    engine::Verdict,
    fleet::{Presence, Seen},
    lxc::{
        desired::{Absence, Target},
        mark::Ownership,
        observe::Observed,
        step::{Site, Step},
    },
};

const CHILDREN_RECHECK: Duration = Duration::from_mins(1);

/// What to do so that it is gone.
pub(super) fn gone(
    target: &Target,
    absence: &Absence,
    observed: &Observed,
    draft: &mut Draft,
) -> Verdict<Step> {
    let Some(vmid) = target.vmid else {
        return Verdict::Gone;
    };
    if absence.retain {
        return Verdict::Gone;
    }
    if let Some(verdict) = presence::connection(observed, &target.hypervisor, draft) {
        // unreachable is not gone
        return verdict;
    }
    if let Some(task) = observed.asked_ha().or_else(|| {
        observed
            .task
            .as_ref()
            .filter(|t| t.state == TaskState::Running)
    }) {
        return wait(
            draft,
            format!("Waiting for Proxmox task {}.", task.kind),
            ON_WAKE,
        );
    }
    let Some(look) = &observed.look else {
        return Verdict::Wait { until: ON_WAKE };
    };
    let seen = match (&look.presence, &observed.ownership) {
        (Presence::Absent, _) => return Verdict::Gone,
        (Presence::Hidden { what }, _) => {
            let message = format!(
                "{what}, so it can't be told whether it is this object's. Give the token its rights back, or let go of it with \
                 spec.deletionPolicy: Retain."
            );
            return stalled(draft, message);
        }
        (Presence::Here(seen), Some(Ownership::Ours(_))) => seen,
        // not ours, or not any more: left alone
        (Presence::Here(_), _) => return Verdict::Gone,
    };
    hindered(absence, observed, seen, vmid, draft)
        .unwrap_or_else(|| destroy(absence, observed, seen, vmid, draft))
}

fn hindered(
    absence: &Absence,
    observed: &Observed,
    seen: &Seen,
    vmid: u32,
    draft: &mut Draft,
) -> Decision {
    if !absence.children.is_empty() {
        let message = format!(
            "Waiting for what was cloned from it: {}. Delete those first; this one follows by itself.",
            absence.children.join(", ")
        );
        return Some(wait(draft, message, CHILDREN_RECHECK));
    }
    if !observed.dependents.is_empty() {
        let message = format!(
            "Proxmox has clones of its volume that are no object's: {}. Destroy or copy those first.",
            observed.dependents.join(", ")
        );
        return Some(wait(draft, message, CHILDREN_RECHECK));
    }
    if seen.config.get("protection").is_some_and(|v| v != "0") {
        let message = format!(
            "container {vmid} is protected in Proxmox; run `pct set {vmid} --protection 0` when it may go."
        );
        return Some(stalled(draft, message));
    }
    if let Some(lock) = seen.config.lock().filter(|_| !observed.half_made) {
        return presence::locked(draft, vmid, lock, observed.active_task);
    }
    None
}

fn destroy(
    absence: &Absence,
    observed: &Observed,
    seen: &Seen,
    vmid: u32,
    draft: &mut Draft,
) -> Verdict<Step> {
    let site = Site {
        node: seen.node.clone(),
        vmid,
    };
    if let Some(failure) = observed
        .failure
        .as_ref()
        .filter(|f| matches!(f.what.as_str(), "vzdestroy" | "vzshutdown" | "vzstop"))
    {
        let message = format!(
            "Destroying container {vmid} failed (attempt {}): {}",
            failure.count, failure.message
        );
        if let Some(verdict) = draft.pause(failure, C::Ready, Reason::Deleting, message) {
            return verdict;
        }
    }
    if seen.running() {
        let step = Step::Shutdown {
            site,
            timeout: absence.shutdown_timeout,
            force: true,
        };
        draft.working(
            C::Ready,
            Reason::Deleting,
            format!("Shutting container {vmid} down before it is destroyed."),
        );
        return Verdict::Do(step);
    }
    draft.working(
        C::Ready,
        Reason::Deleting,
        format!("Destroying container {vmid}."),
    );
    Verdict::Do(Step::Destroy {
        site,
        half_made: false,
    })
}

fn wait(draft: &mut Draft, message: String, until: Duration) -> Verdict<Step> {
    draft.working(C::Ready, Reason::Deleting, message);
    Verdict::Wait { until }
}

fn stalled(draft: &mut Draft, message: String) -> Verdict<Step> {
    draft.stalled(C::Ready, Reason::Deleting, message);
    Verdict::Blocked {
        recheck: Some(ON_WAKE),
    }
}
