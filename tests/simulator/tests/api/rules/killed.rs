//! Workers that are killed, early or late, and what they leave.

use std::time::Duration;

use proxmox_simulator::{Fault, Simulator, SimulatorConfig, TaskEffect, Timing};

use super::super::client::{Client, simulator};

#[tokio::test]
async fn a_create_killed_before_its_system_is_known_leaves_a_lock_and_an_orphan() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    simulator.inject(Fault::task("vzcreate", TaskEffect::Kill));
    assert_eq!(operator.create(100, &[]).await, "unexpected status");
    assert_eq!(
        simulator.config_text(100).as_deref(),
        Some("lock: create\n")
    );
    assert!(
        simulator.zfs_list().contains("tank/subvol-100-disk-0"),
        "an orphan"
    );
    simulator.unlock(100).unwrap();
    let plain = operator.task("DELETE", "/nodes/pve/lxc/100", &[]).await;
    assert_eq!(plain, "OK");
    assert!(
        simulator.zfs_list().contains("tank/subvol-100-disk-0"),
        "nobody owned it"
    );
    assert_eq!(
        operator.create(100, &[]).await,
        "OK",
        "the next free number is taken"
    );
    assert_eq!(
        operator.config(100).await["rootfs"],
        "lxc-disks:subvol-100-disk-1,size=8G"
    );
}

