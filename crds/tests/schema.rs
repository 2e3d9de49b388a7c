//! The schemas as a whole: everything is bounded, nothing surprises GitOps, and the files beside the crate are current.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, also in the functions that its cases share"
)]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

fn schemas() -> Vec<(String, Value)> {
    let schema = |crd: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition| {
        let version = &crd.spec.versions[0];
        let schema = version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        (crd.spec.names.kind.clone(), serde_json::to_value(schema).unwrap())
    };
    phoenix_crds::crds().into_iter().map(schema).collect()
}

/// Calls `visit` with the path of every schema in a schema, and whether it is inside a list.
fn walk(path: &str, in_list: bool, schema: &Value, visit: &mut dyn FnMut(&str, bool, &Value)) {
    visit(path, in_list, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), in_list, property, visit);
    }
    if schema["items"].is_object() {
        walk(&format!("{path}[]"), true, &schema["items"], visit);
    }
    if schema["additionalProperties"].is_object() {
        walk(
            &format!("{path}{{}}"),
            in_list,
            &schema["additionalProperties"],
            visit,
        );
    }
}

fn complaints(mut check: impl FnMut(&str, bool, &Value) -> Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    for (kind, schema) in schemas() {
        walk(&kind, false, &schema, &mut |path, in_list, schema| {
            found.extend(
                check(path, in_list, schema).map(|complaint| format!("{path} {complaint}")),
            );
        });
    }
    found
}

#[test]
fn everything_is_bounded() {
    let unbounded = complaints(|_, _, schema| {
        let lacks = |bound: &str| schema[bound].is_null().then(|| format!("has no {bound}"));
        if schema["x-kubernetes-int-or-string"] == json!(true) {
            return lacks("maxLength").or_else(|| lacks("pattern"));
        }
        match schema["type"].as_str() {
            Some("integer" | "number") => lacks("minimum").or_else(|| lacks("maximum")),
            Some("string") if schema["enum"].is_null() => lacks("maxLength"),
            Some("array") => lacks("maxItems").or_else(|| lacks("x-kubernetes-list-type")),
            Some("object") if schema["properties"].is_null() => lacks("maxProperties"),
            Some("string" | "boolean" | "object") => None,
            other => Some(format!("has type {other:?}")),
        }
    });
    assert_eq!(unbounded, Vec::<String>::new());
}

#[test]
fn whatever_the_bounds_let_in_fits_its_type() {
    // All integers are i64 in Rust, but must stay exact in every JSON reader.
    let too_wide = complaints(|_, _, schema| {
        let exact = |bound: &str| {
            schema[bound]
                .as_f64()
                .is_none_or(|value| value.abs() <= 9_007_199_254_740_991.0)
        };
        let format = schema["format"].as_str().unwrap_or("int64");
        (schema["type"] == json!("integer")
            && !(exact("minimum") && exact("maximum") && format == "int64"))
            .then(|| "is wider than an exact integer".to_owned())
    });
    assert_eq!(too_wide, Vec::<String>::new());
}

#[test]
fn the_only_defaults_are_those_of_the_api() {
    let mut defaults = Vec::new();
    let in_lists = complaints(|path, in_list, schema| {
        let default = schema.get("default")?;
        defaults.push(format!("{path} = {default}"));
        in_list.then(|| "has a default inside a list".to_owned())
    });
    assert_eq!(in_lists, Vec::<String>::new());
    assert_eq!(
        defaults,
        [
            r#"Hypervisor.status = {"observedGeneration":-1}"#,
            r#"LxcTemplate.spec.gpus.sharing = "Shared""#,
            r"LxcTemplate.spec.setup.retries = 3",
            r#"LxcTemplate.spec.setup.timeout = "30m""#,
            r#"LxcTemplate.spec.snapshot.strategy = "Auto""#,
            r#"LxcTemplate.status = {"observedGeneration":-1}"#,
            r#"LxcContainer.spec.gpus.sharing = "Shared""#,
            r#"LxcContainer.spec.powerState = "Running""#,
            r"LxcContainer.spec.setup.retries = 3",
            r#"LxcContainer.spec.setup.timeout = "30m""#,
            r"LxcContainer.spec.vllm.port = 8000",
            r#"LxcContainer.status = {"observedGeneration":-1}"#,
        ]
    );
}

#[test]
fn a_null_counts_as_left_out() {
    let nullable = complaints(|_, _, schema| {
        (!schema["nullable"].is_null()).then(|| "is nullable".to_owned())
    });
    assert_eq!(nullable, Vec::<String>::new());
}

