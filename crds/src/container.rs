//! `LxcContainer`: a container that runs.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, IntoStaticStr};

use crate::lxc::LxcSpec;
use crate::probe::Probe;
use crate::service::ContainerService;
use crate::status::LxcStatus;
use crate::vllm::Vllm;

/// What the container shall be.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "phoenix-hypervisor.io",
    version = "v1alpha1",
    kind = "LxcContainer",
    plural = "lxccontainers",
    shortname = "lxcc",
    category = "phoenix",
    namespaced,
    doc = "A container that runs: cloned from a template or created from an OS template, set up, and probed.",
    status = "LxcStatus",
    derive = "PartialEq",
    selectable = ".status.hypervisor",
    selectable = ".status.vmid"
)]
#[serde(rename_all = "camelCase")]
pub struct LxcContainerSpec {
    /// What both Lxc kinds share.
    #[serde(flatten)]
    pub shared: LxcSpec,

    /// Whether the container runs: `Running` (the default) or `Stopped`.
    #[serde(default)]
    pub power_state: PowerState,

    /// A vLLM server inside the container. Ready then means that the model answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vllm: Option<Vllm>,

    /// An HTTP request that must be answered before the container is Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,

    /// A Service in the object's namespace that leads pods to the ports of `vllm` and `probe`, while the container is ready.
    /// `{}` is enough. Left out: none, and one that was made is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ContainerService>,
}

/// Whether a container runs.
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
pub enum PowerState {
    /// It runs.
    #[default]
    Running,
    /// It is stopped.
    Stopped,
    /// Written by a version that knows more.
    #[schemars(skip)]
    #[serde(other)]
    Unknown,
}
