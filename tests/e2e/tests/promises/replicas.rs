//! Two replicas: one works; when it dies the other takes over, and what was under way is finished once.

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use phoenix_crds::{LxcContainer, LxcTemplate};
use phoenix_lab::installation::OPERATOR_NAMESPACE;
use serde_json::json;

use crate::stage::{Settings, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over_from_an_operator_that_dies() {
    // alone: the Lease has the chart's own name
    let settings = Settings {
        alone: true,
        operator: false,
        ..Settings::default()
    };
    let mut stage = Stage::raise("replicas", settings).await;
    stage.start_two_operators();
    stage.template("base", json!({"vmid": 900})).await;
    stage.ready::<LxcTemplate>("base").await;
    let first = holder(&stage).await;
    let script = "#!/bin/sh\necho once >> /etc/runs\nsleep 2\n";
    stage
        .container(
            "top",
            "base",
            json!({"vmid": 901, "setup": {"script": script}}),
        )
        .await;
    stage
        .reason::<LxcContainer>("top", "SetupComplete", "Running")
        .await;
    stage.kill_leader(&first).await;
    stage.ready::<LxcContainer>("top").await;
    assert_ne!(holder(&stage).await, first);
    let runs = stage
        .simulator
        .guests()
        .unwrap()
        .read_file(901, "/etc/runs");
    assert_eq!(runs.as_deref(), Some("once\n"));
}

async fn holder(stage: &Stage) -> String {
    let leases: Api<Lease> = Api::namespaced(stage.client.clone(), OPERATOR_NAMESPACE);
    let lease = leases.get("phoenix-controller").await.expect("a Lease");
    lease
        .spec
        .and_then(|s| s.holder_identity)
        .expect("a holder")
}
