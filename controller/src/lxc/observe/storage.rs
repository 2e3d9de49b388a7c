//! What is asked of Proxmox only now and then: tasks at work, what a seal needs to know, what hinders a deletion.

use std::collections::BTreeSet;

use phoenix_crds::conditions::ConditionType as C;
use proxmox_client::ErrorKind;

use super::{Observed, StorageKind};
use crate::{
    context::Context,
    fault::Fault,
    fleet::{Cluster, Seen},
    lxc::mark::Mark,
};

/// Whether a task works on the container; a clone's task carries its source's VMID.
pub(super) async fn active(
    cluster: &Cluster,
    node: &str,
    vmid: u32,
    source: Option<u32>,
) -> Result<bool, Fault> {
    let tasks = cluster
        .client()
        .active_tasks(node, None)
        .await
        .map_err(|e| Fault::proxmox(&e, "listing tasks", C::Created))?;
    let (own, source) = (vmid.to_string(), source.map(|s| s.to_string()));
    Ok(tasks.iter().filter(|t| t.is_running()).any(|t| {
        t.upid.id == own || (t.upid.task_type == "vzclone" && source.as_ref() == Some(&t.upid.id))
    }))
}

pub(super) async fn sealing(
    seen: &mut Observed,
    mark: &Mark,
    container: &Seen,
    vmid: u32,
    cluster: &Cluster,
    cx: &Context,
) -> Result<(), Fault> {
    let failed = |e: proxmox_client::Error| {
        Fault::proxmox(
            &e,
            &format!("looking at container {vmid} before the seal"),
            C::Sealed,
        )
    };
    let storages = volumes(container);
    let known = cx
        .stores
        .hypervisor(cluster.name())
        .and_then(|h| h.status)
        .map(|s| s.storages)
        .unwrap_or_default();
    // a seal is as good as the poorest of its volumes allows
    seen.storage = known
        .into_iter()
        .filter(|s| storages.contains(&s.name) && s.node == container.node)
        .filter_map(|s| Some(StorageKind::of(&s.type_?)))
        .max();
    if container.config.is_template() || mark.setup.is_none() || container.running() {
        return Ok(());
    }
    let client = cluster.client();
    let snapshots = client
        .ct_snapshots(&container.node, vmid)
        .await
        .map_err(failed)?;
    seen.snapshots = snapshots.into_iter().map(|s| s.name).collect();
    if mark.revision.is_some() {
        let tasks = client
            .active_tasks(&container.node, Some(vmid))
            .await
            .map_err(failed)?;
        seen.converting = tasks
            .iter()
            .any(|t| t.upid.task_type == "vztemplate" && t.is_running());
    }
    Ok(())
}

/// The storages of all its volumes.
fn volumes(container: &Seen) -> BTreeSet<String> {
    let mounts = container.config.mounts();
    container
        .config
        .rootfs()
        .into_iter()
        .chain(mounts.into_values())
        .filter(|v| !v.is_bind())
        .map(|v| v.storage)
        .collect()
}

/// What may hinder the deletion.
pub(super) async fn remains(
    seen: &mut Observed,
    vmid: u32,
    cluster: &Cluster,
) -> Result<(), Fault> {
    let Some((mark, container)) = seen.mark().cloned().zip(seen.seen().cloned()) else {
        return Ok(());
    };
    seen.half_made = !mark.created;
    if container.config.lock().is_some() {
        seen.active_task = active(cluster, &container.node, vmid, None).await?;
    }
    if !container.config.is_template() {
        return Ok(());
    }
    for storage in volumes(&container) {
        let base = format!("basevol-{vmid}-disk-");
        match cluster
            .client()
            .storage_content(&container.node, &storage, None)
            .await
        {
            Ok(volumes) => {
                let cloned = |v: &&proxmox_client::VolumeInfo| {
                    v.volid.contains(&format!(":{base}")) && v.volid.contains('/')
                };
                seen.dependents
                    .extend(volumes.iter().filter(cloned).map(|v| v.volid.clone()));
            }
            // without the right to list volumes Proxmox' own refusal says it, later
            Err(e) if e.kind == ErrorKind::Forbidden => {}
            Err(e) => {
                return Err(Fault::proxmox(
                    &e,
                    "listing the storage's volumes",
                    C::Created,
                ));
            }
        }
    }
    Ok(())
}
