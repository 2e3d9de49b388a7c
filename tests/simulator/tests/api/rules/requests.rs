//! What happens to a request before and after its method: order of checks, workers, gateways, older hosts.

use std::time::{Duration, Instant};

use proxmox_simulator::{CallEffect, Fault, HostShape, Mishap, Simulator, SimulatorConfig, Timing};

use super::super::client::{Client, simulator};

#[tokio::test]
async fn parameters_are_checked_before_existence() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    let path = "/nodes/pve/lxc/999/config";
    let answer = operator.put(path, &[("nosuch", "1")]).await;
    assert_eq!(
        (answer.status, answer.reason.as_str()),
        (400, "Parameter verification failed.")
    );
    assert!(
        answer.body["errors"]["nosuch"]
            .as_str()
            .unwrap()
            .contains("not defined in schema")
    );
    let answer = operator.put(path, &[("cores", "1")]).await;
    assert_eq!(
        (answer.status, answer.reason.as_str()),
        (
            500,
            "Configuration file 'nodes/pve/lxc/999.conf' does not exist"
        )
    );
    simulator.revoke_privilege("/vms", "VM.Config.CPU");
    for privilege in ["Disk", "Memory", "Network", "Options"] {
        simulator.revoke_privilege("/vms", &format!("VM.Config.{privilege}"));
    }
    let answer = operator.put(path, &[("nosuch", "1")]).await;
    assert_eq!(answer.status, 403, "rights come before parameters");
}

