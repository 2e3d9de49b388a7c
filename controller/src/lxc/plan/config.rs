//! The config matches the spec: what differs is put right with as few PUTs as Proxmox' rules allow, before the first start in any case.

use std::collections::BTreeSet;

use phoenix_crds::conditions::{ConditionType as C, Reason};
use proxmox_client::{CtConfig, PropertyString};

use super::{Decision, Draft, View, missing_device, mounts, presence::missing_bridge};
use crate::{
    condition::{Finding, Truth},
    engine::Verdict,
    fleet::Seen,
    lxc::{
        desired::{Present, Source},
        mark::{self, Mark},
        step::{Change, Site, Step},
    },
};

/// The tag by which ours are found in Proxmox' own views.
pub(crate) const TAG: &str = "phoenix";

/// What a PUT of a device that the node lacks is remembered as.
pub(in crate::lxc) const SET_DEVICE: &str = "set_device";

/// One PUT a pass, in this order: what a token may do, what only root may do, volumes and directories of the node, devices, devices that the
/// host may lack, the disks' sizes.
pub(super) fn matches(view: &View<'_>, draft: &mut Draft) -> Decision {
    let (seen, site) = (view.seen()?, view.site()?);
    if let Some(missing) = missing_bridge(view) {
        return draft.blocked(C::ConfigInSync, Reason::Invalid, missing);
    }
    if let Some(message) = mounts::impossible(view, seen) {
        return draft.blocked(C::ConfigInSync, Reason::Invalid, message);
    }
    let fresh = fresh(view);
    let mut changes = vec![
        keys(view, seen, fresh),
        features(view.present, seen),
        mounts::volumes(view, seen),
        mounts::binds(view, seen),
    ];
    if !draft.gpus_denied {
        changes.push(devices(view, seen, fresh));
        changes.push(optional_device(view, seen, fresh));
    }
    changes.push(mounts::devices(view, seen));
    if let Some(change) = changes.into_iter().find(|c| !c.is_empty()) {
        if let Some(failure) = view.failure_of(&[SET_DEVICE])
            && missing_device(&failure.message).is_some_and(|device| change.sets_device(device))
            && let Some(wait) = super::gpu::host_device(view, draft, failure)
        {
            return Some(wait);
        }
        return configure(view, draft, site, change);
    }
    if let Some(decision) = size(view, draft, seen, &site) {
        return Some(decision);
    }
    if let Some(decision) = mounts::growth(view, draft, seen, &site) {
        return Some(decision);
    }
    match restart_required(seen) {
        Some(message) => draft.found(Finding::said(
            C::ConfigInSync,
            Truth::False,
            Reason::RestartRequired,
            message,
        )),
        None => draft.met(C::ConfigInSync, Reason::InSync, mounts::kept(view, seen)),
    }
    None
}

/// Not started yet since it was made: what a clone brought along may still be put right.
fn fresh(view: &View<'_>) -> bool {
    view.mark().is_some_and(|m| m.setup.is_none()) && view.seen().is_some_and(|s| !s.running())
}

fn configure(view: &View<'_>, draft: &mut Draft, site: Site, change: Change) -> Decision {
    if change.as_root && !view.observed.has_root {
        // Proxmox grants this to nobody but root@pam with a password: a token doesn't count
        let message = format!(
            "{} on container {} may be set by root@pam only. Run `{}` on node {}, or put rootPassword into the hypervisor's Secret; \
             either is noticed and the rest goes on.",
            change.what.join(", "),
            site.vmid,
            change.pct_set(site.vmid),
            site.node
        );
        draft.stalled(C::ConfigInSync, Reason::RootRequired, message);
        return Some(Verdict::Blocked {
            recheck: Some(view.observed.interval),
        });
    }
    draft.step(
        C::ConfigInSync,
        Reason::Applying,
        Step::Configure { site, change },
    )
}

/// The mark alone: what is durably done must not fail with a change beside it.
pub(super) fn write_mark(seen: &Seen, site: &Site, grown: &Mark, what: &str) -> Step {
    let mut change = Change {
        what: vec![what.to_owned()],
        ..Change::default()
    };
    change.set.insert(
        "description".to_owned(),
        grown.describe(seen.config.description()),
    );
    Step::Configure {
        site: site.clone(),
        change,
    }
}

