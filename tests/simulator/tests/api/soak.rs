//! Many clients at once, each doing what comes to its mind: no panic, no lock that nobody holds, no dataset that belongs to nobody.
//!
//! Five seconds in an ordinary run; `PHOENIX_SOAK_SECONDS=60 cargo test -p proxmox-simulator --test api soak` for longer. The dice of each client have
//! a fixed seed; what differs from run to run is who comes first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use proxmox_simulator::{Simulator, SimulatorConfig, Timing};
use serde_json::Value;
use tokio::time::Instant;

use super::client::{Answer, Client};

const CLIENTS: u32 = 64;
/// Few ids, so that clients get into each other's way.
const IDS: u32 = 24;
const FIRST: u32 = 900;
/// Stopped in the middle these leave their lock, on a real host too: nobody stops them here.
const LEAVE_LOCKS: [&str; 2] = [":vzrollback:", ":vzdelsnapshot:"];
const VARIABLE: &str = "PHOENIX_SOAK_SECONDS";
const PATIENCE: Duration = Duration::from_secs(60);

/// One of the clients.
struct Trampler {
    client: Client,
    simulator: Arc<Simulator>,
    dice: u32,
    calls: usize,
    ends: BTreeMap<String, usize>,
}

impl Trampler {
    fn dice(&mut self, sides: u32) -> u32 {
        self.dice = self.dice.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        (self.dice >> 8) % sides
    }

    async fn trample(mut self, until: Instant) -> Self {
        while Instant::now() < until {
            let answer = self.call().await;
            self.calls += 1;
            assert!(
                matches!(answer.status, 200 | 400 | 500) && !answer.reason.contains("panicked"),
                "{} {} {}",
                answer.status,
                answer.reason,
                answer.text
            );
            if let Some(upid) = answer.body["data"]
                .as_str()
                .filter(|text| text.starts_with("UPID:"))
            {
                let upid = upid.to_owned();
                if self.dice(8) == 0 && !LEAVE_LOCKS.iter().any(|kind| upid.contains(kind)) {
                    self.client
                        .delete(&format!("/nodes/pve/tasks/{upid}"))
                        .await;
                }
                self.follow(&upid).await;
            }
        }
        self
    }

    /// One call at random; any answer is fine, as long as the model stays sound.
    async fn call(&mut self) -> Answer {
        let vmid = FIRST + self.dice(IDS);
        let other = (FIRST + self.dice(IDS)).to_string();
        let id = vmid.to_string();
        let what = self.dice(20);
        let client = &self.client;
        let path = |rest: &str| format!("/nodes/pve/lxc/{vmid}{rest}");
        let archive = "local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst";
        let create = [
            ("vmid", id.as_str()),
            ("ostemplate", archive),
            ("rootfs", "lxc-disks:8"),
        ];
        match what {
            0..=2 => client.post("/nodes/pve/lxc", &create).await,
            3 | 4 => client.post(&path("/clone"), &[("newid", &other)]).await,
            5 => {
                client
                    .post(&path("/clone"), &[("newid", &other), ("full", "1")])
                    .await
            }
            6 => client.post(&path("/template"), &[]).await,
            7 => client.post(&path("/status/start"), &[]).await,
            8 => client.post(&path("/status/stop"), &[]).await,
            9 => {
                client
                    .post(
                        &path("/status/shutdown"),
                        &[("timeout", "1"), ("forceStop", "1")],
                    )
                    .await
            }
            10 => client.post(&path("/snapshot"), &[("snapname", "s1")]).await,
            11 => client.post(&path("/snapshot/s1/rollback"), &[]).await,
            12 => client.delete(&path("/snapshot/s1")).await,
            13 => {
                client
                    .put(&path("/resize"), &[("disk", "rootfs"), ("size", "+1G")])
                    .await
            }
            14 => {
                client
                    .put(&path("/config"), &[("mp0", "lxc-disks:1,mp=/data")])
                    .await
            }
            15 => {
                client
                    .put(&path("/config"), &[("delete", "mp0,unused0")])
                    .await
            }
            16 => client.delete(&path("?purge=1&force=1")).await,
            17 => client.delete(&path("?destroy-unreferenced-disks=1")).await,
            18 => client.get(&path("/config")).await,
            _ => client.get("/cluster/resources").await,
        }
    }

