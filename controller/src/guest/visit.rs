//! An operation in a container of a Proxmox VE, from opening its console, or an SSH connection, on.
//!
//! What is decided here: when SSH is used in the console's place, and when a shell that somebody left at its prompt may be taken
//! over. It may be our own, of an operator that was killed or cut off in the moment between attaching and typing; nothing would ever
//! end it. It is taken over only when Proxmox shows no console of this container open, and we may see all that there are.

use std::time::Duration;

use proxmox_client::{Client, Console};

use super::error::GuestError;
use super::facts::{GuestFacts, GuestState};
use super::op::{GuestKey, GuestOp};
use super::report;
use super::script::Place;
use super::shell::{Company, Shell, Timing};
use super::ssh::{self, SshLine, SshTarget};
use super::terminal::{Terminal, TerminalError};
use super::{checked, work};

/// How long Proxmox may take to notice that the connection just closed is gone. A console whose opening was cut off waits ten seconds for
/// its client.
const FAREWELL: u32 = 12;

/// By which ways a guest may be entered. Where it is both, SSH is for when the console can't be used.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Over Proxmox's console.
    pub console: bool,
    /// Over SSH: to where, or why that is not known.
    pub ssh: Option<Result<SshTarget, String>>,
    /// The line of `authorized_keys` that lets us in, where SSH is used.
    pub ssh_key: Option<String>,
}

impl Access {
    /// Over the console only.
    pub const CONSOLE: Self = Self {
        console: true,
        ssh: None,
        ssh_key: None,
    };
}

/// What carries a session: either is a [`Terminal`].
pub enum Carrier {
    /// The console that Proxmox offers.
    Console(Box<Console>),
    /// A channel over SSH.
    Ssh(Box<SshLine>),
}

impl Terminal for Carrier {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), TerminalError> {
        match self {
            Self::Console(console) => Terminal::send(&mut **console, bytes).await,
            Self::Ssh(line) => line.send(bytes).await,
        }
    }

    async fn resize(&mut self, cols: u16, rows: u16) -> Result<(), TerminalError> {
        match self {
            Self::Console(console) => Terminal::resize(&mut **console, cols, rows).await,
            Self::Ssh(line) => line.resize(cols, rows).await,
        }
    }

    async fn recv(&mut self) -> Result<Option<Vec<u8>>, TerminalError> {
        match self {
            Self::Console(console) => Terminal::recv(&mut **console).await,
            Self::Ssh(line) => line.recv().await,
        }
    }
}

/// A shell of ours in a container, for one operation after the other.
///
/// Dropped without [`Session::close`] it leaves our loop on the console, which the next session finds and uses.
pub struct Session {
    shell: Shell<Carrier>,
    key: GuestKey,
    /// The line of `authorized_keys` that lets us in, where SSH is allowed.
    ssh_key: Option<String>,
    /// The host key that this session's server has shown, until the container is given other ones.
    shown: Option<String>,
    /// What the last look in this session found.
    seen: Option<GuestFacts>,
}

impl Session {
    /// Opens a shell by one of the ways, or touches nothing.
    pub async fn open(
        client: &Client,
        node: &str,
        key: &GuestKey,
        access: &Access,
    ) -> Result<Self, GuestError> {
        let (shell, shown) = enter(client, node, key, access).await?;
        Ok(Self {
            shell,
            key: key.clone(),
            ssh_key: access.ssh_key.clone(),
            shown,
            seen: None,
        })
    }

    /// Carries out an operation and tells what the guest looks like afterwards: by another look, or, where success leaves one outcome
    /// only, from the look before. After an error the session is of no use any more.
    pub async fn run(&mut self, op: &GuestOp) -> Result<GuestFacts, GuestError> {
        let place = Place {
            root: "",
            key: &self.key,
            ssh_key: self.ssh_key.as_deref(),
        };
        let outcome = self
            .seen
            .take()
            .and_then(|seen| outcome(seen, op, &self.key));
        let mut facts = match (outcome, place.operation(op, Duration::ZERO)) {
            (Some(facts), Some(script)) => {
                let said = checked(&mut self.shell, &script, op.name()).await?;
                let host_key = match op {
                    GuestOp::Personalise => report::host_key(&said),
                    _ => facts.host_key.clone(),
                };
                GuestFacts { host_key, ..facts }
            }
            _ => work(&mut self.shell, place, op).await?,
        };
        if matches!(op, GuestOp::Personalise) {
            // what this connection was shown is no longer the container's
            self.shown = None;
        }
        if let Some(shown) = &self.shown {
            facts.host_key = Some(shown.clone());
        }
        self.seen = Some(facts.clone());
        Ok(facts)
    }

    /// Ends the shell, so that the console is everybody's again.
    pub async fn close(self) {
        if let Carrier::Ssh(line) = self.shell.close().await {
            line.leave().await;
        }
    }
}

async fn enter(
    client: &Client,
    node: &str,
    key: &GuestKey,
    access: &Access,
) -> Result<(Shell<Carrier>, Option<String>), GuestError> {
    let by_console = async || Ok((shell(client, node, key, Manner::Own).await?, None));
    match &access.ssh {
        None => by_console().await,
        Some(target) if !access.console => ssh(target).await,
        Some(target) => match by_console().await {
            Err(error) if leaves_ssh(&error) => {
                ssh(target).await.map_err(|ssh| GuestError::NoWayIn {
                    console: Box::new(error),
                    ssh: Box::new(ssh),
                })
            }
            outcome => outcome,
        },
    }
}

/// The console is there and not for us: nothing that a second try would change soon.
fn leaves_ssh(error: &GuestError) -> bool {
    matches!(
        error,
        GuestError::ConsoleBusy { .. } | GuestError::ConsoleRefused { .. }
    )
}

async fn ssh(
    target: &Result<SshTarget, String>,
) -> Result<(Shell<Carrier>, Option<String>), GuestError> {
    let target = target.as_ref().map_err(|cause| GuestError::SshUnusable {
        cause: cause.clone(),
    })?;
    let line = ssh::connect(target).await?;
    let shown = line.host_key.clone();
    let shell = Shell::alone(Carrier::Ssh(Box::new(line)), Timing::PRODUCTION).await?;
    Ok((shell, Some(shown)))
}

/// What a guest looks like once an operation has succeeded that can leave it in one way only.
fn outcome(seen: GuestFacts, op: &GuestOp, key: &GuestKey) -> Option<GuestFacts> {
    let ssh_key = match op {
        GuestOp::Personalise | GuestOp::Authorize => seen.ssh_key.map(|_| true),
        _ => seen.ssh_key,
    };
    let state = match op {
        GuestOp::Authorize => seen.state.clone(),
        GuestOp::Personalise => Some(GuestState {
            key: key.to_string(),
            personalised: true,
            setup: None,
        }),
        GuestOp::CleanForSeal => None,
        _ => return None,
    };
    Some(GuestFacts {
        ssh_key,
        state,
        ..seen
    })
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
) -> Result<Shell<Carrier>, GuestError> {
    let attach = async |company| {
        let console = Carrier::Console(Box::new(open(client, node, key).await?));
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
