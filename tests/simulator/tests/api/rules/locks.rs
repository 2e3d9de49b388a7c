//! Who holds a container off for how long, and who comes second to a VMID.

use std::time::{Duration, Instant};

use proxmox_simulator::{
    AclShape, Fault, HostShape, Mishap, Simulator, SimulatorConfig, TaskEffect, Timing,
};

use super::super::client::{Client, simulator};

const TEMPLATE: (&str, &str) = (
    "ostemplate",
    "local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst",
);

#[tokio::test]
async fn a_lock_file_is_waited_for_ten_seconds_and_by_creates_five() {
    let simulator = Simulator::start(SimulatorConfig {
        timing: Timing {
            waits: 0.2,
            ..Timing::instant()
        },
        ..SimulatorConfig::default()
    })
    .await
    .unwrap();
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    for vmid in [100, 101] {
        let hold = Mishap::HoldFlock {
            vmid,
            seconds: 60.0,
        };
        simulator.suffer(hold).await.unwrap();
    }
    let timed_out =
        |vmid| format!("can't lock file '/run/lock/lxc/pve-config-{vmid}.lock' - got timeout");
    let begun = Instant::now();
    let form = [("vmid", "101"), TEMPLATE, ("rootfs", "lxc-disks:8")];
    let create = operator.post("/nodes/pve/lxc", &form).await;
    let waited = begun.elapsed();
    assert_eq!(
        create.reason,
        format!("unable to create CT 101 - {}", timed_out(101))
    );
    assert!(
        waited >= Duration::from_secs(1) && waited < Duration::from_millis(1900),
        "{waited:?}"
    );
    let begun = Instant::now();
    let start = operator
        .task("POST", "/nodes/pve/lxc/100/status/start", &[])
        .await;
    assert_eq!(start, timed_out(100), "in the task");
    assert!(begun.elapsed() >= Duration::from_secs(2));
    let put = operator
        .put("/nodes/pve/lxc/100/config", &[("cores", "1")])
        .await;
    assert_eq!(put.reason, timed_out(100), "at once");
    assert!(
        operator.config(100).await.get("cores").is_none(),
        "nothing changed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_second_to_a_vmid_is_told_so() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(900, &[]).await;
    operator.seal(900).await;
    let calls = (0..8).map(|number| {
        let operator = operator.clone();
        tokio::spawn(async move {
            if number % 2 == 0 {
                let form = [("newid", "105"), ("hostname", "clone")];
                operator.post("/nodes/pve/lxc/900/clone", &form).await
            } else {
                let form = [("vmid", "105"), TEMPLATE, ("rootfs", "lxc-disks:8")];
                operator.post("/nodes/pve/lxc", &form).await
            }
        })
    });
    let mut won = 0;
    for call in calls.collect::<Vec<_>>() {
        let answer = call.await.unwrap();
        won += usize::from(answer.status == 200);
        assert!(
            answer.status == 200
                || answer
                    .reason
                    .ends_with("CT 105 already exists on node 'pve'")
                || answer.reason == "CT is locked (disk)"
                || answer.reason.ends_with("got timeout"),
            "{}",
            answer.reason
        );
    }
    assert_eq!(won, 1);
    assert!(simulator.idle(Duration::from_secs(5)).await);
    assert!(simulator.containers().contains_key(&105));
    assert_eq!(simulator.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn a_clone_joins_its_pool_last() {
    let mut host = HostShape::phoenix();
    host.pools.push("k8s".to_owned());
    host.acl.push(AclShape {
        path: "/pool/k8s".to_owned(),
        who: "phoenix@pve".to_owned(),
        privileges: vec!["VM.Allocate".to_owned(), "Pool.Audit".to_owned()],
        propagate: true,
    });
    let simulator = Simulator::start(SimulatorConfig {
        host,
        ..SimulatorConfig::default()
    })
    .await
    .unwrap();
    let operator = Client::operator(&simulator);
    operator.create(900, &[]).await;
    operator.seal(900).await;
    simulator.inject(Fault::task("vzclone", TaskEffect::Slow { seconds: 0.3 }));
    let form = [("newid", "901"), ("pool", "k8s")];
    let answer = operator.post("/nodes/pve/lxc/900/clone", &form).await;
    let upid = answer.body["data"].as_str().unwrap().to_owned();
    assert!(
        upid.contains(":vzclone:900:"),
        "a clone's task has its source's id: {upid}"
    );
    let pool = |operator: Client| async move {
        operator.get("/cluster/resources?type=vm").await.body["data"]
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["vmid"] == 901)
            .and_then(|row| row["pool"].as_str().map(str::to_owned))
    };
    assert_eq!(pool(operator.clone()).await, None, "not while it's made");
    assert_eq!(operator.follow(&upid).await, "OK");
    assert_eq!(pool(operator.clone()).await.as_deref(), Some("k8s"));
}

#[tokio::test]
async fn every_kind_of_lock_stays_until_somebody_unlocks() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    for lock in [
        "create",
        "disk",
        "snapshot",
        "snapshot-delete",
        "rollback",
        "destroyed",
        "backup",
    ] {
        let lock = lock.to_owned();
        let left = Mishap::Lock {
            vmid: 100,
            lock: lock.clone(),
        };
        simulator.suffer(left).await.unwrap();
        for _ in 0..2 {
            let answer = operator
                .put("/nodes/pve/lxc/100/config", &[("cores", "1")])
                .await;
            assert_eq!(answer.reason, format!("CT is locked ({lock})"));
        }
        let start = operator
            .task("POST", "/nodes/pve/lxc/100/status/start", &[])
            .await;
        assert_eq!(start, format!("CT is locked ({lock})"));
    }
    simulator
        .suffer(Mishap::Unlock { vmid: 100 })
        .await
        .unwrap();
    let answer = operator
        .put("/nodes/pve/lxc/100/config", &[("cores", "1")])
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn long_tasks_hold_the_lock_file_or_the_lock_in_the_configuration() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    let timed_out = "can't lock file '/run/lock/lxc/pve-config-100.lock' - got timeout";
    let slow = TaskEffect::Slow { seconds: 0.8 };
    let create = [("vmid", "100"), TEMPLATE, ("rootfs", "lxc-disks:8")];
    for (kind, path, form, told) in [
        ("vzcreate", "/nodes/pve/lxc", &create[..], timed_out),
        (
            "vzsnapshot",
            "/nodes/pve/lxc/100/snapshot",
            &[("snapname", "s1")],
            "CT is locked (snapshot)",
        ),
        (
            "vzrollback",
            "/nodes/pve/lxc/100/snapshot/s1/rollback",
            &[],
            "CT is locked (rollback)",
        ),
        ("vzstart", "/nodes/pve/lxc/100/status/start", &[], timed_out),
        (
            "vzshutdown",
            "/nodes/pve/lxc/100/status/shutdown",
            &[],
            timed_out,
        ),
    ] {
        simulator.inject(Fault::task(kind, slow.clone()));
        let answer = operator.post(path, form).await;
        let upid = answer.body["data"].as_str().unwrap().to_owned();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let put = operator
            .put("/nodes/pve/lxc/100/config", &[("cores", "2")])
            .await;
        assert_eq!((put.status, put.reason.as_str()), (500, told), "{kind}");
        assert_eq!(
            operator.get("/nodes/pve/lxc/100/config").await.status,
            200,
            "{kind}: reads don't wait"
        );
        assert_eq!(operator.follow(&upid).await, "OK", "{kind}");
        let put = operator
            .put("/nodes/pve/lxc/100/config", &[("cores", "2")])
            .await;
        assert_eq!(put.status, 200, "{kind}: free again");
    }
}
