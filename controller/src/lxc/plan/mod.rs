//! Third stage, pure: an ordered list of small checks, each owning its reason and message. The first that has something to do or to
//! wait for ends the list. This is where the product is.

mod config;
mod delete;
mod gpu;
mod guest;
mod journal;
mod mounts;
mod placement;
mod presence;
mod seal;
mod serve;
#[cfg(test)]
mod tests;
mod vllm;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use phoenix_crds::conditions::{ConditionType, Reason};

pub(super) use config::SET_DEVICE;
pub(super) use gpu::{due as gpus_due, missing_device, missing_gpu_device, with_devices};
pub(super) use seal::{Seal, sealed};

use super::{
    desired::{Desired, Goal, Present, Target},
    mark::Mark,
    observe::Observed,
    step::{Site, Step},
};
use crate::{
    condition::Finding,
    engine::{Named, Plan, Verdict},
    fleet::Seen,
    memory::Failure,
};

/// A wait that a wake ends; this is only for wakes that got lost.
pub(super) const ON_WAKE: Duration = Duration::from_secs(30);

/// What all checks see.
pub(super) struct View<'a> {
    target: &'a Target,
    present: &'a Present,
    observed: &'a Observed,
    now: Timestamp,
}

/// What the checks leave.
#[derive(Default)]
pub(super) struct Draft {
    findings: Vec<Finding>,
    partial: bool,
    /// Its GPUs are another's for now: no device of theirs is set, and it is not started.
    gpus_denied: bool,
}

/// What one check decides: go on, or stop with a verdict.
type Decision = Option<Verdict<Step>>;

/// A check and what it brings about, for `status.plan`.
struct Check {
    goal: &'static str,
    run: fn(&View<'_>, &mut Draft) -> Decision,
}

const fn check(goal: &'static str, run: fn(&View<'_>, &mut Draft) -> Decision) -> Check {
    Check { goal, run }
}

/// In this order. An empty goal is no step of its own.
const CHECKS: [Check; 18] = [
    check("", presence::reachable),
    check("", presence::task),
    check("", presence::allowed),
    check("", placement::placed),
    check("reserve a VMID", presence::vmid),
    check("create", presence::exists),
    check("", presence::created),
    check("", seal::already),
    check("", presence::unlocked),
    check("", gpu::hold),
    check("configure", config::matches),
    check("", config::no_rival),
    check("", gpu::denied),
    check("set up", guest::set_up),
    check("seal", seal::seal),
    check("", seal::outdated),
    check("run", serve::power),
    check("serve", serve::workload),
];

/// What to do about the difference.
pub(crate) fn plan(desired: &Desired, observed: &Observed, now: Timestamp) -> Plan<Step> {
    let mut draft = Draft::default();
    let (verdict, stopped_at) = match &desired.goal {
        Goal::Absent(absence) => (
            delete::gone(&desired.target, absence, observed, &mut draft),
            CHECKS.len(),
        ),
        Goal::Present(present) => {
            let view = View {
                target: &desired.target,
                present,
                observed,
                now,
            };
            CHECKS
                .iter()
                .enumerate()
                .find_map(|(i, check)| (check.run)(&view, &mut draft).map(|verdict| (verdict, i)))
                .unwrap_or((
                    Verdict::Done {
                        recheck: observed.drift,
                    },
                    CHECKS.len(),
                ))
        }
    };
    let mut ahead: Vec<String> = match &verdict {
        Verdict::Do(step) => vec![step.phrase()],
        _ => Vec::new(),
    };
    let rests = matches!(verdict, Verdict::Done { .. });
    if let (Goal::Present(present), false) = (&desired.goal, rests) {
        ahead.extend(
            CHECKS
                .iter()
                .skip(stopped_at + 1)
                .map(|c| c.goal)
                .filter(|goal| concerns(present, goal))
                .map(str::to_owned),
        );
    }
    Plan {
        findings: draft.findings,
        verdict,
        ahead,
        partial: draft.partial,
    }
}

/// Whether a goal lies on this object's way.
fn concerns(present: &Present, goal: &str) -> bool {
    use super::desired::Role;
    match goal {
        "" => false,
        "set up" => present.enters_guest(),
        "seal" => present.is_template(),
        "run" => matches!(present.role, Role::Container { .. }),
        "serve" => {
            matches!(&present.role, Role::Container { vllm, probe, .. } if vllm.is_some() || probe.is_some())
        }
        _ => true,
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "a check returns what these yield as it is"
)]
impl Draft {
    /// A later check knows better than an earlier one what its condition says.
    fn found(&mut self, finding: Finding) {
        match self
            .findings
            .iter_mut()
            .find(|f| f.condition == finding.condition)
        {
            Some(place) => *place = finding,
            None => self.findings.push(finding),
        }
    }

    fn met(&mut self, condition: ConditionType, reason: Reason, message: impl Into<String>) {
        self.found(Finding::met(condition, reason, message));
    }

    fn working(&mut self, condition: ConditionType, reason: Reason, message: impl Into<String>) {
        self.found(Finding::working(condition, reason, message));
    }

    fn stalled(&mut self, condition: ConditionType, reason: Reason, message: impl Into<String>) {
        self.found(Finding::stalled(condition, reason, message));
    }

    /// Somebody has to do something.
    fn blocked(
        &mut self,
        condition: ConditionType,
        reason: Reason,
        message: impl Into<String>,
    ) -> Decision {
        self.stalled(condition, reason, message);
        Some(Verdict::Blocked { recheck: None })
    }

    /// It goes on by itself.
    fn wait(
        &mut self,
        condition: ConditionType,
        reason: Reason,
        message: impl Into<String>,
        until: Duration,
    ) -> Decision {
        self.working(condition, reason, message);
        Some(Verdict::Wait { until })
    }

    /// A step, with what it is about.
    fn step(&mut self, condition: ConditionType, reason: Reason, step: Step) -> Decision {
        self.working(condition, reason, step.phrase());
        Some(Verdict::Do(step))
    }

    /// A failure that repeats: pauses between tries, `Stalled` after enough of them (and still tried, seldom).
    /// `None` when it is time to try again.
    fn pause(
        &mut self,
        failure: &Failure,
        condition: ConditionType,
        reason: Reason,
        message: String,
    ) -> Decision {
        let left = failure.pause_left()?;
        if failure.exhausted() {
            self.stalled(condition, reason, message);
        } else {
            self.working(condition, reason, message);
        }
        Some(Verdict::Wait { until: left })
    }
}

impl<'a> View<'a> {
    /// The container, where it is there.
    fn seen(&self) -> Option<&'a Seen> {
        self.observed.seen()
    }

    /// Our mark on it.
    fn mark(&self) -> Option<&'a Mark> {
        self.observed.mark()
    }

    fn site(&self) -> Option<Site> {
        let node = self
            .seen()
            .map_or_else(|| self.present.node.clone(), |s| s.node.clone());
        Some(Site {
            node,
            vmid: self.target.vmid?,
        })
    }

    /// The repeated failure, if it is one of these.
    fn failure_of(&self, kinds: &[&str]) -> Option<&'a Failure> {
        self.observed
            .failure
            .as_ref()
            .filter(|f| kinds.contains(&f.what.as_str()))
    }
}
