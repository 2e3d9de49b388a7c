//! One file's exchanges, asked of one simulator in their order.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::future::join_all;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    bytes, compare,
    host::Host,
    marks::{self, levelled},
    recording::{Exchange, File, Kind},
    scene,
    wire::Answer,
    zfs::{self, States},
};

/// A recorded end of a task is waited for so long: consoles wait for their clients 10 s.
const TASK: Duration = Duration::from_secs(15);
/// What a host shows by and by is asked for again that long; the recording waited, too.
const SETTLING: Duration = Duration::from_millis(400);

/// How one exchange went.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) title: String,
    pub(crate) call: String,
    /// None where it matches.
    pub(crate) difference: Option<String>,
}

/// Where rows were watched while they changed, Proxmox's own waits take longer.
fn pace(file: &File) -> f64 {
    let watched = |exchange: &Exchange| exchange.kind() == Kind::Row;
    if file.exchanges.iter().any(watched) {
        0.1
    } else {
        0.01
    }
}

/// Replays a file.
pub(crate) async fn replay(file: &File, states: &States) -> Vec<Outcome> {
    let mut host = Host::new(pace(file)).await;
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
    async fn call(&mut self, exchange: &Exchange) -> Option<String> {
        if exchange.status() == 596 && exchange.method() != "GET" {
            // Whether it was carried out nobody knows; what follows was recorded without.
            return Some("not sent, recorded (596".to_owned());
        }
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
