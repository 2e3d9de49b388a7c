//! Faults, locks, and people who edit behind one's back.

use std::time::Duration;

use proxmox_simulator::{
    CallEffect, Durations, Fault, Simulator, SimulatorConfig, TaskEffect, Timing,
};
use serde_json::json;

use super::client::{Client, simulator};

#[tokio::test]
async fn calls_fail_as_asked_before_or_after_their_effect() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    let put = || operator.try_call("PUT", "/nodes/pve/lxc/100/config", &[("cores", "3")]);
    simulator.inject(Fault::call("PUT", "/config", CallEffect::ResetBefore));
    assert!(put().await.is_err());
    assert!(
        operator.config(100).await.get("cores").is_none(),
        "nothing was done"
    );
    simulator.inject(Fault::call("PUT", "/config", CallEffect::ResetAfter));
    assert!(put().await.is_err());
    assert_eq!(operator.config(100).await["cores"], 3, "it was done");
    simulator.inject(Fault::call("PUT", "/config", CallEffect::TimeoutAfter));
    let answer = operator
        .put("/nodes/pve/lxc/100/config", &[("cores", "4")])
        .await;
    assert_eq!(
        (answer.status, answer.reason.as_str(), answer.text.as_str()),
        (596, "Connection timed out", "")
    );
    assert_eq!(operator.config(100).await["cores"], 4);
    simulator.inject(Fault::call(
        "GET",
        "/version",
        CallEffect::Status {
            code: 500,
            reason: "cluster not ready - no quorum?".to_owned(),
        },
    ));
    assert_eq!(
        operator.get("/version").await.reason,
        "cluster not ready - no quorum?"
    );
    assert_eq!(operator.get("/version").await.status, 200, "once is once");
    let begun = std::time::Instant::now();
    simulator.inject(Fault::call(
        "GET",
        "/version",
        CallEffect::Delay { seconds: 0.1 },
    ));
    operator.get("/version").await;
    assert!(begun.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_failed_clone_cleans_up_and_a_killed_one_leaves_its_locks() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(900, &[]).await;
    operator.seal(900).await;
    let clone = |id: &'static str| {
        let operator = operator.clone();
        async move {
            operator
                .task("POST", "/nodes/pve/lxc/900/clone", &[("newid", id)])
                .await
        }
    };
    simulator.inject(Fault::task(
        "vzclone",
        TaskEffect::Fail {
            text: "zfs error: cannot create 'tank/subvol-901-disk-0': out of space".to_owned(),
        },
    ));
    assert_eq!(
        clone("901").await,
        "clone failed: zfs error: cannot create 'tank/subvol-901-disk-0': out of space"
    );
    assert!(!simulator.containers().contains_key(&901));
    assert_eq!(simulator.containers()[&900].lock, None);
    assert_eq!(simulator.problems(), Vec::<String>::new());

    simulator.inject(Fault::task("vzclone", TaskEffect::Kill).of(900));
    assert_eq!(clone("901").await, "unexpected status");
    let containers = simulator.containers();
    assert_eq!(
        (
            containers[&900].lock.as_deref(),
            containers[&901].lock.as_deref()
        ),
        (Some("disk"), Some("create"))
    );
    assert!(!containers[&901].config.contains_key("rootfs"));
    assert_eq!(
        operator
            .post("/nodes/pve/lxc/900/clone", &[("newid", "902")])
            .await
            .reason,
        "CT is locked (disk)"
    );
    assert_eq!(
        operator.delete("/nodes/pve/lxc/901").await.reason,
        "CT is locked (create)"
    );
    assert!(
        !simulator.problems().is_empty(),
        "the model knows what a killed worker leaves"
    );
    simulator.unlock(900).unwrap();
    simulator.unlock(901).unwrap();
    assert_eq!(
        operator
            .task(
                "DELETE",
                "/nodes/pve/lxc/901?destroy-unreferenced-disks=1",
                &[]
            )
            .await,
        "OK"
    );
    assert_eq!(clone("902").await, "OK");
    assert_eq!(simulator.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn locks_refuse_at_once_or_in_the_task() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    simulator.set_lock(100, "snapshot").unwrap();
    let path = |rest: &str| format!("/nodes/pve/lxc/100{rest}");
    for (method, rest, form) in [
        ("PUT", "/config", &[("cores", "1")][..]),
        ("PUT", "/resize", &[("disk", "rootfs"), ("size", "+1G")]),
        ("POST", "/clone", &[("newid", "101")]),
        ("POST", "/template", &[]),
        ("DELETE", "", &[]),
    ] {
        let answer = operator.call(method, &path(rest), form).await;
        assert_eq!(
            (answer.status, answer.reason.as_str()),
            (500, "CT is locked (snapshot)"),
            "{method} {rest}"
        );
    }
    assert_eq!(
        operator.task("POST", &path("/status/start"), &[]).await,
        "CT is locked (snapshot)"
    );
    assert_eq!(
        operator
            .task("POST", &path("/snapshot"), &[("snapname", "s1")])
            .await,
        "CT is locked (snapshot)"
    );
    simulator.set_lock(100, "mounted").unwrap();
    assert_eq!(
        operator.task("POST", &path("/status/start"), &[]).await,
        "OK",
        "mounted doesn't block a start"
    );
    simulator.unlock(100).unwrap();
    let held = simulator.hold_flock(100).await.unwrap();
    let answer = operator.put(&path("/config"), &[("cores", "1")]).await;
    assert_eq!(
        answer.reason,
        "can't lock file '/run/lock/lxc/pve-config-100.lock' - got timeout"
    );
    drop(held);
    assert_eq!(
        operator
            .put(&path("/config"), &[("cores", "1")])
            .await
            .status,
        200
    );
}

