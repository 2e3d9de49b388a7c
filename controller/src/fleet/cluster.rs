//! One Proxmox host or cluster as the operator holds it in memory. All of it can be lost at any moment and is found again.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use phoenix_crds::hypervisor::Transport;
use proxmox_client::{Client, Error, Fingerprint, TaskState, Upid};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    look::{Look, Looks},
    places::Place,
    poll::Rows,
    queue::CloneQueue,
    tasks::{OnEnd, Tasks},
};
use crate::{
    guest::{Access, SshKey, SshTarget},
    hypervisor::Inventory,
    telemetry::Metrics,
    wake::{ObjectKey, Wakes},
};

/// A freed VMID rests for so long: Proxmox's own lists, backups and people still mean the old container by it.
const REST: Duration = Duration::from_mins(1);

/// What `Hypervisor.spec` says about how to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Name of the `Hypervisor`.
    pub name: String,
    /// Who we are in ownership marks.
    pub instance: String,
    /// How often `/cluster/resources` is read.
    pub interval: Duration,
    /// How often a container at rest is read again.
    pub drift: Duration,
    /// How guests are entered.
    pub transport: Transport,
    /// How probes and SSH reach containers without a route to them.
    pub guest_proxy: Option<String>,
}

/// What the last polls said of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Not asked yet.
    Unknown,
    /// The last poll was answered.
    Connected,
    /// It was not.
    Failed {
        /// The class of the failure.
        kind: proxmox_client::ErrorKind,
        /// Proxmox's or the transport's own words.
        message: String,
    },
}

/// Why nothing may be changed through a hypervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Barred {
    /// Its identity has not been checked since we started.
    Unchecked,
    /// It is another one than the one pinned.
    Identity(String),
}

/// One cluster: its client, what is known of it and what we do there.
pub struct Cluster {
    settings: ClusterSettings,
    /// Changes whenever endpoints, trust or credentials do.
    key: String,
    client: Client,
    pub(super) wakes: Wakes,
    pub(super) rows: Mutex<Rows>,
    pub(super) health: Mutex<Health>,
    pub(super) looks: Looks,
    pub(super) poke: Notify,
    pub(super) stop: CancellationToken,
    pub(super) metrics: Arc<Metrics>,
    tasks: Tasks,
    clones: CloneQueue,
    interest: Mutex<HashMap<u32, ObjectKey>>,
    freed: Mutex<HashMap<u32, Instant>>,
    reserved: Mutex<BTreeMap<u32, ObjectKey>>,
    /// Why nothing may be changed there; `None` when all is as pinned.
    barred: Mutex<Option<Barred>>,
    inventory: Mutex<Option<Inventory>>,
    pub(super) places: Mutex<Option<(Instant, Arc<Vec<Place>>)>>,
    /// What guests are entered with over SSH, or why that can't be; `None` where SSH is not used.
    ssh: Mutex<Option<Result<SshKey, String>>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Takes a client and starts the poll. Nothing may be changed through it until `admit` was called.
    pub fn start(
        settings: ClusterSettings,
        key: String,
        client: Client,
        wakes: Wakes,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let cluster = Arc::new(Self {
            settings,
            key,
            client,
            wakes,
            rows: Mutex::default(),
            health: Mutex::new(Health::Unknown),
            looks: Looks::default(),
            poke: Notify::new(),
            stop: CancellationToken::new(),
            metrics,
            tasks: Tasks::default(),
            clones: CloneQueue::default(),
            interest: Mutex::default(),
            freed: Mutex::default(),
            reserved: Mutex::default(),
            barred: Mutex::new(Some(Barred::Unchecked)),
            inventory: Mutex::default(),
            places: Mutex::default(),
            ssh: Mutex::default(),
        });
        tokio::spawn(super::poll::run(Arc::clone(&cluster)));
        cluster
    }

    /// Ends the poll and all watchers.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Name of the `Hypervisor`.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Its settings.
    pub fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    /// Fingerprint of the connection's own settings.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The clone queues.
    pub fn clones(&self) -> &CloneQueue {
        &self.clones
    }

    /// The tasks in flight.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// What the last poll said.
    pub fn health(&self) -> Health {
        lock(&self.health).clone()
    }

    /// The fingerprint that an untrusted server presented, to be compared and pinned by a person.
    pub fn presented(&self) -> Option<Fingerprint> {
        match &*lock(&self.health) {
            Health::Failed {
                kind: proxmox_client::ErrorKind::Untrusted { presented },
                ..
            } => Some(presented.clone()),
            _ => None,
        }
    }

    /// Lets changes through (the identity is the pinned one), or bars them with a reason.
    pub fn admit(&self, barred: Option<Barred>) {
        *lock(&self.barred) = barred;
    }

    /// Why nothing may be changed there.
    pub fn barred(&self) -> Option<Barred> {
        lock(&self.barred).clone()
    }

    /// The last inventory.
    pub(crate) fn inventory(&self) -> Option<Inventory> {
        lock(&self.inventory).clone()
    }

    /// The next look takes it anew.
    pub(super) fn forget_inventory(&self) {
        *lock(&self.inventory) = None;
    }

    /// Keeps an inventory until the next.
    pub(crate) fn keep_inventory(&self, inventory: Inventory) {
        *lock(&self.inventory) = Some(inventory);
    }

    /// Keeps the key for SSH into guests.
    pub(crate) fn keep_ssh(&self, key: Option<Result<SshKey, String>>) {
        *lock(&self.ssh) = key;
    }

