//! Nodes that reboot or are lost, and containers that are elsewhere.

use std::time::Duration;

use proxmox_simulator::{
    Fault, HostShape, Mishap, NodeShape, Simulator, SimulatorConfig, StorageKind, StorageShape,
    TaskEffect,
};

use super::super::client::{Client, simulator};

async fn two_nodes() -> Simulator {
    let mut host = HostShape::phoenix();
    host.nodes.push(NodeShape {
        name: "pve2".to_owned(),
        address: [10, 0, 0, 11].into(),
        ..NodeShape::phoenix()
    });
    host.storages.push(StorageShape {
        id: "nas".to_owned(),
        kind: StorageKind::Nfs {
            server: "nas.lan".to_owned(),
            export: "/export".to_owned(),
        },
        content: vec!["rootdir".to_owned()],
        total: 1 << 42,
        templates: Vec::new(),
    });
    Simulator::start(SimulatorConfig {
        host,
        ..SimulatorConfig::default()
    })
    .await
    .unwrap()
}

fn move_to(vmid: u32, node: &str) -> Mishap {
    Mishap::Move {
        vmid,
        node: node.to_owned(),
    }
}

#[tokio::test]
async fn a_node_that_reboots_kills_its_tasks_and_keeps_their_locks() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[("onboot", "1")]).await;
    operator.create(101, &[]).await;
    operator.create(200, &[]).await;
    for vmid in [100, 101] {
        let path = format!("/nodes/pve/lxc/{vmid}/status/start");
        operator.task("POST", &path, &[]).await;
    }
    simulator.inject(Fault::task("vzclone", TaskEffect::Hang));
    let answer = operator
        .post("/nodes/pve/lxc/200/clone", &[("newid", "201")])
        .await;
    let upid = answer.body["data"].as_str().unwrap().to_owned();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let reboot = Mishap::RebootNode {
        node: "pve".to_owned(),
        seconds: 1.0,
    };
    simulator.suffer(reboot).await.unwrap();
    let status = format!("/nodes/pve/tasks/{upid}/status");
    let away = operator.get(&status).await;
    assert_eq!(
        (away.status, away.reason.as_str()),
        (595, "No route to host")
    );
    for _ in 0..500 {
        if operator.get("/nodes/pve/status").await.status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(operator.follow(&upid).await, "unexpected status");
    assert!(simulator.idle(Duration::from_secs(5)).await);
    let containers = simulator.containers();
    assert!(containers[&100].running, "it starts at boot");
    assert!(!containers[&101].running);
    assert_eq!(containers[&200].lock.as_deref(), Some("disk"));
    assert_eq!(containers[&201].lock.as_deref(), Some("create"));
}

#[tokio::test]
async fn figures_of_a_lost_node_are_unknown_after_five_minutes() {
    let simulator = two_nodes().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    simulator.suffer(move_to(100, "pve2")).await.unwrap();
    let mut there = operator.clone();
    "pve2".clone_into(&mut there.node);
    there
        .task("POST", "/nodes/pve2/lxc/100/status/start", &[])
        .await;
    let row = |operator: Client, id: &'static str| async move {
        operator.get("/cluster/resources").await.body["data"]
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["id"] == id)
            .cloned()
            .unwrap()
    };
    for _ in 0..100 {
        if row(operator.clone(), "lxc/100").await["status"] == "running" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    simulator.set_online("pve2", false).unwrap();
    assert_eq!(
        row(operator.clone(), "node/pve2").await["status"],
        "offline",
        "at once"
    );
    assert_eq!(row(operator.clone(), "lxc/100").await["status"], "running");
    simulator
        .suffer(Mishap::AgeStatistics { seconds: 290 })
        .await
        .unwrap();
    assert_eq!(row(operator.clone(), "lxc/100").await["status"], "running");
    simulator
        .suffer(Mishap::AgeStatistics { seconds: 20 })
        .await
        .unwrap();
    assert_eq!(row(operator.clone(), "lxc/100").await["status"], "unknown");
}

#[tokio::test]
async fn a_container_that_somebody_moved_is_missed_on_its_old_node() {
    let simulator = two_nodes().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    simulator.suffer(move_to(100, "pve2")).await.unwrap();
    let old = operator.get("/nodes/pve/lxc/100/config").await;
    assert_eq!(
        (old.status, old.reason.as_str()),
        (
            500,
            "Configuration file 'nodes/pve/lxc/100.conf' does not exist"
        )
    );
    let rows = operator.get("/cluster/resources?type=vm").await.body["data"].clone();
    assert_eq!(
        (&rows[0]["vmid"], &rows[0]["node"]),
        (&100.into(), &"pve2".into())
    );
    assert_eq!(operator.get("/nodes/pve2/lxc/100/config").await.status, 200);
    assert!(simulator.suffer(move_to(100, "nowhere")).await.is_err());
    assert!(simulator.suffer(move_to(999, "pve")).await.is_err());
}

#[tokio::test]
async fn the_contacted_node_makes_consoles_wherever_the_container_is() {
    let simulator = two_nodes().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    simulator.suffer(move_to(100, "pve2")).await.unwrap();
    let answer = operator.post("/nodes/pve2/lxc/100/termproxy", &[]).await;
    let upid = answer.body["data"]["upid"].as_str().unwrap();
    assert!(upid.starts_with("UPID:pve:"), "{upid}");
}

#[tokio::test]
async fn a_copy_goes_to_another_node_from_shared_storage_to_shared_storage_only() {
    let simulator = two_nodes().await;
    let root = Client::login(&simulator, "root@pam").await;
    root.create(100, &[]).await;
    root.create(200, &[("rootfs", "nas:1")]).await;
    let copy = |source: u32, more: &'static [(&'static str, &'static str)]| {
        let form = [&[("newid", "300"), ("full", "1"), ("target", "pve2")], more].concat();
        let path = format!("/nodes/pve/lxc/{source}/clone");
        let root = &root;
        async move { root.post(&path, &form).await }
    };
    let local = "can't clone CT to node 'pve2' (CT uses local storage)";
    assert_eq!(copy(100, &[]).await.reason, local);
    assert_eq!(copy(100, &[("storage", "nas")]).await.reason, local);
    assert_eq!(
        copy(200, &[("storage", "lxc-disks")]).await.reason,
        "can't clone to non-shared storage 'lxc-disks'"
    );
    let form = [("newid", "300"), ("full", "1"), ("target", "pve2")];
    root.task("POST", "/nodes/pve/lxc/200/clone", &form).await;
    let made = &simulator.containers()[&300];
    assert_eq!((made.node.as_str(), made.lock.as_deref()), ("pve2", None));
    assert_eq!(simulator.problems(), Vec::<String>::new());
}
