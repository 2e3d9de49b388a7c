//! The operations as shell scripts, with their values filled in.
//!
//! The scripts are files beside this one; POSIX shell, for bash, dash and busybox. Values reach them as assignments
//! in single quotes or, where they are long or secret, as files that travel with the script.

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
        let environment = environment(run);
        let verify = run.verify.as_deref().unwrap_or_default();
        let files =
            [RUNNER, &run.script, verify, &environment].map(|text| text.as_bytes().to_vec());
        let values = [
            ("HASH", run.hash.as_str()),
            ("ATTEMPT", &run.attempt.to_string()),
            ("LIMIT", &run.timeout.as_secs().max(1).to_string()),
            ("HAS_VERIFY", if run.verify.is_some() { "1" } else { "" }),
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
    for (name, value) in run.env.iter().filter(|(name, _)| is_identifier(name)) {
        let _ = writeln!(
            text,
            "export {name}={}",
            quote(&value.expose_secret().replace('\0', ""))
        );
    }
    text
}

/// A word that a shell takes exactly as it is.
pub(super) fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}
