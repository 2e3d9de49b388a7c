//! A client for the part of the Proxmox VE API that LXC containers need.
//!
//! What it decides: whom to trust (`trust`), which endpoint to ask (`hosts`), how a call travels and when it may be
//! repeated (`transport`), who asks (`auth`), what an answer means (`endpoints`, `error`, `classify`). Each layer knows only
//! those beneath it; the console goes over transport and auth.
//!
//! What it leaves out: every decision about a container's life. It never waits for a task, never repeats a write, and
//! knows nothing of Kubernetes.

mod auth;
mod call;
mod classify;
mod client;
mod config;
mod console;
mod endpoints;
mod envelope;
mod error;
mod hosts;
mod params;
mod property;
mod size;
mod transport;
mod trust;
mod upid;
mod volume;
mod wire;

pub use classify::classify_task_exit;
pub use client::{CallObserver, Client, ClientConfig, Credentials, Timeouts};
pub use config::CtConfig;
pub use console::Console;
pub use endpoints::cluster::{
    ClusterStatus, ClusterStatusKind, Permissions, Resource, ResourceKind, Version,
};
pub use endpoints::container::{CtStatus, Interface, InterfaceAddress, PendingEntry};
pub use endpoints::node::{Certificate, Node, NodeStatus, PciDevice};
pub use endpoints::snapshot::Snapshot;
pub use endpoints::storage::{Storage, VolumeInfo};
pub use endpoints::task::{TaskListEntry, TaskState};
pub use error::{Error, ErrorKind};
pub use params::Params;
pub use property::PropertyString;
pub use secrecy::SecretString;
pub use size::{parse_size, render_gib};
pub use trust::{Fingerprint, Trust};
pub use upid::Upid;
pub use volume::Volume;
