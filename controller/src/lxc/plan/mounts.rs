//! Volumes, directories of the node and device nodes. A volume is never taken away and never made twice; what belongs to the node is
//! there exactly where the spec says so.

use std::collections::BTreeSet;

use phoenix_crds::conditions::{ConditionType as C, Reason};
use proxmox_client::{PropertyString, Volume};

use super::{Decision, Draft, View, config::is_nvidia};
use crate::{
    fleet::Seen,
    lxc::{
        desired::{MountKind, WantedMount, merge_device},
        step::{Change, Site, Step},
    },
};

/// Mounts of the config with their slots.
fn there(seen: &Seen) -> impl Iterator<Item = (u8, String, Volume)> {
    seen.config.mounts().into_iter().map(|(slot, volume)| {
        let path = volume.props.get("mp").unwrap_or_default();
        let path = path.trim_end_matches('/').to_owned();
        (slot, path, volume)
    })
}

fn at(seen: &Seen, path: &str) -> Option<(u8, Volume)> {
    there(seen).find_map(|(slot, is, volume)| (is == path).then_some((slot, volume)))
}

/// A slot that neither the config nor a change that waits for the next start uses.
fn free(seen: &Seen, stem: &str, taken: &BTreeSet<String>) -> Option<String> {
    (0u8..=255).map(|n| format!("{stem}{n}")).find(|key| {
        let waits = seen.pending.iter().any(|p| p.key == *key);
        !waits && !seen.config.keys.contains_key(key) && !taken.contains(key)
    })
}

/// What can't be brought about, before anything is changed.
pub(super) fn impossible(view: &View<'_>, seen: &Seen) -> Option<String> {
    view.present.mounts.iter().find_map(|wanted| {
        let (slot, is) = at(seen, &wanted.path)?;
        let path = &wanted.path;
        match &wanted.kind {
            MountKind::Bind { host_path } if !is.is_bind() => Some(format!(
                "spec.mounts {path:?} asks for {host_path} of the node, but the container has volume {} there, which is never removed by \
                 itself. Choose another path, or detach it: `pct set {} --delete mp{slot}`.",
                is.volid,
                view.target.vmid.unwrap_or_default()
            )),
            MountKind::Volume { storage: Some(storage), named: true, .. }
                if !is.is_bind() && *storage != is.storage =>
            {
                Some(format!(
                    "spec.mounts {path:?} asks for storage {storage}, but the volume is on {}; set it back, or move it: `pct move-volume {} mp{slot} {storage}`.",
                    is.storage,
                    view.target.vmid.unwrap_or_default()
                ))
            }
            MountKind::Volume { gib, .. } if is.size_gib.is_some_and(|has| *gib < has) => {
                let has = is.size_gib.unwrap_or_default();
                Some(format!(
                    "spec.mounts {path:?} asks for {gib}Gi, but the volume already has {has}Gi and never shrinks; ask for {has}Gi or more."
                ))
            }
            MountKind::Volume { storage: None, .. } if is.is_bind() => Some(no_storage(path)),
            _ => None,
        }
    })
    .or_else(|| {
        let homeless = |m: &&WantedMount| {
            matches!(m.kind, MountKind::Volume { storage: None, .. }) && at(seen, &m.path).is_none()
        };
        view.present.mounts.iter().find(homeless).map(|m| no_storage(&m.path))
    })
}

fn no_storage(path: &str) -> String {
    format!(
        "spec.mounts {path:?} names no storage; give one, or spec.defaults.storage of the hypervisor."
    )
}

/// Volumes: those that are there edited in one call, else one that is missing allocated, by a call of its own.
pub(super) fn volumes(view: &View<'_>, seen: &Seen) -> Change {
    let mut change = Change::default();
    let wanted = view.present.mounts.iter().filter(|m| !m.is_bind());
    let mut missing = None;
    for mount in wanted {
        match at(seen, &mount.path) {
            Some((slot, is)) if !is.is_bind() => {
                set(&mut change, format!("mp{slot}"), mount, &is.props);
            }
            Some(_) => {}
            None => {
                missing.get_or_insert(mount);
            }
        }
    }
    if change.is_empty()
        && let Some(mount) = missing
        && let Some((slot, text)) = free(seen, "mp", &BTreeSet::new()).zip(mount.fresh())
    {
        change.what.push(format!("a volume at {}", mount.path));
        change.set.insert(slot, text.to_string());
    }
    change
}

