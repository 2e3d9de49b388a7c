//! A running simulator, and what a test can ask of it.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    admin, api,
    calls::CallRecord,
    config::{HostFacts, SimulatorConfig},
    core::Core,
    fault::Fault,
    guest::{GuestControl, World},
    guests::{GuestEvent, Guests, Off},
    http::server,
    model::{self, check, zfs},
    phoenix,
    tls::Certificate,
};

/// One round of the statistics daemon.
const STATISTICS: Duration = Duration::from_secs(10);

/// A running simulator. Dropping it ends it.
pub struct Simulator {
    pub(crate) core: Arc<Core>,
    address: SocketAddr,
    admin: SocketAddr,
    control: Option<GuestControl>,
}

/// An API token, or a user and his password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `phoenix@pve!operator` or `root@pam`.
    pub id: String,
    /// The token's secret or the password.
    pub secret: String,
}

/// A task as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRecord {
    /// Its identifier.
    pub upid: String,
    /// `vzclone`.
    pub kind: String,
    /// The id in it: a container's, of a clone the source's.
    pub id: String,
    /// Who began it.
    pub user: String,
    /// Its exit status; none while it runs.
    pub exit: Option<String>,
    /// How long it took, in seconds; none while it runs.
    pub seconds: Option<f64>,
    /// Its log.
    pub log: Vec<String>,
}

/// A container as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRecord {
    /// Its id.
    pub vmid: u32,
    /// Where it is.
    pub node: String,
    /// Whether it runs.
    pub running: bool,
    /// Whether it is a template.
    pub template: bool,
    /// The lock in its configuration.
    pub lock: Option<String>,
    /// The keys of its configuration.
    pub config: BTreeMap<String, String>,
    /// Its description without the last newline.
    pub description: Option<String>,
    /// Names of its snapshots.
    pub snapshots: Vec<String>,
}

