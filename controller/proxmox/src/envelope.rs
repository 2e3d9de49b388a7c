//! What Proxmox wraps its answers in: `data` of a good one, `message` and `errors` of a bad one, and the reason phrase.

use crate::{Error, ErrorKind, call::Call, wire};
use serde_json::Value;
use std::{collections::BTreeMap, error::Error as StdError};

/// Proxmox's text stands in the reason phrase; hosts before 8.4 have it nowhere else.
pub(crate) fn reason_phrase(response: &reqwest::Response) -> String {
    match response.extensions().get::<hyper::ext::ReasonPhrase>() {
        Some(reason) => String::from_utf8_lossy(reason.as_bytes()).into_owned(),
        None => response
            .status()
            .canonical_reason()
            .unwrap_or_default()
            .to_owned(),
    }
}

pub(crate) fn unwrap(
    call: &Call,
    status: u16,
    reason: String,
    body: &[u8],
) -> Result<Value, Error> {
    let envelope = serde_json::from_slice::<Value>(body).ok();
    if status != 200 {
        let message = envelope
            .as_ref()
            .and_then(|e| e.get("message"))
            .and_then(wire::as_text);
        let errors = envelope
            .as_ref()
            .and_then(|e| e.get("errors"))
            .map(errors_of)
            .unwrap_or_default();
        return Err(Error::answered(
            call.method,
            call.template,
            status,
            reason,
            message,
            errors,
        ));
    }
    match envelope {
        Some(Value::Object(mut envelope)) if envelope.contains_key("data") => {
            Ok(envelope.remove("data").unwrap_or_default())
        }
        _ => {
            let mut error = call.fail(
                ErrorKind::Other,
                "the answer is not one of the Proxmox VE API",
            );
            error.status = Some(status);
            Err(error)
        }
    }
}

fn errors_of(errors: &Value) -> BTreeMap<String, String> {
    let Value::Object(errors) = errors else {
        return BTreeMap::new();
    };
    errors
        .iter()
        .filter_map(|(key, text)| Some((key.clone(), wire::as_text(text)?.trim().to_owned())))
        .collect()
}

/// An error with everything behind it, in one line; an address that carries a ticket in its query is left out.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut at = Some(error);
    while let Some(error) = at {
        let text = error.to_string();
        if !texts.iter().any(|seen| seen.contains(&text)) {
            texts.push(text);
        }
        at = error.source();
    }
    // The outermost text of reqwest names only the address.
    if texts.len() > 1 {
        texts.split_off(1).join(": ")
    } else {
        texts.join("")
    }
}
