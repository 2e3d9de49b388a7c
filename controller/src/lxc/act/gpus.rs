//! Taking GPUs: the one thing beside the VMID that is written to the status before it is used.

use kube::runtime::events::EventType;
use phoenix_crds::{
    Sharing,
    conditions::{ConditionType as C, Reason},
    status::GpuStatus,
};

use crate::{
    context::Context,
    engine::{Announcement, Receipt, apply_status},
    fault::Fault,
    lxc::{
        LxcKind,
        desired::Desired,
        observe::claims,
        step::{Site, gpus_in_words},
    },
};

/// Writes the GPUs into the status, upon the very object that was read. One at a time for all: between the last look at who holds what and
/// the write nobody else may take them.
pub(super) async fn take_gpus<K: LxcKind>(
    object: &K,
    site: &Site,
    gpus: &[u32],
    exclusive: bool,
    desired: &Desired,
    cx: &Context,
) -> Result<Receipt, Fault> {
    let target = &desired.target;
    let _turn = cx.gpu_turn.lock().await;
    let others = claims(&target.hypervisor, &site.node, &target.uid, cx);
    if let Some(first) = others
        .iter()
        .find(|c| gpus.contains(&c.gpu) && c.excludes(exclusive))
    {
        let message = format!(
            "GPU {} of node {} was taken by {} a moment ago.",
            first.gpu, site.node, first.holder
        );
        return Err(Fault::retry(C::GpuAllocated, Reason::Conflict, message));
    }
    let mut status = object.status_shared().cloned().unwrap_or_default();
    let before = std::mem::take(&mut status.gpus);
    let (kept, mut list): (Vec<_>, Vec<_>) = before
        .into_iter()
        .partition(|g| !gpus.iter().any(|gpu| i64::from(*gpu) == g.index));
    for gpu in gpus {
        let index = i64::from(*gpu);
        if !list.iter().any(|g| g.index == index) {
            list.push(GpuStatus {
                index,
                ..GpuStatus::default()
            });
        }
    }
    let sharing = if exclusive {
        Sharing::Exclusive
    } else {
        Sharing::Shared
    };
    for gpu in &mut list {
        gpu.sharing = Some(sharing.to_string());
    }
    // what it has besides is let go of once its device is gone
    list.extend(kept);
    list.sort_by_key(|g| g.index);
    status.gpus = list;
    status.node = Some(site.node.clone());
    let version = object.resource_version();
    apply_status(object, status, version.as_deref(), cx)
        .await
        .map_err(|e| Fault::kube(&e, "taking GPUs"))?;
    Ok(Receipt {
        announcement: Some(Announcement {
            kind: EventType::Normal,
            reason: "GpusTaken",
            note: format!("Holds {} of node {}.", gpus_in_words(gpus), site.node),
        }),
        ..Receipt::default()
    })
}
