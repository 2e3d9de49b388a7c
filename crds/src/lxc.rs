//! What both Lxc kinds share: the part of the spec that describes a container, and the trait that reaches it.
//!
//! A template and a container differ in what happens at the end (sealed, or run and probed), so everything before the end
//! is written once, here. The shared status is in [`crate::status`].

use kube::ResourceExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, IntoStaticStr};

use crate::container::LxcContainer;
use crate::duration::Duration;
use crate::mounts::{Device, Mount};
use crate::network::{Dns, NetworkInterface};
use crate::quantity::Quantity;
use crate::reference::{HypervisorRef, TemplateRef};
use crate::setup::Setup;
use crate::status::LxcStatus;
use crate::template::LxcTemplate;

/// The shared part of the spec of both Lxc kinds.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LxcSpec {
    /// The Hypervisor that hosts the container. May be left out where exactly one exists. Resolved once and then kept in
    /// `status.hypervisor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor_ref: Option<HypervisorRef>,

    /// The container's number in Proxmox, 100 to 999999999, within the Hypervisor's `vmidRange`. Can't be changed. Left
    /// out: the next free one of the range. `status.vmid` is the one in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 999_999_999))]
    pub vmid: Option<i64>,

    /// The node to create the container on. Can't be changed. Left out: the source's node, else the Hypervisor's
    /// `defaults.node`, else one that has what is asked for; `status.placement` says why. `status.node` is where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")
    )]
    pub node: Option<String>,

    /// What the container is made from: a template or an OS template, exactly one. Can't be changed.
    pub source: Source,

    /// Host name inside the container, a DNS label. Left out: the object's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")
    )]
    pub hostname: Option<String>,

    /// CPU and memory. Changed while the container runs. What is left out is inherited from the source and not enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// The root file system. What is left out is inherited from the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<Rootfs>,

    /// Volumes and directories of the node, by their path in the container. Volumes that are not listed, such as a clone's
    /// inherited ones, are kept; directories of the node that are not listed are taken out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"]))]
    pub mounts: Vec<Mount>,

    /// Network interfaces, by name. A clone has to name its own: two clones must not start with one address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub network: Vec<NetworkInterface>,

    /// Name resolution. What is left out is inherited from the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,

    /// Abilities of the container beyond the ordinary. What is left out is inherited from the source; on creation from an
    /// OS template, an unprivileged container gets `nesting`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Features>,

    /// Whether root inside the container is an ordinary user on the node. Can't be changed, and must be the source's. Left
    /// out: inherited from the source; true on creation from an OS template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unprivileged: Option<bool>,

    /// NVIDIA GPUs of the node that the container may use, by `indices` or by `count`. Left out: none, and what a clone inherits is
    /// removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Gpus>,

    /// Other device nodes of the node that the container may use. The container gets no others, inherited ones included.
    /// Needs root's password in the Hypervisor's Secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"]))]
    pub devices: Vec<Device>,

    /// What is run inside the container once, as root, when it first runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<Setup>,

    /// When the container is started with its node. Not inherited from the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,

    /// Proxmox's resource pool that the container is made in. Can't be changed. Left out: the Hypervisor's `defaults.pool`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+){0,2}$")
    )]
    pub pool: Option<String>,

    /// Tags in Proxmox. The operator adds its own and leaves tags alone that it doesn't know. Not inherited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        inner(
            length(min = 1, max = 63),
            regex(pattern = r"^[a-z0-9_][a-z0-9_+.-]*$")
        )
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub tags: Vec<String>,

    /// Notes shown in Proxmox. The operator adds one line of its own at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 6000))]
    pub description: Option<String>,

    /// How long a shutdown may take, such as `90s`. Only a delete, a seal and a restart stop it by force after that. Default: `60s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown_timeout: Option<Duration>,

    /// What becomes of the container in Proxmox when this object is deleted: `Delete` or `Retain`. Left out: `Delete` for a
    /// container that the operator created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
}

impl LxcSpec {
    /// How long a shutdown may take.
    pub fn shutdown_timeout(&self) -> Duration {
        self.shutdown_timeout.unwrap_or(Duration::from_secs(60))
    }

    /// The device minors of the GPUs that are asked for.
    pub fn gpu_indices(&self) -> &[i64] {
        self.gpus.as_ref().map_or(&[], |gpus| &gpus.indices)
    }
}

/// What a container is made from.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// A template in the same namespace, cloned once it is sealed. Either this or `osTemplate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_ref: Option<TemplateRef>,

    /// An OS template as Proxmox's volume ID, such as `local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst`. Either
    /// this or `templateRef`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 3, max = 255),
        regex(pattern = r"^[A-Za-z][A-Za-z0-9._-]*:[^\s:]+$")
    )]
    pub os_template: Option<String>,

    /// The name of the template's snapshot that is expected. A template that is sealed under another name is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 2, max = 40),
        regex(pattern = r"^[A-Za-z][A-Za-z0-9_-]{1,39}$")
    )]
    pub snapshot: Option<String>,
}

