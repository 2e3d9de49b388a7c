//! The operations as shell scripts, with their values filled in.
//!
//! The scripts are files beside this one; POSIX shell, for bash, dash and busybox. Values reach them as assignments
//! in single quotes or, where they are long or secret, as files that travel with the script.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use super::op::{GuestKey, GuestOp, SetupRun};
use super::vllm::{VllmFiles, is_identifier};

const LIB: &str = include_str!("script/lib.sh");
const INSPECT: &str = include_str!("script/inspect.sh");
const RUNNER: &str = include_str!("script/runner.sh");

/// A script that is ready to run.
pub(super) struct Script {
    pub(super) text: String,
    pub(super) files: Vec<Vec<u8>>,
    /// How long it may take.
    pub(super) limit: Duration,
}

/// Where and for whom scripts work.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// Prefixed to all paths; empty but in tests.
    pub(super) root: &'a str,
    pub(super) key: &'a GuestKey,
    /// The line of `authorized_keys` that lets us in over SSH, where SSH is used.
    pub(super) ssh_key: Option<&'a str>,
}

impl Place<'_> {
    /// The look at a guest.
    pub(super) fn inspect(&self) -> Script {
        self.script(
            INSPECT,
            &[self.ssh_key()],
            Vec::new(),
            Duration::from_secs(90),
        )
    }

    /// The script of an operation; none for an inspection, which follows in any case. `slice` bounds how long a waiting one waits.
    pub(super) fn operation(&self, op: &GuestOp, slice: Duration) -> Option<Script> {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let seconds = slice.as_secs().max(1);
        Some(match op {
            GuestOp::Inspect => return None,
            GuestOp::AwaitBoot { network, .. } => {
                let network = ("NETWORK", if *network { "1" } else { "" });
                self.waiting(include_str!("script/await_boot.sh"), &[network], seconds)
            }
            GuestOp::AwaitSetup { .. } => {
                self.waiting(include_str!("script/await_setup.sh"), &[], seconds)
            }
            GuestOp::Personalise => self.script(
                include_str!("script/personalise.sh"),
                &[self.ssh_key()],
                Vec::new(),
                minutes(4),
            ),
            GuestOp::Authorize => self.script(
                include_str!("script/authorize.sh"),
                &[self.ssh_key()],
                Vec::new(),
                minutes(1),
            ),
            GuestOp::StartSetup(run) => self.start_setup(run),
            GuestOp::ApplyVllm { unit } => self.apply_vllm(unit),
            GuestOp::RestartVllm => self.script(
                include_str!("script/restart_vllm.sh"),
                &[],
                Vec::new(),
                minutes(2),
            ),
            GuestOp::StopVllm => self.script(
                include_str!("script/stop_vllm.sh"),
                &[],
                Vec::new(),
                minutes(3),
            ),
            GuestOp::RemoveVllm => self.script(
                include_str!("script/remove_vllm.sh"),
                &[],
                Vec::new(),
                minutes(4),
            ),
            GuestOp::CleanForSeal => self.script(
                include_str!("script/clean_for_seal.sh"),
                &[],
                Vec::new(),
                minutes(5),
            ),
        })
    }

    fn ssh_key(&self) -> (&'static str, &str) {
        ("SSH_KEY", self.ssh_key.unwrap_or_default())
    }

    fn waiting(&self, body: &str, values: &[(&str, &str)], seconds: u64) -> Script {
        let limit = Duration::from_secs(seconds + 30);
        let seconds = seconds.to_string();
        let values = [values, &[("LIMIT", seconds.as_str())]].concat();
        self.script(body, &values, Vec::new(), limit)
    }

    fn start_setup(&self, run: &SetupRun) -> Script {
        let (environment, masks) = (environment(run), masks(run));
        let verify = run.verify.as_deref().unwrap_or_default();
        let files = [RUNNER, &run.script, verify, &environment, &masks]
            .map(|text| text.as_bytes().to_vec());
        let values = [
            ("HASH", run.hash.as_str()),
            ("ATTEMPT", &run.attempt.to_string()),
            ("LIMIT", &run.timeout.as_secs().max(1).to_string()),
            ("HAS_VERIFY", if run.verify.is_some() { "1" } else { "" }),
            ("HAS_MASKS", if masks.is_empty() { "" } else { "1" }),
        ];
        self.script(
            include_str!("script/start_setup.sh"),
            &values,
            files.to_vec(),
            Duration::from_mins(2),
        )
    }

    fn apply_vllm(&self, unit: &VllmFiles) -> Script {
        let files = vec![
            unit.unit.as_bytes().to_vec(),
            unit.env.expose_secret().as_bytes().to_vec(),
        ];
        let values = [("WANTED", unit.args_hash.as_str())];
        self.script(
            include_str!("script/apply_vllm.sh"),
            &values,
            files,
            Duration::from_mins(4),
        )
    }

    fn script(
        &self,
        body: &str,
        values: &[(&str, &str)],
        files: Vec<Vec<u8>>,
        limit: Duration,
    ) -> Script {
        let mut text = String::new();
        let mut assign = |name: &str, value: &str| {
            let _ = writeln!(text, "{name}={}", quote(value));
        };
        assign("R", self.root);
        assign("KEY", &self.key.to_string());
        for (name, value) in values {
            assign(name, value);
        }
        for (index, file) in files.iter().enumerate() {
            assign(
                &format!("SUM{}", index + 1),
                &hex::encode(Sha256::digest(file)),
            );
        }
        for line in LIB
            .lines()
            .chain(body.lines())
            .filter(|line| !line.trim_start().starts_with('#'))
        {
            text.push_str(line);
            text.push('\n');
        }
        Script { text, files, limit }
    }
}

/// The assignments that both scripts of a setup run are given.
fn environment(run: &SetupRun) -> String {
    let mut text = String::new();
    for variable in run.env.iter().filter(|v| is_identifier(&v.name)) {
        let _ = writeln!(
            text,
            "export {}={}",
            variable.name,
            quote(&variable.value.expose_secret().replace('\0', ""))
        );
    }
    text
}

/// What takes masked values out of the log, as commands for sed: line by line, since it reads lines; the longest first, since one
/// may contain another. A line of one or two characters hides nothing, and would make holes everywhere.
fn masks(run: &SetupRun) -> String {
    let mut lines = BTreeSet::new();
    for variable in run.env.iter().filter(|v| v.masked) {
        let value = variable.value.expose_secret().replace('\0', "");
        for line in value.lines().filter(|line| line.trim().len() > 2) {
            // also as a shell that traces its commands would write it
            lines.insert(line.replace('\'', r"'\''"));
            lines.insert(line.to_owned());
        }
    }
    let mut lines: Vec<String> = lines.into_iter().collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.len()));
    lines.iter().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "s/{}/***/g", literal(line));
        text
    })
}

/// A basic regular expression, between slashes, that matches exactly this.
fn literal(line: &str) -> String {
    let mut escaped = String::with_capacity(line.len());
    for c in line.chars() {
        if matches!(c, '\\' | '/' | '.' | '*' | '[' | ']' | '^' | '$') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// A word that a shell takes exactly as it is.
pub(super) fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}
