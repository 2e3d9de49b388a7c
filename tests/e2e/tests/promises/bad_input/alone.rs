//! What can't be shown beside other tests: a control plane of its own for each, with an operator that works for all hypervisors in it.

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject},
};
use phoenix_crds::{
    LxcContainer, LxcTemplate,
    conditions::{ConditionType as C, Reason},
};
use phoenix_lab::installation::Access;
use proxmox_simulator::{Simulator, SimulatorConfig};
use serde_json::{Value, json};

use super::{changes, has, hypervisor_ready, network, told};
use crate::{
    documented::{documented, says},
    stage::{OS_TEMPLATE, PATIENCE, Settings, Stage},
};

fn alone(settings: Settings) -> Settings {
    Settings {
        alone: true,
        ..settings
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_hypervisor_changes_nothing_for_those_who_named_none() {
    let stage = Stage::raise("home", alone(Settings::default())).await;
    let unnamed = |more: Value| crate::stage::merged(json!({"hypervisorRef": null}), more);
    stage.template("base", unnamed(json!({}))).await;
    stage
        .container(
            "runs",
            "base",
            unnamed(json!({"network": network(31), "resources": {"cores": 1}})),
        )
        .await;
    stage
        .container("waits", "later", unnamed(json!({"network": network(32)})))
        .await;
    told::<LxcContainer>(&stage, "waits", C::SourceReady, Reason::TemplateNotFound).await;
    let runs: LxcContainer = stage.ready("runs").await;
    assert_eq!(
        runs.status.as_ref().unwrap().hypervisor.as_deref(),
        Some("home")
    );

    let second = Simulator::start(SimulatorConfig::default()).await.unwrap();
    let access = Access {
        name: "second".to_owned(),
        root: true,
        password: false,
        polling: ("1s", "10m"),
    };
    stage.add_hypervisor(&second, &access).await;
    let connected = |h: &phoenix_crds::Hypervisor| {
        h.status
            .as_ref()
            .is_some_and(|s| has(&s.conditions, C::Connected, Reason::Connected))
    };
    stage
        .until(stage.hypervisors(), "second", "Connected", connected)
        .await;

    // who has one keeps it, whether it already has a container or still waits for its template
    stage
        .container(
            "runs",
            "base",
            unnamed(json!({"network": network(31), "resources": {"cores": 3}})),
        )
        .await;
    stage.template("later", json!({})).await;
    let waits: LxcContainer = stage.ready("waits").await;
    assert_eq!(waits.status.unwrap().hypervisor.as_deref(), Some("home"));
    let again: LxcContainer = stage.ready("runs").await;
    let (before, after) = (runs.status.unwrap(), again.status.unwrap());
    assert_eq!(
        (after.hypervisor, after.vmid),
        (before.hypervisor, before.vmid)
    );
    let vmid = u32::try_from(after.vmid.unwrap()).unwrap();
    assert_eq!(
        stage.simulator.containers()[&vmid].config["cores"],
        "3",
        "it is still looked after"
    );

    // who comes now has to say which
    stage.template("newcomer", unnamed(json!({}))).await;
    let sentence = told::<LxcTemplate>(
        &stage,
        "newcomer",
        C::HypervisorReady,
        Reason::HypervisorNotFound,
    )
    .await;
    says(&sentence, &["home", "second", "spec.hypervisorRef"]);
    assert_eq!((changes(&second), second.containers().len()), (vec![], 0));
    stage
        .template("newcomer", json!({"hypervisorRef": {"name": "second"}}))
        .await;
    let newcomer: LxcTemplate = stage.ready("newcomer").await;
    assert_eq!(
        newcomer.status.unwrap().hypervisor.as_deref(),
        Some("second")
    );
    assert_eq!(second.containers().len(), 1);
}

/// Objects as the API server has them, whether our types can read them or not.
fn raw(stage: &Stage) -> Api<DynamicObject> {
    Api::namespaced_with(
        stage.client.clone(),
        &stage.name,
        &ApiResource::erase::<LxcContainer>(&()),
    )
}

async fn unreadable(stage: &Stage, name: &str) -> (DynamicObject, String) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let object = raw(stage).get(name).await.expect("an answer");
        let conditions: Vec<Condition> =
            serde_json::from_value(object.data["status"]["conditions"].clone()).unwrap_or_default();
        if has(&conditions, C::Ready, Reason::Invalid) {
            let sentence = documented(&conditions, C::Ready, Reason::Invalid, false);
            assert_eq!(
                object.data["status"]["observedGeneration"].as_i64(),
                object.metadata.generation
            );
            return (object, sentence);
        }
        assert!(Instant::now() < deadline, "{name} says {conditions:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A container made from an OS template, which needs nothing inside.
fn plain(hostname: &Value) -> Value {
    json!({"source": {"osTemplate": OS_TEMPLATE}, "rootfs": {"size": "4Gi"}, "hostname": hostname})
}

/// Lets the API server store what our types can't read, as an older or newer CRD would.
async fn loosen(stage: &Stage) {
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/hostname";
    let patch = json!([{"op": "replace", "path": path, "value": {"x-kubernetes-preserve-unknown-fields": true}}]);
    stage
        .kubectl(&[
            "patch",
            "crd",
            "lxccontainers.phoenix-hypervisor.io",
            "--type=json",
            "-p",
            &patch.to_string(),
        ])
        .await;
    let dry = json!({
        "apiVersion": "phoenix-hypervisor.io/v1alpha1", "kind": "LxcContainer", "metadata": {"name": "dry"}, "spec": plain(&json!({"a": 1}))
    });
    let params = kube::api::PostParams {
        dry_run: true,
        ..kube::api::PostParams::default()
    };
    let deadline = Instant::now() + PATIENCE;
    while let Err(e) = raw(stage)
        .create(&params, &serde_json::from_value(dry.clone()).unwrap())
        .await
    {
        assert!(
            Instant::now() < deadline,
            "the schema is as strict as ever: {e}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn set_hostname(stage: &Stage, name: &str, hostname: Value) {
    let patch = json!({"spec": {"hostname": hostname}}).to_string();
    stage
        .kubectl(&["patch", "lxccontainer", name, "--type=merge", "-p", &patch])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_does_not_decode_says_so_and_disturbs_no_other() {
    let stage = Stage::raise("unreadable", alone(Settings::without_guests())).await;
    hypervisor_ready(&stage).await;
    loosen(&stage).await;
    stage.container("good", "", plain(&json!("good"))).await;
    let good: LxcContainer = stage.ready("good").await;
    let vmid = good.status.unwrap().vmid;
    let number = u32::try_from(vmid.unwrap()).unwrap();
    let before = stage.simulator.config_text(number);

    // one that could be read until now, and one that never could
    set_hostname(&stage, "good", json!({"first": "good"})).await;
    let never = json!({
        "apiVersion": "phoenix-hypervisor.io/v1alpha1", "kind": "LxcContainer",
        "metadata": {"name": "never"}, "spec": plain(&json!(["a", "b"])),
    });
    raw(&stage)
        .create(
            &kube::api::PostParams::default(),
            &serde_json::from_value(never).unwrap(),
        )
        .await
        .unwrap();
    for name in ["good", "never"] {
        let (_, sentence) = unreadable(&stage, name).await;
        says(
            &sentence,
            &[
                "spec.hostname",
                "Nothing is done for it",
                "correct the field",
                "upgrade the operator",
            ],
        );
    }
    let (object, _) = unreadable(&stage, "good").await;
    assert_eq!(
        object.data["status"]["vmid"].as_i64(),
        vmid,
        "what is known of its container is kept"
    );

    // the others are worked on as ever
    stage.container("other", "", plain(&json!("other"))).await;
    stage.ready::<LxcContainer>("other").await;
    assert_eq!(
        (
            stage.simulator.config_text(number),
            stage.simulator.containers().len()
        ),
        (before, 2)
    );

    // corrected, it goes on with the container that it has
    set_hostname(&stage, "good", json!("better")).await;
    let good: LxcContainer = stage.ready("good").await;
    assert_eq!(good.status.unwrap().vmid, vmid);
    assert_eq!(
        stage.simulator.containers()[&number].config["hostname"],
        "better"
    );
    assert_eq!(stage.simulator.containers().len(), 2);

    // unreadable for good, it can be deleted; its container is left alone, for nobody can tell any more what was meant by it
    set_hostname(&stage, "good", json!(7)).await;
    unreadable(&stage, "good").await;
    for name in ["never", "good"] {
        raw(&stage)
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    while !raw(&stage)
        .list_metadata(&kube::api::ListParams::default())
        .await
        .unwrap()
        .items
        .iter()
        .all(|o| o.metadata.name.as_deref() == Some("other"))
    {
        assert!(Instant::now() < deadline, "they are not gone");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(stage.simulator.containers()[&number].running);
}
