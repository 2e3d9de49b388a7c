//! Runs the setup scripts of the seed (manifests/phoenix) for real: each by the operator's own guest code, over a console, in a
//! booted Debian 13 whose process 1 is systemd, on a copy of its parent's root file system, as the hierarchy of templates
//! has it. Each is interrupted at several moments and run again, and run once more when it is done, which must change nothing.
//!
//! Needs root, systemd-nspawn, debootstrap and Debian's mirror. Where that is not to be had it says so in one line and
//! ends with status 77; there the simulator's stand-ins run the same scripts (`guest::tests::layers` of `proxmox-simulator`).

mod cgroup;
mod console;
mod edge;
mod goods;
mod layers;
mod machine;
mod proofs;
mod root;
mod shell;
mod stage;

use std::io::Write as _;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

/// The exit status of a check that could not be made.
const LEFT_OUT: u8 = 77;

#[tokio::main]
async fn main() -> ExitCode {
    if let Some(obstacle) = machine::obstacle() {
        say(&format!(
            "left out: the seed's scripts did not run in a real Debian here, since {obstacle}"
        ));
        return ExitCode::from(LEFT_OUT);
    }
    // Dropping the proofs ends the machine they are about.
    let ended = tokio::select! {
        ended = proofs::all() => ended,
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    match ended {
        Ok(count) => {
            say(&format!("{count} passed, 0 failed"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("FAILED: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn interrupted() {
    let (Ok(mut end), Ok(mut stop)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = end.recv() => {}
        _ = stop.recv() => {}
    }
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
