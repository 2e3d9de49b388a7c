//! On which node a container is made, where neither the spec nor its source nor the hypervisor says so: decided once, and told.

use std::collections::BTreeSet;

use phoenix_crds::conditions::{ConditionType as C, Reason};

use super::{Decision, Draft, ON_WAKE, View};
use crate::{
    fleet::Place,
    lxc::{desired::Wish, step::Step},
};

const GIB: u64 = 1 << 30;

/// It has a node.
pub(super) fn placed(view: &View<'_>, draft: &mut Draft) -> Decision {
    let wish = view.present.wish.as_ref()?;
    let places = view.observed.places.as_ref()?;
    match choose(wish, places) {
        Ok((node, why)) => draft.step(C::Created, Reason::Creating, Step::ChooseNode { node, why }),
        Err(why_not) => {
            let message = format!(
                "No node of hypervisor {} fits: {why_not}. This goes on by itself when one does; spec.node of a new object chooses one regardless.",
                view.target.hypervisor
            );
            draft.wait(C::Created, Reason::Pending, message, ON_WAKE)
        }
    }
}

/// The node that fits best and why, or why none does.
fn choose(wish: &Wish, places: &[Place]) -> Result<(String, String), String> {
    let (mut fit, mut unfit) = (Vec::new(), Vec::new());
    for place in places {
        match hindrances(wish, place) {
            why if why.is_empty() => fit.push(place),
            why => unfit.push(format!("{} {}", place.node, why.join(" and "))),
        }
    }
    // the GPUs seen there first, then what is not promised to others; the name, so that the same is always chosen
    fit.sort_by_key(|p| {
        (
            (!wish.gpus.is_empty() || wish.gpu_count > 0) && gpus(wish, &p.node).is_none(),
            std::cmp::Reverse(unpromised(p)),
            p.node.clone(),
        )
    });
    let others: Vec<&str> = fit.iter().skip(1).map(|p| p.node.as_str()).collect();
    let mut why = match (fit.first(), others.as_slice()) {
        (None, _) if unfit.is_empty() => return Err("it shows none".to_owned()),
        (None, _) => return Err(unfit.join("; ")),
        (Some(_), []) => "it is the only one that fits".to_owned(),
        (Some(best), others) => {
            let others = others.join(", ");
            match best.memory {
                Some(_) => format!(
                    "of those that fit it has the most memory left, {} GiB (the others: {others})",
                    unpromised(best) / GIB
                ),
                None => format!("it fits, as do {others}"),
            }
        }
    };
    if !unfit.is_empty() {
        why = format!("{why}; {}", unfit.join("; "));
    }
    let best = fit.first().map(|p| p.node.clone()).unwrap_or_default();
    Ok((best, why))
}

/// What is left when all guests there take what they may.
fn unpromised(place: &Place) -> u64 {
    let (total, used) = place.memory.unwrap_or_default();
    total.saturating_sub(used.max(place.promised))
}