fn set(change: &mut Change, slot: String, mount: &WantedMount, is: &PropertyString) {
    let merged = mount.merge(is);
    if !merged.means_same(is) {
        change.what.push(format!("the mount at {}", mount.path));
        change.set.insert(slot, merged.to_string());
    }
}

/// Directories of the node: those that the spec doesn't name go, which any token may do; the others are root's work.
pub(super) fn binds(view: &View<'_>, seen: &Seen) -> Change {
    let wanted = |path: &str| {
        let mounts = &view.present.mounts;
        mounts.iter().any(|m| m.is_bind() && m.path == path)
    };
    let mut change = Change::default();
    for (slot, path, volume) in there(seen) {
        if volume.is_bind() && !wanted(&path) {
            change.delete.push(format!("mp{slot}"));
            change.what.push(format!("no {} at {path}", volume.volid));
        }
    }
    if !change.is_empty() {
        return change;
    }
    change.as_root = true;
    let mut taken = BTreeSet::new();
    for mount in view.present.mounts.iter().filter(|m| m.is_bind()) {
        match at(seen, &mount.path) {
            Some((slot, is)) => set(&mut change, format!("mp{slot}"), mount, &is.props),
            None => {
                if let Some((slot, text)) = free(seen, "mp", &taken).zip(mount.fresh()) {
                    change.what.push(format!("the mount at {}", mount.path));
                    taken.insert(slot.clone());
                    change.set.insert(slot, text.to_string());
                }
            }
        }
    }
    change
}

/// Device nodes other than GPUs' are those of the spec, as it says.
pub(super) fn devices(view: &View<'_>, seen: &Seen) -> Change {
    let mut change = Change {
        as_root: true,
        ..Change::default()
    };
    let current = seen.config.devices();
    let path = |d: &PropertyString| d.get("path").unwrap_or_default().to_owned();
    for (slot, device) in &current {
        let path = path(device);
        if !is_nvidia(&path) && !view.present.devices.iter().any(|d| d.path == path) {
            change.delete.push(format!("dev{slot}"));
            change.what.push(format!("no device {path}"));
        }
    }
    let mut taken = BTreeSet::new();
    for wanted in &view.present.devices {
        let found = current.iter().find(|(_, d)| path(d) == wanted.path);
        let is = found.map(|(_, d)| d);
        let merged = merge_device(wanted, is);
        if is.is_some_and(|is| is.means_same(&merged)) {
            continue;
        }
        let slot = found.map(|(slot, _)| format!("dev{slot}"));
        if let Some(slot) = slot.or_else(|| free(seen, "dev", &taken)) {
            change.what.push(format!("device {}", wanted.path));
            taken.insert(slot.clone());
            change.set.insert(slot, merged.to_string());
        }
    }
    change
}

/// Volumes grow, one at a time.
pub(super) fn growth(view: &View<'_>, draft: &mut Draft, seen: &Seen, site: &Site) -> Decision {
    let grow = view.present.mounts.iter().find_map(|mount| {
        let MountKind::Volume { gib, .. } = mount.kind else {
            return None;
        };
        let (slot, is) = at(seen, &mount.path)?;
        // what has no size yet is allocated with the one asked for
        (is.size_gib? < gib).then(|| (mount, format!("mp{slot}"), gib))
    });
    let (mount, disk, gib) = grow?;
    if let Some(failure) = view.failure_of(&["resize"]) {
        let message = format!(
            "Growing the volume at {} failed: {}",
            mount.path, failure.message
        );
        if let Some(wait) = draft.pause(failure, C::ConfigInSync, Reason::Applying, message) {
            return Some(wait);
        }
    }
    let step = Step::Resize {
        site: site.clone(),
        disk,
        gib,
    };
    draft.step(C::ConfigInSync, Reason::Applying, step)
}

/// Volumes that the spec doesn't list are kept, and that is said.
pub(super) fn kept(view: &View<'_>, seen: &Seen) -> String {
    let wanted = |path: &str| view.present.mounts.iter().any(|m| m.path == path);
    let kept: Vec<String> = there(seen)
        .filter(|(_, path, volume)| !volume.is_bind() && !wanted(path))
        .map(|(_, path, volume)| format!("{} at {path}", volume.volid))
        .collect();
    if kept.is_empty() {
        return String::new();
    }
    format!(
        "Volumes that spec.mounts doesn't list are kept: {}.",
        kept.join(", ")
    )
}
