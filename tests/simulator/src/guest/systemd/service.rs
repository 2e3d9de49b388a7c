//! One service from start to end: its processes, its restarts, its journal.

use std::collections::{HashMap, VecDeque};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use super::file::{KillMode, Restart, Service};
use super::process::Process;
use super::{Active, words};
use crate::guest::boot::Guest;
use crate::guest::confine::{self, PATH};

/// How a run of a service's program ended.
enum End {
    Exited(ExitStatus),
    /// The program could not be executed.
    NoExec,
    /// It was asked to stop.
    Stopped(Option<ExitStatus>),
    /// It ran longer than it may.
    TooLong,
}

/// A service being supervised.
pub(super) struct Running {
    pub(super) guest: Arc<Guest>,
    pub(super) name: String,
    pub(super) service: Service,
    pub(super) stop: CancellationToken,
}

impl Running {
    /// Runs the service until it is stopped, fails for good or is done.
    pub(super) async fn supervise(self) {
        let mut starts = VecDeque::new();
        loop {
            if let Some((burst, interval)) = self.service.start_limit {
                let now = Instant::now();
                starts.retain(|at: &Instant| now.duration_since(*at) < interval);
                if starts.len() >= burst as usize {
                    self.say("Start request repeated too quickly.");
                    self.say(&format!("Failed with result '{}'.", "start-limit-hit"));
                    return self.finish(Active::Failed, "start-limit-hit");
                }
                starts.push_back(now);
            }
            let end = self.run_once().await;
            if self.guest.units.ended() && !self.stop.is_cancelled() {
                return;
            }
            let (clean, result) = self.judge(&end);
            self.kill_rest().await;
            if let End::Stopped(_) = end {
                self.say(&format!("Stopped {}.", self.name));
                return self.finish(Active::Inactive, result);
            }
            if self.service.oneshot && clean && self.service.remain {
                self.change(|state| {
                    (state.active, state.sub, state.main_pid) = (Active::Active, "exited", 0);
                    state.since_active = Some(SystemTime::now());
                });
                self.stop.cancelled().await;
                return self.finish(Active::Inactive, "success");
            }
            if !clean {
                self.say(&format!("Failed with result '{result}'."));
            }
            if !self.restarts_after(&end, clean) {
                return self.finish(
                    if clean {
                        Active::Inactive
                    } else {
                        Active::Failed
                    },
                    result,
                );
            }
            self.change(|state| {
                (state.active, state.sub, state.main_pid, state.result) =
                    (Active::Activating, "auto-restart", 0, result);
            });
            tokio::select! {
                () = tokio::time::sleep(self.service.restart_after) => {}
                () = self.stop.cancelled() => return self.finish(Active::Inactive, "success"),
            }
            self.change(|state| state.restarts += 1);
            let count = self.guest.units.state(&self.name).restarts;
            self.say(&format!(
                "Scheduled restart job, restart counter is at {count}."
            ));
        }
    }

    fn change(&self, change: impl FnOnce(&mut super::State)) {
        self.guest.units.update(&self.name, change);
    }

    fn say(&self, text: &str) {
        self.guest
            .units
            .journal
            .write(&self.name, "systemd", 1, &format!("{}: {text}", self.name));
    }

    fn finish(&self, active: Active, result: &'static str) {
        self.change(|state| {
            (state.active, state.sub, state.result, state.main_pid) = (
                active,
                if active == Active::Failed {
                    "failed"
                } else {
                    "dead"
                },
                result,
                0,
            );
            state.since_inactive = Some(SystemTime::now());
        });
    }

    /// Whether an end counts as success, and its name.
    fn judge(&self, end: &End) -> (bool, &'static str) {
        use std::os::unix::process::ExitStatusExt;
        let of = |status: ExitStatus| match (status.code(), status.signal()) {
            (Some(code), _) if code == 0 || self.service.success_codes.contains(&code) => {
                (true, "success")
            }
            (Some(_), _) => (false, "exit-code"),
            (None, Some(1 | 2 | 13 | 15)) => (true, "success"),
            (None, _) => (false, "signal"),
        };
        match end {
            End::Exited(status) | End::Stopped(Some(status)) => of(*status),
            End::NoExec => (false, "exit-code"),
            End::Stopped(None) => (true, "success"),
            End::TooLong => (false, "timeout"),
        }
    }

    fn restarts_after(&self, end: &End, clean: bool) -> bool {
        match self.service.restart {
            Restart::Always => true,
            Restart::OnFailure => !clean,
            Restart::OnSuccess => clean,
            Restart::OnAbnormal => {
                matches!(end, End::TooLong)
                    || matches!(end, End::Exited(status) if status.code().is_none())
            }
            Restart::No => false,
        }
    }

