//! Volumes, directories of the node, device nodes, and what the hypervisor allows.

use phoenix_crds::{
    conditions::{ConditionType as C, Reason},
    mounts::Device,
};

use super::{
    super::*,
    world::{World, container},
};
use crate::{
    condition::Progress,
    lxc::{
        desired::{MountKind, WantedMount},
        step::Change,
    },
};

fn present(desired: &mut Desired) -> &mut Present {
    match &mut desired.goal {
        Goal::Present(present) => present,
        Goal::Absent(_) => panic!("an absent goal"),
    }
}

fn volume(path: &str, gib: u64) -> WantedMount {
    WantedMount {
        path: path.into(),
        kind: MountKind::Volume {
            storage: Some("lxc-disks".into()),
            named: false,
            gib,
            backup: false,
        },
        read_only: false,
    }
}

fn bind(path: &str, host_path: &str) -> WantedMount {
    WantedMount {
        path: path.into(),
        kind: MountKind::Bind {
            host_path: host_path.into(),
        },
        read_only: true,
    }
}

fn device(path: &str) -> Device {
    Device {
        path: path.into(),
        mode: Some("0666".into()),
        ..Device::default()
    }
}

/// A container without GPUs that has all this.
fn with(mounts: Vec<WantedMount>, devices: Vec<Device>) -> (World, Desired) {
    let mut desired = container();
    let it = present(&mut desired);
    (it.mounts, it.devices, it.gpus) = (mounts, devices, Vec::new());
    (World::empty(), desired)
}

fn at_rest(world: &mut World, desired: &mut Desired) {
    let verdict = world.run(desired, 60);
    assert!(
        matches!(verdict, Verdict::Done { .. }),
        "{verdict:?} after {:?}",
        world.steps
    );
}

fn key<'a>(world: &'a World, key: &str) -> Option<&'a str> {
    world.config.as_ref()?.get(key)
}

fn put(world: &mut World, key: &str, value: &str) {
    let config = world.config.as_mut().unwrap();
    config.keys.insert(key.into(), value.into());
}

/// The change that comes next.
fn next(world: &World, desired: &Desired) -> Change {
    match world.plan(desired).verdict {
        Verdict::Do(Step::Configure { change, .. }) => change,
        other => panic!("{other:?}"),
    }
}

fn config_in_sync(world: &World, desired: &Desired) -> (Reason, Progress, String) {
    let plan = world.plan(desired);
    let found = plan
        .findings
        .iter()
        .find(|f| f.condition == C::ConfigInSync)
        .expect("a word on the config");
    (found.reason, found.progress, found.message.clone())
}

#[test]
fn what_is_asked_for_is_there_once() {
    let mounts = vec![
        volume("/data", 8),
        bind("/models", "/fastData/models"),
        volume("/logs", 2),
    ];
    let (mut world, mut desired) = with(mounts, vec![device("/dev/net/tun")]);
    at_rest(&mut world, &mut desired);
    assert_eq!(
        [
            key(&world, "mp0"),
            key(&world, "mp1"),
            key(&world, "mp2"),
            key(&world, "mp3")
        ],
        [
            Some("lxc-disks:subvol-901-mp0,mp=/data,size=8G"),
            Some("lxc-disks:subvol-901-mp1,mp=/logs,size=2G"),
            Some("/fastData/models,mp=/models,ro=1"),
            None
        ]
    );
    let devices = world.config.as_ref().unwrap().devices();
    assert_eq!(
        devices
            .values()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["/dev/net/tun,mode=0666"]
    );
}

#[test]
fn a_volume_grows_and_never_shrinks() {
    let (mut world, mut desired) = with(vec![volume("/data", 8)], Vec::new());
    at_rest(&mut world, &mut desired);
    present(&mut desired).mounts = vec![volume("/data", 9)];
    at_rest(&mut world, &mut desired);
    assert_eq!(
        key(&world, "mp0"),
        Some("lxc-disks:subvol-901-mp0,mp=/data,size=9G")
    );
    present(&mut desired).mounts = vec![volume("/data", 4)];
    let (reason, progress, message) = config_in_sync(&world, &desired);
    assert_eq!((reason, progress), (Reason::Invalid, Progress::Stalled));
    assert!(message.contains("ask for 9Gi or more"), "{message}");
}

#[test]
fn an_edit_sends_back_what_was_read() {
    let (mut world, mut desired) = with(vec![volume("/data", 8)], Vec::new());
    at_rest(&mut world, &mut desired);
    let kept = "lxc-disks:subvol-901-mp0,mp=/data,mountoptions=noatime,ro=1,size=8G";
    put(&mut world, "mp0", kept);
    assert_eq!(
        next(&world, &desired).set["mp0"],
        "lxc-disks:subvol-901-mp0,mp=/data,mountoptions=noatime,size=8G"
    );
    put(
        &mut world,
        "mp0",
        "lxc-disks:subvol-901-mp0,mp=/data,ro=0,backup=0,size=8G",
    );
    assert!(matches!(world.plan(&desired).verdict, Verdict::Done { .. }));
}

