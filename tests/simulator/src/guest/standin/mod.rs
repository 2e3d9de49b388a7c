//! The stand-in commands: which of them does what.
//!
//! Each is played from outside the guest and changes only files inside it, so that clones inherit what was "installed". A command that is set to fail
//! fails here, before it did anything. What a stand-in doesn't know it refuses, as the real command refuses what it doesn't know.

mod system;

use std::sync::Arc;

use super::boot::Guest;
use super::calls::Call;
use super::systemd;

/// Plays a command; the answer is its exit status.
pub(super) async fn run(guest: &Arc<Guest>, call: Call) -> i32 {
    let name = call.name().to_owned();
    if let Some(failure) = guest.shared.faults.command(guest.vmid, &name) {
        call.reply.err(&failure.stderr).await;
        return failure.code;
    }
    match name.as_str() {
        "systemctl" => systemd::run(guest, &call).await,
        "systemd-run" => systemd::run_transient(guest, &call).await,
        "journalctl" => systemd::journalctl(guest, &call).await,
        "poweroff" | "halt" | "shutdown" | "reboot" => systemd::power_off(guest, name == "reboot" || call.args.iter().any(|arg| arg == "-r")),
        _ => system::run(guest, &call).await,
    }
}