impl Simulator {
    /// Starts a simulator on 127.0.0.1. It runs on the caller's tokio runtime.
    pub async fn start(config: SimulatorConfig) -> Result<Self> {
        let node = config
            .host
            .nodes
            .first()
            .context("a host needs a node")?
            .clone();
        let certificate = Certificate::new(node.clone()).context("making certificates")?;
        let (events, happened) = mpsc::unbounded_channel();
        let (guests, control): (Arc<dyn Guests>, _) = match config.guests.clone() {
            None => (Arc::new(Off), None),
            Some(settings) => {
                let facts = HostFacts {
                    gpus: node.gpus,
                    driver_version: node.driver_version,
                    devices: node.devices,
                };
                let (world, control) = World::start(settings, facts, events).await?;
                (world, Some(control))
            }
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, config.port.unwrap_or(0)))
            .await
            .context("opening the API's port")?;
        let address = listener.local_addr()?;
        let core = Arc::new(Core::new(config, certificate, guests));
        core.running.spawn(server::run(Arc::clone(&core), listener));
        core.running.spawn(statistics(Arc::clone(&core)));
        core.running
            .spawn(listen_to_guests(Arc::clone(&core), happened));
        let admin = admin::start(Arc::clone(&core))
            .await
            .context("opening the admin port")?;
        tracing::info!(%address, %admin, "a simulated Proxmox VE is up");
        Ok(Self {
            core,
            address,
            admin,
            control,
        })
    }

    /// Ends it and waits until all is over.
    pub async fn stop(self) {
        self.core.stop.cancel();
        self.core.guests.stop();
        self.core.running.close();
        self.core.running.wait().await;
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The API's port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Where faults can be switched by HTTP: `http://127.0.0.1:PORT`.
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }

    /// The certificate of the cluster's authority.
    pub fn ca_pem(&self) -> String {
        self.core.certificate.current().ca_pem
    }

    /// SHA-256 of the node's certificate, `AB:CD:…`.
    pub fn fingerprint(&self) -> String {
        self.core.certificate.current().fingerprint
    }

    /// The proxy that leads to container addresses, where there are guests.
    pub fn guest_proxy_url(&self) -> Option<String> {
        self.core.guests.proxy_url()
    }

    /// What can be done to guests, where there are any.
    pub fn guests(&self) -> Option<&GuestControl> {
        self.control.as_ref()
    }

    /// The operator's API token.
    #[expect(
        clippy::expect_used,
        reason = "a host without that token has no use for this; the message says so"
    )]
    pub fn token(&self) -> Credentials {
        self.token_of(phoenix::OPERATOR)
            .expect("this host has no token phoenix@pve!operator")
    }

    /// Any API token by its id.
    pub fn token_of(&self, id: &str) -> Option<Credentials> {
        let (user, name) = id.split_once('!')?;
        let state = self.core.state();
        let token = state
            .access
            .users
            .get(user)?
            .tokens
            .iter()
            .find(|token| token.id == name)?;
        Some(Credentials {
            id: id.to_owned(),
            secret: token.secret.clone(),
        })
    }

    /// Every password and every token there is, by id.
    pub fn credentials(&self) -> Vec<Credentials> {
        let state = self.core.state();
        let mut all = Vec::new();
        for user in state.access.users.values() {
            all.extend(user.password.iter().map(|password| Credentials {
                id: user.id.clone(),
                secret: password.clone(),
            }));
            all.extend(user.tokens.iter().map(|token| Credentials {
                id: format!("{}!{}", user.id, token.id),
                secret: token.secret.clone(),
            }));
        }
        all
    }

    /// A user's password.
    pub fn password_of(&self, user: &str) -> Option<String> {
        self.core.state().access.users.get(user)?.password.clone()
    }

    /// The password of root@pam.
    pub fn root_password(&self) -> String {
        self.password_of("root@pam").unwrap_or_default()
    }

    /// All calls since the start, or since they were cleared.
    pub fn calls(&self) -> Vec<CallRecord> {
        self.core.calls.all()
    }

    /// How often each method and endpoint was called with which code.
    pub fn call_counts(&self) -> BTreeMap<(String, String, u16), usize> {
        self.core.calls.counts()
    }

    /// Forgets the calls so far.
    pub fn clear_calls(&self) {
        self.core.calls.clear();
    }

    /// All tasks, oldest first.
    pub fn tasks(&self) -> Vec<TaskRecord> {
        let state = self.core.state();
        let mut tasks: Vec<TaskRecord> = state
            .tasks
            .newest()
            .map(|task| TaskRecord {
                upid: task.upid.to_string(),
                kind: task.upid.kind.clone(),
                id: task.upid.id.clone(),
                user: task.upid.user.clone(),
                exit: task.exit.clone(),
                seconds: task.took.map(|d| d.as_secs_f64()),
                log: task.log.clone(),
            })
            .collect();
        tasks.reverse();
        tasks
    }

    /// Waits until no task runs (consoles don't count); false when some still do after that time.
    pub async fn idle(&self, patience: Duration) -> bool {
        let until = tokio::time::Instant::now() + patience;
        loop {
            let busy = self
                .core
                .state()
                .tasks
                .newest()
                .any(|task| task.exit.is_none() && task.upid.kind != "vncproxy");
            if !busy || tokio::time::Instant::now() >= until {
                return !busy;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// All containers by id.
    pub fn containers(&self) -> BTreeMap<u32, ContainerRecord> {
        let state = self.core.state();
        let record = |(vmid, container): (&u32, &model::Container)| {
            let file = &container.file;
            let record = ContainerRecord {
                vmid: *vmid,
                node: container.node.clone(),
                running: container.is_running(),
                template: file.is_template(),
                lock: file.lock().map(str::to_owned),
                config: file.main.keys.clone(),
                description: file.main.description.clone(),
                snapshots: file.snapshots.keys().cloned().collect(),
            };
            (*vmid, record)
        };
        state.containers.iter().map(record).collect()
    }

    /// A container's configuration file.
    pub fn config_text(&self, vmid: u32) -> Option<String> {
        self.core
            .state()
            .containers
            .get(&vmid)
            .map(|container| container.file.text())
    }

    /// `zfs list -t all -o name,origin,used,refer,refquota`.
    pub fn zfs_list(&self) -> String {
        zfs::list(&self.core.state())
    }

    /// What is inconsistent in the model; empty when all is well. Faults that kill workers make it so, nothing else does.
    pub fn problems(&self) -> Vec<String> {
        check::problems(&self.core.state())
    }

    /// Switches a fault on.
    pub fn inject(&self, fault: Fault) {
        self.core.faults.add(fault);
    }

    /// Switches all faults off.
    pub fn clear_faults(&self) {
        self.core.faults.clear();
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.core.stop.cancel();
        self.core.guests.stop();
    }
}

async fn statistics(core: Arc<Core>) {
    let mut rounds = interval(
        core.config
            .timing
            .wait(STATISTICS)
            .max(Duration::from_millis(20)),
    );
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = rounds.tick() => {
                let mut state = core.state();
                // One storage that hangs holds up the whole round.
                let hangs = state.storages.values().any(|storage| storage.hung);
                if !hangs && !core.statistics_hang.load(Ordering::Relaxed) {
                    state.broadcast();
                }
            }
            () = core.stop.cancelled() => return,
        }
    }
}

/// A guest that went down or rebooted by itself: no task tells of it.
async fn listen_to_guests(core: Arc<Core>, mut events: mpsc::UnboundedReceiver<GuestEvent>) {
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = core.stop.cancelled() => return,
        };
        let Some(event) = event else { return };
        let (GuestEvent::PoweredOff { vmid } | GuestEvent::Rebooted { vmid }) = event;
        let Some(node) = core
            .state()
            .containers
            .get(&vmid)
            .map(|container| container.node.clone())
        else {
            continue;
        };
        let before = core
            .state()
            .containers
            .get(&vmid)
            .and_then(|container| container.runtime.clone());
        api::stopped(&core, &node, vmid);
        if let (GuestEvent::Rebooted { .. }, Some(mut running)) = (event, before) {
            running.started = model::now();
            if let Some(container) = core.state().containers.get_mut(&vmid) {
                container.runtime = Some(running);
            }
        }
    }
}
