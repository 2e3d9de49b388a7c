//! Schemas that a derive can't write: bounded texts in status, label selectors, conditions, times.

use schemars::{Schema, SchemaGenerator, json_schema};

/// One word or name in status: bounded, any value, so that a newer controller can report what this version doesn't know.
pub(crate) fn word(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 253 })
}

/// A point in time, in whole seconds.
pub(crate) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time", "maxLength": 64 })
}

/// A label selector, bounded.
pub(crate) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "description": "Labels that must be present with these values.",
                "type": "object",
                "maxProperties": 32,
                "additionalProperties": { "type": "string", "maxLength": 63 },
            },
            "matchExpressions": {
                "description": "Requirements on labels, all of which must hold.",
                "type": "array",
                "maxItems": 32,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": { "description": "The label's key.", "type": "string", "maxLength": 317 },
                        "operator": {
                            "description": "How key and values relate.",
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "description": "The values; empty for Exists and DoesNotExist.",
                            "type": "array",
                            "maxItems": 64,
                            "items": { "type": "string", "maxLength": 63 },
                            "x-kubernetes-list-type": "atomic",
                        },
                    },
                },
            },
        },
        "x-kubernetes-map-type": "atomic",
    })
}

/// Annotations, bounded.
pub(crate) fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 4096 },
    })
}

/// `metav1.Condition`s, one per type.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": { "description": "What the condition is about.", "type": "string", "maxLength": 316 },
                "status": {
                    "description": "Whether it holds: True, False or Unknown.",
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                },
                "observedGeneration": {
                    "description": "The generation of the object that this was found for.",
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                    "maximum": MAX_GENERATION,
                },
                "lastTransitionTime": {
                    "description": "When the status last changed.",
                    "type": "string",
                    "format": "date-time",
                    "maxLength": 64,
                },
                "reason": { "description": "Why, as one word for programs.", "type": "string", "maxLength": 1024 },
                "message": {
                    "description": "Why, as a sentence for people: what is the matter, where, and what to do.",
                    "type": "string",
                    "maxLength": 32768,
                },
            },
        },
    })
}

/// The largest integer that every JSON reader keeps exact.
pub(crate) const MAX_GENERATION: i64 = (1 << 53) - 1;
