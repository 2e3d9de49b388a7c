//! How changes of a configuration take effect: at once where the container is stopped or the key can be changed live, else at the next stop.

use std::collections::BTreeMap;

use super::{
    super::Call,
    config::store,
    keys::{self, device_exists},
    root,
};
use crate::{
    model::{
        Container, State,
        storage::leaf,
        volume::{self, Mount, numbered},
    },
    reply::Failure,
    schema::MountSpec,
};

/// Whether a value can be set while the container runs; devices and mounts only where there was none.
fn hot(key: &str, present: bool) -> bool {
    match key {
        "cores" | "cpulimit" | "cpuunits" | "memory" | "swap" | "hostname" | "description"
        | "tags" | "onboot" | "startup" | "protection" | "hookscript" | "lock" => true,
        _ if numbered(key, "net") => true,
        _ if numbered(key, "dev") || numbered(key, "mp") => !present,
        _ => false,
    }
}

/// Whether a key can be deleted while the container runs. Proxmox's pattern for networks takes one digit only.
fn hot_delete(key: &str) -> bool {
    let live_network = numbered(key, "net") && key.len() == 4;
    let other =
        !numbered(key, "net") && !numbered(key, "dev") && !numbered(key, "mp") && hot(key, false);
    live_network || other || numbered(key, "unused")
}

/// Changes a container's configuration, whose lock the caller holds.
pub(super) async fn change(
    call: &Call,
    set: &BTreeMap<String, String>,
    delete: &[String],
    revert: &[String],
) -> Result<(), Failure> {
    let vmid = call.vmid();
    let mut gone = Vec::new();
    let result = {
        let mut guard = call.core.state();
        let state = &mut *guard;
        for value in set
            .iter()
            .filter(|(key, _)| numbered(key, "dev"))
            .map(|(_, value)| value)
        {
            device_exists(state, &call.node, value)?;
        }
        if let Some(script) = set.get("hookscript") {
            return Err(Failure::die(format!("script '{script}' does not exist")));
        }
        check_protection(vmid, state.container(&call.node, vmid)?, set, delete)?;
        for (key, value) in set.iter().filter(|(key, _)| volume::is_mount(key)) {
            check_mount_storage(state, key, value)?;
        }
        let before = state.container(&call.node, vmid)?.file.clone();
        if let Err(failure) = edit(state, &call.node, vmid, set, delete, revert, &mut gone) {
            // What did work isn't written either.
            state.container_mut(&call.node, vmid)?.file = before;
            return Err(failure);
        }
        let container = state.container(&call.node, vmid)?;
        keys::generated_problem(state, &call.node, &container.file.main)
    };
    for root in gone {
        if let Err(error) = call.core.guests.destroy_root(root).await {
            tracing::warn!(%error, "a guest's root stays");
        }
    }
    Ok(result?)
}

fn check_protection(
    vmid: u32,
    container: &Container,
    set: &BTreeMap<String, String>,
    delete: &[String],
) -> Result<(), Failure> {
    if container.file.main.get("protection") != Some("1") {
        return Ok(());
    }
    let refused = |verb: &str, key: &str| {
        Failure::die(format!(
            "can't {verb} CT {vmid} drive '{key}' - protection mode enabled"
        ))
    };
    if let Some(key) = delete
        .iter()
        .find(|key| volume::is_mount(key) || numbered(key, "unused"))
    {
        return Err(refused("remove", key));
    }
    match set.keys().find(|key| volume::is_mount(key)) {
        Some(key) => Err(refused("update", key)),
        None => Ok(()),
    }
}

fn check_mount_storage(state: &State, key: &str, value: &str) -> Result<(), Failure> {
    match &Mount::parse(key, value, "local").spec {
        MountSpec::Allocate { storage, .. } => {
            let storage = state.storage(storage)?;
            if storage.holds("rootdir") {
                Ok(())
            } else {
                Err(Failure::die(format!(
                    "storage '{}' does not support container directories",
                    storage.shape.id
                )))
            }
        }
        MountSpec::Volume { storage, .. } => Ok(state.storage(storage).map(|_| ())?),
        MountSpec::Bind(_) | MountSpec::Device(_) => Ok(()),
    }
}

