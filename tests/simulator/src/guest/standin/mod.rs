//! The stand-in commands: which of them does what.
//!
//! Each is played from outside the guest and changes only files inside it, so that clones inherit what was "installed". A command that is set to fail
//! fails here, before it did anything. What a stand-in doesn't know it refuses, as the real command refuses what it doesn't know.

mod docker;
mod fetch;
mod nvidia;
mod packages;
mod python;
mod system;

use std::sync::Arc;

use super::boot::Guest;
use super::calls::Call;
use super::{systemd, vllm};

pub(super) use docker::Daemon;
pub(super) use nvidia::cuda_devices;
pub(super) use python::{VLLM, version as python_package};

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
        "poweroff" | "halt" | "shutdown" | "reboot" => systemd::power_off(
            guest,
            name == "reboot" || call.args.iter().any(|arg| arg == "-r"),
        ),
        "apt" | "apt-get" => packages::apt(guest, &call).await,
        "apt-cache" => packages::cache(guest, &call).await,
        "apt-mark" => packages::mark(guest, &call).await,
        "dpkg" | "dpkg-query" => packages::dpkg(guest, &call).await,
        "apt-key" | "dpkg-reconfigure" => 0,
        "curl" => fetch::curl(guest, &call).await,
        "wget" => fetch::wget(guest, &call).await,
        "gpg" => fetch::gpg(guest, &call).await,
        "docker" => docker::client(guest, &call).await,
        "dockerd" => docker::daemon(guest, &call).await,
        "nvidia-smi" => nvidia::smi(guest, &call).await,
        "nvidia-installer" => nvidia::installer(guest, &call).await,
        "nvidia-ctk" | "nvidia-container-cli" => nvidia::toolkit(guest, &call).await,
        "python" | "python3" => python::python(guest, &call).await,
        "pip" | "pip3" => python::pip(guest, &call, &call.args()).await,
        "uv" => python::uv(guest, &call).await,
        "vllm" => vllm::run(guest, &call).await,
        "nvcc" => {
            call.reply
                .out(
                    "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 13.0\n",
                )
                .await;
            0
        }
        _ => system::run(guest, &call).await,
    }
}
