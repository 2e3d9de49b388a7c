//! What a call comes to: data, or a failure with Proxmox's own text.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A successful answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    pub(crate) data: Value,
    /// Length of the whole list, for calls that answer a page of it.
    pub(crate) total: Option<usize>,
}

impl Reply {
    pub(crate) fn data(data: Value) -> Self {
        Self { data, total: None }
    }

    pub(crate) fn null() -> Self {
        Self::data(Value::Null)
    }

    pub(crate) fn page(data: Vec<Value>, total: usize) -> Self {
        Self {
            data: Value::Array(data),
            total: Some(total),
        }
    }
}

/// How the body of a failure looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// `{"data":null,"message":…}`.
    Json,
    /// The text alone: failures before the formatter is known.
    Plain,
    /// Nothing: authentication, and failures of the proxy itself.
    Empty,
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    /// Without the trailing newline.
    pub(crate) text: String,
    pub(crate) errors: BTreeMap<String, String>,
    pub(crate) body: Body,
    /// Perl's `die` texts end in a newline, others don't.
    pub(crate) newline: bool,
}

/// The result of a call.
pub(crate) type Outcome = Result<Reply, Failure>;

impl Failure {
    fn new(status: u16, text: impl Into<String>, body: Body) -> Self {
        Self {
            status,
            text: text.into(),
            errors: BTreeMap::new(),
            body,
            newline: body == Body::Json,
        }
    }

    /// A `die` in a method's code.
    pub(crate) fn die(text: impl Into<String>) -> Self {
        Self::new(500, text, Body::Json)
    }

    /// A permission that is missing; `detail` is what stands in the brackets.
    pub(crate) fn forbidden(detail: &str) -> Self {
        let text = if detail.is_empty() {
            "Permission check failed".to_owned()
        } else {
            format!("Permission check failed ({detail})")
        };
        Self::new(403, text, Body::Json)
    }

    /// Parameters that the schema refuses.
    pub(crate) fn parameters(errors: BTreeMap<String, String>) -> Self {
        Self {
            errors,
            ..Self::new(400, "Parameter verification failed.", Body::Json)
        }
    }

    /// One wrong parameter.
    pub(crate) fn parameter(key: &str, text: impl Into<String>) -> Self {
        Self::parameters(BTreeMap::from([(key.to_owned(), text.into())]))
    }

    /// No or wrong credentials: an empty body.
    pub(crate) fn unauthorized(text: &str) -> Self {
        Self::new(401, text, Body::Empty)
    }

    /// Any other status, with the text alone as its body.
    pub(crate) fn plain(status: u16, text: impl Into<String>) -> Self {
        Self::new(status, text, Body::Plain)
    }

    /// Any other status without a body.
    pub(crate) fn empty(status: u16, text: impl Into<String>) -> Self {
        Self::new(status, text, Body::Empty)
    }

    /// Any other status with the usual body.
    pub(crate) fn json(status: u16, text: impl Into<String>) -> Self {
        Self::new(status, text, Body::Json)
    }

    /// A path or method that does not exist.
    pub(crate) fn not_implemented(method: &str, path: &str) -> Self {
        Self {
            newline: false,
            ..Self::new(
                501,
                format!("Method '{method} {path}' not implemented"),
                Body::Json,
            )
        }
    }

    /// The text as bodies carry it.
    pub(crate) fn message(&self) -> String {
        if self.newline {
            format!("{}\n", self.text)
        } else {
            self.text.clone()
        }
    }

    /// The first line, for the status line.
    pub(crate) fn reason(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut body = json!({"data": null, "message": self.message()});
        if !self.errors.is_empty() {
            body["errors"] = json!(self.errors);
        }
        body
    }
}

/// Texts of the model are what Perl would `die` with.
impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::die(text)
    }
}
