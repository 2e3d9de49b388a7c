//! What runs in a container is what the spec asks for, and what is the matter with it is said: vLLM over its life, Portainer, Docker.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt as _;
use kube::{
    api::{Patch, PatchParams},
    runtime::watcher,
};
use phoenix_crds::{LxcContainer, LxcTemplate};
use proxmox_simulator::guest::VllmFailure;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::stage::{Settings, Stage, condition, merged};

/// As layers 901 and 920 install it.
const VLLM: &str = "set -e
echo 'deb https://mirror/cuda/ /' > /etc/apt/sources.list.d/cuda.list
apt-get update -qq; apt-get install -qq -y libnvidia-compute-580 nvidia-utils-580 python3-venv
python3 -m venv /opt/vllm; /opt/vllm/bin/pip install -q vllm; /opt/vllm/bin/vllm --version";

/// As layer 902 installs it.
const DOCKER: &str = "set -e
echo 'deb https://mirror/docker/ /' > /etc/apt/sources.list.d/docker.list
apt-get update -qq; apt-get install -qq -y docker-ce docker-ce-cli containerd.io
systemctl enable -q docker; systemctl restart docker; docker info >/dev/null";

/// As container 910 runs it.
const PORTAINER: &str = "set -e
docker run -d --name portainer --restart=always -p 9443:9443 portainer/portainer-ce:2.39.6
for _ in 1 2 3 4 5 6 7 8 9 10; do curl -fsSk -o /dev/null https://127.0.0.1:9443/api/system/status && exit 0; sleep 1; done
exit 1";

fn network(address: &str) -> Value {
    json!([{"name": "eth0", "bridge": "vmbr0", "address": format!("{address}/24"), "gateway": "10.0.0.1"}])
}

/// A template that brings vLLM, and a container that serves with it.
async fn model(stage: &Stage, vllm: Value) -> LxcContainer {
    // what apt brings fits no other
    let guests = stage.simulator.guests().unwrap();
    guests.set_driver_version("580.95.05");
    stage
        .template(
            "vllm",
            json!({"vmid": 920, "network": network("10.0.0.220"), "gpus": {"indices": [0]}, "setup": {"script": VLLM}}),
        )
        .await;
    serve(stage, vllm).await
}

async fn serve(stage: &Stage, vllm: Value) -> LxcContainer {
    let vllm = merged(
        json!({"model": "org/model", "servedModelName": "tiny"}),
        vllm,
    );
    stage
        .container(
            "model",
            "vllm",
            json!({"vmid": 950, "network": network("10.0.0.150"), "gpus": {"indices": [0]}, "vllm": vllm}),
        )
        .await
}

/// What `kubectl get -w` shows, each change once.
#[derive(Clone)]
struct Shown(Arc<Mutex<Vec<(String, String, String)>>>);

