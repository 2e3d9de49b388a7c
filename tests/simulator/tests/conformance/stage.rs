//! Sets the scene for an exchange: what it presupposes, and what had been done on the host by hand.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use proxmox_simulator::{Fault, TaskEffect};
use tokio::time::sleep;

use super::{
    host::Host,
    inferred::{self, Hand},
    marks,
    recording::Exchange,
    scene::{self, Act, Presupposed},
    wire,
};

/// A task that others met under way takes so many seconds, and one whose result was merely waited for.
const MET: f64 = 0.6;
const POLLED: f64 = 0.2;
const STORAGE: &str = "lxc-disks";
/// A lock file is held for as long as a call waits for it.
const HELD: Duration = Duration::from_millis(400);
/// Longer than a start takes here.
const START: Duration = Duration::from_secs(10);

impl Host {
    /// Tasks of an earlier day.
    pub(crate) fn place(&mut self, tasks: &BTreeMap<String, Option<String>>) {
        for (then, end) in tasks {
            let parts: Vec<&str> = then.split(':').collect();
            let [.., kind, id, user, _] = parts[..] else {
                continue;
            };
            let now = self.simulator.place_task(kind, id, user, end.as_deref());
            self.known.alias(then, &now);
        }
    }

    /// Makes true what the exchanges from here on presuppose of the container that the first is about.
    pub(crate) async fn prepare(&mut self, exchanges: &[Exchange]) {
        let exchange = &exchanges[0];
        if exchange.path().ends_with("/cluster/nextid") {
            self.fill(exchanges);
        }
        for vmid in exchange.makes().into_iter().chain(exchange.vmid()) {
            let there = self.simulator.containers().contains_key(&vmid);
            let wanted = Presupposed::of(vmid, exchanges);
            match (there, wanted.there) {
                (false, Some(true)) => {
                    self.simulator
                        .place_container(vmid, &wanted.text(vmid))
                        .unwrap();
                    if wanted.running {
                        self.start(vmid).await;
                    }
                }
                (true, Some(false)) if !self.worked_on(vmid) => {
                    self.simulator.delete_container(vmid).await.unwrap();
                }
                _ => {}
            }
        }
    }

    /// The first free id says that those before it are taken.
    fn fill(&self, exchanges: &[Exchange]) {
        let next = exchanges[0]
            .data()
            .as_str()
            .and_then(|text| text.parse().ok());
        for vmid in 100..next.unwrap_or(100) {
            if !self.simulator.containers().contains_key(&vmid) {
                let text = Presupposed::of(vmid, exchanges).text(vmid);
                self.simulator.place_container(vmid, &text).unwrap();
            }
        }
    }

    async fn start(&mut self, vmid: u32) {
        let lock = self.simulator.containers()[&vmid].lock.clone();
        self.simulator.unlock(vmid).unwrap();
        let headers = self.identity("root@pam!op").await;
        let path = format!("/api2/json/nodes/pve1/lxc/{vmid}/status/start");
        self.ask("root@pam!op", "POST", &path, &headers, Some(""))
            .await;
        self.simulator.idle(START).await;
        if let Some(lock) = lock {
            self.simulator.set_lock(vmid, &lock).unwrap();
        }
    }

    /// Whether a container's state is the affair of a task: one works on it, or has left its lock.
    fn worked_on(&self, vmid: u32) -> bool {
        self.is_locked(vmid) || self.works_on(vmid)
    }

    fn is_locked(&self, vmid: u32) -> bool {
        let containers = self.simulator.containers();
        containers
            .get(&vmid)
            .is_some_and(|container| container.lock.is_some())
    }

    /// Whether a task runs that may be working on it; a clone's goes by its source's id.
    fn works_on(&self, vmid: u32) -> bool {
        let id = vmid.to_string();
        let mut running = self
            .simulator
            .tasks()
            .into_iter()
            .filter(|task| task.exit.is_none());
        running.any(|task| task.kind == "vzclone" || (task.id == id && task.kind != "vncproxy"))
    }

    pub(crate) async fn perform(&mut self, act: Act) {
        match act {
            Act::Visit(welcome) => self.visit(welcome).await,
            _ => {
                // In other recordings of the same name things may be otherwise: the comparison shows it.
                let _ = scene::perform(&self.simulator, act).await;
            }
        }
    }

