//! HTTP as Proxmox VE's own server speaks it: what it refuses before looking at the call, and how it words its answers.

pub(crate) mod request;
pub(crate) mod response;
mod scramble;
pub(crate) mod server;

use std::collections::BTreeMap;

/// A parameter as sent: repeated ones become a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RawValue {
    One(String),
    Many(Vec<String>),
}

/// All parameters as sent.
pub(crate) type RawParams = BTreeMap<String, RawValue>;

impl RawValue {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::One(text) => text.clone(),
            Self::Many(items) => items.join(","),
        }
    }
}
