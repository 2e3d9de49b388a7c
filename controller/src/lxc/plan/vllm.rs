//! A container that serves a model: its unit written and started, its loading followed, its end explained.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use phoenix_crds::conditions::{ConditionType as C, Effect, Reason, verdict};

use super::{
    Decision, Draft, View,
    gpu::look_again,
    guest::{last_line, unavailable},
    journal,
    serve::unasked,
};
use crate::{
    condition::Finding,
    engine::Verdict,
    guest::VllmUnit,
    lxc::step::{GuestStep, Step},
    probe::VllmProbe,
    prober::ProbeView,
};

/// While vLLM is not serving, its unit is looked at so often: the journal tells what a refused connection can't.
const UNIT_RECHECK: Duration = Duration::from_secs(10);
/// An engine that is asked to end takes so long.
const ENDING: Duration = Duration::from_secs(2);
/// Ended so often in a row, it is no accident: that it loads once more is not worth saying.
const AGAIN: u32 = 2;

/// It serves the model of this spec, with the arguments of this spec.
pub(super) fn serving(
    view: &View<'_>,
    draft: &mut Draft,
    args_hash: &str,
    patience: Duration,
) -> Decision {
    let probed = view.observed.probe.as_ref();
    let (guest, reported) = (&view.observed.guest, &view.observed.reported);
    let unit = guest.known().and_then(|f| f.vllm.as_ref());
    let was_ours = reported.args_hash.as_deref() == Some(args_hash);
    let fits = match guest.known() {
        Some(_) => unit.is_some_and(|u| u.args_hash == args_hash),
        None => was_ours,
    };
    if fits
        && let Some(ProbeView {
            vllm: Some(VllmProbe::Serving { models, version }),
            ..
        }) = probed
    {
        let version = version
            .as_ref()
            .map(|v| format!(" {v}"))
            .unwrap_or_default();
        let message = format!("vLLM{version} serves {}.", models.join(", "));
        draft.met(C::VllmReady, Reason::Serving, message);
        return Some(Verdict::Done {
            recheck: view.observed.drift,
        });
    }
    if fits && was_ours && reported.answered && probed.is_some_and(ProbeView::unasked) {
        return unasked(draft);
    }
    match unit {
        Some(unit) if fits => return follow(view, draft, unit, patience),
        // the engine with the former arguments takes its time, and asking again makes it no faster
        Some(unit) if unit.active == "deactivating" => {
            let message = "vLLM is ending, to be started with the arguments of this spec.";
            draft.working(C::VllmReady, Reason::Installing, message);
            return look_again(view, ENDING);
        }
        _ => {}
    }
    if guest.known().is_none() && fits {
        // an operator that has just started knows no more than the last one said
        let (reason, message) = reported.vllm.clone().unwrap_or_else(|| {
            let message = "vLLM was started and does not answer yet; its unit is being looked at.";
            (Reason::Loading, message.to_owned())
        });
        draft.working(C::VllmReady, reason, message);
        return look_again(view, UNIT_RECHECK);
    }
    if let Some(decision) = unavailable(view, draft, C::VllmReady, Reason::Installing) {
        return Some(decision);
    }
    let step = match guest.known() {
        Some(_) => GuestStep::ApplyVllm,
        None => GuestStep::Inspect,
    };
    let site = view.site()?;
    draft.step(C::VllmReady, Reason::Installing, Step::Guest { site, step })
}

