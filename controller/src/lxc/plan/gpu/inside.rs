//! What is seen inside: the GPUs that it was given and no others, by libraries that fit the node's driver.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use phoenix_crds::conditions::{ConditionType as C, Reason};

use super::{
    super::{
        Decision, Draft, ON_WAKE, View,
        guest::{clip, last_line, pause_left, unavailable},
    },
    with_devices,
};
use crate::{
    engine::Verdict,
    guest::{GuestFacts, SetupPhase, SetupState},
    lxc::{
        observe::DriverStep,
        step::{GuestStep, Step, gpus_in_words},
    },
    memory::Failure,
};

/// What is found wrong inside is looked at again so often: a person puts it right.
const RECHECK: Duration = Duration::from_mins(1);
/// Uptimes are told in whole seconds, and some time before they are read.
const CLOCKS: i64 = 5;

/// The GPUs are seen inside, those that it was given and no others.
pub(in crate::lxc::plan) fn inside(view: &View<'_>, draft: &mut Draft) -> Decision {
    let wanted = &view.present.gpus;
    if !view.present.asks_gpus() || draft.gpus_denied {
        return None;
    }
    let Some(facts) = since_boot(view) else {
        return look(view, draft, wanted);
    };
    if let Some((guest, host)) = facts.driver_mismatch() {
        return bring_driver(view, draft, facts, &guest, &host);
    }
    match judge(view, facts, wanted) {
        Ok(message) => {
            draft.met(C::GpuAllocated, Reason::Allocated, message);
            None
        }
        Err((reason, message)) => {
            draft.stalled(C::GpuAllocated, reason, message);
            look_again(view, RECHECK)
        }
    }
}

/// What was found inside since it was started: before that the node may have been booted with another driver.
fn since_boot<'a>(view: &View<'a>) -> Option<&'a GuestFacts> {
    let (facts, at) = view.observed.guest.facts.as_ref()?;
    let up = Duration::from_secs(view.seen()?.status.uptime.unwrap_or_default());
    let booted: Option<Instant> = view.observed.look.as_ref()?.at.checked_sub(up);
    let clocks = Duration::from_secs(CLOCKS.unsigned_abs());
    booted.is_none_or(|b| *at + clocks >= b).then_some(&**facts)
}

/// Nothing is known from inside: what the status says may do, or else somebody has to go and look.
fn look(view: &View<'_>, draft: &mut Draft, wanted: &[u32]) -> Decision {
    let reported = &view.observed.reported;
    let look = Step::Guest {
        site: view.site()?,
        step: GuestStep::Inspect,
    };
    if wanted.iter().all(|w| reported.gpus.contains(w))
        && let Some(since) = reported.gpus_since
    {
        let up = view.seen()?.status.uptime.unwrap_or_default();
        let age = view.observed.look.as_ref()?.at.elapsed().as_secs();
        let booted = view.now.as_second() - i64::try_from(up + age).unwrap_or_default();
        if since + CLOCKS >= booted {
            draft.met(C::GpuAllocated, Reason::Allocated, visible(wanted));
            return None;
        }
        // restarted while nobody watched: what was said stands until it was looked at
        draft.partial = true;
        let pause = occupied(view).unwrap_or(Verdict::Do(look));
        return Some(pause);
    }
    if let Some(decision) = unavailable(view, draft, C::SetupComplete, Reason::Waiting) {
        return Some(decision);
    }
    draft.step(C::SetupComplete, Reason::Waiting, look)
}

/// Before its own setup begins, which needs the driver: libraries that came with the clone are brought to the node's version.
pub(in crate::lxc::plan) fn driver_before_setup(view: &View<'_>, draft: &mut Draft) -> Decision {
    let facts = view.observed.guest.known()?;
    let (guest, host) = facts.driver_mismatch()?;
    // without an offer it is the setup that may bring them
    view.observed.driver_step.as_ref()?;
    let run = facts.state.as_ref().and_then(|s| s.setup.as_ref());
    let begun = view.present.setup.as_ref().zip(run);
    if !view.present.asks_gpus() || begun.is_some_and(|(own, run)| run.hash == own.hash) {
        return None;
    }
    draft.working(
        C::SetupComplete,
        Reason::Waiting,
        "The setup begins when the NVIDIA libraries inside fit the node's driver.",
    );
    bring_driver(view, draft, facts, &guest, &host)
}

