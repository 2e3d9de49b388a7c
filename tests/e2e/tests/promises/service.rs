//! `spec.service`: pods reach what a container serves by a Service, while it serves it; another's Service is never touched.

use std::time::Duration;

use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::{Endpoint, EndpointSlice},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use phoenix_crds::LxcContainer;
use serde_json::{Value, json};

use crate::stage::{Settings, Stage, condition};

/// What layers 901 and 920 leave, for a test that is about something else.
const VLLM: &str = "#!/bin/sh
set -e
echo 'deb https://mirror/cuda/ /' > /etc/apt/sources.list.d/cuda.list
apt-get update -qq; apt-get install -qq -y libnvidia-compute-580 nvidia-utils-580 python3-venv
python3 -m venv /opt/vllm; /opt/vllm/bin/pip install -q vllm
";
const SLICE: &str = "coder-phoenix-ipv4";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_reach_a_model_while_it_is_served() {
    let mut settings = Settings::default();
    // the newest that the simulated repository has
    settings.simulator.host.nodes[0].driver_version = "580.95.05".to_owned();
    let stage = Stage::raise("service", settings).await;
    let (services, slices) = (stage.api::<Service>(), stage.api::<EndpointSlice>());
    stage
        .template(
            "base",
            json!({"vmid": 900, "network": eth0("10.0.0.200/24"), "setup": {"script": VLLM}}),
        )
        .await;
    load_for(&stage, Duration::from_secs(86_400));
    let network = eth0("10.0.0.150/24");
    let vllm = json!({"model": "Qwen/Qwen3-0.6B", "servedModelName": "coder"});
    let top = json!({
        "vmid": 901, "network": network, "gpus": {"indices": [0]}, "vllm": vllm,
        "service": {"annotations": {"example.org/team": "ai"}},
    });
    stage.container("coder", "base", top).await;

    // while it loads there is a way to it, and nobody is sent that way
    stage
        .reason::<LxcContainer>("coder", "VllmReady", "Loading")
        .await;
    let endpoint = until_endpoint(&stage, "that nobody is sent to", |e| !ready(e)).await;
    assert_eq!(endpoint.addresses, ["10.0.0.150"]);
    let service = services.get("coder").await.unwrap();
    let spec = service.spec.clone().unwrap();
    let ports: Vec<_> = spec
        .ports
        .unwrap()
        .into_iter()
        .map(|p| (p.name, p.port))
        .collect();
    assert_eq!(
        (ports, spec.selector),
        (vec![(Some("vllm".to_owned()), 8000)], None)
    );
    assert_eq!(service.annotations()["example.org/team"], "ai");
    let slice = slices.get(SLICE).await.unwrap();
    assert_eq!(slice.labels()["kubernetes.io/service-name"], "coder");
    let ports: Vec<_> = slice
        .ports
        .unwrap()
        .into_iter()
        .map(|p| (p.name, p.port))
        .collect();
    assert_eq!(ports, [(Some("vllm".to_owned()), Some(8000))]);

    // another argument restarts the server, which now loads at once
    load_for(&stage, Duration::ZERO);
    change(&stage, json!({"vllm": {"maxModelLen": 4096}})).await;
    let coder: LxcContainer = stage.ready("coder").await;
    let said = condition(&coder, "ServiceReady").unwrap();
    assert_eq!(
        (said.status.as_str(), said.reason.as_str()),
        ("True", "InSync")
    );
    assert!(
        said.message.contains("http://coder.service.svc:8000/v1"),
        "{}",
        said.message
    );
    assert_eq!(condition(&coder, "Ready").unwrap().reason, "Serving");
    until_endpoint(&stage, "that pods are sent to", ready).await;

    // an engine that died is loaded anew: nobody is sent there meanwhile
    load_for(&stage, Duration::from_secs(86_400));
    assert_eq!(stage.simulator.guests().unwrap().kill_engine(901), 1);
    until_endpoint(&stage, "that nobody is sent to", |e| !ready(e)).await;
    load_for(&stage, Duration::ZERO);
    change(&stage, json!({"vllm": {"maxModelLen": 8192}})).await;
    until_endpoint(&stage, "that pods are sent to", ready).await;

    people(&stage, &services, &slices).await;
    leaving(&stage, &services, &slices).await;
}

