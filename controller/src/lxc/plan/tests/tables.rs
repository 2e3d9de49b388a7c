//! One row a situation: what is there, and what the plan says.

use phoenix_crds::conditions::{ConditionType as C, Reason};
use proxmox_client::TaskState;

use super::{
    super::*,
    world::{World, container, deleted, template},
};
use crate::{
    condition::{Progress, Truth},
    lxc::{
        desired::{Role, Strategy},
        observe::StorageKind,
    },
};

pub(super) fn said(plan: &Plan<Step>, condition: C) -> (Truth, Reason, Progress) {
    let f = plan
        .findings
        .iter()
        .find(|f| f.condition == condition)
        .unwrap_or_else(|| panic!("nothing found of {condition}"));
    (f.truth, f.reason, f.progress)
}

pub(super) fn present(desired: &mut Desired) -> &mut Present {
    match &mut desired.goal {
        Goal::Present(present) => present,
        Goal::Absent(_) => panic!("an absent goal"),
    }
}

#[test]
fn a_template_is_built_step_by_step_and_sealed() {
    let (mut world, mut desired) = (World::empty(), template());
    assert!(matches!(world.run(&mut desired, 60), Verdict::Done { .. }));
    assert_eq!(
        world.steps.join(" "),
        "reserve_vmid clone configure take_gpus configure configure configure resize start await_boot personalise start_setup await_setup configure \
         clean shutdown configure convert"
    );
    let plan = world.plan(&desired);
    assert_eq!(
        said(&plan, C::Sealed),
        (Truth::True, Reason::Sealed, Progress::Neutral)
    );
}

#[test]
fn a_container_serves_in_the_end() {
    let (mut world, mut desired) = (World::empty(), container());
    assert!(matches!(world.run(&mut desired, 60), Verdict::Done { .. }));
    assert_eq!(said(&world.plan(&desired), C::VllmReady).1, Reason::Serving);
    assert!(
        world.steps.ends_with(&["apply_vllm".to_owned()]),
        "{:?}",
        world.steps
    );
}

#[test]
fn the_plan_tells_what_lies_ahead() {
    let mut desired = template();
    let plan = World::empty().plan(&desired);
    assert_eq!(
        plan.ahead,
        ["reserve VMID 901", "create", "configure", "set up", "seal"]
    );
    desired.target.vmid = Some(901);
    assert_eq!(
        World::empty().plan(&desired).ahead[0],
        "clone base-template (900) as 901"
    );
}

#[test]
fn a_full_template_is_snapshot_and_a_plain_storage_converts() {
    let mut desired = template();
    present(&mut desired).role = Role::Template {
        snapshot: "gpu-snapshot".into(),
        strategy: crate::lxc::desired::Strategy::Full,
    };
    let mut world = World::empty();
    world.run(&mut desired, 60);
    assert_eq!(
        (
            world.steps.last().map(String::as_str),
            world.snapshots.as_slice()
        ),
        (Some("snapshot"), &["gpu-snapshot".to_owned()][..])
    );
    let mut world = World {
        storage: StorageKind::Plain,
        ..World::empty()
    };
    desired.target.vmid = None;
    world.run(&mut desired, 60);
    assert_eq!(world.steps.last().map(String::as_str), Some("convert"));
}

#[test]
fn on_thick_storage_the_mark_is_the_seal() {
    let (mut world, mut desired) = (
        World {
            storage: StorageKind::Thick,
            ..World::empty()
        },
        template(),
    );
    let rest = world.run(&mut desired, 60);
    assert!(matches!(rest, Verdict::Done { .. }), "{rest:?}");
    assert_eq!(said(&world.plan(&desired), C::Sealed).0, Truth::True);
    let by = sealed(&world.observed(&desired), "gpu-snapshot", Strategy::Auto);
    assert_eq!(by, Some(Seal::Stopped));

    present(&mut desired).revision = "another".into();
    let plan = world.plan(&desired);
    assert!(matches!(plan.verdict, Verdict::Done { .. }), "{plan:?}");
    assert_eq!(said(&plan, C::Outdated).0, Truth::True);

    // somebody starts it: a copy of it would be one of a running system
    world.running = true;
    let steps = world.steps.len();
    world.run(&mut desired, 60);
    assert!(!world.running, "{:?}", &world.steps[steps..]);
}

