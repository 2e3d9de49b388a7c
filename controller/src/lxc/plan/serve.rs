//! What a container does in the end: it runs, holds its GPUs, serves its model, answers its probe.

use std::time::Duration;

use phoenix_crds::conditions::{ConditionType as C, Reason};

use super::{
    Decision, Draft, ON_WAKE, View,
    guest::{last_line, unavailable},
};
use crate::{
    condition::Finding,
    engine::Verdict,
    guest::{GuestFacts, VllmUnit},
    lxc::{
        desired::Role,
        step::{GuestStep, Site, Step},
    },
    probe::{HttpProbe, VllmProbe},
    prober::ProbeView,
};

/// While vLLM is not serving, its unit is looked at so often: the journal tells what a refused connection can't.
const UNIT_RECHECK: Duration = Duration::from_secs(10);

/// It runs, or is stopped, as asked.
pub(super) fn power(view: &View<'_>, draft: &mut Draft) -> Decision {
    let Role::Container { running, .. } = view.present.role else {
        return None;
    };
    let (seen, site) = (view.seen()?, view.site()?);
    match (running, seen.running()) {
        (true, true) => draft.met(
            C::PowerInSync,
            Reason::Running,
            format!("Running on node {}.", seen.node),
        ),
        (false, false) => {
            draft.met(C::PowerInSync, Reason::Stopped, "Stopped, as asked.");
            return Some(Verdict::Done {
                recheck: view.observed.drift,
            });
        }
        (true, false) => return start(view, draft, &site),
        (false, true) => {
            if let Some(failure) = view.failure_of(&["vzshutdown"]) {
                let message = format!(
                    "It did not shut down within {} s (attempt {}): {}. It is not killed for that; look inside, or run `pct stop {}`.",
                    view.present.shutdown_timeout.as_secs(),
                    failure.count,
                    failure.message,
                    site.vmid
                );
                if let Some(wait) = draft.pause(failure, C::PowerInSync, Reason::Stopping, message)
                {
                    return Some(wait);
                }
            }
            let step = Step::Shutdown {
                site,
                timeout: view.present.shutdown_timeout,
                force: false,
            };
            return draft.step(C::PowerInSync, Reason::Stopping, step);
        }
    }
    None
}

/// Starts it, with pauses between tries that failed.
pub(super) fn start(view: &View<'_>, draft: &mut Draft, site: &Site) -> Decision {
    if let Some(failure) = view.failure_of(&["vzstart"]) {
        if let Some(device) =
            missing_device(&failure.message).filter(|d| super::config::is_nvidia(d))
        {
            let message = format!(
                "Container {} does not start: node {} has no {device}. After a reboot the driver's device nodes appear with the first use: \
                 run `nvidia-smi` (and `nvidia-modprobe -u -c0`) there, and make it permanent with nvidia-persistenced.",
                site.vmid, site.node
            );
            draft.stalled(C::GpuAllocated, Reason::HostDeviceMissing, message);
            if let Some(left) = failure.pause_left() {
                return Some(Verdict::Wait { until: left });
            }
        }
        let message = format!(
            "Starting container {} failed (attempt {}): {}",
            site.vmid, failure.count, failure.message
        );
        if let Some(wait) = draft.pause(failure, C::PowerInSync, Reason::StartFailed, message) {
            return Some(wait);
        }
    }
    draft.step(
        C::PowerInSync,
        Reason::Starting,
        Step::Start { site: site.clone() },
    )
}

/// Proxmox's "Device /dev/nvidia0 does not exist".
pub(in crate::lxc) fn missing_device(message: &str) -> Option<&str> {
    let rest = message.split_once("Device ")?.1;
    rest.split_once(" does not exist").map(|(device, _)| device)
}

