//! How Proxmox writes values: Perl scalars, so a number may come as text, a flag as `1`, `"1"`, `true` or not at all, and
//! a list as text with commas, semicolons or blanks. All tolerance lives here; types elsewhere are what they seem.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A flag; absent, null, empty, `0` and `"0"` are false.
pub(crate) fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Ok(as_flag(&Value::deserialize(from)?))
}

/// A whole number; anything else is none.
pub(crate) fn number<'de, D: Deserializer<'de>, N: TryFrom<u64>>(
    from: D,
) -> Result<Option<N>, D::Error> {
    Ok(as_u64(&Value::deserialize(from)?).and_then(|n| N::try_from(n).ok()))
}

/// A number with a fraction; anything else is none.
pub(crate) fn fraction<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => s.trim().parse().ok(),
        _ => None,
    })
}

/// A scalar as text; null and what is no scalar is none.
pub(crate) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(as_text(&Value::deserialize(from)?))
}

/// A scalar as text, empty where there is none.
pub(crate) fn text_or_empty<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(text(from)?.unwrap_or_default())
}

/// A list written as one text, or as an array.
pub(crate) fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Array(items) => items.iter().filter_map(as_text).collect(),
        other => split_list(&as_text(&other).unwrap_or_default()),
    })
}

pub(crate) fn split_list(text: &str) -> Vec<String> {
    text.split([',', ';', ' '])
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}

pub(crate) fn as_flag(value: &Value) -> bool {
    match value {
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !matches!(s.as_str(), "" | "0" | "false"),
        _ => false,
    }
}

pub(crate) fn as_u64(value: &Value) -> Option<u64> {
    match value {
        Value::Number(n) => n.as_u64().or_else(|| n.as_f64().and_then(whole)),
        Value::String(s) => s
            .trim()
            .parse()
            .ok()
            .or_else(|| s.trim().parse().ok().and_then(whole)),
        Value::Bool(b) => Some(u64::from(*b)),
        _ => None,
    }
}

/// A counter may come as a float; negative ones and those beyond what a float holds exactly are none.
fn whole(n: f64) -> Option<u64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range was just checked"
    )]
    (0.0..=EXACT).contains(&n).then(|| n.trunc() as u64)
}

pub(crate) fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(u8::from(*b).to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Loose {
        #[serde(deserialize_with = "super::flag")]
        flag: bool,
        #[serde(deserialize_with = "super::number")]
        number: Option<u32>,
        #[serde(deserialize_with = "super::fraction")]
        fraction: Option<f64>,
        #[serde(deserialize_with = "super::text")]
        text: Option<String>,
        #[serde(deserialize_with = "super::list")]
        list: Vec<String>,
    }

    #[test]
    fn every_form_of_a_value_means_the_same() {
        let expected = Loose {
            flag: true,
            number: Some(5),
            fraction: Some(0.5),
            text: Some("7".into()),
            list: vec!["a".into(), "b".into()],
        };
        for value in [
            json!({"flag": 1, "number": 5, "fraction": 0.5, "text": "7", "list": "a;b"}),
            json!({"flag": "1", "number": "5", "fraction": "0.5", "text": 7, "list": "b,a".chars().rev().collect::<String>()}),
            json!({"flag": true, "number": 5.0, "fraction": 0.5, "text": "7", "list": ["a", "b"], "unknown": {"x": []}}),
        ] {
            assert_eq!(serde_json::from_value::<Loose>(value).unwrap(), expected);
        }
    }

    #[test]
    fn absent_null_and_nonsense_are_nothing() {
        for value in [
            json!({}),
            json!({"flag": null, "number": null, "fraction": null, "text": null, "list": null}),
            json!({"flag": "", "number": "many", "fraction": [], "text": {}, "list": " "}),
            json!({"number": -1, "flag": 0}),
        ] {
            assert_eq!(
                serde_json::from_value::<Loose>(value).unwrap(),
                Loose::default()
            );
        }
    }
}