    async fn run_once(&self) -> End {
        let invocation = hex::encode(rand::random::<[u8; 16]>());
        self.change(|state| {
            (state.active, state.sub) = (Active::Activating, "start-pre");
            state.ready = false;
            state.invocation.clone_from(&invocation);
        });
        let environment = match self.environment(&invocation) {
            Ok(environment) => environment,
            Err(complaint) => {
                self.say(&complaint);
                return End::NoExec;
            }
        };
        for line in &self.service.start_pre {
            match self.helper(line, &environment).await {
                End::Exited(status) if !status.success() && !line.starts_with('-') => {
                    return End::Exited(status);
                }
                end @ (End::Stopped(_) | End::NoExec) => return end,
                _ => {}
            }
        }
        let mut last = End::Stopped(None);
        for line in &self.service.start {
            last = self.main(line, &environment).await;
            match &last {
                End::Exited(status) if status.success() || line.starts_with('-') => {}
                _ => break,
            }
        }
        last
    }

    /// The environment that the service's programs get, by name.
    fn environment(&self, invocation: &str) -> Result<HashMap<String, String>, String> {
        let mut values = HashMap::from([
            ("PATH".to_owned(), PATH.to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("INVOCATION_ID".to_owned(), invocation.to_owned()),
            ("JOURNAL_STREAM".to_owned(), "8:12345".to_owned()),
        ]);
        let expand = |value: &str| words::specifiers(value, &self.name, &self.guest.spec.hostname);
        values.extend(
            self.service
                .assignments()
                .into_iter()
                .map(|(name, value)| (name, expand(&value))),
        );
        for path in &self.service.environment_files {
            let (path, optional) = path
                .strip_prefix('-')
                .map_or((path.as_str(), false), |path| (path, true));
            match self.guest.files.read(&expand(path)) {
                Some(text) => values.extend(words::environment_file(&text)),
                None if optional => {}
                None => {
                    return Err(format!(
                        "Failed to load environment files: No such file or directory ({path})"
                    ));
                }
            }
        }
        Ok(values)
    }

    /// Runs a command of `ExecStartPre=` and the like to its end.
    async fn helper(&self, line: &str, environment: &HashMap<String, String>) -> End {
        let Some((mut child, _)) = self.spawn(line, environment) else {
            return End::NoExec;
        };
        tokio::select! {
            status = child.wait() => status.map_or(End::NoExec, End::Exited),
            () = self.stop.cancelled() => End::Stopped(None),
        }
    }

    async fn main(&self, line: &str, environment: &HashMap<String, String>) -> End {
        let Some((mut child, identifier)) = self.spawn(line, environment) else {
            self.change(|state| (state.code, state.status) = (1, 203));
            self.say("Main process exited, code=exited, status=203/EXEC");
            return End::NoExec;
        };
        let process = Process::of(&child).await;
        let pid = process.as_ref().map_or(0, |process| process.inside);
        self.relay(&mut child, &identifier, pid);
        self.say(&format!("Started {}.", self.name));
        let (begun, clock) = (SystemTime::now(), std::time::Instant::now());
        self.change(|state| {
            state.main_pid = pid;
            state.main_start = Some(begun);
            if self.service.oneshot || self.service.notify {
                (state.active, state.sub) = (Active::Activating, "start");
            } else {
                (state.active, state.sub) = (Active::Active, "running");
                state.since_active = Some(begun);
            }
        });
        for line in &self.service.start_post {
            self.helper(line, environment).await;
        }
        let limit = self
            .service
            .runtime_max
            .unwrap_or(Duration::from_secs(u64::from(u32::MAX)));
        let mut ready = self.guest.units.watch(&self.name);
        let readiness = async {
            match ready.as_mut() {
                Some(state) if self.service.notify => {
                    state.wait_for(|state| state.ready).await.ok();
                    self.change(|state| {
                        (state.active, state.sub) = (Active::Active, "running");
                        state.since_active = Some(SystemTime::now());
                    });
                    std::future::pending::<()>().await;
                }
                _ => std::future::pending().await,
            }
        };
        let end = tokio::select! {
            () = readiness => End::Stopped(None),
            status = child.wait() => status.map_or(End::NoExec, End::Exited),
            () = self.stop.cancelled() => End::Stopped(self.bring_down(&mut child, process.as_ref(), environment).await),
            () = tokio::time::sleep(limit) => {
                self.bring_down(&mut child, process.as_ref(), environment).await;
                End::TooLong
            }
        };
        self.guest
            .shared
            .ran(self.guest.vmid, &self.name, clock.elapsed());
        self.record(&end);
        end
    }

    fn record(&self, end: &End) {
        use std::os::unix::process::ExitStatusExt;
        let (End::Exited(status) | End::Stopped(Some(status))) = end else {
            return;
        };
        let (code, number) = status
            .code()
            .map_or_else(|| (2, status.signal().unwrap_or(0)), |code| (1, code));
        self.change(|state| {
            (state.code, state.status, state.main_exit) = (code, number, Some(SystemTime::now()));
        });
        if number != 0 && matches!(end, End::Exited(_)) {
            let how = if code == 1 {
                format!(
                    "code=exited, status={number}/{}",
                    if number == 1 { "FAILURE" } else { "n/a" }
                )
            } else {
                format!("code=killed, status={number}")
            };
            self.say(&format!("Main process exited, {how}"));
        } else if matches!(end, End::Exited(_)) {
            self.say("Deactivated successfully.");
        }
    }

    /// Puts a command line together and executes it inside the guest; `None`, with the reason in the journal, where that can't be.
    fn spawn(&self, line: &str, environment: &HashMap<String, String>) -> Option<(Child, String)> {
        let line = line.trim_start_matches(['-', '@', ':', '+', '!']);
        let line = words::specifiers(line, &self.name, &self.guest.spec.hostname);
        let Some(words) = words::split(&line).filter(|words| !words.is_empty()) else {
            self.say(&format!("Invalid command line: {line}"));
            return None;
        };
        let argv = words::variables(&words, environment);
        let program = self.locate(&argv[0])?;
        let identifier = program.rsplit('/').next().unwrap_or(&program).to_owned();
        let mut command = confine::enter(self.guest.init);
        command.args(
            environment
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
        command.arg("/usr/bin/setsid");
        if let Some(folder) = self
            .service
            .working_directory
            .as_deref()
            .map(|folder| folder.trim_start_matches('-'))
            .filter(|folder| *folder != "/" && *folder != "~")
        {
            command.args(["/usr/bin/env", &format!("--chdir={folder}")]);
        }
        command.arg(&program).args(&argv[1..]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        match command.spawn() {
            Ok(child) => Some((child, identifier)),
            Err(error) => {
                self.say(&format!("Failed to spawn: {error}"));
                None
            }
        }
    }

    fn locate(&self, program: &str) -> Option<String> {
        let found = if program.starts_with('/') {
            self.guest.files.exists(program).then(|| program.to_owned())
        } else {
            PATH.split(':')
                .map(|folder| format!("{folder}/{program}"))
                .find(|path| self.guest.files.exists(path))
        };
        if found.is_none() {
            self.say(&format!(
                "Unable to locate executable '{program}': No such file or directory"
            ));
            self.say(&format!(
                "Failed at step EXEC spawning {program}: No such file or directory"
            ));
        }
        found
    }

    fn relay(&self, child: &mut Child, identifier: &str, pid: u32) {
        if let Some(output) = child.stdout.take() {
            self.relay_stream(output, identifier.to_owned(), pid);
        }
        if let Some(output) = child.stderr.take() {
            self.relay_stream(output, identifier.to_owned(), pid);
        }
    }

    fn relay_stream(
        &self,
        stream: impl AsyncRead + Unpin + Send + 'static,
        identifier: String,
        pid: u32,
    ) {
        let (guest, name) = (self.guest.clone(), self.name.clone());
        let file = self
            .service
            .output
            .as_deref()
            .and_then(|to| {
                to.strip_prefix("append:")
                    .or_else(|| to.strip_prefix("file:"))
            })
            .map(str::to_owned);
        let silent = self.service.output.as_deref() == Some("null");
        tokio::spawn(async move {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(path) = &file {
                    guest.files.append(path, &format!("{line}\n")).ok();
                } else if !silent {
                    guest.units.journal.write(&name, &identifier, pid, &line);
                }
            }
        });
    }

    /// Stops the main process as the unit wants it stopped.
    async fn bring_down(
        &self,
        child: &mut Child,
        process: Option<&Process>,
        environment: &HashMap<String, String>,
    ) -> Option<ExitStatus> {
        self.change(|state| (state.active, state.sub) = (Active::Deactivating, "stop-sigterm"));
        for line in &self.service.stop {
            if let Some((mut helper, _)) = self.spawn(line, environment) {
                tokio::time::timeout(self.service.stop_timeout, helper.wait())
                    .await
                    .ok();
            }
        }
        if self.service.kill_mode == KillMode::ControlGroup {
            self.signal_all(Signal::TERM);
        }
        if let Some(process) = process {
            process.signal(Signal::TERM);
        }
        if let Ok(status) = tokio::time::timeout(self.service.stop_timeout, child.wait()).await {
            return status.ok();
        }
        self.say("State 'stop-sigterm' timed out. Killing.");
        self.change(|state| (state.sub, state.result) = ("stop-sigkill", "timeout"));
        if let Some(process) = process {
            process.signal(Signal::KILL);
        }
        child.wait().await.ok()
    }

    /// Whatever the service left behind goes with it.
    async fn kill_rest(&self) {
        if self.service.kill_mode == KillMode::Process {
            return;
        }
        for _ in 0..40 {
            if self.signal_all(Signal::KILL) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends a signal to all processes of this invocation, and says how many there were. The mark in their environment stands for the control group.
    fn signal_all(&self, signal: Signal) -> usize {
        let mark = format!(
            "INVOCATION_ID={}",
            self.guest.units.state(&self.name).invocation
        );
        let Ok(processes) = std::fs::read_dir("/proc") else {
            return 0;
        };
        let members = processes.filter_map(Result::ok).filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let environment = std::fs::read(entry.path().join("environ")).ok()?;
            environment
                .split(|byte| *byte == 0)
                .any(|pair| pair == mark.as_bytes())
                .then_some(pid)
        });
        members
            .filter_map(Pid::from_raw)
            .filter(|pid| kill_process(*pid, signal).is_ok())
            .count()
    }
}
