//! What the host is and has: asked when the connection is new or its health turned, and on the slow cycle; the fleet's poll does the rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use kube::ResourceExt;
use phoenix_crds::{Hypervisor, conditions::ConditionType as C};
use proxmox_client::{
    Certificate, ClusterStatus, ClusterStatusKind, Error, ErrorKind, NodeStatus, PciDevice,
    Permissions, Storage,
};

use super::{desired::Desired, gpus::Told};
use crate::{
    context::Context,
    fault::Fault,
    fleet::{Cluster, Health},
};

/// What is there.
#[derive(Debug, Default, Clone)]
pub(crate) struct Observed {
    /// Of the connection; absent without one.
    pub(crate) health: Option<Health>,
    /// Changes may not pass, for now or for a reason.
    pub(crate) barred: Option<crate::fleet::Barred>,
    /// The slow look.
    pub(crate) inventory: Option<Inventory>,
    /// Objects on it by kind of Lxc.
    pub(crate) containers: usize,
    /// When it is to be looked at again.
    pub(crate) drift: Duration,
    /// What objects tell of its GPUs.
    pub(crate) gpus: Told,
}

/// The slow look.
#[derive(Debug, Clone)]
pub(crate) struct Inventory {
    pub(crate) at: Instant,
    pub(crate) version: String,
    pub(crate) ca: Option<String>,
    pub(crate) nodes: Vec<(String, bool, NodeStatus)>,
    pub(crate) storages: Vec<(String, Storage)>,
    pub(crate) quorate: bool,
    pub(crate) missing: Vec<String>,
    /// NVIDIA's GPUs by node, of the nodes whose PCI bus the token may see.
    pub(crate) pci: BTreeMap<String, Vec<PciDevice>>,
}

pub(crate) async fn observe(
    object: &Hypervisor,
    desired: &Desired,
    cx: &Context,
) -> Result<Observed, Fault> {
    let Some(cluster) = &desired.cluster else {
        return Ok(Observed::default());
    };
    let mut seen = Observed {
        health: Some(cluster.health()),
        barred: cluster.barred(),
        ..Observed::default()
    };
    (seen.containers, seen.gpus) = used(object, cx);
    seen.drift = cluster.settings().drift;
    if seen.health != Some(Health::Connected) {
        return Ok(seen);
    }
    let current = cluster
        .inventory()
        .filter(|i| i.at.elapsed() < seen.drift && online_as(i, cluster));
    seen.inventory = Some(match current {
        Some(inventory) => inventory,
        None => {
            let inventory = look(object, cluster).await.map_err(|e| failed(&e))?;
            cluster.keep_inventory(inventory.clone());
            inventory
        }
    });
    Ok(seen)
}

/// The nodes of the last look are online as the poll says.
fn online_as(inventory: &Inventory, cluster: &Cluster) -> bool {
    inventory
        .nodes
        .iter()
        .all(|(name, online, _)| cluster.node_online(name).is_none_or(|now| now == *online))
}

fn failed(error: &Error) -> Fault {
    Fault::proxmox(error, "taking the inventory", C::Connected)
}

async fn look(object: &Hypervisor, cluster: &Cluster) -> Result<Inventory, Error> {
    let client = cluster.client();
    let version = client.version().await?.version;
    let status = optional(client.cluster_status().await)?;
    let nodes = client.nodes().await?;
    let mut inventory = Inventory {
        at: Instant::now(),
        version,
        ca: None,
        nodes: Vec::new(),
        storages: Vec::new(),
        quorate: status.as_deref().is_none_or(quorate),
        missing: missing(object, &client.permissions().await?),
        pci: BTreeMap::new(),
    };
    for node in &nodes {
        let online = node.is_online();
        if !online {
            inventory
                .nodes
                .push((node.name.clone(), false, NodeStatus::default()));
            continue;
        }
        if inventory.ca.is_none() {
            inventory.ca = optional(client.certificates(&node.name).await)?.and_then(|c| ca(&c));
        }
        let figures =
            optional(client.node_status(&node.name).await)?.unwrap_or_else(|| NodeStatus {
                cores: node.maxcpu,
                memory_total: node.maxmem,
                uptime: node.uptime,
                ..NodeStatus::default()
            });
        inventory.nodes.push((node.name.clone(), true, figures));
        if let Some(devices) = optional(client.pci_devices(&node.name).await)? {
            let gpus = devices.into_iter().filter(PciDevice::is_nvidia_gpu);
            inventory.pci.insert(node.name.clone(), gpus.collect());
        }
        let storages = optional(client.storages(&node.name).await)?.unwrap_or_default();
        inventory.storages.extend(
            storages
                .into_iter()
                .filter(Storage::holds_containers)
                .map(|s| (node.name.clone(), s)),
        );
    }
    inventory.nodes.sort_by(|a, b| a.0.cmp(&b.0));
    inventory
        .storages
        .sort_by(|a, b| (&a.0, &a.1.name).cmp(&(&b.0, &b.1.name)));
    Ok(inventory)
}

