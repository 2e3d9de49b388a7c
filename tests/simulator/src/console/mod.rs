//! Consoles: `termproxy` prepares one and waits for its client, who comes by `vncwebsocket` with the ticket.
//!
//! What the client types into stands behind [`Guests::attach`](crate::guests::Guests::attach); here are tickets, ports, waits and framing.

pub(crate) mod frames;
pub(crate) mod websocket;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{sync::oneshot, time::timeout};

use crate::{
    api::Call,
    guests::ConsoleMode,
    model::Container,
    reply::{Failure, Outcome, Reply},
    worker::{self, Broken, Job},
};
use websocket::Client;

const PORTS: std::ops::RangeInclusive<u16> = 5900..=5999;
/// So long a proxy waits for a client, and so long for his first message. Real clients need it, so it isn't scaled.
const WAIT: Duration = Duration::from_secs(10);

/// The proxies that run, by port. One that has its client waits for none.
#[derive(Debug, Default)]
pub(crate) struct Consoles {
    ports: Mutex<BTreeMap<u16, Option<oneshot::Sender<Client>>>>,
    /// What proxies wait for that no client will find.
    lost: Mutex<Vec<oneshot::Sender<Client>>>,
    /// Proxies end before they let anybody in.
    dead: AtomicBool,
}

impl Consoles {
    fn open(&self) -> Option<(u16, oneshot::Receiver<Client>)> {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let port = PORTS.into_iter().find(|port| !ports.contains_key(port))?;
        let (sender, receiver) = oneshot::channel();
        ports.insert(port, Some(sender));
        Some((port, receiver))
    }

    fn close(&self, port: u16) {
        self.ports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&port);
    }

    pub(crate) fn set_dead(&self, dead: bool) {
        self.dead.store(dead, Ordering::Relaxed);
    }

    /// No client finds his proxy any more; those that wait go on waiting.
    pub(crate) fn lose(&self) {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        // A proxy whose sender were dropped would end at once.
        self.lost
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(ports.values_mut().filter_map(Option::take));
    }

    /// The waiting proxy of a port; the first client takes it.
    fn take(&self, port: u16) -> Option<oneshot::Sender<Client>> {
        self.ports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(&port)?
            .take()
    }
}

/// Frees the port however the proxy ends.
struct Port {
    job: Arc<Job>,
    number: u16,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.job.core.consoles.close(self.number);
    }
}

/// What a container's console runs.
pub(crate) fn mode(container: &Container) -> ConsoleMode {
    match container.file.main.get("cmode") {
        Some("shell") => ConsoleMode::Shell,
        Some("console") => ConsoleMode::Console,
        _ => ConsoleMode::Tty,
    }
}

/// Prepares a console. The contacted node does it, wherever the container is.
pub(crate) fn termproxy(call: &Call) -> Outcome {
    let core = &call.core;
    let vmid = call.vmid();
    let mode = mode(core.state().container(&call.node, vmid)?);
    let Some((port, client)) = core.consoles.open() else {
        return Err(Failure::die("unable to find free port (5900-6000)"));
    };
    let who = call.who.id();
    let ticket = core.keys.issue_console(&who, &format!("/vms/{vmid}"), port);
    let greeting = format!("{who}:{ticket}");
    let upid = worker::spawn(
        core,
        &call.who,
        core.contacted_node(),
        "vncproxy",
        &vmid.to_string(),
        move |job| async move {
            let _port = Port {
                job: Arc::clone(&job),
                number: port,
            };
            tokio::select! {
                done = proxy(&job, vmid, mode, client, &greeting) => done.map_err(|()| Broken::Failed(failed(vmid, mode, port))),
                stopped = job.pause(Duration::from_hours(24)) => stopped,
            }
        },
    );
    Ok(Reply::data(
        json!({"port": port.to_string(), "ticket": ticket, "user": who, "upid": upid}),
    ))
}

fn failed(vmid: u32, mode: ConsoleMode, port: u16) -> String {
    let command = match mode {
        ConsoleMode::Shell => format!("lxc-attach --clear-env -n {vmid}"),
        ConsoleMode::Tty => format!("lxc-console -n {vmid} -e -1"),
        ConsoleMode::Console => format!("lxc-console -n {vmid} -t 0 -e -1"),
    };
    format!(
        "command '/usr/bin/termproxy {port} --path /vms/{vmid} --perm VM.Console --vncticket-endpoint --verify-port --ticket-fd 6 -- /usr/bin/dtach -A /var/run/dtach/vzctlconsole{vmid} -r winch -z {command}' failed: exit code 1"
    )
}

/// Waits for a client, lets him in, and carries bytes until one side ends.
async fn proxy(
    job: &Job,
    vmid: u32,
    mode: ConsoleMode,
    client: oneshot::Receiver<Client>,
    greeting: &str,
) -> Result<(), ()> {
    let mut client = timeout(WAIT, client)
        .await
        .map_err(|_| ())?
        .map_err(|_| ())?;
    let said = timeout(WAIT, client.first_line())
        .await
        .map_err(|_| ())?
        .ok_or(())?;
    // An old host asks its login for the ticket, which knows users and no tokens.
    let refused = job.core.config.host.is_old() && job.upid.owner().1.is_some();
    let dead = job.core.consoles.dead.load(Ordering::Relaxed);
    if said != greeting || refused || dead {
        return Err(());
    }
    client.send(b"OK".to_vec()).await?;
    match job.core.guests.attach(vmid, mode).await {
        Ok(session) => client.carry(session).await,
        Err(error) => {
            client.send(format!("{error:#}\r\n").into_bytes()).await?;
        }
    }
    Ok(())
}