/// What speaks against a node, each as the end of a sentence about it.
fn hindrances(wish: &Wish, place: &Place) -> Vec<String> {
    if !place.online {
        return vec!["is offline".to_owned()];
    }
    [
        storage(wish, place),
        bridges(wish, place),
        archive(wish, place),
        memory(wish, place),
        missing_gpus(wish, place),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn storage(wish: &Wish, place: &Place) -> Option<String> {
    let (wanted, storages) = (wish.storage.as_ref()?, place.storages.as_ref()?);
    match storages.iter().find(|s| s.name == *wanted) {
        None => Some(format!("has no storage {wanted}")),
        Some(s) if !s.enabled || !s.active => Some(format!("has storage {wanted}, but not in use")),
        Some(s) if !s.holds_containers() => Some(format!(
            "has storage {wanted}, but not for containers (content rootdir)"
        )),
        Some(_) => None,
    }
}

fn bridges(wish: &Wish, place: &Place) -> Option<String> {
    let bridges = place.bridges.as_ref()?;
    let missing = wish.bridges.iter().find(|b| !bridges.contains(b))?;
    Some(format!("has no bridge {missing}"))
}

fn archive(wish: &Wish, place: &Place) -> Option<String> {
    let wanted = wish.os_template.as_ref()?;
    let storage = wanted.split(':').next().unwrap_or_default();
    let listed = place.archives.get(storage);
    let lacks = match (listed, &place.storages) {
        (Some(archives), _) => !archives.contains(wanted),
        (None, Some(storages)) => !storages.iter().any(|s| s.name == storage),
        (None, None) => false,
    };
    lacks.then(|| format!("has no OS template {wanted}"))
}

fn memory(wish: &Wish, place: &Place) -> Option<String> {
    let (total, used) = place.memory?;
    let free = total.saturating_sub(used);
    // in whole GiB, lest the words change with every look
    (free < wish.memory).then(|| {
        format!(
            "has {} GiB of memory free, and {} GiB are asked for",
            free / GIB,
            wish.memory.div_ceil(GIB)
        )
    })
}

fn missing_gpus(wish: &Wish, place: &Place) -> Option<String> {
    let there = gpus(wish, &place.node)?;
    let missing: Vec<String> = wish
        .gpus
        .iter()
        .filter(|index| !there.contains(index))
        .map(u32::to_string)
        .collect();
    if u32::try_from(there.len()).is_ok_and(|n| n < wish.gpu_count) {
        return Some(format!(
            "has {} GPUs, and {} are asked for",
            there.len(),
            wish.gpu_count
        ));
    }
    (!missing.is_empty()).then(|| format!("has no GPU {}", missing.join(", ")))
}

/// The GPUs that are known of a node; `None` where none is, which is no proof that there are none.
fn gpus(wish: &Wish, node: &str) -> Option<BTreeSet<u32>> {
    let there: BTreeSet<u32> = wish
        .known_gpus
        .iter()
        .filter(|(on, _)| on == node)
        .map(|(_, index)| *index)
        .collect();
    (!there.is_empty()).then_some(there)
}

#[cfg(test)]
mod tests {
    use proxmox_client::Storage;

    use super::*;

    type Known = [(&'static str, u32)];
    const ARCHIVE: &str = "local:vztmpl/ubuntu.tar.zst";

    fn storages(names: &[(&str, &str)]) -> Vec<Storage> {
        let storage = |(name, content): &(&str, &str)| Storage {
            name: (*name).to_owned(),
            content: vec![(*content).to_owned()],
            active: true,
            enabled: true,
            ..Storage::default()
        };
        names.iter().map(storage).collect()
    }

    fn place(node: &str) -> Place {
        Place {
            node: node.to_owned(),
            online: true,
            memory: Some((64 * GIB, 8 * GIB)),
            promised: 16 * GIB,
            storages: Some(storages(&[("tank", "rootdir"), ("local", "vztmpl")])),
            bridges: Some(vec!["vmbr0".to_owned(), "vmbr1".to_owned()]),
            archives: [("local".to_owned(), vec![ARCHIVE.to_owned()])].into(),
        }
    }

    fn wish() -> Wish {
        Wish {
            storage: Some("tank".to_owned()),
            bridges: vec!["vmbr1".to_owned()],
            os_template: Some(ARCHIVE.to_owned()),
            memory: 4 * GIB,
            ..Wish::default()
        }
    }

    #[test]
    fn a_node_that_lacks_something_is_not_chosen_and_that_is_said() {
        type Edit = fn(&mut Place);
        let rows: [(&str, Edit); 9] = [
            ("is offline", |p| p.online = false),
            ("has no storage tank", |p| {
                p.storages = Some(storages(&[("local", "vztmpl")]));
            }),
            ("has storage tank, but not in use", |p| {
                p.storages.as_mut().unwrap()[0].active = false;
            }),
            ("has storage tank, but not in use", |p| {
                p.storages.as_mut().unwrap()[0].enabled = false;
            }),
            (
                "has storage tank, but not for containers (content rootdir)",
                |p| {
                    p.storages.as_mut().unwrap()[0].content = vec!["images".to_owned()];
                },
            ),
            ("has no bridge vmbr1", |p| {
                p.bridges = Some(vec!["vmbr0".to_owned()]);
            }),
            ("has no OS template local:vztmpl/ubuntu.tar.zst", |p| {
                p.archives.insert("local".to_owned(), Vec::new());
            }),
            ("has no OS template local:vztmpl/ubuntu.tar.zst", |p| {
                p.archives.clear();
                p.storages = Some(storages(&[("tank", "rootdir")]));
            }),
            ("has 3 GiB of memory free, and 4 GiB are asked for", |p| {
                p.memory = Some((64 * GIB, 61 * GIB));
            }),
        ];
        for (why_not, edit) in rows {
            let mut bad = place("bad");
            edit(&mut bad);
            let (node, why) = choose(&wish(), &[bad.clone(), place("good")]).unwrap();
            assert_eq!(node, "good");
            assert_eq!(why, format!("it is the only one that fits; bad {why_not}"));
            assert_eq!(choose(&wish(), &[bad]), Err(format!("bad {why_not}")));
        }
    }

    #[test]
    fn what_the_token_may_not_see_speaks_against_nothing() {
        let hidden = Place {
            node: "pve".to_owned(),
            online: true,
            ..Place::default()
        };
        assert_eq!(choose(&wish(), &[hidden]).unwrap().0, "pve");
        assert!(choose(&wish(), &[]).is_err());
    }

    #[test]
    fn of_those_that_fit_the_one_with_the_most_memory_left_is_chosen() {
        let (mut a, mut b) = (place("a"), place("b"));
        assert_eq!(choose(&wish(), &[b.clone(), a.clone()]).unwrap().0, "a");
        a.promised = 48 * GIB;
        let (node, why) = choose(&wish(), &[a.clone(), b.clone()]).unwrap();
        assert_eq!(
            (node.as_str(), why.as_str()),
            (
                "b",
                "of those that fit it has the most memory left, 48 GiB (the others: a)"
            )
        );
        // promises are no use of memory: a host that promised more than it has still takes one
        b.online = false;
        a.promised = 512 * GIB;
        assert_eq!(choose(&wish(), &[a, b]).unwrap().0, "a");
    }

    #[test]
    fn gpus_that_are_known_decide() {
        let wanted = |known: &[(&str, u32)]| Wish {
            gpus: vec![0, 1],
            known_gpus: known.iter().map(|(n, i)| ((*n).to_owned(), *i)).collect(),
            ..wish()
        };
        let places = [place("a"), place("b")];
        let rows: [(&Known, Result<&str, &str>); 5] = [
            (&[], Ok("a")),
            (&[("b", 0), ("b", 1)], Ok("b")),
            (&[("a", 0), ("b", 0), ("b", 1)], Ok("b")),
            (&[("a", 0)], Ok("b")),
            (
                &[("a", 0), ("b", 2)],
                Err("a has no GPU 1; b has no GPU 0, 1"),
            ),
        ];
        for (known, chosen) in rows {
            let choice = choose(&wanted(known), &places);
            let choice = choice.as_ref().map(|(node, _)| node.as_str());
            assert_eq!(choice.map_err(String::as_str), chosen, "{known:?}");
        }
    }
}
