//! Hosts that are not as the one that was recorded: an older Proxmox VE, and one of whose nodes goes.

use phoenix_crds::{LxcContainer, LxcTemplate};
use proxmox_simulator::{HostShape, SimulatorConfig};
use serde_json::json;

use crate::stage::{Settings, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxmox_8_4_is_led_by_what_it_knows() {
    // no `message` in errors, privileged unless told otherwise, no console for tokens, no devices while running, newer keys refused
    let settings = Settings::default();
    let simulator = SimulatorConfig {
        host: HostShape::phoenix_8_4(),
        ..settings.simulator.clone()
    };
    let stage = Stage::raise(
        "proxmox-8-4",
        Settings {
            simulator,
            password: true,
            ..settings
        },
    )
    .await;
    let setup =
        |layer: &str| json!({"script": format!("#!/bin/sh\necho {layer} >> /etc/layers\n")});
    stage
        .template("base", json!({"vmid": 900, "setup": setup("base")}))
        .await;
    let top = json!({"vmid": 901, "setup": setup("top"), "gpus": {"indices": [0]}, "rootfs": {"size": "6Gi"}});
    stage.container("top", "base", top).await;
    stage.ready::<LxcTemplate>("base").await;
    let hypervisor = stage
        .hypervisors()
        .get(&stage.name)
        .await
        .unwrap()
        .status
        .unwrap();
    assert_eq!(hypervisor.version.as_deref(), Some("8.4.1"));
    // the card is given; that the driver in this bare container shows none is said, as it should be
    stage
        .reason::<LxcContainer>("top", "GpuAllocated", "NotVisible")
        .await;
    let containers = stage.simulator.containers();
    assert_eq!(
        containers[&900]
            .config
            .get("unprivileged")
            .map(String::as_str),
        Some("1")
    );
    assert!(
        containers[&901]
            .config
            .values()
            .any(|v| v.contains("/dev/nvidia0"))
    );
    let layers = stage
        .simulator
        .guests()
        .unwrap()
        .read_file(901, "/etc/layers");
    assert_eq!(layers.as_deref(), Some("base\ntop\n"));
    let refused: Vec<String> = stage
        .simulator
        .calls()
        .iter()
        .filter(|c| c.code == 400 && !c.path.contains("nextid"))
        .map(|c| format!("{} {}", c.method, c.path))
        .collect();
    assert_eq!(
        refused,
        Vec::<String>::new(),
        "nothing was sent that it doesn't know"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_without_quorum_is_waited_for() {
    let stage = Stage::raise("no-quorum", Settings::without_guests()).await;
    stage.template("base", json!({"vmid": 900})).await;
    stage.ready::<LxcTemplate>("base").await;
    stage.simulator.set_quorate(false);
    stage.template("late", json!({"vmid": 901})).await;
    let told = stage
        .reason::<LxcTemplate>("late", "HypervisorReady", "Unreachable")
        .await;
    assert!(told.message.contains("quorum"), "{}", told.message);
    assert_eq!(
        stage
            .simulator
            .containers()
            .keys()
            .copied()
            .collect::<Vec<_>>(),
        [900]
    );
    stage.simulator.set_quorate(true);
    stage.ready::<LxcTemplate>("late").await;
}
