//! What runs inside simulated containers: a real shell in a confined root, stand-ins for the commands that would reach the outside, and the servers
//! (vLLM, Portainer) that the guests' programs would be.
//!
//! `World` is the implementation of `Guests` for all containers of a simulator. It decides nothing about Proxmox: the model says when a root is
//! made, a container boots or halts. Nothing survives the world: a guest's first process ends when a pipe closes that only this process holds.

mod boot;
mod calls;
mod confine;
mod console;
mod control;
mod faults;
mod files;
mod network;
mod os;
mod portainer;
mod proxy;
mod roots;
pub(crate) mod ssh;
mod standin;
mod systemd;
mod vllm;
mod web;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use rustls::pki_types::CertificateDer;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

pub use self::control::GuestControl;
pub use self::faults::{Direction, Failure, GuestTiming, VllmFailure};

use self::boot::Guest;
use self::console::Session;
use self::faults::Faults;
use self::network::Unreached;
use self::roots::Roots;
use crate::config::HostFacts;
use crate::guests::{
    BootSpec, ConsoleMode, ConsoleSession, GuestEvent, GuestInterface, Guests, RootFile,
};

/// How guests behave from the start; all of it can be changed later by [`GuestControl`].
#[derive(Debug, Clone, Default)]
pub struct GuestSettings {
    /// How long things take.
    pub timing: GuestTiming,
}

/// All guests of a simulator.
pub(crate) struct World {
    shared: Arc<Shared>,
    roots: Roots,
    proxy: SocketAddr,
    proxy_task: tokio::task::JoinHandle<()>,
}

/// What all guests and the control handle look at.
struct Shared {
    folder: tempfile::TempDir,
    faults: Arc<Faults>,
    host: RwLock<HostFacts>,
    guests: Mutex<HashMap<u32, Arc<Guest>>>,
    sessions: tokio::sync::Mutex<HashMap<u32, Arc<Session>>>,
    events: mpsc::UnboundedSender<GuestEvent>,
    runs: Mutex<Vec<UnitRun>>,
}

/// How long the main process of a systemd unit ran in a guest.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitRun {
    /// The guest.
    pub vmid: u32,
    /// The unit, as `phoenix-setup.service`.
    pub unit: String,
    /// In seconds.
    pub seconds: f64,
}

impl Shared {
    /// Keeps how long a unit ran.
    fn ran(&self, vmid: u32, unit: &str, took: std::time::Duration) {
        let run = UnitRun {
            vmid,
            unit: unit.to_owned(),
            seconds: took.as_secs_f64(),
        };
        self.runs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(run);
    }

    fn guests(&self) -> MutexGuard<'_, HashMap<u32, Arc<Guest>>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn guest(&self, vmid: u32) -> Option<Arc<Guest>> {
        self.guests().get(&vmid).cloned()
    }

    fn host(&self) -> HostFacts {
        self.host
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The folder that a guest and the simulator share.
    fn seam(&self, vmid: u32) -> PathBuf {
        self.folder.path().join(format!("seam-{vmid}"))
    }

    /// Connects to an address in the guests' network.
    fn dial(&self, host: &str, port: u16) -> Result<DuplexStream, Unreached> {
        let guest = self
            .guests()
            .values()
            .find(|guest| guest.answers_to(host))
            .cloned()
            .ok_or(Unreached::NoHost)?;
        guest.ports.connect(port)
    }

    /// The certificate of the TLS server at an address, as seen from a guest.
    fn certificate(&self, host: &str, port: u16, from: &Guest) -> Option<CertificateDer<'static>> {
        let own = host == "localhost" || host == "127.0.0.1" || from.answers_to(host);
        let other = if own {
            None
        } else {
            self.guests()
                .values()
                .find(|guest| guest.answers_to(host))
                .cloned()
        };
        let certificates = other
            .as_deref()
            .unwrap_or(from)
            .certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        certificates.get(&port).cloned()
    }

    /// Takes a guest down; true when it ran.
    async fn take_down(&self, vmid: u32) -> bool {
        let Some(guest) = self.guests().remove(&vmid) else {
            return false;
        };
        guest.end().await;
        self.sessions.lock().await.remove(&vmid);
        true
    }

    fn report(&self, event: GuestEvent) {
        self.events.send(event).ok();
    }
}

