//! A service's main process, found behind the `nsenter` that started it.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use crate::guest::confine;

/// A service's main process: its number for the machine and for the guest.
pub(super) struct Process {
    outside: Pid,
    pub(super) inside: u32,
}

impl Process {
    /// The process that `nsenter` started for us, once it has become the program.
    pub(super) async fn of(nsenter: &Child) -> Option<Self> {
        let nsenter = nsenter.id()?;
        for _ in 0..500 {
            if let Some(pid) = confine::only_child(nsenter)
                && let Ok(name) = std::fs::read_to_string(format!("/proc/{pid}/comm"))
                && !matches!(name.trim_end(), "nsenter" | "env" | "setsid")
            {
                let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
                let inside = status
                    .lines()
                    .find_map(|line| line.strip_prefix("NSpid:"))?
                    .split_whitespace()
                    .last()?
                    .parse()
                    .ok()?;
                return Some(Self {
                    outside: Pid::from_raw(i32::try_from(pid).ok()?)?,
                    inside,
                });
            }
            // Gone already, or not there yet.
            if !std::path::Path::new(&format!("/proc/{nsenter}/exe")).exists() {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        None
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(self.outside, signal).ok();
    }
}
