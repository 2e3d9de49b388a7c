//! The shipped manifests are objects of this API: they decode without loss, and no rule refuses them.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, also in the functions that its cases share"
)]

use std::fs;
use std::path::{Path, PathBuf};

use evaluator::{documents, judge};
use phoenix_crds::{GROUP, Hypervisor, LxcContainer, LxcTemplate};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

mod evaluator;

fn shipped() -> Vec<(PathBuf, Value)> {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    let files = ["phoenix", "hypervisor"]
        .into_iter()
        .flat_map(|folder| fs::read_dir(manifests.join(folder)).unwrap());
    let ours = |object: &Value| {
        object["apiVersion"]
            .as_str()
            .is_some_and(|version| version.starts_with(&format!("{GROUP}/")))
    };
    files
        .map(|entry| entry.unwrap().path())
        .filter(|file| {
            file.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .flat_map(|file| {
            documents(&file)
                .into_iter()
                .map(move |object| (file.clone(), object))
        })
        .filter(|(_, object)| ours(object))
        .collect()
}

/// Fields that are in the text and not in the object that was made of it.
fn lost(path: &str, text: &Value, object: &Value) -> Vec<String> {
    match (text, object) {
        (Value::Object(fields), Value::Object(_)) => fields
            .iter()
            .flat_map(|(name, value)| lost(&format!("{path}.{name}"), value, &object[name]))
            .collect(),
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => items
            .iter()
            .zip(others)
            .flat_map(|(item, other)| lost(&format!("{path}[]"), item, other))
            .collect(),
        _ if text == object => Vec::new(),
        _ => vec![format!("{path}: {text} became {object}")],
    }
}

fn decoded<K: DeserializeOwned + Serialize>(object: &Value) -> Value {
    serde_json::to_value(serde_json::from_value::<K>(object.clone()).unwrap()).unwrap()
}

#[test]
fn the_six_systems_and_a_hypervisor_are_there() {
    let mut vmids: Vec<i64> = shipped()
        .iter()
        .filter_map(|(_, object)| object["spec"]["vmid"].as_i64())
        .collect();
    vmids.sort_unstable();
    assert_eq!(vmids, [900, 901, 902, 910, 920, 950]);
    assert!(
        shipped()
            .iter()
            .any(|(_, object)| object["kind"] == "Hypervisor")
    );
}

#[test]
fn they_decode_without_loss() {
    for (file, object) in shipped() {
        let decoded = match object["kind"].as_str() {
            Some("Hypervisor") => decoded::<Hypervisor>(&object),
            Some("LxcTemplate") => decoded::<LxcTemplate>(&object),
            Some("LxcContainer") => decoded::<LxcContainer>(&object),
            other => panic!("{}: kind {other:?}", file.display()),
        };
        assert_eq!(
            lost("", &object, &decoded),
            Vec::<String>::new(),
            "{}",
            file.display()
        );
    }
}

#[test]
fn no_rule_refuses_them() {
    for (file, object) in shipped() {
        let judgement = judge(&object, None);
        assert!(
            judgement.refusals.is_empty() && judgement.troubles.is_empty(),
            "{}: {judgement:#?}",
            file.display()
        );
    }
}