/// The unit has this spec's arguments, and does not serve.
fn follow(view: &View<'_>, draft: &mut Draft, unit: &VllmUnit, patience: Duration) -> Decision {
    if !unit.executable_found {
        let message = "vLLM's executable (spec.vllm.executable) is not in the container; the template that it was cloned from brings none.";
        draft.stalled(C::VllmReady, Reason::Exited, message);
        return look_again(view, UNIT_RECHECK * 6);
    }
    let probe = view.observed.probe.as_ref().and_then(|p| p.vllm.as_ref());
    let reported = &view.observed.reported;
    let old = view
        .observed
        .guest
        .age()
        .is_none_or(|age| age >= UNIT_RECHECK);
    let (reason, message) = if answers(probe) || !old {
        explain(unit, probe)
    } else if let Some(said) = &reported.vllm {
        // what the unit was like some time ago says nothing new; another look is on its way
        said.clone()
    } else if reported.answered {
        let message = "vLLM has stopped answering; its journal is being looked at.";
        (Reason::Exited, message.to_owned())
    } else {
        explain(unit, probe)
    };
    let since = unit.since.unwrap_or_else(|| view.now.as_second());
    let loading_for = view.now.as_second().saturating_sub(since);
    let late = u64::try_from(loading_for).unwrap_or(0) > patience.as_secs()
        || unit.restarts >= crate::memory::TRIES;
    let may_stall = verdict(C::VllmReady, reason)
        .is_some_and(|row| row.effect == Effect::ReconcilingThenStalled);
    draft.found(if late && may_stall {
        Finding::stalled(C::VllmReady, reason, message)
    } else {
        Finding::working(C::VllmReady, reason, message)
    });
    let next = look_again(view, UNIT_RECHECK);
    if let Some(Verdict::Do(Step::Guest { site, .. })) = &next
        && matches!(unit.active.as_str(), "inactive" | "failed")
    {
        // systemd starts it again by itself unless somebody stopped it
        return Some(Verdict::Do(Step::Guest {
            site: site.clone(),
            step: GuestStep::ApplyVllm,
        }));
    }
    next
}

/// The server itself says what is the matter.
fn answers(probe: Option<&VllmProbe>) -> bool {
    matches!(
        probe,
        Some(
            VllmProbe::WrongModel { .. } | VllmProbe::NoCompletion { .. } | VllmProbe::Unauthorized
        )
    )
}

/// Why vLLM is not serving, from its unit, its journal and the probe.
fn explain(unit: &VllmUnit, probe: Option<&VllmProbe>) -> (Reason, String) {
    let up = matches!(unit.active.as_str(), "active" | "reloading")
        || (unit.active == "activating" && unit.sub != "auto-restart");
    if !answers(probe) && (!up || unit.restarts > 0) {
        let cause = journal::why(&unit.complaints).or_else(|| journal::why(&unit.journal_tail));
        if let Some((reason, cause)) = cause {
            let tried = match unit.restarts {
                0 => String::new(),
                n => format!(" (tried again {n} times)"),
            };
            return (reason, format!("vLLM ended: {cause}{tried}."));
        }
        if !up || unit.restarts >= AGAIN {
            return (Reason::Exited, ended(unit));
        }
    }
    match probe {
        Some(VllmProbe::WrongModel { served }) => (
            Reason::WrongModel,
            match served.join(", ") {
                none if none.is_empty() => "vLLM answers, but it serves no model.".to_owned(),
                served => format!(
                    "vLLM answers, but it serves {served} and not the model of this spec; does another program listen on its port?"
                ),
            },
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
        _ => (Reason::Loading, loading(unit)),
    }
}

fn loading(unit: &VllmUnit) -> String {
    let since = unit
        .since
        .and_then(|s| Timestamp::from_second(s).ok())
        .map(|at| format!(" since {} UTC", at.strftime("%H:%M:%S")))
        .unwrap_or_default();
    let stage = journal::stage(&unit.journal_tail)
        .map(|stage| format!(": {stage}"))
        .unwrap_or_default();
    let again = match (unit.restarts, unit.exit_status) {
        (0, _) | (_, None) => String::new(),
        (_, Some(code)) => format!("; it had ended with exit code {code}"),
    };
    format!("vLLM is loading its model{since}{stage}{again}.")
}

/// It ended, and its journal has no words that we know. Exit code 0 is what vLLM ends with when its engine dies.
fn ended(unit: &VllmUnit) -> String {
    let code = unit
        .exit_status
        .map(|code| format!(" with exit code {code}"))
        .unwrap_or_default();
    let last = last_line(&unit.complaints)
        .or_else(|| last_line(&unit.journal_tail))
        .unwrap_or("nothing");
    let last: String = last.trim().chars().take(200).collect();
    let again = match unit.active.as_str() {
        "inactive" | "failed" => "it is being started again".to_owned(),
        _ => format!("systemd starts it again (restart {})", unit.restarts.max(1)),
    };
    format!("vLLM ended{code} and {again}; its journal last said: {last:?}.")
}
