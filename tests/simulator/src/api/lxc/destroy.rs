//! Destroying a container.

use std::sync::Arc;

use super::{super::Call, config::FLOCK, power, root};
use crate::{
    core::Core,
    model::{storage::leaf, volume},
    reply::{Failure, Outcome, Reply},
    worker::{self, Broken, Job},
};

#[derive(Clone, Copy)]
struct Wishes {
    force: bool,
    purge: bool,
    unreferenced: bool,
}

/// The checks that are made at once, and again by the worker.
fn check(core: &Core, node: &str, vmid: u32, wishes: Wishes) -> Result<bool, String> {
    let state = core.state();
    let container = state.container(node, vmid)?;
    if container.file.main.get("protection") == Some("1") {
        return Err(format!("can't remove CT {vmid} - protection mode enabled"));
    }
    container.check_lock()?;
    if !wishes.purge && state.ha.contains(&vmid) {
        return Err(format!(
            "unable to remove CT {vmid} - used in HA resources and purge parameter not set."
        ));
    }
    if container.is_running() && !wishes.force {
        return Err(format!(
            "unable to destroy CT {vmid} - container is running"
        ));
    }
    Ok(container.is_running())
}

pub(super) fn destroy(call: &Call) -> Outcome {
    let vmid = call.vmid();
    let wishes = Wishes {
        force: call.flag("force"),
        purge: call.flag("purge"),
        unreferenced: call.flag("destroy-unreferenced-disks"),
    };
    check(&call.core, &call.node, vmid, wishes).map_err(Failure::die)?;
    let upid = worker::spawn(
        &call.core,
        &call.who,
        &call.node,
        "vzdestroy",
        &vmid.to_string(),
        move |job| async move { work(&job, vmid, wishes).await },
    );
    Ok(Reply::data(upid.into()))
}

async fn work(job: &Arc<Job>, vmid: u32, wishes: Wishes) -> Result<(), Broken> {
    let core = &job.core;
    let node = job.upid.node.clone();
    let _lock = core.flock(vmid, FLOCK).await?;
    if check(core, &node, vmid, wishes)? {
        job.log(format!("forced to stop CT {vmid} before destroying!"));
        power::kill(core, &node, vmid).await;
    }
    job.work(core.config.timing.durations.destroy).await?;
    let roots = free(core, &node, vmid, wishes.unreferenced)?;
    for root in roots {
        if let Err(error) = core.guests.destroy_root(root).await {
            tracing::debug!(%error, "no such root");
        }
    }
    job.late()?;
    if wishes.purge {
        job.log(format!("purging CT {vmid} from related configurations.."));
    }
    let mut state = core.state();
    let path = format!("/vms/{vmid}");
    state.access.acl.retain(|line| line.path != path);
    for pool in state.access.pools.values_mut() {
        pool.guests.remove(&vmid);
    }
    state.ha.remove(&vmid);
    state.containers.remove(&vmid);
    Ok(())
}

/// Frees the volumes that are its own. Where one can't go the configuration stays as it was.
fn free(core: &Core, node: &str, vmid: u32, unreferenced: bool) -> Result<Vec<String>, String> {
    let mut state = core.state();
    let mut wanted = volume::all_volumes(&state.container(node, vmid)?.file);
    if unreferenced {
        wanted.extend(state.storages.iter().flat_map(|(id, storage)| {
            let own = storage.volumes_of(vmid).into_iter();
            own.map(move |name| (id.clone(), name))
        }));
    }
    let mut gone = Vec::new();
    for (id, name) in wanted {
        let storage = state.storage_mut(&id)?;
        if storage
            .volumes
            .get(leaf(&name))
            .is_some_and(|volume| volume.vmid == vmid)
        {
            storage.destroy(leaf(&name))?;
            gone.push(root(&id, &name));
        }
    }
    state
        .container_mut(node, vmid)?
        .file
        .set_lock(Some("destroyed"));
    Ok(gone)
}
