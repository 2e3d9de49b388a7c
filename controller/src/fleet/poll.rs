//! One `GET /cluster/resources` for the whole fleet; a difference wakes just the objects concerned.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use proxmox_client::{Resource, ResourceKind};
use tracing::{debug, warn};

use super::cluster::{Barred, Cluster, Health, lock};
use crate::wake::ObjectKey;

/// A poll that wasn't answered is repeated so soon.
const SECOND_TRY: Duration = Duration::from_secs(1);

/// A guest's line in `/cluster/resources`: what Proxmox broadcasts, up to 15 s old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Node that it is on.
    pub node: String,
    /// A container, not a virtual machine.
    pub lxc: bool,
    /// `running`, `stopped`, `unknown`.
    pub status: String,
    /// Its config lock.
    pub lock: Option<String>,
    /// Converted into a template.
    pub template: bool,
    /// Its name.
    pub name: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// What its config allows it: cores in thousandths and memory in bytes. A change of these is somebody's change of the config.
    pub allowed: (Option<u64>, Option<u64>),
}

/// The last answer, by VMID and by node.
#[derive(Debug, Default)]
pub(super) struct Rows {
    guests: HashMap<u32, Row>,
    nodes: BTreeMap<String, bool>,
    at: Option<Instant>,
}

impl Rows {
    /// The line of a VMID; its absence proves nothing.
    pub(super) fn guest(&self, vmid: u32) -> Option<&Row> {
        self.guests.get(&vmid)
    }

    /// Takes a new answer and yields the VMIDs whose lines differ.
    fn update(&mut self, resources: &[Resource]) -> Vec<u32> {
        let guests: HashMap<u32, Row> = resources.iter().filter_map(row).collect();
        let mut changed: Vec<u32> = guests
            .iter()
            .filter(|(id, row)| self.guests.get(id) != Some(row))
            .map(|(id, _)| *id)
            .collect();
        changed.extend(self.guests.keys().filter(|id| !guests.contains_key(id)));
        self.nodes = resources
            .iter()
            .filter(|r| r.kind == ResourceKind::Node)
            .filter_map(|r| Some((r.node.clone()?, r.status.as_deref() == Some("online"))))
            .collect();
        let first = self.at.is_none();
        self.guests = guests;
        self.at = Some(Instant::now());
        if first { Vec::new() } else { changed }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "cores are few and not negative"
)]
fn thousandths(cores: f64) -> u64 {
    (cores * 1000.0).round() as u64
}

fn row(resource: &Resource) -> Option<(u32, Row)> {
    let lxc = match resource.kind {
        ResourceKind::Lxc => true,
        ResourceKind::Qemu => false,
        _ => return None,
    };
    let row = Row {
        node: resource.node.clone()?,
        lxc,
        status: resource.status.clone().unwrap_or_default(),
        lock: resource.lock.clone(),
        template: resource.template,
        name: resource.name.clone(),
        tags: resource.tags.clone(),
        allowed: (resource.maxcpu.map(thousandths), resource.maxmem),
    };
    Some((resource.vmid?, row))
}

impl Cluster {
    /// Whether a node is online by the last poll; `None` for one that isn't known.
    pub fn node_online(&self, node: &str) -> Option<bool> {
        lock(&self.rows).nodes.get(node).copied()
    }

    /// What the memory limits of the guests on a node come to by the last poll, in bytes.
    pub(super) fn promised(&self, node: &str) -> u64 {
        lock(&self.rows)
            .guests
            .values()
            .filter(|row| row.node == node && !row.template)
            .filter_map(|row| row.allowed.1)
            .sum()
    }

    /// The nodes of the last poll.
    pub fn node_names(&self) -> Vec<String> {
        lock(&self.rows).nodes.keys().cloned().collect()
    }

    /// Reads the fleet now. Whoever's line changed is woken.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn refresh(&self) -> Result<(), proxmox_client::Error> {
        let resources = self.client().cluster_resources().await?;
        self.set_health(&Health::Connected);
        let changed = lock(&self.rows).update(&resources);
        for vmid in changed {
            self.invalidate(vmid);
            if let Some(who) = self.whom(vmid) {
                debug!(vmid, %who, "fleet row changed");
                self.wakes.wake(&who);
            }
        }
        Ok(())
    }

    fn set_health(&self, health: &Health) {
        let former = std::mem::replace(&mut *lock(&self.health), health.clone());
        if former == *health {
            return;
        }
        if let Health::Failed { message, .. } = health {
            warn!(hypervisor = self.name(), %message, "hypervisor not reachable");
        }
        self.wakes.wake(&ObjectKey::hypervisor(self.name()));
        let turned = matches!(former, Health::Connected) != matches!(health, Health::Connected);
        if turned && former != Health::Unknown {
            // whoever answers after a silence may be another: nothing is changed until that was looked at
            self.admit(Some(Barred::Unchecked));
            self.forget_inventory();
        }
        if turned {
            self.everyone().iter().for_each(|who| self.wakes.wake(who));
        }
    }

    fn poll_age(&self) -> Option<Duration> {
        lock(&self.rows).at.map(|at| at.elapsed())
    }
}

/// Polls until the cluster is stopped. A failing host is asked at the same pace: one call per interval is no burden.
pub(super) async fn run(cluster: Arc<Cluster>) {
    let interval = cluster.settings().interval;
    let mut missed = false;
    loop {
        let mut pause = interval;
        match cluster.refresh().await {
            Ok(()) => missed = false,
            // one lost answer is no outage
            Err(_) if !missed && cluster.health() == Health::Connected => {
                missed = true;
                pause = interval.min(SECOND_TRY);
            }
            Err(e) => cluster.set_health(&Health::Failed {
                kind: e.kind.clone(),
                message: e.to_string(),
            }),
        }
        if let Some(age) = cluster.poll_age() {
            cluster.metrics.poll_age(cluster.name(), age.as_secs_f64());
        }
        tokio::select! {
            () = cluster.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = cluster.poke.notified() => {}
        }
    }
}
