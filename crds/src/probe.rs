//! An HTTP probe that decides whether a running container is Ready.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, IntoStaticStr};

/// An HTTP request to the container that must be answered as expected before the container is Ready.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// `http` or `https`. Default: `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,

    /// TCP port, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i64,

    /// Path and query, beginning with `/`. Default: `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[!-~]*$"))]
    pub path: Option<String>,

    /// The HTTP status that means healthy, 100 to 599. Default: 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 599))]
    pub expect_status: Option<i64>,

    /// Accept any certificate, for services that make their own, such as Portainer. Nothing secret is sent. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
}

impl Probe {
    /// The scheme asked for, else `http`.
    pub fn scheme(&self) -> Scheme {
        self.scheme.unwrap_or(Scheme::Http)
    }

    /// The path asked for, else `/`.
    pub fn path(&self) -> &str {
        self.path.as_deref().unwrap_or("/")
    }

    /// The HTTP status that means healthy, else 200.
    pub fn expect_status(&self) -> u16 {
        self.expect_status
            .and_then(|status| u16::try_from(status).ok())
            .unwrap_or(200)
    }

    /// Whether any certificate is accepted.
    pub fn insecure_skip_verify(&self) -> bool {
        self.insecure_skip_verify.unwrap_or(false)
    }
}

/// `http` or `https`. Default: `http`.
#[derive(
    JsonSchema, Serialize, Deserialize, Display, IntoStaticStr, Clone, Copy, Debug, PartialEq, Eq,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// Written by a version that knows more.
    #[schemars(skip)]
    #[serde(other)]
    Unknown,
}
