//! More than one node, statistics that come late, and the pace of time.

use std::time::Duration;

use proxmox_simulator::{HostShape, NodeShape, Simulator, SimulatorConfig, Timing};

use super::client::{Client, simulator};

#[tokio::test]
async fn one_node_is_down_and_the_other_tells_of_it() {
    let mut host = HostShape::phoenix();
    let second = NodeShape {
        name: "pve2".to_owned(),
        address: [10, 0, 0, 11].into(),
        ..NodeShape::phoenix()
    };
    host.nodes.push(second);
    let simulator = Simulator::start(SimulatorConfig {
        host,
        ..SimulatorConfig::default()
    })
    .await
    .unwrap();
    let operator = Client::operator(&simulator);
    let form = [
        ("vmid", "100"),
        (
            "ostemplate",
            "local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst",
        ),
        ("rootfs", "lxc-disks:8"),
    ];
    let upid = operator.post("/nodes/pve2/lxc", &form).await.body["data"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(upid.starts_with("UPID:pve2:"));
    assert!(simulator.idle(Duration::from_secs(5)).await);
    assert_eq!(operator.get("/nodes/pve2/lxc/100/config").await.status, 200);
    let elsewhere = operator.get("/nodes/pve/lxc/100/config").await;
    assert_eq!(
        elsewhere.reason,
        "Configuration file 'nodes/pve/lxc/100.conf' does not exist"
    );
    assert_eq!(
        operator
            .get(&format!("/nodes/pve/tasks/{upid}/status"))
            .await
            .body["errors"]["upid"],
        "no such task"
    );
    assert_eq!(
        operator.post("/nodes/pve/lxc", &form).await.reason,
        "CT 100 already exists on node 'pve2'"
    );
    simulator.set_online("pve2", false).unwrap();
    let down = operator.get("/nodes/pve2/lxc/100/config").await;
    assert_eq!(
        (down.status, down.reason.as_str()),
        (595, "No route to host")
    );
    let root = Client::login(&simulator, "root@pam").await;
    let status = root.get("/cluster/status").await.body["data"].clone();
    assert_eq!(
        (
            &status[0]["quorate"],
            &status[2]["name"],
            &status[2]["online"]
        ),
        (&1.into(), &"pve2".into(), &0.into())
    );
    let nodes = operator.get("/nodes").await.body["data"].clone();
    assert_eq!(nodes[1]["status"], "offline");
}

#[tokio::test]
async fn figures_get_old_when_the_statistics_hang() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    simulator.set_statistics_hang(true);
    operator.create(100, &[]).await;
    operator
        .task("POST", "/nodes/pve/lxc/100/status/start", &[])
        .await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    let row = operator.get("/cluster/resources?type=vm").await.body["data"][0].clone();
    assert_eq!((&row["status"], row.get("name")), (&"unknown".into(), None));
    simulator.set_statistics_hang(false);
    tokio::time::sleep(Duration::from_millis(250)).await;
    let row = operator.get("/cluster/resources?type=vm").await.body["data"][0].clone();
    assert_eq!(row["status"], "running");
}

#[tokio::test]
async fn simulated_time_runs_at_the_pace_asked_for() {
    let config = SimulatorConfig {
        timing: Timing::tenth_of_real(),
        ..SimulatorConfig::default()
    };
    let simulator = Simulator::start(config).await.unwrap();
    let operator = Client::operator(&simulator);
    operator.create(900, &[]).await;
    operator.seal(900).await;
    operator
        .task("POST", "/nodes/pve/lxc/900/clone", &[("newid", "901")])
        .await;
    operator
        .task("POST", "/nodes/pve/lxc/901/status/start", &[])
        .await;
    let took = |kind: &str| {
        simulator
            .tasks()
            .iter()
            .find(|task| task.kind == kind)
            .and_then(|task| task.seconds)
            .unwrap()
    };
    let (clone, start) = (took("vzclone"), took("vzstart"));
    assert!(
        (0.2..0.4).contains(&clone),
        "a linked clone takes 0.2 s, not {clone}"
    );
    assert!(
        (0.5..0.8).contains(&start),
        "a start takes 0.5 s, not {start}"
    );
}