/// What people change of it is put right, what they add stays, and nothing is written at rest.
async fn people(stage: &Stage, services: &Api<Service>, slices: &Api<EndpointSlice>) {
    let address = services
        .get("coder")
        .await
        .unwrap()
        .spec
        .unwrap()
        .cluster_ip;
    let edit = json!({"metadata": {"labels": {"mine": "yes"}}, "spec": {"ports": [{"name": "vllm", "port": 81}], "sessionAffinity": "ClientIP"}});
    patch(services, "coder", edit).await;
    slices
        .delete(SLICE, &DeleteParams::default())
        .await
        .unwrap();
    until_endpoint(stage, "again", ready).await;
    let service = stage
        .until(
            services.clone(),
            "coder",
            "the port of the spec",
            |s: &Service| {
                let ports = s
                    .spec
                    .as_ref()
                    .and_then(|s| s.ports.as_deref())
                    .unwrap_or_default();
                ports.len() == 1 && ports[0].port == 8000
            },
        )
        .await;
    assert_eq!(
        service.labels().get("mine").map(String::as_str),
        Some("yes")
    );
    let spec = service.spec.unwrap();
    assert_eq!(
        (spec.cluster_ip, spec.session_affinity.as_deref()),
        (address, Some("ClientIP"))
    );
    services
        .delete("coder", &DeleteParams::default())
        .await
        .unwrap();
    stage
        .until(services.clone(), "coder", "a new one", |s: &Service| {
            s.uid() != service.metadata.uid
        })
        .await;

    stage.ready::<LxcContainer>("coder").await;
    let versions = async || {
        (
            services.get("coder").await.unwrap().resource_version(),
            slices.get(SLICE).await.unwrap().resource_version(),
            stage
                .api::<LxcContainer>()
                .get("coder")
                .await
                .unwrap()
                .resource_version(),
        )
    };
    let before = versions().await;
    // each poll of the simulated host is a moment at which something could be written
    stage.simulator.clear_calls();
    stage.eventually("three polls", || stage.polls() > 2).await;
    assert_eq!(versions().await, before);
}

/// It goes with the field, and with the container.
async fn leaving(stage: &Stage, services: &Api<Service>, slices: &Api<EndpointSlice>) {
    change(
        stage,
        json!({"service": {"name": "qwen", "annotations": null}}),
    )
    .await;
    let qwen = stage
        .until(services.clone(), "qwen", "the other name", |_: &Service| {
            true
        })
        .await;
    assert!(!qwen.annotations().contains_key("example.org/team"));
    stage.gone::<Service>("coder").await;
    stage.gone::<EndpointSlice>(SLICE).await;

    change(stage, json!({"service": null})).await;
    stage.gone::<Service>("qwen").await;
    stage.gone::<EndpointSlice>("qwen-phoenix-ipv4").await;
    let without = |c: &LxcContainer| condition(c, "ServiceReady").is_none();
    stage
        .until(
            stage.api::<LxcContainer>(),
            "coder",
            "no word of a Service",
            without,
        )
        .await;

    change(stage, json!({"service": {}})).await;
    until_endpoint(stage, "that pods are sent to", ready).await;
    stage.delete::<LxcContainer>("coder").await;
    // by the garbage collector
    stage.gone::<Service>("coder").await;
    stage.gone::<EndpointSlice>(SLICE).await;
    assert!(
        slices
            .list(&kube::api::ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_of_somebody_else_is_left_alone() {
    let stage = Stage::raise("foreign-service", Settings::default()).await;
    let services = stage.api::<Service>();
    let foreign: Service = serde_json::from_value(json!({
        "metadata": {"name": "top"}, "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    }))
    .unwrap();
    let foreign = services
        .create(&kube::api::PostParams::default(), &foreign)
        .await
        .unwrap();
    stage.template("base", json!({"vmid": 900})).await;
    let network = eth0("10.0.0.91/24");
    let top = json!({"vmid": 901, "network": network, "probe": {"port": 8080}, "service": {}});
    stage.container("top", "base", top).await;
    let told = stage
        .reason::<LxcContainer>("top", "ServiceReady", "OwnedByAnother")
        .await;
    assert!(
        told.message.contains("foreign-service/top") && told.message.contains("spec.service.name"),
        "{}",
        told.message
    );
    // the container is made all the same
    stage
        .reason::<LxcContainer>("top", "ProbeReady", "Unreachable")
        .await;
    let slices = stage.api::<EndpointSlice>();
    let ours = slices.get_opt("top-phoenix-ipv4").await.unwrap();
    assert!(
        ours.is_none(),
        "it would lead their Service to our container"
    );
    let now = services.get("top").await.unwrap();
    assert_eq!(now.resource_version(), foreign.resource_version());

    change_of(&stage, "top", json!({"service": {"name": "ours"}})).await;
    stage
        .reason::<LxcContainer>("top", "ServiceReady", "InSync")
        .await;
    stage.delete::<LxcContainer>("top").await;
    stage.gone::<Service>("ours").await;
    let now = services.get("top").await.unwrap();
    assert_eq!(now.resource_version(), foreign.resource_version());
}

fn eth0(address: &str) -> Value {
    json!([{"name": "eth0", "address": address}])
}

fn load_for(stage: &Stage, time: Duration) {
    stage.simulator.guests().unwrap().set_load_time(time);
}

fn ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(true)
}

async fn until_endpoint(stage: &Stage, what: &str, wanted: impl Fn(&Endpoint) -> bool) -> Endpoint {
    let one = |slice: &EndpointSlice| match slice.endpoints.as_deref() {
        Some([one]) => Some(one.clone()),
        _ => None,
    };
    let slice = stage
        .until(
            stage.api::<EndpointSlice>(),
            SLICE,
            &format!("an endpoint {what}"),
            |s| one(s).as_ref().is_some_and(&wanted),
        )
        .await;
    one(&slice).unwrap()
}

async fn change(stage: &Stage, spec: Value) {
    change_of(stage, "coder", spec).await;
}

async fn change_of(stage: &Stage, name: &str, spec: Value) {
    patch(&stage.api::<LxcContainer>(), name, json!({"spec": spec})).await;
}

async fn patch<K>(api: &Api<K>, name: &str, change: Value)
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(change))
        .await
        .unwrap();
}
