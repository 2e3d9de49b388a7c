//! First stage: spec, cluster defaults, the source's sealed snapshot and the setup's text become a [`Desired`] that makes sense, or the
//! user's fault in his words. Reads Kubernetes only.

mod allowed;
mod mounts;
mod net;
mod place;
mod resolve;
mod setup;
mod source;
mod workload;

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc, time::Duration};

pub(in crate::lxc) use mounts::merge_device;
pub use mounts::{MountKind, WantedMount};
pub use net::WantedNet;
pub(crate) use resolve::desired;
pub(in crate::lxc) use setup::resolve as resolve_setup;
pub use source::{Source, SourceTemplate};
pub(crate) use workload::role as container_role;

use phoenix_crds::mounts::Device;

use super::mark::Mark;
use crate::{
    guest::{SetupRun, SetupVariable, VllmFiles},
    prober::ProbeSpec,
    wake::ObjectKey,
};

/// Everything that a pass over an Lxc object is about.
#[derive(Debug, Clone)]
pub struct Desired {
    /// Who asks, and where.
    pub target: Target,
    /// What for.
    pub goal: Goal,
}

/// Who asks for a container, and where it is.
#[derive(Debug, Clone)]
pub struct Target {
    /// The object.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: String,
    /// Who we are in ownership marks.
    pub instance: String,
    /// The hypervisor, resolved once.
    pub hypervisor: String,
    /// The VMID, once chosen.
    pub vmid: Option<u32>,
    /// Where the container was seen last.
    pub node_hint: Option<String>,
}

/// To be, or not to be.
#[derive(Debug, Clone)]
pub enum Goal {
    /// It shall be there.
    Present(Box<Present>),
    /// It shall go.
    Absent(Absence),
}

/// How it shall go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absence {
    /// The container stays; only the object goes.
    pub retain: bool,
    /// Objects that were cloned from it and are still there.
    pub children: Vec<String>,
    /// How long it may take to shut down before it is killed.
    pub shutdown_timeout: Duration,
}

/// What shall be there.
#[derive(Debug, Clone)]
pub struct Present {
    /// `spec.vmid`.
    pub pinned: Option<u32>,
    /// The hypervisor's range.
    pub range: RangeInclusive<u32>,
    /// VMIDs that other objects hold.
    pub taken: Vec<u32>,
    /// Node to create on; empty as long as one is to be chosen.
    pub node: String,
    /// What that node must have, where it is to be chosen.
    pub wish: Option<Wish>,
    /// From what.
    pub source: Source,
    /// Its name in Proxmox.
    pub hostname: String,
    /// Config keys that the spec (or the hypervisor's defaults) fixes, in Proxmox's spelling.
    pub keys: BTreeMap<&'static str, String>,
    /// Network devices, `net0` first; `None`: as inherited.
    pub nets: Option<Vec<WantedNet>>,
    /// Sent at create only.
    pub unprivileged: Option<bool>,
    /// Our tag and the spec's.
    pub tags: Vec<String>,
    /// The user's part of the description; `None`: whatever stands there.
    pub description: Option<String>,
    /// Storage of the root file system.
    pub storage: Option<String>,
    /// Its size.
    pub disk_gib: Option<u64>,
    /// Volumes and directories of the node.
    pub mounts: Vec<WantedMount>,
    /// Device nodes other than GPUs'.
    pub devices: Vec<Device>,
    /// Proxmox's resource pool that it is made in.
    pub pool: Option<String>,
    /// What the hypervisor doesn't allow of all this, in words.
    pub not_allowed: Option<String>,
    /// Device minors of the GPUs it shall hold: those of the spec, or those that were picked and stand in the status.
    pub gpus: Vec<u32>,
    /// How many, where the spec says only that.
    pub gpu_count: Option<u32>,
    /// Nobody else shall hold them.
    pub gpus_exclusive: bool,
    /// What is to be done inside once.
    pub setup: Option<Setup>,
    /// What names the setup in the mark: its hash, or `none`.
    pub setup_mark: String,
    /// Hash over what shapes the disk.
    pub revision: String,
    /// The revision of the source that the container was made from, once it was made.
    pub built_from: Option<String>,
    /// How long it may take to shut down.
    pub shutdown_timeout: Duration,
    /// What is particular to the kind.
    pub role: Role,
}

