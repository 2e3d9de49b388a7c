//! What a client must have seen, and what must be true of the simulator after it.

use std::collections::BTreeMap;

use proxmox_simulator::{Simulator, SimulatorConfig, Timing, guest::GuestSettings};
use serde::Deserialize;
use serde_json::{Value, json};

use super::program::Program;

/// What `make` prints.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Made {
    version: String,
    nodes: Vec<String>,
    archives: Vec<String>,
    free: u32,
    created: Value,
    started: String,
    console: String,
    stopped: String,
    changed: String,
    snapshots: Vec<String>,
    rolled_back: String,
    resized: String,
    cloned: BTreeMap<String, String>,
    listed: BTreeMap<String, Value>,
    refused: BTreeMap<String, String>,
    tasks: Vec<String>,
}

/// What `destroy` prints.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Destroyed {
    base: String,
    left: Vec<u32>,
    tasks: Vec<String>,
}

/// Runs both halves of a client's life against a simulator of its own. `refused` is how the library words refusals.
pub(crate) async fn check(program: &Program, refused: BTreeMap<&str, &str>) {
    let simulator = simulator().await;
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&ca, simulator.ca_pem()).unwrap();
    let token = simulator.token();
    let host = format!("127.0.0.1:{}", simulator.port());
    let environment = [
        ("PVE_HOST", host.clone()),
        ("PVE_CA", ca.path().display().to_string()),
        ("PVE_TOKEN", format!("{}={}", token.id, token.secret)),
        ("PVE_USER", "phoenix@pve".to_owned()),
        (
            "PVE_PASSWORD",
            simulator.password_of("phoenix@pve").unwrap(),
        ),
    ];

    let printed = program.run("make", &environment).await;
    let made: Made = serde_json::from_value(printed).unwrap();
    seen(&made);
    let worded = |name: &str| made.refused[name].replace(&host, "HOST");
    let worded: BTreeMap<&str, String> = made
        .refused
        .keys()
        .map(|name| (name.as_str(), worded(name)))
        .collect();
    let refused: BTreeMap<&str, String> = refused
        .into_iter()
        .map(|(name, text)| (name, text.to_owned()))
        .collect();
    assert_eq!(worded, refused);
    stands(&simulator);

    let printed = program.run("destroy", &environment).await;
    let destroyed: Destroyed = serde_json::from_value(printed).unwrap();
    assert_eq!(
        destroyed.base,
        "base volume 'basevol-200-disk-0' is still in use by linked clones"
    );
    assert_eq!(destroyed.left, Vec::<u32>::new());
    assert_eq!(destroyed.tasks, ["vzdestroy OK"; 3]);
    assert!(simulator.containers().is_empty());
    assert_eq!(datasets(&simulator), [["tank", "-", "none"]]);
    assert_eq!(simulator.problems(), Vec::<String>::new());
    nothing_was_unknown(&simulator);
    simulator.stop().await;
}

/// Tasks take a while, so that following them means something.
async fn simulator() -> Simulator {
    let timing = Timing {
        tasks: 0.05,
        ..Timing::instant()
    };
    Simulator::start(SimulatorConfig {
        guests: Some(GuestSettings::default()),
        timing,
        ..SimulatorConfig::default()
    })
    .await
    .unwrap()
}

