//! Where nobody says on which node a container is made, one is chosen that has what it needs, once, and the reason is told.

use kube::api::{Patch, PatchParams};
use phoenix_crds::{LxcContainer, LxcStatus, LxcTemplate};
use proxmox_simulator::{AclShape, NodeShape, StorageKind, StorageShape};
use serde_json::{Value, json};

use crate::stage::{Settings, Stage, condition};

/// Two nodes, of which only the second has `vmbr1`, and a Hypervisor that prefers none.
async fn two_nodes(name: &str) -> Stage {
    let mut settings = Settings {
        operator: false,
        ..Settings::without_guests()
    };
    let host = &mut settings.simulator.host;
    host.nodes.push(NodeShape {
        name: "pve2".to_owned(),
        address: [10, 0, 0, 11].into(),
        bridges: vec!["vmbr0".to_owned(), "vmbr1".to_owned()],
        ..NodeShape::phoenix()
    });
    host.storages.push(StorageShape {
        id: "nas".to_owned(),
        kind: StorageKind::Nfs {
            server: "nas.lan".to_owned(),
            export: "/export/containers".to_owned(),
        },
        content: vec!["rootdir".to_owned()],
        total: 1 << 42,
        templates: Vec::new(),
    });
    let line = |path: &str, privileges: &[&str]| AclShape {
        path: path.to_owned(),
        who: "phoenix@pve".to_owned(),
        privileges: privileges.iter().map(|p| (*p).to_owned()).collect(),
        propagate: true,
    };
    host.acl.extend([
        line("/sdn/zones/localnetwork/vmbr1", &["SDN.Use"]),
        line(
            "/storage/nas",
            &["Datastore.AllocateSpace", "Datastore.Audit"],
        ),
    ]);
    let mut stage = Stage::raise(name, settings).await;
    let allowed = json!({"bridges": ["vmbr1"], "storages": ["nas"]});
    let nowhere = Patch::Merge(json!({"spec": {"defaults": {"node": null}, "allowed": allowed}}));
    stage
        .hypervisors()
        .patch(name, &PatchParams::default(), &nowhere)
        .await
        .unwrap();
    stage.start_operator();
    stage
}

fn eth0(bridge: &str, address: &str) -> Value {
    json!([{"name": "eth0", "bridge": bridge, "address": address}])
}

/// The node in the status, and why it was chosen, if it was.
fn placement(status: Option<&LxcStatus>) -> (Option<&str>, Option<&str>) {
    let status = status.unwrap();
    let why = status.placement.as_ref().map(|p| p.reason.as_str());
    (status.node.as_deref(), why)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_chosen_once_by_what_it_has() {
    let stage = two_nodes("placement").await;
    let network = eth0("vmbr1", "10.0.0.200/24");
    stage
        .template("base", json!({"vmid": 900, "network": network}))
        .await;
    let base: LxcTemplate = stage.ready("base").await;
    let why = "it is the only one that fits; pve has no bridge vmbr1";
    assert_eq!(placement(base.status.as_ref()), (Some("pve2"), Some(why)));
    let created = condition(&base, "Created").unwrap();
    assert_eq!(
        created.message,
        format!("Container 900 on node pve2, chosen since {why}.")
    );
    assert_eq!(stage.simulator.containers()[&900].node, "pve2");

    // what is cloned by sharing blocks stays with them, and can't be had elsewhere
    let pinned = json!({"vmid": 901, "node": "pve", "network": eth0("vmbr0", "10.0.0.201/24")});
    stage.container("pinned", "base", pinned).await;
    let told = stage
        .reason::<LxcContainer>("pinned", "SourceReady", "Incompatible")
        .await;
    let words = [
        "spec.node is pve",
        "base is on pve2",
        "lxc-disks is not shared",
    ];
    assert!(
        words.iter().all(|w| told.message.contains(w)),
        "{}",
        told.message
    );
    let linked =
        json!({"vmid": 902, "network": eth0("vmbr0", "10.0.0.202/24"), "powerState": "Stopped"});
    stage.container("linked", "base", linked).await;
    let linked: LxcContainer = stage.ready("linked").await;
    assert_eq!(placement(linked.status.as_ref()), (Some("pve2"), None));
    assert!(!stage.simulator.containers().contains_key(&901));

    // at rest nobody looks for a node
    stage.simulator.clear_calls();
    stage.eventually("three polls", || stage.polls() > 2).await;
    let looks = |path: &String| {
        ["/nodes", "/network", "/storage", "/content"]
            .iter()
            .any(|end| path.ends_with(end))
    };
    let calls = stage.simulator.calls().into_iter().map(|c| c.path);
    let others: Vec<String> = calls.filter(looks).collect();
    assert_eq!(others, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_node_fits_it_is_said_of_each_and_waited() {
    let stage = two_nodes("no-place").await;
    stage.simulator.set_online("pve2", false).unwrap();
    let network = eth0("vmbr1", "10.0.0.200/24");
    stage
        .template("waits", json!({"vmid": 900, "network": network}))
        .await;
    stage.template("goes", json!({"vmid": 901})).await;
    let told = stage
        .reason::<LxcTemplate>("waits", "Created", "Pending")
        .await;
    assert!(
        told.message
            .contains("pve has no bridge vmbr1; pve2 is offline"),
        "{}",
        told.message
    );
    let goes: LxcTemplate = stage.ready("goes").await;
    let why = "it is the only one that fits; pve2 is offline";
    assert_eq!(placement(goes.status.as_ref()), (Some("pve"), Some(why)));
    stage.simulator.set_online("pve2", true).unwrap();
    let waited: LxcTemplate = stage.ready("waits").await;
    assert_eq!(placement(waited.status.as_ref()).0, Some("pve2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_clone_from_shared_storage_is_made_where_there_is_room() {
    let stage = two_nodes("shared-storage").await;
    let rootfs = json!({"storage": "nas", "size": "4Gi"});
    stage
        .template(
            "base",
            json!({"vmid": 900, "node": "pve", "rootfs": rootfs}),
        )
        .await;
    stage.ready::<LxcTemplate>("base").await;
    let copy = |vmid: u32, bridge: &str| {
        let address = format!("10.0.1.{}/24", vmid - 800);
        json!({"vmid": vmid, "network": eth0(bridge, &address), "powerState": "Stopped"})
    };
    stage.container("chosen", "base", copy(901, "vmbr1")).await;
    let pinned = crate::stage::merged(copy(902, "vmbr0"), json!({"node": "pve2"}));
    stage.container("pinned", "base", pinned).await;
    let chosen: LxcContainer = stage.ready("chosen").await;
    let why = "it is the only one that fits; pve has no bridge vmbr1";
    assert_eq!(placement(chosen.status.as_ref()), (Some("pve2"), Some(why)));
    let pinned: LxcContainer = stage.ready("pinned").await;
    assert_eq!(placement(pinned.status.as_ref()), (Some("pve2"), None));
    let containers = stage.simulator.containers();
    let nodes: Vec<&str> = [900, 901, 902]
        .iter()
        .map(|v| containers[v].node.as_str())
        .collect();
    assert_eq!(nodes, ["pve", "pve2", "pve2"]);
    assert_eq!(stage.simulator.problems(), Vec::<String>::new());
}
