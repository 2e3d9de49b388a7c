//! Conversion to a template: answered with nothing at once, done by a worker behind it.

use std::sync::Arc;

use super::{super::Call, config::FLOCK, root};
use crate::{
    model::{storage::leaf, volume},
    reply::{Failure, Outcome, Reply},
    schema::MountSpec,
    worker::{self, Broken, Job},
};

pub(super) async fn convert(call: Call) -> Outcome {
    let vmid = call.vmid();
    let core = &call.core;
    core.state().container(&call.node, vmid)?;
    let lock = core.flock(vmid, FLOCK).await?;
    {
        let state = core.state();
        let container = state.container(&call.node, vmid)?;
        container.check_lock()?;
        if !container.file.snapshots.is_empty() {
            return Err(Failure::die(
                "unable to create template, because CT contains snapshots",
            ));
        }
        if container.file.is_template() {
            return Err(Failure::die("you can't convert a template to a template"));
        }
        if container.is_running() {
            return Err(Failure::die(
                "you can't convert a CT to template if the CT is running",
            ));
        }
    }
    worker::spawn(
        core,
        &call.who,
        &call.node,
        "vztemplate",
        &vmid.to_string(),
        move |job| async move {
            let done = work(&job, vmid).await;
            drop(lock);
            done
        },
    );
    Ok(Reply::null())
}

async fn work(job: &Arc<Job>, vmid: u32) -> Result<(), Broken> {
    let core = &job.core;
    let node = job.upid.node.clone();
    let mounts = volume::mounts(&core.state().container(&node, vmid)?.file.main);
    if let Some(mount) = mounts.iter().find(|mount| mount.volume().is_none()) {
        return Err(Broken::Failed(format!(
            "Template feature is not available for '{}'",
            mount.print(None)
        )));
    }
    job.work(core.config.timing.durations.template).await?;
    for mut mount in mounts {
        let MountSpec::Volume { storage, name } = mount.spec.clone() else {
            continue;
        };
        let (new, size) = {
            let mut state = core.state();
            let on = state.storage_mut(&storage)?;
            let new = on.make_base(leaf(&name))?;
            mount.spec = MountSpec::Volume {
                storage: storage.clone(),
                name: on.written(&new),
            };
            let size = on.volumes.get(&new).map(|volume| volume.size);
            state
                .container_mut(&node, vmid)?
                .file
                .main
                .set(&mount.key, mount.print(size));
            (new, size)
        };
        tracing::debug!(vmid, new, size, "a volume became a base");
        if mount.key == "rootfs" {
            core.guests
                .rename_root(root(&storage, &name), root(&storage, &new))
                .await?;
        }
    }
    core.state()
        .container_mut(&node, vmid)?
        .file
        .main
        .set("template", "1");
    Ok(())
}
