//! Snapshots. What goes wrong with them shows in the task, not in the answer.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    super::Call,
    config::{FLOCK, printed},
    power, root,
    start::{self, Locks},
};
use crate::{
    core::Core,
    model::{
        State, now,
        section::{Section, kept_description},
        storage::leaf,
        volume::{self, Mount, numbered},
    },
    reply::{Failure, Outcome, Reply},
    worker::{self, Broken, Job},
};

const RESERVED: [&str; 2] = ["current", "vzdump"];
/// Keys of a snapshot that aren't the container's.
const OWN: [&str; 3] = ["snaptime", "snapstate", "parent"];

pub(super) fn index() -> Outcome {
    Ok(Reply::data(json!([{"cmd": "rollback"}, {"cmd": "config"}])))
}

pub(super) fn list(call: &Call) -> Outcome {
    let state = call.core.state();
    let container = state.container(&call.node, call.vmid())?;
    let mut rows = Vec::new();
    for (name, section) in &container.file.snapshots {
        let description = section
            .description
            .as_ref()
            .map_or_else(String::new, |text| format!("{text}\n"));
        let mut row = json!({"name": name, "description": description, "snaptime": section.get("snaptime").and_then(|time| time.parse::<u64>().ok())});
        for key in ["parent", "snapstate"] {
            if let Some(value) = section.get(key) {
                row[key] = json!(value);
            }
        }
        rows.push(row);
    }
    let mut current = json!({"name": "current", "digest": container.file.digest(), "running": u8::from(container.is_running()), "description": "You are here!"});
    if let Some(parent) = container.file.main.get("parent") {
        current["parent"] = json!(parent);
    }
    rows.push(current);
    Ok(Reply::data(Value::Array(rows)))
}

fn absent(name: &str) -> String {
    format!("snapshot '{name}' does not exist")
}

pub(super) fn config(call: &Call) -> Outcome {
    let name = call.text("snapname");
    let state = call.core.state();
    let section = state
        .container(&call.node, call.vmid())?
        .file
        .snapshots
        .get(name)
        .ok_or_else(|| absent(name))?;
    let mut out: Map<String, Value> = printed(section);
    out.remove("lxc");
    Ok(Reply::data(Value::Object(out)))
}

pub(super) fn describe(call: &Call) -> Outcome {
    let name = call.text("snapname");
    let mut state = call.core.state();
    let container = state.container_mut(&call.node, call.vmid())?;
    container.check_lock()?;
    let section = container
        .file
        .snapshots
        .get_mut(name)
        .ok_or_else(|| absent(name))?;
    if let Some(text) = call.get("description") {
        section.description = kept_description(text);
    }
    Ok(Reply::null())
}

/// Storage and last name part of each volume.
fn volumes(section: &Section) -> Vec<(String, String)> {
    volume::mounts(section)
        .iter()
        .filter_map(|mount| {
            mount
                .volume()
                .map(|(storage, name)| (storage.to_owned(), leaf(name).to_owned()))
        })
        .collect()
}

fn root_of(section: &Section) -> Option<String> {
    volumes(section)
        .first()
        .map(|(storage, name)| root(storage, name))
}

pub(super) fn create(call: &Call) -> Outcome {
    let name = call.text("snapname").to_owned();
    if RESERVED.contains(&name.as_str()) {
        return Err(Failure::die(format!(
            "unable to use snapshot name '{name}' (reserved name)"
        )));
    }
    let description = call.get("description").and_then(kept_description);
    let vmid = call.vmid();
    let upid = worker::spawn(
        &call.core,
        &call.who,
        &call.node,
        "vzsnapshot",
        &vmid.to_string(),
        move |job| async move {
            let root = prepare(&job, vmid, &name, description).await?;
            let core = &job.core;
            let done = async {
                job.work(core.config.timing.durations.snapshot).await?;
                take(&mut core.state(), &job.upid.node, vmid, &name)?;
                if let Some(root) = root {
                    core.guests.snapshot_root(root, name.clone()).await?;
                }
                job.late()
            }
            .await;
            if done == Err(Broken::Killed) {
                return done;
            }
            let mut state = core.state();
            let file = &mut state.container_mut(&job.upid.node, vmid)?.file;
            file.set_lock(None);
            if done.is_err() {
                file.snapshots.remove(&name);
            } else {
                if let Some(section) = file.snapshots.get_mut(&name) {
                    section.keys.remove("snapstate");
                }
                file.main.set("parent", name.clone());
            }
            done
        },
    );
    Ok(Reply::data(upid.into()))
}