/// It does its job.
pub(super) fn workload(view: &View<'_>, draft: &mut Draft) -> Decision {
    let Role::Container {
        vllm,
        probe,
        startup_timeout,
        ..
    } = &view.present.role
    else {
        return None;
    };
    if let Some(decision) = gpus(view, draft) {
        return Some(decision);
    }
    if let Some(files) = vllm {
        return serving(view, draft, &files.args_hash, *startup_timeout);
    }
    if probe.is_some() {
        return answering(view, draft);
    }
    None
}

fn gpus(view: &View<'_>, draft: &mut Draft) -> Decision {
    let wanted = &view.present.gpus;
    if wanted.is_empty() {
        return None;
    }
    let Some(facts) = view.observed.guest.known() else {
        if wanted
            .iter()
            .all(|w| view.observed.reported.gpus.contains(w))
        {
            draft.met(C::GpuAllocated, Reason::Allocated, visible(wanted));
            return None;
        }
        if let Some(decision) = unavailable(view, draft, C::SetupComplete, Reason::Waiting) {
            return Some(decision);
        }
        let step = Step::Guest {
            site: view.site()?,
            step: GuestStep::Inspect,
        };
        return draft.step(C::SetupComplete, Reason::Waiting, step);
    };
    match judge_gpus(facts, wanted) {
        Ok(message) => {
            draft.met(C::GpuAllocated, Reason::Allocated, message);
            None
        }
        Err((reason, message)) => {
            draft.stalled(C::GpuAllocated, reason, message);
            look_again(view, Duration::from_mins(1))
        }
    }
}

fn judge_gpus(facts: &GuestFacts, wanted: &[u32]) -> Result<String, (Reason, String)> {
    if let Some(error) = &facts.nvidia_error {
        let lower = error.to_lowercase();
        if lower.contains("version mismatch") {
            let host = facts.host_driver.as_deref().unwrap_or("unknown");
            let message = format!(
                "the guest's NVIDIA driver does not fit the host's ({host}): {error}. Rebuild the template that brings the driver, \
                 or install version {host} inside."
            );
            return Err((Reason::DriverMismatch, message));
        }
        return Err((
            Reason::NotVisible,
            format!("nvidia-smi fails in the guest: {error}"),
        ));
    }
    let host = facts.host_driver.as_deref();
    if let Some(gpu) = facts
        .gpus
        .iter()
        .find(|g| host.is_some_and(|h| h != g.driver_version))
    {
        let message = format!(
            "the guest's NVIDIA driver is {}, the host's is {}.",
            gpu.driver_version,
            host.unwrap_or_default()
        );
        return Err((Reason::DriverMismatch, message));
    }
    let minors: Vec<u32> = facts.gpus.iter().filter_map(|g| g.minor).collect();
    let all_known = minors.len() == facts.gpus.len();
    let missing: Vec<String> = wanted
        .iter()
        .filter(|w| all_known && !minors.contains(w))
        .map(u32::to_string)
        .collect();
    if facts.gpus.len() < wanted.len() || !missing.is_empty() {
        let message = format!(
            "the guest sees {} of the {} GPUs asked for (missing: {}); run `nvidia-smi` in it and on the node.",
            facts.gpus.len(),
            wanted.len(),
            if missing.is_empty() {
                "unknown".to_owned()
            } else {
                missing.join(", ")
            }
        );
        return Err((Reason::NotVisible, message));
    }
    Ok(visible(wanted))
}

fn visible(gpus: &[u32]) -> String {
    format!(
        "GPUs {} are visible inside.",
        gpus.iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    )
}

/// Another inspection when the last one is old enough, else a wait until it is.
fn look_again(view: &View<'_>, every: Duration) -> Decision {
    if view.observed.guest.busy.is_some() {
        return Some(Verdict::Wait { until: ON_WAKE });
    }
    if let Some(left) = view
        .observed
        .guest
        .trouble
        .as_ref()
        .and_then(crate::memory::Failure::pause_left)
    {
        return Some(Verdict::Wait { until: left });
    }
    let age = view.observed.guest.age().unwrap_or(every);
    Some(
        match every.checked_sub(age).filter(|left| !left.is_zero()) {
            Some(left) => Verdict::Wait { until: left },
            None => Verdict::Do(Step::Guest {
                site: view.site()?,
                step: GuestStep::Inspect,
            }),
        },
    )
}

