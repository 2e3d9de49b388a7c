//! Tickets: signed strings that say who logged in when, for the API and for consoles.

use std::sync::{PoisonError, RwLock};

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use crate::model::now;

const LIFE: u64 = 7200;
const SKEW: u64 = 300;
const CONSOLE_LIFE: u64 = 40;
const CONSOLE_SKEW: u64 = 20;

/// The cluster's signing key.
#[derive(Debug)]
pub(crate) struct Keys {
    secret: RwLock<[u8; 32]>,
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self {
            secret: RwLock::new(rand::random()),
        }
    }

    /// All tickets given so far are worth nothing from here on.
    pub(crate) fn rotate(&self) {
        *self.secret.write().unwrap_or_else(PoisonError::into_inner) = rand::random();
    }

    fn sign(&self, text: &str) -> String {
        let secret = *self.secret.read().unwrap_or_else(PoisonError::into_inner);
        STANDARD.encode(
            Sha256::new()
                .chain_update(secret)
                .chain_update(text)
                .finalize(),
        )
    }

    /// A login ticket.
    pub(crate) fn issue(&self, user: &str) -> String {
        let text = format!("PVE:{user}:{:08X}", now());
        let signature = self.sign(&text);
        format!("{text}::{signature}")
    }

    /// The user behind a login ticket that is good.
    pub(crate) fn verify(&self, ticket: &str) -> Option<String> {
        let (text, signature) = ticket.split_once("::")?;
        let (user, time) = text.strip_prefix("PVE:")?.rsplit_once(':')?;
        (self.sign(text) == signature && fresh(time, LIFE, SKEW)).then(|| user.to_owned())
    }

    /// The token that a changing call needs beside the ticket.
    pub(crate) fn csrf(&self, user: &str) -> String {
        let time = format!("{:08X}", now());
        let digest = self.sign(&format!("{time}:{user}"));
        format!("{time}:{}", digest.trim_end_matches('='))
    }

    pub(crate) fn verify_csrf(&self, user: &str, token: &str) -> bool {
        token.split_once(':').is_some_and(|(time, digest)| {
            self.sign(&format!("{time}:{user}")).trim_end_matches('=') == digest
                && fresh(time, LIFE, SKEW)
        })
    }

    /// A console ticket, bound to who, which container and which port.
    pub(crate) fn issue_console(&self, who: &str, path: &str, port: u16) -> String {
        let time = format!("{:08X}", now());
        let signature = self.sign(&format!("PVEVNC:{time}:{who}:{path}:{port}"));
        format!("PVEVNC:{time}::{signature}")
    }

    pub(crate) fn verify_console(&self, ticket: &str, who: &str, path: &str, port: u16) -> bool {
        let Some((time, signature)) = ticket
            .strip_prefix("PVEVNC:")
            .and_then(|rest| rest.split_once("::"))
        else {
            return false;
        };
        self.sign(&format!("PVEVNC:{time}:{who}:{path}:{port}")) == signature
            && fresh(time, CONSOLE_LIFE, CONSOLE_SKEW)
    }
}

fn fresh(time: &str, life: u64, skew: u64) -> bool {
    u64::from_str_radix(time, 16).is_ok_and(|time| {
        let now = now();
        time <= now + skew && now <= time + life
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_bound_to_what_they_say() {
        let keys = Keys::new();
        let ticket = keys.issue("root@pam");
        assert_eq!(keys.verify(&ticket).as_deref(), Some("root@pam"));
        assert_eq!(
            keys.verify(&ticket.replace("root@pam", "phoenix@pve")),
            None
        );
        let csrf = keys.csrf("root@pam");
        assert!(keys.verify_csrf("root@pam", &csrf));
        assert!(!keys.verify_csrf("phoenix@pve", &csrf));
        let console = keys.issue_console("phoenix@pve!operator", "/vms/900", 5900);
        assert!(keys.verify_console(&console, "phoenix@pve!operator", "/vms/900", 5900));
        assert!(!keys.verify_console(&console, "phoenix@pve!operator", "/vms/900", 5901));
        keys.rotate();
        assert_eq!(keys.verify(&ticket), None);
    }

    #[test]
    fn old_tickets_are_refused() {
        let time = |age: u64| format!("{:08X}", now() - age);
        assert!(fresh(&time(LIFE - 10), LIFE, SKEW));
        assert!(!fresh(&time(LIFE + 10), LIFE, SKEW));
        assert!(!fresh("nonsense", LIFE, SKEW));
    }

    #[test]
    fn old_console_tickets_are_refused() {
        let keys = Keys::new();
        let (who, path) = ("phoenix@pve!operator", "/vms/900");
        let good = |at: u64| {
            let time = format!("{at:08X}");
            let signature = keys.sign(&format!("PVEVNC:{time}:{who}:{path}:5900"));
            keys.verify_console(&format!("PVEVNC:{time}::{signature}"), who, path, 5900)
        };
        assert!(good(now()) && good(now() - 30) && good(now() + 10));
        assert!(!good(now() - 45) && !good(now() + 30));
    }
}
