//! Makes `schema.json` from a published API description: descriptive texts go, loose types are made strict.
//!
//! Run as `proxmox-simulator reduce-schema FILE`. Only the paths this simulator may serve are kept.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

const KEPT_METHOD_KEYS: [&str; 5] = [
    "allowtoken",
    "protected",
    "proxyto",
    "permissions",
    "parameters",
];
const KEPT_PROPERTY_KEYS: [&str; 11] = [
    "type",
    "optional",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "requires",
    "default_key",
    "format",
];
const LEFT_OUT: [&str; 3] = ["/cluster/mapping", "/mtunnel", "/file-restore"];

/// Reduces an API description of the form `{path: {METHOD: {…}}}`.
pub fn reduce(text: &str) -> Result<String> {
    let full: Map<String, Value> =
        serde_json::from_str(text).context("the description is no JSON object")?;
    ensure!(!full.is_empty(), "the description is empty");
    let mut paths = Map::new();
    for (path, methods) in full {
        if LEFT_OUT.iter().any(|part| path.contains(part)) {
            continue;
        }
        let methods = methods
            .as_object()
            .with_context(|| format!("{path} holds no methods"))?;
        let methods: Map<String, Value> = methods
            .iter()
            .map(|(name, method)| (name.clone(), reduce_method(method)))
            .collect();
        paths.insert(path, Value::Object(methods));
    }
    let mut out = serde_json::to_string_pretty(&Value::Object(paths))?;
    out.push('\n');
    Ok(out)
}

fn reduce_method(method: &Value) -> Value {
    let mut out = Map::new();
    for key in KEPT_METHOD_KEYS {
        let Some(value) = method.get(key) else {
            continue;
        };
        let value = match key {
            "allowtoken" | "protected" => Value::Bool(truthy(value)),
            "permissions" => without(value, "description"),
            "parameters" => {
                let properties = value
                    .get("properties")
                    .map_or_else(|| Value::Object(Map::new()), reduce_properties);
                Value::Object(Map::from_iter([("properties".to_owned(), properties)]))
            }
            _ => value.clone(),
        };
        out.insert(key.to_owned(), value);
    }
    Value::Object(out)
}

fn reduce_properties(properties: &Value) -> Value {
    let entries = properties.as_object().into_iter().flatten();
    Value::Object(
        entries
            .map(|(name, property)| (name.clone(), reduce_property(property)))
            .collect(),
    )
}

fn reduce_property(property: &Value) -> Value {
    let mut out = Map::new();
    for key in KEPT_PROPERTY_KEYS {
        let Some(value) = property.get(key) else {
            continue;
        };
        let value = match key {
            "optional" | "default_key" => Value::Bool(truthy(value)),
            "minimum" | "maximum" | "minLength" | "maxLength" => number(value),
            "format" if value.is_object() => reduce_properties(value),
            _ => value.clone(),
        };
        out.insert(key.to_owned(), value);
    }
    Value::Object(out)
}

fn without(value: &Value, key: &str) -> Value {
    let mut value = value.clone();
    if let Some(map) = value.as_object_mut() {
        map.remove(key);
    }
    value
}

fn truthy(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false))
        && value.as_i64() != Some(0)
        && value.as_str() != Some("0")
}

fn number(value: &Value) -> Value {
    value
        .as_str()
        .and_then(|text| text.parse::<i64>().ok())
        .map_or_else(|| value.clone(), Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_go_and_parameters_named_description_stay() {
        let reduced = reduce(
            r#"{"/x": {"GET": {"description": "Long text", "protected": 1, "permissions": {"user": "all", "description": "…"},
                "parameters": {"additionalProperties": 0, "properties": {"description": {"type": "string", "optional": 1, "description": "t", "minimum": "0"}}}}}}"#,
        )
        .unwrap();
        assert!(!reduced.contains("Long text") && !reduced.contains('…'));
        let value: Value = serde_json::from_str(&reduced).unwrap();
        let property = &value["/x"]["GET"]["parameters"]["properties"]["description"];
        assert_eq!(
            property,
            &serde_json::json!({"type": "string", "optional": true, "minimum": 0})
        );
        assert_eq!(value["/x"]["GET"]["protected"], true);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(reduce("[]").is_err());
        assert!(reduce("{}").is_err());
    }
}