impl Shown {
    fn watch(stage: &Stage, name: &str) -> (Self, tokio::task::JoinHandle<()>) {
        let shown = Self(Arc::default());
        let (seen, api) = (shown.clone(), stage.api::<LxcContainer>());
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(api, config));
            while let Some(event) = events.next().await {
                let (watcher::Event::Apply(object) | watcher::Event::InitApply(object)) =
                    event.expect("a watch")
                else {
                    continue;
                };
                let state = object.status.as_ref().and_then(|s| s.state);
                let said = |kind: &str| condition(&object, kind);
                let row = (
                    state
                        .map(|s| <&str>::from(s).to_owned())
                        .unwrap_or_default(),
                    said("VllmReady").map(|c| c.reason).unwrap_or_default(),
                    said("Ready").map(|c| c.status).unwrap_or_default(),
                );
                let mut rows = seen.0.lock().unwrap();
                if rows.last() != Some(&row) {
                    rows.push(row);
                }
            }
        });
        (shown, task)
    }

    fn rows(&self) -> Vec<(String, String, String)> {
        self.0.lock().unwrap().clone()
    }

    fn clear(&self) {
        let mut rows = self.0.lock().unwrap();
        let last = rows.len().saturating_sub(1);
        rows.drain(..last);
    }

    /// None is shown that was left before.
    fn never_returned(&self) {
        let rows = self.rows();
        for (i, row) in rows.iter().enumerate() {
            assert!(!rows[..i].contains(row), "{row:?} came back in {rows:#?}");
        }
    }

    fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<String> = self.rows().into_iter().map(|r| r.1).collect();
        reasons.dedup();
        reasons.retain(|r| !r.is_empty());
        reasons
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_loads_serves_changes_and_dies_without_flapping() {
    let stage = Stage::raise("serving", Settings::default()).await;
    let guests = stage.simulator.guests().unwrap();
    // longer than the unit's looks, so that several of them fall into it
    guests.set_load_time(Duration::from_secs(25));
    let (shown, watching) = Shown::watch(&stage, "model");
    model(&stage, json!({"maxModelLen": 4096})).await;
    stage
        .reason::<LxcContainer>("model", "VllmReady", "Loading")
        .await;
    let serves: LxcContainer = stage.ready("model").await;
    shown.never_returned();
    assert_eq!(shown.reasons(), ["Installing", "Loading", "Serving"]);
    let first = serves.status.unwrap().vllm.unwrap();

    // requests and tokens are the operator's metrics
    guests.load_vllm(950, 3, 2);
    let labels = r#"{namespace="serving",name="model",model="tiny"}"#;
    until_metrics(
        &stage,
        &format!("phoenix_vllm_requests_running{labels} 3\n"),
    )
    .await;
    until_metrics(
        &stage,
        &format!("phoenix_vllm_requests_waiting{labels} 2\n"),
    )
    .await;
    until_metrics(
        &stage,
        &format!("phoenix_vllm_generation_tokens_total{labels} "),
    )
    .await;

    // other arguments: not Ready by the engine that runs, but by the one that follows
    guests.set_load_time(Duration::from_secs(3));
    shown.clear();
    serve(&stage, json!({"maxModelLen": 8192})).await;
    let serves: LxcContainer = stage.ready("model").await;
    let second = serves.status.unwrap().vllm.unwrap();
    assert_ne!(first.args_hash, second.args_hash);
    let listed = guests
        .journal(950, "phoenix-vllm")
        .iter()
        .filter(|line| line.contains("Application startup complete"))
        .count();
    assert_eq!(
        listed, 2,
        "the second engine had come up before Ready was said"
    );
    assert_eq!(
        shown.reasons(),
        ["Serving", "Installing", "Loading", "Serving"]
    );

    // its engine dies: exit code 0, and systemd starts it again
    // longer than a probe rests, or nobody would see it
    guests.set_load_time(Duration::from_secs(20));
    shown.clear();
    assert_eq!(guests.kill_engine(950), 1);
    stage
        .reason::<LxcContainer>("model", "VllmReady", "Exited")
        .await;
    stage.ready::<LxcContainer>("model").await;
    let reasons = shown.reasons();
    assert!(
        reasons == ["Serving", "Exited", "Loading", "Serving"]
            || reasons == ["Serving", "Exited", "Serving"],
        "{reasons:?}"
    );
    watching.abort();

    // stopped: it isn't known any more how busy it is
    let stop = Patch::Merge(json!({"spec": {"powerState": "Stopped"}}));
    stage
        .api::<LxcContainer>()
        .patch("model", &PatchParams::default(), &stop)
        .await
        .unwrap();
    stage
        .reason::<LxcContainer>("model", "PowerInSync", "Stopped")
        .await;
    let text = metrics(&stage).await;
    assert!(
        !text.contains(&format!("requests_running{labels}")),
        "{text}"
    );
    assert_eq!(stage.simulator.problems(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_a_model_does_not_serve_is_said_with_what_to_do() {
    let stage = Stage::raise("serving-not", Settings::default()).await;
    let guests = stage.simulator.guests().unwrap();
    guests.fail_vllm(950, Some(VllmFailure::OutOfMemory));
    model(&stage, json!({})).await;
    let said = stage
        .reason::<LxcContainer>("model", "VllmReady", "OutOfMemory")
        .await;
    for words in [
        "47.41 GiB",
        "512.00 MiB of it are free",
        "1.16 GiB",
        "maxModelLen",
    ] {
        assert!(said.message.contains(words), "{}", said.message);
    }
    // an argument that nobody knows; what the engine before had said is no cause any more
    guests.fail_vllm(950, None);
    serve(&stage, json!({"extraArgs": ["--flavour=sweet"]})).await;
    let said = stage
        .until(
            stage.api::<LxcContainer>(),
            "model",
            "the argument named",
            |o| condition(o, "VllmReady").is_some_and(|c| c.message.contains("--flavour=sweet")),
        )
        .await;
    assert_eq!(condition(&said, "VllmReady").unwrap().reason, "Exited");
    serve(&stage, json!({})).await;
    stage.ready::<LxcContainer>("model").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn portainer_tells_that_it_waits_for_its_administrator_and_docker_that_it_has_vfs() {
    let stage = Stage::raise("portainer", Settings::default()).await;
    let guests = stage.simulator.guests().unwrap();
    guests.set_docker_storage("vfs");
    let probe = json!({"scheme": "https", "port": 9443, "path": "/api/system/status", "insecureSkipVerify": true});
    stage
        .template(
            "docker",
            json!({"vmid": 902, "network": network("10.0.0.202"), "features": {"nesting": true}, "setup": {"script": DOCKER}}),
        )
        .await;
    let sealed: LxcTemplate = stage.ready("docker").await;
    let said = condition(&sealed, "SetupComplete").unwrap();
    assert!(
        said.message.contains("vfs") && said.message.contains("OpenZFS 2.2"),
        "{said:?}"
    );
    stage
        .container(
            "portainer",
            "docker",
            json!({"vmid": 910, "network": network("10.0.0.99"), "features": {"nesting": true}, "setup": {"script": PORTAINER}, "probe": probe}),
        )
        .await;
    let runs: LxcContainer = stage.ready("portainer").await;
    assert!(
        condition(&runs, "SetupComplete")
            .unwrap()
            .message
            .contains("vfs")
    );
    let said = condition(&runs, "ProbeReady").unwrap();
    assert_eq!(
        (said.status.as_str(), said.reason.as_str()),
        ("True", "Healthy")
    );
    assert!(
        said.message.contains("no administrator")
            && said.message.contains("https://10.0.0.99:9443"),
        "{said:?}"
    );
    // nobody comes
    guests.set_portainer_window(Duration::ZERO);
    let said = stage
        .reason::<LxcContainer>("portainer", "ProbeReady", "Unhealthy")
        .await;
    assert!(
        said.message.contains("closed itself") && said.message.contains("docker restart portainer"),
        "{said:?}"
    );
}

/// What the operator answers at `/metrics`.
async fn metrics(stage: &Stage) -> String {
    let log = stage.log();
    let address = log
        .lines()
        .rev()
        .find_map(|line| line.split_once("metrics=")?.1.split_whitespace().next())
        .expect("the operator says where its metrics are");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\nHost: operator\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

async fn until_metrics(stage: &Stage, line: &str) {
    let deadline = std::time::Instant::now() + crate::stage::PATIENCE;
    loop {
        let text = metrics(stage).await;
        if text.contains(line) {
            return;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "{line:?} did not come; {text}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
