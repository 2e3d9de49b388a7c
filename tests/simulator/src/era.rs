//! What an older host does otherwise. The newest behaviour is everywhere else; here stands what a Proxmox VE 8 lacks.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use crate::{
    config::HostShape,
    http::{
        RawParams, RawValue,
        response::{Answer, is_json},
    },
};

/// Keys of containers that came after 8.4.
const LATER_KEYS: [&str; 3] = ["entrypoint", "env", "ha-managed"];
/// Words in their values that came after 8.4.
const LATER_WORDS: [&str; 3] = ["host-managed=", "keepattrs=", "idmap="];
const UNKNOWN: &str =
    "property is not defined in schema and the schema does not allow additional properties";

impl HostShape {
    /// The Phoenix host before its upgrade, with Proxmox VE 8.4: errors without `message`, containers privileged by default, consoles for
    /// login tickets only, devices and newer keys not at all or not live.
    pub fn phoenix_8_4() -> Self {
        Self {
            version: "8.4.1".to_owned(),
            release: "8.4".to_owned(),
            repoid: "2a5fa54a8503f96d".to_owned(),
            ..Self::phoenix()
        }
    }

    /// Whether this is a Proxmox VE 8.
    pub(crate) fn is_old(&self) -> bool {
        let major = self.release.split('.').next();
        major
            .and_then(|major| major.parse::<u32>().ok())
            .is_some_and(|major| major < 9)
    }
}

/// What an old host's schema says of newer keys.
pub(crate) fn unknown(template: &str, params: &RawParams) -> BTreeMap<String, String> {
    if !template.contains("/lxc") {
        return BTreeMap::new();
    }
    let text = |value: &RawValue| value.text();
    let mut errors = BTreeMap::new();
    for (key, value) in params {
        let value = text(value);
        let later = LATER_WORDS
            .iter()
            .find(|word| value.split(',').any(|part| part.starts_with(**word)));
        if LATER_KEYS.contains(&key.as_str()) {
            errors.insert(key.clone(), UNKNOWN.to_owned());
        } else if let Some(word) = later {
            let word = word.trim_end_matches('=');
            let text = format!("invalid format - format error\n{key}.{word}: {UNKNOWN}\n");
            errors.insert(key.clone(), text);
        }
    }
    errors
}

/// An answer whose JSON is changed on its way.
pub(crate) async fn rewrite(answer: Answer, change: impl FnOnce(&mut Value)) -> Answer {
    if !is_json(&answer) {
        return answer;
    }
    let (parts, body) = answer.into_parts();
    let Ok(whole) = body.collect().await;
    let whole = whole.to_bytes();
    let bytes = match serde_json::from_slice::<Value>(&whole) {
        Ok(mut value) => {
            change(&mut value);
            Bytes::from(value.to_string())
        }
        Err(_) => whole,
    };
    Response::from_parts(parts, Full::new(bytes))
}

/// An old host's failures say what is wrong in the status line alone.
pub(crate) fn without_message(body: &mut Value) {
    if let Some(body) = body.as_object_mut() {
        body.remove("message");
    }
}

/// Numbers as the texts that Perl takes them for.
pub(crate) fn numbers_as_texts(value: &mut Value) {
    match value {
        Value::Number(number) => *value = Value::String(number.to_string()),
        Value::Array(items) => items.iter_mut().for_each(numbers_as_texts),
        Value::Object(map) => map.values_mut().for_each(numbers_as_texts),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        assert!(HostShape::phoenix_8_4().is_old());
        assert!(!HostShape::phoenix().is_old());
    }
}
