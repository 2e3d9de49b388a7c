//! A node is chosen before anything else, once, and what is made is made there.

use phoenix_crds::{
    conditions::{ConditionType as C, Reason},
    status::Placement,
};

use super::{
    super::*,
    world::{World, template},
};
use crate::{
    condition::Progress,
    fleet::Place,
    lxc::desired::{Source, Wish},
};

fn unplaced() -> Desired {
    let mut desired = template();
    if let Goal::Present(present) = &mut desired.goal {
        present.node = String::new();
        present.wish = Some(Wish::default());
        present.source = Source::OsTemplate("local:vztmpl/u.tar.zst".into());
    }
    desired
}

fn nodes(online: bool) -> Vec<Place> {
    ["pve1", "pve2"]
        .map(|node| Place {
            node: node.into(),
            online: online && node == "pve2",
            ..Place::default()
        })
        .to_vec()
}

#[test]
fn a_node_is_chosen_once_and_first() {
    let (mut world, mut desired) = (World::empty(), unplaced());
    world.places = nodes(true);
    world.run(&mut desired, 60);
    assert_eq!(
        world.steps[..3].join(" "),
        "choose_node reserve_vmid create"
    );
    assert!(world.steps[3..].iter().all(|s| s != "choose_node"));
    let Goal::Present(present) = &desired.goal else {
        panic!("an absent goal")
    };
    assert_eq!(present.node, "pve2");
}

#[test]
fn where_no_node_fits_it_is_waited_and_said_of_each() {
    let mut world = World::empty();
    world.places = nodes(false);
    let plan = world.plan(&unplaced());
    assert!(matches!(plan.verdict, Verdict::Wait { .. }));
    let said = plan
        .findings
        .iter()
        .find(|f| f.condition == C::Created)
        .unwrap();
    assert_eq!(
        (said.reason, said.progress),
        (Reason::Pending, Progress::Reconciling)
    );
    assert!(
        said.message
            .contains("pve1 is offline; pve2 is offline. This goes on"),
        "{}",
        said.message
    );
}

#[test]
fn the_reason_stays_in_the_condition_as_long_as_it_is_there() {
    let (mut world, mut desired) = (World::empty(), unplaced());
    world.places = nodes(true);
    world.run(&mut desired, 60);
    let mut observed = world.observed(&desired);
    for (node, told) in [("pve", true), ("pve2", false)] {
        observed.reported.placement = Some(Placement {
            node: node.into(),
            reason: "it is the only one that fits".into(),
        });
        let plan = plan(
            &desired,
            &observed,
            k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
        );
        let said = plan
            .findings
            .iter()
            .find(|f| f.condition == C::Created)
            .unwrap();
        assert_eq!(
            said.message
                .contains("chosen since it is the only one that fits"),
            told,
            "{}",
            said.message
        );
    }
}
