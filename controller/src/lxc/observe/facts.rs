//! What a look yields: facts, each with the word of whoever told it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use phoenix_crds::{
    conditions::{ConditionType as C, Reason},
    status::Placement,
};
use proxmox_client::TaskState;

use super::{driver::DriverStep, gpus::Claim};
use crate::{
    condition::said_true,
    fleet::{Barred, Health, Look, Place, Presence, Seen, Turn},
    guest::GuestFacts,
    lxc::{
        desired::{Present, Source},
        mark::{Mark, Ownership},
    },
    memory::Failure,
    prober::ProbeView,
    sessions::GuestView,
};

/// A task that this object started, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSeen {
    /// Its UPID.
    pub upid: String,
    /// Its type.
    pub kind: String,
    /// Its state.
    pub state: TaskState,
}

/// What a storage can do for containers, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StorageKind {
    /// Snapshots and linked clones (zfspool, lvmthin, rbd, btrfs).
    Clones,
    /// Neither, but its containers can be converted (dir, nfs, cifs).
    Plain,
    /// None of it (thick lvm).
    Thick,
}

impl StorageKind {
    /// By Proxmox's storage type (pve-storage: `volume_has_feature` of each plugin).
    pub fn of(storage_type: &str) -> Self {
        match storage_type {
            "zfspool" | "lvmthin" | "rbd" | "btrfs" => Self::Clones,
            "lvm" => Self::Thick,
            _ => Self::Plain,
        }
    }
}

/// What the status says of an earlier look into the guest: good enough while nothing speaks against it, so that a restart of the operator
/// enters no guest that does its job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reported {
    /// Minors of the GPUs that were seen inside.
    pub gpus: Vec<u32>,
    /// Since when they are as they should be, in Unix seconds.
    pub gpus_since: Option<i64>,
    /// Hash of the arguments that vLLM ran with.
    pub args_hash: Option<String>,
    /// Fingerprint of the SSH host key.
    pub host_key: Option<String>,
    /// The hypervisor was connected.
    pub connected: bool,
    /// The model was served, or the probe answered as it should.
    pub answered: bool,
    /// The node that was chosen for it, and why.
    pub placement: Option<Placement>,
    /// Why the model was not served.
    pub vllm: Option<(Reason, String)>,
    /// What was said beside of a setup that is done.
    pub advice: String,
}

impl Reported {
    pub(super) fn of(status: Option<&phoenix_crds::LxcStatus>) -> Self {
        let Some(status) = status else {
            return Self::default();
        };
        let met = |kind| said_true(&status.conditions, kind);
        let said = |kind: C| status.conditions.iter().find(|c| c.type_ == kind.as_str());
        let seen = status.gpus.iter().filter(|g| g.uuid.is_some());
        Self {
            gpus: seen.filter_map(|g| u32::try_from(g.index).ok()).collect(),
            gpus_since: status
                .conditions
                .iter()
                .find(|c| c.type_ == C::GpuAllocated.as_str() && met(C::GpuAllocated))
                .map(|c| c.last_transition_time.0.as_second()),
            args_hash: status.vllm.as_ref().and_then(|v| v.args_hash.clone()),
            host_key: status
                .ssh
                .as_ref()
                .and_then(|s| s.host_key_fingerprint.clone()),
            connected: met(C::HypervisorReady),
            answered: met(C::VllmReady) || met(C::ProbeReady),
            placement: status.placement.clone(),
            vllm: said(C::VllmReady)
                .filter(|_| !met(C::VllmReady))
                .and_then(|c| Some((c.reason.parse().ok()?, c.message.clone()))),
            advice: said(C::SetupComplete)
                .filter(|_| met(C::SetupComplete))
                .map(|c| c.message.clone())
                .unwrap_or_default(),
        }
    }
}