#[test]
fn unknown_values_are_no_part_of_the_schema() {
    let unknown = complaints(|path, _, schema| {
        let values = schema["enum"].as_array()?;
        (values.contains(&json!("Unknown")) && !path.ends_with(".conditions[].status"))
            .then(|| format!("takes Unknown: {values:?}"))
    });
    assert_eq!(unknown, Vec::<String>::new());
}

#[test]
fn every_field_says_what_it_is() {
    let silent = complaints(|path, _, schema| {
        let last = path.rsplit('.').next().unwrap();
        let named = !last.ends_with("[]") && !last.ends_with("{}") && path.contains('.');
        match schema["description"].as_str() {
            None if named => Some("has no description".to_owned()),
            // Explained in a terminal: no walls of text, and no line breaks where the source has them.
            Some(text) if text.len() > 400 || text.contains('\n') => {
                Some(format!("is described by {text:?}"))
            }
            _ => None,
        }
    });
    assert_eq!(silent, Vec::<String>::new());
}

#[test]
fn the_files_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for crd in phoenix_crds::crds() {
        let file = folder.join(format!("{}.yaml", crd.spec.names.plural));
        let stored = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            stored == phoenix_crds::to_yaml(&crd).unwrap(),
            "crds/{}.yaml is stale: run `cargo run -p phoenix-crds --example generate`",
            crd.spec.names.plural
        );
        assert_eq!(
            crd,
            serde_saphyr::from_str(&stored).unwrap(),
            "the YAML says something else than the definition"
        );
    }
}

/// A value with everything that a schema allows, integers at the bound asked for.
fn everything(schema: &Value, integers: &str) -> Value {
    if schema["x-kubernetes-int-or-string"] == json!(true) {
        return json!("7Gi");
    }
    if let Some(values) = schema["enum"].as_array() {
        return values[0].clone();
    }
    match schema["type"].as_str() {
        // Bounds are floats in the schema, and are whole here.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "another test keeps the bounds below 2^53"
        )]
        Some("integer") => json!(schema[integers].as_f64().unwrap() as i64),
        Some("number") => schema[integers].clone(),
        Some("boolean") => json!(true),
        Some("array") => json!([everything(&schema["items"], integers)]),
        Some("object") if schema["properties"].is_object() => {
            let properties = schema["properties"].as_object().unwrap().iter();
            properties
                .map(|(name, property)| (name.clone(), everything(property, integers)))
                .collect()
        }
        Some("object") => json!({ "key": everything(&schema["additionalProperties"], integers) }),
        Some("string") if schema["format"] == json!("date-time") => json!("2026-11-25T02:00:00Z"),
        Some("string")
            if schema["pattern"]
                .as_str()
                .is_some_and(|pattern| pattern.contains("ms)?$")) =>
        {
            json!("1h30m")
        }
        Some("string") => json!("text"),
        other => panic!("a schema of type {other:?}"),
    }
}

/// An object of a kind with every field of its schema, decoded and encoded.
fn there_and_back<K: serde::Serialize + serde::de::DeserializeOwned>(kind: &str, integers: &str) {
    let (_, schema) = schemas()
        .into_iter()
        .find(|(name, _)| name == kind)
        .unwrap();
    let object = json!({
        "apiVersion": "phoenix-hypervisor.io/v1alpha1",
        "kind": kind,
        "metadata": { "name": "everything" },
        "spec": everything(&schema["properties"]["spec"], integers),
        "status": everything(&schema["properties"]["status"], integers),
    });
    let mut expected = object.clone();
    // Not part of the schema on purpose: one word, whatever it is, and `Unknown` for a word that isn't known.
    if expected["status"]["state"] == json!("text") {
        expected["status"]["state"] = json!("Unknown");
    }
    let decoded: K =
        serde_json::from_value(object).unwrap_or_else(|error| panic!("{kind}: {error}"));
    assert_eq!(
        serde_json::to_value(decoded).unwrap(),
        expected,
        "the schema of {kind} has fields that its type doesn't have"
    );
}

#[test]
fn the_types_take_and_keep_everything_that_the_schemas_allow() {
    for integers in ["minimum", "maximum"] {
        there_and_back::<phoenix_crds::Hypervisor>("Hypervisor", integers);
        there_and_back::<phoenix_crds::LxcTemplate>("LxcTemplate", integers);
        there_and_back::<phoenix_crds::LxcContainer>("LxcContainer", integers);
    }
}
