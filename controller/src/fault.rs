//! Faults in three classes, since there are three readers: time, the author of the spec, and us.

use std::fmt::Write as _;

use phoenix_crds::conditions::{ConditionType, Reason};
use proxmox_client::ErrorKind;

use crate::condition::{Finding, Progress, Truth};

/// Whose move it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Class {
    /// Time's: tried again with back-off.
    Retry,
    /// Whoever wrote the spec, the Secret or the ACL: tried again on change, and slowly.
    User,
    /// Ours: a panic, an undecodable answer.
    Bug,
}

/// Why a stage could not do its work, in the words that the user will read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Whose move it is.
    pub class: Class,
    /// The condition that it stands in.
    pub condition: ConditionType,
    /// Its reason.
    pub reason: Reason,
    /// What is the matter, where, and what to do.
    pub message: String,
    /// Nothing is known: the condition becomes `Unknown`, not `False`.
    pub unknown: bool,
    /// The hypervisor that the object had been given when it went wrong: it keeps that one.
    pub hypervisor: Option<String>,
}

impl Fault {
    /// Something that only its author can put right.
    pub fn user(condition: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { class: Class::User, condition, reason, message: message.into(), unknown: false, hypervisor: None }
    }

    /// Something that passes.
    pub fn retry(condition: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { class: Class::Retry, condition, reason, message: message.into(), unknown: false, hypervisor: None }
    }

    /// Something that should not be.
    pub fn bug(message: impl Into<String>) -> Self {
        Self { class: Class::Bug, condition: ConditionType::Ready, reason: Reason::Failed, message: message.into(), unknown: true, hypervisor: None }
    }

    /// A failed call to Proxmox while `doing` something; `condition` is what it was for.
    ///
    /// The classes are those of the client's table; a lost answer is a retry, for the next pass looks at what happened.
    pub fn proxmox(error: &proxmox_client::Error, doing: &str, condition: ConditionType) -> Self {
        let message = format!("{doing}: {error}");
        let fault = |class, condition, reason, unknown| Self { class, condition, reason, message: message.clone(), unknown, hypervisor: None };
        match &error.kind {
            ErrorKind::Unreachable | ErrorKind::Untrusted { .. } | ErrorKind::NoQuorum | ErrorKind::Unknown => {
                fault(Class::Retry, ConditionType::HypervisorReady, Reason::Unreachable, true)
            }
            ErrorKind::NodeOffline => fault(Class::Retry, ConditionType::PowerInSync, Reason::NodeOffline, true),
            ErrorKind::Unauthorized | ErrorKind::TwoFactor | ErrorKind::Forbidden => fault(Class::User, condition, Reason::Forbidden, false),
            ErrorKind::Invalid => fault(Class::User, condition, Reason::Invalid, false),
            ErrorKind::StorageFull => fault(Class::Retry, condition, Reason::StorageFull, false),
            ErrorKind::Locked | ErrorKind::Busy | ErrorKind::Modified | ErrorKind::Exists => fault(Class::Retry, condition, Reason::Busy, false),
            _ => fault(Class::Retry, condition, Reason::TaskFailed, false),
        }
    }

    /// A failed call to Kubernetes.
    pub fn kube(error: &kube::Error, doing: &str) -> Self {
        // Display of the Api variant appends the whole object by Debug; its message is what a person needs
        let message = match error {
            kube::Error::Api(status) => format!("{doing}: the Kubernetes API answered {}: {}", status.code, status.message),
            other => chain(doing, other),
        };
        Self { class: Class::Retry, condition: ConditionType::Ready, reason: Reason::Waiting, message, unknown: true, hypervisor: None }
    }

    /// The same, of an object whose hypervisor was resolved before.
    #[must_use]
    pub fn on(self, hypervisor: &str) -> Self {
        Self { hypervisor: Some(hypervisor.to_owned()), ..self }
    }

    /// As a condition. `exhausted`: it was tried often enough to say that somebody should look.
    pub fn finding(&self, exhausted: bool) -> Finding {
        let progress = match self.class {
            Class::Retry if !exhausted => Progress::Reconciling,
            Class::Retry | Class::User | Class::Bug => Progress::Stalled,
        };
        // what is unknown may be right again by itself at any moment
        let progress = if self.unknown && self.class == Class::Retry { Progress::Reconciling } else { progress };
        Finding {
            condition: self.condition,
            truth: if self.unknown { Truth::Unknown } else { Truth::False },
            reason: self.reason,
            message: self.message.clone(),
            progress,
        }
    }
}

fn chain(doing: &str, error: &dyn std::error::Error) -> String {
    let mut text = format!("{doing}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
