//! Volumes that more than one thing names: they go with the last of them, and never earlier.

use super::client::{Client, simulator};

const PATH: &str = "/nodes/pve/lxc/103/config";

#[tokio::test]
async fn a_volume_that_a_snapshot_names_outlives_its_keys() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(103, &[]).await;
    operator.put(PATH, &[("mp0", "lxc-disks:1,mp=/data")]).await;
    let snapshot = [("snapname", "s1")];
    let path = "/nodes/pve/lxc/103/snapshot";
    assert_eq!(operator.task("POST", path, &snapshot).await, "OK");

    operator.put(PATH, &[("delete", "mp0")]).await;
    assert_eq!(
        operator.config(103).await["unused0"],
        "lxc-disks:subvol-103-disk-1"
    );
    let deleted = operator.put(PATH, &[("delete", "unused0")]).await;
    assert_eq!(deleted.status, 200, "{}", deleted.text);
    assert_eq!(operator.config(103).await.get("unused0"), None);
    assert!(
        simulator.zfs_list().contains("tank/subvol-103-disk-1@"),
        "the snapshot keeps it"
    );
    assert_eq!(simulator.problems(), Vec::<String>::new());

    let back = format!("{path}/s1/rollback");
    assert_eq!(operator.task("POST", &back, &[]).await, "OK");
    let config = operator.config(103).await;
    assert_eq!(
        (config["mp0"].as_str(), config.get("unused0")),
        (Some("lxc-disks:subvol-103-disk-1,mp=/data,size=1G"), None)
    );

    operator.put(PATH, &[("delete", "mp0,unused0")]).await;
    let gone = format!("{path}/s1");
    assert_eq!(operator.task("DELETE", &gone, &[]).await, "OK");
    let config = operator.config(103).await;
    assert_eq!(
        (config.get("unused0"), config["unused1"].as_str()),
        (None, Some("lxc-disks:subvol-103-disk-1")),
        "all that the snapshot named was unused for a moment; the root is mounted"
    );
    operator.put(PATH, &[("delete", "unused1")]).await;
    assert!(!simulator.zfs_list().contains("subvol-103-disk-1"));
    assert_eq!(simulator.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn a_base_volume_that_clones_hang_on_can_not_be_deleted_by_its_key() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(103, &[]).await;
    operator.put(PATH, &[("mp0", "lxc-disks:1,mp=/data")]).await;
    operator.seal(103).await;
    let clone = operator
        .task("POST", "/nodes/pve/lxc/103/clone", &[("newid", "104")])
        .await;
    assert_eq!(clone, "OK");
    operator.put(PATH, &[("delete", "mp0")]).await;
    let unused = "lxc-disks:basevol-103-disk-1";
    assert_eq!(operator.config(103).await["unused0"], unused);

    let both = [("delete", "unused0"), ("cores", "3")];
    let refused = operator.put(PATH, &both).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert_eq!(
        refused.body["errors"]["unused0"],
        "unable to apply pending change unused0 : base volume 'basevol-103-disk-1' is still in use by linked clones"
    );
    let config = operator.config(103).await;
    assert_eq!(
        (config["unused0"].as_str(), config.get("cores")),
        (Some(unused), None),
        "nothing was written"
    );
    assert_eq!(simulator.problems(), Vec::<String>::new());

    operator.task("DELETE", "/nodes/pve/lxc/104", &[]).await;
    assert_eq!(operator.put(PATH, &both).await.status, 200);
    assert!(!simulator.zfs_list().contains("basevol-103-disk-1"));
}
