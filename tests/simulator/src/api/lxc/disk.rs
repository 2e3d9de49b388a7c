//! Growing a disk, and moving one to another storage.

use std::sync::Arc;

use super::{super::Call, config::FLOCK, create::check_storage, root};
use crate::{
    core::Core,
    model::{
        State,
        storage::leaf,
        volume::{self, Mount},
    },
    reply::{Failure, Outcome, Reply},
    schema::{MountSpec, parse_size},
    worker::{self, Broken, Job},
};

/// The mount under a key, with its storage and the last part of its volume's name.
fn find(
    state: &State,
    node: &str,
    vmid: u32,
    key: &str,
) -> Result<(Mount, String, String), String> {
    let mounts = volume::mounts(&state.container(node, vmid)?.file.main);
    let mount = mounts
        .into_iter()
        .find(|mount| mount.key == key)
        .ok_or_else(|| "format error".to_owned())?;
    let (storage, name) = mount
        .volume()
        .map(|(storage, name)| (storage.to_owned(), leaf(name).to_owned()))
        .ok_or_else(|| "can't resize non-volume mount point".to_owned())?;
    Ok((mount, storage, name))
}

/// A key that isn't set is read as an empty property string.
fn absent(text: String) -> Failure {
    let missing = |key: &str| {
        (
            key.to_owned(),
            "property is missing and it is not optional".to_owned(),
        )
    };
    Failure {
        errors: [missing("mp"), missing("volume")].into(),
        ..Failure::die(text)
    }
}

/// The size that is asked for, where it is more than there is.
fn wanted(state: &State, storage: &str, name: &str, size: &str) -> Result<u64, String> {
    let now = state
        .storage(storage)?
        .volumes
        .get(name)
        .map_or(0, |volume| volume.size);
    let size = match size.strip_prefix('+') {
        Some(more) => now + parse_size(more).unwrap_or(0),
        None => parse_size(size).unwrap_or(0),
    };
    match size.cmp(&now) {
        std::cmp::Ordering::Less => Err("unable to shrink disk size".to_owned()),
        std::cmp::Ordering::Equal => Err("disk is already at specified size".to_owned()),
        std::cmp::Ordering::Greater => Ok(size),
    }
}

pub(super) fn resize(call: &Call) -> Outcome {
    let (vmid, key, size) = (
        call.vmid(),
        call.text("disk").to_owned(),
        call.text("size").to_owned(),
    );
    let storage = {
        let state = call.core.state();
        let container = state.container(&call.node, vmid)?;
        container.check_lock()?;
        container.check_digest(call.get("digest"))?;
        let (_, storage, name) = find(&state, &call.node, vmid, &key).map_err(absent)?;
        if let Some(owner) = state
            .storage(&storage)?
            .volumes
            .get(&name)
            .map(|volume| volume.vmid)
            .filter(|owner| *owner != vmid)
        {
            return Err(Failure::die(format!(
                "can't resize mount point owned by another container ({owner})"
            )));
        }
        wanted(&state, &storage, &name, &size)?;
        storage
    };
    call.demand(&format!("/storage/{storage}"), "Datastore.AllocateSpace")?;
    let upid = worker::spawn(
        &call.core,
        &call.who,
        &call.node,
        "resize",
        &vmid.to_string(),
        move |job| async move {
            let core = &job.core;
            let _lock = core.flock(vmid, FLOCK).await?;
            core.state().container(&job.upid.node, vmid)?.check_lock()?;
            job.work(core.config.timing.durations.resize).await?;
            let mut state = core.state();
            let (mount, storage, name) = find(&state, &job.upid.node, vmid, &key)?;
            let size = wanted(&state, &storage, &name, &size)?;
            if let Some(volume) = state.storage_mut(&storage)?.volumes.get_mut(&name) {
                volume.size = size;
            }
            state
                .container_mut(&job.upid.node, vmid)?
                .file
                .main
                .set(&key, mount.print(Some(size)));
            Ok(())
        },
    );
    Ok(Reply::data(upid.into()))
}

