//! Whatever the world is like when we come to it, the plan comes to an end and does no harm. The harm is asserted in `World::apply`.

use proptest::prelude::*;
use proxmox_client::TaskState;

use super::{
    super::*,
    world::{World, container, deleted, template},
};
use crate::lxc::mark::Mark;

/// The operator is killed after `steps` passes, and comes back without memory.
fn interrupted(desired: &mut Desired, steps: usize, failing: u32) -> World {
    let mut world = World {
        failing,
        ..World::empty()
    };
    world.run(desired, steps);
    // a task that ran has ended; that it was ours is lost with the status that was never written
    world.task = None;
    world.facts = None;
    world
}

proptest! {
    #[test]
    fn it_ends_well_after_a_crash_at_any_step(serves in any::<bool>(), steps in 0usize..40, failing in 0u32..2) {
        let mut desired = if serves { container() } else { template() };
        let mut world = interrupted(&mut desired, steps, failing);
        let verdict = world.run(&mut desired, 120);
        prop_assert!(matches!(verdict, Verdict::Done { .. }), "{verdict:?} after {:?}", world.steps);
        prop_assert!(matches!(world.plan(&desired).verdict, Verdict::Done { .. }), "a second plan has nothing to do");
        prop_assert!(world.steps.iter().filter(|s| *s == "clone").count() <= 2);
    }

    #[test]
    fn it_goes_away_from_any_step(serves in any::<bool>(), steps in 0usize..40) {
        let mut desired = if serves { container() } else { template() };
        let mut world = interrupted(&mut desired, steps, 0);
        let mut gone = deleted(&desired);
        prop_assert_eq!(world.run(&mut gone, 20), Verdict::Gone);
        prop_assert!(world.config.is_none());
    }

    #[test]
    fn what_carries_no_mark_of_ours_is_never_touched(
        text in "[ -~]{0,60}", running in any::<bool>(), is_template in any::<bool>(), absent in any::<bool>(),
        theirs in proptest::option::of(("[a-z]{4}", 100u32..999)),
    ) {
        let mut desired = template();
        desired.target.vmid = Some(901);
        let mut world = World { running, ..World::empty() };
        let config = world.config.get_or_insert_default();
        let description = match theirs {
            Some((instance, vmid)) => Mark { instance, vmid, created: true, ..desired.target.mark(901) }.describe(&text),
            None => text,
        };
        config.keys.insert("description".into(), description);
        if is_template {
            config.keys.insert("template".into(), "1".into());
        }
        let goal = if absent { deleted(&desired) } else { desired.clone() };
        let ours = matches!(world.observed(&goal).ownership, Some(crate::lxc::mark::Ownership::Ours(_)));
        prop_assume!(!ours);
        let verdict = world.plan(&goal).verdict;
        prop_assert!(!matches!(verdict, Verdict::Do(_)), "{verdict:?}");
    }

    #[test]
    fn the_same_world_gives_the_same_plan(steps in 0usize..30) {
        let mut desired = template();
        let mut world = interrupted(&mut desired, steps, 0);
        world.task = Some(("vzclone", TaskState::Ok));
        prop_assert_eq!(world.plan(&desired), world.plan(&desired));
    }
}
