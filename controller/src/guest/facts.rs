//! What a look into a guest found.
//!
//! Facts are reported as they are; what they mean for the object is decided by the plan. Every field may be absent where the
//! guest could not say.

/// What the guest's init says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitState {
    /// systemd has not finished its boot.
    Starting,
    /// systemd has finished and everything runs.
    Running,
    /// systemd has finished and some unit failed.
    Degraded,
    /// systemd is on its way down.
    Stopping,
    /// The guest's init isn't systemd; there is nothing to ask.
    NoSystemd,
    /// systemd said something else (`maintenance`, `unknown`) or nothing.
    Other(String),
}

impl InitState {
    /// The boot is over: there is nothing left to wait for.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Running | Self::Degraded | Self::NoSystemd)
    }
}

/// All that one look gathers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestFacts {
    /// The state of init.
    pub init: InitState,
    /// There is a default route, of either family.
    pub default_route: bool,
    /// `/etc/resolv.conf` names a server.
    pub resolves: bool,
    /// SHA-256 fingerprint of the SSH host key that a client is shown; absent without an SSH server of OpenSSH.
    pub host_key: Option<String>,
    /// Whether our SSH key is let in; absent without an SSH server.
    pub ssh_key: Option<bool>,
    /// What we keep in the guest under this key; absent: this guest was never entered under it.
    pub state: Option<GuestState>,
    /// vLLM's unit, where one of ours is installed.
    pub vllm: Option<VllmUnit>,
    /// The GPUs that the guest's driver shows.
    pub gpus: Vec<GpuFact>,
    /// The minors of the GPUs whose device files are there, whatever the driver shows.
    pub gpu_devices: Vec<u32>,
    /// What `nvidia-smi` said when it failed, such as a driver/library version mismatch.
    pub nvidia_error: Option<String>,
    /// The version of the host's kernel driver as the guest sees it.
    pub host_driver: Option<String>,
    /// `PRETTY_NAME` of os-release.
    pub os: Option<String>,
    /// The storage driver of a Docker that answers.
    pub docker_storage: Option<String>,
}

impl GuestFacts {
    /// The guest is ready to be worked in: booted, and with a way out where it is to have one.
    pub fn booted(&self, network: bool) -> bool {
        self.init.is_up() && (!network || (self.default_route && self.resolves))
    }

    /// The versions of the guest's NVIDIA libraries and of the host's kernel driver, where they don't fit each other.
    pub fn driver_mismatch(&self) -> Option<(String, String)> {
        let host = self.host_driver.as_deref();
        if let Some(error) = &self.nvidia_error
            && error.to_lowercase().contains("version mismatch")
        {
            let library = error
                .lines()
                .find_map(|line| line.trim().strip_prefix("NVML library version:"));
            let known = |version: Option<&str>| version.unwrap_or("unknown").trim().to_owned();
            return Some((known(library), known(host)));
        }
        let other = self
            .gpus
            .iter()
            .find(|g| host.is_some_and(|host| host != g.driver_version))?;
        Some((other.driver_version.clone(), host?.to_owned()))
    }
}

/// What we keep in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestState {
    /// VMID and uid.
    pub key: String,
    /// The clone was made a machine of its own.
    pub personalised: bool,
    /// The last setup run.
    pub setup: Option<SetupState>,
}

/// Where a setup run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetupPhase {
    /// The script runs.
    Running,
    /// The script ended with this status, which isn't 0.
    Exited {
        /// The exit status; 128 + n for signal n.
        code: i32,
    },
    /// The script was ended at the limit.
    TimedOut,
    /// The script ended with 0 and the verification runs.
    Verifying,
    /// Done: the script ended with 0, and so did the verification where there is one.
    Verified,
    /// The script ended with 0, the verification didn't (124: at its limit).
    VerifyFailed {
        /// The verification's exit status.
        code: i32,
    },
    /// The run is gone without a result: the container was stopped, or somebody killed it.
    Lost,
}

impl SetupPhase {
    /// The run is under way.
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running | Self::Verifying)
    }
}

/// A setup run as the guest knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupState {
    /// The hash it was started with.
    pub hash: String,
    /// The attempt it was started with.
    pub attempt: u32,
    /// Unix seconds by the guest's clock.
    pub started_at: i64,
    /// Where it stands.
    pub phase: SetupPhase,
    /// Unix seconds by the guest's clock; absent while it runs and when it was lost.
    pub finished_at: Option<i64>,
    /// The last lines of its output, at most 4 KiB, without control characters.
    pub tail: String,
}

/// vLLM's unit as systemd shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VllmUnit {
    /// The hash of the arguments that the running engine was started with; of the installed unit where none runs.
    pub args_hash: String,
    /// systemd's `ActiveState`.
    pub active: String,
    /// systemd's `SubState`.
    pub sub: String,
    /// How often systemd has restarted it by itself.
    pub restarts: u32,
    /// The main process's last exit status; absent if it never ended.
    pub exit_status: Option<i32>,
    /// Since when it is active, in Unix seconds by the guest's clock.
    pub since: Option<i64>,
    /// The unit's executable is there and may be run.
    pub executable_found: bool,
    /// The last lines of its journal, at most 4 KiB, without control characters.
    pub journal_tail: String,
    /// Those lines since the unit was written that tell of errors, at most 8 KiB, and those that tell that it came to serve.
    pub complaints: String,
}

/// One GPU as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuFact {
    /// The device minor (`/dev/nvidia<minor>`), where the driver tells it.
    pub minor: Option<u32>,
    /// The driver's UUID of the card.
    pub uuid: String,
    /// The PCI address as Linux writes it: `0000:01:00.0`.
    pub pci_address: String,
    /// The product's name.
    pub name: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The version of the guest's user-space driver.
    pub driver_version: String,
}
