//! Clients that others wrote, against the simulator: `proxmoxer` (Python) and `go-proxmox` (Go). Each leads a container through its life and prints
//! what it saw; here that is held against what is known of Proxmox VE and against the simulator's own state.
//!
//! The programs are in `tests/simulator/clients`. What they need is fetched when it is first needed and kept in the user's cache folder. Where a machine
//! can't have it (no Python, no Go, no registry) a test says that it is skipped; with `CI=true` it fails instead.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests say what they expect"
)]

mod kept;
mod life;
mod program;

use std::collections::BTreeMap;

use program::Program;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxmoxer_leads_a_container_through_its_life() {
    let refused = [
        (
            "absent",
            "500 Internal Server Error: Configuration file 'nodes/pve/lxc/999.conf' does not exist",
        ),
        (
            "invalid",
            "400 Bad Request: Parameter verification failed. - {'cores': \"type check ('integer') failed - got 'many'\"}",
        ),
        (
            "password",
            "Couldn't authenticate user: phoenix@pve to https://HOST/api2/json/access/ticket code: 401",
        ),
        (
            "stranger",
            "401 Unauthorized: Authentication failed! - {'errors': b''}",
        ),
        (
            "taken",
            "400 Bad Request: Parameter verification failed. - {'vmid': 'VM 200 already exists'}",
        ),
        (
            "unknown",
            "400 Bad Request: Parameter verification failed. - \
             {'nonsense': 'property is not defined in schema and the schema does not allow additional properties'}",
        ),
    ];
    with(Program::python, refused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_proxmox_leads_a_container_through_its_life() {
    let refused = [
        (
            "absent",
            "500 Configuration file 'nodes/pve/lxc/999.conf' does not exist",
        ),
        (
            "invalid",
            "bad request: 400 Parameter verification failed. - {\"cores\":\"type check ('integer') failed - got 'many'\"}",
        ),
        ("password", "not authorized to access endpoint"),
        ("stranger", "not authorized to access endpoint"),
        (
            "taken",
            "bad request: 400 Parameter verification failed. - {\"vmid\":\"VM 200 already exists\"}",
        ),
        (
            "unknown",
            "bad request: 400 Parameter verification failed. - \
             {\"nonsense\":\"property is not defined in schema and the schema does not allow additional properties\"}",
        ),
    ];
    with(Program::go, refused).await;
}

async fn with<const N: usize>(
    provide: fn() -> anyhow::Result<Program>,
    refused: [(&str, &str); N],
) {
    let provided = tokio::task::spawn_blocking(provide).await.unwrap();
    if let Some(program) = program::or_skipped(provided) {
        life::check(&program, BTreeMap::from(refused)).await;
    }
}