#[tokio::test]
async fn an_old_host_says_what_is_wrong_in_the_status_line_alone() {
    let new = simulator().await;
    let path = "/nodes/pve/lxc/999/config";
    let answer = Client::operator(&new).get(path).await;
    assert_eq!(answer.body["message"], format!("{}\n", answer.reason));
    let old = Simulator::start(SimulatorConfig {
        host: HostShape::phoenix_8_4(),
        ..SimulatorConfig::default()
    })
    .await
    .unwrap();
    let operator = Client::operator(&old);
    assert_eq!(
        operator.get("/version").await.body["data"]["release"],
        "8.4"
    );
    let answer = operator.get(path).await;
    assert_eq!(
        (answer.status, answer.text.as_str()),
        (500, r#"{"data":null}"#)
    );
    assert_eq!(
        answer.reason,
        "Configuration file 'nodes/pve/lxc/999.conf' does not exist"
    );
    let refused = operator.put(path, &[("cores", "x")]).await;
    assert!(refused.body["errors"]["cores"].is_string());
}

#[tokio::test]
async fn an_old_host_makes_privileged_containers_and_knows_no_newer_key() {
    let simulator = Simulator::start(SimulatorConfig {
        host: HostShape::phoenix_8_4(),
        ..SimulatorConfig::default()
    })
    .await
    .unwrap();
    let operator = Client::operator(&simulator);
    assert_eq!(operator.create(100, &[]).await, "OK");
    assert!(operator.config(100).await.get("unprivileged").is_none());
    assert_eq!(operator.create(101, &[("unprivileged", "1")]).await, "OK");
    assert_eq!(operator.config(101).await["unprivileged"], 1);
    let path = "/nodes/pve/lxc/101/config";
    for (key, value) in [
        ("entrypoint", "/sbin/init"),
        ("env", "A=b"),
        ("mp0", "lxc-disks:1,mp=/data,keepattrs=1"),
    ] {
        let answer = operator.put(path, &[(key, value)]).await;
        assert_eq!(answer.status, 400, "{key}");
        assert!(answer.body["errors"][key].is_string(), "{}", answer.text);
    }
    let root = Client::login(&simulator, "root@pam").await;
    operator
        .task("POST", "/nodes/pve/lxc/101/status/start", &[])
        .await;
    let answer = root.put(path, &[("dev0", "/dev/nvidia0")]).await;
    assert_eq!(answer.status, 200);
    let live = operator.get(&format!("{path}?current=1")).await.body["data"].clone();
    assert!(
        live.get("dev0").is_none(),
        "a device waits for the next start"
    );
    operator
        .task("POST", "/nodes/pve/lxc/101/status/stop", &[])
        .await;
    assert_eq!(operator.config(101).await["dev0"], "/dev/nvidia0");
}

/// Waits that are long enough to be told apart on a busy machine: two seconds for a lock file, six for a daemon.
fn waiting() -> SimulatorConfig {
    SimulatorConfig {
        timing: Timing {
            waits: 0.2,
            ..Timing::instant()
        },
        ..SimulatorConfig::default()
    }
}

#[tokio::test]
async fn three_workers_serve_all_changes() {
    let simulator = Simulator::start(waiting()).await.unwrap();
    let operator = Client::operator(&simulator);
    for vmid in [100, 101] {
        operator.create(vmid, &[]).await;
    }
    let held = simulator.hold_flock(100).await.unwrap();
    let stuck: Vec<_> = (0..3)
        .map(|_| {
            let operator = operator.clone();
            tokio::spawn(async move {
                operator
                    .put("/nodes/pve/lxc/100/config", &[("cores", "1")])
                    .await
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    assert_eq!(
        operator.get("/cluster/resources").await.status,
        200,
        "reads need no worker"
    );
    assert!(begun.elapsed() < Duration::from_secs(1));
    let answer = operator
        .put("/nodes/pve/lxc/101/config", &[("cores", "1")])
        .await;
    assert_eq!(answer.status, 200);
    assert!(
        begun.elapsed() > Duration::from_secs(1),
        "a fourth change waits for one of the three"
    );
    for answer in stuck {
        assert!(answer.await.unwrap().reason.ends_with("got timeout"));
    }
    drop(held);
}

/// Waits until the container has that many cores.
async fn cores(simulator: &Simulator, wanted: u32) {
    let client = Client::operator(simulator);
    for _ in 0..500 {
        if client.config(100).await["cores"] == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the change never comes");
}

#[tokio::test]
async fn a_slow_handler_is_given_up_and_done_all_the_same() {
    let mut config = waiting();
    config.timing.waits = 0.05;
    let simulator = Simulator::start(config).await.unwrap();
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    let slow = CallEffect::Slow { seconds: 2.5 };
    simulator.inject(Fault::call("PUT", "/config", slow));
    let begun = Instant::now();
    let answer = operator
        .put("/nodes/pve/lxc/100/config", &[("cores", "3")])
        .await;
    assert_eq!(
        (answer.status, answer.reason.as_str()),
        (596, "Connection timed out")
    );
    assert!(
        begun.elapsed() >= Duration::from_millis(1500),
        "thirty seconds"
    );
    assert!(operator.config(100).await.get("cores").is_none());
    cores(&simulator, 3).await;
    let quick = CallEffect::Slow { seconds: 0.05 };
    simulator.inject(Fault::call("PUT", "/config", quick));
    let answer = operator
        .put("/nodes/pve/lxc/100/config", &[("cores", "4")])
        .await;
    assert_eq!(answer.status, 200, "within the proxy's patience it is fine");
}

#[tokio::test]
async fn replaced_workers_cut_calls_whose_work_goes_on() {
    let simulator = Simulator::start(waiting()).await.unwrap();
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    simulator.inject(Fault::call(
        "PUT",
        "/config",
        CallEffect::Slow { seconds: 1.0 },
    ));
    let caller = operator.clone();
    let call = tokio::spawn(async move {
        let form = [("cores", "3")];
        caller
            .try_call("PUT", "/nodes/pve/lxc/100/config", &form)
            .await
            .is_err()
    });
    tokio::time::sleep(Duration::from_millis(400)).await;
    simulator.suffer(Mishap::RecycleWorkers).await.unwrap();
    assert!(call.await.unwrap(), "the client never knows");
    cores(&simulator, 3).await;
}

#[tokio::test]
async fn no_quorum_refuses_changes_and_lets_reads_through() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    operator.seal(100).await;
    let none = Mishap::Quorum { present: false };
    simulator.suffer(none).await.unwrap();
    let create = [
        ("vmid", "101"),
        (
            "ostemplate",
            "local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst",
        ),
        ("rootfs", "lxc-disks:8"),
    ];
    for (path, form) in [
        ("/nodes/pve/lxc", &create[..]),
        ("/nodes/pve/lxc/100/clone", &[("newid", "101")]),
        ("/nodes/pve/lxc/100/status/start", &[]),
    ] {
        let answer = operator.post(path, form).await;
        assert_eq!(
            (answer.status, answer.reason.as_str()),
            (500, "cluster not ready - no quorum?"),
            "{path}"
        );
    }
    assert_eq!(operator.config(100).await["template"], 1);
    let status = operator.get("/cluster/resources").await;
    assert_eq!(status.status, 200);
}

#[tokio::test]
async fn numbers_may_come_as_texts_and_long_bodies_squeezed() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    simulator.inject(Fault::call("GET", "/config", CallEffect::TextNumbers));
    assert_eq!(operator.config(100).await["memory"], "512");
    assert_eq!(operator.config(100).await["memory"], 512);
    let squeezing = operator.with_header("Accept-Encoding", "gzip");
    let long = squeezing
        .try_call("GET", "/nodes/pve/status", &[])
        .await
        .unwrap();
    assert_eq!(long.headers()["content-encoding"], "gzip");
    assert_eq!(&long.bytes().await.unwrap()[..2], &[0x1f, 0x8b]);
    let short = squeezing.try_call("GET", "/version", &[]).await.unwrap();
    assert!(!short.headers().contains_key("content-encoding"));
}