    /// The line of `authorized_keys` that guests are to have.
    pub fn ssh_line(&self) -> Option<String> {
        match &*lock(&self.ssh) {
            Some(Ok(key)) => Some(key.authorized_line().to_owned()),
            _ => None,
        }
    }

    /// By which ways the guest at this address may be entered; `host_key` is the recorded fingerprint.
    pub fn access(&self, address: Option<&str>, host_key: Option<String>) -> Access {
        let key = lock(&self.ssh).clone();
        let ssh = key.map(|key| {
            let address: IpAddr = address
                .and_then(|address| address.parse().ok())
                .ok_or("the container has no address yet; check spec.network")?;
            let proxy = self.settings.guest_proxy.clone();
            Ok(SshTarget::of_container(address, key?, proxy, host_key))
        });
        Access {
            console: self.settings.transport.by_console(),
            ssh,
            ssh_key: self.ssh_line(),
        }
    }

    /// Asks for a poll now, for instance after a change of ours.
    pub fn poke(&self) {
        self.poke.notify_one();
    }

    /// Whoever is concerned by a VMID is woken when its row changes.
    pub fn interested(&self, vmid: u32, who: &ObjectKey) {
        lock(&self.interest).insert(vmid, who.clone());
    }

    /// The object is gone: its interests, places and reservations go with it.
    pub fn forget(&self, who: &ObjectKey) {
        lock(&self.interest).retain(|_, k| k != who);
        lock(&self.reserved).retain(|_, k| k != who);
        self.done_cloning(who);
    }

    /// Gives up the turn to clone and wakes the next in line.
    pub fn done_cloning(&self, who: &ObjectKey) {
        for next in self.clones.leave(who) {
            self.wakes.wake(&next);
        }
        self.metrics.queue_length(self.name(), self.clones.len());
    }

    pub(super) fn whom(&self, vmid: u32) -> Option<ObjectKey> {
        lock(&self.interest).get(&vmid).cloned()
    }

    pub(super) fn everyone(&self) -> Vec<ObjectKey> {
        lock(&self.interest).values().cloned().collect()
    }

    /// Watches a task of ours; its end makes what is known of `vmid` stale and wakes `who`.
    pub fn watch(self: &Arc<Self>, upid: &Upid, vmid: u32, who: &ObjectKey) {
        let here = Arc::downgrade(self);
        let on_end: OnEnd = Arc::new(move |upid: &Upid, state: &TaskState| {
            if let Some(cluster) = here.upgrade() {
                cluster.invalidate(vmid);
                cluster.metrics.task(&upid.task_type, outcome(state));
            }
        });
        self.tasks.watch(
            self.client.clone(),
            upid.clone(),
            who.clone(),
            self.wakes.clone(),
            on_end,
            self.stop.child_token(),
        );
    }

    /// What is known of a container is stale.
    pub fn invalidate(&self, vmid: u32) {
        self.looks.forget(vmid);
    }

    /// Looks at a VMID, not older than `max_age`. See [`Look`].
    pub async fn look(
        &self,
        vmid: u32,
        node_hint: Option<&str>,
        max_age: Duration,
    ) -> Result<Arc<Look>, Error> {
        self.looks.get(self, vmid, node_hint, max_age).await
    }

    /// When a container at rest is to be looked at again: spread evenly over the drift period, so that a fleet never asks at once.
    pub fn drift_due(&self, vmid: u32) -> Duration {
        let spread = f64::from(vmid.wrapping_mul(2_654_435_761) % 1000) / 2000.0;
        self.settings.drift.mul_f64(0.75 + spread)
    }

    /// Remembers that a VMID was freed just now.
    pub fn freed(&self, vmid: u32) {
        lock(&self.freed).insert(vmid, Instant::now());
        lock(&self.interest).remove(&vmid);
        self.invalidate(vmid);
    }

    /// Chooses a VMID of the range that nobody has, asks for or has just given up, and holds it for `who` until it stands in a status.
    ///
    /// # Errors
    /// Those of the question whether Proxmox holds it free.
    pub async fn choose_vmid(
        &self,
        range: std::ops::RangeInclusive<u32>,
        taken: &[u32],
        who: &ObjectKey,
    ) -> Result<Option<u32>, Error> {
        for vmid in range {
            if taken.contains(&vmid)
                || lock(&self.rows).guest(vmid).is_some()
                || !self.hold(vmid, who)
            {
                continue;
            }
            if self.client.vmid_is_free(vmid).await? {
                return Ok(Some(vmid));
            }
            lock(&self.reserved).remove(&vmid);
        }
        Ok(None)
    }

    fn hold(&self, vmid: u32, who: &ObjectKey) -> bool {
        let mut freed = lock(&self.freed);
        freed.retain(|_, at| at.elapsed() < REST);
        if freed.contains_key(&vmid) {
            return false;
        }
        let mut reserved = lock(&self.reserved);
        match reserved.get(&vmid) {
            Some(holder) => holder == who,
            None => {
                reserved.insert(vmid, who.clone());
                true
            }
        }
    }
}

fn outcome(state: &TaskState) -> &'static str {
    match state {
        TaskState::Running => "running",
        TaskState::Ok => "ok",
        TaskState::Warnings(_) => "warnings",
        TaskState::Failed { .. } => "failed",
        TaskState::Unknown => "unknown",
    }
}

/// A poisoned lock holds plain data that is still whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
