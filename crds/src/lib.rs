//! The API of the Phoenix Hypervisor operator: the Rust types of `Hypervisor`, `LxcTemplate` and `LxcContainer`, and the
//! `CustomResourceDefinition`s that are generated from them.
//!
//! Decides what a user may write, what is refused before it is stored, and what status looks like. Leaves out what any
//! of it means for Proxmox: that is the controller's plan. Nothing here does IO.
//!
//! Two rules hold for every type:
//! - what has been stored can be read back: integers are bounded far inside their Rust type, enums have an `Unknown`
//!   variant that isn't part of the schema, and no type denies unknown fields;
//! - what a clone inherits, or a hypervisor defaults, is an `Option` without a default in the CRD, so that "left out" and
//!   "set to the default" stay different things.

pub mod allowed;
pub mod bounds;
pub mod conditions;
pub mod container;
pub mod crd;
pub mod duration;
pub mod hypervisor;
pub mod lxc;
pub mod mounts;
pub mod network;
pub mod probe;
pub mod quantity;
pub mod reference;
pub mod rules;
pub mod service;
pub mod setup;
pub mod status;
pub mod template;
pub mod vllm;

mod columns;
mod schema;

pub use bounds::fit_status;
pub use conditions::{ConditionType, Reason};
pub use container::{LxcContainer, LxcContainerSpec, PowerState};
pub use crd::{crds, to_yaml};
pub use duration::Duration;
pub use hypervisor::{Hypervisor, HypervisorSpec, HypervisorStatus};
pub use lxc::{Lxc, LxcSpec, Sharing, Source};
pub use quantity::Quantity;
pub use status::LxcStatus;
pub use template::{LxcTemplate, LxcTemplateSpec, Strategy};

/// The API group of all kinds.
pub const GROUP: &str = "phoenix-hypervisor.io";
/// The one version served.
pub const VERSION: &str = "v1alpha1";
/// The category that `kubectl get phoenix` lists.
pub const CATEGORY: &str = "phoenix";
/// The finalizer on every object that has, or may have, something behind it in Proxmox.
pub const FINALIZER: &str = "phoenix-hypervisor.io/finalizer";

/// Annotation of a user: `"true"` stops every write to Proxmox and to the guest for this object.
pub const ANNOTATION_PAUSED: &str = "phoenix-hypervisor.io/paused";
