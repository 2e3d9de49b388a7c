//! The columns of `kubectl get`, and of `kubectl get -o wide`.
//!
//! A column's JSON path can't join or format, so what needs that is a text in `status.display`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceColumnDefinition;

/// Name and path of columns that hold text, in their order.
type Texts = &'static [(&'static str, &'static str)];

const HYPERVISOR: Texts = &[
    ("Version", ".status.version"),
    ("Nodes", ".status.display.nodes"),
    ("GPUs", ".status.display.gpus"),
    ("Containers", ".status.display.containers"),
];
const TEMPLATE: Texts = &[
    ("Node", ".status.node"),
    ("Source", ".status.display.source"),
    ("Snapshot", ".status.snapshot.name"),
    ("Strategy", ".status.snapshot.strategy"),
    ("Revision", ".status.revision"),
];
const CONTAINER: Texts = &[
    ("Node", ".status.node"),
    ("Source", ".status.display.source"),
    ("State", ".status.state"),
    ("GPUs", ".status.display.gpus"),
    ("vLLM", ".status.display.vllm"),
];

/// The columns of a kind; none for one that isn't ours.
pub(crate) fn of(kind: &str) -> Vec<CustomResourceColumnDefinition> {
    let (vmid, texts) = match kind {
        "Hypervisor" => (None, HYPERVISOR),
        "LxcTemplate" => (Some(column("VMID", "integer", ".status.vmid")), TEMPLATE),
        "LxcContainer" => (Some(column("VMID", "integer", ".status.vmid")), CONTAINER),
        _ => return Vec::new(),
    };
    vmid.into_iter()
        .chain(
            texts
                .iter()
                .map(|(name, path)| column(name, "string", path)),
        )
        .chain([
            column("Ready", "string", &ready("status")),
            column("Age", "date", ".metadata.creationTimestamp"),
            wide(column("Reason", "string", &ready("reason"))),
            wide(column("Message", "string", &ready("message"))),
        ])
        .collect()
}

fn ready(field: &str) -> String {
    format!(r#".status.conditions[?(@.type=="Ready")].{field}"#)
}

fn column(name: &str, type_: &str, json_path: &str) -> CustomResourceColumnDefinition {
    CustomResourceColumnDefinition {
        name: name.to_owned(),
        type_: type_.to_owned(),
        json_path: json_path.to_owned(),
        ..CustomResourceColumnDefinition::default()
    }
}

/// Shown with `-o wide` only.
fn wide(column: CustomResourceColumnDefinition) -> CustomResourceColumnDefinition {
    CustomResourceColumnDefinition {
        priority: Some(1),
        ..column
    }
}
