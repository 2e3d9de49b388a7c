//! The handle by which tests and demos make things happen inside guests.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::boot;
use super::faults::{Direction, Failure, GuestTiming, VllmFailure};
use super::systemd;
use super::{Shared, UnitRun};

/// Reaches into all guests of a simulator. Cheap to clone.
#[derive(Clone)]
pub struct GuestControl {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for GuestControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestControl").finish_non_exhaustive()
    }
}

impl GuestControl {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// How long things take from now on.
    pub fn set_timing(&self, timing: GuestTiming) {
        self.shared.faults.set_timing(timing);
    }

    /// How long things take.
    pub fn timing(&self) -> GuestTiming {
        self.shared.faults.timing()
    }

    /// How long a model takes to load, for servers started from now on.
    pub fn set_load_time(&self, model_load: Duration) {
        self.set_timing(GuestTiming {
            model_load,
            ..self.timing()
        });
    }

    /// Which units ran how long, in the order in which they ended.
    pub fn runs(&self) -> Vec<UnitRun> {
        self.shared
            .runs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Makes a stand-in command fail, in one guest or in all.
    pub fn fail(&self, vmid: Option<u32>, command: &str, failure: Failure) {
        self.shared.faults.set_command(vmid, command, Some(failure));
    }

    /// Takes back what [`fail`](Self::fail) has set for the same guest and command.
    pub fn heal(&self, vmid: Option<u32>, command: &str) {
        self.shared.faults.set_command(vmid, command, None);
    }

    /// Makes vLLM servers of a guest end before they serve, from their next start on.
    pub fn fail_vllm(&self, vmid: u32, failure: Option<VllmFailure>) {
        self.shared.faults.set_vllm(vmid, failure);
    }

    /// How many requests a guest's vLLM says it works on, and how many wait.
    pub fn load_vllm(&self, vmid: u32, running: u64, waiting: u64) {
        self.shared.faults.set_load(vmid, running, waiting);
    }

    /// The storage driver that Docker comes to in all guests, such as `vfs` where nothing better works.
    pub fn set_docker_storage(&self, driver: &str) {
        self.shared.faults.set_docker_storage(driver);
    }

    /// How long Portainers wait for their first administrator.
    pub fn set_portainer_window(&self, window: Duration) {
        self.shared.faults.set_portainer_window(window);
    }

    /// Kills the engines behind a guest's vLLM servers, as a crash of a GPU worker does; how many there were.
    pub fn kill_engine(&self, vmid: u32) -> usize {
        self.shared
            .guest(vmid)
            .map_or(0, |guest| guest.engines.kill())
    }

    /// Cuts each console connection once it has carried so many bytes, in both directions together.
    pub fn cut_consoles_after(&self, bytes: Option<usize>) {
        self.shared.faults.set_cut(bytes);
    }

    /// Cuts the next console connection that comes to a place. `place` is told all that has gone that way on a connection so far, and
    /// answers how many bytes of it pass, once it is there.
    pub fn cut_console_at(
        &self,
        direction: Direction,
        place: impl Fn(&[u8]) -> Option<usize> + Send + 'static,
    ) {
        self.shared
            .faults
            .set_cut_at(Some((direction, Box::new(place))));
    }

    /// Whether what [`cut_console_at`](Self::cut_console_at) has set is yet to strike.
    pub fn waits_to_cut_console(&self) -> bool {
        self.shared.faults.waits_to_cut()
    }

    /// Takes back what [`cut_console_at`](Self::cut_console_at) has set.
    pub fn spare_console(&self) {
        self.shared.faults.set_cut_at(None);
    }

    /// Delays each piece of console output.
    pub fn slow_consoles(&self, delay: Option<Duration>) {
        self.shared.faults.set_delay(delay);
    }

    /// The host has another driver: what a host upgrade does to containers that run. Empty: none is loaded.
    pub fn set_driver_version(&self, version: &str) {
        let host = {
            let mut host = self
                .shared
                .host
                .write()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            version.clone_into(&mut host.driver_version);
            host.clone()
        };
        for vmid in self.running() {
            if let Err(error) = boot::write_driver(&self.shared.seam(vmid).join("driver"), &host) {
                tracing::error!("guest {vmid}: /proc/driver could not be changed: {error:#}");
            }
        }
    }

    /// The guest shuts itself down, as by `poweroff` typed inside. False where it doesn't run.
    pub fn power_off(&self, vmid: u32) -> bool {
        self.shared
            .guest(vmid)
            .is_some_and(|guest| systemd::power_off(&guest, false) == 0)
    }

    /// What a unit has printed, line by line.
    pub fn journal(&self, vmid: u32, unit: &str) -> Vec<String> {
        let Some(guest) = self.shared.guest(vmid) else {
            return Vec::new();
        };
        guest
            .units
            .journal
            .of(Some(&systemd::full_name(unit)))
            .into_iter()
            .map(|line| line.text)
            .collect()
    }

    /// A file inside a running guest.
    pub fn read_file(&self, vmid: u32, path: &str) -> Option<String> {
        self.shared.guest(vmid)?.files.read(path)
    }

    /// Writes a file inside a running guest, as root's; false where that can't be done.
    pub fn write_file(&self, vmid: u32, path: &str, text: &str) -> bool {
        self.shared
            .guest(vmid)
            .is_some_and(|guest| guest.files.write(path, text, 0o644).is_ok())
    }

    /// Guests that run.
    pub fn running(&self) -> Vec<u32> {
        let mut running: Vec<_> = self.shared.guests().keys().copied().collect();
        running.sort_unstable();
        running
    }
}
