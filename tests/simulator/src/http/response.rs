//! From an outcome to a response: reason phrases that carry the message, bodies in the format that was asked for.

use std::{io::Write, time::SystemTime};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::ext::ReasonPhrase;
use serde_json::{Value, json};

use super::scramble;
use crate::reply::{Body, Failure, Outcome};

/// Shorter bodies aren't worth compressing.
const UNSQUEEZED: usize = 1024;

/// How the client wants its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    /// Always 200; the code is in the body.
    ExtJs,
}

/// An answer on its way.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Words an outcome.
pub(crate) fn build(outcome: &Outcome, format: Format) -> Answer {
    match outcome {
        Ok(reply) => {
            let mut body = json!({"data": reply.data});
            if let Some(total) = reply.total {
                body["total"] = json!(total);
            }
            if format == Format::ExtJs {
                body["success"] = json!(1);
            }
            respond(200, "OK", Some(&body), None)
        }
        Err(failure) if format == Format::ExtJs && failure.body == Body::Json => {
            let mut body = failure.to_json();
            body["success"] = json!(0);
            // Exceptions carry their code as a string there, plain errors as a number.
            body["status"] = if matches!(failure.status, 400 | 403) {
                json!(failure.status.to_string())
            } else {
                json!(failure.status)
            };
            respond(200, "OK", Some(&body), None)
        }
        Err(failure) => match failure.body {
            Body::Json => respond(
                failure.status,
                failure.reason(),
                Some(&failure.to_json()),
                None,
            ),
            Body::Plain => respond(failure.status, failure.reason(), None, Some(&failure.text)),
            Body::Empty => respond(failure.status, failure.reason(), None, None),
        },
    }
}

/// An answer with that status line.
pub(crate) fn respond(
    status: u16,
    reason: &str,
    json: Option<&Value>,
    text: Option<&str>,
) -> Answer {
    let (body, kind) = match (json, text) {
        (Some(value), _) => (
            Bytes::from(scramble::body(value)),
            Some("application/json;charset=UTF-8"),
        ),
        (None, Some(text)) => (Bytes::from(text.to_owned()), None),
        (None, None) => (Bytes::new(), None),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(phrase) = ReasonPhrase::try_from(reason.as_bytes()) {
        response.extensions_mut().insert(phrase);
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=0"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(
        header::SERVER,
        HeaderValue::from_static("pve-api-daemon/3.0"),
    );
    if let Some(kind) = kind {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    if let Ok(now) = HeaderValue::from_str(&httpdate::fmt_http_date(SystemTime::now())) {
        headers.insert(header::EXPIRES, now);
    }
    if status >= 400 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The failure of a fault that stands in for an answer.
pub(crate) fn injected(code: u16, reason: &str) -> Failure {
    match code {
        401 | 595.. => Failure::empty(code, reason),
        _ => Failure::json(code, reason),
    }
}

pub(crate) fn is_json(answer: &Answer) -> bool {
    answer
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

/// Squeezes a body of JSON that is long enough, as it is done for clients that can take it.
pub(crate) async fn squeeze(answer: Answer) -> Answer {
    if !is_json(&answer) {
        return answer;
    }
    let (mut parts, body) = answer.into_parts();
    let Ok(whole) = body.collect().await;
    let whole = whole.to_bytes();
    if whole.len() <= UNSQUEEZED {
        return Response::from_parts(parts, Full::new(whole));
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let squeezed = encoder.write_all(&whole).and_then(|()| encoder.finish());
    match squeezed {
        Ok(bytes) => {
            parts
                .headers
                .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            Response::from_parts(parts, Full::new(bytes.into()))
        }
        Err(error) => {
            tracing::warn!(%error, "a body could not be compressed");
            Response::from_parts(parts, Full::new(whole))
        }
    }
}