/// What is there.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, read by one check"
)]
pub struct Observed {
    /// Of the connection.
    pub health: Health,
    /// Why nothing may be changed.
    pub barred: Option<Barred>,
    /// A root password was given.
    pub has_root: bool,
    /// When this object is to be looked at again at rest.
    pub drift: Duration,
    /// How often the fleet is polled: so often is looked for what a person was asked to do and no poll shows.
    pub interval: Duration,
    /// The container.
    pub look: Option<Arc<Look>>,
    /// Whose it is, by its mark.
    pub ownership: Option<Ownership>,
    /// The status says that it was made to the end at some time.
    pub was_created: bool,
    /// The mark that it had then, where it has lost it.
    pub lost_mark: Option<Mark>,
    /// It carries our mark but was never made to the end.
    pub half_made: bool,
    /// The task that we started last.
    pub task: Option<TaskSeen>,
    /// Some task is at work on it.
    pub active_task: bool,
    /// It is being converted.
    pub converting: bool,
    /// What failed repeatedly.
    pub failure: Option<Failure>,
    /// A VMID that could be taken.
    pub candidate: Option<u32>,
    /// Whose turn it is to clone.
    pub turn: Option<Turn>,
    /// The nodes, where one is to be chosen.
    pub places: Option<Arc<Vec<Place>>>,
    /// Bridges of the node, where a network device is about to be set.
    pub bridges: Option<Vec<String>>,
    /// Names of its snapshots, where they matter.
    pub snapshots: Vec<String>,
    /// What its storage can do.
    pub storage: Option<StorageKind>,
    /// Volumes cloned from its own that belong to no object.
    pub dependents: Vec<String>,
    /// Containers that hold one of its addresses.
    pub rivals: Vec<String>,
    /// The GPUs that it holds by its status, and whether nobody else may hold them.
    pub gpus_held: BTreeMap<u32, bool>,
    /// What others on its node hold.
    pub gpu_claims: Vec<Claim>,
    /// The GPUs that its node is known to have.
    pub node_gpus: Vec<u32>,
    /// What could bring the NVIDIA libraries inside to the node's version, where they don't fit.
    pub driver_step: Option<DriverStep>,
    /// Optional devices that the host lacks.
    pub skipped_devices: BTreeSet<String>,
    /// What was found inside.
    pub guest: GuestView,
    /// What the status says of that.
    pub reported: Reported,
    /// Our SSH key, as a container is to know it; absent where SSH is not used.
    pub ssh_key: Option<String>,
    /// What probes say.
    pub probe: Option<ProbeView>,
}

/// The one SSH host key of a container that is set up by us: as it was seen last, once it has keys of its own; until then a clone has
/// its source's.
pub(in crate::lxc) fn host_key(present: &Present, observed: &Observed) -> Option<String> {
    let own = |facts: &&GuestFacts| {
        matches!(present.source, Source::OsTemplate(_))
            || facts.state.as_ref().is_some_and(|s| s.personalised)
    };
    let seen = observed.guest.known().filter(own);
    seen.and_then(|facts| facts.host_key.clone())
        .or_else(|| observed.reported.host_key.clone())
}

impl Observed {
    /// The container, where it is there.
    pub fn seen(&self) -> Option<&Seen> {
        match &self.look.as_ref()?.presence {
            Presence::Here(seen) => Some(seen),
            _ => None,
        }
    }

    /// Our mark on it.
    pub fn mark(&self) -> Option<&Mark> {
        match self.ownership.as_ref()? {
            Ownership::Ours(mark) => Some(mark),
            _ => None,
        }
    }

    /// The order that high availability took and whose effect is still to come: such a task ends long before it.
    pub fn asked_ha(&self) -> Option<&TaskSeen> {
        let running = self.seen()?.running();
        let task = self.task.as_ref().filter(|t| t.state == TaskState::Ok)?;
        matches!(
            (task.kind.as_str(), running),
            ("hastart", false) | ("hastop", true)
        )
        .then_some(task)
    }

    pub(in crate::lxc) fn nothing(health: Health, barred: Option<Barred>) -> Self {
        Self {
            health,
            barred,
            has_root: false,
            drift: Duration::from_mins(10),
            interval: Duration::from_secs(10),
            look: None,
            ownership: None,
            was_created: false,
            lost_mark: None,
            half_made: false,
            task: None,
            active_task: false,
            converting: false,
            failure: None,
            candidate: None,
            turn: None,
            places: None,
            bridges: None,
            snapshots: Vec::new(),
            storage: None,
            dependents: Vec::new(),
            rivals: Vec::new(),
            gpus_held: BTreeMap::new(),
            gpu_claims: Vec::new(),
            node_gpus: Vec::new(),
            driver_step: None,
            skipped_devices: BTreeSet::new(),
            guest: GuestView::default(),
            reported: Reported::default(),
            ssh_key: None,
            probe: None,
        }
    }
}