fn keys(view: &View<'_>, seen: &Seen, fresh: bool) -> Change {
    let (present, config) = (view.present, &seen.config);
    let mut change = Change::default();
    let mut set = |key: &str, value: String| {
        change.what.push(key.to_owned());
        change.set.insert(key.to_owned(), value);
    };
    for (key, wanted) in present.keys.iter().filter(|(k, _)| **k != "features") {
        if !config.get(key).is_some_and(|is| same(key, is, wanted)) {
            set(key, wanted.clone());
        }
    }
    if config.hostname() != Some(present.hostname.as_str()) {
        set("hostname", present.hostname.clone());
    }
    if let Some(tags) = tags(present, config, fresh) {
        set("tags", tags);
    }
    if let Some(text) = description(view, config) {
        set("description", text);
    }
    if fresh && config.get("cmode") != Some("shell") {
        set("cmode", "shell".to_owned());
    }
    let nets = config.nets();
    for (i, wanted) in present.nets.iter().flatten().enumerate() {
        let current = u8::try_from(i).ok().and_then(|i| nets.get(&i));
        let merged = wanted.merge(current);
        if current.is_none_or(|is| !is.means_same(&merged)) {
            set(&format!("net{i}"), merged.to_string());
        }
    }
    let mut drop = |key: String| {
        change.what.push(format!("no {key}"));
        change.delete.push(key);
    };
    if let Some(wanted) = &present.nets {
        nets.keys()
            .filter(|i| usize::from(**i) >= wanted.len())
            .for_each(|i| drop(format!("net{i}")));
    }
    if fresh && matches!(present.source, Source::Template(_)) {
        // these are the source's own affair and would surprise on a clone
        for key in ["onboot", "startup", "protection"] {
            if config.get(key).is_some_and(|v| v != "0") && !present.keys.contains_key(key) {
                drop(key.to_owned());
            }
        }
    }
    change
}

/// Values that Proxmox prints differently from what was sent.
fn same(key: &str, is: &str, wanted: &str) -> bool {
    match key {
        "cpulimit" => is
            .parse::<f64>()
            .ok()
            .zip(wanted.parse::<f64>().ok())
            .is_some_and(|(a, b)| (a - b).abs() < 1e-9),
        "startup" => PropertyString::parse(is, Some("order"))
            .means_same(&PropertyString::parse(wanted, Some("order"))),
        "nameserver" | "searchdomain" => is
            .split([' ', ','])
            .filter(|w| !w.is_empty())
            .eq(wanted.split([' ', ',']).filter(|w| !w.is_empty())),
        _ => is == wanted,
    }
}

/// The operator owns its tags and leaves others; on a fresh clone the source's are others' too, and go.
fn tags(present: &Present, config: &CtConfig, fresh: bool) -> Option<String> {
    let is: BTreeSet<String> = config.tags().into_iter().collect();
    let ours: BTreeSet<String> = present
        .tags
        .iter()
        .map(|t| t.to_lowercase())
        .chain([TAG.to_owned()])
        .collect();
    let wanted: BTreeSet<String> = if fresh {
        ours
    } else {
        ours.union(&is).cloned().collect()
    };
    (is != wanted).then(|| wanted.into_iter().collect::<Vec<_>>().join(";"))
}

/// The user's part of the description, where the spec has one, above our mark as it stands.
fn description(view: &View<'_>, config: &CtConfig) -> Option<String> {
    let (is, mark) = (config.description(), view.mark()?);
    // an object restored from Git has another uid: the mark follows
    let mark = Mark {
        uid: view.target.uid.clone(),
        ..mark.clone()
    };
    let text = view
        .present
        .description
        .clone()
        .unwrap_or_else(|| mark::strip(is));
    let wanted = mark.describe(&text);
    (is.trim_end() != wanted.trim_end()).then_some(wanted)
}

/// Nesting is the one feature that others than root may change.
pub(super) fn only_nesting(features: &str) -> bool {
    PropertyString::parse(features, None)
        .iter()
        .all(|(key, _)| key == "nesting")
}

fn features(present: &Present, seen: &Seen) -> Change {
    let mut change = Change::default();
    let Some(wanted) = present.keys.get("features") else {
        return change;
    };
    let (is, want) = (seen.config.features(), PropertyString::parse(wanted, None));
    if !enabled(&is).eq(&enabled(&want)) {
        let rest = |p: &PropertyString| -> Vec<(String, String)> {
            enabled(p)
                .into_iter()
                .filter(|(k, _)| k != "nesting")
                .collect()
        };
        change.as_root = rest(&is) != rest(&want) || !seen.config.unprivileged();
        change.what.push(format!("features {wanted}"));
        if wanted.is_empty() {
            change.delete.push("features".to_owned());
        } else {
            change.set.insert("features".to_owned(), wanted.clone());
        }
    }
    change
}

/// Features that are on; `x=0` means the same as its absence.
fn enabled(features: &PropertyString) -> Vec<(String, String)> {
    let mut on: Vec<_> = features
        .iter()
        .filter(|(_, v)| *v != "0")
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    on.sort();
    on
}

