//! One file's exchanges, asked of one simulator in their order.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Result;
use futures::future::join_all;
use proxmox_simulator::{Fault, HostShape, Simulator, SimulatorConfig, TaskEffect, Timing};
use regex::Regex;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    bytes, compare,
    inferred::{self, Hand},
    marks::{self, Known, levelled},
    recording::{Exchange, File, Kind},
    scene::{self, Act, Presupposed},
    wire::{self, Answer, Connection, Wire},
    zfs::{self, States},
};

/// A recorded end of a task is waited for so long: consoles wait for their clients 10 s.
const TASK: Duration = Duration::from_secs(15);
/// What a host shows by and by is asked for again that long; the recording waited, too.
const SETTLING: Duration = Duration::from_millis(400);

/// A task that others met under way takes so many seconds, and one whose result was merely waited for.
const MET: f64 = 0.6;
const POLLED: f64 = 0.2;
const STORAGE: &str = "lxc-disks";

/// How one exchange went.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) title: String,
    pub(crate) call: String,
    /// None where it matches.
    pub(crate) difference: Option<String>,
}

/// A simulator in the place of the recorded host.
struct Host {
    simulator: Simulator,
    wire: Wire,
    connections: BTreeMap<String, Connection>,
    headers: BTreeMap<String, Vec<(String, String)>>,
    known: Known,
    /// Volumes in which a process sits.
    busy: BTreeSet<String>,
    /// Containers with a lock that was set by hand.
    locked: BTreeSet<u32>,
    /// What the last console said when it was opened.
    console: Value,
}

/// Replays a file.
pub(crate) async fn replay(file: &File, states: &States) -> Vec<Outcome> {
    let mut host = Host::new(&file.name).await;
    // Silence is waited for side by side.
    let token = host.token();
    let wired = file.exchanges.iter().map(|exchange| async {
        match exchange.kind() {
            Kind::Wire => bytes::difference(&host.wire, &token, exchange).await,
            _ => None,
        }
    });
    let wired = join_all(wired).await;
    let tasks = foreign(file);
    host.place(&tasks);
    let mut outcomes = Vec::new();
    let mut met = BTreeSet::new();
    let mut containers = BTreeSet::new();
    for (number, exchange) in file.exchanges.iter().enumerate() {
        if exchange.kind() == Kind::Note {
            continue;
        }
        if exchange.kind() == Kind::Call {
            host.prepare(&file.exchanges[number..]).await;
        }
        containers.extend(exchange.vmid());
        containers.extend(exchange.makes());
        let first = met.insert(&exchange.title);
        for act in scene::acts(&file.name, &exchange.title).filter(|_| first) {
            host.perform(*act).await;
        }
        host.restage(&file.exchanges[number..]).await;
        let difference = match exchange.kind() {
            Kind::Call => host.call(exchange).await,
            Kind::Row => host.row(exchange).await,
            Kind::Wire | Kind::Note => wired[number].clone(),
        };
        outcomes.push(Outcome {
            title: exchange.title.clone(),
            call: format!("{} {}", exchange.method(), exchange.path()),
            difference,
        });
        for (heading, then) in states.after(&file.name, &exchange.title).filter(|_| first) {
            let now = host.simulator.zfs_list();
            outcomes.push(Outcome {
                title: format!("zfs list {heading}"),
                call: exchange.title.clone(),
                difference: zfs::difference(then, &now, &containers),
            });
        }
    }
    host.simulator.stop().await;
    outcomes
}

impl Host {
    async fn new(name: &str) -> Self {
        let config = SimulatorConfig {
            host: HostShape::recorded(),
            timing: Timing {
                waits: scene::waits(name),
                ..Timing::instant()
            },
            ..SimulatorConfig::default()
        };
        let simulator = Simulator::start(config).await.unwrap();
        Self {
            wire: Wire::new(&simulator),
            simulator,
            connections: BTreeMap::new(),
            headers: BTreeMap::new(),
            known: Known::default(),
            busy: BTreeSet::new(),
            locked: BTreeSet::new(),
            console: Value::Null,
        }
    }

    async fn perform(&mut self, act: Act) {
        match act {
            Act::Visit(welcome) => self.visit(welcome).await,
            _ => {
                // In other recordings of the same name things may be otherwise: the comparison shows it.
                if let Err(error) = scene::perform(&self.simulator, act).await {
                    println!("{act:?}: {error:#}");
                }
            }
        }
    }

    /// Puts the host into the state that the answer to the first exchange gives away.
    async fn restage(&mut self, exchanges: &[Exchange]) {
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
        if let Err(error) = done {
            println!("{}: {error:#}", exchanges[0].title);
        }
        if let Some(kind) = inferred::under_way(exchanges) {
            // A conversion is met by nobody but those who poll for its end.
            let seconds = if kind == "vztemplate" { POLLED } else { MET };
            let effect = TaskEffect::Slow { seconds };
            self.simulator.inject(Fault::task(&kind, effect));
        }
    }

    /// Holds a lock file for as long as a call waits for it.
    async fn hold(&self, vmid: u32) -> Result<()> {
        let guard = self.simulator.hold_flock(vmid).await?;
        tokio::spawn(async move {
            sleep(SETTLING).await;
            drop(guard);
        });
        Ok(())
    }