/// Checks, then the lock and an entry that says it is being made.
async fn prepare(
    job: &Arc<Job>,
    vmid: u32,
    name: &str,
    description: Option<String>,
) -> Result<Option<String>, Broken> {
    let core = &job.core;
    core.state().container(&job.upid.node, vmid)?;
    let _lock = core.flock(vmid, FLOCK).await?;
    let mut state = core.state();
    let container = state.container(&job.upid.node, vmid)?;
    if container.file.is_template() {
        return Err(Broken::Failed(
            "you can't take a snapshot if it's a template".to_owned(),
        ));
    }
    container.check_lock()?;
    if container.file.snapshots.contains_key(name) {
        return Err(Broken::Failed(format!(
            "snapshot name '{name}' already used"
        )));
    }
    let mounts = volume::mounts(&container.file.main);
    let able = mounts.iter().all(|mount| {
        mount
            .volume()
            .and_then(|(id, _)| state.storages.get(id))
            .is_some_and(crate::model::storage::Storage::can_snapshot)
    });
    if !able {
        return Err(Broken::Failed(
            "snapshot feature is not available".to_owned(),
        ));
    }
    let mut section = Section {
        description,
        keys: container.file.main.keys.clone(),
        raw: container.file.main.raw.clone(),
    };
    section
        .keys
        .retain(|key, _| key != "lock" && !numbered(key, "unused"));
    section.set("snaptime", now().to_string());
    section.set("snapstate", "prepare");
    let root = root_of(&section);
    let file = &mut state.container_mut(&job.upid.node, vmid)?.file;
    file.snapshots.insert(name.to_owned(), section);
    file.set_lock(Some("snapshot"));
    Ok(root)
}

fn take(state: &mut State, node: &str, vmid: u32, name: &str) -> Result<(), String> {
    let wanted = volumes(&state.container(node, vmid)?.file.main);
    for (done, (storage, leaf)) in wanted.iter().enumerate() {
        if let Err(text) = state.storage_mut(storage)?.snapshot(leaf, name) {
            for (storage, leaf) in &wanted[..done] {
                let _ = state.storage_mut(storage)?.drop_snapshot(leaf, name);
            }
            return Err(text);
        }
    }
    Ok(())
}

pub(super) fn delete(call: &Call) -> Outcome {
    let name = call.text("snapname").to_owned();
    let force = call.flag("force");
    let vmid = call.vmid();
    let upid = worker::spawn(
        &call.core,
        &call.who,
        &call.node,
        "vzdelsnapshot",
        &vmid.to_string(),
        move |job| async move {
            let core = &job.core;
            let node = job.upid.node.clone();
            core.state().container(&node, vmid)?;
            let section = {
                let _lock = core.flock(vmid, FLOCK).await?;
                let mut state = core.state();
                let container = state.container_mut(&node, vmid)?;
                let section = container
                    .file
                    .snapshots
                    .get(&name)
                    .cloned()
                    .ok_or_else(|| absent(&name))?;
                if container.file.is_template() {
                    return Err(Broken::Failed(
                        "you can't delete a snapshot if vm is a template".to_owned(),
                    ));
                }
                container.check_lock()?;
                if let Some(entry) = container.file.snapshots.get_mut(&name) {
                    entry.set("snapstate", "delete");
                }
                container.file.set_lock(Some("snapshot-delete"));
                section
            };
            job.work(core.config.timing.durations.snapshot).await?;
            drop_volumes(core, &section, &name, force)?;
            if let Some(root) = root_of(&section)
                && let Err(error) = core.guests.drop_snapshot(root, name.clone()).await
            {
                tracing::debug!(%error, "the guest's snapshot stays");
            }
            if let Ok(container) = core.state().container_mut(&node, vmid)
                && let Some(entry) = container.file.snapshots.get_mut(&name)
            {
                // A disk whose snapshot is gone is gone from the entry.
                entry.keys.retain(|key, _| !volume::is_mount(key));
            }
            job.late()?;
            let mut state = core.state();
            let file = &mut state.container_mut(&node, vmid)?.file;
            file.snapshots.remove(&name);
            // Nothing else may name them any more; those that are mounted drop out.
            for (storage, name) in volume::mounts(&section).iter().filter_map(Mount::volume) {
                volume::add_unused(&mut file.main, storage, name);
            }
            volume::drop_used(&mut file.main);
            relink(
                file.snapshots.values_mut().chain([&mut file.main]),
                &name,
                section.get("parent"),
            );
            file.set_lock(None);
            Ok(())
        },
    );
    Ok(Reply::data(upid.into()))
}

