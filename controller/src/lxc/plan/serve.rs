//! What a container does in the end: it runs, holds its GPUs, serves its model, answers its probe.

use phoenix_crds::conditions::{ConditionType as C, Reason};

use super::{Decision, Draft, ON_WAKE, View, vllm::serving};
use crate::{
    engine::Verdict,
    lxc::{
        authority,
        desired::Role,
        step::{Site, Step},
    },
    probe::{FirstRun, HttpProbe},
    prober::ProbeSpec,
};

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
        if let Some(wait) = super::gpu::host_device(view, draft, failure) {
            return Some(wait);
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
    if let Some(decision) = super::gpu::inside(view, draft) {
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

/// A prober that has just started has no answer yet: what was said before stands so long.
#[expect(clippy::unnecessary_wraps, reason = "a check returns it as it is")]
pub(super) fn unasked(draft: &mut Draft) -> Decision {
    draft.partial = true;
    Some(Verdict::Wait { until: ON_WAKE })
}

fn answering(view: &View<'_>, draft: &mut Draft) -> Decision {
    match view.observed.probe.as_ref().and_then(|p| p.http.as_ref()) {
        Some(HttpProbe::Healthy { status, first_run }) => {
            let message = match first_run {
                Some(FirstRun::NoAdministrator) => format!(
                    "Its probe answers {status}, but no administrator was made yet: open {} and choose a password (and give the setup token, if it \
                     asks for one) within five minutes of Portainer's start; after that run `docker restart portainer` inside first.",
                    url(view)
                ),
                _ => format!("Its probe answers {status}."),
            };
            draft.met(C::ProbeReady, Reason::Healthy, message);
            Some(Verdict::Done {
                recheck: view.observed.drift,
            })
        }
        Some(HttpProbe::Unhealthy {
            first_run: Some(FirstRun::Closed),
            ..
        }) => draft.wait(
            C::ProbeReady,
            Reason::Unhealthy,
            format!(
                "Portainer has closed itself, since no administrator was made within five minutes of its start: run `docker restart portainer` \
                 inside, then open {} and choose a password.",
                url(view)
            ),
            ON_WAKE,
        ),
        Some(HttpProbe::Unhealthy { status, .. }) => draft.wait(
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

/// Where a person finds what is probed.
fn url(view: &View<'_>) -> String {
    let address = view.seen().and_then(|s| s.addresses.first().cloned());
    let Role::Container {
        probe: Some(ProbeSpec::Http(probe)),
        ..
    } = &view.present.role
    else {
        return "it".to_owned();
    };
    match address {
        Some(address) => format!("{}://{}", probe.scheme(), authority(&address, probe.port)),
        None => "it".to_owned(),
    }
}