    /// A lock that no task of ours is responsible for was set by hand.
    fn lock(&mut self, vmid: u32, lock: &str) -> Result<()> {
        let containers = self.simulator.containers();
        let free = containers
            .get(&vmid)
            .is_some_and(|container| container.lock.is_none());
        if !free || self.worked_on(vmid) {
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

    /// Tasks of an earlier day.
    fn place(&mut self, tasks: &BTreeMap<String, Option<String>>) {
        for (then, end) in tasks {
            let parts: Vec<&str> = then.split(':').collect();
            let [.., kind, id, user, _] = parts[..] else {
                continue;
            };
            let now = self.simulator.place_task(kind, id, user, end.as_deref());
            self.known.alias(then, &now);
        }
    }

    fn token(&self) -> String {
        let token = self.simulator.token_of("root@pam!op").unwrap();
        format!("{}={}", token.id, token.secret)
    }

    /// The headers of an identity.
    async fn identity(&mut self, auth: &str) -> Vec<(String, String)> {
        if let Some(headers) = self.headers.get(auth) {
            return headers.clone();
        }
        let authorization = |value: String| vec![("Authorization".to_owned(), value)];
        let headers = if auth == "none" {
            Vec::new()
        } else if let Some(raw) = auth.strip_prefix("raw:") {
            // Recordings show the secret that the token had then.
            let secret = self.simulator.token_of("root@pam!op").unwrap().secret;
            let then = Regex::new("TOKEN-SECRET|[1-9a-f][0-9a-f]{7}(-[0-9a-f]{4}){3}-[0-9a-f]{12}");
            authorization(then.unwrap().replace(raw, secret.as_str()).into_owned())
        } else if let Some((user, rest)) = auth.split_once("-ticket") {
            let user = if user == "root" {
                "root@pam".to_owned()
            } else {
                format!("{user}@pve")
            };
            self.login(&user, rest != "-nocsrf").await
        } else {
            // One that the host doesn't know is refused as a wrong one.
            let secret = self.simulator.token_of(auth).map(|token| token.secret);
            authorization(format!("PVEAPIToken={auth}={}", secret.unwrap_or_default()))
        };
        self.headers.insert(auth.to_owned(), headers.clone());
        headers
    }

    async fn login(&mut self, user: &str, csrf: bool) -> Vec<(String, String)> {
        let password = self.simulator.password_of(user).unwrap_or_default();
        let form = [("username", user), ("password", &password)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let kind = (
            "Content-Type".to_owned(),
            "application/x-www-form-urlencoded".to_owned(),
        );
        let answer = self
            .ask(
                "none",
                "POST",
                "/api2/json/access/ticket",
                &[kind],
                Some(&wire::encoded(&form)),
            )
            .await;
        let field = |name: &str| {
            answer.body["data"][name]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let mut headers = vec![(
            "Cookie".to_owned(),
            format!("PVEAuthCookie={}", field("ticket")),
        )];
        if csrf {
            headers.push((
                "CSRFPreventionToken".to_owned(),
                field("CSRFPreventionToken"),
            ));
        }
        headers
    }

    /// Sends a request, on a kept connection where there is one.
    async fn ask(
        &mut self,
        auth: &str,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: Option<&str>,
    ) -> Answer {
        let bytes = wire::request(method, path, headers, body);
        if let Some(mut connection) = self.connections.remove(auth)
            && connection.send(&bytes).await.is_ok()
            && let Some(answer) = connection.answer().await
        {
            self.keep(auth, connection, &answer);
            return answer;
        }
        let mut connection = self.wire.open().await;
        connection.send(&bytes).await.unwrap();
        let Some(answer) = connection.answer().await else {
            return Answer::default();
        };
        self.keep(auth, connection, &answer);
        answer
    }

    fn keep(&mut self, auth: &str, connection: Connection, answer: &Answer) {
        if answer
            .header("connection")
            .is_none_or(|value| !value.eq_ignore_ascii_case("close"))
        {
            self.connections.insert(auth.to_owned(), connection);
        }
    }

    /// Makes true what the exchanges from here on presuppose of the container that the first is about.
    async fn prepare(&mut self, exchanges: &[Exchange]) {
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

    /// Whether a task works on a container: then its state is the task's affair.
    fn worked_on(&self, vmid: u32) -> bool {
        let locked = self
            .simulator
            .containers()
            .get(&vmid)
            .is_some_and(|container| container.lock.is_some());
        let id = vmid.to_string();
        locked
            || self
                .simulator
                .tasks()
                .iter()
                .any(|task| task.exit.is_none() && task.id == id && task.kind != "vncproxy")
    }

    async fn start(&mut self, vmid: u32) {
        let lock = self.simulator.containers()[&vmid].lock.clone();
        self.simulator.unlock(vmid).unwrap();
        let headers = self.identity("root@pam!op").await;
        let path = format!("/api2/json/nodes/pve1/lxc/{vmid}/status/start");
        self.ask("root@pam!op", "POST", &path, &headers, Some(""))
            .await;
        self.simulator.idle(TASK).await;
        if let Some(lock) = lock {
            self.simulator.set_lock(vmid, &lock).unwrap();
        }
    }

    async fn send(&mut self, exchange: &Exchange) -> Answer {
        let auth = exchange.auth.clone().unwrap_or_else(|| "none".to_owned());
        let mut headers = self.identity(&auth).await;
        headers.extend(exchange.request_headers.clone().into_iter().flatten());
        let path = self.known.here(exchange.path());
        let pairs: Vec<(String, String)> = exchange
            .pairs()
            .into_iter()
            .map(|(key, value)| (key, self.known.here(&value)))
            .collect();
        let body = match &exchange.request_body {
            // Bytes were written down as Python shows them.
            Some(body) => Some(
                body.strip_prefix("b'")
                    .and_then(|rest| rest.strip_suffix('\''))
                    .unwrap_or(body)
                    .to_owned(),
            ),
            None if exchange.form.is_some() => {
                headers.push((
                    "Content-Type".to_owned(),
                    "application/x-www-form-urlencoded".to_owned(),
                ));
                Some(wire::encoded(&pairs))
            }
            None => None,
        };
        self.ask(&auth, exchange.method(), &path, &headers, body.as_deref())
            .await
    }

    async fn call(&mut self, exchange: &Exchange) -> Option<String> {
        if exchange.saw_the_end() {
            self.await_end(exchange).await;
        }
        let mut answer = self.send(exchange).await;
        let mut found = self.difference(exchange, &answer);
        let until = Instant::now() + SETTLING;
        while found.is_some() && exchange.method() == "GET" && Instant::now() < until {
            sleep(Duration::from_millis(25)).await;
            answer = self.send(exchange).await;
            found = self.difference(exchange, &answer);
        }
        self.known.learn(&exchange.body, &answer.body);
        if exchange.below() == "/termproxy" && answer.status == 200 {
            self.console = answer.body["data"].clone();
        }
        found
    }

    fn difference(&self, exchange: &Exchange, answer: &Answer) -> Option<String> {
        let found = compare::difference(exchange, answer);
        if found.is_some() {
            return found;
        }
        let then = exchange.stored_file.as_deref()?;
        let now = self
            .simulator
            .config_text(exchange.vmid()?)
            .unwrap_or_default();
        let (then, now) = (levelled(then), levelled(&now));
        (then.trim_end() != now.trim_end()).then(|| format!("stored is {now:?}, recorded {then:?}"))
    }

    async fn await_end(&self, exchange: &Exchange) {
        let until = Instant::now() + TASK;
        let upid = exchange.task().unwrap_or_default();
        let Some(here) = self.known.task(&upid) else {
            return;
        };
        let runs = || {
            self.simulator
                .tasks()
                .iter()
                .any(|task| task.upid == here && task.exit.is_none())
        };
        while runs() && Instant::now() < until {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// A container's row in the cluster's resources comes to look as recorded.
    async fn row(&mut self, exchange: &Exchange) -> Option<String> {
        let then = exchange.row.clone().unwrap_or_default();
        let until = Instant::now() + SETTLING * 5;
        let headers = self.identity("root@pam!op").await;
        loop {
            let answer = self
                .ask(
                    "root@pam!op",
                    "GET",
                    "/api2/json/cluster/resources?type=vm",
                    &headers,
                    None,
                )
                .await;
            let rows = answer.body["data"].as_array().cloned().unwrap_or_default();
            let now = match then["vmid"].as_u64() {
                Some(vmid) => rows
                    .into_iter()
                    .find(|row| row["vmid"] == vmid)
                    .unwrap_or_default(),
                None => Value::Array(rows),
            };
            let found = compare::first(
                &compare::level(&then, false),
                &compare::level(&now, false),
                "row",
            );
            if found.is_none() || Instant::now() > until {
                return found;
            }
            sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Task ids that a recording asks for without having made them, with the ends that it saw.
fn foreign(file: &File) -> BTreeMap<String, Option<String>> {
    let mut made = BTreeSet::new();
    let mut found = BTreeMap::new();
    for exchange in &file.exchanges {
        let answered = exchange.body.to_string();
        if let Some(upid) = marks::upid(exchange.path()) {
            if !made.contains(&upid) && exchange.task().is_some() && exchange.status() == 200 {
                let end = exchange.data()["exitstatus"].as_str();
                found
                    .entry(upid)
                    .or_insert(Some(end.unwrap_or("OK").to_owned()));
            }
        } else if exchange
            .path()
            .split('?')
            .next()
            .is_some_and(|path| path.ends_with("/tasks"))
        {
            for row in exchange.data().as_array().into_iter().flatten() {
                let over = row
                    .get("endtime")
                    .map(|_| row["status"].as_str().unwrap_or("OK").to_owned());
                let upid = row["upid"].as_str().unwrap_or_default().to_owned();
                if !made.contains(&upid) {
                    found.entry(upid).or_insert(over);
                }
            }
        } else if let Some(upid) = marks::upid(&answered) {
            made.insert(upid);
        }
    }
    found
}
