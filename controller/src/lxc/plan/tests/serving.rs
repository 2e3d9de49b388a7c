//! What is said of a model server, by its unit, its journal, its probe, and what was said before.

use std::{sync::Arc, time::Instant};

use phoenix_crds::{
    conditions::{ConditionType as C, Reason},
    probe::{Probe, Scheme},
};

use super::{
    super::*,
    world::{World, container, lint},
};
use crate::{
    condition::Progress,
    guest::VllmUnit,
    lxc::{desired::Role, step::GuestStep},
    probe::{FirstRun, HttpProbe, VllmProbe},
    prober::{ProbeSpec, ProbeView},
};

const NOW: i64 = 1_000_000;

/// A container whose unit is there and runs with the spec's arguments, and what is seen of it.
struct Case {
    desired: Desired,
    observed: Observed,
    unit: VllmUnit,
    seen_ago: Duration,
}

impl Case {
    fn new() -> Self {
        let (mut world, mut desired) = (World::empty(), container());
        if let Goal::Present(p) = &mut desired.goal {
            // what GPUs need has rows of its own
            p.gpus = Vec::new();
        }
        world.in_guest.gpus = Vec::new();
        world.in_guest.gpu_devices = Vec::new();
        world.run(&mut desired, 60);
        let mut observed = world.observed(&desired);
        observed.reported.args_hash = Some("a1".into());
        let unit = VllmUnit {
            since: Some(NOW - 100),
            ..world.in_guest.vllm.clone().unwrap()
        };
        Self {
            desired,
            observed,
            unit,
            seen_ago: Duration::from_secs(1),
        }
    }

    fn probe(mut self, seen: VllmProbe) -> Self {
        self.observed.probe = Some(ProbeView {
            vllm: Some(seen),
            http: None,
        });
        self
    }

    fn unit(mut self, change: impl FnOnce(&mut VllmUnit)) -> Self {
        change(&mut self.unit);
        self
    }

    fn said(mut self, reason: Reason) -> Self {
        self.observed.reported.vllm = Some((reason, "As before.".into()));
        self
    }

    fn served(mut self) -> Self {
        self.observed.reported.answered = true;
        self
    }

    fn seen_ago(mut self, ago: u64) -> Self {
        self.seen_ago = Duration::from_secs(ago);
        self
    }

    fn plan(mut self) -> Plan<Step> {
        if let Some((facts, at)) = &mut self.observed.guest.facts {
            Arc::make_mut(facts).vllm = Some(self.unit);
            *at = Instant::now().checked_sub(self.seen_ago).unwrap();
        }
        let plan = plan(
            &self.desired,
            &self.observed,
            Timestamp::from_second(NOW).unwrap(),
        );
        lint(&plan);
        plan
    }

    fn vllm(self) -> (Reason, Progress, String) {
        let plan = self.plan();
        let f = plan
            .findings
            .iter()
            .find(|f| f.condition == C::VllmReady)
            .expect("something is said");
        (f.reason, f.progress, f.message.clone())
    }
}

fn serving() -> VllmProbe {
    VllmProbe::Serving {
        models: vec!["qwen3-coder".into()],
        version: None,
    }
}

const OOM: &str = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.16 GiB. GPU 0 has a total capacity of 47.41 GiB of which 512.00 MiB is free.";

