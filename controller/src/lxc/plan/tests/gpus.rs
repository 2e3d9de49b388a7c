//! GPUs, one row a situation: who holds what, what is seen inside, and what the plan says.

use std::time::Instant;

use phoenix_crds::conditions::{ConditionType as C, Reason};
use proxmox_client::TaskState;

use super::{
    super::*,
    tables::{present, said},
    world::{World, container, template},
};
use crate::{
    condition::{Progress, Truth},
    guest::{GuestFacts, SetupPhase, SetupState},
    lxc::{
        desired::{Role, Setup},
        observe::{Claim, DriverStep},
        step::GuestStep,
    },
    memory::Failure,
    wake::{KindName, ObjectKey},
};

const MISMATCH: &str =
    "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.65";

fn claim(gpu: u32, exclusive: bool, building: bool) -> Claim {
    let kind = if building {
        KindName::LxcTemplate
    } else {
        KindName::LxcContainer
    };
    Claim {
        gpu,
        holder: ObjectKey {
            kind,
            namespace: "other".into(),
            name: format!("holder-of-{gpu}"),
        },
        exclusive,
        building,
    }
}

impl World {
    pub(super) fn take_gpus(&mut self, gpus: &[u32], exclusive: bool, desired: &mut Desired) {
        assert!(!self.taken(gpus, exclusive), "took another's GPU");
        self.held = gpus.iter().map(|g| (*g, exclusive)).collect();
        present(desired).gpus = gpus.to_vec();
    }

    /// What is started holds its GPUs, and nobody else does who must not.
    pub(super) fn assert_gpus_held(&self, desired: &Desired) {
        for (gpu, exclusive) in &self.held {
            assert!(!self.taken(&[*gpu], *exclusive), "started with another's");
        }
        if let Goal::Present(present) = &desired.goal {
            let held = present.gpus.iter().all(|g| self.held.contains_key(g));
            assert!(held, "started without holding its GPUs");
        }
    }

    /// Others hold one of these so that they can't be held, too.
    fn taken(&self, gpus: &[u32], exclusive: bool) -> bool {
        let mut claims = self.claims.iter();
        claims.any(|c| gpus.contains(&c.gpu) && c.excludes(exclusive))
    }
}

/// A driver step that was just started.
pub(super) fn begun(step: &DriverStep, attempt: u32) -> SetupState {
    SetupState {
        hash: step.run.hash.clone(),
        attempt,
        started_at: 1,
        phase: SetupPhase::Running,
        finished_at: None,
        tail: "unpacking".into(),
    }
}

fn message(plan: &Plan<Step>, condition: C) -> &str {
    let found = plan.findings.iter().find(|f| f.condition == condition);
    found.map_or("", |f| f.message.as_str())
}

fn waits_for_a_gpu(world: &World, desired: &Desired, reason: Reason) -> String {
    let plan = world.plan(desired);
    assert!(
        matches!(plan.verdict, Verdict::Wait { .. }),
        "{:?}",
        plan.verdict
    );
    assert_eq!(
        said(&plan, C::GpuAllocated),
        (Truth::False, reason, Progress::Reconciling)
    );
    assert!(!world.running, "it was started");
    message(&plan, C::GpuAllocated).to_owned()
}

#[test]
fn who_asks_for_what_another_holds_is_not_started_before_that_one_lets_go() {
    for (mut desired, mine, theirs, building) in [
        (container(), true, true, false),
        (container(), false, true, true),
        (template(), true, false, false),
    ] {
        present(&mut desired).gpus_exclusive = mine;
        let mut world = World {
            claims: vec![claim(1, theirs, building)],
            ..World::empty()
        };
        world.run(&mut desired, 60);
        let message = waits_for_a_gpu(&world, &desired, Reason::Conflict);
        let kind = if building {
            "LxcTemplate"
        } else {
            "LxcContainer"
        };
        assert!(
            message.contains(&format!("GPU 1 is held by {kind} other/holder-of-1")),
            "{message}"
        );
        let until = if building { "is sealed" } else { "is stopped" };
        assert!(message.contains(until), "{message}");
        assert_eq!(
            message.contains("asks for it Exclusive"),
            mine && !theirs,
            "{message}"
        );
        let config = world.config.as_ref().unwrap();
        assert!(
            !config.keys.values().any(|v| v.contains("/dev/nvidia")),
            "a device was set before the GPU was held"
        );
        world.claims.clear();
        assert!(matches!(world.run(&mut desired, 60), Verdict::Done { .. }));
        let taken = world.steps.iter().position(|s| s == "take_gpus").unwrap();
        let started = world.steps.iter().position(|s| s == "start").unwrap();
        assert!(taken < started);
    }
}