impl World {
    /// Checks that guests can be confined here, and opens their network.
    pub(crate) async fn start(
        settings: GuestSettings,
        host: HostFacts,
        events: mpsc::UnboundedSender<GuestEvent>,
    ) -> Result<(Arc<dyn Guests>, GuestControl)> {
        confine::check().await?;
        remove_leftovers();
        let folder = tempfile::Builder::new()
            .prefix(&format!("{FOLDER}{}-", std::process::id()))
            .tempdir()
            .context("making a folder for guests")?;
        let roots = Roots::new(folder.path().join("roots"))?;
        let shared = Arc::new(Shared {
            folder,
            faults: Arc::new(Faults::new(settings.timing)),
            host: RwLock::new(host),
            guests: Mutex::default(),
            sessions: tokio::sync::Mutex::default(),
            events,
            runs: Mutex::default(),
        });
        let dialled = Arc::downgrade(&shared);
        let (proxy, proxy_task) = proxy::start(Arc::new(move |host, port| {
            dialled.upgrade().ok_or(Unreached::NoHost)?.dial(host, port)
        }))
        .await?;
        let control = GuestControl::new(shared.clone());
        Ok((
            Arc::new(Self {
                shared,
                roots,
                proxy,
                proxy_task,
            }),
            control,
        ))
    }

    async fn boot_guest(&self, vmid: u32, spec: BootSpec) -> Result<u32> {
        let root = self.roots.path(&spec.volume);
        let guest = Guest::boot(self.shared.clone(), vmid, spec, &root).await?;
        let init = guest.init;
        self.shared.guests().insert(vmid, guest.clone());
        guest.start_units();
        Ok(init)
    }

    async fn attach_client(&self, vmid: u32, mode: ConsoleMode) -> Result<ConsoleSession> {
        let mut sessions = self.shared.sessions.lock().await;
        let client = if let Some(client) = sessions.get(&vmid).and_then(Session::join) {
            client
        } else {
            let Some(guest) = self.shared.guest(vmid) else {
                return Ok(console::refused(vmid, mode));
            };
            let (session, client) = Session::begin(guest.init, mode)?;
            sessions.insert(vmid, session);
            client
        };
        Ok(console::connect(client, self.shared.faults.clone()))
    }
}

/// What the folders of guests are named like; the process's number follows.
const FOLDER: &str = "proxmox-simulator-";

/// Removes the folders of simulators that were killed before they could.
fn remove_leftovers() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(FOLDER)
            .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Guests for World {
    fn create_root(&self, volume: String, os_template: String) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.roots.create(&volume, &os_template).await })
    }

    fn write_root(&self, volume: String, files: Vec<RootFile>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.roots.write(&volume, &files) })
    }

    fn clone_root(
        &self,
        source: String,
        snapshot: Option<String>,
        target: String,
    ) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let from = snapshot.map_or_else(|| source.clone(), |name| format!("{source}@{name}"));
            self.roots.copy(&from, &target).await
        })
    }

    fn rename_root(&self, from: String, to: String) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.roots.rename(&from, &to) })
    }

    fn destroy_root(&self, volume: String) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.roots.remove(&volume).await })
    }

    fn snapshot_root(&self, volume: String, name: String) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.roots.copy(&volume, &format!("{volume}@{name}")).await })
    }

    fn rollback_root(&self, volume: String, name: String) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.roots.roll_back(&volume, &name).await })
    }

    fn drop_snapshot(&self, volume: String, name: String) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.roots.remove(&format!("{volume}@{name}")).await })
    }

    fn boot(&self, vmid: u32, spec: BootSpec) -> BoxFuture<'_, Result<u32>> {
        Box::pin(self.boot_guest(vmid, spec))
    }

    fn shutdown(&self, vmid: u32, timeout: Duration) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move {
            let Some(guest) = self.shared.guest(vmid) else {
                return Ok(true);
            };
            if tokio::time::timeout(timeout, guest.stop_units())
                .await
                .is_err()
            {
                return Ok(false);
            }
            self.shared.take_down(vmid).await;
            Ok(true)
        })
    }

    fn halt(&self, vmid: u32) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.shared.take_down(vmid).await;
            Ok(())
        })
    }

    fn addresses(&self, vmid: u32) -> Vec<GuestInterface> {
        self.shared
            .guest(vmid)
            .map(|guest| guest.interfaces.clone())
            .unwrap_or_default()
    }

    fn attach(&self, vmid: u32, mode: ConsoleMode) -> BoxFuture<'_, Result<ConsoleSession>> {
        Box::pin(self.attach_client(vmid, mode))
    }

    fn proxy_url(&self) -> Option<String> {
        Some(format!("socks5://{}", self.proxy))
    }

    fn set_driver(&self, version: &str) {
        GuestControl::new(self.shared.clone()).set_driver_version(version);
    }

    fn stop(&self) {
        self.proxy_task.abort();
        let guests: Vec<_> = self.shared.guests().drain().collect();
        for (_, guest) in &guests {
            guest.kill();
        }
        // The kernel takes a moment; what still runs could write into folders that are being removed.
        let gone = |guest: &Guest| !std::path::Path::new(&format!("/proc/{}", guest.init)).exists();
        for _ in 0..100 {
            if guests.iter().all(|(_, guest)| gone(guest)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }
}
