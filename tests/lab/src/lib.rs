//! The lab: a real Kubernetes control plane (and, on top of it, a simulated Proxmox VE and the operator) on one machine,
//! without Docker and without root. The demo and the end-to-end tests stand on it.
//!
//! Decides how the parts are built, started and ended. Leaves out what they do: the control plane is Kubernetes' own,
//! the simulator and the operator are crates of their own.

pub mod controlplane;
pub mod demo;
pub mod gotool;
pub mod installation;
pub mod kubectl;
pub mod operator;

pub use controlplane::ControlPlane;
pub use kubectl::Kubectl;
