//! What goes with a container that is destroyed, and what stays.

use proxmox_simulator::{AclShape, HostShape, Simulator, SimulatorConfig};

use super::super::client::{Client, simulator};

#[tokio::test]
async fn a_destroyed_container_leaves_its_pool_and_its_rights() {
    let mut host = HostShape::phoenix();
    host.pools.push("k8s".to_owned());
    host.acl.push(AclShape {
        path: "/pool/k8s".to_owned(),
        who: "phoenix@pve".to_owned(),
        privileges: vec!["VM.Allocate".to_owned(), "Pool.Audit".to_owned()],
        propagate: true,
    });
    // A deeper path's rights replace those above it.
    let above = host.acl.iter().find(|line| line.path == "/vms").unwrap();
    let own = [&above.privileges[..], &["VM.Backup".to_owned()]].concat();
    host.acl.push(AclShape {
        path: "/vms/100".to_owned(),
        who: "phoenix@pve".to_owned(),
        privileges: own,
        propagate: true,
    });
    let simulator = Simulator::start(SimulatorConfig {
        host,
        ..SimulatorConfig::default()
    })
    .await
    .unwrap();
    let operator = Client::operator(&simulator);
    operator.create(100, &[("pool", "k8s")]).await;
    let members = |operator: Client| async move {
        operator.get("/pools/k8s").await.body["data"]["members"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|member| member["vmid"] == 100)
            .count()
    };
    let may_back_up = |operator: Client| async move {
        operator.get("/access/permissions?path=/vms/100").await.body["data"]["/vms/100"]
            .get("VM.Backup")
            .is_some()
    };
    assert_eq!(members(operator.clone()).await, 1);
    assert!(may_back_up(operator.clone()).await);
    assert_eq!(
        operator.task("DELETE", "/nodes/pve/lxc/100", &[]).await,
        "OK"
    );
    assert_eq!(members(operator.clone()).await, 0);
    assert!(!may_back_up(operator.clone()).await);
}

#[tokio::test]
async fn a_destroy_frees_what_bears_its_id_and_no_orphan_unless_told() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    operator.create(101, &[]).await;
    let foreign = "lxc-disks:subvol-101-disk-0,mp=/data,size=8G";
    simulator.edit_config(100, "mp0", Some(foreign)).unwrap();
    simulator
        .edit_config(101, "rootfs", Some("lxc-disks:subvol-101-disk-9"))
        .unwrap();
    assert_eq!(
        operator.task("DELETE", "/nodes/pve/lxc/100", &[]).await,
        "OK"
    );
    let zfs = simulator.zfs_list();
    assert!(!zfs.contains("subvol-100-disk-0"));
    assert!(zfs.contains("subvol-101-disk-0"), "it bears another's id");
    assert_eq!(
        operator.task("DELETE", "/nodes/pve/lxc/101", &[]).await,
        "OK"
    );
    assert!(
        simulator.zfs_list().contains("subvol-101-disk-0"),
        "no configuration named it"
    );
    operator.create(101, &[]).await;
    let all = "/nodes/pve/lxc/101?destroy-unreferenced-disks=1";
    assert_eq!(operator.task("DELETE", all, &[]).await, "OK");
    assert!(!simulator.zfs_list().contains("subvol-101"));
    assert_eq!(simulator.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn a_base_in_use_and_a_busy_volume_keep_their_containers() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(900, &[]).await;
    operator.seal(900).await;
    let clone = [("newid", "901")];
    operator
        .task("POST", "/nodes/pve/lxc/900/clone", &clone)
        .await;
    let destroy = |vmid: u32| {
        let operator = operator.clone();
        async move {
            operator
                .task("DELETE", &format!("/nodes/pve/lxc/{vmid}"), &[])
                .await
        }
    };
    assert_eq!(
        destroy(900).await,
        "base volume 'basevol-900-disk-0' is still in use by linked clones"
    );
    simulator
        .set_busy("lxc-disks", "subvol-901-disk-0", true)
        .unwrap();
    assert!(destroy(901).await.ends_with("pool or dataset is busy"));
    for vmid in [900, 901] {
        let config = operator.config(vmid).await;
        assert!(config.get("rootfs").is_some() && config.get("lock").is_none());
    }
    simulator
        .set_busy("lxc-disks", "subvol-901-disk-0", false)
        .unwrap();
    assert_eq!(destroy(901).await, "OK");
    assert_eq!(destroy(900).await, "OK");
}
