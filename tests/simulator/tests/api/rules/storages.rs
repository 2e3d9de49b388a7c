//! Storages that are full, away or hang.

use std::time::{Duration, Instant};

use proxmox_simulator::{Mishap, Simulator, SimulatorConfig, Timing};

use super::super::client::{Client, simulator};

const STORAGE: &str = "lxc-disks";

#[tokio::test]
async fn a_full_storage_fails_each_task_in_its_own_words() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(200, &[]).await;
    operator.create(900, &[]).await;
    operator.seal(900).await;
    let full = Mishap::StorageFull {
        storage: STORAGE.to_owned(),
        full: true,
    };
    simulator.suffer(full).await.unwrap();
    assert_eq!(
        operator.create(101, &[]).await,
        "unable to create CT 101 - zfs error: cannot create 'tank/subvol-101-disk-0': out of space"
    );
    let clone = [("newid", "101")];
    let copied = operator
        .task("POST", "/nodes/pve/lxc/200/clone", &clone)
        .await;
    assert!(
        copied.starts_with("clone failed: command 'rsync ")
            && copied.ends_with("' failed: exit code 11"),
        "{copied}"
    );
    assert_eq!(
        operator
            .task("POST", "/nodes/pve/lxc/900/clone", &clone)
            .await,
        "clone failed: zfs error: cannot create 'tank/subvol-101-disk-0': out of space"
    );
    assert_eq!(
        operator
            .task("POST", "/nodes/pve/lxc/200/snapshot", &[("snapname", "s1")])
            .await,
        "zfs error: cannot create snapshot 'tank/subvol-200-disk-0@s1': out of space"
    );
    let containers = simulator.containers();
    assert!(!containers.contains_key(&101));
    assert!(
        containers
            .values()
            .all(|container| container.lock.is_none())
    );
    assert!(containers[&200].snapshots.is_empty());
    assert_eq!(simulator.problems(), Vec::<String>::new());
    let status = operator.get("/nodes/pve/storage/lxc-disks/status").await;
    assert_eq!(status.body["data"]["avail"], 0);
}

#[tokio::test]
async fn a_storage_that_is_away_is_told() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    let away = Mishap::StorageOnline {
        storage: STORAGE.to_owned(),
        online: false,
    };
    simulator.suffer(away).await.unwrap();
    let form = [
        ("vmid", "101"),
        (
            "ostemplate",
            "local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst",
        ),
        ("rootfs", "lxc-disks:8"),
    ];
    let told = "storage 'lxc-disks' is not online";
    let create = operator.post("/nodes/pve/lxc", &form).await;
    assert_eq!((create.status, create.reason.as_str()), (500, told));
    assert_eq!(
        operator
            .task("POST", "/nodes/pve/lxc/100/status/start", &[])
            .await,
        told
    );
    let status = operator
        .get("/nodes/pve/storage/lxc-disks/status")
        .await
        .body["data"]
        .clone();
    assert_eq!(
        (&status["active"], &status["total"]),
        (&0.into(), &0.into())
    );
    let rows = operator.get("/cluster/resources?type=storage").await.body["data"].clone();
    let row = rows
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["storage"] == STORAGE)
        .unwrap();
    assert_eq!(row["status"], "unknown");
}

#[tokio::test]
async fn a_storage_that_hangs_holds_up_answers_and_statistics() {
    let simulator = Simulator::start(SimulatorConfig {
        timing: Timing {
            waits: 0.1,
            ..Timing::instant()
        },
        ..SimulatorConfig::default()
    })
    .await
    .unwrap();
    let operator = Client::operator(&simulator);
    let hang = |hung| Mishap::StorageHung {
        storage: STORAGE.to_owned(),
        hung,
    };
    simulator.suffer(hang(true)).await.unwrap();
    let begun = Instant::now();
    operator.get("/nodes/pve/storage").await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let begun = Instant::now();
    operator.get("/nodes/pve/storage/local/status").await;
    assert!(begun.elapsed() < Duration::from_millis(900));
    operator.create(100, &[]).await;
    operator
        .task("POST", "/nodes/pve/lxc/100/status/start", &[])
        .await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let status = |operator: Client| async move {
        operator.get("/cluster/resources?type=vm").await.body["data"][0]["status"].clone()
    };
    assert_eq!(status(operator.clone()).await, "unknown", "no round came");
    simulator.suffer(hang(false)).await.unwrap();
    for _ in 0..500 {
        if status(operator.clone()).await == "running" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(status(operator.clone()).await, "running");
}
