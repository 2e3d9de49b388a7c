//! `LxcTemplate`: a layer of the hierarchy, set up once and sealed for others to clone.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, IntoStaticStr};

use crate::lxc::LxcSpec;
use crate::status::LxcStatus;

/// What the template shall be.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "phoenix-hypervisor.io",
    version = "v1alpha1",
    kind = "LxcTemplate",
    plural = "lxctemplates",
    shortname = "lxct",
    category = "phoenix",
    namespaced,
    doc = "A layer of the hierarchy: a container that is built once, set up, and sealed into a snapshot that others clone.",
    status = "LxcStatus",
    derive = "PartialEq",
    selectable = ".status.hypervisor",
    selectable = ".status.vmid"
)]
#[serde(rename_all = "camelCase")]
pub struct LxcTemplateSpec {
    /// What both Lxc kinds share.
    #[serde(flatten)]
    pub shared: LxcSpec,

    /// How the template is sealed once it is set up. Can't be changed once it is.
    pub snapshot: SnapshotSpec,
}

/// How a template is sealed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotSpec {
    /// The name that clones use for the sealed state, such as `base-snapshot`: a letter, then up to 39 letters, digits, `_` or `-`.
    #[schemars(
        length(min = 2, max = 40),
        regex(pattern = r"^[A-Za-z][A-Za-z0-9_-]{1,39}$")
    )]
    pub name: String,

    /// `Linked`: converted into a Proxmox template, of which each clone takes a second and no space. `Full`: a stopped
    /// container with a snapshot, of which each clone is a full copy. `Auto` (the default): by the storage of its volumes.
    #[serde(default)]
    pub strategy: Strategy,
}

/// How a template is sealed and cloned.
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
pub enum Strategy {
    /// By the storage of the template's volumes.
    #[default]
    Auto,
    /// Converted into a Proxmox template, whose clones share its blocks.
    Linked,
    /// A stopped container with a snapshot, whose clones are copies.
    Full,
    /// Written by a version that knows more.
    #[schemars(skip)]
    #[serde(other)]
    Unknown,
}
