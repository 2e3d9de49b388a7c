//! One running guest: from the seam's folder and the namespaces to its end.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::Shared;
use super::calls;
use super::confine::{self, Confined};
use super::files::Files;
use super::network::{self, Ports};
use super::portainer::Certificates;
use super::standin::{self, Daemon};
use super::systemd::Units;
use super::vllm::Engines;
use crate::config::HostFacts;
use crate::guests::{BootSpec, GuestInterface};

/// The scripts of the seam by name.
const SCRIPTS: [(&str, &str); 4] = [
    ("setup.sh", include_str!("../../guest-root/setup.sh")),
    ("init.sh", include_str!("../../guest-root/init.sh")),
    ("call.sh", include_str!("../../guest-root/call.sh")),
    ("login.sh", include_str!("../../guest-root/login.sh")),
];

/// A running guest.
pub(super) struct Guest {
    pub(super) vmid: u32,
    pub(super) spec: BootSpec,
    /// Its process 1, as the machine counts.
    pub(super) init: u32,
    pub(super) files: Files,
    pub(super) interfaces: Vec<GuestInterface>,
    pub(super) ports: Ports,
    pub(super) certificates: Certificates,
    pub(super) units: Units,
    pub(super) docker: Daemon,
    pub(super) engines: Engines,
    pub(super) shared: Arc<Shared>,
    confined: Mutex<Confined>,
    calls: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Guest {
    /// Starts process 1 over a root; answers when it is up.
    pub(super) async fn boot(
        shared: Arc<Shared>,
        vmid: u32,
        spec: BootSpec,
        root: &Path,
    ) -> Result<Arc<Self>> {
        let seam = shared.seam(vmid);
        prepare_seam(&seam, &spec, &shared.host())
            .with_context(|| format!("preparing {}", seam.display()))?;
        let interfaces = network::interfaces(vmid, &spec.nets);
        let confined = confine::start(root, &seam).await?;
        let init = confined.init;
        let guest = Arc::new(Self {
            vmid,
            init,
            files: Files::of(init)?,
            interfaces,
            ports: Ports::default(),
            certificates: Certificates::default(),
            units: Units::default(),
            docker: Daemon::default(),
            engines: Engines::default(),
            shared,
            confined: Mutex::new(confined),
            calls: std::sync::Mutex::default(),
            spec,
        });
        let weak = Arc::downgrade(&guest);
        let served = tokio::spawn(async move {
            let handle = move |call| {
                let guest = weak.upgrade();
                async move {
                    match guest {
                        Some(guest) => standin::run(&guest, call).await,
                        None => 1,
                    }
                }
            };
            if let Err(error) = calls::serve(&seam, handle).await {
                tracing::error!("guest {vmid}: {error:#}");
            }
        });
        if let Ok(mut calls) = guest.calls.lock() {
            *calls = Some(served);
        }
        Ok(guest)
    }

    /// Whether a connection to `host` is meant for this guest.
    pub(super) fn answers_to(&self, host: &str) -> bool {
        let Ok(wanted) = host.parse::<std::net::Ipv4Addr>() else {
            return host == self.spec.hostname;
        };
        self.interfaces
            .iter()
            .any(|interface| interface.cidr.as_deref().and_then(network::address) == Some(wanted))
    }

    /// Starts what is enabled.
    pub(super) fn start_units(self: &Arc<Self>) {
        let guest = self.clone();
        tokio::spawn(async move { guest.units.boot(&guest).await });
    }

    /// Stops all units in good order.
    pub(super) async fn stop_units(&self) {
        self.units.stop_all().await;
    }

    /// Ends everything inside; returns when it is gone.
    pub(super) async fn end(&self) {
        self.kill();
        self.confined.lock().await.end().await;
    }

    /// Ends everything inside without waiting for it.
    pub(super) fn kill(&self) {
        if let Ok(mut calls) = self.calls.lock()
            && let Some(task) = calls.take()
        {
            task.abort();
        }
        self.units.abandon();
        if let Ok(mut confined) = self.confined.try_lock() {
            confined.release();
        }
    }
}

fn prepare_seam(seam: &Path, spec: &BootSpec, host: &HostFacts) -> Result<()> {
    if seam.exists() {
        std::fs::remove_dir_all(seam)?;
    }
    std::fs::create_dir_all(seam.join("calls"))?;
    std::fs::create_dir_all(seam.join("driver"))?;
    for (name, text) in SCRIPTS {
        let path = seam.join(name);
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    std::os::unix::fs::symlink("call.sh", seam.join("nvidia-installer"))?;
    let pipe = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        seam.join("calls.pipe"),
        pipe,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )?;
    let devices: String = spec
        .devices
        .iter()
        .fold(String::new(), |text, device| text + &device.path + "\n");
    std::fs::write(seam.join("devices"), devices)?;
    std::fs::write(seam.join("hostname"), &spec.hostname)?;
    let mut hosts = String::from(
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n",
    );
    let address = spec
        .nets
        .iter()
        .find_map(|net| net.ip.as_deref().and_then(network::address));
    writeln!(
        hosts,
        "{} {}",
        address.map_or_else(|| "127.0.1.1".to_owned(), |address| address.to_string()),
        spec.hostname
    )?;
    std::fs::write(seam.join("hosts"), hosts)?;
    let mut resolver = String::from("# --- BEGIN PVE ---\n");
    if let Some(domain) = &spec.searchdomain {
        writeln!(resolver, "search {domain}")?;
    }
    // Without any in its configuration, a container gets the host's.
    let inherited = ["10.0.0.1".to_owned()];
    let servers = if spec.nameservers.is_empty() {
        &inherited[..]
    } else {
        &spec.nameservers
    };
    for server in servers {
        writeln!(resolver, "nameserver {server}")?;
    }
    resolver.push_str("# --- END PVE ---\n");
    std::fs::write(seam.join("resolv.conf"), resolver)?;
    write_driver(&seam.join("driver"), host)
}

/// Writes what the NVIDIA module shows below /proc/driver. The guest has the folder read-only.
pub(super) fn write_driver(folder: &Path, host: &HostFacts) -> Result<()> {
    let nvidia = folder.join("nvidia");
    if nvidia.exists() {
        std::fs::remove_dir_all(&nvidia)?;
    }
    if host.driver_version.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(nvidia.join("gpus"))?;
    let version = format!(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Tue Sep  9 20:13:26 UTC 2025\nGCC version:  gcc version 14.2.0 (Debian 14.2.0-19) \n",
        host.driver_version
    );
    std::fs::write(nvidia.join("version"), version)?;
    for gpu in &host.gpus {
        let folder = nvidia.join("gpus").join(gpu.pci_address.to_lowercase());
        std::fs::create_dir_all(&folder)?;
        let information = format!(
            "Model: \t\t {}\nIRQ:   \t\t {}\nGPU UUID: \t {}\nVideo BIOS: \t 95.02.18.80.d5\nBus Type: \t PCIe\nDMA Size: \t 47 bits\nDMA Mask: \t 0x7fffffffffff\n\
             Bus Location: \t {}\nDevice Minor: \t {}\nGPU Firmware: \t {}\nGPU Excluded:\t No\n",
            gpu.name,
            110 + gpu.index,
            gpu.uuid,
            gpu.pci_address.to_lowercase(),
            gpu.index,
            host.driver_version
        );
        std::fs::write(folder.join("information"), information)?;
    }
    Ok(())
}
