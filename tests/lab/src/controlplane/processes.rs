//! The control plane's processes: how they are started, how they end with their owner.
//!
//! Each holds the reading end of a pipe as its standard input and ends when the writing end, which only the owner
//! has, is closed (`--die-with-parent`, tests/controlplane/lifeline.go). So they end with the owner however it ends, SIGKILL
//! included. They share a process group of their own, so that a terminal's Ctrl-C reaches the owner alone, who
//! may still need them to tidy up.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How much of a log an error quotes.
const QUOTED_LINES: usize = 25;

/// Processes that live no longer than this value.
#[derive(Debug)]
pub(super) struct Processes {
    binary: PathBuf,
    /// Where they run, log and keep their state; the first one removes it where the owner could not.
    dir: PathBuf,
    running: Vec<(&'static str, Child)>,
}

impl Processes {
    pub(super) fn new(binary: PathBuf, dir: PathBuf) -> Self {
        Self {
            binary,
            dir,
            running: Vec::new(),
        }
    }

    /// Starts an applet of the binary; it logs to `<applet>.log`.
    pub(super) fn start(&mut self, applet: &'static str, args: &[String]) -> Result<()> {
        let log =
            File::create(self.log(applet)).with_context(|| format!("creating {applet}'s log"))?;
        let mut command = Command::new(&self.binary);
        command.args([applet, "--die-with-parent"]);
        if self.running.is_empty() {
            let mut flag = std::ffi::OsString::from("--then-remove=");
            flag.push(&self.dir);
            command.arg(flag);
        }
        let child = command
            .args(args)
            .current_dir(&self.dir)
            // Any flag of etcd can come from the environment; no setting of the user's may reach it.
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "TMPDIR"))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().context("sharing the log")?)
            .stderr(log)
            .process_group(self.group().map_or(0, Pid::as_raw))
            .spawn()
            .with_context(|| format!("starting {applet}"))?;
        self.running.push((applet, child));
        Ok(())
    }

    /// An error that quotes the log, if one of the processes has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        let mut ended: Option<(&'static str, ExitStatus)> = None;
        for (applet, child) in &mut self.running {
            if let Some(status) = child.try_wait().context("looking after a child process")? {
                ended.get_or_insert((applet, status));
            }
        }
        match ended {
            None => Ok(()),
            Some((applet, status)) => Err(anyhow::anyhow!(
                "{applet} ended ({status}); its last lines:\n{}",
                self.last_lines(applet)
            )),
        }
    }

    pub(super) fn last_lines(&self, applet: &str) -> String {
        let text = fs::read_to_string(self.log(applet)).unwrap_or_default();
        let mut lines = VecDeque::with_capacity(QUOTED_LINES);
        for line in text.lines() {
            if lines.len() == QUOTED_LINES {
                lines.pop_front();
            }
            lines.push_back(line);
        }
        Vec::from(lines).join("\n")
    }

    /// Their process IDs by applet.
    pub(super) fn ids(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.running
            .iter()
            .map(|(applet, child)| (*applet, child.id()))
    }

    fn log(&self, applet: &str) -> PathBuf {
        log_path(&self.dir, applet)
    }

    fn group(&self) -> Option<Pid> {
        let (_, leader) = self.running.first()?;
        Some(Pid::from_raw(i32::try_from(leader.id()).ok()?))
    }
}

fn log_path(dir: &Path, applet: &str) -> PathBuf {
    dir.join(format!("{applet}.log"))
}

impl Drop for Processes {
    fn drop(&mut self) {
        // Their state is a throw-away: nothing is gained by asking politely.
        if let Some(group) = self.group() {
            let _ = killpg(group, Signal::SIGKILL);
        }
        for (_, child) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
