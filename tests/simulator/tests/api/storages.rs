//! Storages other than ZFS.

use proxmox_simulator::{
    AclShape, HostShape, Simulator, SimulatorConfig, StorageKind, StorageShape,
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