#[test]
fn a_foreign_container_is_left_alone() {
    for description in [
        "",
        "somebody's database",
        "phoenix-hypervisor/v1 instance=there kind=LxcTemplate object=default/base-template-gpu uid=x vmid=901 created",
    ] {
        let (mut world, mut desired) = (World::empty(), template());
        desired.target.vmid = Some(901);
        world
            .config
            .get_or_insert_default()
            .keys
            .insert("description".into(), description.into());
        let plan = world.plan(&desired);
        assert!(
            matches!(plan.verdict, Verdict::Blocked { .. }),
            "{description:?}: {:?}",
            plan.verdict
        );
        let (truth, reason, progress) = said(&plan, C::Created);
        assert_eq!((truth, progress), (Truth::False, Progress::Stalled));
        assert!(matches!(reason, Reason::VmidTaken | Reason::OwnedByAnother));
        // and it is left alone on the way out, too
        assert_eq!(world.plan(&deleted(&desired)).verdict, Verdict::Gone);
    }
}

#[test]
fn a_lost_mark_stops_everything() {
    let (mut world, mut desired) = (World::empty(), template());
    world.run(&mut desired, 60);
    world
        .config
        .as_mut()
        .unwrap()
        .keys
        .insert("description".into(), "tidied up".into());
    let mut observed = world.observed(&desired);
    observed.was_created = true;
    let mark = Mark {
        created: true,
        revision: Some("4be1c0a2d9".into()),
        ..desired.target.mark(901)
    };
    observed.lost_mark = Some(mark.clone());
    let plan = plan(&desired, &observed, Timestamp::from_second(1).unwrap());
    assert_eq!(
        said(&plan, C::Created),
        (Truth::False, Reason::OwnershipLost, Progress::Stalled)
    );
    assert!(plan.partial, "what was known of it stands");
    let message = &plan
        .findings
        .iter()
        .find(|f| f.condition == C::Created)
        .unwrap()
        .message;
    assert!(message.contains(&format!("`{mark}`")), "{message}");
}

#[test]
fn a_half_made_container_is_destroyed_and_built_again_but_not_under_a_lock_or_a_task() {
    let mut desired = template();
    desired.target.vmid = Some(901);
    let half_made = || {
        let mut world = World::empty();
        world.mark(&desired.target.mark(901));
        world
    };
    assert!(matches!(
        half_made().plan(&desired).verdict,
        Verdict::Do(Step::Destroy {
            half_made: true,
            ..
        })
    ));
    let mut locked = half_made();
    locked
        .config
        .as_mut()
        .unwrap()
        .keys
        .insert("lock".into(), "create".into());
    assert_eq!(said(&locked.plan(&desired), C::Created).1, Reason::Locked);
    let mut active = half_made().observed(&desired);
    active.active_task = true;
    assert!(matches!(
        plan(&desired, &active, Timestamp::from_second(1).unwrap()).verdict,
        Verdict::Wait { .. }
    ));
    let finished = World {
        task: Some(("vzclone", TaskState::Warnings(1))),
        ..half_made()
    };
    assert!(
        matches!(
            finished.plan(&desired).verdict,
            Verdict::Do(Step::Configure { .. })
        ),
        "warnings are success"
    );
}

