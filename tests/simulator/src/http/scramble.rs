//! JSON as Perl prints it: the keys of an object come in no order, another one each time.

use rand::seq::SliceRandom;
use serde_json::{Map, Value};

/// A whole body; its own keys keep their order, those of what it carries don't.
pub(crate) fn body(value: &Value) -> String {
    match value {
        Value::Object(map) => object(map.iter()),
        other => other.to_string(),
    }
}

fn object<'a>(entries: impl Iterator<Item = (&'a String, &'a Value)>) -> String {
    let parts: Vec<String> = entries
        .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), scrambled(value)))
        .collect();
    format!("{{{}}}", parts.join(","))
}

fn scrambled(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = entries(map);
            entries.shuffle(&mut rand::rng());
            object(entries.into_iter())
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(scrambled).collect();
            format!("[{}]", items.join(","))
        }
        other => other.to_string(),
    }
}

fn entries(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    map.iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_scrambled_is_still_the_same() {
        let value = json!({"data": [{"a": 1, "b": "x\"y\n", "c": null, "d": {"e": [1.5, true], "f": {}}}], "total": 3});
        for _ in 0..20 {
            let text = body(&value);
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
            assert!(text.starts_with(r#"{"data":["#) && text.ends_with(r#","total":3}"#));
        }
        let wide = json!({"data": (0..30).map(|n| (format!("k{n}"), n)).collect::<std::collections::BTreeMap<_, _>>()});
        assert_ne!(body(&wide), body(&wide));
    }
}
