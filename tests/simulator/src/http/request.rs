//! From a request to its parameters.

use std::collections::BTreeMap;

use http::{HeaderMap, header};
use serde_json::Value;

use super::{RawParams, RawValue};
use crate::{reply::Failure, schema::percent_decode};

/// The largest body that is read.
const MAX_BODY: u64 = 512 << 10;

/// Checks made on the head of a request, before its body is read.
pub(crate) fn check_body_head(method: &str, headers: &HeaderMap) -> Result<(), Failure> {
    let length: u64 = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    if length == 0 {
        return Ok(());
    }
    if matches!(method, "GET" | "DELETE") {
        return Err(Failure::plain(
            501,
            format!("Unexpected content for method '{method}'"),
        ));
    }
    if length > MAX_BODY {
        return Err(Failure::plain(501, "for data too large"));
    }
    Ok(())
}

/// Refuses transfer encodings.
pub(crate) fn check_encoding(headers: &HeaderMap) -> Result<(), Failure> {
    match headers
        .get(header::TRANSFER_ENCODING)
        .and_then(|value| value.to_str().ok())
    {
        None => Ok(()),
        Some(encoding) if encoding.eq_ignore_ascii_case("chunked") => Err(Failure::plain(
            501,
            "chunked transfer encoding not supported",
        )),
        Some(encoding) => Err(Failure::plain(
            501,
            format!("Unknown transfer encoding '{encoding}'"),
        )),
    }
}

/// Reads query and body; the query wins.
pub(crate) fn parameters(
    query: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<RawParams, Failure> {
    let mut params = parse_body(headers, body)?;
    params.extend(form(query.unwrap_or_default()));
    params.remove("_dc");
    Ok(params)
}

fn parse_body(headers: &HeaderMap, body: &[u8]) -> Result<RawParams, Failure> {
    if body.is_empty() {
        return Ok(RawParams::new());
    }
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    match kind.map(|kind| kind.split(';').next().unwrap_or_default().trim()) {
        None | Some("application/x-www-form-urlencoded") => {
            Ok(form(&String::from_utf8_lossy(body)))
        }
        Some("application/json") => json(body),
        Some(other) => Err(Failure::plain(
            506,
            format!("upload 'Content-Type '{other}' not implemented"),
        )),
    }
}

fn form(text: &str) -> RawParams {
    let mut params = RawParams::new();
    for part in text.split(['&', ';']).filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let decode = |text: &str| percent_decode(&text.replace('+', " "));
        let (key, value) = (decode(key), decode(value));
        match params.remove(&key) {
            None => params.insert(key, RawValue::One(value)),
            Some(RawValue::One(first)) => params.insert(key, RawValue::Many(vec![first, value])),
            Some(RawValue::Many(mut items)) => {
                items.push(value);
                params.insert(key, RawValue::Many(items))
            }
        };
    }
    params
}

fn json(body: &[u8]) -> Result<RawParams, Failure> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Failure::plain(500, format!("malformed JSON string, {error} at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 934.")))?;
    let Value::Object(map) = value else {
        return Err(Failure::plain(
            500,
            "Not a HASH reference at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 978.",
        ));
    };
    Ok(map
        .into_iter()
        .filter_map(|(key, value)| scalar(&value).map(|value| (key, value)))
        .collect())
}

fn scalar(value: &Value) -> Option<RawValue> {
    match value {
        Value::Null => None,
        Value::Bool(flag) => Some(RawValue::One(u8::from(*flag).to_string())),
        Value::String(text) => Some(RawValue::One(text.clone())),
        Value::Array(items) => Some(RawValue::Many(
            items
                .iter()
                .filter_map(scalar)
                .map(|item| item.text())
                .collect(),
        )),
        other => Some(RawValue::One(other.to_string())),
    }
}

/// Puts the path's parameters to the others, which may not contradict them.
pub(crate) fn merge(
    uri: &BTreeMap<String, String>,
    mut params: RawParams,
) -> Result<RawParams, Failure> {
    for (key, value) in uri {
        if params.get(key).is_some_and(|sent| sent.text() != *value) {
            return Err(Failure::parameter(
                key,
                "duplicate parameter (already defined in URI) with conflicting values!",
            ));
        }
        params.insert(key.clone(), RawValue::One(value.clone()));
    }
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_json_read_alike() {
        let mut headers = HeaderMap::new();
        let from_form = parameters(Some("b=2&_dc=9"), &headers, b"a=x%20y+z&b=1&c=1&c=2").unwrap();
        assert_eq!(from_form["a"], RawValue::One("x y z".into()));
        assert_eq!(from_form["b"], RawValue::One("2".into()));
        assert_eq!(from_form["c"], RawValue::Many(vec!["1".into(), "2".into()]));
        assert!(!from_form.contains_key("_dc"));
        headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        let from_json = parameters(
            None,
            &headers,
            br#"{"a": true, "b": 2, "c": ["x"], "d": null}"#,
        )
        .unwrap();
        assert_eq!(from_json["a"], RawValue::One("1".into()));
        assert_eq!(from_json["b"], RawValue::One("2".into()));
        assert_eq!(from_json.len(), 3);
        headers.insert(header::CONTENT_TYPE, "text/plain".parse().unwrap());
        assert_eq!(parameters(None, &headers, b"x").unwrap_err().status, 506);
    }

    #[test]
    fn the_path_may_not_be_contradicted() {
        let uri = BTreeMap::from([("vmid".to_owned(), "103".to_owned())]);
        let sent =
            |vmid: &str| RawParams::from([("vmid".to_owned(), RawValue::One(vmid.to_owned()))]);
        assert!(merge(&uri, sent("103")).is_ok());
        assert_eq!(
            merge(&uri, sent("101")).unwrap_err().errors["vmid"],
            "duplicate parameter (already defined in URI) with conflicting values!"
        );
    }
}
