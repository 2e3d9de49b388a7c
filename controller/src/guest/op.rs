//! What can be asked of a guest. Which of it is asked, and when, is decided by the plan.

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;

use super::vllm::VllmFiles;

/// Whose container this is: state in the guest that carries another key came with a clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestKey {
    /// The container's VMID.
    pub vmid: u32,
    /// The uid of the Kubernetes object.
    pub uid: String,
}

impl fmt::Display for GuestKey {
    /// The key as it stands in the guest: VMID and uid, with nothing in it that a path or a shell would take for more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", self.vmid)?;
        self.uid
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
            .try_for_each(|c| write!(f, "{c}"))
    }
}

/// One variable of a setup run's environment.
#[derive(Debug, Clone)]
pub struct SetupVariable {
    /// Its name. One that isn't an identifier is left out.
    pub name: String,
    /// Its value.
    pub value: SecretString,
    /// The value must not be seen: it is masked in the log.
    pub masked: bool,
}

/// One run of a setup script.
#[derive(Debug, Clone)]
pub struct SetupRun {
    /// The hash of what the script depends on. Together with `attempt` it names the run: the same pair never runs twice.
    pub hash: String,
    /// Counts the runs of one hash.
    pub attempt: u32,
    /// The script; run by its `#!` line, by `/bin/sh` where it has none.
    pub script: String,
    /// Must exit with 0 after the script for the run to count.
    pub verify: Option<String>,
    /// The environment of both scripts.
    pub env: Vec<SetupVariable>,
    /// The limit for the script, and again for the verification.
    pub timeout: Duration,
}

/// An operation in a guest. Each ends with an inspection on the same connection.
#[derive(Debug, Clone)]
pub enum GuestOp {
    /// Looks and changes nothing.
    Inspect,
    /// Waits until init is up and there is a default route and a name server; returns at the limit in any case.
    AwaitBoot {
        /// Whether a default route and a name server belong to it: not in a container that was given no way out.
        network: bool,
        /// The longest wait.
        limit: Duration,
    },
    /// Makes a clone a machine of its own. May be repeated; does nothing where it was completed before.
    Personalise,
    /// Lets our SSH key in as root, and takes out those that other installations' operators left.
    Authorize,
    /// Starts a setup run, detached. A run that is under way, or that this very run already was, is left alone.
    StartSetup(SetupRun),
    /// Waits until no setup run is under way; returns at the limit in any case.
    AwaitSetup {
        /// The longest wait.
        limit: Duration,
    },
    /// Writes the unit and its environment where they differ, and (re)starts vLLM where it doesn't run with them.
    ApplyVllm {
        /// The rendered files.
        unit: VllmFiles,
    },
    /// Restarts vLLM.
    RestartVllm,
    /// Stops vLLM and keeps it from starting at boot.
    StopVllm,
    /// Stops vLLM and removes its files.
    RemoveVllm,
    /// Removes what must not be in a sealed template: our state, logs, environment files, shell history, the machine id.
    CleanForSeal,
}

impl GuestOp {
    /// A static name for messages, metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Inspect => "inspecting",
            Self::AwaitBoot { .. } => "waiting for the boot",
            Self::Personalise => "personalising the clone",
            Self::Authorize => "letting the operator's SSH key in",
            Self::StartSetup(_) => "starting the setup",
            Self::AwaitSetup { .. } => "waiting for the setup",
            Self::ApplyVllm { .. } => "applying vLLM's unit",
            Self::RestartVllm => "restarting vLLM",
            Self::StopVllm => "stopping vLLM",
            Self::RemoveVllm => "removing vLLM's unit",
            Self::CleanForSeal => "cleaning before the seal",
        }
    }
}
