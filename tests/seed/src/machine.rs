//! A booted container: systemd as process 1 by systemd-nspawn, reached through its console, and no network but the edge.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::unistd::Uid;

use crate::cgroup::Group;
use crate::console::Console;
use crate::edge::{Edge, Listening};
use crate::root::Root;
use crate::shell::run;

/// Why this machine can't run such containers, if it can't.
pub(crate) fn obstacle() -> Option<String> {
    if !Uid::effective().is_root() {
        return Some("this needs root".to_owned());
    }
    for tool in [
        "systemd-nspawn",
        "debootstrap",
        "dpkg-deb",
        "gpg",
        "nsenter",
        "ip",
        "go",
    ] {
        if run("which", [tool]).is_err() {
            return Some(format!("the command {tool} is missing"));
        }
    }
    Group::obstacle()
}

/// What a container is given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    /// The version of the host's NVIDIA driver; with it come two GPUs.
    pub(crate) driver: Option<String>,
}

/// Dropping it cuts its power.
#[derive(Debug)]
pub(crate) struct Machine {
    supervisor: Child,
    leader: u32,
    said: PathBuf,
    // In this order: nobody may be listening for a machine that is gone.
    _edge: Listening,
    group: Group,
}

impl Machine {
    /// Starts it and gives it its network; whether it is up is for the operator's own code to find out.
    pub(crate) fn boot(root: &Root, given: &Given, edge: &Edge) -> Result<Self> {
        let group = Group::new()?;
        let said = root.path("../boot.log");
        let log = fs::File::create(&said).context("making a file for the machine's output")?;
        let mut nspawn = vec![
            "systemd-nspawn --quiet --boot --private-network --register=no --keep-unit --capability=all".to_owned(),
            "--resolv-conf=off --timezone=off --link-journal=no --machine=phoenix-seed".to_owned(),
        ];
        if given.driver.is_some() {
            for device in ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"] {
                nspawn.push(format!("--bind=/dev/null:/dev/{device}"));
            }
        }
        let mut supervisor = Command::new("sh")
            .arg("-c")
            .arg(format!(
                "{} && exec {} -D \"$0\"",
                group.enter(),
                nspawn.join(" ")
            ))
            .arg(root.path(""))
            // A unified hierarchy is what Docker in the container can make groups in; Docker also needs
            // system calls and kernel files that nspawn keeps from a container, as nesting opens them in Proxmox.
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "1")
            .env("SYSTEMD_SECCOMP", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting systemd-nspawn")?;
        let leader = match leader(&mut supervisor) {
            Ok(leader) => leader,
            Err(error) => {
                let _ = group.end();
                let _ = supervisor.wait();
                return Err(error.context(fs::read_to_string(&said).unwrap_or_default()));
            }
        };
        let prepared = network(leader)
            .and_then(|()| {
                given
                    .driver
                    .as_deref()
                    .map_or(Ok(()), |driver| load_driver(leader, driver))
            })
            .and_then(|()| edge.listen_in(leader));
        match prepared {
            Ok(listening) => Ok(Self {
                supervisor,
                leader,
                said,
                _edge: listening,
                group,
            }),
            Err(error) => {
                let _ = group.end();
                let _ = supervisor.wait();
                Err(error.context("preparing the machine"))
            }
        }
    }

    /// A new session on its console.
    pub(crate) fn console(&self) -> Result<Console> {
        Console::open(self.leader)
    }

    /// A command in the machine, with what it printed.
    pub(crate) fn exec(&self, script: &str) -> Result<String> {
        let leader = self.leader.to_string();
        run(
            "timeout",
            [
                "120", "nsenter", "--target", &leader, "--all", "--", "bash", "-lc", script,
            ],
        )
    }

    /// Gone between two instructions.
    pub(crate) fn cut_power(self) {
        drop(self);
    }

    /// As `pct shutdown` does it.
    pub(crate) fn power_off(mut self) -> Result<()> {
        self.exec("systemctl poweroff --no-block")?;
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.supervisor.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!(
                    "the machine does not power off: {}",
                    fs::read_to_string(&self.said).unwrap_or_default()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.group.end();
        let _ = self.supervisor.wait();
    }
}

/// The machine's process 1, as this machine counts.
fn leader(supervisor: &mut Child) -> Result<u32> {
    let children = format!("/proc/{0}/task/{0}/children", supervisor.id());
    let ours = fs::read_link("/proc/self/ns/pid").context("reading our own namespace")?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if let Some(status) = supervisor.try_wait()? {
            bail!("systemd-nspawn ended at once ({status})");
        }
        for pid in fs::read_to_string(&children)
            .unwrap_or_default()
            .split_whitespace()
        {
            let theirs = fs::read_link(format!("/proc/{pid}/ns/pid"));
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if theirs.is_ok_and(|theirs| theirs != ours) && name.trim() == "systemd" {
                return pid
                    .parse()
                    .context("reading the number of the machine's process 1");
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("no systemd began in the machine within a minute")
}

/// An interface with a default route: nothing answers behind it, since all names lead to the edge on loopback.
fn network(leader: u32) -> Result<()> {
    let leader = leader.to_string();
    for line in [
        "link set lo up",
        "link add eth0 type veth peer name wire0",
        "address add 198.51.100.2/24 dev eth0",
        "link set wire0 up",
        "link set eth0 up",
        "route add default via 198.51.100.1",
    ] {
        let enter = ["--target", &leader, "--net", "--", "ip"];
        run("nsenter", enter.into_iter().chain(line.split(' ')))?;
    }
    Ok(())
}

/// Lays NVIDIA's file into the machine's /proc, which on a host with the driver is there for all its containers. procfs
/// lets nobody make a file, so an empty folder of it is covered, before anything in the machine looks there.
fn load_driver(leader: u32, version: &str) -> Result<()> {
    let leader = leader.to_string();
    let text = format!(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build  (builder@host)  Tue Sep 23 09:55:41 UTC 2025\nGCC version:  gcc version 14.2.0\n"
    );
    let script = "mountpoint -q /proc/driver || mount -t tmpfs -o mode=0555 tmpfs /proc/driver
        mkdir -p /proc/driver/nvidia && printf %s \"$0\" >/proc/driver/nvidia/version";
    let enter = ["--target", &leader, "--mount", "--root", "--wd", "--"];
    run(
        "nsenter",
        enter.into_iter().chain(["sh", "-ec", script, &text]),
    )
    .map(drop)
}
