//! Starting, stopping, and what is said of a container meanwhile.

use std::time::Duration;

use proxmox_simulator::Mishap;

use super::client::{Client, simulator};

#[tokio::test]
async fn some_errors_come_at_once_and_some_in_the_task() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    for (path, reason) in [
        ("stop", "CT 999 not running"),
        ("shutdown", "CT 999 not running"),
        ("reboot", "VM 999 not running"),
        ("suspend", "CT 999 not running"),
    ] {
        assert_eq!(
            operator
                .post(&format!("/nodes/pve/lxc/999/status/{path}"), &[])
                .await
                .reason,
            reason
        );
    }
    let missing = "Configuration file 'nodes/pve/lxc/999.conf' does not exist";
    assert_eq!(
        operator
            .task("POST", "/nodes/pve/lxc/999/status/start", &[])
            .await,
        missing
    );
    assert_eq!(
        operator
            .task("POST", "/nodes/pve/lxc/999/snapshot", &[("snapname", "s1")])
            .await,
        missing
    );
    assert_eq!(
        operator.get("/nodes/pve/lxc/999/interfaces").await.text,
        r#"{"data":null}"#
    );
    assert_eq!(
        operator
            .get("/nodes/pve/lxc/999/status/current")
            .await
            .reason,
        missing
    );
}

#[tokio::test]
async fn a_container_goes_up_and_down() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(104, &[]).await;
    assert_eq!(
        operator
            .task("POST", "/nodes/pve/lxc/104/status/start", &[])
            .await,
        "OK"
    );
    assert_eq!(
        operator
            .post("/nodes/pve/lxc/104/status/start", &[])
            .await
            .reason,
        "CT 104 already running"
    );
    let current = operator.get("/nodes/pve/lxc/104/status/current").await.body["data"].clone();
    assert_eq!(
        (&current["status"], &current["ha"]["managed"]),
        (&"running".into(), &0.into())
    );
    assert!(current["pid"].is_number());
    let interfaces = operator.get("/nodes/pve/lxc/104/interfaces").await.body["data"].clone();
    assert_eq!(
        (&interfaces[0]["name"], &interfaces[1]["inet"]),
        (&"lo".into(), &"10.0.0.200/24".into())
    );
    assert_eq!(
        operator.delete("/nodes/pve/lxc/104").await.reason,
        "unable to destroy CT 104 - container is running"
    );
    simulator.ignore_shutdown(104).unwrap();
    assert_eq!(
        operator
            .task(
                "POST",
                "/nodes/pve/lxc/104/status/shutdown",
                &[("timeout", "3")]
            )
            .await,
        "container did not stop"
    );
    assert!(simulator.containers()[&104].running);
    assert_eq!(
        operator
            .task(
                "POST",
                "/nodes/pve/lxc/104/status/shutdown",
                &[("timeout", "3"), ("forceStop", "1")]
            )
            .await,
        "OK"
    );
    assert!(!simulator.containers()[&104].running);
    operator
        .task("POST", "/nodes/pve/lxc/104/status/start", &[])
        .await;
    assert_eq!(
        operator
            .task("POST", "/nodes/pve/lxc/104/status/reboot", &[])
            .await,
        "OK"
    );
    assert!(simulator.containers()[&104].running);
    assert_eq!(
        operator
            .task("DELETE", "/nodes/pve/lxc/104?force=1&purge=1", &[])
            .await,
        "OK"
    );
    assert_eq!(
        simulator.tasks().last().unwrap().log,
        [
            "forced to stop CT 104 before destroying!",
            "purging CT 104 from related configurations..",
            "TASK OK"
        ]
    );
}

#[tokio::test]
async fn a_missing_directory_fails_the_start_with_the_reason_in_the_log() {
    let simulator = simulator().await;
    let root = Client::login(&simulator, "root@pam").await;
    root.create(104, &[]).await;
    assert_eq!(
        root.put(
            "/nodes/pve/lxc/104/config",
            &[("mp0", "/nosuchdir,mp=/data")]
        )
        .await
        .status,
        200
    );
    assert_eq!(
        root.task("POST", "/nodes/pve/lxc/104/status/start", &[])
            .await,
        "startup for container '104' failed"
    );
    assert!(
        simulator
            .tasks()
            .last()
            .unwrap()
            .log
            .iter()
            .any(|line| line.contains("lxc.hook.pre-start"))
    );
    let clone = root
        .post("/nodes/pve/lxc/104/clone", &[("newid", "105")])
        .await;
    assert_eq!(clone.reason, "unable to clone mountpoint 'mp0' (type bind)");
}

#[tokio::test]
async fn a_devices_absence_shows_at_the_start() {
    let simulator = simulator().await;
    let root = Client::login(&simulator, "root@pam").await;
    root.create(104, &[("dev0", "/dev/nvidia1,mode=0666")])
        .await;
    simulator.set_device("/dev/nvidia1", false);
    assert_eq!(
        root.task("POST", "/nodes/pve/lxc/104/status/start", &[])
            .await,
        "Device /dev/nvidia1 does not exist"
    );
    simulator.set_device("/dev/nvidia1", true);
    assert_eq!(
        root.task("POST", "/nodes/pve/lxc/104/status/start", &[])
            .await,
        "OK"
    );
    // after a boot until something uses the driver: all of them, and who asks for one by PUT is told the same
    let devices = |present| simulator.suffer(Mishap::NvidiaDevices { present });
    devices(false).await.unwrap();
    let put = [("dev1", "/dev/nvidia-uvm")];
    let refused = root.put("/nodes/pve/lxc/104/config", &put).await;
    assert_eq!(refused.reason, "Device /dev/nvidia-uvm does not exist");
    devices(true).await.unwrap();
    assert_eq!(
        root.put("/nodes/pve/lxc/104/config", &put).await.status,
        200
    );
}

#[tokio::test]
async fn resources_show_replicated_facts_at_once_and_figures_late() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    let row = |operator: Client| async move {
        operator.get("/cluster/resources?type=vm").await.body["data"][0].clone()
    };
    operator
        .create(100, &[("tags", "phoenix"), ("hostname", "late")])
        .await;
    let mut seen = row(operator.clone()).await;
    assert_eq!(seen["tags"], "phoenix");
    for _ in 0..100 {
        if seen["status"] == "stopped" && seen["name"] == "late" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        seen = row(operator.clone()).await;
    }
    assert_eq!(
        (&seen["status"], &seen["name"], &seen["template"]),
        (&"stopped".into(), &"late".into(), &0.into())
    );
    simulator.set_lock(100, "backup").unwrap();
    assert_eq!(
        row(operator.clone()).await["lock"],
        "backup",
        "locks show at once"
    );
    simulator.set_online("pve", false).unwrap();
    let offline = operator.get("/nodes/pve/lxc/100/config").await;
    assert_eq!(
        (
            offline.status,
            offline.reason.as_str(),
            offline.text.as_str()
        ),
        (595, "No route to host", "")
    );
    assert_eq!(
        row(operator.clone()).await["status"],
        "stopped",
        "the last broadcast lives on"
    );
}
