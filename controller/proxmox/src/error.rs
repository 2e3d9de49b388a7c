//! The one error of this crate: what was asked, what came back, and in which class that falls.

use crate::{Fingerprint, classify};
use std::{collections::BTreeMap, fmt};

/// What an error means for whoever has to decide what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No endpoint could be reached, or none answered a read in time.
    Unreachable,
    /// The endpoint showed a certificate that neither pin, CA nor system roots vouch for.
    Untrusted {
        /// SHA-256 of the certificate shown, to be compared with the node's own and pinned.
        presented: Fingerprint,
    },
    /// The credentials were refused (401).
    Unauthorized,
    /// The login asks for a second factor, which an operator cannot give.
    TwoFactor,
    /// A privilege is missing, or only root@pam itself may do this (403).
    Forbidden,
    /// The request cannot be carried out as it stands, now or later: a refused parameter, something that it names and that
    /// is not there (storage, bridge, device, snapshot), a feature that is not available.
    Invalid,
    /// The container has no configuration on that node: it is gone or lives elsewhere.
    NotFound,
    /// The VMID or the snapshot's name is taken.
    Exists,
    /// The configuration carries a lock; [`Error::lock`] says which.
    Locked,
    /// Proxmox is busy with something else just now: a lock file, a dataset in use, no worker free.
    Busy,
    /// The configuration is not the one whose digest was given.
    Modified,
    /// The cluster has no quorum and refuses to write.
    NoQuorum,
    /// The storage has no room left.
    StorageFull,
    /// Other volumes or containers hang on it: clones of a base, newer snapshots.
    InUse,
    /// The container is not running.
    NotRunning,
    /// The container is running: already, or still where it has to be stopped.
    AlreadyRunning,
    /// What was asked for is so already: the disk has that size, the container is a template.
    AlreadyDone,
    /// `protection` is set.
    Protected,
    /// The node that was meant cannot be reached from the one that was asked (595).
    NodeOffline,
    /// Whether the call was carried out is not known: look before repeating it.
    Unknown,
    /// Anything else; the text says what.
    Other,
}

/// A call that did not yield what it should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What it means.
    pub kind: ErrorKind,
    /// The endpoint as a template, without node and VMID filled in.
    pub endpoint: &'static str,
    /// The HTTP method.
    pub method: &'static str,
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// The reason phrase, where there was an answer.
    pub reason: Box<str>,
    /// Proxmox's own text, or what happened to the connection.
    pub message: String,
    /// Parameters that were refused, each with Proxmox's text.
    pub errors: BTreeMap<String, String>,
}

impl Error {
    /// The lock's name for [`ErrorKind::Locked`].
    pub fn lock(&self) -> Option<&str> {
        classify::lock_name(&self.message)
    }

    /// Whether Proxmox itself said this, rather than the network or this client.
    pub fn is_answer(&self) -> bool {
        self.status.is_some()
    }

    /// An error that no answer of Proxmox stands behind.
    pub(crate) fn local(
        kind: ErrorKind,
        method: &'static str,
        endpoint: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            endpoint,
            method,
            status: None,
            reason: Box::default(),
            message: message.into(),
            errors: BTreeMap::new(),
        }
    }

    /// An answer other than 200.
    pub(crate) fn answered(
        method: &'static str,
        endpoint: &'static str,
        status: u16,
        reason: String,
        message: Option<String>,
        errors: BTreeMap<String, String>,
    ) -> Self {
        // Hosts before 8.4 say it in the reason phrase only.
        let message = message
            .map(|m| m.trim().to_owned())
            .filter(|m| !m.is_empty())
            .unwrap_or_else(|| reason.clone());
        let kind = classify::classify(method, status, &message, &errors);
        Self {
            kind,
            endpoint,
            method,
            status: Some(status),
            reason: reason.into(),
            message,
            errors,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = one_line(&self.message);
        match self.status {
            Some(status) => write!(
                f,
                "Proxmox answered {} {} with {status}: {message}",
                self.method, self.endpoint
            )?,
            None if self.endpoint.is_empty() => f.write_str(&message)?,
            None => write!(f, "{} {}: {message}", self.method, self.endpoint)?,
        }
        let refused: Vec<_> = self
            .errors
            .iter()
            .map(|(name, text)| format!("{name}: {}", one_line(text)))
            .collect();
        if !refused.is_empty() {
            write!(f, " ({})", refused.join("; "))?;
        }
        Ok(())
    }
}

/// Proxmox's texts end in a line end, and some go over several lines.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl std::error::Error for Error {}