#[test]
fn without_root_a_device_is_asked_for_by_its_pct_line() {
    let (mut world, mut desired) = (
        World {
            has_root: false,
            ..World::empty()
        },
        template(),
    );
    world.run(&mut desired, 60);
    let plan = world.plan(&desired);
    let found = plan
        .findings
        .iter()
        .find(|f| f.condition == C::ConfigInSync)
        .unwrap();
    assert_eq!(
        (found.reason, found.progress),
        (Reason::RootRequired, Progress::Stalled)
    );
    assert!(
        found
            .message
            .contains("pct set 901 --dev1 /dev/nvidia0,mode=0666"),
        "{}",
        found.message
    );
    assert!(found.message.contains("--delete dev0"), "{}", found.message);
    assert!(!world.running, "it is not started before");
    assert_eq!(
        plan.verdict,
        Verdict::Blocked {
            recheck: Some(Duration::from_secs(10))
        },
        "no poll shows that the line was run"
    );
    // somebody runs the line
    let config = world.config.as_mut().unwrap();
    for (key, path) in [
        ("dev0", "/dev/nvidia0"),
        ("dev1", "/dev/nvidia1"),
        ("dev2", "/dev/nvidiactl"),
        ("dev3", "/dev/nvidia-uvm"),
    ] {
        config.keys.insert(key.into(), format!("{path},mode=0666"));
    }
    assert!(matches!(world.run(&mut desired, 60), Verdict::Done { .. }));
}

#[test]
fn a_failing_setup_is_retried_and_then_stalls_with_its_exit_code() {
    let (mut world, mut desired) = (
        World {
            failing: 1,
            ..World::empty()
        },
        template(),
    );
    assert!(
        matches!(world.run(&mut desired, 60), Verdict::Done { .. }),
        "the second attempt succeeds"
    );
    assert_eq!(
        world.steps.iter().filter(|s| *s == "start_setup").count(),
        2
    );
    let (mut world, mut desired) = (
        World {
            failing: 9,
            ..World::empty()
        },
        template(),
    );
    assert!(matches!(
        world.run(&mut desired, 60),
        Verdict::Blocked { .. }
    ));
    let plan = world.plan(&desired);
    let found = plan
        .findings
        .iter()
        .find(|f| f.condition == C::SetupComplete)
        .unwrap();
    assert_eq!(
        (found.reason, found.progress),
        (Reason::Failed, Progress::Stalled)
    );
    assert!(found.message.contains("exit code 3"), "{}", found.message);
    assert_eq!(
        world.steps.iter().filter(|s| *s == "start_setup").count(),
        2,
        "one retry was allowed"
    );
}

#[test]
fn backups_are_waited_for_and_dead_locks_told_with_their_remedy() {
    let (mut world, mut desired) = (World::empty(), container());
    world.run(&mut desired, 60);
    for (lock, reason) in [
        ("backup", Reason::Busy),
        ("migrate", Reason::Busy),
        ("snapshot-delete", Reason::Locked),
        ("disk", Reason::Locked),
    ] {
        world
            .config
            .as_mut()
            .unwrap()
            .keys
            .insert("lock".into(), lock.into());
        let plan = world.plan(&desired);
        assert_eq!(said(&plan, C::Created).1, reason, "{lock}");
        assert!(plan.partial, "it serves meanwhile");
        let told = plan
            .findings
            .iter()
            .any(|f| f.message.contains("pct unlock 901"));
        assert_eq!(told, reason == Reason::Locked, "{lock}");
    }
}

#[test]
fn a_sealed_template_is_never_changed_again_but_says_that_it_is_outdated() {
    let (mut world, mut desired) = (World::empty(), template());
    world.run(&mut desired, 60);
    let p = present(&mut desired);
    p.revision = "ffffffffff".into();
    p.keys.insert("cores", "64".into());
    let plan = world.plan(&desired);
    assert!(matches!(plan.verdict, Verdict::Done { .. }));
    assert_eq!(
        said(&plan, C::Outdated),
        (Truth::True, Reason::SpecChanged, Progress::Neutral)
    );
}

#[test]
fn deletion_waits_for_children_stops_and_destroys() {
    let (mut world, mut desired) = (World::empty(), container());
    world.run(&mut desired, 60);
    world.steps.clear();
    let mut gone = deleted(&desired);
    if let Goal::Absent(a) = &mut gone.goal {
        a.children.push("lxccontainer/child".into());
    }
    let plan = world.plan(&gone);
    assert!(matches!(plan.verdict, Verdict::Wait { .. }));
    assert!(plan.findings[0].message.contains("lxccontainer/child"));
    let mut gone = deleted(&desired);
    assert_eq!(world.run(&mut gone, 20), Verdict::Gone);
    assert_eq!(world.steps, ["shutdown", "destroy"]);
}

