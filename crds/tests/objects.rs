//! Objects as users write them, and as a newer or older version stored them, become the types.

use phoenix_crds::lxc::DeletionPolicy;
use phoenix_crds::status::State;
use phoenix_crds::{
    Duration, Hypervisor, Lxc, LxcContainer, LxcStatus, LxcTemplate, PowerState, Quantity, Sharing,
    Strategy,
};
use serde_json::json;

const QWEN3: &str = r#"
apiVersion: phoenix-hypervisor.io/v1alpha1
kind: LxcContainer
metadata: {name: vllm-qwen3-coder}
spec:
  hypervisorRef: {name: home}
  vmid: 950
  source: {templateRef: {name: base-template-vllm}}
  resources: {cores: 8, memory: 40Gi, swap: 512Mi}
  rootfs: {size: 100Gi}
  network:
    - {name: eth0, bridge: vmbr0, address: 10.0.0.150/24, gateway: 10.0.0.1}
  features: {nesting: true}
  gpus: {indices: [0, 1], sharing: Exclusive}
  vllm:
    model: Qwen/Qwen3-Coder-30B-A3B-Instruct
    servedModelName: qwen3-coder
    tensorParallelSize: 2
    port: 8000
    extraArgs: ["--max-model-len=32768"]
    huggingFaceToken: {secretKeyRef: {name: huggingface, key: token}}
"#;

#[test]
fn the_example_of_the_api_is_read_whole() {
    let object: LxcContainer = serde_saphyr::from_str(QWEN3).unwrap();
    let shared = object.spec_shared();
    assert_eq!(shared.hypervisor_ref.as_ref().unwrap().name, "home");
    assert_eq!(shared.vmid, Some(950));
    assert_eq!(
        shared.source.template_ref.as_ref().unwrap().name,
        "base-template-vllm"
    );
    let resources = shared.resources.as_ref().unwrap();
    assert_eq!(
        (
            resources.cores,
            resources.memory.as_ref().unwrap().mebibytes()
        ),
        (Some(8), Ok(40 * 1024))
    );
    assert_eq!(
        shared
            .rootfs
            .as_ref()
            .unwrap()
            .size
            .as_ref()
            .unwrap()
            .gibibytes(),
        Ok(100)
    );
    assert_eq!(shared.network[0].address.as_deref(), Some("10.0.0.150/24"));
    assert_eq!(shared.gpu_indices(), [0, 1]);
    assert_eq!(shared.gpus.as_ref().unwrap().sharing, Sharing::Exclusive);
    assert_eq!(shared.shutdown_timeout(), Duration::from_secs(60));
    assert_eq!(object.spec.power_state, PowerState::Running);
    let vllm = object.spec.vllm.as_ref().unwrap();
    assert_eq!(
        (vllm.served_model_name(), vllm.port(), vllm.host()),
        ("qwen3-coder", 8000, "0.0.0.0")
    );
    assert_eq!(vllm.executable(), "/opt/vllm/bin/vllm");
    assert_eq!(vllm.startup_timeout(), Duration::from_mins(60));
    assert_eq!(
        vllm.hugging_face_token.as_ref().unwrap().secret_key_ref.key,
        "token"
    );
    assert!(object.status_shared().is_none());
}

#[test]
fn writing_an_object_back_changes_nothing() {
    let written: serde_json::Value = serde_saphyr::from_str(QWEN3).unwrap();
    let object: LxcContainer = serde_json::from_value(written.clone()).unwrap();
    let mut expected = written;
    expected["spec"]["powerState"] = json!("Running");
    assert_eq!(serde_json::to_value(object).unwrap(), expected);
}

#[test]
fn what_was_left_out_gets_the_defaults_of_the_schema() {
    let template: LxcTemplate = serde_json::from_value(json!({
        "apiVersion": "phoenix-hypervisor.io/v1alpha1", "kind": "LxcTemplate", "metadata": { "name": "base" },
        "spec": { "source": { "osTemplate": "local:vztmpl/x.tar.zst" }, "snapshot": { "name": "base-snapshot" }, "setup": { "script": "true" } },
    }))
    .unwrap();
    let setup = template.spec.shared.setup.as_ref().unwrap();
    assert_eq!(
        (
            template.spec.snapshot.strategy,
            setup.timeout,
            setup.retries
        ),
        (Strategy::Auto, Duration::from_mins(30), 3)
    );
}

#[test]
fn values_of_a_newer_version_are_read_as_unknown() {
    let object: LxcContainer = serde_json::from_value(json!({
        "apiVersion": "phoenix-hypervisor.io/v1alpha1", "kind": "LxcContainer", "metadata": { "name": "web" },
        "spec": { "source": { "templateRef": { "name": "base" } }, "powerState": "Suspended", "deletionPolicy": "Archive", "mood": "good" },
        "status": { "observedGeneration": -1, "state": "Dreaming", "vmid": 950, "colour": "blue" },
    }))
    .unwrap();
    assert_eq!(object.spec.power_state, PowerState::Unknown);
    assert_eq!(
        object.spec.shared.deletion_policy,
        Some(DeletionPolicy::Unknown)
    );
    let status = object.status_shared().unwrap();
    assert_eq!(
        (status.state, status.vmid, status.observed_generation),
        (Some(State::Unknown), Some(950), Some(-1))
    );
}

#[test]
fn an_amount_may_be_a_plain_number() {
    let object: LxcContainer = serde_json::from_value(json!({
        "apiVersion": "phoenix-hypervisor.io/v1alpha1", "kind": "LxcContainer", "metadata": { "name": "web" },
        "spec": { "source": { "templateRef": { "name": "base" } }, "resources": { "memory": 2_147_483_648_u64, "swap": 0, "cpuLimit": 2 } },
    }))
    .unwrap();
    let resources = object.spec.shared.resources.unwrap();
    assert_eq!(resources.memory.unwrap().mebibytes(), Ok(2048));
    assert_eq!(resources.swap.unwrap().mebibytes(), Ok(0));
    assert_eq!(resources.cpu_limit, Some(2.0));
}

#[test]
fn a_status_that_says_nothing_writes_nothing() {
    assert_eq!(
        serde_json::to_value(LxcStatus::default()).unwrap(),
        json!({})
    );
    assert_eq!(
        serde_json::to_value(phoenix_crds::HypervisorStatus::default()).unwrap(),
        json!({})
    );
}

#[test]
fn a_hypervisor_has_the_intervals_of_the_api() {
    let hypervisor: Hypervisor = serde_saphyr::from_str(
        r#"
apiVersion: phoenix-hypervisor.io/v1alpha1
kind: Hypervisor
metadata: {name: home}
spec:
  endpoints: ["https://pve1.lan:8006"]
  credentialsSecret: home
  allowedNamespaces: {matchLabels: {team: ai}}
  vmidRange: {start: 900, end: 999}
  polling: {drift: 1h}
"#,
    )
    .unwrap();
    assert_eq!(
        (
            hypervisor.spec.poll_interval(),
            hypervisor.spec.drift_interval()
        ),
        (Duration::from_secs(10), Duration::from_mins(60))
    );
    let range = hypervisor.spec.vmid_range.unwrap();
    assert!(range.contains(900) && range.contains(999) && !range.contains(1000));
    assert_eq!(
        hypervisor
            .spec
            .allowed_namespaces
            .unwrap()
            .match_labels
            .unwrap()["team"],
        "ai"
    );
    assert_eq!(Quantity::from_mebibytes(49_140).as_str(), "49140Mi");
}
