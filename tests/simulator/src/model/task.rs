//! Tasks: their identifiers, logs and ends. Running them is `worker`'s affair.

use std::{fmt, str::FromStr};

use tokio_util::sync::CancellationToken;

use super::now;

/// A task's identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upid {
    pub(crate) node: String,
    pub(crate) pid: u32,
    pub(crate) pstart: u64,
    pub(crate) starttime: u64,
    pub(crate) kind: String,
    pub(crate) id: String,
    /// The user, with his token.
    pub(crate) user: String,
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            pid,
            pstart,
            starttime,
            kind,
            id,
            user,
        } = self;
        write!(
            f,
            "UPID:{node}:{pid:08X}:{pstart:08X}:{starttime:08X}:{kind}:{id}:{user}:"
        )
    }
}

impl FromStr for Upid {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Vec<&str> = text.split(':').collect();
        let ["UPID", node, pid, pstart, starttime, kind, id, user, ""] = parts[..] else {
            return Err(());
        };
        let hex = |text: &str| u64::from_str_radix(text, 16).map_err(|_| ());
        let (pid_fits, pstart_fits) = (pid.len() == 8, (8..=9).contains(&pstart.len()));
        if !pid_fits
            || !pstart_fits
            || starttime.len() != 8
            || node.is_empty()
            || kind.is_empty()
            || user.is_empty()
        {
            return Err(());
        }
        Ok(Self {
            node: node.to_owned(),
            pid: u32::from_str_radix(pid, 16).map_err(|_| ())?,
            pstart: hex(pstart)?,
            starttime: hex(starttime)?,
            kind: kind.to_owned(),
            id: id.to_owned(),
            user: user.to_owned(),
        })
    }
}

impl Upid {
    /// The user without his token, and the token.
    pub(crate) fn owner(&self) -> (&str, Option<&str>) {
        match self.user.split_once('!') {
            Some((user, token)) => (user, Some(token)),
            None => (&self.user, None),
        }
    }
}

/// One task.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) upid: Upid,
    pub(crate) log: Vec<String>,
    pub(crate) warnings: u32,
    /// Empty while it runs.
    pub(crate) exit: Option<String>,
    pub(crate) ended: Option<u64>,
    /// For measurements; Proxmox itself knows whole seconds only.
    began: std::time::Instant,
    pub(crate) took: Option<std::time::Duration>,
    pub(crate) cancel: CancellationToken,
    /// It ends at once, wherever it is.
    pub(crate) killed: CancellationToken,
}

/// All tasks, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    all: Vec<Task>,
    /// How many there ever were: two never share an identifier.
    begun: u32,
}

const FIRST_PID: u32 = 0x0003_F000;

impl Tasks {
    /// Begins a task.
    pub(crate) fn begin(
        &mut self,
        node: &str,
        booted: u64,
        kind: &str,
        id: &str,
        user: &str,
    ) -> (Upid, CancellationToken) {
        let starttime = now();
        let count = self.begun;
        self.begun = self.begun.wrapping_add(1);
        let upid = Upid {
            node: node.to_owned(),
            pid: FIRST_PID.wrapping_add(count.wrapping_mul(7)),
            pstart: starttime.saturating_sub(booted) * 100 + u64::from(count) % 100,
            starttime,
            kind: kind.to_owned(),
            id: id.to_owned(),
            user: user.to_owned(),
        };
        let cancel = CancellationToken::new();
        self.all.push(Task {
            upid: upid.clone(),
            log: Vec::new(),
            warnings: 0,
            exit: None,
            ended: None,
            began: std::time::Instant::now(),
            took: None,
            cancel: cancel.clone(),
            killed: CancellationToken::new(),
        });
        (upid, cancel)
    }

    pub(crate) fn get(&self, upid: &Upid) -> Option<&Task> {
        self.all.iter().rev().find(|task| task.upid == *upid)
    }

    pub(crate) fn get_mut(&mut self, upid: &Upid) -> Option<&mut Task> {
        self.all.iter_mut().rev().find(|task| task.upid == *upid)
    }

    /// Newest first.
    pub(crate) fn newest(&self) -> impl Iterator<Item = &Task> {
        self.all.iter().rev()
    }

    /// The archive loses what is over, as log rotation does in time.
    pub(crate) fn rotate(&mut self) {
        self.all.retain(|task| task.exit.is_none());
    }

    /// Whether a running task names that container.
    pub(crate) fn active(&self, vmid: u32) -> bool {
        let id = vmid.to_string();
        self.all
            .iter()
            .any(|task| task.exit.is_none() && task.upid.id == id)
    }
}

impl Task {
    /// Ends it with an exit status; the log gets the line that a real one gets.
    pub(crate) fn end(&mut self, exit: &Result<(), String>) {
        let status = match exit {
            Ok(()) if self.warnings > 0 => {
                self.log.push(format!("TASK WARNINGS: {}", self.warnings));
                format!("WARNINGS: {}", self.warnings)
            }
            Ok(()) => {
                self.log.push("TASK OK".to_owned());
                "OK".to_owned()
            }
            Err(text) => {
                self.log.push(format!("TASK ERROR: {text}"));
                text.replace('\n', " ")
            }
        };
        self.exit = Some(status);
        self.ended = Some(now());
        self.took = Some(self.began.elapsed());
    }

    /// Ends it as a killed one ends: no last line.
    pub(crate) fn kill(&mut self) {
        self.exit = Some("unexpected status".to_owned());
        self.ended = Some(now());
        self.took = Some(self.began.elapsed());
    }

    /// `ok`, `warning`, `error` or `unknown`, as the task list filters.
    pub(crate) fn class(&self) -> &'static str {
        match self.exit.as_deref() {
            Some("OK") => "ok",
            Some(text) if text.starts_with("WARNINGS: ") => "warning",
            None | Some("unexpected status") => "unknown",
            Some(_) => "error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_round_trip_and_are_strict() {
        let text = "UPID:pve1:00000BFA:0001E323:6B05E50B:vncproxy:160:root@pam!op:";
        let upid: Upid = text.parse().unwrap();
        assert_eq!(upid.to_string(), text);
        assert_eq!(upid.owner(), ("root@pam", Some("op")));
        for wrong in ["UPID:foo", text.trim_end_matches(':'), "UPID%3Apve1", ""] {
            assert!(wrong.parse::<Upid>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ends_read_as_recorded() {
        let mut tasks = Tasks::default();
        let (upid, _) = tasks.begin("pve", 0, "vzcreate", "100", "root@pam!op");
        assert!(tasks.active(100));
        let task = tasks.get_mut(&upid).unwrap();
        task.warnings = 1;
        task.end(&Ok(()));
        assert_eq!(
            (task.exit.as_deref(), task.class()),
            (Some("WARNINGS: 1"), "warning")
        );
        assert_eq!(task.log, ["TASK WARNINGS: 1"]);
        assert!(!tasks.active(100));
    }
}
