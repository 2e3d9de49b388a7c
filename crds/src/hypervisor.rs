//! `Hypervisor`: the connection to one Proxmox VE host or cluster, and what was found there.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, IntoStaticStr};

use crate::allowed::Allowed;
use crate::duration::Duration;
use crate::quantity::Quantity;
use crate::schema;

/// How to reach a Proxmox VE host or cluster, and what objects get from it.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "phoenix-hypervisor.io",
    version = "v1alpha1",
    kind = "Hypervisor",
    plural = "hypervisors",
    shortname = "hv",
    category = "phoenix",
    doc = "The connection to one Proxmox VE host or cluster, and its inventory.",
    status = "HypervisorStatus",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct HypervisorSpec {
    /// Addresses of the API, such as `https://pve1.lan:8006`, of one host or of the nodes of one cluster. Tried in turn.
    #[schemars(length(min = 1, max = 32), inner(length(min = 9, max = 512)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub endpoints: Vec<String>,

    /// Which certificates to trust. Left out: those that the system trusts. There is no switch to trust any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,

    /// Name of a Secret in the operator's own namespace: `tokenId` and `tokenSecret`; optionally `password` of the token's
    /// user and `rootPassword` of root@pam.
    #[schemars(length(min = 1, max = 253))]
    pub credentials_secret: String,

    /// The namespaces whose objects may use this Hypervisor, by their labels. Left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub allowed_namespaces: Option<LabelSelector>,

    /// What objects may ask for beyond the VMIDs of `vmidRange`, what `defaults` names, and GPUs. What an object asks for
    /// besides is refused before anything is created. Left out: nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Allowed>,

    /// What objects get that leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<Defaults>,

    /// The VMIDs that objects may ask for or are given. Left out: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmid_range: Option<VmidRange>,

    /// Who this operator is in the marks that it leaves on containers. Left out: the uid of namespace kube-system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
    )]
    pub instance: Option<String>,

    /// How the operator reaches what runs inside containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,

    /// How often Proxmox is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polling: Option<Polling>,
}

impl HypervisorSpec {
    /// How often the whole fleet is polled.
    pub fn poll_interval(&self) -> Duration {
        self.polling
            .as_ref()
            .and_then(|polling| polling.interval)
            .unwrap_or(Duration::from_secs(10))
    }

    /// How often each container's configuration is compared with its spec.
    pub fn drift_interval(&self) -> Duration {
        self.polling
            .as_ref()
            .and_then(|polling| polling.drift)
            .unwrap_or(Duration::from_mins(10))
    }
}

/// Which certificates of the API to trust.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Certificates of the authorities to trust, as PEM. Proxmox's own is `/etc/pve/pve-root-ca.pem`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65_536))]
    pub ca_bundle: Option<String>,

    /// SHA-256 fingerprints of certificates to trust, such as `AB:CD:…`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 95)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub fingerprints: Vec<String>,
}

/// What objects get that leave it out.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Defaults {
    /// The node to create on. Left out: one is chosen for each object that names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")
    )]
    pub node: Option<String>,

    /// The storage for root file systems.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 2, max = 63),
        regex(pattern = r"^[A-Za-z][A-Za-z0-9._-]*[A-Za-z0-9]$")
    )]
    pub storage: Option<String>,

    /// The bridge for network interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[a-zA-Z0-9_.-]+$"))]
    pub bridge: Option<String>,

    /// The IPv4 gateway for static addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 7, max = 15),
        regex(pattern = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$")
    )]
    pub gateway: Option<String>,

    /// Proxmox's resource pool that containers are made in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+){0,2}$")
    )]
    pub pool: Option<String>,

    /// The name servers, at most 3.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 3),
        inner(length(min = 2, max = 45), regex(pattern = r"^[0-9a-fA-F:.]+$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub nameservers: Vec<String>,
}

/// A range of VMIDs, both ends included.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VmidRange {
    /// The first VMID, 100 to 999999999.
    #[schemars(range(min = 100, max = 999_999_999))]
    pub start: i64,
    /// The last VMID, 100 to 999999999.
    #[schemars(range(min = 100, max = 999_999_999))]
    pub end: i64,
}

impl VmidRange {
    /// Whether a VMID is within the range.
    pub fn contains(self, vmid: i64) -> bool {
        (self.start..=self.end).contains(&vmid)
    }
}

