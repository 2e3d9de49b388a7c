//! What a simulated installation looks like when it starts, and how fast its time runs.

use std::{net::Ipv4Addr, time::Duration};

use crate::guest::GuestSettings;

/// Everything that [`Simulator::start`](crate::Simulator::start) needs. The default is a Phoenix host that answers at once.
#[derive(Debug, Clone)]
pub struct SimulatorConfig {
    /// Nodes, storages, users.
    pub host: HostShape,
    /// How long tasks and waits take.
    pub timing: Timing,
    /// What is inside the containers; nothing where left out.
    pub guests: Option<GuestSettings>,
    /// A port instead of one that the kernel chooses; always on 127.0.0.1.
    pub port: Option<u16>,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            host: HostShape::phoenix(),
            timing: Timing::instant(),
            guests: None,
            port: None,
        }
    }
}

/// The installation as an administrator left it.
#[derive(Debug, Clone)]
pub struct HostShape {
    /// `9.2.11`.
    pub version: String,
    /// `9.2`.
    pub release: String,
    /// The build's short hash.
    pub repoid: String,
    /// The first one is the node that is contacted.
    pub nodes: Vec<NodeShape>,
    /// Storages, the same on each node.
    pub storages: Vec<StorageShape>,
    /// Users, `root@pam` among them.
    pub users: Vec<UserShape>,
    /// Who may do what where.
    pub acl: Vec<AclShape>,
    /// Names of resource pools.
    pub pools: Vec<String>,
}

/// One node.
#[derive(Debug, Clone)]
pub struct NodeShape {
    /// Its host name.
    pub name: String,
    /// Its address in the cluster.
    pub address: Ipv4Addr,
    /// Logical CPUs.
    pub cores: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Linux bridges.
    pub bridges: Vec<String>,
    /// Device files under /dev that containers may ask for.
    pub devices: Vec<String>,
    /// Directories that containers may bind.
    pub directories: Vec<String>,
    /// NVIDIA GPUs.
    pub gpus: Vec<Gpu>,
    /// Version of the NVIDIA kernel module.
    pub driver_version: String,
}

/// An NVIDIA GPU of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// The device's minor number: `/dev/nvidia<index>`.
    pub index: u32,
    /// `0000:01:00.0`.
    pub pci_address: String,
    /// `GPU-…`.
    pub uuid: String,
    /// As `nvidia-smi` prints it.
    pub name: String,
    /// Memory in MiB.
    pub memory_mib: u64,
}

/// What guests can see of their host.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// GPUs of the node.
    pub gpus: Vec<Gpu>,
    /// Version of the NVIDIA kernel module.
    pub driver_version: String,
    /// Device files of the node.
    pub devices: Vec<String>,
}

/// A storage.
#[derive(Debug, Clone)]
pub struct StorageShape {
    /// Its id.
    pub id: String,
    /// What is behind it.
    pub kind: StorageKind,
    /// Content types: `rootdir`, `images`, `vztmpl`…
    pub content: Vec<String>,
    /// Size in bytes.
    pub total: u64,
    /// Template archives by file name and size, with the operating system in them.
    pub templates: Vec<TemplateShape>,
}

/// What a storage is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageKind {
    /// A ZFS pool or a dataset in one.
    ZfsPool {
        /// `tank` or `rpool/data`.
        pool: String,
    },
    /// A directory; container disks are raw files.
    Dir {
        /// Where it is.
        path: String,
    },
    /// NFS: one for all nodes; container disks are raw files.
    Nfs {
        /// `nas.lan`.
        server: String,
        /// `/export/containers`.
        export: String,
    },
    /// LVM thin.
    LvmThin {
        /// Volume group.
        vg: String,
        /// Pool.
        pool: String,
    },
}

/// A container template archive.
#[derive(Debug, Clone)]
pub struct TemplateShape {
    /// `ubuntu-24.04-standard_24.04-2_amd64.tar.zst`.
    pub file: String,
    /// Size of the archive.
    pub size: u64,
    /// Bytes once unpacked.
    pub unpacked: u64,
    /// What Proxmox detects in it; none: the archive is broken.
    pub os_type: Option<String>,
    /// The version of systemd in it, where it warns about nesting.
    pub systemd: Option<u32>,
}