/// CPU and memory of a container.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Number of CPU cores, 1 to 8192.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 8192))]
    pub cores: Option<i64>,

    /// CPU time that may be used, in cores, such as 1.5. 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 8192.0))]
    pub cpu_limit: Option<f64>,

    /// CPU weight against other containers of the node, 1 to 10000. Proxmox's default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub cpu_units: Option<i64>,

    /// Memory, a whole number of MiB, at least `16Mi`, such as `40Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,

    /// Swap, a whole number of MiB, such as `512Mi`. `0`: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<Quantity>,
}

/// The root file system of a container.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Rootfs {
    /// Storage that holds the volume. Left out: the source's, else the Hypervisor's `defaults.storage`. A linked clone
    /// can't be on another storage than its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 2, max = 63),
        regex(pattern = r"^[A-Za-z][A-Za-z0-9._-]*[A-Za-z0-9]$")
    )]
    pub storage: Option<String>,

    /// Size, a whole number of GiB, such as `100Gi`. It can grow while the container runs, never shrink, and can't be below the source's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Quantity>,
}

/// Abilities of a container beyond the ordinary. All but `nesting` need root's password in the Hypervisor's Secret.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    /// Containers inside the container: needed by Docker and by recent systemd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nesting: Option<bool>,

    /// The `keyctl()` system call, for unprivileged containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyctl: Option<bool>,

    /// FUSE file systems.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuse: Option<bool>,

    /// `mknod()` for some devices, for unprivileged containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mknod: Option<bool>,

    /// File system types that may be mounted, such as `nfs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 31), regex(pattern = r"^[a-zA-Z0-9_.-]+$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub mount: Vec<String>,

    /// `/sys` writable in an unprivileged container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force_rw_sys: Option<bool>,
}

/// NVIDIA GPUs of the node that the container may use, by `indices` or by `count`. They are held from before its start until it is
/// stopped or, of a template, sealed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Gpus {
    /// Indices of the GPUs on the node (the number in `/dev/nvidia<index>`), 0 to 255. Either this or `count`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(range(min = 0, max = 255)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub indices: Vec<i64>,

    /// How many GPUs, 1 to 64: the operator picks them before the start, among those of the node that are known (`status.gpus` of the
    /// Hypervisor) and can be had; `status.gpus` shows which. It keeps them while it runs, and takes the same ones at the next start if
    /// they are free then. Either this or `indices`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub count: Option<i64>,

    /// Whether others may hold the same GPUs meanwhile: `Shared` (the default), with all who ask for them `Shared`, too; or
    /// `Exclusive`. Who asks for what another holds is not started before that one is stopped.
    #[serde(default)]
    pub sharing: Sharing,
}

/// Whether several containers may hold a GPU at the same time.
#[derive(
    JsonSchema,
    Serialize,
    Deserialize,
    Display,
    IntoStaticStr,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
)]
pub enum Sharing {
    /// With all who share it, too.
    #[default]
    Shared,
    /// With nobody.
    Exclusive,
    /// Written by a version that knows more.
    #[schemars(skip)]
    #[serde(other)]
    Unknown,
}

/// When a container is started with its node.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Boot {
    /// Whether the node starts the container when it boots. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_boot: Option<bool>,

    /// Place in the order of starts, lowest first; shutdowns go the other way. Left out: after all that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub order: Option<i64>,

    /// How long to wait after this start before the next one, in whole seconds, such as `30s`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_delay: Option<Duration>,
}

/// What becomes of the container in Proxmox when this object is deleted: `Delete` or `Retain`. Left out: `Delete` for a
/// container that the operator created.
#[derive(
    JsonSchema, Serialize, Deserialize, Display, IntoStaticStr, Clone, Copy, Debug, PartialEq, Eq,
)]
pub enum DeletionPolicy {
    /// It is deleted, with its volumes.
    Delete,
    /// It stays as it is, without the operator's mark.
    Retain,
    /// Written by a version that knows more.
    #[schemars(skip)]
    #[serde(other)]
    Unknown,
}

/// What the controller needs to know of either Lxc kind.
pub trait Lxc:
    kube::Resource<DynamicType = ()> + ResourceExt + Clone + Send + Sync + 'static
{
    /// The kind's name.
    const KIND: &'static str;

    /// The part of the spec that both kinds share.
    fn spec_shared(&self) -> &LxcSpec;
    /// The status, which both kinds share; absent until the first one was written.
    fn status_shared(&self) -> Option<&LxcStatus>;
    /// Puts a status into the object.
    fn set_status(&mut self, status: LxcStatus);
}

impl Lxc for LxcTemplate {
    const KIND: &'static str = "LxcTemplate";

    fn spec_shared(&self) -> &LxcSpec {
        &self.spec.shared
    }

    fn status_shared(&self) -> Option<&LxcStatus> {
        self.status.as_ref()
    }

    fn set_status(&mut self, status: LxcStatus) {
        self.status = Some(status);
    }
}

impl Lxc for LxcContainer {
    const KIND: &'static str = "LxcContainer";

    fn spec_shared(&self) -> &LxcSpec {
        &self.spec.shared
    }

    fn status_shared(&self) -> Option<&LxcStatus> {
        self.status.as_ref()
    }

    fn set_status(&mut self, status: LxcStatus) {
        self.status = Some(status);
    }
}