fn serving(view: &View<'_>, draft: &mut Draft, args_hash: &str, patience: Duration) -> Decision {
    let probed = view.observed.probe.as_ref();
    let guest = &view.observed.guest;
    let unit = guest.known().and_then(|f| f.vllm.as_ref());
    let runs_with = unit
        .map(|u| &u.args_hash)
        .or(view.observed.reported.args_hash.as_ref());
    let fits = runs_with.is_some_and(|hash| hash == args_hash);
    if fits
        && let Some(ProbeView {
            vllm: Some(VllmProbe::Serving { models, version }),
            ..
        }) = probed
    {
        let message = format!(
            "vLLM {} serves {}.",
            version.as_deref().unwrap_or(""),
            models.join(", ")
        );
        draft.met(
            C::VllmReady,
            Reason::Serving,
            message.replace("vLLM  ", "vLLM "),
        );
        return Some(Verdict::Done {
            recheck: view.observed.drift,
        });
    }
    if fits && view.observed.reported.answered && probed.is_some_and(ProbeView::unasked) {
        return unasked(draft);
    }
    if let Some(decision) = unavailable(view, draft, C::VllmReady, Reason::Installing) {
        return Some(decision);
    }
    let Some(facts) = guest.known() else {
        return inside(view, draft, Reason::Loading, GuestStep::Inspect);
    };
    match &facts.vllm {
        None => inside(view, draft, Reason::Installing, GuestStep::ApplyVllm),
        Some(unit) if unit.args_hash != args_hash => {
            inside(view, draft, Reason::Installing, GuestStep::ApplyVllm)
        }
        Some(unit) if !unit.executable_found => {
            let message = "vLLM's executable (spec.vllm.executable) is not in the container; the template that it was cloned from brings none.";
            draft.stalled(C::VllmReady, Reason::Exited, message);
            look_again(view, UNIT_RECHECK * 6)
        }
        Some(unit) => {
            let loading_for = unit
                .since
                .map(|s| view.now.as_second().saturating_sub(s))
                .and_then(|s| u64::try_from(s).ok())
                .unwrap_or(0);
            let (reason, message) =
                explain(unit, probed.and_then(|p| p.vllm.as_ref()), loading_for);
            let finding = Finding::working(C::VllmReady, reason, message);
            let late = loading_for > patience.as_secs() || unit.restarts >= crate::memory::TRIES;
            draft.found(if late && reason != Reason::Unreachable {
                Finding::stalled(C::VllmReady, reason, finding.message)
            } else {
                finding
            });
            look_again(view, UNIT_RECHECK)
        }
    }
}

fn inside(view: &View<'_>, draft: &mut Draft, reason: Reason, step: GuestStep) -> Decision {
    draft.step(
        C::VllmReady,
        reason,
        Step::Guest {
            site: view.site()?,
            step,
        },
    )
}

