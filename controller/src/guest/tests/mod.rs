//! Real shells on a real pty, shared and outliving connections as Proxmox's console does it, in a file system root of their own.

mod cuts;
mod harm;
mod logs;
mod machine;
mod positions;
mod pty;
mod reports;
mod sessions;
mod setup;
mod simulated;
mod ssh;
mod sshd;
mod units;

use std::time::Duration;

use super::error::GuestError;
use super::facts::{GuestFacts, SetupState};
use super::op::{GuestKey, GuestOp};
use super::script::Place;
use super::shell::{Company, Timing};
use super::terminal::Terminal;

/// Impatient enough for tests, patient enough for a machine that is busy.
const TIMING: Timing = Timing {
    patience: Duration::from_secs(4),
    settle: Duration::from_millis(60),
    resend: Duration::from_millis(800),
    answer: Duration::from_secs(20),
};

fn key() -> GuestKey {
    GuestKey {
        vmid: 950,
        uid: "0b5e6d0e-8f0a-4c7e-9a51-2f4f5a1c7e11".to_owned(),
    }
}

/// One operation on a new connection.
async fn operate(guest: &pty::Guest, op: &GuestOp) -> Result<GuestFacts, GuestError> {
    match guest.ssh() {
        Some(target) => ssh::operate(&target, guest, op).await,
        None => operate_over(guest.attach(), guest, op).await,
    }
}

async fn operate_over(
    terminal: impl Terminal,
    guest: &pty::Guest,
    op: &GuestOp,
) -> Result<GuestFacts, GuestError> {
    let key = key();
    super::run_in(
        terminal,
        Place {
            root: guest.root(),
            key: &key,
            ssh_key: None,
        },
        op,
        Company::Unknown,
        TIMING,
    )
    .await
}

fn setup(facts: GuestFacts) -> SetupState {
    facts
        .state
        .and_then(|state| state.setup)
        .expect("a setup run")
}
