//! A simulated Proxmox VE: its API over HTTPS as the real one answers, for containers (LXC).
//!
//! It keeps the state of a cluster (nodes, ZFS and other storages, containers with their configuration files, tasks, users and rights) and does to it
//! what a real one does: the same checks in the same order, the same texts, locks and tasks. What it doesn't do it says (`501 … is not simulated`).
//! It shares no code with any client, so that one misreading of the API can't hide on both sides.
//!
//! [`Simulator::start`] gives a running one with a handle for tests: what was called, what tasks there were, what `zfs list` shows; faults; and the
//! hand of a human administrator. With [`SimulatorConfig::guests`] a real shell runs inside each container.

mod admin;
mod api;
mod auth;
mod calls;
mod config;
mod console;
mod core;
mod era;
mod fault;
pub mod guest;
mod guests;
mod http;
mod human;
mod mishap;
mod model;
mod phoenix;
mod placed;
mod recorded;
mod reply;
pub mod schema;
mod simulator;
mod tls;
mod worker;

pub use calls::CallRecord;
pub use config::{
    AclShape, Durations, Gpu, HostFacts, HostShape, NodeShape, SimulatorConfig, StorageKind,
    StorageShape, TemplateShape, Timing, TokenShape, UserShape,
};
pub use fault::{CallEffect, Fault, TaskEffect};
pub use mishap::Mishap;
pub use simulator::{ContainerRecord, Credentials, Simulator, TaskRecord};