/// Why vLLM is not serving, from its unit, its journal and the probe.
fn explain(unit: &VllmUnit, probe: Option<&VllmProbe>, loading_for: u64) -> (Reason, String) {
    if let Some((reason, cause)) = cause(&unit.journal_tail) {
        return (
            reason,
            format!("{cause} (restarted {} times by systemd).", unit.restarts),
        );
    }
    if unit.active != "active" {
        let code = unit
            .exit_status
            .map(|c| format!(" with exit code {c}"))
            .unwrap_or_default();
        let last = last_line(&unit.journal_tail).unwrap_or("nothing");
        let message = format!(
            "vLLM ended{code} and is {} ({}); its journal last said: {last:?}.",
            unit.active, unit.sub
        );
        return (Reason::Exited, message);
    }
    match probe {
        Some(VllmProbe::WrongModel { served }) => (
            Reason::WrongModel,
            format!(
                "vLLM answers, but it serves {} and not the model of this spec.",
                served.join(", ")
            ),
        ),
        Some(VllmProbe::Unreachable { why }) => (
            Reason::Unreachable,
            format!("vLLM's port can't be reached from the operator: {why}."),
        ),
        Some(VllmProbe::Unauthorized) => (
            Reason::Unreachable,
            "vLLM refuses the API key of spec.vllm.apiKey.".to_owned(),
        ),
        Some(VllmProbe::NoCompletion { why }) => (
            Reason::Loading,
            format!("vLLM has loaded its model, but {why}."),
        ),
        Some(VllmProbe::Unhealthy { status }) => (
            Reason::Loading,
            format!("vLLM answers {status} on /health."),
        ),
        _ => (
            Reason::Loading,
            format!("vLLM is loading its model (for {loading_for} s)."),
        ),
    }
}

/// Causes that a person can act on, as vLLM's journal words them.
fn cause(journal: &str) -> Option<(Reason, String)> {
    const CAUSES: [(&str, Reason, &str); 6] = [
        (
            "CUDA out of memory",
            Reason::OutOfMemory,
            "The model does not fit into the GPUs' memory",
        ),
        (
            "OutOfMemoryError",
            Reason::OutOfMemory,
            "The model does not fit into the GPUs' memory",
        ),
        (
            "No available memory for the cache blocks",
            Reason::OutOfMemory,
            "No GPU memory is left for the KV cache; lower maxModelLen or raise gpuMemoryUtilization",
        ),
        (
            "GatedRepoError",
            Reason::ModelNotFound,
            "The model is gated: its licence must be accepted and spec.vllm.huggingFaceToken be set",
        ),
        (
            "RepositoryNotFoundError",
            Reason::ModelNotFound,
            "There is no such model on the hub, or it is private",
        ),
        (
            "is not a local folder and is not a valid model identifier",
            Reason::ModelNotFound,
            "There is no such model on the hub",
        ),
    ];
    let (line, (_, reason, text)) = journal.lines().rev().find_map(|line| {
        CAUSES
            .iter()
            .find(|(needle, ..)| line.contains(needle))
            .map(|c| (line, c))
    })?;
    Some((
        *reason,
        format!(
            "{text}: {}",
            line.trim().chars().take(200).collect::<String>()
        ),
    ))
}

/// A prober that has just started has no answer yet: what was said before stands so long.
#[expect(clippy::unnecessary_wraps, reason = "a check returns it as it is")]
fn unasked(draft: &mut Draft) -> Decision {
    draft.partial = true;
    Some(Verdict::Wait { until: ON_WAKE })
}

fn answering(view: &View<'_>, draft: &mut Draft) -> Decision {
    match view.observed.probe.as_ref().and_then(|p| p.http.as_ref()) {
        Some(HttpProbe::Healthy { status }) => {
            draft.met(
                C::ProbeReady,
                Reason::Healthy,
                format!("Its probe answers {status}."),
            );
            Some(Verdict::Done {
                recheck: view.observed.drift,
            })
        }
        Some(HttpProbe::Unhealthy { status }) => draft.wait(
            C::ProbeReady,
            Reason::Unhealthy,
            format!("Its probe answers {status}, not what spec.probe expects."),
            ON_WAKE,
        ),
        Some(HttpProbe::Unreachable { why }) => draft.wait(
            C::ProbeReady,
            Reason::Unreachable,
            format!("Its probe gets no answer: {why}."),
            ON_WAKE,
        ),
        None if view.observed.reported.answered && view.observed.probe.is_some() => unasked(draft),
        None => draft.wait(
            C::ProbeReady,
            Reason::Unreachable,
            "It is being probed for the first time.",
            ON_WAKE.min(view.observed.drift),
        ),
    }
}
