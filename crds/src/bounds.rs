//! Makes a status fit its schema.
//!
//! A status holds texts of others: Proxmox's errors, a script's output, a model's name. One that is longer than its
//! schema allows would make the API server refuse the whole status, and the object would look as if nothing happened.
//! So texts and lists are cut, and numbers kept within their range, before a status is written.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinitionVersion, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

use crate::crd::crds;

static STATUS: LazyLock<BTreeMap<String, JSONSchemaProps>> = LazyLock::new(|| {
    let status = |version: CustomResourceDefinitionVersion| {
        version
            .schema?
            .open_api_v3_schema?
            .properties?
            .remove("status")
    };
    crds()
        .into_iter()
        .filter_map(|crd| {
            Some((
                crd.spec.names.kind,
                crd.spec.versions.into_iter().find_map(status)?,
            ))
        })
        .collect()
});

/// Cuts what is longer in the status of an object of this kind than its schema allows.
pub fn fit_status(kind: &str, status: &mut Value) {
    if let Some(schema) = STATUS.get(kind) {
        fit(schema, status);
    }
}

fn fit(schema: &JSONSchemaProps, value: &mut Value) {
    match value {
        Value::String(text) => cut(text, limit(schema.max_length)),
        Value::Array(items) => {
            items.truncate(limit(schema.max_items));
            if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
                for value in items.iter_mut() {
                    fit(item, value);
                }
            }
        }
        Value::Object(fields) => {
            let named = schema.properties.as_ref();
            let other = match &schema.additional_properties {
                Some(JSONSchemaPropsOrBool::Schema(other)) => Some(&**other),
                _ => None,
            };
            for (name, value) in fields {
                if let Some(schema) = named.and_then(|named| named.get(name)).or(other) {
                    fit(schema, value);
                }
            }
        }
        Value::Number(number) => {
            let float = number.as_f64().unwrap_or_default();
            let bound = schema
                .minimum
                .filter(|minimum| float < *minimum)
                .or(schema.maximum.filter(|maximum| float > *maximum));
            if let Some(bound) = bound {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "bounds of integers are whole and below 2^53"
                )]
                let whole = bound as i64;
                *value = if schema.type_.as_deref() == Some("integer") {
                    Value::from(whole)
                } else {
                    Value::from(bound)
                };
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn limit(bound: Option<i64>) -> usize {
    bound
        .and_then(|bound| usize::try_from(bound).ok())
        .unwrap_or(usize::MAX)
}

/// Keeps the beginning of a text, and shows that there was more. The schema counts characters, not bytes.
fn cut(text: &mut String, limit: usize) {
    if limit > 0
        && let Some((end, _)) = text.char_indices().nth(limit)
        && end < text.len()
    {
        let kept = text
            .char_indices()
            .nth(limit - 1)
            .map_or(0, |(last, _)| last);
        text.truncate(kept);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::{cut, fit_status};

    fn fitted(mut status: Value) -> Value {
        fit_status("LxcContainer", &mut status);
        status
    }

    #[test]
    fn long_texts_and_lists_are_cut_and_numbers_kept_in_range() {
        let status = fitted(json!({
            "vmid": 5_000_000_000_i64,
            "plan": vec!["step"; 1000],
            "setup": { "lastLines": "x".repeat(10_000), "exitCode": -17 },
            "conditions": [{ "type": "Ready", "message": "ä".repeat(40_000) }],
            "gpus": [{ "index": 3, "name": "n".repeat(1000) }],
        }));
        assert_eq!(status["vmid"], 999_999_999);
        assert_eq!(status["plan"].as_array().unwrap().len(), 32);
        assert_eq!(
            status["setup"]["lastLines"]
                .as_str()
                .unwrap()
                .chars()
                .count(),
            4096
        );
        assert_eq!(status["setup"]["exitCode"], -1);
        let message = status["conditions"][0]["message"].as_str().unwrap();
        assert_eq!(
            (message.chars().count(), message.ends_with("ä…")),
            (32_768, true)
        );
        assert_eq!(
            status["gpus"][0]["name"].as_str().unwrap().chars().count(),
            128
        );
        assert_eq!(status["gpus"][0]["index"], 3);
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let status = json!({
            "observedGeneration": -1, "vmid": 950, "plan": ["start"], "addresses": ["10.0.0.150"],
            "conditions": [{ "type": "Ready", "status": "True", "message": "The model answers." }],
        });
        assert_eq!(fitted(status.clone()), status);
    }

    #[test]
    fn other_kinds_are_left_alone() {
        let mut status = json!({ "message": "x".repeat(100_000) });
        let before = status.clone();
        fit_status("Pod", &mut status);
        assert_eq!(status, before);
    }

    proptest! {
        #[test]
        fn a_cut_text_is_as_long_as_allowed_and_begins_as_before(text in "\\PC{0,40}", limit in 1..30_usize) {
            let mut kept = text.clone();
            cut(&mut kept, limit);
            prop_assert_eq!(kept.chars().count(), text.chars().count().min(limit));
            prop_assert!(text.starts_with(kept.trim_end_matches('…')));
            prop_assert_eq!(kept == text, text.chars().count() <= limit);
        }
    }
}