#[test]
fn a_volume_that_is_not_listed_is_kept_and_a_directory_of_the_node_goes() {
    let mounts = vec![volume("/data", 8), bind("/models", "/fastData/models")];
    let (mut world, mut desired) = with(mounts, vec![device("/dev/net/tun")]);
    at_rest(&mut world, &mut desired);
    present(&mut desired).mounts.clear();
    present(&mut desired).devices.clear();
    // any token may take it out
    world.has_root = false;
    let change = next(&world, &desired);
    assert_eq!((change.delete, change.as_root), (vec!["mp1".into()], false));
    world.has_root = true;
    at_rest(&mut world, &mut desired);
    assert_eq!(key(&world, "mp1"), None);
    assert_eq!(world.config.as_ref().unwrap().devices().len(), 0);
    let (reason, _, message) = config_in_sync(&world, &desired);
    assert_eq!(reason, Reason::InSync);
    assert_eq!(
        message,
        "Volumes that spec.mounts doesn't list are kept: lxc-disks:subvol-901-mp0 at /data."
    );
}

#[test]
fn a_slot_that_waits_for_a_restart_is_not_used() {
    let (mut world, mut desired) = with(Vec::new(), Vec::new());
    at_rest(&mut world, &mut desired);
    present(&mut desired).mounts = vec![volume("/data", 8)];
    let mut observed = world.observed(&desired);
    let look = std::sync::Arc::make_mut(observed.look.as_mut().unwrap());
    if let crate::fleet::Presence::Here(seen) = &mut look.presence {
        seen.pending.push(proxmox_client::PendingEntry {
            key: "mp0".into(),
            value: Some("/srv,mp=/data".into()),
            delete: true,
            ..Default::default()
        });
    }
    match plan(&desired, &observed, Timestamp::UNIX_EPOCH).verdict {
        Verdict::Do(Step::Configure { change, .. }) => {
            assert_eq!(change.set["mp1"], "lxc-disks:8,mp=/data");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_takes_a_volume_s_place() {
    let (mut world, mut desired) = with(vec![volume("/data", 8)], Vec::new());
    at_rest(&mut world, &mut desired);
    let moved = WantedMount {
        kind: MountKind::Volume {
            storage: Some("fast".into()),
            named: true,
            gib: 8,
            backup: false,
        },
        ..volume("/data", 8)
    };
    for (asked, words) in [
        (bind("/data", "/srv"), "pct set 901 --delete mp0"),
        (moved, "pct move-volume 901 mp0 fast"),
    ] {
        present(&mut desired).mounts = vec![asked];
        let (reason, progress, message) = config_in_sync(&world, &desired);
        assert_eq!((reason, progress), (Reason::Invalid, Progress::Stalled));
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn without_root_the_line_to_run_is_told() {
    for (mounts, devices, line) in [
        (
            vec![bind("/models", "/fastData/models")],
            Vec::new(),
            "`pct set 901 --mp0 /fastData/models,mp=/models,ro=1`",
        ),
        (
            Vec::new(),
            vec![device("/dev/net/tun")],
            "`pct set 901 --dev0 /dev/net/tun,mode=0666`",
        ),
    ] {
        let (mut world, mut desired) = with(mounts, devices);
        for _ in 0..4 {
            if let Verdict::Do(step) = world.plan(&desired).verdict {
                world.apply(&step, &mut desired);
            }
            world.task = world
                .task
                .take()
                .map(|(kind, _)| (kind, proxmox_client::TaskState::Ok));
        }
        world.config.as_mut().unwrap().keys.remove("dev0");
        world.has_root = false;
        let verdict = world.run(&mut desired, 20);
        assert!(matches!(verdict, Verdict::Blocked { .. }), "{verdict:?}");
        let (reason, _, message) = config_in_sync(&world, &desired);
        assert_eq!(reason, Reason::RootRequired, "{message}");
        assert!(message.contains(line), "{message}");
        assert!(!world.running, "started without what it needs");
    }
}

#[test]
fn what_is_not_allowed_is_not_made_and_what_is_there_is_left() {
    let (mut world, mut desired) = with(vec![bind("/models", "/etc")], Vec::new());
    let why =
        "spec.mounts \"/models\" asks for hostPath /etc, which Hypervisor home does not allow.";
    present(&mut desired).not_allowed = Some(why.into());
    let told = |world: &World, desired: &Desired| {
        let plan = world.plan(desired);
        assert!(matches!(plan.verdict, Verdict::Blocked { .. }));
        let found = plan.findings.iter().find(|f| f.condition == C::Created);
        let found = found.expect("a word on the creation");
        assert_eq!(
            (found.reason, found.progress),
            (Reason::NotAllowed, Progress::Stalled)
        );
        (found.message.clone(), plan.partial)
    };
    assert_eq!(told(&world, &desired), (why.to_owned(), false));

    // allowed, made, and no longer allowed
    present(&mut desired).not_allowed = None;
    at_rest(&mut world, &mut desired);
    present(&mut desired).not_allowed = Some(why.into());
    put(&mut world, "memory", "1");
    let (message, partial) = told(&world, &desired);
    assert!(partial && message.ends_with("The container is left as it is until then."));
    assert!(world.running);
}

#[test]
fn the_pool_goes_with_the_call_that_makes_it() {
    use crate::lxc::desired::Source;
    let (mut world, mut desired) = with(Vec::new(), Vec::new());
    present(&mut desired).pool = Some("ai".into());
    for source in [None, Some(Source::OsTemplate("local:vztmpl/x".into()))] {
        if let Some(source) = source {
            present(&mut desired).source = source;
        }
        desired.target.vmid = Some(901);
        world.task = None;
        match world.plan(&desired).verdict {
            Verdict::Do(Step::Create { params, .. } | Step::Clone { params, .. }) => {
                assert!(params.contains(&("pool".into(), "ai".into())), "{params:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}