/// The libraries inside are of another version than the node's driver: the driver step of a setup brings them to it, where one is offered.
fn bring_driver(
    view: &View<'_>,
    draft: &mut Draft,
    facts: &GuestFacts,
    guest: &str,
    host: &str,
) -> Decision {
    let site = view.site()?;
    let what = format!(
        "the NVIDIA libraries in container {} are of version {guest}, the driver of node {} is {host}, so nothing in it can use a GPU.",
        site.vmid, site.node
    );
    let Some(step) = &view.observed.driver_step else {
        let message = format!(
            "{what} Install {host} inside, or rebuild the template that brought them and make this one anew. A setup script with the line \
             `# phoenix: driver-step` would be run again by itself (see `kubectl explain {}.spec.setup.script`).",
            view.target.key.kind.to_string().to_lowercase()
        );
        draft.stalled(C::GpuAllocated, Reason::DriverMismatch, message);
        return look_again(view, RECHECK);
    };
    let run = facts.state.as_ref().and_then(|s| s.setup.as_ref());
    let brings = format!("The driver step of {} brings them to that", step.of);
    let (progress, next) = match run.filter(|r| r.hash == step.run.hash) {
        None => (
            format!("{brings}."),
            Ok(GuestStep::StartDriverStep { attempt: 1 }),
        ),
        Some(run) if run.phase.is_running() => {
            let last = clip(last_line(&run.tail).unwrap_or("it has begun"));
            (format!("{brings}: {last}"), Ok(GuestStep::AwaitSetup))
        }
        Some(run) if run.attempt > step.run.retries => {
            let message = format!(
                "{what} {} in {} attempts; its last lines are in status.setup. Correct that script, or install {host} inside.",
                ended(step, run),
                run.attempt
            );
            draft.stalled(C::GpuAllocated, Reason::DriverMismatch, message);
            return look_again(view, RECHECK);
        }
        Some(run) => {
            let next = match pause_left(view, run) {
                Some(left) => Err(left),
                None => Ok(GuestStep::StartDriverStep {
                    attempt: run.attempt + 1,
                }),
            };
            (format!("{} and is tried again.", ended(step, run)), next)
        }
    };
    let message = format!("{what} {progress}");
    draft.working(C::GpuAllocated, Reason::DriverMismatch, message);
    occupied(view).or(Some(match next {
        Ok(step) => Verdict::Do(Step::Guest { site, step }),
        Err(left) => Verdict::Wait { until: left },
    }))
}

/// How a driver step ended without effect.
fn ended(step: &DriverStep, run: &SetupState) -> String {
    let how = match run.phase {
        SetupPhase::Exited { code } => format!("ended with exit code {code}"),
        SetupPhase::TimedOut => format!("was ended after {} s", step.run.timeout.as_secs()),
        SetupPhase::VerifyFailed { .. } => "ended well, but nvidia-smi still fails".to_owned(),
        SetupPhase::Lost => "was lost with a stop of the container".to_owned(),
        SetupPhase::Verified | SetupPhase::Running | SetupPhase::Verifying => {
            "ended well, but did not help".to_owned()
        }
    };
    format!("The driver step of {} {how}", step.of)
}

fn judge(view: &View<'_>, facts: &GuestFacts, wanted: &[u32]) -> Result<String, (Reason, String)> {
    if let Some(extra) = not_given(view, facts, wanted) {
        return Err((Reason::NotIsolated, extra));
    }
    if let Some(error) = &facts.nvidia_error {
        return Err((
            Reason::NotVisible,
            format!("nvidia-smi fails in the guest: {error}"),
        ));
    }
    let minors: Vec<u32> = facts.gpus.iter().filter_map(|g| g.minor).collect();
    let all_known = minors.len() == facts.gpus.len();
    let missing: Vec<u32> = wanted
        .iter()
        .copied()
        .filter(|w| all_known && !minors.contains(w))
        .collect();
    if facts.gpus.len() >= wanted.len() && missing.is_empty() {
        return Ok(visible(wanted));
    }
    let which = if missing.is_empty() {
        String::new()
    } else {
        format!(" ({} is missing)", gpus_in_words(&missing))
    };
    let message = format!(
        "the guest sees {} of the {} GPUs that it was given{which}; run `nvidia-smi` in it and on the node.",
        facts.gpus.len(),
        wanted.len(),
    );
    Err((Reason::NotVisible, message))
}

/// GPUs that it sees although nobody gave them to it.
fn not_given(view: &View<'_>, facts: &GuestFacts, wanted: &[u32]) -> Option<String> {
    let (seen, site) = (view.seen()?, view.site()?);
    // what its config passes goes with the next start, and is its own until then
    let passed = with_devices(seen);
    let minors = facts.gpus.iter().filter_map(|g| g.minor);
    let extra: BTreeSet<u32> = minors
        .chain(facts.gpu_devices.iter().copied())
        .filter(|m| !wanted.contains(m) && !passed.contains(m))
        .collect();
    let nameless = facts.gpus.iter().all(|g| g.minor.is_none())
        && facts.gpus.len() > wanted.len().max(passed.len());
    if extra.is_empty() && !nameless {
        return None;
    }
    let what = if extra.is_empty() {
        format!("{} GPUs", facts.gpus.len())
    } else {
        let extra: Vec<u32> = extra.into_iter().collect();
        format!("{}, too", gpus_in_words(&extra))
    };
    Some(format!(
        "the guest sees {what}, and was given {} only. Something else passes more in: look for lxc.mount.entry and lxc.cgroup2 lines in \
         /etc/pve/lxc/{}.conf on node {}, remove them and restart the container.",
        gpus_in_words(wanted),
        site.vmid,
        site.node
    ))
}

fn visible(gpus: &[u32]) -> String {
    let verb = if gpus.len() == 1 { "is" } else { "are" };
    format!("{} {verb} visible inside.", gpus_in_words(gpus))
}

/// The guest can't be entered just now.
fn occupied(view: &View<'_>) -> Decision {
    let guest = &view.observed.guest;
    if guest.busy.is_some() {
        return Some(Verdict::Wait { until: ON_WAKE });
    }
    let left = guest.trouble.as_ref().and_then(Failure::pause_left)?;
    Some(Verdict::Wait { until: left })
}

/// Another inspection when the last one is old enough, else a wait until it is.
pub(in crate::lxc::plan) fn look_again(view: &View<'_>, every: Duration) -> Decision {
    if let Some(wait) = occupied(view) {
        return Some(wait);
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