fn drop_volumes(core: &Core, section: &Section, name: &str, force: bool) -> Result<(), String> {
    let mut state = core.state();
    for (storage, leaf) in volumes(section) {
        let dropped = state
            .storage_mut(&storage)
            .and_then(|storage| storage.drop_snapshot(&leaf, name));
        if !force {
            dropped?;
        }
    }
    Ok(())
}

/// What hung on a snapshot hangs on its parent now.
fn relink<'a>(sections: impl Iterator<Item = &'a mut Section>, gone: &str, parent: Option<&str>) {
    for section in sections.filter(|section| section.get("parent") == Some(gone)) {
        match parent {
            Some(parent) => section.set("parent", parent),
            None => {
                section.keys.remove("parent");
            }
        }
    }
}

pub(super) fn rollback(call: &Call) -> Outcome {
    let name = call.text("snapname").to_owned();
    let start = call.flag("start");
    let vmid = call.vmid();
    let who = call.who.clone();
    let upid = worker::spawn(
        &call.core,
        &call.who,
        &call.node,
        "vzrollback",
        &vmid.to_string(),
        move |job| async move {
            go_back(&job, vmid, &name).await?;
            if start {
                start::spawn(&job.core, &who, &job.upid.node, vmid, Locks::Heeded);
            }
            Ok(())
        },
    );
    Ok(Reply::data(upid.into()))
}

async fn go_back(job: &Arc<Job>, vmid: u32, name: &str) -> Result<(), Broken> {
    let core = &job.core;
    let node = job.upid.node.clone();
    core.state().container(&node, vmid)?;
    let lock = core.flock(vmid, FLOCK).await?;
    let (section, running) = {
        let mut state = core.state();
        let container = state.container(&node, vmid)?;
        if container.file.is_template() {
            return Err(Broken::Failed(
                "you can't rollback a snapshot if it's a template".to_owned(),
            ));
        }
        let section = container
            .file
            .snapshots
            .get(name)
            .cloned()
            .ok_or_else(|| absent(name))?;
        if let Some(snapstate) = section.get("snapstate") {
            return Err(Broken::Failed(format!(
                "unable to rollback to incomplete snapshot (snapstate = {snapstate})"
            )));
        }
        for (storage, leaf) in volumes(&section) {
            state.storage(&storage)?.can_roll_back(&leaf, name)?;
        }
        let container = state.container_mut(&node, vmid)?;
        container.check_lock()?;
        container.file.set_lock(Some("rollback"));
        (section, container.is_running())
    };
    // From here on the lock in the configuration is what holds others off.
    drop(lock);
    if running {
        power::kill(core, &node, vmid).await;
    }
    job.work(core.config.timing.durations.rollback).await?;
    if let Some(root) = root_of(&section) {
        core.guests.rollback_root(root, name.to_owned()).await?;
    }
    let mut state = core.state();
    for (storage, leaf) in volumes(&section) {
        state.storage_mut(&storage)?.roll_back(&leaf, name);
    }
    drop(state);
    job.late()?;
    let mut state = core.state();
    let file = &mut state.container_mut(&node, vmid)?.file;
    let mut main = section;
    main.keys.retain(|key, _| !OWN.contains(&key.as_str()));
    main.description.clone_from(&file.main.description);
    main.set("parent", name);
    let unused = file
        .main
        .keys
        .iter()
        .filter(|(key, _)| numbered(key, "unused"));
    main.keys
        .extend(unused.map(|(key, value)| (key.clone(), value.clone())));
    // What was mounted since becomes unused.
    for (storage, name) in volume::mounts(&file.main).iter().filter_map(Mount::volume) {
        volume::add_unused(&mut main, storage, name);
    }
    volume::drop_used(&mut main);
    file.main = main;
    file.set_lock(None);
    Ok(())
}