#[test]
fn an_unreachable_hypervisor_is_no_reason_to_let_go() {
    let (mut world, mut desired) = (World::empty(), template());
    world.run(&mut desired, 60);
    for goal in [desired.clone(), deleted(&desired)] {
        let mut observed = world.observed(&goal);
        observed.health = crate::fleet::Health::Failed {
            kind: proxmox_client::ErrorKind::Unreachable,
            message: "refused".into(),
        };
        let plan = plan(&goal, &observed, Timestamp::from_second(1).unwrap());
        assert!(matches!(plan.verdict, Verdict::Wait { .. }) && plan.partial);
        assert_eq!(
            said(&plan, C::HypervisorReady),
            (Truth::Unknown, Reason::Unreachable, Progress::Reconciling)
        );
    }
}

#[test]
fn a_missing_bridge_is_told_before_anything_is_created() {
    let mut desired = template();
    desired.target.vmid = Some(901);
    let mut observed = World::empty().observed(&desired);
    observed.bridges = Some(vec!["vmbr1".into()]);
    let plan = plan(&desired, &observed, Timestamp::from_second(1).unwrap());
    assert_eq!(
        said(&plan, C::ConfigInSync),
        (Truth::False, Reason::Invalid, Progress::Stalled)
    );
    assert!(matches!(plan.verdict, Verdict::Blocked { .. }));
}

#[test]
fn a_route_is_waited_for_only_where_there_can_be_one() {
    let mut world = World::empty();
    world.in_guest.default_route = false;
    let mut desired = template();
    present(&mut desired).nets = None;
    assert!(
        matches!(world.clone().run(&mut desired, 60), Verdict::Done { .. }),
        "its interface has no gateway"
    );
    let mut desired = template();
    assert!(
        matches!(world.run(&mut desired, 60), Verdict::Do(Step::Guest { .. })),
        "the setup may need the network"
    );
    assert!(!world.steps.contains(&"start_setup".to_owned()));
}

#[test]
fn an_order_to_high_availability_is_given_once() {
    let (mut world, mut desired) = (World::empty(), container());
    world.run(&mut desired, 60);
    world.running = false;
    world.task = Some(("hastart", TaskState::Ok));
    let plan = world.plan(&desired);
    assert!(
        matches!(plan.verdict, Verdict::Wait { .. }),
        "{:?}",
        plan.verdict
    );
    assert_eq!(said(&plan, C::PowerInSync).1, Reason::Starting);
    world.running = true;
    assert!(matches!(
        world.plan(&desired).verdict,
        Verdict::Done { .. } | Verdict::Do(Step::Guest { .. })
    ));
    world.task = Some(("hastop", TaskState::Ok));
    assert!(matches!(
        world.plan(&deleted(&desired)).verdict,
        Verdict::Wait { .. }
    ));
}

#[test]
fn at_rest_nothing_lies_ahead() {
    let (mut world, mut desired) = (World::empty(), container());
    world.run(&mut desired, 60);
    assert_eq!(world.plan(&desired).ahead, Vec::<String>::new());
    if let Role::Container { running, .. } = &mut present(&mut desired).role {
        *running = false;
    }
    world.run(&mut desired, 60);
    assert_eq!(world.plan(&desired).ahead, Vec::<String>::new());
    assert!(!world.running);
}

#[test]
fn a_parent_that_went_on_is_told_and_hinders_nothing() {
    for mut desired in [template(), container()] {
        let mut world = World::empty();
        world.run(&mut desired, 60);
        let sealed = present(&mut desired).is_template();
        let p = present(&mut desired);
        p.built_from = Some("0ld0ld0ld0".into());
        if sealed {
            p.revision = "ffffffffff".into();
        }
        let plan = world.plan(&desired);
        assert!(matches!(plan.verdict, Verdict::Done { .. }));
        assert_eq!(said(&plan, C::Outdated).1, Reason::ParentChanged);
    }
}