/// How the operator reaches what runs inside containers.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Guest {
    /// How the operator works inside containers: `Console`, Proxmox's own; `Ssh`, as root on port 22 with a key that the operator
    /// makes; `Auto`, the console and, where that can't be used, SSH. Default: `Auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,

    /// Proxy for probes and SSH to containers without a route from here, such as `socks5://pve1.lan:1080` or `http://…`. Left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 512))]
    pub proxy: Option<String>,
}

impl Guest {
    /// The transport asked for, else `Auto`.
    pub fn transport(&self) -> Transport {
        self.transport.unwrap_or_default()
    }
}

/// How the operator works inside containers: `Auto`, `Console` or `Ssh`. Default: `Auto`.
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
pub enum Transport {
    /// The console, and SSH where the console is in use, is refused, or shows no shell.
    #[default]
    Auto,
    /// Proxmox's console only.
    Console,
    /// SSH only.
    Ssh,
    /// Written by a version that knows more.
    #[schemars(skip)]
    #[serde(other)]
    Unknown,
}

impl Transport {
    /// The console may be used.
    pub fn by_console(self) -> bool {
        self != Self::Ssh
    }

    /// SSH may be used.
    pub fn by_ssh(self) -> bool {
        matches!(self, Self::Auto | Self::Ssh)
    }
}

/// How often Proxmox is asked.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Polling {
    /// How often the whole fleet is polled, in one call. Default: `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// How often each container's configuration is compared with its spec. Default: `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Duration>,
}

/// What was found at a Hypervisor.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HypervisorStatus {
    /// The generation of the spec that this status speaks of; -1 until the first one was evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1, max = 9_007_199_254_740_991_i64))]
    pub observed_generation: Option<i64>,

    /// Proxmox VE's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub version: Option<String>,

    /// Which Proxmox this is. Nothing is changed at another one behind the same address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,

    /// The nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub nodes: Vec<NodeStatus>,

    /// The storages, per node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["node", "name"]))]
    pub storages: Vec<StorageStatus>,

    /// The NVIDIA GPUs, per node: those on the PCI bus, where the token may see that (`Sys.Audit` on `/`), and those that a container's
    /// driver told of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["node", "index"]))]
    pub gpus: Vec<HostGpuStatus>,

    /// Privileges that the token lacks, each with its path, such as `/vms: VM.Clone`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(max = 256)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub missing_privileges: Vec<String>,

    /// Texts for kubectl's columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display: Option<HypervisorDisplay>,

    /// What holds and what doesn't, `Ready` first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Which Proxmox this is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// SHA-256 fingerprint of the cluster's own certificate authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub ca_fingerprint: Option<String>,
    /// The names of the nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub node_names: Vec<String>,
}

/// A node of a Proxmox cluster.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node's name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Whether the cluster sees it.
    pub online: bool,
    /// Number of CPU cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub cores: Option<i64>,
    /// Memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
    /// When it was booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub booted_at: Option<Time>,
}

/// A storage, as one node sees it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StorageStatus {
    /// The node's name.
    #[schemars(length(max = 63))]
    pub node: String,
    /// The storage's name.
    #[schemars(length(max = 128))]
    pub name: String,
    /// Proxmox's type of the storage, such as `zfspool`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub type_: Option<String>,
    /// Whether templates on it can be cloned without a copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linked_clones: Option<bool>,
    /// Whether it is one for all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<bool>,
    /// Its whole size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Quantity>,
}

/// A GPU of a node.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HostGpuStatus {
    /// The node's name.
    #[schemars(length(max = 63))]
    pub node: String,
    /// The GPU's index: the number in `/dev/nvidia<index>`. As long as no container's driver has told the `uuid`, it is a guess: the
    /// place in the order of PCI addresses, by which the driver numbers them as a rule.
    #[schemars(range(min = 0, max = 255))]
    pub index: i64,
    /// Its address on the PCI bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub pci_address: Option<String>,
    /// The model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub name: Option<String>,
    /// Its identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub uuid: Option<String>,
    /// Its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
    /// The version of the node's NVIDIA driver, as seen from a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub driver: Option<String>,
    /// Whether it is held `Shared` or `Exclusive`; absent while nobody holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub sharing: Option<String>,
    /// Who holds it, as `Kind namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 400)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub held_by: Vec<String>,
}

/// Texts for kubectl's columns, which can neither count nor format.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HypervisorDisplay {
    /// The nodes that are online, of all, such as `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub nodes: Option<String>,
    /// The GPUs that are held, of all that are known, such as `1/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub gpus: Option<String>,
    /// The number of containers that belong to objects here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub containers: Option<String>,
}
