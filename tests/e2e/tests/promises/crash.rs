//! Killed at any moment, the operator goes on from what Proxmox says: one container each, one run of each setup.

use std::time::{Duration, Instant};

use phoenix_crds::{LxcContainer, LxcTemplate};
use proxmox_simulator::{
    SimulatorConfig, Timing,
    guest::{GuestSettings, GuestTiming},
};
use serde_json::json;

use crate::stage::{Settings, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_that_is_killed_again_and_again_builds_each_container_once() {
    // slow enough that kills fall into tasks, boots and setups
    let guests = GuestTiming {
        boot: Duration::from_millis(300),
        ..GuestTiming::default()
    };
    let simulator = SimulatorConfig {
        timing: Timing::tenth_of_real(),
        guests: Some(GuestSettings { timing: guests }),
        ..SimulatorConfig::default()
    };
    let mut stage = Stage::raise(
        "crash",
        Settings {
            simulator,
            ..Settings::default()
        },
    )
    .await;
    let script = |layer: &str| json!({"script": format!("#!/bin/sh\nset -eu\necho {layer} >> /etc/runs\nsleep 1\n"), "verify": "test -s /etc/runs"});
    stage
        .template("base", json!({"vmid": 900, "setup": script("base")}))
        .await;
    stage
        .container("top", "base", json!({"vmid": 901, "setup": script("top")}))
        .await;

    // each time a little later, so that another step is hit
    let began = Instant::now();
    for pause in (150..).step_by(170).take(14) {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        stage.kill_operator().await;
        stage.start_operator();
        assert!(began.elapsed() < Duration::from_secs(90));
    }
    stage.ready::<LxcTemplate>("base").await;
    stage.ready::<LxcContainer>("top").await;

    assert_eq!(
        stage
            .simulator
            .containers()
            .keys()
            .copied()
            .collect::<Vec<_>>(),
        [900, 901]
    );
    assert_eq!(stage.simulator.problems(), Vec::<String>::new());
    // a build that was interrupted as it was created is made anew; a setup that began is never begun again
    let runs = stage
        .simulator
        .guests()
        .unwrap()
        .read_file(901, "/etc/runs")
        .unwrap();
    assert_eq!(runs, "base\ntop\n");
}
