//! Whole-system tests, one module a promise: a real control plane, the simulated Proxmox VE, the operator in a process of its own.
//!
//! One control plane serves all; each test has a simulator, a namespace, a Hypervisor and an operator of its own, so that they don't see
//! each other.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in the functions that its cases share"
)]

mod documented;
mod link;
mod stage;

mod bad_input;
mod chain;
mod crash;
mod drift;
mod gpus;
mod hosts;
mod mounts;
mod phoenix;
mod placement;
mod replicas;
mod rules;
mod service;
mod serving;
mod setup;
mod ssh;
mod trouble;

/// Not a test: in a process that was started to be the operator, this is its `main`.
#[test]
fn operator_process() {
    if let Some(ended) = phoenix_lab::operator::become_operator() {
        assert_eq!(
            format!("{ended:?}"),
            format!("{:?}", std::process::ExitCode::SUCCESS),
            "the operator failed"
        );
    }
}
