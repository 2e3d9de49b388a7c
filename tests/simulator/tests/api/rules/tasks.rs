//! Tasks: their logs, their ends, and those that begin others.

use std::time::Duration;

use proxmox_simulator::{Fault, Mishap, Simulator, SimulatorConfig, TaskEffect, Timing};

use super::super::client::{Client, simulator};

#[tokio::test]
async fn a_tasks_log_comes_in_pages() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(200, &[]).await;
    let answer = operator
        .post("/nodes/pve/lxc/200/clone", &[("newid", "201")])
        .await;
    let upid = answer.body["data"].as_str().unwrap().to_owned();
    operator.follow(&upid).await;
    let page = |query: &'static str| {
        let (operator, upid) = (operator.clone(), upid.clone());
        async move {
            operator
                .get(&format!("/nodes/pve/tasks/{upid}/log{query}"))
                .await
                .body
        }
    };
    let all = page("?limit=0").await;
    let total = all["data"].as_array().unwrap().len();
    assert!(total > 5 && all["total"] == total);
    let some = page("?start=2&limit=3").await;
    assert_eq!(some["total"], total, "the whole's length");
    let lines = some["data"].as_array().unwrap();
    assert_eq!(
        lines.iter().map(|line| &line["n"]).collect::<Vec<_>>(),
        [3, 4, 5]
    );
    assert_eq!(lines[0], all["data"][2]);
    assert_eq!(all["data"][total - 1]["t"], "TASK OK");
    let behind = page("?start=1000").await;
    assert_eq!(behind["data"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_start_after_a_create_is_a_task_of_its_own_and_may_fail_alone() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    assert_eq!(operator.create(100, &[("start", "1")]).await, "OK");
    assert!(simulator.idle(Duration::from_secs(5)).await);
    let kinds: Vec<String> = simulator
        .tasks()
        .iter()
        .map(|task| task.kind.clone())
        .collect();
    assert_eq!(kinds, ["vzcreate", "vzstart"]);
    assert!(simulator.containers()[&100].running);
    let text = "startup for container '101' failed".to_owned();
    simulator.inject(Fault::task(
        "vzstart",
        TaskEffect::Fail { text: text.clone() },
    ));
    assert_eq!(
        operator.create(101, &[("start", "1")]).await,
        "OK",
        "the create knows nothing of it"
    );
    assert!(simulator.idle(Duration::from_secs(5)).await);
    assert_eq!(
        simulator.tasks().last().unwrap().exit.as_deref(),
        Some(text.as_str())
    );
    assert!(!simulator.containers()[&101].running);
}

#[tokio::test]
async fn high_availability_is_asked_and_acts_after_the_task() {
    let timing = Timing {
        waits: 0.1,
        ..Timing::instant()
    };
    let config = SimulatorConfig {
        timing,
        ..SimulatorConfig::default()
    };
    let simulator = Simulator::start(config).await.unwrap();
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    let managed = Mishap::Ha {
        vmid: 100,
        managed: true,
    };
    simulator.suffer(managed).await.unwrap();
    let current = "/nodes/pve/lxc/100/status/current";
    let state = operator.get(current).await.body["data"]["ha"].clone();
    assert_eq!(
        (&state["managed"], &state["state"]),
        (&1.into(), &"stopped".into())
    );
    for (call, kind, running) in [("start", "hastart", true), ("shutdown", "hastop", false)] {
        let path = format!("/nodes/pve/lxc/100/status/{call}");
        let answer = operator.post(&path, &[]).await;
        let upid = answer.body["data"].as_str().unwrap().to_owned();
        assert!(upid.contains(&format!(":{kind}:100:")), "{upid}");
        assert_eq!(operator.follow(&upid).await, "OK");
        assert_eq!(
            simulator.containers()[&100].running,
            !running,
            "the task is over, the effect isn't there"
        );
        for _ in 0..1000 {
            if simulator.containers()[&100].running == running {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(simulator.containers()[&100].running, running);
    }
    assert_eq!(
        operator.delete("/nodes/pve/lxc/100").await.reason,
        "unable to remove CT 100 - used in HA resources and purge parameter not set."
    );
    assert_eq!(
        operator
            .task("DELETE", "/nodes/pve/lxc/100?purge=1", &[])
            .await,
        "OK"
    );
}

#[tokio::test]
async fn a_warning_is_a_success() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    let text = "something is odd".to_owned();
    simulator.inject(Fault::task("vzstart", TaskEffect::Warn { text }));
    assert_eq!(
        operator
            .task("POST", "/nodes/pve/lxc/100/status/start", &[])
            .await,
        "WARNINGS: 1"
    );
    assert!(simulator.containers()[&100].running);
    let log = simulator.tasks().last().unwrap().log.clone();
    assert_eq!(log, ["WARN: something is odd", "TASK WARNINGS: 1"]);
    let errors = operator.get("/nodes/pve/tasks?errors=1").await;
    assert_eq!(errors.text, r#"{"data":[]}"#);
}

#[tokio::test]
async fn what_was_rotated_away_is_no_such_task() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    let upid = simulator.tasks()[0].upid.clone();
    simulator.suffer(Mishap::RotateTasks).await.unwrap();
    let answer = operator
        .get(&format!("/nodes/pve/tasks/{upid}/status"))
        .await;
    assert_eq!(
        (answer.status, &answer.body["errors"]["upid"]),
        (400, &"no such task".into())
    );
    let log = operator.get(&format!("/nodes/pve/tasks/{upid}/log")).await;
    assert_eq!(
        log.body["data"][0]["t"],
        "unable to open file - No such file or directory"
    );
    assert_eq!(
        operator.get("/nodes/pve/tasks").await.text,
        r#"{"data":[]}"#
    );
    operator.create(101, &[]).await;
    assert_ne!(simulator.tasks()[0].upid, upid, "identifiers aren't reused");
}

#[tokio::test]
async fn a_slow_task_goes_on_and_says_so() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(200, &[]).await;
    simulator.inject(Fault::task("vzclone", TaskEffect::Slow { seconds: 2.0 }));
    let answer = operator
        .post("/nodes/pve/lxc/200/clone", &[("newid", "201")])
        .await;
    let upid = answer.body["data"].as_str().unwrap().to_owned();
    let lines = || simulator.tasks().last().unwrap().log.len();
    tokio::time::sleep(Duration::from_millis(250)).await;
    let before = lines();
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert!(lines() > before, "its log grows");
    let status = operator
        .get(&format!("/nodes/pve/tasks/{upid}/status"))
        .await;
    assert_eq!(status.body["data"]["status"], "running");
    assert!(status.body["data"].get("exitstatus").is_none());
    assert_eq!(operator.follow(&upid).await, "OK");
}
