//! The rules of the CRDs, judged without an API server.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, also in the functions that its cases share"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use kube_cel::{CompiledSchema, ErrorKind, Validator, compile_schema};
use serde_json::Value;

static SCHEMAS: LazyLock<BTreeMap<String, CompiledSchema>> = LazyLock::new(|| {
    let compiled = |crd: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition| {
        let schema = crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        (crd.spec.names.kind, compile_schema(&serde_json::to_value(schema).unwrap()))
    };
    phoenix_crds::crds().into_iter().map(compiled).collect()
});

/// What the rules say to an object.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    /// The sentences of the rules that refuse it.
    pub(crate) refusals: Vec<String>,
    /// Rules that the evaluator could not run.
    pub(crate) troubles: Vec<String>,
}

/// The documents of a YAML file.
pub(crate) fn documents(file: &Path) -> Vec<Value> {
    let text =
        fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.split("\n---\n")
        .map(|document| {
            serde_saphyr::from_str(document)
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        })
        .collect()
}

/// Judges an object, and what it is changed from where there is such.
pub(crate) fn judge(object: &Value, old: Option<&Value>) -> Judgement {
    let schema = &SCHEMAS[object["kind"].as_str().unwrap()];
    let mut judgement = Judgement::default();
    if let Err(errors) = Validator::new().validate_compiled(schema, object, old) {
        for error in errors.into_vec() {
            if error.kind == ErrorKind::ValidationFailure {
                judgement.refusals.push(error.message);
            } else {
                judgement.troubles.push(format!(
                    "{}: {}: {}",
                    error.field_path, error.rule, error.message
                ));
            }
        }
    }
    judgement
}
