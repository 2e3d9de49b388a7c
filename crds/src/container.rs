//! `LxcContainer`: a container that runs.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, IntoStaticStr};

use crate::lxc::LxcSpec;
use crate::probe::Probe;
use crate::status::LxcStatus;
use crate::vllm::Vllm;

/// A container that runs: cloned from a template or created from an OS template, set up, and probed.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
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
    printcolumn(name = "VMID", type_ = "integer", json_path = ".status.vmid"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.node"),
    printcolumn(
        name = "Source",
        type_ = "string",
        json_path = ".status.display.source"
    ),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "GPUs", type_ = "string", json_path = ".status.display.gpus"),
    printcolumn(name = "vLLM", type_ = "string", json_path = ".status.display.vllm"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
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
    #[default]
    Running,
    Stopped,
    #[schemars(skip)]
    #[serde(other)]
    Unknown,
}
