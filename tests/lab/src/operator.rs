//! The operator as the lab runs it: in a process of its own, which is this very program started once more, so that it can be killed and
//! nobody has to build another package first.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::process::{Child, Command};

/// Set for a process that is to be the operator.
const ROLE: &str = "PHOENIX_LAB_OPERATOR";

/// How the operator is started.
#[derive(Debug, Clone)]
pub struct OperatorSettings {
    /// Who it is in the cluster.
    pub kubeconfig: PathBuf,
    /// Only hypervisors with this label selector.
    pub selector: Option<String>,
    /// One of several that elect who works, by this name.
    pub elect: Option<String>,
    /// Where its log goes; thrown away where left out.
    pub log: Option<PathBuf>,
    /// What it logs.
    pub filter: String,
    /// What this program has to be called with to come to [`become_operator`].
    pub arguments: Vec<OsString>,
}

/// A running operator. Dropping it kills it, as a machine that loses its power would.
#[derive(Debug)]
pub struct Operator {
    child: Child,
}

/// In a process started by [`Operator::start`]: runs the operator and says how it ended. Elsewhere: `None`.
pub fn become_operator() -> Option<ExitCode> {
    let arguments = std::env::var_os(ROLE)?;
    let arguments = arguments.to_string_lossy().into_owned();
    Some(phoenix_controller::cli::main_from(
        std::iter::once("phoenix").chain(arguments.split('\n')),
    ))
}

impl Operator {
    /// Starts it.
    ///
    /// # Errors
    /// When the process can't be started.
    pub fn start(settings: &OperatorSettings) -> Result<Self> {
        let mut flags = vec![
            "controller".to_owned(),
            "--namespace=phoenix-system".to_owned(),
            "--metrics-addr=127.0.0.1:0".to_owned(),
            "--health-addr=127.0.0.1:0".to_owned(),
            "--slow-recheck=20s".to_owned(),
            "--log-format=text".to_owned(),
        ];
        flags.extend(
            settings
                .selector
                .iter()
                .map(|s| format!("--hypervisor-selector={s}")),
        );
        if let Some(name) = &settings.elect {
            flags.extend(["--leader-elect".to_owned(), format!("--pod-name={name}")]);
        }
        let mut command = Self::command(settings, &flags);
        command
            .env("RUST_LOG", &settings.filter)
            .env("NO_COLOR", "1")
            .stdout(log_to(settings.log.as_deref())?)
            .stderr(log_to(settings.log.as_deref())?)
            .kill_on_drop(true);
        Ok(Self {
            child: command.spawn().context("starting the operator")?,
        })
    }

    /// Another command of `phoenix`, by the same rights. What it prints stands among what this program's own start prints.
    pub fn command(settings: &OperatorSettings, words: &[String]) -> Command {
        // by the kernel's own link: a newer build may have replaced the file meanwhile
        let mut command = Command::new("/proc/self/exe");
        command
            .args(&settings.arguments)
            .env(ROLE, words.join("\n"))
            .env("KUBECONFIG", &settings.kubeconfig)
            .stdin(Stdio::null());
        command
    }

    /// Kills it at once, whatever it is doing.
    ///
    /// # Errors
    /// When it can't be killed.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("killing the operator")
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub async fn stop(mut self) -> Result<()> {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            kill(Pid::from_raw(id), Signal::SIGTERM).context("asking the operator to end")?;
        }
        self.child
            .wait()
            .await
            .context("waiting for the operator")?;
        Ok(())
    }
}

fn log_to(path: Option<&Path>) -> Result<Stdio> {
    let Some(path) = path else {
        return Ok(Stdio::null());
    };
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    Ok(file.into())
}