/// The client's view of what it made.
fn seen(made: &Made) {
    assert_eq!(made.version, "9.2.11");
    assert_eq!(made.nodes, ["pve"]);
    assert_eq!(
        made.archives,
        [
            "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst",
            "local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst"
        ]
    );
    assert_eq!(made.free, 200);
    let created = |key: &str| &made.created[key];
    assert_eq!(created("hostname"), "independent");
    assert_eq!(
        created("description"),
        "made by somebody else's client\nin two lines: ü\n"
    );
    assert_eq!(created("rootfs"), "lxc-disks:subvol-200-disk-0,size=8G");
    assert_eq!(created("tags"), "one;two");
    assert_eq!(created("ostype"), "ubuntu");
    assert_eq!(created("cmode"), "shell");
    assert_eq!(
        [created("cores"), created("memory"), created("unprivileged")],
        [2, 1024, 1]
    );
    let net0 = created("net0").as_str().unwrap();
    assert!(
        net0.starts_with("name=eth0,bridge=vmbr0,gw=10.0.0.1,hwaddr=BC:24:11:")
            && net0.ends_with(",ip=10.0.0.200/24,type=veth"),
        "{net0}"
    );
    assert_eq!(
        [made.started.as_str(), made.stopped.as_str()],
        ["running", "stopped"]
    );
    assert_eq!(made.console, "answer=42 in independent");
    assert_eq!(made.snapshots, ["before", "current"]);
    assert_eq!(
        [made.changed.as_str(), made.rolled_back.as_str()],
        ["mistaken", "independent"]
    );
    assert_eq!(made.resized, "lxc-disks:subvol-200-disk-0,size=10G");
    let disks = [
        ("200", "lxc-disks:basevol-200-disk-0,size=10G"),
        (
            "201",
            "lxc-disks:basevol-200-disk-0/subvol-201-disk-0,size=10G",
        ),
        ("202", "lxc-disks:subvol-202-disk-0,size=10G"),
    ];
    assert_eq!(
        made.cloned,
        BTreeMap::from(disks.map(|(vmid, disk)| (vmid.to_owned(), disk.to_owned())))
    );
    let listed = [
        ("200", json!(["independent", "stopped", 1])),
        ("201", json!(["linked", "stopped", 0])),
        ("202", json!(["full", "stopped", 0])),
    ];
    assert_eq!(
        made.listed,
        BTreeMap::from(listed.map(|(vmid, row)| (vmid.to_owned(), row)))
    );
    assert_eq!(
        made.tasks,
        [
            "vzcreate OK",
            "vzstart OK",
            "vncproxy OK",
            "vzstop OK",
            "vzsnapshot OK",
            "vzrollback OK",
            "vzdelsnapshot OK",
            "resize OK",
            "vzclone OK",
            "vzclone OK"
        ]
    );
}

/// The simulator's own view of the same.
fn stands(simulator: &Simulator) {
    let containers = simulator.containers();
    assert_eq!(
        containers.keys().copied().collect::<Vec<_>>(),
        [200, 201, 202]
    );
    for (vmid, container) in &containers {
        assert_eq!(
            (
                container.lock.as_deref(),
                container.running,
                container.template,
                container.snapshots.len()
            ),
            (None, false, *vmid == 200, 0),
            "{vmid}"
        );
        assert_eq!(
            container.config["memory"], "1024",
            "{vmid}: rolled back, and cloned so"
        );
    }
    assert_eq!(
        containers[&200].description.as_deref(),
        Some("made by somebody else's client\nin two lines: ü")
    );
    assert_ne!(
        containers[&201].config["net0"], containers[&200].config["net0"],
        "a clone has an address of its own"
    );
    assert_eq!(
        datasets(simulator),
        [
            ["tank", "-", "none"],
            ["tank/basevol-200-disk-0", "-", "10G"],
            ["tank/basevol-200-disk-0@__base__", "-", "-"],
            [
                "tank/subvol-201-disk-0",
                "tank/basevol-200-disk-0@__base__",
                "10G"
            ],
            ["tank/subvol-202-disk-0", "-", "10G"],
        ]
    );
    assert_eq!(simulator.problems(), Vec::<String>::new());
}

/// Name, origin and quota of every line of `zfs list`.
fn datasets(simulator: &Simulator) -> Vec<[String; 3]> {
    let list = simulator.zfs_list();
    let rows = list.lines().skip(1).map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        [columns[0], columns[1], columns[4]].map(str::to_owned)
    });
    rows.collect()
}

/// No call went to something that isn't simulated, none was cut, and none failed but those that were meant to.
fn nothing_was_unknown(simulator: &Simulator) {
    // go-proxmox asks for the cluster's status before all else, and goes on without it. Of a container that isn't there one client reads the status
    // first, the other one the configuration.
    let meant = [
        (400, "PUT", "/nodes/{node}/lxc/{vmid}/config"),
        (400, "GET", "/cluster/nextid"),
        (401, "GET", "/version"),
        (401, "GET", "/nodes/{node}/status"),
        (401, "POST", "/access/ticket"),
        (403, "GET", "/cluster/status"),
        (500, "GET", "/nodes/{node}/lxc/{vmid}/config"),
        (500, "GET", "/nodes/{node}/lxc/{vmid}/status/current"),
    ];
    for call in simulator.calls() {
        let failed = (call.code, call.method.as_str(), call.endpoint.as_str());
        assert!(
            (100..400).contains(&call.code) || meant.contains(&failed),
            "{call:?}"
        );
    }
}