#[test]
fn who_shares_starts_beside_others_who_share() {
    let mut desired = container();
    let mut world = World {
        claims: vec![claim(0, false, false), claim(7, true, false)],
        ..World::empty()
    };
    assert!(matches!(world.run(&mut desired, 60), Verdict::Done { .. }));
}

#[test]
fn a_running_container_keeps_what_it_has_and_gets_no_device_of_anothers() {
    let mut desired = container();
    present(&mut desired).gpus = vec![0];
    let mut world = World::empty();
    world.in_guest.gpus.pop();
    world.in_guest.gpu_devices.pop();
    world.run(&mut desired, 60);
    world.steps.clear();
    present(&mut desired).gpus = vec![0, 1];
    world.claims.push(claim(1, true, false));
    let plan = world.plan(&desired);
    assert_eq!(said(&plan, C::GpuAllocated).1, Reason::Conflict);
    assert_eq!(said(&plan, C::VllmReady).1, Reason::Serving);
    assert!(
        matches!(plan.verdict, Verdict::Done { .. }),
        "{:?}",
        plan.verdict
    );
    assert!(world.running);
}

#[test]
fn what_was_given_twice_by_mistake_is_started_once() {
    // as after a write of an operator that was thought dead
    let mut desired = container();
    present(&mut desired).gpus_exclusive = true;
    let mut world = World::empty();
    world.run(&mut desired, 60);
    world.running = false;
    world.claims.push(claim(0, true, false));
    waits_for_a_gpu(&world, &desired, Reason::Conflict);
}

#[test]
fn a_count_is_picked_among_what_is_free_and_kept() {
    let mut desired = container();
    let p = present(&mut desired);
    (p.gpus, p.gpu_count, p.gpus_exclusive) = (Vec::new(), Some(1), true);
    let mut world = World {
        claims: vec![claim(0, false, false)],
        node_gpus: vec![0, 1, 2],
        ..World::empty()
    };
    world.in_guest.gpus.remove(0);
    world.in_guest.gpu_devices = vec![1];
    assert!(matches!(world.run(&mut desired, 60), Verdict::Done { .. }));
    assert_eq!(present(&mut desired).gpus, [1]);
    // another becomes free: nothing moves
    world.claims.clear();
    world.steps.clear();
    assert!(matches!(world.run(&mut desired, 60), Verdict::Done { .. }));
    assert_eq!(
        (present(&mut desired).gpus.as_slice(), world.steps.len()),
        (&[1][..], 0)
    );
    // stopped, it holds none; started again, it takes the one whose device it has
    if let Role::Container { running, .. } = &mut present(&mut desired).role {
        *running = false;
    }
    world.run(&mut desired, 60);
    world.held.clear();
    present(&mut desired).gpus.clear();
    world.steps.clear();
    assert!(
        matches!(world.plan(&desired).verdict, Verdict::Done { .. }),
        "devices stay"
    );
    if let Role::Container { running, .. } = &mut present(&mut desired).role {
        *running = true;
    }
    world.run(&mut desired, 60);
    assert_eq!(present(&mut desired).gpus, [1]);
    assert_eq!(world.steps, ["take_gpus", "start", "inspect"]);
}