#[tokio::test]
async fn a_create_killed_later_leaves_an_unlocked_container_without_its_defaults() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    simulator.inject(Fault::task("vzcreate", TaskEffect::KillLate));
    assert_eq!(operator.create(100, &[]).await, "unexpected status");
    let config = operator.config(100).await;
    assert_eq!(config["ostype"], "ubuntu", "its system was found out");
    assert_eq!(config["rootfs"], "lxc-disks:subvol-100-disk-0,size=8G");
    for key in ["lock", "hostname", "memory", "swap"] {
        assert!(config.get(key).is_none(), "{key}");
    }
    assert_eq!(
        operator.task("DELETE", "/nodes/pve/lxc/100", &[]).await,
        "OK"
    );
    assert_eq!(simulator.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn a_clone_killed_late_names_its_volumes_and_keeps_both_locks() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(900, &[]).await;
    operator.seal(900).await;
    simulator.inject(Fault::task("vzclone", TaskEffect::KillLate));
    let exit = operator
        .task("POST", "/nodes/pve/lxc/900/clone", &[("newid", "901")])
        .await;
    assert_eq!(exit, "unexpected status");
    let containers = simulator.containers();
    assert_eq!(containers[&900].lock.as_deref(), Some("disk"));
    assert_eq!(containers[&901].lock.as_deref(), Some("create"));
    assert_eq!(
        containers[&901].config["rootfs"],
        "lxc-disks:basevol-900-disk-0/subvol-901-disk-0,size=8G"
    );
    for vmid in [900, 901] {
        simulator.unlock(vmid).unwrap();
    }
    assert_eq!(
        operator.task("DELETE", "/nodes/pve/lxc/901", &[]).await,
        "OK"
    );
    assert_eq!(simulator.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn a_destroy_killed_late_leaves_the_lock_that_says_so() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    simulator.inject(Fault::task("vzdestroy", TaskEffect::KillLate));
    assert_eq!(
        operator.task("DELETE", "/nodes/pve/lxc/100", &[]).await,
        "unexpected status"
    );
    assert_eq!(operator.config(100).await["lock"], "destroyed");
    assert!(!simulator.zfs_list().contains("subvol-100"));
    assert_eq!(
        operator.delete("/nodes/pve/lxc/100").await.reason,
        "CT is locked (destroyed)"
    );
}

#[tokio::test]
async fn a_snapshot_killed_while_it_is_made_says_prepare_and_cannot_be_gone_back_to() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    simulator.inject(Fault::task("vzsnapshot", TaskEffect::KillLate));
    let path = "/nodes/pve/lxc/100/snapshot";
    let form = [("snapname", "s1")];
    assert_eq!(
        operator.task("POST", path, &form).await,
        "unexpected status"
    );
    let entry = operator.get(path).await.body["data"][0].clone();
    assert_eq!(entry["snapstate"], "prepare");
    assert_eq!(operator.config(100).await["lock"], "snapshot");
    simulator.unlock(100).unwrap();
    assert_eq!(
        operator
            .task("POST", &format!("{path}/s1/rollback"), &[])
            .await,
        "unable to rollback to incomplete snapshot (snapstate = prepare)"
    );
    assert_eq!(
        operator
            .task("DELETE", &format!("{path}/s1?force=1"), &[])
            .await,
        "OK"
    );
    assert_eq!(simulator.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn a_snapshot_that_is_half_deleted_goes_by_force_after_an_unlock() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    let path = "/nodes/pve/lxc/100/snapshot";
    operator.task("POST", path, &[("snapname", "s1")]).await;
    simulator.inject(Fault::task("vzdelsnapshot", TaskEffect::KillLate));
    let delete = format!("{path}/s1");
    assert_eq!(
        operator.task("DELETE", &delete, &[]).await,
        "unexpected status"
    );
    let entry = operator.get(path).await.body["data"][0].clone();
    assert_eq!(entry["snapstate"], "delete");
    let config = operator.get(&format!("{delete}/config")).await.body["data"].clone();
    assert!(config.get("rootfs").is_none(), "its disk is gone from it");
    assert_eq!(
        operator.task("DELETE", &delete, &[]).await,
        "CT is locked (snapshot-delete)"
    );
    simulator.unlock(100).unwrap();
    let forced = format!("{delete}?force=1");
    assert_eq!(operator.task("DELETE", &forced, &[]).await, "OK");
    assert_eq!(
        operator.get(path).await.body["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(simulator.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn a_rollback_killed_late_keeps_its_lock() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    let path = "/nodes/pve/lxc/100/snapshot";
    operator.task("POST", path, &[("snapname", "s1")]).await;
    simulator.inject(Fault::task("vzrollback", TaskEffect::KillLate));
    let rollback = format!("{path}/s1/rollback");
    assert_eq!(
        operator.task("POST", &rollback, &[]).await,
        "unexpected status"
    );
    assert_eq!(operator.config(100).await["lock"], "rollback");
}

/// A pace at which a stopped task gets half a second to clean up.
async fn real_waits() -> Simulator {
    let timing = Timing {
        waits: 0.1,
        ..Timing::instant()
    };
    let config = SimulatorConfig {
        timing,
        ..SimulatorConfig::default()
    };
    Simulator::start(config).await.unwrap()
}

#[tokio::test]
async fn a_full_clone_that_is_stopped_cleans_up() {
    let simulator = real_waits().await;
    let operator = Client::operator(&simulator);
    operator.create(900, &[]).await;
    simulator.inject(Fault::task("vzclone", TaskEffect::Hang));
    let answer = operator
        .post("/nodes/pve/lxc/900/clone", &[("newid", "901")])
        .await;
    let upid = answer.body["data"].as_str().unwrap().to_owned();
    tokio::time::sleep(Duration::from_millis(50)).await;
    operator.delete(&format!("/nodes/pve/tasks/{upid}")).await;
    assert_eq!(
        operator.follow(&upid).await,
        "clone failed: interrupted by signal"
    );
    assert!(!simulator.containers().contains_key(&901));
    assert_eq!(simulator.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn a_stopped_task_is_killed_when_its_cleaning_up_takes_too_long() {
    let simulator = real_waits().await;
    let operator = Client::operator(&simulator);
    operator.create(900, &[]).await;
    simulator.inject(Fault::task("vzclone", TaskEffect::Stuck));
    let answer = operator
        .post("/nodes/pve/lxc/900/clone", &[("newid", "901")])
        .await;
    let upid = answer.body["data"].as_str().unwrap().to_owned();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = std::time::Instant::now();
    operator.delete(&format!("/nodes/pve/tasks/{upid}")).await;
    assert!(
        begun.elapsed() >= Duration::from_millis(500),
        "five seconds"
    );
    assert_eq!(operator.follow(&upid).await, "unexpected status");
    let containers = simulator.containers();
    assert_eq!(containers[&900].lock.as_deref(), Some("disk"));
    assert_eq!(containers[&901].lock.as_deref(), Some("create"));
}
