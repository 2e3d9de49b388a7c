//! What a package brings into the guest: commands, units, libraries.

use std::sync::Arc;

use super::{DRIVER, is_driver_part};
use crate::guest::boot::Guest;
use crate::guest::roots::STAND_IN;
use crate::guest::systemd;

/// Puts a stand-in, or the machine's own program where it is there and harmless.
fn place(guest: &Guest, path: &str) {
    if let Err(error) = guest.files.link(path, STAND_IN) {
        tracing::warn!("guest {}: {error:#}", guest.vmid);
    }
}

fn place_host_tool(guest: &Guest, name: &str) {
    let own = format!("/usr/bin/{name}");
    // an alternative (vim → /etc/alternatives/vim → …) leads through the machine's /etc, which no guest has
    let real = std::fs::canonicalize(&own)
        .ok()
        .filter(|real| real.starts_with("/usr"));
    let target = real.map_or_else(
        || STAND_IN.to_owned(),
        |real| format!("/.host{}", real.display()),
    );
    guest.files.link(&own, &target).ok();
}

pub(super) fn unpack(guest: &Arc<Guest>, name: &str, version: &str) {
    match name {
        "curl" | "wget" => place(guest, &format!("/usr/bin/{name}")),
        "gnupg" | "gpg" => place(guest, "/usr/bin/gpg"),
        "jq" | "git" | "rsync" | "vim" | "nano" | "less" | "htop" | "lsof" | "tree" | "unzip"
        | "zip" | "bc" | "file" | "tmux" | "nvtop" | "make" | "gcc" => place_host_tool(guest, name),
        "build-essential" => ["gcc", "g++", "make"]
            .iter()
            .for_each(|tool| place_host_tool(guest, tool)),
        "python3" => place(guest, "/usr/bin/python3"),
        "python3-pip" => ["pip", "pip3"]
            .iter()
            .for_each(|tool| place(guest, &format!("/usr/bin/{tool}"))),
        "docker-ce-cli" => place(guest, "/usr/bin/docker"),
        "docker-ce" | "docker.io" => {
            if name == "docker.io" {
                place(guest, "/usr/bin/docker");
            }
            place(guest, "/usr/bin/dockerd");
            let unit = "[Unit]\nDescription=Docker Application Container Engine\nStartLimitBurst=3\nStartLimitIntervalSec=60\n[Service]\nType=notify\nExecStart=/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock\nRestart=always\nRestartSec=2\n[Install]\nWantedBy=multi-user.target\n";
            guest
                .files
                .write(
                    &format!("{}/docker.service", systemd::PACKAGED),
                    unit,
                    0o644,
                )
                .ok();
            guest
                .files
                .link(
                    "/etc/systemd/system/multi-user.target.wants/docker.service",
                    &format!("{}/docker.service", systemd::PACKAGED),
                )
                .ok();
            guest.files.append("/etc/group", "docker:x:988:\n").ok();
            guest.units.start_packaged(guest, "docker.service");
        }
        "nvidia-container-toolkit" => {
            place(guest, "/usr/bin/nvidia-ctk");
            place(guest, "/usr/bin/nvidia-container-cli");
        }
        _ if is_driver_part(name) => {
            let release = version.split('-').next().unwrap_or(version);
            install_driver(
                guest,
                release,
                name.starts_with("nvidia-utils") || name == "nvidia-smi",
            );
        }
        _ if name.starts_with("cuda-") => {
            let mut numbers = name.rsplit('-');
            if let (Some(minor), Some(major)) = (numbers.next(), numbers.next())
                && major.parse::<u32>().is_ok()
            {
                place(guest, &format!("/usr/local/cuda-{major}.{minor}/bin/nvcc"));
            }
        }
        _ => {}
    }
}

/// Leaves the driver's libraries, and `nvidia-smi` where the package brings it.
pub(in crate::guest::standin) fn install_driver(guest: &Guest, release: &str, with_tools: bool) {
    guest.files.write(DRIVER, release, 0o644).ok();
    for library in ["libcuda.so.1", "libnvidia-ml.so.1"] {
        guest
            .files
            .write(
                &format!("/usr/local/lib/simulated/{library}"),
                release,
                0o644,
            )
            .ok();
    }
    if with_tools {
        place(guest, "/usr/bin/nvidia-smi");
    }
}
