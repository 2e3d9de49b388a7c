//! What can go wrong between the operator and a container's shell.
//!
//! A message is for the person who reads a condition: it says what was being done, what is known, and what is not known
//! (a lost connection doesn't say whether the command ran). Whether to try again is the plan's business.

use std::net::SocketAddr;
use std::time::Duration;

use proxmox_client::ErrorKind;

/// Why an operation in a guest has no result.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The console's session belongs to somebody else; nothing was typed into it.
    #[error(
        "the container's console is in use: {what}. End that session (type `exit` in the container's console in Proxmox) \
         and the operator goes on by itself"
    )]
    ConsoleBusy {
        /// What was seen on the console.
        what: String,
    },
    /// Another session of ours holds the guest's lock; nothing was done.
    #[error("another session of the operator works in this container ({holder}); nothing was done")]
    Locked {
        /// The holder as the lock file names it.
        holder: String,
    },
    /// The console did not open, or there was no shell behind it: the container does not run. Nothing was done.
    #[error("the container's console could not be opened: {cause}")]
    Unreached {
        /// What Proxmox said.
        cause: String,
    },
    /// Proxmox grants no console here. Nothing was done.
    #[error("Proxmox refuses the container's console: {cause}")]
    ConsoleRefused {
        /// What Proxmox said.
        cause: String,
    },
    /// There was no connection to the container's SSH server. Nothing was done.
    #[error("no SSH connection to {address}: {cause}")]
    SshUnreached {
        /// Where it was looked for.
        address: SocketAddr,
        /// What was in the way.
        cause: String,
    },
    /// The container has no address, or there is no key: SSH was not tried.
    #[error("SSH can't be used: {cause}")]
    SshUnusable {
        /// Why.
        cause: String,
    },
    /// The SSH server doesn't take our key. Nothing was done.
    #[error(
        "the SSH server at {address} refuses the operator's key for root; put this line into /root/.ssh/authorized_keys of the container, and          see that its sshd allows root by key: {line}"
    )]
    SshRefused {
        /// The server.
        address: SocketAddr,
        /// The public key.
        line: String,
    },
    /// The SSH server is another than the recorded one. Nothing was said to it.
    #[error(
        "the SSH server at {address} has the host key {presented}, but the container's is {recorded} (status.ssh): this may be another machine,          and nothing was done there. Compare with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` in the container; if its keys were made anew          on purpose, remove status.ssh of the object and the next key is taken: `kubectl patch … --subresource=status --type=merge          -p '{{\"status\":{{\"ssh\":null}}}}'`"
    )]
    HostKeyChanged {
        /// The server.
        address: SocketAddr,
        /// What it ought to present.
        recorded: String,
        /// What it presented.
        presented: String,
    },
    /// Neither way in could be used.
    #[error("{console}. SSH, which was tried then: {ssh}")]
    NoWayIn {
        /// Why not the console.
        console: Box<GuestError>,
        /// Why not SSH.
        ssh: Box<GuestError>,
    },
    /// The connection ended before the answer was complete.
    #[error(
        "the connection to the container was lost while {during} ({cause}); whether it was carried out is not known"
    )]
    Lost {
        /// What was under way.
        during: &'static str,
        /// What the transport said.
        cause: String,
    },
    /// The guest did not answer in time.
    #[error("the container did not answer within {} s while {during}; it may still be at it", after.as_secs())]
    Timeout {
        /// What was under way.
        during: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The guest answered with something that this protocol cannot contain.
    #[error("the container gave an answer that makes no sense while {during}: {detail}")]
    Protocol {
        /// What was under way.
        during: &'static str,
        /// What was wrong with the answer.
        detail: String,
    },
    /// The operation ran in the guest and failed there.
    #[error("{op} failed in the container with exit status {exit}: {output}")]
    Failed {
        /// The operation.
        op: &'static str,
        /// The exit status of its script.
        exit: i32,
        /// Its last output, printable, at most 1 KiB.
        output: String,
    },
}

impl GuestError {
    /// The caller's own limit was reached.
    pub fn timeout(during: &'static str, after: Duration) -> Self {
        Self::Timeout { during, after }
    }

    /// The console could not be opened: nothing was done.
    pub fn unreached(error: &proxmox_client::Error) -> Self {
        let cause = error.to_string();
        match error.kind {
            ErrorKind::Forbidden | ErrorKind::Unauthorized | ErrorKind::TwoFactor => {
                Self::ConsoleRefused { cause }
            }
            _ => Self::Unreached { cause },
        }
    }

    /// The console is somebody else's.
    pub fn is_console_busy(&self) -> bool {
        match self {
            Self::ConsoleBusy { .. } => true,
            Self::NoWayIn { console, .. } => console.is_console_busy(),
            _ => false,
        }
    }

    /// The SSH server is not the recorded one.
    pub fn is_host_key_changed(&self) -> bool {
        match self {
            Self::HostKeyChanged { .. } => true,
            Self::NoWayIn { ssh, .. } => ssh.is_host_key_changed(),
            _ => false,
        }
    }
}