fn slow() -> SimulatorConfig {
    let durations = Durations {
        linked_clone: Duration::from_millis(300),
        create: Duration::from_millis(300),
        bytes_per_second: 1e12,
        ..Durations::default()
    };
    SimulatorConfig {
        timing: Timing {
            tasks: 1.0,
            waits: 0.01,
            durations,
        },
        ..SimulatorConfig::default()
    }
}

#[tokio::test]
async fn while_a_clone_runs_source_and_target_are_locked() {
    let mut config = slow();
    config.timing.tasks = 0.0;
    let simulator = Simulator::start(config).await.unwrap();
    let operator = Client::operator(&simulator);
    operator.create(900, &[]).await;
    operator.seal(900).await;
    simulator.inject(Fault::task("vzclone", TaskEffect::Slow { seconds: 0.3 }));
    let upid = operator
        .post("/nodes/pve/lxc/900/clone", &[("newid", "901")])
        .await
        .body["data"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        operator
            .post("/nodes/pve/lxc/900/clone", &[("newid", "902")])
            .await
            .reason,
        "CT is locked (disk)"
    );
    assert_eq!(
        operator
            .put("/nodes/pve/lxc/901/config", &[("cores", "1")])
            .await
            .reason,
        "CT is locked (create)"
    );
    assert_eq!(
        operator.delete("/nodes/pve/lxc/901?force=1").await.reason,
        "CT is locked (create)"
    );
    assert_eq!(
        operator
            .task("POST", "/nodes/pve/lxc/901/status/start", &[])
            .await,
        "CT is locked (create)"
    );
    assert_eq!(
        operator.get("/cluster/nextid?vmid=901").await.body["errors"]["vmid"],
        "VM 901 already exists"
    );
    let active = operator.get("/nodes/pve/tasks?source=active").await.body["data"].clone();
    assert_eq!(
        (&active[0]["type"], &active[0]["status"]),
        (&"vzclone".into(), &"RUNNING".into())
    );
    assert_eq!(operator.follow(&upid).await, "OK");
    assert_eq!(simulator.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn a_running_task_can_be_stopped() {
    let simulator = Simulator::start(slow()).await.unwrap();
    let operator = Client::operator(&simulator);
    simulator.inject(Fault::task("vzcreate", TaskEffect::Hang));
    let answer = operator
        .post(
            "/nodes/pve/lxc",
            &[
                ("vmid", "100"),
                (
                    "ostemplate",
                    "local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst",
                ),
                ("rootfs", "lxc-disks:8"),
            ],
        )
        .await;
    let upid = answer.body["data"].as_str().unwrap().to_owned();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(
        simulator.config_text(100).as_deref(),
        Some("lock: create\n")
    );
    assert_eq!(
        operator
            .delete(&format!("/nodes/pve/tasks/{upid}"))
            .await
            .text,
        r#"{"data":null}"#
    );
    assert_eq!(
        operator.follow(&upid).await,
        "unable to create CT 100 - interrupted by signal"
    );
    assert!(simulator.containers().is_empty());
    assert_eq!(simulator.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn storages_and_clusters_fail_too() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    simulator.set_storage_full("lxc-disks", true).unwrap();
    assert_eq!(
        operator.create(101, &[]).await,
        "unable to create CT 101 - zfs error: cannot create 'tank/subvol-101-disk-0': out of space"
    );
    let full = operator
        .task("POST", "/nodes/pve/lxc/100/snapshot", &[("snapname", "s1")])
        .await;
    assert_eq!(
        full,
        "zfs error: cannot create snapshot 'tank/subvol-100-disk-0@s1': out of space"
    );
    assert_eq!(
        simulator.containers()[&100].lock,
        None,
        "a failed snapshot cleans up"
    );
    simulator.set_storage_full("lxc-disks", false).unwrap();
    simulator
        .set_busy("lxc-disks", "subvol-100-disk-0", true)
        .unwrap();
    let busy = operator.task("DELETE", "/nodes/pve/lxc/100", &[]).await;
    assert_eq!(
        busy,
        "zfs error: cannot unmount '/tank/subvol-100-disk-0': pool or dataset is busy"
    );
    assert_eq!(
        simulator.containers()[&100].lock,
        None,
        "and so does a failed destroy"
    );
    simulator.set_quorate(false);
    assert_eq!(
        operator
            .post("/nodes/pve/lxc/100/status/start", &[])
            .await
            .reason,
        "cluster not ready - no quorum?"
    );
}

#[tokio::test]
async fn people_do_things_without_a_task() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    simulator
        .create_foreign(150, "somebody-elses")
        .await
        .unwrap();
    assert_eq!(operator.config(150).await["hostname"], "somebody-elses");
    let digest = operator.config(150).await["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    simulator.edit_config(150, "memory", Some("4096")).unwrap();
    assert_eq!(operator.config(150).await["memory"], 4096);
    let late = operator
        .put(
            "/nodes/pve/lxc/150/config",
            &[("cores", "1"), ("digest", &digest)],
        )
        .await;
    assert_eq!(
        late.reason,
        "detected modified configuration - file changed by other user? Try again."
    );
    operator
        .task("POST", "/nodes/pve/lxc/150/status/start", &[])
        .await;
    simulator.power_off(150).await.unwrap();
    assert!(!simulator.containers()[&150].running);
    simulator.delete_container(150).await.unwrap();
    assert_eq!(
        operator.get("/nodes/pve/lxc/150/config").await.reason,
        "Configuration file 'nodes/pve/lxc/150.conf' does not exist"
    );
    assert_eq!(simulator.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn the_admin_port_does_it_from_outside() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    let http = plain();
    let admin = simulator.admin_url();
    let post = |path: &str, body: serde_json::Value| {
        http.post(format!("{admin}{path}")).json(&body).send()
    };
    for (mishap, status) in [
        (json!({"make": {"vmid": 150, "hostname": "foreign"}}), 200),
        (json!({"lock": {"vmid": 150, "lock": "backup"}}), 200),
        (json!({"lock": {"vmid": 151, "lock": "backup"}}), 400),
        (json!({"lock": {"vmid": 150, "lock": "x", "more": 1}}), 422),
        (json!({"nosuch": {}}), 422),
    ] {
        let answer = post("/mishaps", mishap.clone()).await.unwrap();
        assert_eq!(answer.status(), status, "{mishap}");
    }
    assert_eq!(operator.config(150).await["lock"], "backup");
    assert_eq!(post("/faults", json!({"call": {"path": "/version", "effect": {"status": {"code": 595, "reason": "No route to host"}}, "times": 1}})).await.unwrap().status(), 200);
    assert_eq!(operator.get("/version").await.status, 595);
    let state: serde_json::Value = http
        .get(format!("{admin}/state"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(
        state["containers"]["150"]
            .as_str()
            .unwrap()
            .contains("lock: backup")
    );
}

fn plain() -> reqwest::Client {
    let tls = rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(rustls::RootCertStore::empty())
    .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .build()
        .unwrap()
}
