//! An operation in a container of a Proxmox VE, from opening its console on.
//!
//! What is decided here: when a shell that somebody left at its prompt may be taken over. It may be our own, of an operator that was
//! killed or cut off in the moment between attaching and typing; nothing would ever end it. It is taken over only when
//! Proxmox shows no console of this container open, and we may see all that there are.

use std::time::Duration;

use proxmox_client::{Client, Console};

use super::error::GuestError;
use super::facts::{GuestFacts, GuestState};
use super::op::{GuestKey, GuestOp};
use super::script::Place;
use super::shell::{Company, Shell, Timing};
use super::{checked, work};

/// How long Proxmox may take to notice that the connection just closed is gone. A console whose opening was cut off waits ten seconds for
/// its client.
const FAREWELL: u32 = 12;

/// A container's console, made ours, for one operation after the other.
///
/// Dropped without [`Session::close`] it leaves our loop on the console, which the next session finds and uses.
pub struct Session {
    shell: Shell<Console>,
    key: GuestKey,
    /// What the last look in this session found.
    seen: Option<GuestFacts>,
}

impl Session {
    /// Opens the console and makes it ours, or touches nothing.
    pub async fn open(client: &Client, node: &str, key: &GuestKey) -> Result<Self, GuestError> {
        Ok(Self {
            shell: shell(client, node, key, Manner::Own).await?,
            key: key.clone(),
            seen: None,
        })
    }

    /// Carries out an operation and tells what the guest looks like afterwards: by another look, or, where success leaves one outcome
    /// only, from the look before. After an error the session is of no use any more.
    pub async fn run(&mut self, op: &GuestOp) -> Result<GuestFacts, GuestError> {
        let place = Place {
            root: "",
            key: &self.key,
        };
        let outcome = self
            .seen
            .take()
            .and_then(|seen| outcome(seen, op, &self.key));
        let facts = match (outcome, place.operation(op, Duration::ZERO)) {
            (Some(facts), Some(script)) => {
                checked(&mut self.shell, &script, op.name()).await?;
                facts
            }
            _ => work(&mut self.shell, place, op).await?,
        };
        self.seen = Some(facts.clone());
        Ok(facts)
    }

    /// Ends the shell, so that the console is everybody's again.
    pub async fn close(self) {
        self.shell.close().await;
    }
}

/// What a guest looks like once an operation has succeeded that can leave it in one way only.
fn outcome(seen: GuestFacts, op: &GuestOp, key: &GuestKey) -> Option<GuestFacts> {
    let state = match op {
        GuestOp::Personalise => Some(GuestState {
            key: key.to_string(),
            personalised: true,
            setup: None,
        }),
        GuestOp::CleanForSeal => None,
        _ => return None,
    };
    Some(GuestFacts { state, ..seen })
}

/// What a session is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// To work in it.
    Own,
    /// To ask in it, beside whoever works there.
    Share,
}

/// A shell over the console. One that somebody left at its prompt is taken over where nobody is at it.
pub(super) async fn shell(
    client: &Client,
    node: &str,
    key: &GuestKey,
    manner: Manner,
) -> Result<Shell<Console>, GuestError> {
    let attach = async |company| {
        let console = open(client, node, key).await?;
        match manner {
            Manner::Own => Shell::open(console, company, Timing::PRODUCTION).await,
            Manner::Share => Shell::enter(console, company, Timing::PRODUCTION).await,
        }
    };
    match attach(Company::Unknown).await {
        Err(GuestError::ConsoleBusy { .. }) if is_alone(client, node, key.vmid).await => {
            attach(Company::Nobody).await
        }
        outcome => outcome,
    }
}

async fn open(client: &Client, node: &str, key: &GuestKey) -> Result<Console, GuestError> {
    let opened = client.ct_console(node, key.vmid).await;
    opened.map_err(|error| GuestError::unreached(&error))
}

/// Nobody has a console of this container open. Any doubt is a no.
async fn is_alone(client: &Client, node: &str, vmid: u32) -> bool {
    // Without this privilege the list holds our own tasks only.
    let sees_all = match client.permissions().await {
        Ok(permissions) => permissions.allows(&format!("/nodes/{node}"), "Sys.Audit"),
        Err(_) => false,
    };
    if !sees_all {
        return false;
    }
    for _ in 0..FAREWELL {
        let Ok(tasks) = client.active_tasks(node, Some(vmid)).await else {
            return false;
        };
        if !tasks
            .iter()
            .any(|task| task.upid.task_type == "vncproxy" && task.is_running())
        {
            return true;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    false
}
