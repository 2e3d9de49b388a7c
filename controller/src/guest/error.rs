//! What can go wrong between the operator and a container's shell.
//!
//! A message is for the person who reads a condition: it says what was being done, what is known, and what is not known
//! (a lost connection doesn't say whether the command ran). Whether to try again is the plan's business.

use std::time::Duration;

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
    /// The connection ended before the answer was complete.
    #[error(
        "the connection to the container's console was lost while {during} ({cause}); whether it was carried out is not known"
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
    #[error("the container's console gave an answer that makes no sense while {during}: {detail}")]
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
        Self::Unreached {
            cause: error.to_string(),
        }
    }
}