fn edit(
    state: &mut State,
    node: &str,
    vmid: u32,
    set: &BTreeMap<String, String>,
    delete: &[String],
    revert: &[String],
    gone: &mut Vec<String>,
) -> Result<(), Failure> {
    let live_devices = !state.old;
    let container = state.container_mut(node, vmid)?;
    let running = container.is_running();
    for key in revert {
        container.file.pending.keys.remove(key);
        container.file.pending_delete.retain(|name| name != key);
    }
    for key in delete {
        let file = &mut state.container_mut(node, vmid)?.file;
        file.pending.keys.remove(key);
        if !running || hot_delete(key) {
            remove(state, node, vmid, key, gone)
                .map_err(|text| inapplicable(running, key, &text))?;
        } else if file.main.get(key).is_some() && !file.pending_delete.contains(key) {
            file.pending_delete.push(key.clone());
        }
    }
    for (key, value) in set {
        let file = &mut state.container_mut(node, vmid)?.file;
        file.pending_delete.retain(|name| name != key);
        let kept = keys::kept(key, value);
        let current = file.main.get(key);
        if key != "description" && current == Some(kept.as_str()) {
            file.pending.keys.remove(key);
        } else if !running
            || (hot(key, current.is_some()) && (live_devices || !numbered(key, "dev")))
        {
            file.pending.keys.remove(key);
            put(state, node, vmid, key, &kept).map_err(|text| inapplicable(running, key, &text))?;
        } else {
            file.pending.set(key, kept);
        }
    }
    Ok(())
}

fn inapplicable(running: bool, key: &str, text: &str) -> Failure {
    let verb = if running {
        "hotplug"
    } else {
        "apply pending change"
    };
    let blank = if running { "" } else { " " };
    Failure::parameter(key, format!("unable to {verb} {key}{blank}: {text}"))
}

/// Sets a key now. A mount may need a new volume; the one it replaces becomes unused.
fn put(state: &mut State, node: &str, vmid: u32, key: &str, value: &str) -> Result<(), String> {
    if !volume::is_mount(key) {
        store(&mut state.container_mut(node, vmid)?.file.main, key, value);
        return Ok(());
    }
    let mut mount = Mount::parse(key, value, "local");
    let mut size = mount.option("size").and_then(crate::schema::parse_size);
    if let MountSpec::Allocate { storage, bytes } = mount.spec.clone() {
        let on = state.storage_mut(&storage)?;
        let leaf = on.allocate(vmid, bytes)?;
        mount.spec = MountSpec::Volume {
            name: on.written(&leaf),
            storage,
        };
        size = Some(bytes);
    }
    let main = &mut state.container_mut(node, vmid)?.file.main;
    let former = main
        .get(key)
        .map(|former| Mount::parse(key, former, "local"));
    if let Some((storage, name)) = former
        .as_ref()
        .and_then(Mount::volume)
        .filter(|former| Some(*former) != mount.volume())
    {
        volume::add_unused(main, storage, name);
    }
    main.set(key, mount.print(size));
    volume::drop_used(main);
    Ok(())
}

/// Deletes a key now. A mount's volume becomes unused, an unused one is destroyed unless something still names it.
fn remove(
    state: &mut State,
    node: &str,
    vmid: u32,
    key: &str,
    gone: &mut Vec<String>,
) -> Result<(), String> {
    let main = &mut state.container_mut(node, vmid)?.file.main;
    if key == "description" {
        main.description = None;
        return Ok(());
    }
    let Some(value) = main.keys.remove(key) else {
        return Ok(());
    };
    let mount = Mount::parse(key, &value, "local");
    let Some((storage, name)) = mount
        .volume()
        .filter(|_| volume::is_mount(key) || numbered(key, "unused"))
    else {
        return Ok(());
    };
    if volume::is_mount(key) {
        volume::add_unused(main, storage, name);
        return Ok(());
    }
    // The key goes; the volume only if no snapshot and no waiting change names it.
    if volume::is_mounted(&state.container(node, vmid)?.file, storage, name) {
        return Ok(());
    }
    let on = state.storage_mut(storage)?;
    if on
        .volumes
        .get(leaf(name))
        .is_some_and(|volume| volume.vmid == vmid)
    {
        if let Err(text) = on.destroy(leaf(name)) {
            state.container_mut(node, vmid)?.file.main.set(key, value);
            return Err(text);
        }
        gone.push(root(storage, name));
    }
    Ok(())
}

/// Lets everything that waits take effect, as each stop and each start does. What can't stays.
pub(super) fn pending(state: &mut State, node: &str, vmid: u32) {
    let Ok(container) = state.container_mut(node, vmid) else {
        return;
    };
    let delete = std::mem::take(&mut container.file.pending_delete);
    let set = std::mem::take(&mut container.file.pending.keys);
    let mut gone = Vec::new();
    for key in delete {
        if remove(state, node, vmid, &key, &mut gone).is_err()
            && let Ok(container) = state.container_mut(node, vmid)
        {
            container.file.pending_delete.push(key);
        }
    }
    for (key, value) in set {
        if put(state, node, vmid, &key, &value).is_err()
            && let Ok(container) = state.container_mut(node, vmid)
        {
            container.file.pending.set(&key, value);
        }
    }
}