#[test]
fn states_are_told_apart() {
    let refused = || Case::new().probe(VllmProbe::Refused);
    let ended = |u: &mut VllmUnit| {
        (u.active, u.sub) = ("activating".into(), "auto-restart".into());
        u.exit_status = Some(0);
        u.since = None;
    };
    let unreachable = VllmProbe::Unreachable {
        why: "no route".into(),
    };
    let none = VllmProbe::WrongModel { served: Vec::new() };
    let rows: Vec<(&str, Case, Reason, Progress, &str)> = vec![
        (
            "serves",
            Case::new().probe(serving()),
            Reason::Serving,
            Progress::Neutral,
            "qwen3-coder",
        ),
        (
            "loads",
            refused(),
            Reason::Loading,
            Progress::Reconciling,
            "loading its model since 13:45:00 UTC",
        ),
        (
            "tells how far it is",
            refused().unit(|u| {
                u.journal_tail =
                    "Loading safetensors checkpoint shards:  40% Completed | 4/10".into();
            }),
            Reason::Loading,
            Progress::Reconciling,
            "(40 %)",
        ),
        // slow is not failed
        (
            "loads long",
            refused().unit(|u| u.since = Some(1)),
            Reason::Loading,
            Progress::Reconciling,
            "loading",
        ),
        (
            "answers 503",
            Case::new().probe(VllmProbe::Unhealthy { status: 503 }),
            Reason::Loading,
            Progress::Reconciling,
            "503",
        ),
        (
            "sleeps",
            Case::new().served().probe(VllmProbe::NoCompletion {
                why: "it was put to sleep".into(),
            }),
            Reason::Loading,
            Progress::Reconciling,
            "sleep",
        ),
        (
            "another model",
            Case::new().probe(none),
            Reason::WrongModel,
            Progress::Reconciling,
            "no model",
        ),
        (
            "no way there",
            Case::new().probe(unreachable.clone()),
            Reason::Unreachable,
            Progress::Reconciling,
            "no route",
        ),
        (
            "refuses the key",
            Case::new().probe(VllmProbe::Unauthorized),
            Reason::Unreachable,
            Progress::Reconciling,
            "apiKey",
        ),
        (
            "ended",
            refused().unit(ended),
            Reason::Exited,
            Progress::Reconciling,
            "exit code 0",
        ),
        (
            "ended, with a cause",
            refused().unit(|u| {
                ended(u);
                u.complaints = OOM.into();
            }),
            Reason::OutOfMemory,
            Progress::Reconciling,
            "1.16 GiB more",
        ),
        // what an engine said before this one is no cause
        (
            "an old cause",
            refused().unit(|u| u.complaints = OOM.into()),
            Reason::Loading,
            Progress::Reconciling,
            "loading",
        ),
        // the next try is no news
        (
            "tried again",
            refused().unit(|u| (u.complaints, u.restarts) = (OOM.into(), 2)),
            Reason::OutOfMemory,
            Progress::Reconciling,
            "2 times",
        ),
        (
            "tried again and again",
            refused().unit(|u| (u.complaints, u.restarts) = (OOM.into(), 4)),
            Reason::OutOfMemory,
            Progress::Stalled,
            "4 times",
        ),
        // systemd has restarted it, and it loads
        (
            "loads again",
            refused().unit(|u| (u.restarts, u.exit_status) = (1, Some(0))),
            Reason::Loading,
            Progress::Reconciling,
            "had ended with exit code 0",
        ),
        (
            "cut off while it fails",
            Case::new().probe(unreachable).unit(ended),
            Reason::Exited,
            Progress::Reconciling,
            "exit code 0",
        ),
    ];
    for (what, case, reason, progress, words) in rows {
        let (is, how, message) = case.vllm();
        assert_eq!((is, how), (reason, progress), "{what}: {message}");
        assert!(message.contains(words), "{what}: {message}");
    }
}

#[test]
fn what_was_seen_long_ago_makes_nothing_flap() {
    let refused = || Case::new().probe(VllmProbe::Refused);
    // it served, and nobody listens: dead, whatever the unit was like an hour ago
    let (reason, _, message) = refused().served().seen_ago(3600).vllm();
    assert_eq!(reason, Reason::Exited, "{message}");
    // while the guest is being looked at, what was said stands
    for said in [Reason::Exited, Reason::Loading, Reason::OutOfMemory] {
        let mut case = refused().said(said).seen_ago(3600);
        case.observed.guest.busy = Some("looking");
        assert_eq!(case.vllm().0, said);
        // an operator that has just started
        let mut case = refused().said(said);
        case.observed.guest.facts = None;
        let plan = case.plan();
        let f = plan.findings.iter().find(|f| f.condition == C::VllmReady);
        assert_eq!(f.unwrap().reason, said);
        assert!(is_step(&plan, GuestStep::Inspect), "{:?}", plan.verdict);
    }
    // an answer of the server itself needs no look inside
    let wrong = VllmProbe::WrongModel {
        served: vec!["other".into()],
    };
    let case = Case::new().probe(wrong).said(Reason::Loading).seen_ago(60);
    assert_eq!(case.vllm().0, Reason::WrongModel);
}

fn is_step(plan: &Plan<Step>, wanted: GuestStep) -> bool {
    matches!(&plan.verdict, Verdict::Do(Step::Guest { step, .. }) if *step == wanted)
}

