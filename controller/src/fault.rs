//! Faults in three classes, since there are three readers: time, the author of the spec, and us.

use std::fmt::Write as _;

use phoenix_crds::conditions::{ConditionType, Effect, Reason, verdict};
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
        Self {
            class: Class::User,
            condition,
            reason,
            message: message.into(),
            unknown: false,
            hypervisor: None,
        }
    }

    /// Something that passes.
    pub fn retry(condition: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            class: Class::Retry,
            condition,
            reason,
            message: message.into(),
            unknown: false,
            hypervisor: None,
        }
    }

    /// Something that should not be.
    pub fn bug(message: impl Into<String>) -> Self {
        Self {
            class: Class::Bug,
            condition: ConditionType::Ready,
            reason: Reason::Failed,
            message: message.into(),
            unknown: true,
            hypervisor: None,
        }
    }

    /// A failed call to Proxmox while `doing` something; `condition` is what it was for.
    ///
    /// The classes are those of the client's table; a lost answer is a retry, for the next pass looks at what happened.
    pub fn proxmox(error: &proxmox_client::Error, doing: &str, condition: ConditionType) -> Self {
        let (class, condition, reason) = place(&error.kind, condition);
        let unknown = matches!(
            (condition, reason),
            (ConditionType::HypervisorReady, _) | (_, Reason::NodeOffline)
        );
        Self {
            class,
            condition,
            reason,
            message: format!("{doing}: {error}"),
            unknown,
            hypervisor: None,
        }
    }

    /// A failed call to Kubernetes.
    pub fn kube(error: &kube::Error, doing: &str) -> Self {
        // Display of the Api variant appends the whole object by Debug; its message is what a person needs
        let message = match error {
            kube::Error::Api(status) => format!(
                "{doing}: the Kubernetes API answered {}: {}",
                status.code, status.message
            ),
            other => chain(doing, other),
        };
        Self {
            class: Class::Retry,
            condition: ConditionType::Ready,
            reason: Reason::Waiting,
            message,
            unknown: true,
            hypervisor: None,
        }
    }

    /// The same, of an object whose hypervisor was resolved before.
    #[must_use]
    pub fn on(self, hypervisor: &str) -> Self {
        Self {
            hypervisor: Some(hypervisor.to_owned()),
            ..self
        }
    }

    /// As a condition. `exhausted`: it was tried often enough to say that somebody should look.
    pub fn finding(&self, exhausted: bool) -> Finding {
        // most of what passes by itself is never anybody's move; only some reasons become so when they last
        let lasting = verdict(self.condition, self.reason)
            .is_some_and(|v| v.effect == Effect::ReconcilingThenStalled);
        let progress = match self.class {
            Class::Retry if !(exhausted && lasting) => Progress::Reconciling,
            Class::Retry | Class::User | Class::Bug => Progress::Stalled,
        };
        Finding {
            condition: self.condition,
            truth: if self.unknown {
                Truth::Unknown
            } else {
                Truth::False
            },
            reason: self.reason,
            message: self.message.clone(),
            progress,
        }
    }
}

/// Where a failed call stands in the table of conditions, given the condition that it was for.
fn place(kind: &ErrorKind, condition: ConditionType) -> (Class, ConditionType, Reason) {
    use ConditionType as C;
    if matches!(condition, C::Connected | C::Authorized) {
        return match kind {
            ErrorKind::Forbidden => (Class::User, C::Authorized, Reason::PrivilegesMissing),
            ErrorKind::Unauthorized | ErrorKind::TwoFactor => {
                (Class::User, C::Authorized, Reason::TokenInvalid)
            }
            ErrorKind::Untrusted { .. } => {
                (Class::Retry, C::Connected, Reason::CertificateUntrusted)
            }
            ErrorKind::NoQuorum => (Class::Retry, C::Connected, Reason::NoQuorum),
            _ => (Class::Retry, C::Connected, Reason::Unreachable),
        };
    }
    match kind {
        // a lost answer is no failure of what was asked for: the next pass looks at what happened
        ErrorKind::Unreachable
        | ErrorKind::Untrusted { .. }
        | ErrorKind::NoQuorum
        | ErrorKind::Unknown => (Class::Retry, C::HypervisorReady, Reason::Unreachable),
        ErrorKind::NodeOffline => (Class::Retry, C::PowerInSync, Reason::NodeOffline),
        ErrorKind::Unauthorized | ErrorKind::TwoFactor | ErrorKind::Forbidden
            if condition == C::ConfigInSync =>
        {
            (Class::User, condition, Reason::Forbidden)
        }
        ErrorKind::Unauthorized | ErrorKind::TwoFactor | ErrorKind::Forbidden => {
            (Class::User, C::Created, Reason::Forbidden)
        }
        ErrorKind::Invalid => (Class::User, C::ConfigInSync, Reason::Invalid),
        ErrorKind::StorageFull => (Class::Retry, C::Created, Reason::StorageFull),
        ErrorKind::Locked | ErrorKind::Busy | ErrorKind::Modified | ErrorKind::Exists => {
            (Class::Retry, C::Created, Reason::Busy)
        }
        _ if condition == C::PowerInSync => (Class::Retry, condition, Reason::StartFailed),
        _ => (Class::Retry, C::Created, Reason::TaskFailed),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failed_call_stands_in_the_table_of_conditions() {
        use ConditionType as C;
        let kinds = [
            ErrorKind::Unreachable,
            ErrorKind::Unauthorized,
            ErrorKind::TwoFactor,
            ErrorKind::Forbidden,
            ErrorKind::Invalid,
            ErrorKind::NotFound,
            ErrorKind::Exists,
            ErrorKind::Locked,
            ErrorKind::Busy,
            ErrorKind::Modified,
            ErrorKind::NoQuorum,
            ErrorKind::StorageFull,
            ErrorKind::Protected,
            ErrorKind::NodeOffline,
            ErrorKind::Unknown,
            ErrorKind::Other,
        ];
        for kind in kinds {
            for purpose in [
                C::Created,
                C::ConfigInSync,
                C::PowerInSync,
                C::Sealed,
                C::Ready,
                C::Connected,
            ] {
                let (class, condition, reason) = place(&kind, purpose);
                let row = verdict(condition, reason).unwrap_or_else(|| {
                    panic!("{kind:?} for {purpose} has no row: {condition} {reason}")
                });
                assert_eq!(
                    class == Class::User,
                    row.effect == Effect::Stalled,
                    "{kind:?} for {purpose}: {condition} {reason}"
                );
            }
        }
    }
}
