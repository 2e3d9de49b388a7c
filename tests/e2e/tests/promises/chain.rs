//! A chain of linked clones comes up, and goes away in an order that works.

use phoenix_crds::{LxcContainer, LxcTemplate};
use serde_json::json;

use crate::stage::{Settings, Stage};

const NETWORK: [&str; 3] = ["10.0.0.31/24", "10.0.0.32/24", "10.0.0.33/24"];

fn network(at: usize) -> serde_json::Value {
    json!([{"name": "eth0", "bridge": "vmbr0", "address": NETWORK[at], "gateway": "10.0.0.1"}])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_linked_clones_is_built_sealed_and_removed() {
    let stage = Stage::raise("chain", Settings::default()).await;
    let setup = |text: &str| json!({"script": format!("#!/bin/sh\nset -eu\necho {text} >> /etc/layers\n"), "verify": format!("grep -qx {text} /etc/layers")});
    stage
        .template(
            "base",
            json!({"vmid": 900, "network": network(0), "setup": setup("base")}),
        )
        .await;
    stage
        .template("middle", json!({"vmid": 901, "source": {"templateRef": {"name": "base"}, "snapshot": "base-snapshot"}, "network": network(1), "setup": setup("middle")}))
        .await;
    stage.container("top", "middle", json!({"network": network(2), "setup": setup("top"), "resources": {"cores": 2, "memory": "512Mi"}})).await;

    let base: LxcTemplate = stage.ready("base").await;
    let snapshot = base.status.unwrap().snapshot.unwrap();
    assert_eq!(
        (snapshot.name.as_deref(), snapshot.strategy.as_deref()),
        (Some("base-snapshot"), Some("Linked"))
    );
    let top: LxcContainer = stage.ready("top").await;
    let status = top.status.unwrap();
    assert_eq!(
        status.state.map(|s| s.to_string()).as_deref(),
        Some("Running")
    );
    assert_eq!(status.source.unwrap().template.as_deref(), Some("middle"));

    // the children brought their parents' layers along, each ran its own once
    let vmid = u32::try_from(status.vmid.unwrap()).unwrap();
    let layers = stage
        .simulator
        .guests()
        .unwrap()
        .read_file(vmid, "/etc/layers")
        .unwrap();
    assert_eq!(layers, "base\nmiddle\ntop\n");
    let zfs = stage.simulator.zfs_list();
    for (dataset, origin) in [
        ("basevol-901-disk-0", "basevol-900-disk-0@__base__"),
        (
            &*format!("subvol-{vmid}-disk-0"),
            "basevol-901-disk-0@__base__",
        ),
    ] {
        let line = zfs
            .lines()
            .find(|l| l.contains(&format!("/{dataset} ")))
            .unwrap_or_else(|| panic!("no {dataset} in\n{zfs}"));
        assert!(line.contains(origin), "{line}");
    }

    stage
        .simulator
        .create_foreign(999, "somebody-elses")
        .await
        .unwrap();
    let all = [
        "delete",
        "lxctemplate/base",
        "lxctemplate/middle",
        "lxccontainer/top",
        "--timeout=120s",
    ];
    stage.kubectl(&all).await;
    assert_eq!(
        stage
            .simulator
            .containers()
            .keys()
            .copied()
            .collect::<Vec<_>>(),
        [999],
        "all but the foreign one are gone"
    );
    assert_eq!(stage.simulator.problems(), Vec::<String>::new());
}
