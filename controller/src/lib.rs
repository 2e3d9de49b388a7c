//! The Phoenix Hypervisor operator: it runs Proxmox VE LXC containers from custom resources.
//!
//! Start reading at [`engine`] (the one reconcile loop), then [`lxc`] (what both container kinds go through; the decisions stand in
//! `lxc/plan`). `ARCHITECTURE.md` has the map and the invariants.

mod by_uid;
pub mod cli;
pub mod condition;
pub mod context;
pub mod digest_key;
pub mod engine;
pub mod fault;
pub mod fleet;
pub mod guest;
mod hash;
pub mod hypervisor;
pub mod lease;
pub mod logs;
pub mod lxc;
pub mod memory;
pub mod probe;
pub mod prober;
mod run;
mod secrets;
pub mod server;
mod service;
pub mod sessions;
pub mod settings;
pub mod telemetry;
pub mod wake;

pub use run::run;
