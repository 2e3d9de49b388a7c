//! What a Hypervisor lets namespaced objects ask for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What objects may ask for. What is inherited from a template was judged there.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Allowed {
    /// Storages for root file systems and volumes, beside `defaults.storage`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(
            length(min = 2, max = 63),
            regex(pattern = r"^[A-Za-z][A-Za-z0-9._-]*[A-Za-z0-9]$")
        )
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub storages: Vec<String>,

    /// Bridges, beside `defaults.bridge`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 15), regex(pattern = r"^[a-zA-Z0-9_.-]+$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub bridges: Vec<String>,

    /// Networks that static addresses have to be in, IPv4 and IPv6, such as `10.0.0.0/24`. Left out: any address. `dhcp`
    /// and `auto` are always allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 4, max = 49)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub addresses: Vec<String>,

    /// Proxmox's resource pools, beside `defaults.pool`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(
            length(min = 1, max = 128),
            regex(pattern = r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+){0,2}$")
        )
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub pools: Vec<String>,

    /// Directories of the nodes that may be mounted, such as `/srv/models` or `/srv/*`; `*` stands for any characters of
    /// one path segment, and what is below is not included. Left out: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(
            length(min = 2, max = 255),
            regex(pattern = r"^(/[A-Za-z0-9._@+~*-]+)+$")
        )
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub host_paths: Vec<String>,

    /// Device nodes that may be given, such as `/dev/net/tun` or `/dev/dri/renderD*`; `*` as in `hostPaths`. GPUs have a
    /// switch of their own. Left out: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(
            length(min = 6, max = 255),
            regex(pattern = r"^/dev(/[A-Za-z0-9._@+:*-]+)+$")
        )
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub devices: Vec<String>,

    /// Whether containers may be privileged: root in one is root on the node. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privileged: Option<bool>,

    /// Whether containers may have GPUs. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<bool>,
}
