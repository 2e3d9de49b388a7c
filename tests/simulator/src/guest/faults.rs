//! What is set to go wrong or to take its time inside guests.
//!
//! Only holds the switches; the places that they concern look at them at the moment of acting.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How a command or vLLM is made to fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What it prints to its standard error, by lines.
    pub stderr: String,
    /// Its exit status.
    pub code: i32,
    /// How often; `None`: until taken back.
    pub times: Option<u32>,
}

/// Why a vLLM server ends before it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VllmFailure {
    /// The GPUs' memory doesn't hold the model.
    OutOfMemory,
    /// The model isn't in the hub's catalogue.
    ModelNotFound,
    /// The hub gives the model to those with a token only: none is in `HF_TOKEN`.
    GatedModel,
}

/// How long things inside guests take. The default is: no longer than the machine needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuestTiming {
    /// From process 1 to `systemctl is-system-running` saying so.
    pub boot: Duration,
    /// `apt-get update`.
    pub package_index: Duration,
    /// `apt-get install` and `upgrade`, whatever the number of packages.
    pub package_install: Duration,
    /// `pip install`.
    pub pip_install: Duration,
    /// A download by curl or wget, a `docker pull`.
    pub download: Duration,
    /// A Docker container's way to its first answer.
    pub container_start: Duration,
    /// From the start of vLLM to its first answer.
    pub model_load: Duration,
}

impl GuestTiming {
    /// About a tenth of what a real host takes, so that a demo looks like something and yet ends: setups take 2 to 5 seconds, a model 6.
    pub fn tenth_of_real() -> Self {
        Self {
            boot: Duration::from_millis(300),
            package_index: Duration::from_millis(400),
            package_install: Duration::from_millis(800),
            pip_install: Duration::from_millis(1200),
            download: Duration::from_millis(200),
            container_start: Duration::from_millis(400),
            model_load: Duration::from_secs(6),
        }
    }
}

/// Which way bytes of a console go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the container.
    Typed,
    /// From the container to the client.
    Shown,
}

/// Where a console connection is cut: told all that has gone that way so far, how much of it passes.
type Place = Box<dyn Fn(&[u8]) -> Option<usize> + Send>;

#[derive(Default)]
struct Switches {
    timing: GuestTiming,
    commands: HashMap<(Option<u32>, String), Failure>,
    vllm: HashMap<u32, VllmFailure>,
    load: HashMap<u32, (u64, u64)>,
    docker_storage: Option<String>,
    portainer_window: Option<Duration>,
    cut_after: Option<usize>,
    cut_at: Option<(Direction, Place)>,
    delay: Option<Duration>,
}

/// The switches of one world of guests.
#[derive(Default)]
pub(super) struct Faults(Mutex<Switches>);

impl Faults {
    pub(super) fn new(timing: GuestTiming) -> Self {
        Self(Mutex::new(Switches {
            timing,
            ..Switches::default()
        }))
    }

    fn switches(&self) -> MutexGuard<'_, Switches> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn timing(&self) -> GuestTiming {
        self.switches().timing
    }

    pub(super) fn set_timing(&self, timing: GuestTiming) {
        self.switches().timing = timing;
    }

    pub(super) fn set_command(&self, vmid: Option<u32>, command: &str, failure: Option<Failure>) {
        let key = (vmid, command.to_owned());
        let mut switches = self.switches();
        match failure {
            Some(failure) => switches.commands.insert(key, failure),
            None => switches.commands.remove(&key),
        };
    }

    /// The failure set for a command in a guest; counts it as used.
    pub(super) fn command(&self, vmid: u32, command: &str) -> Option<Failure> {
        let mut switches = self.switches();
        for scope in [Some(vmid), None] {
            if let Some(failure) = switches.commands.get_mut(&(scope, command.to_owned())) {
                match &mut failure.times {
                    Some(0) => continue,
                    Some(left) => *left -= 1,
                    None => {}
                }
                return Some(failure.clone());
            }
        }
        None
    }

    pub(super) fn set_vllm(&self, vmid: u32, failure: Option<VllmFailure>) {
        let mut switches = self.switches();
        match failure {
            Some(failure) => switches.vllm.insert(vmid, failure),
            None => switches.vllm.remove(&vmid),
        };
    }

    pub(super) fn vllm(&self, vmid: u32) -> Option<VllmFailure> {
        self.switches().vllm.get(&vmid).copied()
    }

    pub(super) fn set_load(&self, vmid: u32, running: u64, waiting: u64) {
        self.switches().load.insert(vmid, (running, waiting));
    }

    /// Requests that a guest's vLLM works on, and those that wait.
    pub(super) fn load(&self, vmid: u32) -> (u64, u64) {
        self.switches().load.get(&vmid).copied().unwrap_or_default()
    }

    pub(super) fn set_docker_storage(&self, driver: &str) {
        self.switches().docker_storage = Some(driver.to_owned());
    }

    /// Docker's storage driver.
    pub(super) fn docker_storage(&self) -> String {
        self.switches()
            .docker_storage
            .clone()
            .unwrap_or_else(|| "overlay2".to_owned())
    }

    pub(super) fn set_portainer_window(&self, window: Duration) {
        self.switches().portainer_window = Some(window);
    }

    /// How long Portainer waits for its first administrator.
    pub(super) fn portainer_window(&self) -> Duration {
        self.switches()
            .portainer_window
            .unwrap_or(Duration::from_mins(5))
    }

    pub(super) fn set_cut(&self, after: Option<usize>) {
        self.switches().cut_after = after;
    }

    pub(super) fn set_cut_at(&self, cut: Option<(Direction, Place)>) {
        self.switches().cut_at = cut;
    }

    pub(super) fn waits_to_cut(&self) -> bool {
        self.switches().cut_at.is_some()
    }

    /// Where the last `more` bytes of `gone` are cut, if that is the place; it serves once.
    pub(super) fn console_cut_at(
        &self,
        direction: Direction,
        gone: &[u8],
        more: usize,
    ) -> Option<usize> {
        let mut switches = self.switches();
        let (_, place) = switches
            .cut_at
            .as_ref()
            .filter(|(way, _)| *way == direction)?;
        let passes = place(gone)?;
        switches.cut_at = None;
        Some(passes.saturating_sub(gone.len() - more).min(more))
    }

    pub(super) fn set_delay(&self, delay: Option<Duration>) {
        self.switches().delay = delay;
    }

    pub(super) fn console_delay(&self) -> Option<Duration> {
        self.switches().delay
    }

    /// How many of `more` bytes still pass on a line that has carried `passed`, where it is cut among them.
    pub(super) fn console_cut(&self, passed: usize, more: usize) -> Option<usize> {
        let limit = self.switches().cut_after?;
        (passed + more > limit).then(|| limit.saturating_sub(passed))
    }
}
