//! How a guest is kept away from the machine it runs on, and how one gets into it.
//!
//! A guest is a set of user, mount, pid, uts, ipc and network namespaces made by util-linux's `unshare` (as root and as anybody else), nested twice
//! so that the inner one cannot undo the read-only mounts of the outer. Decides nothing about what runs inside. Where namespaces are refused, the
//! answer is an error with the remedy: a guest that can't be confined is not started.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// The environment that `lxc-attach --clear-env` leaves to a shell.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const TOOLS: [&str; 5] = ["unshare", "nsenter", "setsid", "mount", "bash"];

/// The namespaces of one running guest. Dropping it ends everything inside.
pub(super) struct Confined {
    /// Process id of the guest's process 1, as the machine counts.
    pub(super) init: u32,
    outer: Child,
    /// Process 1 reads from it and ends when it closes.
    lifeline: Option<ChildStdin>,
}

/// Says in words what is missing where this machine can't confine guests.
pub(super) async fn check() -> Result<()> {
    for tool in TOOLS {
        let found = Command::new(tool)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await;
        if found.is_err() {
            bail!(
                "guests need the command `{tool}`, which is not there: install the packages util-linux and bash"
            );
        }
    }
    // What a guest needs most is tried at once: namespaces, a file system in memory, a /proc of its own.
    let tried = unshare()
        .args(["--", "sh", "-c"])
        .arg("mount -t tmpfs tmpfs /mnt && mount -t proc proc /proc")
        .stdin(Stdio::null())
        .output()
        .await
        .context("running unshare")?;
    if tried.status.success() {
        return Ok(());
    }
    bail!(
        "guests run confined in namespaces of their own, which this machine refuses ({}). Allow them: \
         `sysctl -w user.max_user_namespaces=15000`, on Ubuntu also `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`; in a \
         container, start it with `--security-opt seccomp=unconfined --security-opt systempaths=unconfined`. Or run the simulator without guests",
        String::from_utf8_lossy(&tried.stderr).trim()
    );
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--propagation",
        "private",
    ]);
    command
}

/// Starts a guest's namespaces and process 1 over `root`; `seam` holds what the scripts need.
pub(super) async fn start(root: &Path, seam: &Path) -> Result<Confined> {
    let mut outer = unshare()
        .args(["--", "bash"])
        .arg(seam.join("setup.sh"))
        .args([root, seam])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context("starting unshare")?;
    let lifeline = outer.stdin.take();
    let stdout = outer.stdout.take().context("unshare without an output")?;
    let mut stderr = outer
        .stderr
        .take()
        .context("unshare without an error output")?;
    let mut said = String::new();
    let up = tokio::time::timeout(
        Duration::from_secs(30),
        BufReader::new(stdout).read_line(&mut said),
    )
    .await;
    if !matches!(up, Ok(Ok(_))) || said.trim_end() != "up" {
        outer.start_kill().ok();
        let mut complaint = String::new();
        tokio::time::timeout(
            Duration::from_secs(2),
            stderr.read_to_string(&mut complaint),
        )
        .await
        .ok();
        bail!(
            "the guest's namespaces could not be built: {}",
            complaint.trim()
        );
    }
    let outer_pid = outer.id().context("unshare ended at once")?;
    let init = only_child(outer_pid)
        .and_then(only_child)
        .context("the guest's process 1 was not found in /proc")?;
    Ok(Confined {
        init,
        outer,
        lifeline,
    })
}

/// The one child of a process, read from /proc.
pub(super) fn only_child(pid: u32) -> Option<u32> {
    let listed = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok();
    if let Some(child) = listed
        .as_deref()
        .and_then(|text| text.split_whitespace().next())
    {
        return child.parse().ok();
    }
    // Kernels without CONFIG_PROC_CHILDREN: look for the parent's number in every stat line.
    std::fs::read_dir("/proc")
        .ok()?
        .filter_map(Result::ok)
        .find_map(|entry| {
            let candidate: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent: u32 = stat
                .rsplit_once(')')?
                .1
                .split_whitespace()
                .nth(1)?
                .parse()
                .ok()?;
            (parent == pid).then_some(candidate)
        })
}

impl Confined {
    /// Lets process 1 end, without waiting for it. The outer processes follow it, each reaped by the one above.
    pub(super) fn release(&mut self) {
        drop(self.lifeline.take());
    }

    /// Ends process 1 and with it everything in the guest; returns when all are gone.
    pub(super) async fn end(&mut self) {
        self.release();
        if tokio::time::timeout(Duration::from_secs(2), self.outer.wait())
            .await
            .is_err()
        {
            self.outer.start_kill().ok();
            self.outer.wait().await.ok();
        }
        // The namespaces' last process is reaped by the machine's init, a moment after the outer one is gone.
        let gone = format!("/proc/{}", self.init);
        for _ in 0..200 {
            if !Path::new(&gone).exists() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A command that runs inside the guest whose process 1 is `init`, with nothing of our environment: the caller adds `NAME=value` words, then the program.
pub(super) fn enter(init: u32) -> Command {
    let mut command = Command::new("nsenter");
    command
        .args([
            "--preserve-credentials",
            "--target",
            &init.to_string(),
            "--user",
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--net",
            "--",
        ])
        .args(["/usr/bin/env", "-i"])
        // For the moment before `env` runs, this is what the guest can see of our environment.
        .env_clear()
        .env(
            "PATH",
            std::env::var_os("PATH").unwrap_or_else(|| PATH.into()),
        )
        .kill_on_drop(true);
    command
}
