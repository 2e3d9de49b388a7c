//! GPUs: held before their devices are set and before the start, or waited for with the holder's name.

mod inside;

use std::collections::BTreeSet;

use phoenix_crds::conditions::{ConditionType as C, Reason};

pub(super) use inside::{driver_before_setup, inside, look_again};

use super::{Decision, Draft, ON_WAKE, View, config::is_nvidia};
use crate::{
    engine::Verdict,
    fleet::Seen,
    lxc::{
        desired::{Present, Role},
        mark::Mark,
        observe::Claim,
        step::{Step, gpus_in_words},
    },
    memory::Failure,
};

/// Whether it is to hold GPUs: from before its start until it is stopped as asked or, of a template, set up and stopped to be sealed.
pub(in crate::lxc) fn due(present: &Present, mark: &Mark, running: bool) -> bool {
    match present.role {
        Role::Template { .. } => running || mark.setup.as_ref() != Some(&present.setup_mark),
        Role::Container { running: asked, .. } => asked || running,
    }
}

/// The GPUs whose devices the container has now, also those that only the next start takes away.
pub(in crate::lxc) fn with_devices(seen: &Seen) -> BTreeSet<u32> {
    let minor = |path: &str| path.strip_prefix("/dev/nvidia")?.parse().ok();
    let leaving = seen
        .pending
        .iter()
        .filter(|p| p.key.starts_with("dev") && p.waits())
        .filter_map(|p| {
            let value = proxmox_client::PropertyString::parse(p.value.as_deref()?, Some("path"));
            minor(value.get("path")?)
        });
    let devices = seen.config.devices();
    let there = devices.values().filter_map(|d| minor(d.get("path")?));
    there.chain(leaving).collect()
}

/// It holds its GPUs, or takes them. Where they are another's, that is said, and hinders only what needs them.
pub(super) fn hold(view: &View<'_>, draft: &mut Draft) -> Decision {
    let (seen, mark, present) = (view.seen()?, view.mark()?, view.present);
    let stopping = matches!(present.role, Role::Container { running: false, .. });
    if !present.asks_gpus() || stopping || !due(present, mark, seen.running()) {
        return None;
    }
    match choose(view, seen) {
        // of a container it is said once they are seen inside
        Ok(None) if present.is_template() => {
            let message = format!(
                "Holds {} of node {} until it is sealed.",
                gpus_in_words(&present.gpus),
                seen.node
            );
            draft.met(C::GpuAllocated, Reason::Allocated, message);
            None
        }
        Ok(None) => None,
        Ok(Some(gpus)) => Some(Verdict::Do(Step::TakeGpus {
            site: view.site()?,
            gpus,
            exclusive: present.gpus_exclusive,
        })),
        Err((reason, message)) => {
            draft.gpus_denied = true;
            draft.working(C::GpuAllocated, reason, message);
            None
        }
    }
}

/// Without its GPUs it is not started; whoever lets go of one wakes it.
pub(super) fn denied(view: &View<'_>, draft: &mut Draft) -> Decision {
    let waits = draft.gpus_denied && !view.seen()?.running();
    waits.then_some(Verdict::Wait { until: ON_WAKE })
}

/// Nothing where it holds what it asks for, else what it may take.
fn choose(view: &View<'_>, seen: &Seen) -> Result<Option<Vec<u32>>, (Reason, String)> {
    let (present, held) = (view.present, &view.observed.gpus_held);
    let wanted = &present.gpus;
    let given = !wanted.is_empty()
        && wanted
            .iter()
            .all(|g| held.get(g) == Some(&present.gpus_exclusive));
    let blocked: Vec<&Claim> = wanted.iter().filter_map(|g| blocker(view, *g)).collect();
    // what runs keeps what it was given; what doesn't run yet looks again whether somebody got in between
    if given && (seen.running() || blocked.is_empty()) {
        return Ok(None);
    }
    if let Some(count) = present.gpu_count {
        return pick(view, seen, usize::try_from(count).unwrap_or(usize::MAX)).map(Some);
    }
    if blocked.is_empty() {
        Ok(Some(wanted.clone()))
    } else {
        Err((Reason::Conflict, conflict(view, seen, &blocked)))
    }
}

/// Who keeps this one from holding a GPU.
fn blocker<'a>(view: &View<'a>, gpu: u32) -> Option<&'a Claim> {
    let exclusive = view.present.gpus_exclusive;
    let mut claims = view.observed.gpu_claims.iter();
    claims.find(|c| c.gpu == gpu && c.excludes(exclusive))
}