/// A user and his tokens.
#[derive(Debug, Clone)]
pub struct UserShape {
    /// `phoenix@pve`.
    pub id: String,
    /// For a login.
    pub password: Option<String>,
    /// Disabled users can do nothing, nor can their tokens.
    pub enabled: bool,
    /// API tokens.
    pub tokens: Vec<TokenShape>,
}

/// An API token.
#[derive(Debug, Clone)]
pub struct TokenShape {
    /// The part after the `!`.
    pub id: String,
    /// The secret, a UUID.
    pub secret: String,
    /// Whether its rights are the intersection of its own and its user's.
    pub privsep: bool,
    /// Seconds since the epoch; 0: never.
    pub expire: u64,
}

/// One line of the access control list, for a user or a token.
#[derive(Debug, Clone)]
pub struct AclShape {
    /// `/vms`.
    pub path: String,
    /// `phoenix@pve` or `phoenix@pve!operator`.
    pub who: String,
    /// The privileges of the role.
    pub privileges: Vec<String>,
    /// Whether deeper paths inherit it.
    pub propagate: bool,
}

impl AclShape {
    /// A line that deeper paths inherit.
    pub(crate) fn inherited(who: &str, path: &str, privileges: &[&str]) -> Self {
        Self {
            path: path.to_owned(),
            who: who.to_owned(),
            privileges: privileges.iter().map(|name| (*name).to_owned()).collect(),
            propagate: true,
        }
    }
}

/// How long things take: figures of a real host times a factor.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Factor for the length of tasks.
    pub tasks: f64,
    /// Factor for Proxmox's own waits: the 3 s before a 401, the 10 s of a lock, the 10 s between two rounds of statistics.
    pub waits: f64,
    /// A real host's figures.
    pub durations: Durations,
}

impl Timing {
    /// Tasks end at once; waits shrink to a hundredth.
    pub fn instant() -> Self {
        Self {
            tasks: 0.0,
            waits: 0.01,
            durations: Durations::default(),
        }
    }

    /// All at a tenth of a real host: a linked clone 0.2 s, a start 0.5 s.
    pub fn tenth_of_real() -> Self {
        Self {
            tasks: 0.1,
            waits: 0.1,
            durations: Durations::default(),
        }
    }

    /// As a real host.
    pub fn real() -> Self {
        Self {
            tasks: 1.0,
            waits: 1.0,
            durations: Durations::default(),
        }
    }

    pub(crate) fn task(&self, real: Duration) -> Duration {
        real.mul_f64(self.tasks)
    }

    pub(crate) fn wait(&self, real: Duration) -> Duration {
        real.mul_f64(self.waits)
    }
}

/// What a real host takes for each kind of task.
#[derive(Debug, Clone)]
pub struct Durations {
    /// Creating from a template archive, beside unpacking.
    pub create: Duration,
    /// A linked clone.
    pub linked_clone: Duration,
    /// A full clone, beside copying.
    pub full_clone: Duration,
    /// Bytes per second when unpacking or copying.
    pub bytes_per_second: f64,
    /// Conversion to a template.
    pub template: Duration,
    /// Until a container runs.
    pub start: Duration,
    /// A clean shutdown.
    pub shutdown: Duration,
    /// A kill.
    pub stop: Duration,
    /// Taking or deleting a snapshot.
    pub snapshot: Duration,
    /// A rollback.
    pub rollback: Duration,
    /// Growing a disk.
    pub resize: Duration,
    /// Destroying.
    pub destroy: Duration,
}

impl Default for Durations {
    fn default() -> Self {
        let seconds = Duration::from_secs_f64;
        Self {
            create: seconds(3.0),
            linked_clone: seconds(2.0),
            full_clone: seconds(3.0),
            bytes_per_second: 200e6,
            template: seconds(1.0),
            start: seconds(5.0),
            shutdown: seconds(3.0),
            stop: seconds(1.5),
            snapshot: seconds(0.8),
            rollback: seconds(1.5),
            resize: seconds(0.8),
            destroy: seconds(1.5),
        }
    }
}

impl Durations {
    pub(crate) fn copying(&self, bytes: u64) -> Duration {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a duration needs no exact byte count"
        )]
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_second)
    }
}
