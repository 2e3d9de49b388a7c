//! The `CustomResourceDefinition`s: made once, here, for the files beside this crate, the chart and `phoenix crds`.
//!
//! The derives give types and descriptions. Added here is what they can't say, or what they would say once per kind:
//! columns, rules, the status of an object that nobody has looked at yet, and tidier texts.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{Hypervisor, LxcContainer, LxcTemplate, columns, rules};

/// The definitions of all kinds.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [Hypervisor::crd(), LxcTemplate::crd(), LxcContainer::crd()]
        .into_iter()
        .map(finished)
        .collect()
}

/// A definition as YAML.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, YamlError> {
    let mut value = serde_json::to_value(crd)?;
    whole_numbers(&mut value);
    Ok(format!(
        "# Generated from crds/src: cargo run -p phoenix-crds --example generate\n{}",
        serde_saphyr::to_string(&value)?
    ))
}

/// Why a definition could not be written as YAML.
#[derive(thiserror::Error, Debug)]
pub enum YamlError {
    /// It could not be turned into JSON.
    #[error("the definition could not be turned into JSON")]
    Json(#[from] serde_json::Error),
    /// The JSON could not be turned into YAML.
    #[error("the definition could not be turned into YAML")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

fn finished(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let kind = crd.spec.names.kind.clone();
    for version in &mut crd.spec.versions {
        version.additional_printer_columns = Some(columns::of(&kind));
        let Some(root) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        root.title = None;
        tidy(root);
        if let Some(status) = root
            .properties
            .as_mut()
            .and_then(|properties| properties.get_mut("status"))
        {
            // kstatus takes an object without status for finished; with this one it is in progress from its first moment.
            status.default = Some(JSON(json!({ "observedGeneration": -1 })));
        }
        rules::apply(&kind, root);
    }
    crd
}

/// Goes through a schema and what is in it.
fn tidy(schema: &mut JSONSchemaProps) {
    // Without it a null counts as left out, as everywhere in Kubernetes; with it a null is stored, and `has()` is true.
    schema.nullable = None;
    schema.description = schema.description.take().map(|text| rejoined(&text));
    schema
        .properties
        .iter_mut()
        .flat_map(|properties| properties.values_mut())
        .for_each(tidy);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => tidy(items),
        Some(JSONSchemaPropsOrArray::Schemas(all)) => all.iter_mut().for_each(tidy),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values);
    }
}

/// Joins the lines of a paragraph: they end where the source's do, which means nothing to a reader.
fn rejoined(text: &str) -> String {
    text.split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("\n\n")
}

/// Bounds are floats in the type, and would be written as `100.0`.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Object(object) => object.values_mut().for_each(whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Number(number) => {
            if let Some(whole) = number
                .as_f64()
                .filter(|float| float.fract() == 0.0 && number.is_f64())
            {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "bounds are far inside 2^53"
                )]
                let whole = whole as i64;
                *value = Value::from(whole);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
