//! Who gets our SSH key and when, and which host key counts.

use super::{
    super::*,
    world::{World, template},
};
use crate::lxc::{desired::Source, observe::host_key};

const KEY: &str = "ssh-ed25519 AAAA phoenix-hypervisor:home@here";

fn present(desired: &mut Desired) -> &mut Present {
    match &mut desired.goal {
        Goal::Present(present) => present,
        Goal::Absent(_) => panic!("an absent goal"),
    }
}

fn from_scratch() -> Desired {
    let mut desired = template();
    let present = present(&mut desired);
    present.source = Source::OsTemplate("local:vztmpl/ubuntu.tar.zst".into());
    present.storage = Some("lxc-disks".into());
    present.gpus.clear();
    desired
}

#[test]
fn our_key_goes_in_with_the_call_that_creates_from_an_os_template() {
    for key in [Some(KEY.to_owned()), None] {
        let mut desired = from_scratch();
        desired.target.vmid = Some(901);
        let world = World {
            ssh_key: key.clone(),
            ..World::empty()
        };
        let Verdict::Do(Step::Create { params, .. }) = world.plan(&desired).verdict else {
            panic!("nothing is created");
        };
        let given = params.iter().find(|(name, _)| name == "ssh-public-keys");
        assert_eq!(given.map(|(_, value)| value.clone()), key);
    }
}

#[test]
fn a_key_that_is_missing_inside_is_put_there_before_the_setup() {
    // where SSH is used, and the container has a server that does not know the key
    let rows = [
        (Some(KEY), Some(false), true),
        (Some(KEY), Some(true), false),
        (Some(KEY), None, false),
        (None, Some(false), false),
    ];
    for (ours, inside, put) in rows {
        let (mut world, mut desired) = (World::empty(), from_scratch());
        world.ssh_key = ours.map(str::to_owned);
        world.in_guest.ssh_key = inside;
        assert!(matches!(world.run(&mut desired, 60), Verdict::Done { .. }));
        let steps = world.steps.join(" ");
        assert_eq!(
            steps.contains("await_boot authorize start_setup"),
            put,
            "{ours:?} {inside:?}: {steps}"
        );
    }
    // a clone knows it from being made a machine of its own
    let (mut world, mut desired) = (World::empty(), template());
    world.ssh_key = Some(KEY.to_owned());
    world.run(&mut desired, 60);
    assert!(
        !world.steps.contains(&"authorize".to_owned()),
        "{:?}",
        world.steps
    );
}

#[test]
fn a_clones_host_key_counts_once_it_is_its_own() {
    let mut desired = template();
    desired.target.vmid = Some(901);
    let mut world = World::empty();
    world.running = true;
    world.in_guest.host_key = Some("SHA256:its".into());
    let mut facts = world.in_guest.clone();
    world.facts = Some(facts.clone());
    let mut seen = world.observed(&desired);
    let clone = present(&mut desired).clone();
    assert_eq!(host_key(&clone, &seen), None, "it is its source's");
    seen.reported.host_key = Some("SHA256:recorded".into());
    assert_eq!(host_key(&clone, &seen).as_deref(), Some("SHA256:recorded"));
    facts.state = Some(crate::guest::GuestState {
        key: "901-u-1".into(),
        personalised: true,
        setup: None,
    });
    world.facts = Some(facts);
    let seen = world.observed(&desired);
    assert_eq!(host_key(&clone, &seen).as_deref(), Some("SHA256:its"));
}
