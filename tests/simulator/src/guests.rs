//! The seam between the model of Proxmox VE and what runs inside the containers.
//!
//! The model decides when a guest gets a disk, boots or stops; behind this trait either nothing happens ([`Off`], for tests that need the API alone)
//! or a real shell runs in a confined root (`guest`).

use std::time::Duration;

use anyhow::{Result, bail};
use futures::future::BoxFuture;
use tokio::sync::mpsc;

/// What the model asks of guests. Roots are named by volume: `lxc-disks:subvol-900-disk-0`.
pub(crate) trait Guests: Send + Sync + 'static {
    fn create_root(&self, volume: String, os_template: String) -> BoxFuture<'_, Result<()>>;
    /// Writes files into a root that doesn't run.
    fn write_root(&self, volume: String, files: Vec<RootFile>) -> BoxFuture<'_, Result<()>>;
    fn clone_root(
        &self,
        source: String,
        snapshot: Option<String>,
        target: String,
    ) -> BoxFuture<'_, Result<()>>;
    fn rename_root(&self, from: String, to: String) -> BoxFuture<'_, Result<()>>;
    fn destroy_root(&self, volume: String) -> BoxFuture<'_, Result<()>>;
    fn snapshot_root(&self, volume: String, name: String) -> BoxFuture<'_, Result<()>>;
    fn rollback_root(&self, volume: String, name: String) -> BoxFuture<'_, Result<()>>;
    fn drop_snapshot(&self, volume: String, name: String) -> BoxFuture<'_, Result<()>>;
    /// Boots a container; the answer is the process id of its init.
    fn boot(&self, vmid: u32, spec: BootSpec) -> BoxFuture<'_, Result<u32>>;
    /// Asks init to halt; false when it still runs after the timeout.
    fn shutdown(&self, vmid: u32, timeout: Duration) -> BoxFuture<'_, Result<bool>>;
    /// Kills everything in the container.
    fn halt(&self, vmid: u32) -> BoxFuture<'_, Result<()>>;
    /// The interfaces of a running container but `lo`.
    fn addresses(&self, vmid: u32) -> Vec<GuestInterface>;
    /// Joins the container's one console session, or begins it.
    fn attach(&self, vmid: u32, mode: ConsoleMode) -> BoxFuture<'_, Result<ConsoleSession>>;
    /// Where container addresses can be reached through.
    fn proxy_url(&self) -> Option<String>;
    /// The node's NVIDIA module is another one; empty: none is loaded.
    fn set_driver(&self, version: &str);
    /// Ends all guests and their processes.
    fn stop(&self);
}

/// A file that Proxmox writes into a root.
#[derive(Debug, Clone)]
pub(crate) struct RootFile {
    /// Below the root.
    pub(crate) path: &'static str,
    pub(crate) text: String,
    pub(crate) mode: u32,
}

/// What a container needs to boot.
#[derive(Debug, Clone)]
pub(crate) struct BootSpec {
    pub(crate) volume: String,
    pub(crate) hostname: String,
    pub(crate) unprivileged: bool,
    pub(crate) features: String,
    pub(crate) nets: Vec<NetSpec>,
    pub(crate) devices: Vec<DeviceSpec>,
    pub(crate) nameservers: Vec<String>,
    pub(crate) searchdomain: Option<String>,
}

/// One network interface of a container.
#[derive(Debug, Clone)]
pub(crate) struct NetSpec {
    pub(crate) name: String,
    pub(crate) hwaddr: String,
    /// `10.0.0.150/24` or `dhcp`.
    pub(crate) ip: Option<String>,
    pub(crate) gateway: Option<String>,
}

/// One device of the host passed through.
#[derive(Debug, Clone)]
pub(crate) struct DeviceSpec {
    pub(crate) path: String,
}

/// An interface as seen inside.
#[derive(Debug, Clone)]
pub(crate) struct GuestInterface {
    pub(crate) name: String,
    pub(crate) hwaddr: String,
    pub(crate) cidr: Option<String>,
}

/// What a console runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConsoleMode {
    Shell,
    Tty,
    Console,
}

/// One client's end of a container's console. Dropping it is the client going away; the session lives on.
pub(crate) struct ConsoleSession {
    pub(crate) input: mpsc::Sender<ConsoleInput>,
    /// Ends with the session.
    pub(crate) output: mpsc::Receiver<Vec<u8>>,
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConsoleInput {
    Data(Vec<u8>),
    Resize { cols: u16, rows: u16 },
}

/// What a guest did by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuestEvent {
    PoweredOff { vmid: u32 },
    Rebooted { vmid: u32 },
}

/// No guests: containers have a state and nothing inside.
pub(crate) struct Off;

fn nothing() -> BoxFuture<'static, Result<()>> {
    Box::pin(async { Ok(()) })
}

impl Guests for Off {
    fn create_root(&self, _: String, _: String) -> BoxFuture<'_, Result<()>> {
        nothing()
    }
    fn write_root(&self, _: String, _: Vec<RootFile>) -> BoxFuture<'_, Result<()>> {
        nothing()
    }
    fn clone_root(&self, _: String, _: Option<String>, _: String) -> BoxFuture<'_, Result<()>> {
        nothing()
    }
    fn rename_root(&self, _: String, _: String) -> BoxFuture<'_, Result<()>> {
        nothing()
    }
    fn destroy_root(&self, _: String) -> BoxFuture<'_, Result<()>> {
        nothing()
    }
    fn snapshot_root(&self, _: String, _: String) -> BoxFuture<'_, Result<()>> {
        nothing()
    }
    fn rollback_root(&self, _: String, _: String) -> BoxFuture<'_, Result<()>> {
        nothing()
    }
    fn drop_snapshot(&self, _: String, _: String) -> BoxFuture<'_, Result<()>> {
        nothing()
    }
    fn boot(&self, vmid: u32, _: BootSpec) -> BoxFuture<'_, Result<u32>> {
        Box::pin(async move { Ok(100_000 + vmid) })
    }
    fn shutdown(&self, _: u32, _: Duration) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async { Ok(true) })
    }
    fn halt(&self, _: u32) -> BoxFuture<'_, Result<()>> {
        nothing()
    }
    fn addresses(&self, _: u32) -> Vec<GuestInterface> {
        Vec::new()
    }
    fn attach(&self, _: u32, _: ConsoleMode) -> BoxFuture<'_, Result<ConsoleSession>> {
        Box::pin(async {
            bail!("this simulator runs without guests: there is nothing behind the console")
        })
    }
    fn proxy_url(&self) -> Option<String> {
        None
    }
    fn set_driver(&self, _: &str) {}
    fn stop(&self) {}
}
