//! The status that both Lxc kinds share.
//!
//! A report, never a memory: everything in it can be found again in Proxmox, in the guest or in the spec, but for the
//! choice of Hypervisor and VMID, which is written here before it is used. Only what a person or a program acts on: load
//! and usage are metrics.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, IntoStaticStr};

use crate::lxc::{Features, Resources, Rootfs};
use crate::mounts::Mount;
use crate::network::{Dns, NetworkInterface};
use crate::quantity::Quantity;
use crate::schema;

/// What the operator found and did.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LxcStatus {
    /// The generation of the spec that this status speaks of; -1 until the first one was evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1, max = 9_007_199_254_740_991_i64))]
    pub observed_generation: Option<i64>,

    /// The Hypervisor that hosts the container: resolved once, then kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub hypervisor: Option<String>,

    /// The container's number in Proxmox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 999_999_999))]
    pub vmid: Option<i64>,

    /// The node where the container is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub node: Option<String>,

    /// The node that the operator chose for the container, and why; absent where spec, source or Hypervisor said which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,

    /// How far the container is, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::word")]
    pub state: Option<State>,

    /// The container's addresses, without prefix length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 45)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<String>,

    /// Short hash over what shaped the container's disk, as of an image's layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub revision: Option<String>,

    /// What the container was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStatus>,

    /// The Proxmox task that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskStatus>,

    /// The steps ahead, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 1024)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub plan: Vec<String>,

    /// The latest run of the setup script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<SetupStatus>,

    /// What the operator's SSH connections to the container go by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<SshStatus>,

    /// What stands behind the template's snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotStatus>,

    /// The values in use that the spec left out: inherited from the source or defaulted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,

    /// The GPUs that the container holds: from before its start until it is stopped or, of a template, sealed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["index"]))]
    pub gpus: Vec<GpuStatus>,

    /// The vLLM server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vllm: Option<VllmStatus>,

    /// Texts for kubectl's columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display: Option<LxcDisplay>,

    /// What holds and what doesn't, `Ready` first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// What the operator's SSH connections to a container go by.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SshStatus {
    /// SHA-256 fingerprint of the one host key that is accepted, such as `SHA256:…`: read over the console or within SSH once the
    /// container had keys of its own. Removed from here, the next one is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub host_key_fingerprint: Option<String>,
}

/// How far a container is, in one word.
#[derive(
    Serialize, Deserialize, Display, IntoStaticStr, Clone, Copy, Debug, PartialEq, Eq, Hash,
)]
pub enum State {
    /// Nothing was done yet.
    Pending,
    /// It is being created or cloned.
    Creating,
    /// Its configuration is being brought in line with the spec.
    Configuring,
    /// It is starting.
    Starting,
    /// Its setup script runs.
    SettingUp,
    /// It is being stopped and sealed.
    Sealing,
    /// It is sealed, ready to be cloned.
    Sealed,
    /// It runs.
    Running,
    /// It is stopped.
    Stopped,
    /// It is being deleted.
    Deleting,
    /// It went wrong, and a person has to look: see the conditions.
    Failed,
    /// Written by a version that knows more.
    #[serde(other)]
    Unknown,
}

/// A node that was chosen once, before the container was made; nothing moves by itself afterwards.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// The node.
    #[schemars(length(max = 63))]
    pub node: String,
    /// Why this one, and why not the others.
    #[schemars(length(max = 4096))]
    pub reason: String,
}

/// What a container was made from.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// The template's name, or the OS template's volume ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub template: Option<String>,
    /// The name of the template's snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub snapshot: Option<String>,
    /// The template's revision that was cloned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub revision: Option<String>,
}

/// A Proxmox task that is under way.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TaskStatus {
    /// Proxmox's identifier of the task.
    #[schemars(length(max = 512))]
    pub upid: String,
    /// Proxmox's type of the task, such as `vzclone`.
    #[serde(rename = "type")]
    #[schemars(length(max = 63))]
    pub type_: String,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub started_at: Option<Time>,
    /// How far it is, in Proxmox's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub progress: Option<String>,
}

/// A run of the setup script.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SetupStatus {
    /// Number of the attempt, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub attempt: Option<i64>,
    /// When the attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub finished_at: Option<Time>,
    /// The script's exit code, or that of `verify` where the script itself succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1, max = 255))]
    pub exit_code: Option<i64>,
    /// The last lines of its output, at most 4 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub last_lines: Option<String>,
}

/// What stands behind a template's snapshot.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotStatus {
    /// The name that clones use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub name: Option<String>,
    /// How it is sealed: `Linked` or `Full`, never `Auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub strategy: Option<String>,
    /// The root volume, such as `lxc-disks:basevol-900-disk-0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub volume: Option<String>,
    /// The ZFS snapshot that clones are made of, such as `basevol-900-disk-0@__base__`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub zfs_snapshot: Option<String>,
    /// When it was sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub created_at: Option<Time>,
}

/// The values in use that a spec left out.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Resolved {
    /// The host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub hostname: Option<String>,
    /// CPU and memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// The root file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<Rootfs>,
    /// The volumes and directories of the node that are mounted, inherited ones included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"]))]
    pub mounts: Vec<Mount>,
    /// The network interfaces, with the bridge and gateway in use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub network: Vec<NetworkInterface>,
    /// Name resolution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// Abilities beyond the ordinary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Features>,
    /// Whether root inside is an ordinary user on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unprivileged: Option<bool>,
}

/// A GPU that a container holds.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GpuStatus {
    /// The GPU's index on the node.
    #[schemars(range(min = 0, max = 255))]
    pub index: i64,
    /// The GPU's identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub uuid: Option<String>,
    /// The GPU's model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub name: Option<String>,
    /// The GPU's memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
    /// The version of the NVIDIA driver's libraries in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub driver_version: Option<String>,
    /// Whether others may hold the GPU at the same time: `Shared` or `Exclusive`. Absent where it was never given the GPU and runs with
    /// its device all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub sharing: Option<String>,
}

/// What is known of a vLLM server.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VllmStatus {
    /// How far the server is, in one word: the reason of `VllmReady`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub state: Option<String>,
    /// The base address of its API, such as `http://10.0.0.150:8000/v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub endpoint: Option<String>,
    /// The names of the models that it serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 512)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub models: Vec<String>,
    /// vLLM's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub version: Option<String>,
    /// Since when it is serving without a break.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub ready_since: Option<Time>,
    /// Hash over the unit and environment that it runs with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub args_hash: Option<String>,
}

/// Texts for kubectl's columns, which can neither join nor format.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LxcDisplay {
    /// The source, short: the template's name, or the OS template's distribution and release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub source: Option<String>,
    /// The GPUs' indices, such as `0,1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub gpus: Option<String>,
    /// The model and port of vLLM, such as `qwen3-coder (8000)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub vllm: Option<String>,
}
