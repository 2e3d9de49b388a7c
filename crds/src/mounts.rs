//! What a container has beside its root file system: volumes, directories of the node, and device nodes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;

/// A volume, or a directory of the node, at a path in the container.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Where it is in the container, such as `/data`. Unique in the list.
    #[schemars(
        length(min = 2, max = 255),
        regex(pattern = r"^(/[A-Za-z0-9._@+~-]+)+$")
    )]
    pub path: String,

    /// Size of a volume, a whole number of GiB, such as `100Gi`. It can grow while the container runs, never shrink. Either this or `hostPath`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Quantity>,

    /// Storage of a volume, used when it is made. Left out: the Hypervisor's `defaults.storage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 2, max = 63),
        regex(pattern = r"^[A-Za-z][A-Za-z0-9._-]*[A-Za-z0-9]$")
    )]
    pub storage: Option<String>,

    /// Whether Proxmox's backups take the volume along. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<bool>,

    /// A directory of the node, such as `/fastData/models`, within the Hypervisor's `allowed.hostPaths`. Needs root's
    /// password in the Hypervisor's Secret. An unprivileged container can write only what belongs to uid 100000 and up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 2, max = 255),
        regex(pattern = r"^(/[A-Za-z0-9._@+~-]+)+$")
    )]
    pub host_path: Option<String>,

    /// Whether the container can only read it. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}

/// A device node of the node that the container may use.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// The device node, such as `/dev/dri/renderD128`, within the Hypervisor's `allowed.devices`. Unique in the list.
    #[schemars(
        length(min = 6, max = 255),
        regex(pattern = r"^/dev(/[A-Za-z0-9._@+:-]+)+$")
    )]
    pub path: String,

    /// Its permissions in the container, octal, such as `0666`. Proxmox's default: `0660`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 4, max = 4), regex(pattern = r"^0[0-7]{3}$"))]
    pub mode: Option<String>,

    /// The user in the container that owns it. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65_535))]
    pub uid: Option<i64>,

    /// The group in the container that owns it. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65_535))]
    pub gid: Option<i64>,

    /// Whether the container can only read from it. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny_write: Option<bool>,
}