    /// Waits for the end of a task, and looks at the model as it is then.
    async fn follow(&mut self, upid: &str) {
        let until = Instant::now() + PATIENCE;
        let exit = loop {
            let status = self
                .client
                .get(&format!("/nodes/pve/tasks/{upid}/status"))
                .await;
            if let Value::String(exit) = &status.body["data"]["exitstatus"] {
                break exit.clone();
            }
            assert!(
                status.status == 200 && Instant::now() < until,
                "{upid}: {}",
                status.text
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let wrong = lasting(&self.simulator).await;
        assert_eq!(wrong, BTreeSet::new(), "after {upid}: {exit}");
        *self.ends.entry(exit).or_default() += 1;
    }
}

/// What is wrong at this moment and stays wrong. Between a call's lock and its task, and between a volume's end and its container's, the model looks
/// wrong for a moment, as a real host does; what is lost doesn't come back by itself.
async fn lasting(simulator: &Simulator) -> BTreeSet<String> {
    let mut wrong: BTreeSet<String> = simulator.problems().into_iter().collect();
    let until = Instant::now() + Duration::from_secs(10);
    while !wrong.is_empty() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let still = simulator.problems();
        wrong.retain(|problem| still.contains(problem));
    }
    wrong
}

fn seconds() -> u64 {
    std::env::var(VARIABLE).map_or(5, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{VARIABLE} is to be a number of seconds, not {text}"))
    })
}

/// Destroys all, clones before what they hang on.
async fn clear(simulator: &Simulator) {
    let operator = Client::operator(simulator);
    for _ in 0..=IDS {
        for vmid in simulator.containers().into_keys() {
            operator
                .delete(&format!("/nodes/pve/lxc/{vmid}?force=1&purge=1"))
                .await;
        }
        assert!(simulator.idle(PATIENCE).await, "all tasks end");
        if simulator.containers().is_empty() {
            return;
        }
    }
    panic!("these can't be destroyed: {:#?}", simulator.containers());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak() {
    let timing = Timing {
        tasks: 0.02,
        ..Timing::instant()
    };
    let config = SimulatorConfig {
        timing,
        ..SimulatorConfig::default()
    };
    let simulator = Arc::new(Simulator::start(config).await.unwrap());
    let until = Instant::now() + Duration::from_secs(seconds());
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|number| {
            let trampler = Trampler {
                client: Client::operator(&simulator),
                simulator: Arc::clone(&simulator),
                dice: number * 7919,
                calls: 0,
                ends: BTreeMap::new(),
            };
            tokio::spawn(trampler.trample(until))
        })
        .collect();
    let mut calls = 0;
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for client in clients {
        let client = client.await.unwrap();
        calls += client.calls;
        for (exit, times) in client.ends {
            // Texts with an id in them are one kind of end.
            let kind: String = exit
                .chars()
                .filter(|letter| !letter.is_ascii_digit())
                .collect();
            *ends.entry(kind).or_default() += times;
        }
    }
    println!(
        "{CLIENTS} clients made {calls} calls in {} s; their tasks ended so: {ends:#?}",
        seconds()
    );
    assert!(simulator.idle(PATIENCE).await, "all tasks end");
    assert_eq!(simulator.problems(), Vec::<String>::new());
    for (vmid, container) in simulator.containers() {
        assert_eq!(
            container.lock, None,
            "{vmid} keeps a lock that nobody holds"
        );
    }
    assert!(
        calls > 200 && ends.get("OK").is_some_and(|good| *good > 50),
        "{calls} {ends:?}"
    );
    clear(&simulator).await;
    let left = simulator.zfs_list();
    assert_eq!(left.lines().count(), 2, "the header and the pool: {left}");
    assert_eq!(simulator.problems(), Vec::<String>::new());
}