pub(super) fn move_volume(call: &Call) -> Outcome {
    let (vmid, key) = (call.vmid(), call.text("volume").to_owned());
    let target = match (call.given("storage"), call.given("target-vmid")) {
        (Some(storage), None) => storage.to_owned(),
        (None, Some(_)) => {
            return Err(super::super::unsimulated(
                "POST",
                "/nodes/{node}/lxc/{vmid}/move_volume to another container",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(Failure::parameter(
                "target-vmid",
                "either set 'storage' or 'target-vmid', but not both",
            ));
        }
        (None, None) => {
            return Err(Failure::parameter(
                "storage",
                "either set storage or target-vmid",
            ));
        }
    };
    check_storage(call, &target)?;
    {
        let mut state = call.core.state();
        let container = state.container(&call.node, vmid)?;
        container.check_lock()?;
        if container.is_running() {
            return Err(Failure::die("cannot move volumes of a running container"));
        }
        let snapshots = !container.file.snapshots.is_empty();
        let (_, from, _) = find(&state, &call.node, vmid, &key)?;
        if from == target {
            return Err(Failure::die("you can't move a volume to the same storage"));
        }
        if call.flag("delete") && snapshots {
            return Err(Failure::die(
                "you can't move a volume with snapshots and delete the source",
            ));
        }
        state
            .container_mut(&call.node, vmid)?
            .file
            .set_lock(Some("disk"));
    }
    let delete = call.flag("delete");
    let upid = worker::spawn(
        &call.core,
        &call.who,
        &call.node,
        "move_volume",
        &vmid.to_string(),
        move |job| async move {
            let done = copy(&job, vmid, &key, &target, delete).await;
            if done != Err(Broken::Killed) {
                unlock(&job.core, &job.upid.node, vmid);
            }
            done
        },
    );
    Ok(Reply::data(upid.into()))
}

fn unlock(core: &Core, node: &str, vmid: u32) {
    if let Ok(container) = core.state().container_mut(node, vmid) {
        container.file.set_lock(None);
    }
}

async fn copy(
    job: &Arc<Job>,
    vmid: u32,
    key: &str,
    target: &str,
    delete: bool,
) -> Result<(), Broken> {
    let core = &job.core;
    let node = job.upid.node.clone();
    let (mount, from, name) = find(&core.state(), &node, vmid, key)?;
    let (new, bytes) = {
        let mut state = core.state();
        let volume = state
            .storage(&from)?
            .volumes
            .get(&name)
            .cloned()
            .ok_or_else(|| format!("no such volume '{from}:{name}'"))?;
        let on = state.storage_mut(target)?;
        let new = on.allocate(vmid, volume.size)?;
        on.write(&new, volume.refer);
        (new, volume.refer)
    };
    let durations = &core.config.timing.durations;
    if let Err(broken) = job
        .work(durations.full_clone + durations.copying(bytes))
        .await
    {
        if broken != Broken::Killed {
            core.state().storage_mut(target)?.destroy(&new)?;
        }
        return Err(broken);
    }
    if key == "rootfs" {
        core.guests
            .clone_root(root(&from, &name), None, root(target, &new))
            .await?;
    }
    let mut state = core.state();
    let on = state.storage(target)?;
    let mut moved = mount.clone();
    moved.spec = MountSpec::Volume {
        storage: target.to_owned(),
        name: on.written(&new),
    };
    let size = on.volumes.get(&new).map(|volume| volume.size);
    let main = &mut state.container_mut(&node, vmid)?.file.main;
    main.set(key, moved.print(size));
    if delete {
        state.storage_mut(&from)?.destroy(&name)?;
    } else if let Some((storage, volume)) = mount.volume() {
        volume::add_unused(main, storage, volume);
    }
    Ok(())
}