/// What a node must have for a container to be made there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// The storage of the root file system.
    pub storage: Option<String>,
    /// Bridges.
    pub bridges: Vec<String>,
    /// The OS template.
    pub os_template: Option<String>,
    /// Memory in bytes.
    pub memory: u64,
    /// Device minors of the GPUs.
    pub gpus: Vec<u32>,
    /// How many GPUs, whichever.
    pub gpu_count: u32,
    /// The GPUs that the hypervisor's status tells of, by node and minor.
    pub known_gpus: Vec<(String, u32)>,
}

/// What an object of either kind does in the end.
#[derive(Debug, Clone)]
pub enum Role {
    /// It is sealed.
    Template {
        /// The name that children use.
        snapshot: String,
        /// As asked.
        strategy: Strategy,
    },
    /// It runs.
    Container {
        /// Running, not stopped.
        running: bool,
        /// vLLM's unit, rendered.
        vllm: Option<Arc<VllmFiles>>,
        /// How to ask whether it does its job.
        probe: Option<ProbeSpec>,
        /// How long vLLM may take to load before that is worth a person's look.
        startup_timeout: Duration,
    },
}

/// How a template is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::Display)]
pub enum Strategy {
    /// By what the storage can do.
    Auto,
    /// Converted; clones share its blocks.
    Linked,
    /// A snapshot, or left as it is; clones are full copies.
    Full,
}

/// What is to be done inside once.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The script's text.
    pub script: String,
    /// Must exit 0 before it counts.
    pub verify: Option<String>,
    /// The environment of both, sorted by name.
    pub env: Vec<SetupVariable>,
    /// The limit of one run.
    pub timeout: Duration,
    /// Runs after the first.
    pub retries: u32,
    /// Over script, verification and environment.
    pub hash: String,
}

impl Setup {
    /// As it is run in the guest.
    pub(in crate::lxc) fn run(&self, attempt: u32) -> SetupRun {
        SetupRun {
            hash: self.hash.clone(),
            attempt,
            script: self.script.clone(),
            verify: self.verify.clone(),
            env: self.env.clone(),
            timeout: self.timeout,
        }
    }
}

impl Target {
    /// The mark that we write on `vmid`, nothing durable in it yet.
    pub fn mark(&self, vmid: u32) -> Mark {
        Mark {
            instance: self.instance.clone(),
            kind: self.key.kind.to_string(),
            namespace: self.key.namespace.clone(),
            name: self.key.name.clone(),
            uid: self.uid.clone(),
            vmid,
            created: false,
            setup: None,
            revision: None,
        }
    }
}

impl Present {
    /// Device nodes without which a GPU can't be used.
    pub fn required_devices(&self) -> Vec<String> {
        if self.gpus.is_empty() {
            return Vec::new();
        }
        let cards = self.gpus.iter().map(|minor| format!("/dev/nvidia{minor}"));
        cards
            .chain(["/dev/nvidiactl".to_owned(), "/dev/nvidia-uvm".to_owned()])
            .collect()
    }

    /// Device nodes that some hosts have and some programs want.
    pub fn optional_devices(&self) -> &'static [&'static str] {
        if self.gpus.is_empty() {
            &[]
        } else {
            &["/dev/nvidia-uvm-tools"]
        }
    }

    /// Whether it is to hold any GPU.
    pub fn asks_gpus(&self) -> bool {
        !self.gpus.is_empty() || self.gpu_count.is_some()
    }

    /// Whether anything has to be done or seen inside the guest before it counts as set up.
    pub fn enters_guest(&self) -> bool {
        let serves = matches!(&self.role, Role::Container { vllm: Some(_), .. });
        self.setup.is_some()
            || serves
            || matches!(self.source, Source::Template(_))
            || self.asks_gpus()
    }

    /// It is sealed in the end.
    pub fn is_template(&self) -> bool {
        matches!(self.role, Role::Template { .. })
    }
}