/// What the token may not see is left out, not an error.
fn optional<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.kind, ErrorKind::Forbidden | ErrorKind::NodeOffline) => Ok(None),
        Err(e) => Err(e),
    }
}

/// A single node without a cluster has no quorum to lose.
fn quorate(status: &[ClusterStatus]) -> bool {
    status
        .iter()
        .find(|s| s.kind == ClusterStatusKind::Cluster)
        .is_none_or(|c| c.quorate)
}

fn ca(certificates: &[Certificate]) -> Option<String> {
    let root = certificates.iter().find(|c| c.is_root_ca())?;
    root.sha256().map(|f| f.to_string())
}

/// Privileges without which the operator can't do its work, as far as they can be told in advance: on the default storage, for guests
/// in general. A token limited to a pool has them elsewhere, so what it lacks here is only said where it has none at all.
fn missing(object: &Hypervisor, held: &Permissions) -> Vec<String> {
    const GUEST: [&str; 11] = [
        "VM.Allocate",
        "VM.Audit",
        "VM.Clone",
        "VM.Config.CPU",
        "VM.Config.Disk",
        "VM.Config.Memory",
        "VM.Config.Network",
        "VM.Config.Options",
        "VM.Console",
        "VM.PowerMgmt",
        "VM.Snapshot",
    ];
    let mut missing = BTreeSet::new();
    let pooled = held.0.iter().any(|(path, privileges)| {
        path.starts_with("/pool/") && privileges.contains_key("VM.Allocate")
    });
    if !pooled {
        missing.extend(
            GUEST
                .iter()
                .filter(|p| !held.allows("/vms", p))
                .map(|p| format!("/vms: {p}")),
        );
    }
    if let Some(storage) = object
        .spec
        .defaults
        .as_ref()
        .and_then(|d| d.storage.as_ref())
    {
        let path = format!("/storage/{storage}");
        missing.extend(
            ["Datastore.AllocateSpace", "Datastore.Audit"]
                .iter()
                .filter(|p| !held.allows(&path, p))
                .map(|p| format!("{path}: {p}")),
        );
    }
    missing.into_iter().collect()
}

/// Objects on this hypervisor, and what those tell of its GPUs.
fn used(object: &Hypervisor, cx: &Context) -> (usize, Told) {
    let me = object.name_any();
    let templates = cx
        .stores
        .all_templates()
        .into_iter()
        .map(|t| (crate::engine::key_of(&t), t.uid(), t.status));
    let containers = cx
        .stores
        .all_containers()
        .into_iter()
        .map(|c| (crate::engine::key_of(&c), c.uid(), c.status));
    let mine: Vec<_> = templates
        .chain(containers)
        .filter_map(|(key, uid, status)| Some((key, uid?, status?)))
        .filter(|(.., s)| s.hypervisor.as_deref() == Some(me.as_str()) && s.vmid.is_some())
        .collect();
    let mut told = Told::default();
    for (key, uid, status) in &mine {
        let guest = cx.sessions.view(uid);
        told.hear(&key.to_string(), status, guest.known());
    }
    (mine.len(), told)
}
