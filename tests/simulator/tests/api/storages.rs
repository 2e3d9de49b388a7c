//! Storages other than ZFS, and many clients at once.

use std::{collections::BTreeMap, time::Duration};

use proxmox_simulator::{
    AclShape, HostShape, Simulator, SimulatorConfig, StorageKind, StorageShape, Timing,
};

use super::client::Client;

async fn with_other_storages() -> Simulator {
    let mut host = HostShape::phoenix();
    let storage = |id: &str, kind: StorageKind| StorageShape {
        id: id.to_owned(),
        kind,
        content: vec!["rootdir".to_owned()],
        total: 1 << 40,
        templates: Vec::new(),
    };
    let thin = StorageKind::LvmThin {
        vg: "pve".to_owned(),
        pool: "data".to_owned(),
    };
    host.storages.push(storage("thin", thin));
    host.storages.push(storage(
        "files",
        StorageKind::Dir {
            path: "/mnt/files".to_owned(),
        },
    ));
    let privileges: Vec<String> = ["Datastore.AllocateSpace", "Datastore.Audit"]
        .map(str::to_owned)
        .to_vec();
    for path in ["/storage/thin", "/storage/files"] {
        host.acl.push(AclShape {
            path: path.to_owned(),
            who: "phoenix@pve".to_owned(),
            privileges: privileges.clone(),
            propagate: true,
        });
    }
    Simulator::start(SimulatorConfig {
        host,
        ..SimulatorConfig::default()
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn each_storage_names_and_clones_in_its_own_way() {
    let simulator = with_other_storages().await;
    let operator = Client::operator(&simulator);
    assert_eq!(operator.create(300, &[("rootfs", "thin:8")]).await, "OK");
    assert_eq!(
        operator.config(300).await["rootfs"],
        "thin:vm-300-disk-0,size=8G"
    );
    operator.seal(300).await;
    assert_eq!(
        operator.config(300).await["rootfs"],
        "thin:base-300-disk-0,size=8G"
    );
    assert_eq!(
        operator
            .task("POST", "/nodes/pve/lxc/300/clone", &[("newid", "301")])
            .await,
        "OK"
    );
    assert_eq!(
        operator.config(301).await["rootfs"],
        "thin:vm-301-disk-0,size=8G",
        "LVM thin writes no base into the name"
    );

    assert_eq!(operator.create(400, &[("rootfs", "files:8")]).await, "OK");
    assert_eq!(
        operator.config(400).await["rootfs"],
        "files:400/vm-400-disk-0.raw,size=8G"
    );
    let snapshot = operator
        .task("POST", "/nodes/pve/lxc/400/snapshot", &[("snapname", "s1")])
        .await;
    assert_eq!(snapshot, "snapshot feature is not available");
    operator.seal(400).await;
    let linked = operator
        .post("/nodes/pve/lxc/400/clone", &[("newid", "401")])
        .await;
    assert_eq!(
        linked.reason,
        "Linked clone feature for 'files:400/base-400-disk-0.raw' is not available"
    );
    let full = [("newid", "401"), ("full", "1")];
    assert_eq!(
        operator
            .task("POST", "/nodes/pve/lxc/400/clone", &full)
            .await,
        "OK"
    );
    let moved = [
        ("volume", "rootfs"),
        ("storage", "lxc-disks"),
        ("delete", "1"),
    ];
    assert_eq!(
        operator
            .task("POST", "/nodes/pve/lxc/401/move_volume", &moved)
            .await,
        "OK"
    );
    assert_eq!(
        operator.config(401).await["rootfs"],
        "lxc-disks:subvol-401-disk-0,size=8G"
    );
    let content = operator.get("/nodes/pve/storage/files/content").await.body["data"].clone();
    assert_eq!(content.as_array().unwrap().len(), 1, "{content}");
    assert_eq!(simulator.problems(), Vec::<String>::new());
}

/// What one client does, over and over; any answer is fine, as long as the model stays sound.
async fn trample(client: Client, number: u32, until: tokio::time::Instant) -> usize {
    let mut calls = 0;
    let mut round = number;
    while tokio::time::Instant::now() < until {
        round = round.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let vmid = 900 + (round >> 8) % 12;
        let target = (900 + (round >> 16) % 12).to_string();
        let id = vmid.to_string();
        let path = |rest: &str| format!("/nodes/pve/lxc/{vmid}{rest}");
        let create = [
            ("vmid", id.as_str()),
            (
                "ostemplate",
                "local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst",
            ),
            ("rootfs", "lxc-disks:8"),
        ];
        let answer = match (round >> 4) % 9 {
            0 => client.post("/nodes/pve/lxc", &create).await,
            1 => client.post(&path("/clone"), &[("newid", &target)]).await,
            2 => client.post(&path("/template"), &[]).await,
            3 => client.post(&path("/status/start"), &[]).await,
            4 => client.post(&path("/status/stop"), &[]).await,
            5 => client.post(&path("/snapshot"), &[("snapname", "s1")]).await,
            6 => client.delete(&path("/snapshot/s1")).await,
            7 => client.delete(&path("?purge=1&force=1")).await,
            _ => {
                client
                    .put(&path("/config"), &[("mp0", "lxc-disks:1,mp=/data")])
                    .await
            }
        };
        assert!(
            matches!(answer.status, 200 | 500),
            "{} {}",
            answer.status,
            answer.reason
        );
        assert!(!answer.reason.contains("panicked"), "{}", answer.reason);
        calls += 1;
    }
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_at_once_leave_no_lock_and_no_orphan() {
    let timing = Timing {
        tasks: 0.002,
        ..Timing::instant()
    };
    let config = SimulatorConfig {
        timing,
        ..SimulatorConfig::default()
    };
    let simulator = Simulator::start(config).await.unwrap();
    let until = tokio::time::Instant::now() + Duration::from_secs(3);
    let clients = (1..=24)
        .map(|number| tokio::spawn(trample(Client::operator(&simulator), number * 7919, until)));
    let mut calls = 0;
    for client in clients.collect::<Vec<_>>() {
        calls += client.await.unwrap();
    }
    assert!(
        simulator.idle(Duration::from_secs(20)).await,
        "all tasks end"
    );
    assert_eq!(simulator.problems(), Vec::<String>::new());
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for task in simulator.tasks() {
        *ends.entry(task.exit.unwrap_or_default()).or_default() += 1;
    }
    assert!(
        calls > 200 && ends.get("OK").is_some_and(|good| *good > 20),
        "{calls} {ends:?}"
    );
}
