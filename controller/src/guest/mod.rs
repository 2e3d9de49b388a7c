//! What happens inside a container: a shell over its console or over SSH, the boot, setup runs, vLLM's unit, GPU facts.
//!
//! This module carries out one [`GuestOp`] on one connection and reports what the guest then looks like. It decides how things
//! are done in a guest so that they survive a lost connection and are never done twice; it doesn't decide what is to be
//! done, nor when to try again. Inside:
//! - [`terminal`]: what carries the bytes; [`ssh`], where that is not the console;
//! - `greeting`: whose session the console shows, before a single byte is typed;
//! - `shell`, `wire`: our own loop in that session: commands with exit status and output, exactly once;
//! - `script`: the operations as shell scripts;
//! - `report`: their output as [`GuestFacts`];
//! - `log`: a setup's whole log, for whoever asks for it;
//! - `visit`: all of it on a container of a Proxmox VE;
//! - [`vllm`]: the rendering of vLLM's unit.

pub mod error;
pub mod facts;
mod greeting;
mod log;
pub mod op;
mod report;
mod script;
mod shell;
pub mod ssh;
mod stream;
pub mod terminal;
#[cfg(test)]
mod tests;
mod visit;
pub mod vllm;
mod wire;

use std::time::{Duration, Instant};

pub use error::GuestError;
pub use facts::{GpuFact, GuestFacts, GuestState, InitState, SetupPhase, SetupState, VllmUnit};
pub use log::{LogPiece, LogReader, Which};
pub use op::{GuestKey, GuestOp, SetupRun, SetupVariable};
pub use ssh::{SshKey, SshKeyError, SshTarget};
pub(crate) use stream::printable;
pub use terminal::{Terminal, TerminalError};
pub use visit::{Access, Session};
pub use vllm::{VllmFiles, VllmInput, render_vllm};

use script::{Place, Script};
use shell::{Company, Shell, Timing};
use wire::Output;

/// The longest that one line waits in the guest; a longer wait is made of several, so that a dead connection is noticed and
/// proxies see traffic.
const SLICE: Duration = Duration::from_secs(25);

/// Carries out an operation over a terminal that shows a container's console, and looks at the guest afterwards.
///
/// May be cancelled anywhere: what it leaves on the console then is our loop, which the next connection finds and uses, or, in the
/// moment before there is one, a shell at its prompt ([`Session::open`] can take that over). All operations may be repeated after any error.
pub async fn run(
    terminal: impl Terminal,
    key: &GuestKey,
    op: &GuestOp,
) -> Result<GuestFacts, GuestError> {
    let place = Place {
        root: "",
        key,
        ssh_key: None,
    };
    run_in(terminal, place, op, Company::Unknown, Timing::PRODUCTION).await
}

async fn run_in(
    terminal: impl Terminal,
    place: Place<'_>,
    op: &GuestOp,
    company: Company,
    timing: Timing,
) -> Result<GuestFacts, GuestError> {
    let mut shell = Shell::open(terminal, company, timing).await?;
    let result = work(&mut shell, place, op).await;
    drop(shell.close().await);
    result
}

async fn work<T: Terminal>(
    shell: &mut Shell<T>,
    place: Place<'_>,
    op: &GuestOp,
) -> Result<GuestFacts, GuestError> {
    let deadline = match op {
        GuestOp::AwaitBoot { limit, .. } | GuestOp::AwaitSetup { limit } => {
            Some(Instant::now() + *limit)
        }
        _ => None,
    };
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if let Some(script) = place.operation(op, left.unwrap_or_default().min(SLICE)) {
            checked(shell, &script, op.name()).await?;
        }
        let facts = inspect(shell, place).await?;
        // A wait may end early, when somebody joins the console.
        let wanted = match op {
            GuestOp::AwaitBoot { network, .. } => !facts.booted(*network),
            GuestOp::AwaitSetup { .. } => facts
                .state
                .as_ref()
                .and_then(|state| state.setup.as_ref())
                .is_some_and(|setup| setup.phase.is_running()),
            _ => false,
        };
        if !wanted || left.is_none_or(|left| left.is_zero()) {
            return Ok(facts);
        }
    }
}

async fn inspect<T: Terminal>(
    shell: &mut Shell<T>,
    place: Place<'_>,
) -> Result<GuestFacts, GuestError> {
    const DURING: &str = "inspecting";
    let output = checked(shell, &place.inspect(), DURING).await?;
    report::parse(&output, &place.key.to_string()).map_err(|detail| GuestError::Protocol {
        during: DURING,
        detail,
    })
}

async fn checked<T: Terminal>(
    shell: &mut Shell<T>,
    script: &Script,
    during: &'static str,
) -> Result<Vec<u8>, GuestError> {
    let files: Vec<&[u8]> = script.files.iter().map(Vec::as_slice).collect();
    let Output { exit, bytes } = shell
        .run(&script.text, &files, during, script.limit)
        .await?;
    let said = || stream::tail(&stream::printable(&bytes), 1024).to_owned();
    match exit {
        0 => Ok(bytes),
        HELD_BY_ANOTHER => Err(GuestError::Locked { holder: said() }),
        exit => Err(GuestError::Failed {
            op: during,
            exit,
            output: said(),
        }),
    }
}

/// The exit status of a script that found the guest's lock taken.
const HELD_BY_ANOTHER: i32 = 75;