/// As many as asked for: those that it holds or whose devices it has, then the least used, then by index.
fn pick(view: &View<'_>, seen: &Seen, count: usize) -> Result<Vec<u32>, (Reason, String)> {
    let observed = view.observed;
    let mut own: BTreeSet<u32> = observed.gpus_held.keys().copied().collect();
    own.extend(with_devices(seen));
    if seen.running() {
        // a running container is given more, or fewer, but never others
        let blocked: Vec<&Claim> = own.iter().filter_map(|g| blocker(view, *g)).collect();
        if !blocked.is_empty() && own.len() <= count {
            return Err((Reason::Conflict, conflict(view, seen, &blocked)));
        }
    }
    let known: BTreeSet<u32> = observed.node_gpus.iter().chain(&own).copied().collect();
    let users = |gpu: u32| observed.gpu_claims.iter().filter(|c| c.gpu == gpu).count();
    let mut free: Vec<u32> = known
        .iter()
        .copied()
        .filter(|g| blocker(view, *g).is_none())
        .collect();
    free.sort_by_key(|g| (!own.contains(g), users(*g), *g));
    if free.len() < count {
        let blocked: Vec<&Claim> = known.iter().filter_map(|g| blocker(view, *g)).collect();
        return Err((
            Reason::NoFreeGpu,
            none_free(view, seen, count, free.len(), &known, &blocked),
        ));
    }
    free.truncate(count);
    free.sort_unstable();
    Ok(free)
}

fn conflict(view: &View<'_>, seen: &Seen, blocked: &[&Claim]) -> String {
    let then = if seen.running() {
        "It is given this one then, by itself, and goes on with what it had until then."
    } else {
        "This one is started then, by itself."
    };
    format!(
        "{}{} {then}",
        holders(&seen.node, blocked),
        ends(view, blocked)
    )
}

fn none_free(
    view: &View<'_>,
    seen: &Seen,
    count: usize,
    free: usize,
    known: &BTreeSet<u32>,
    blocked: &[&Claim],
) -> String {
    let node = &seen.node;
    if known.is_empty() {
        return format!(
            "spec.gpus.count asks for {count}, but which GPUs node {node} has is not known: grant the token Sys.Audit on / (`pveum acl modify`), \
             or name the GPUs by spec.gpus.indices."
        );
    }
    let all = known.len();
    if all < count {
        return format!(
            "spec.gpus.count asks for {count}, but node {node} is known to have no more than {all}; ask for fewer."
        );
    }
    format!(
        "spec.gpus.count asks for {count}, and {free} of the {all} GPUs of node {node} can be had. {}{} It goes on then, by itself.",
        holders(node, blocked),
        ends(view, blocked)
    )
}

/// Who holds what, each in a clause.
fn holders(node: &str, blocked: &[&Claim]) -> String {
    const NAMED: usize = 4;
    let mut clauses: Vec<String> = blocked
        .iter()
        .take(NAMED)
        .map(|c| {
            let how = if c.exclusive { "Exclusive" } else { "Shared" };
            format!("GPU {} is held by {} ({how})", c.gpu, c.holder)
        })
        .collect();
    if blocked.len() > NAMED {
        clauses.push(format!("{} more are held by others", blocked.len() - NAMED));
    }
    format!("On node {node}, {}.", clauses.join(", "))
}

/// What ends it.
fn ends(view: &View<'_>, blocked: &[&Claim]) -> String {
    let alone = view.present.gpus_exclusive && blocked.iter().all(|c| !c.exclusive);
    let wish = if alone {
        " This one asks for it Exclusive."
    } else {
        ""
    };
    let until = match (
        blocked.iter().any(|c| c.building),
        blocked.iter().any(|c| !c.building),
    ) {
        (true, false) => "is sealed or deleted",
        (true, true) => "is sealed, stopped (spec.powerState: Stopped) or deleted",
        _ => "is stopped (spec.powerState: Stopped) or deleted",
    };
    format!("{wish} That ends when the holder {until}.")
}

/// The device that Proxmox misses on the node: its "Device /dev/nvidia0 does not exist".
pub(in crate::lxc) fn missing_device(message: &str) -> Option<&str> {
    let rest = message.split_once("Device ")?.1;
    rest.split_once(" does not exist").map(|(device, _)| device)
}

/// The same, where it is one of a GPU.
pub(in crate::lxc) fn missing_gpu_device(message: &str) -> Option<&str> {
    missing_device(message).filter(|device| is_nvidia(device))
}

/// Proxmox refused for want of a device: what to do about it, and a pause before the next try.
pub(super) fn host_device(view: &View<'_>, draft: &mut Draft, failure: &Failure) -> Decision {
    let device = missing_gpu_device(&failure.message)?;
    let site = view.site()?;
    let how = if device.starts_with("/dev/nvidia-uvm") {
        "run `nvidia-modprobe -u -c=0` there"
    } else {
        "run `modprobe nvidia`, `nvidia-smi` and `nvidia-modprobe -u -c=0` there"
    };
    let is_card = device.ends_with(|c: char| c.is_ascii_digit());
    let or = if is_card {
        " (or correct spec.gpus, if the node has no such GPU)"
    } else {
        ""
    };
    let message = format!(
        "node {} has no {device}, which container {} needs. After a boot the NVIDIA driver's device files appear with its first use: {how}{or}, \
         and enable nvidia-persistenced to have them at each boot. It is tried again by itself.",
        site.node, site.vmid
    );
    draft.stalled(C::GpuAllocated, Reason::HostDeviceMissing, message);
    failure
        .pause_left()
        .map(|left| Verdict::Wait { until: left })
}
