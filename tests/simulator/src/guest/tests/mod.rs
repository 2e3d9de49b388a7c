//! Guests as the model uses them: real namespaces, a real shell, real bytes on the console.

mod console;
mod layers;
mod scripts;
mod servers;
mod survival;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Failure, GuestControl, GuestSettings, GuestTiming, VllmFailure, World};
use crate::config::{Gpu, HostFacts};
use crate::guests::{
    BootSpec, ConsoleInput, ConsoleMode, ConsoleSession, DeviceSpec, GuestEvent, Guests, NetSpec,
};

pub(super) const UBUNTU: &str = "ubuntu-24.04-standard_24.04-2_amd64.tar.zst";

/// A world with two GPUs on the host.
pub(super) struct Lab {
    pub(super) world: Arc<dyn Guests>,
    pub(super) control: GuestControl,
    pub(super) events: mpsc::UnboundedReceiver<GuestEvent>,
}

pub(super) async fn lab() -> Lab {
    lab_with(GuestTiming::default()).await
}

pub(super) async fn lab_with(timing: GuestTiming) -> Lab {
    let gpu = |index: u32| Gpu {
        index,
        pci_address: format!("0000:0{}:00.0", index + 1),
        uuid: format!("GPU-5f0c9d1e-0000-4000-8000-00000000000{index}"),
        name: "NVIDIA RTX A6000".to_owned(),
        memory_mib: 49140,
    };
    let host = HostFacts {
        gpus: vec![gpu(0), gpu(1)],
        driver_version: "580.95.05".to_owned(),
        devices: Vec::new(),
    };
    let (sender, events) = mpsc::unbounded_channel();
    let (world, control) = World::start(GuestSettings { timing }, host, sender)
        .await
        .unwrap();
    Lab {
        world,
        control,
        events,
    }
}

pub(super) fn spec(volume: &str, ip: &str, devices: &[&str]) -> BootSpec {
    BootSpec {
        volume: volume.to_owned(),
        hostname: "ct".to_owned(),
        unprivileged: true,
        features: "nesting=1".to_owned(),
        nets: vec![NetSpec {
            name: "eth0".to_owned(),
            hwaddr: "BC:24:11:00:00:01".to_owned(),
            ip: Some(format!("{ip}/24")),
            gateway: Some("10.0.0.1".to_owned()),
        }],
        devices: devices
            .iter()
            .map(|path| DeviceSpec {
                path: (*path).to_owned(),
            })
            .collect(),
        nameservers: vec!["10.0.0.1".to_owned()],
        searchdomain: None,
    }
}

impl Lab {
    /// Makes a root and boots it.
    pub(super) async fn boot(&self, vmid: u32, ip: &str, devices: &[&str]) {
        let volume = format!("lxc-disks:subvol-{vmid}-disk-0");
        self.world
            .create_root(volume.clone(), UBUNTU.to_owned())
            .await
            .unwrap();
        self.world
            .boot(vmid, spec(&volume, ip, devices))
            .await
            .unwrap();
    }

    pub(super) async fn attach(&self, vmid: u32) -> Terminal {
        Terminal::new(self.world.attach(vmid, ConsoleMode::Shell).await.unwrap())
    }

    /// Runs a line in a shell of its own on the console, which must be free, and gives its output and exit status.
    pub(super) async fn sh(&self, vmid: u32, script: &str) -> (String, i32) {
        let mut terminal = self.attach(vmid).await;
        terminal.until("# ").await;
        terminal.send(" exec sh -c 'stty -echo; echo re\"\"ady; while :; do if read -r l; then eval \"$l\"; fi; done'\n").await;
        terminal.until("ready\r\r\n").await;
        for chunk in base64(script).as_bytes().chunks(1000) {
            terminal
                .send(&format!("v=${{v}}{}\n", String::from_utf8_lossy(chunk)))
                .await;
        }
        terminal.send("printf %s \"$v\" | base64 -d >/tmp/script; bash /tmp/script 2>&1; echo \"en\"d=$?; exit\n").await;
        let output = terminal.until("[EOF").await.replace("\r\r\n", "\n");
        let (output, status) = output.rsplit_once("end=").unwrap();
        (
            output.to_owned(),
            status.lines().next().unwrap().trim().parse().unwrap(),
        )
    }

    /// As `sh`, for what must succeed.
    pub(super) async fn ok(&self, vmid: u32, script: &str) -> String {
        let (output, code) = self.sh(vmid, script).await;
        assert_eq!(code, 0, "{script}\n{output}");
        output
    }
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// One client of a console.
pub(super) struct Terminal {
    session: ConsoleSession,
    pending: String,
}

impl Terminal {
    pub(super) fn new(session: ConsoleSession) -> Self {
        Self {
            session,
            pending: String::new(),
        }
    }

    pub(super) async fn send(&self, text: &str) {
        self.session
            .input
            .send(ConsoleInput::Data(text.as_bytes().to_vec()))
            .await
            .unwrap();
    }

    pub(super) async fn resize(&self, cols: u16, rows: u16) {
        self.session
            .input
            .send(ConsoleInput::Resize { cols, rows })
            .await
            .unwrap();
    }

    /// What arrives up to and with a text.
    pub(super) async fn until(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.pending.find(text) {
                let rest = self.pending.split_off(at + text.len());
                return std::mem::replace(&mut self.pending, rest);
            }
            let chunk =
                tokio::time::timeout(Duration::from_secs(20), self.session.output.recv()).await;
            match chunk {
                Ok(Some(chunk)) => self.pending += &String::from_utf8_lossy(&chunk),
                Ok(None) => panic!("the console ended before {text:?}: {:?}", self.pending),
                Err(elapsed) => panic!("no {text:?} ({elapsed}): {:?}", self.pending),
            }
        }
    }

    /// What arrives within a time.
    pub(super) async fn within(&mut self, time: Duration) -> String {
        let over = tokio::time::Instant::now() + time;
        while let Ok(Some(chunk)) = tokio::time::timeout_at(over, self.session.output.recv()).await
        {
            self.pending += &String::from_utf8_lossy(&chunk);
        }
        std::mem::take(&mut self.pending)
    }

    /// Whether the other side has ended it.
    pub(super) async fn ended(&mut self) -> bool {
        tokio::time::timeout(Duration::from_secs(5), async {
            while self.session.output.recv().await.is_some() {}
        })
        .await
        .is_ok()
    }
}