    /// Puts the host into the state that the answer to the first exchange gives away.
    pub(crate) async fn restage(&mut self, exchanges: &[Exchange]) {
        let hand = inferred::by_hand(exchanges);
        let changes = exchanges[0].method() != "GET";
        if changes && !matches!(hand, Some(Hand::Busy(_))) {
            for volume in std::mem::take(&mut self.busy) {
                let _ = self.simulator.set_busy(STORAGE, &volume, false);
            }
        }
        if changes && !matches!(hand, Some(Hand::Lock(..))) {
            for vmid in std::mem::take(&mut self.locked) {
                let _ = self.simulator.unlock(vmid);
            }
        }
        if changes && hand.is_none() && exchanges[0].status() == 200 {
            self.settle(&exchanges[0]).await;
        }
        let done = match hand {
            None => Ok(()),
            Some(Hand::Flock(vmid)) => self.hold(vmid).await,
            Some(Hand::Busy(volume)) => {
                self.busy.insert(volume.clone());
                self.simulator.set_busy(STORAGE, &volume, true)
            }
            Some(Hand::SnapshotLost(vmid, name)) => {
                let volume = format!("subvol-{vmid}-disk-0");
                self.simulator.lose_snapshot(STORAGE, &volume, &name)
            }
            Some(Hand::Unresponsive(vmid)) => self.simulator.ignore_shutdown(vmid),
            Some(Hand::Lock(vmid, lock)) => self.lock(vmid, &lock),
        };
        // What could not be done shows in the comparison.
        let _ = done;
        if self.welcomed(&exchanges[0]) {
            self.visit(true).await;
        }
        if let Some(kind) = inferred::under_way(exchanges) {
            // A conversion is met by nobody but those who poll for its end.
            let seconds = if kind == "vztemplate" { POLLED } else { MET };
            let effect = TaskEffect::Slow { seconds };
            self.simulator.inject(Fault::task(&kind, effect));
        }
    }

    /// Whether a console that still waits for its client here was seen to have had one.
    fn welcomed(&self, exchange: &Exchange) -> bool {
        let upid = exchange.task().filter(|upid| upid.contains(":vncproxy:"));
        let here = upid.and_then(|upid| self.known.task(&upid).map(str::to_owned));
        let last = self.console["upid"].as_str();
        here.is_some() && here.as_deref() == last && exchange.data()["exitstatus"] == "OK"
    }

    /// A change that was let through met no task at work.
    async fn settle(&self, exchange: &Exchange) {
        let Some(vmid) = exchange.vmid().filter(|_| exchange.below() != "/termproxy") else {
            return;
        };
        if self.is_locked(vmid) && !self.locked.contains(&vmid) && self.works_on(vmid) {
            self.simulator.idle(START).await;
        }
    }

    /// Holds a lock file for as long as a call waits for it.
    async fn hold(&self, vmid: u32) -> Result<()> {
        let guard = self.simulator.hold_flock(vmid).await?;
        tokio::spawn(async move {
            sleep(HELD).await;
            drop(guard);
        });
        Ok(())
    }

    /// A lock that no task of ours is responsible for was set by hand.
    fn lock(&mut self, vmid: u32, lock: &str) -> Result<()> {
        if !self.locked.contains(&vmid) && self.worked_on(vmid) {
            return Ok(());
        }
        self.locked.insert(vmid);
        self.simulator.set_lock(vmid, lock)
    }

    /// Connects to the console that was opened last, and goes again.
    async fn visit(&mut self, welcome: bool) {
        let data = self.console.clone();
        let field = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        let (port, ticket, user) = (field("port"), field("ticket"), field("user"));
        let vmid =
            marks::upid(&field("upid")).and_then(|upid| Some(upid.split(':').nth(6)?.to_owned()));
        let mut headers = self.identity(&user).await;
        let upgrade = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
            ("Sec-WebSocket-Protocol", "binary"),
        ];
        headers.extend(upgrade.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let query = wire::encoded(&[
            ("port".to_owned(), port),
            ("vncticket".to_owned(), ticket.clone()),
        ]);
        let path = format!(
            "/api2/json/nodes/pve1/lxc/{}/vncwebsocket?{query}",
            vmid.unwrap_or_default()
        );
        let mut connection = self.wire.open().await;
        connection
            .send(&wire::request("GET", &path, &headers, None))
            .await
            .unwrap();
        if connection
            .answer()
            .await
            .is_none_or(|answer| answer.status != 101)
        {
            return;
        }
        let line = if welcome {
            format!("{user}:{ticket}\n")
        } else {
            "nobody:nothing\n".to_owned()
        };
        connection
            .send(&wire::frame(line.as_bytes()))
            .await
            .unwrap();
        // The proxy lets the client in, or ends.
        sleep(Duration::from_millis(100)).await;
    }
}