/// Device nodes: those asked for are there, and before the first start no others.
fn devices(view: &View<'_>, seen: &Seen, fresh: bool) -> Change {
    let required = view.present.required_devices();
    let optional = view.present.optional_devices();
    let current = seen.config.devices();
    let path = |p: &PropertyString| p.get("path").unwrap_or_default().to_owned();
    let mut change = Change {
        as_root: true,
        ..Change::default()
    };
    // while none are picked those that it has stand: the next pick may well be the same
    let unpicked = view.present.gpu_count.is_some() && view.present.gpus.is_empty();
    let listed = |p: &str| view.present.devices.iter().any(|d| d.path == p);
    let wanted = |p: &str| {
        required.iter().any(|r| r == p)
            || optional.contains(&p)
            || listed(p)
            || (unpicked && is_nvidia(p))
    };
    // a running container keeps what it was given; a sealed one's are inherited and cleared here
    for (i, device) in current
        .iter()
        .filter(|(_, d)| (fresh || is_nvidia(&path(d))) && !wanted(&path(d)))
    {
        change.delete.push(format!("dev{i}"));
        change.what.push(format!("no device {}", path(device)));
    }
    let held: BTreeSet<String> = current.values().map(path).collect();
    let mut free = (0u8..=255).filter(|i| !current.contains_key(i));
    for missing in required.iter().filter(|r| !held.contains(*r)) {
        if let Some(slot) = free.next() {
            change
                .set
                .insert(format!("dev{slot}"), device_text(missing));
            change.what.push(format!("device {missing}"));
        }
    }
    change
}

pub(super) fn is_nvidia(path: &str) -> bool {
    path.starts_with("/dev/nvidia")
}

/// World-writable inside, as the driver makes them on the host: who may use the GPU is decided by who gets the container.
fn device_text(path: &str) -> String {
    format!("{path},mode=0666")
}

/// A device that some hosts lack, each in a PUT of its own so that its absence fails nothing else; only before the first start.
fn optional_device(view: &View<'_>, seen: &Seen, fresh: bool) -> Change {
    let mut change = Change {
        as_root: true,
        ..Change::default()
    };
    if !fresh || !view.observed.has_root {
        return change;
    }
    let current = seen.config.devices();
    let held = |path: &str| current.values().any(|d| d.get("path") == Some(path));
    let missing = view
        .present
        .optional_devices()
        .iter()
        .find(|p| !held(p) && !view.observed.skipped_devices.contains(**p));
    if let (Some(path), Some(slot)) = (missing, (0u8..=255).find(|i| !current.contains_key(i))) {
        change.set.insert(format!("dev{slot}"), device_text(path));
        change
            .what
            .push(format!("device {path}, where the host has it"));
        change.optional_device = Some((*path).to_owned());
    }
    change
}

fn size(view: &View<'_>, draft: &mut Draft, seen: &Seen, site: &Site) -> Decision {
    let wanted = view.present.disk_gib?;
    let is = seen.config.rootfs()?.size_gib?;
    if wanted < is {
        let message = format!(
            "spec.rootfs.size is {wanted}Gi, but container {} already has {is}Gi and a disk never shrinks; ask for {is}Gi or more.",
            site.vmid
        );
        return draft.blocked(C::ConfigInSync, Reason::Invalid, message);
    }
    if wanted == is {
        return None;
    }
    if let Some(failure) = view.failure_of(&["resize"]) {
        let message = format!("Growing the root file system failed: {}", failure.message);
        if let Some(wait) = draft.pause(failure, C::ConfigInSync, Reason::Applying, message) {
            return Some(wait);
        }
    }
    draft.step(
        C::ConfigInSync,
        Reason::Applying,
        Step::Resize {
            site: site.clone(),
            disk: "rootfs".to_owned(),
            gib: wanted,
        },
    )
}

/// What was accepted but waits for the next start.
fn restart_required(seen: &Seen) -> Option<String> {
    let waiting: Vec<&str> = seen
        .pending
        .iter()
        .filter(|p| p.waits())
        .map(|p| p.key.as_str())
        .collect();
    (!waiting.is_empty()).then(|| {
        format!(
            "Changed, but in effect only after a restart of the container: {}.",
            waiting.join(", ")
        )
    })
}

/// No other container of this hypervisor boots with the same static address on the same bridge and VLAN.
pub(super) fn no_rival(view: &View<'_>, draft: &mut Draft) -> Decision {
    let (rival, running) = (view.observed.rivals.first()?, view.seen()?.running());
    if running {
        return None;
    }
    let message = format!(
        "{rival}; two containers with one address disturb each other, so this one is not started. Give it another spec.network address."
    );
    draft.stalled(C::ConfigInSync, Reason::AddressConflict, message);
    // the other one's end wakes nobody here
    Some(Verdict::Blocked {
        recheck: Some(super::ON_WAKE),
    })
}
