//! Version, identity, inventory: what changes seldom. Load and free space are metrics.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use phoenix_crds::{
    Hypervisor, HypervisorStatus, Quantity,
    hypervisor::{HostGpuStatus, HypervisorDisplay, Identity, NodeStatus, StorageStatus},
};

use super::observe::Inventory;
use crate::{condition::conditions, engine::Pass, lxc::observe::StorageKind};

/// A boot time is computed from an uptime; differences below this are noise.
const SAME_BOOT: i64 = 90;

pub(crate) fn status(
    object: &Hypervisor,
    pass: &Pass<Hypervisor>,
    now: Timestamp,
) -> HypervisorStatus {
    let previous = object.status.clone().unwrap_or_default();
    let mut status = previous.clone();
    status.observed_generation = object.metadata.generation;
    if let Some(observed) = &pass.observed {
        if let Some(inventory) = &observed.inventory {
            report(&mut status, &previous, inventory, now);
        }
        let pci = observed.inventory.as_ref().map(|i| &i.pci);
        status.gpus = observed.gpus.map(&previous.gpus, pci);
        status.display = Some(HypervisorDisplay {
            nodes: (!status.nodes.is_empty()).then(|| {
                format!(
                    "{}/{}",
                    status.nodes.iter().filter(|n| n.online).count(),
                    status.nodes.len()
                )
            }),
            gpus: (!status.gpus.is_empty()).then(|| gpus_held(&status.gpus)),
            containers: Some(observed.containers.to_string()),
        });
    }
    let kept = if pass.partial() {
        previous.conditions.clone()
    } else {
        Vec::new()
    };
    status.conditions = conditions(
        &pass.findings(),
        &kept,
        &previous.conditions,
        object.metadata.generation,
        now,
    );
    status
}

fn gpus_held(gpus: &[HostGpuStatus]) -> String {
    let held = gpus.iter().filter(|g| !g.held_by.is_empty()).count();
    format!("{held}/{}", gpus.len())
}

fn report(
    status: &mut HypervisorStatus,
    previous: &HypervisorStatus,
    inventory: &Inventory,
    now: Timestamp,
) {
    status.version = Some(inventory.version.clone());
    status.missing_privileges.clone_from(&inventory.missing);
    // pinned once; the plan compares from then on
    let identity = status.identity.get_or_insert_with(|| Identity {
        ca_fingerprint: inventory.ca.clone(),
        node_names: Vec::new(),
    });
    for (name, ..) in &inventory.nodes {
        let ours = identity.node_names.is_empty()
            || inventory
                .nodes
                .iter()
                .any(|(n, ..)| identity.node_names.contains(n));
        if ours && !identity.node_names.contains(name) {
            identity.node_names.push(name.clone());
        }
    }
    status.nodes = inventory
        .nodes
        .iter()
        .map(|(name, online, figures)| {
            let before = previous.nodes.iter().find(|n| n.name == *name);
            let booted = figures
                .uptime
                .and_then(|up| i64::try_from(up).ok())
                .and_then(|up| Timestamp::from_second(now.as_second() - up).ok());
            let before_boot = before.and_then(|n| n.booted_at.as_ref()).map(|t| t.0);
            let booted = match (before_boot, booted) {
                (Some(before), Some(now))
                    if (now.as_second() - before.as_second()).abs() < SAME_BOOT =>
                {
                    Some(before)
                }
                (before, None) => before,
                (_, now) => now,
            };
            NodeStatus {
                name: name.clone(),
                online: *online,
                cores: figures
                    .cores
                    .map(i64::from)
                    .or_else(|| before.and_then(|n| n.cores)),
                memory: figures
                    .memory_total
                    .map(Quantity::from_bytes)
                    .or_else(|| before.and_then(|n| n.memory.clone())),
                booted_at: booted.map(Time),
            }
        })
        .collect();
    status.storages = inventory
        .storages
        .iter()
        .map(|(node, storage)| StorageStatus {
            node: node.clone(),
            name: storage.name.clone(),
            type_: Some(storage.kind.clone()),
            linked_clones: Some(StorageKind::of(&storage.kind) == StorageKind::Clones),
            shared: Some(storage.shared),
            total: storage.total.map(Quantity::from_bytes),
        })
        .collect();
}
