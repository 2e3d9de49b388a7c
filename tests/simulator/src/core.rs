//! What all parts of a running simulator share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use tokio::{
    sync::{Mutex as Lock, Notify, OwnedMutexGuard, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::ticket::Keys, calls::Calls, config::SimulatorConfig, console::Consoles, fault::Faults,
    guests::Guests, model::State, tls::Certificate,
};

/// Proxmox has three workers a daemon.
const WORKERS: usize = 3;

/// The heart of a simulator.
pub(crate) struct Core {
    pub(crate) config: SimulatorConfig,
    state: Mutex<State>,
    flocks: Mutex<HashMap<u32, Arc<Lock<()>>>>,
    pub(crate) keys: Keys,
    pub(crate) calls: Calls,
    pub(crate) faults: Faults,
    pub(crate) consoles: Consoles,
    pub(crate) certificate: Certificate,
    pub(crate) guests: Arc<dyn Guests>,
    pub(crate) workers: Semaphore,
    pub(crate) running: TaskTracker,
    pub(crate) stop: CancellationToken,
    /// The statistics daemon hangs: what it said last gets old.
    pub(crate) statistics_hang: AtomicBool,
    /// Told when the API's workers are replaced.
    pub(crate) recycle: Notify,
}

impl Core {
    pub(crate) fn new(
        config: SimulatorConfig,
        certificate: Certificate,
        guests: Arc<dyn Guests>,
    ) -> Self {
        let state = State::new(&config.host);
        Self {
            config,
            state: Mutex::new(state),
            flocks: Mutex::default(),
            keys: Keys::new(),
            calls: Calls::default(),
            faults: Faults::default(),
            consoles: Consoles::default(),
            certificate,
            guests,
            workers: Semaphore::new(WORKERS),
            running: TaskTracker::new(),
            stop: CancellationToken::new(),
            statistics_hang: AtomicBool::new(false),
            recycle: Notify::new(),
        }
    }

    /// The state; never held across a wait.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file lock of a container, as every changing operation holds it.
    pub(crate) async fn flock(
        &self,
        vmid: u32,
        patience: Duration,
    ) -> Result<OwnedMutexGuard<()>, String> {
        let lock = Arc::clone(
            self.flocks
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(vmid)
                .or_default(),
        );
        timeout(self.config.timing.wait(patience), lock.lock_owned())
            .await
            .map_err(|_| {
                format!("can't lock file '/run/lock/lxc/pve-config-{vmid}.lock' - got timeout")
            })
    }

    /// The node that clients talk to.
    pub(crate) fn contacted_node(&self) -> &str {
        self.config
            .host
            .nodes
            .first()
            .map_or("pve", |node| node.name.as_str())
    }
}