#[test]
fn a_count_that_can_not_be_had_says_what_there_is() {
    let mut desired = container();
    let p = present(&mut desired);
    (p.gpus, p.gpu_count, p.gpus_exclusive) = (Vec::new(), Some(2), true);
    for (node_gpus, claims, says) in [
        (vec![], vec![], "is not known: grant the token Sys.Audit"),
        (vec![0], vec![], "no more than 1; ask for fewer"),
        (
            vec![0, 1],
            vec![claim(1, false, true)],
            "1 of the 2 GPUs of node pve can be had. On node pve, GPU 1 is held by LxcTemplate other/holder-of-1 (Shared). This one asks",
        ),
    ] {
        let mut world = World {
            claims,
            node_gpus,
            ..World::empty()
        };
        let mut desired = desired.clone();
        world.run(&mut desired, 60);
        let message = waits_for_a_gpu(&world, &desired, Reason::NoFreeGpu);
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn a_device_that_the_host_lacks_is_told_with_its_remedy_and_tried_seldom() {
    for (device, remedy) in [
        ("/dev/nvidia-uvm", "`nvidia-modprobe -u -c=0`"),
        ("/dev/nvidia0", "`modprobe nvidia`"),
    ] {
        let (mut world, mut desired) = (World::empty(), container());
        world.run(&mut desired, 60);
        world.running = false;
        world.task = Some((
            "vzstart",
            TaskState::Failed {
                exit: String::new(),
            },
        ));
        let mut observed = world.observed(&desired);
        let text = format!("Device {device} does not exist");
        let failure = Failure::after(None, "vzstart", &text);
        observed.failure = Some(failure.clone());
        let plan = |observed: &Observed| {
            plan(
                &desired,
                observed,
                Timestamp::from_second(1_000_000).unwrap(),
            )
        };
        let waiting = plan(&observed);
        super::world::lint(&waiting);
        assert!(
            matches!(waiting.verdict, Verdict::Wait { .. }),
            "{:?}",
            waiting.verdict
        );
        assert_eq!(
            said(&waiting, C::GpuAllocated),
            (Truth::False, Reason::HostDeviceMissing, Progress::Stalled)
        );
        let message = message(&waiting, C::GpuAllocated);
        for part in ["node pve", device, remedy] {
            assert!(message.contains(part), "{message}");
        }
        // after the pause it is tried again
        observed.failure = Some(Failure {
            at: Instant::now().checked_sub(Duration::from_secs(60)).unwrap(),
            ..failure
        });
        assert!(matches!(
            plan(&observed).verdict,
            Verdict::Do(Step::Start { .. })
        ));
    }
}

#[test]
fn a_device_that_can_not_be_set_is_set_when_the_host_has_it() {
    let (mut world, mut desired) = (World::empty(), container());
    // all else is set by then
    world.run(&mut desired, 6);
    assert!(
        world
            .steps
            .ends_with(&["take_gpus", "configure"].map(str::to_owned))
    );
    let fails = |ago: u64| {
        let mut observed = world.observed(&desired);
        let failure = Failure::after(None, SET_DEVICE, "Device /dev/nvidiactl does not exist");
        let at = failure.at.checked_sub(Duration::from_secs(ago)).unwrap();
        observed.failure = Some(Failure { at, ..failure });
        plan(&desired, &observed, Timestamp::from_second(1).unwrap())
    };
    let waiting = fails(0);
    assert!(matches!(waiting.verdict, Verdict::Wait { .. }));
    assert_eq!(
        said(&waiting, C::GpuAllocated),
        (Truth::False, Reason::HostDeviceMissing, Progress::Stalled)
    );
    let Verdict::Do(Step::Configure { change, .. }) = fails(60).verdict else {
        panic!("{:?}", fails(60).verdict)
    };
    assert!(change.sets_device("/dev/nvidiactl"));
}

#[test]
fn what_the_guest_sees_is_what_it_was_given() {
    type Change = fn(&mut GuestFacts);
    let rows: [(Change, Reason, &str); 5] = [
        (|_| {}, Reason::Allocated, "GPUs 0, 1 are visible"),
        (
            |f| drop(f.gpus.pop()),
            Reason::NotVisible,
            "sees 1 of the 2 GPUs that it was given (GPU 1 is missing)",
        ),
        (
            |f| f.nvidia_error = Some("No devices were found".into()),
            Reason::NotVisible,
            "No devices were found",
        ),
        (
            |f| f.gpu_devices.push(3),
            Reason::NotIsolated,
            "sees GPU 3, too",
        ),
        (
            |f| f.gpus[1].minor = Some(5),
            Reason::NotIsolated,
            "/etc/pve/lxc/901.conf on node pve",
        ),
    ];
    for (change, reason, says) in rows {
        let (mut world, mut desired) = (World::empty(), container());
        world.run(&mut desired, 60);
        change(&mut world.in_guest);
        world.facts = Some(world.in_guest.clone());
        let plan = world.plan(&desired);
        assert_eq!(said(&plan, C::GpuAllocated).1, reason, "{says}");
        assert!(
            message(&plan, C::GpuAllocated).contains(says),
            "{}",
            message(&plan, C::GpuAllocated)
        );
    }
}

#[test]
fn libraries_of_another_version_are_told_with_both_where_nothing_can_bring_them() {
    let (mut world, mut desired) = (World::empty(), container());
    world.run(&mut desired, 60);
    world.in_guest.nvidia_error = Some(MISMATCH.into());
    world.facts = Some(world.in_guest.clone());
    let plan = world.plan(&desired);
    assert_eq!(
        said(&plan, C::GpuAllocated),
        (Truth::False, Reason::DriverMismatch, Progress::Stalled)
    );
    for part in [
        "580.65",
        "580.76.05",
        "node pve",
        "`# phoenix: driver-step`",
    ] {
        let message = message(&plan, C::GpuAllocated);
        assert!(message.contains(part), "{part}: {message}");
    }
}

fn driver_step() -> DriverStep {
    DriverStep {
        of: "LxcTemplate default/base-template-gpu".into(),
        run: Setup {
            script: "true".into(),
            verify: None,
            env: Vec::new(),
            timeout: Duration::from_secs(60),
            retries: 1,
            hash: "d217e20001".into(),
        },
    }
}

#[test]
fn the_driver_step_brings_them_once_and_is_given_up_after_its_retries() {
    let stale = |failing: u32| {
        let (mut world, mut desired) = (World::empty(), container());
        world.run(&mut desired, 60);
        world.steps.clear();
        world.failing = failing;
        world.driver_step = Some(driver_step());
        world.in_guest.nvidia_error = Some(MISMATCH.into());
        world.facts = Some(world.in_guest.clone());
        (world, desired)
    };
    let (mut world, mut desired) = stale(1);
    let plan = world.plan(&desired);
    assert_eq!(
        said(&plan, C::GpuAllocated),
        (Truth::False, Reason::DriverMismatch, Progress::Reconciling)
    );
    assert!(message(&plan, C::GpuAllocated).contains("LxcTemplate default/base-template-gpu"));
    assert!(matches!(world.run(&mut desired, 60), Verdict::Done { .. }));
    let runs = ["start_driver_step", "await_setup"];
    assert_eq!(world.steps, [runs, runs].concat());
    let (mut world, mut desired) = stale(9);
    world.run(&mut desired, 20);
    let plan = world.plan(&desired);
    assert_eq!(said(&plan, C::GpuAllocated).2, Progress::Stalled);
    assert!(
        message(&plan, C::GpuAllocated).contains("ended with exit code 3 in 2 attempts"),
        "{}",
        message(&plan, C::GpuAllocated)
    );
    assert_eq!(
        world
            .steps
            .iter()
            .filter(|s| *s == "start_driver_step")
            .count(),
        2
    );
}

#[test]
fn a_clone_gets_fitting_libraries_before_its_own_setup() {
    let (mut world, mut desired) = (World::empty(), template());
    world.driver_step = Some(driver_step());
    world.in_guest.nvidia_error = Some(MISMATCH.into());
    assert!(matches!(world.run(&mut desired, 60), Verdict::Done { .. }));
    let steps = world.steps.join(" ");
    assert!(
        steps.contains("personalise start_driver_step await_setup start_setup await_setup"),
        "{steps}"
    );
}

#[test]
fn a_restart_is_followed_by_a_look_inside() {
    let (mut world, mut desired) = (World::empty(), container());
    world.run(&mut desired, 60);
    let since = |seconds: i64| {
        let mut observed = world.observed(&desired);
        observed.guest.facts = None;
        observed.reported.gpus = vec![0, 1];
        observed.reported.gpus_since = Some(1_000_000 - seconds);
        observed.reported.args_hash = Some("a1".into());
        plan(
            &desired,
            &observed,
            Timestamp::from_second(1_000_000).unwrap(),
        )
    };
    // it has been up for 200 s
    assert!(matches!(since(100).verdict, Verdict::Done { .. }));
    let after = since(300);
    assert!(after.partial, "what was said stands until then");
    assert!(matches!(
        after.verdict,
        Verdict::Do(Step::Guest {
            step: GuestStep::Inspect,
            ..
        })
    ));
}