#[test]
fn an_engine_with_other_arguments_is_never_ready() {
    // whatever its probe says
    let old = || {
        Case::new()
            .probe(serving())
            .served()
            .unit(|u| u.args_hash = "old".into())
    };
    let plan = old().plan();
    assert!(is_step(&plan, GuestStep::ApplyVllm), "{:?}", plan.verdict);
    assert_eq!(old().vllm().0, Reason::Installing);
    // its end is waited for, not hurried
    let ending = || old().unit(|u| u.active = "deactivating".into());
    assert_eq!(ending().vllm().0, Reason::Installing);
    assert!(matches!(ending().plan().verdict, Verdict::Wait { .. }));
    assert!(is_step(&ending().seen_ago(3).plan(), GuestStep::Inspect));
    // an answer that is still to come is not foretold by the one before
    let mut case = Case::new().served();
    case.observed.reported.args_hash = Some("old".into());
    case.observed.probe = Some(ProbeView::default());
    assert_eq!(case.vllm().0, Reason::Loading);
}

#[test]
fn what_somebody_stopped_inside_is_started_again() {
    let stopped = |ago| {
        Case::new()
            .probe(VllmProbe::Refused)
            .unit(|u| (u.active, u.sub) = ("inactive".into(), "dead".into()))
            .said(Reason::Exited)
            .seen_ago(ago)
    };
    assert!(matches!(stopped(1).plan().verdict, Verdict::Wait { .. }));
    let plan = stopped(60).plan();
    assert!(is_step(&plan, GuestStep::ApplyVllm), "{:?}", plan.verdict);
}

#[test]
fn a_first_run_is_said_and_hinders_nothing() {
    let probe = Probe {
        scheme: Some(Scheme::Https),
        port: 9443,
        path: None,
        expect_status: None,
        insecure_skip_verify: Some(true),
    };
    let mut case = Case::new();
    if let Goal::Present(p) = &mut case.desired.goal {
        p.role = Role::Container {
            running: true,
            vllm: None,
            probe: Some(ProbeSpec::Http(probe)),
            startup_timeout: Duration::from_mins(1),
        };
    }
    let mut said = |http: HttpProbe| {
        case.observed.probe = Some(ProbeView {
            vllm: None,
            http: Some(http),
        });
        let plan = plan(
            &case.desired,
            &case.observed,
            Timestamp::from_second(NOW).unwrap(),
        );
        lint(&plan);
        let f = plan.findings.iter().find(|f| f.condition == C::ProbeReady);
        f.map(|f| (f.reason, f.message.clone())).unwrap()
    };
    let (reason, message) = said(HttpProbe::Healthy {
        status: 200,
        first_run: Some(FirstRun::NoAdministrator),
    });
    assert_eq!(reason, Reason::Healthy);
    assert!(
        message.contains("no administrator") && message.contains("https://10.0.0.201:9443"),
        "{message}"
    );
    let (reason, message) = said(HttpProbe::Unhealthy {
        status: 303,
        first_run: Some(FirstRun::Closed),
    });
    assert_eq!(reason, Reason::Unhealthy);
    assert!(message.contains("docker restart portainer"), "{message}");
    let (_, message) = said(HttpProbe::Healthy {
        status: 200,
        first_run: None,
    });
    assert_eq!(message, "Its probe answers 200.");
}

#[test]
fn a_slow_storage_driver_is_said_and_outlives_the_look() {
    let said = |case: Case| {
        let plan = case.plan();
        let f = plan
            .findings
            .iter()
            .find(|f| f.condition == C::SetupComplete)
            .unwrap();
        assert_eq!(
            (f.reason, f.progress),
            (Reason::Succeeded, Progress::Neutral)
        );
        f.message.clone()
    };
    let with = |driver: Option<&str>| {
        let mut case = Case::new().probe(serving());
        if let Some((facts, _)) = &mut case.observed.guest.facts {
            Arc::make_mut(facts).docker_storage = driver.map(str::to_owned);
        }
        case
    };
    assert_eq!(said(with(None)), "");
    assert_eq!(said(with(Some("overlay2"))), "");
    let warning = said(with(Some("vfs")));
    assert!(warning.contains("OpenZFS 2.2"), "{warning}");
    // Docker doesn't answer, or nobody has looked since: what was said stands
    let mut silent = with(None);
    silent.observed.reported.advice.clone_from(&warning);
    assert_eq!(said(silent), warning);
    let mut unseen = with(None);
    unseen.observed.reported.advice.clone_from(&warning);
    unseen.observed.guest.facts = None;
    assert_eq!(said(unseen), warning);
    // it has another by now
    let mut better = with(Some("overlay2"));
    better.observed.reported.advice = warning;
    assert_eq!(said(better), "");
}
