//! A container's whole way: created, configured, cloned, converted, snapshotted, grown, started, removed.

use crate::host::{ARCHIVE, NODE, audited, client, create, done, ended, simulator};
use proxmox_client::{Client, ErrorKind, Params, ResourceKind, TaskState, Upid};
use proxmox_simulator::{Simulator, SimulatorConfig, guest::GuestSettings};
use std::time::Duration;

async fn template(client: &Client, vmid: u32) {
    client.ct_template(NODE, vmid).await.unwrap();
    let waiting = async {
        while !client.ct_config(NODE, vmid).await.unwrap().is_template() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_host_is_seen_as_it_is() {
    let host = audited().await;
    let client = client(&host);
    create(&client, 900).await;
    let nodes = client.nodes().await.unwrap();
    assert!(nodes.len() == 1 && nodes[0].name == NODE && nodes[0].is_online());
    let status = client.node_status(NODE).await.unwrap();
    assert_eq!(
        (status.cores, status.memory_total),
        (Some(32), Some(131_072 << 20))
    );
    let members = client.cluster_status().await.unwrap();
    assert!(
        members
            .iter()
            .any(|m| m.name == NODE && m.online && m.local),
        "{members:?}"
    );
    let storages = client.storages(NODE).await.unwrap();
    let disks = storages.iter().find(|s| s.name == "lxc-disks").unwrap();
    assert!(disks.holds_containers() && disks.active && disks.enabled && disks.kind == "zfspool");
    assert!(
        storages
            .iter()
            .any(|s| s.name == "local" && s.holds_archives())
    );
    let archives = client.storage_content(NODE, "local", None).await.unwrap();
    assert!(
        archives
            .iter()
            .any(|v| v.volid == ARCHIVE && v.content == "vztmpl"),
        "{archives:?}"
    );
    assert_eq!(client.bridges(NODE).await.unwrap(), ["vmbr0"]);
    let certificates = client.certificates(NODE).await.unwrap();
    let shown = certificates.iter().find(|c| !c.is_root_ca()).unwrap();
    assert_eq!(shown.sha256().unwrap().to_string(), host.fingerprint());
    let row = client
        .cluster_resources()
        .await
        .unwrap()
        .into_iter()
        .find(|r| r.vmid == Some(900))
        .unwrap();
    assert_eq!(
        (row.kind, row.node.as_deref()),
        (ResourceKind::Lxc, Some(NODE))
    );
}

#[tokio::test]
async fn a_container_goes_its_whole_way() {
    let host = simulator().await;
    let client = client(&host);
    create(&client, 900).await;
    let config = client.ct_config(NODE, 900).await.unwrap();
    assert_eq!(
        (
            config.hostname(),
            config.memory_mib(),
            config.cores(),
            config.description()
        ),
        (Some("ct900"), 256, Some(1), "phoenix: v1")
    );
    assert_eq!(config.rootfs().unwrap().size_gib, Some(4));
    assert!(config.nets()[&0].get("hwaddr").is_some());

    // Configuration: what is edited changes, what is not stays, and an old digest is refused.
    let mut net = config.nets()[&0].clone();
    net.set("ip", "10.0.0.5/24").set("gw", "10.0.0.1");
    let change = Params::new()
        .set("net0", &net)
        .set("tags", "Zeta;alpha")
        .set("memory", 512)
        .digest(&config.digest);
    client
        .ct_set_config(NODE, 900, &change, false)
        .await
        .unwrap();
    let changed = client.ct_config(NODE, 900).await.unwrap();
    assert!(
        changed.nets()[&0].means_same(&net),
        "{} / {net}",
        changed.nets()[&0]
    );
    assert_eq!(
        (changed.tags(), changed.memory_mib()),
        (vec!["alpha".to_owned(), "zeta".to_owned()], 512)
    );
    let stale = client
        .ct_set_config(
            NODE,
            900,
            &Params::new().set("memory", 300).digest(&config.digest),
            false,
        )
        .await
        .unwrap_err();
    assert_eq!(stale.kind, ErrorKind::Modified);
    client
        .ct_set_config(
            NODE,
            900,
            &Params::new().delete("tags").digest(&changed.digest),
            false,
        )
        .await
        .unwrap();
    assert!(client.ct_config(NODE, 900).await.unwrap().tags().is_empty());

    // Disk.
    done(&client, client.ct_resize(NODE, 900, "rootfs", 6).await).await;
    assert_eq!(
        client
            .ct_config(NODE, 900)
            .await
            .unwrap()
            .rootfs()
            .unwrap()
            .size_gib,
        Some(6)
    );
    assert_eq!(
        client
            .ct_resize(NODE, 900, "rootfs", 6)
            .await
            .unwrap_err()
            .kind,
        ErrorKind::AlreadyDone
    );
    assert_eq!(
        client
            .ct_resize(NODE, 900, "rootfs", 5)
            .await
            .unwrap_err()
            .kind,
        ErrorKind::Invalid
    );

    // Snapshots: a name that is taken shows only in the task.
    done(
        &client,
        client
            .ct_snapshot(NODE, 900, "before", Some("first\nsecond"))
            .await,
    )
    .await;
    let snapshots = client.ct_snapshots(NODE, 900).await.unwrap();
    assert_eq!(
        (
            snapshots.len(),
            snapshots[0].name.as_str(),
            snapshots[0].description.as_str()
        ),
        (1, "before", "first\nsecond")
    );
    let again = client.ct_snapshot(NODE, 900, "before", None).await.unwrap();
    assert_eq!(
        ended(&client, &again).await.failure(),
        Some(ErrorKind::Exists)
    );
    assert_eq!(
        client.ct_template(NODE, 900).await.unwrap_err().kind,
        ErrorKind::Invalid
    );
    done(
        &client,
        client.ct_delete_snapshot(NODE, 900, "before").await,
    )
    .await;
    assert!(client.ct_snapshots(NODE, 900).await.unwrap().is_empty());

    // Template and linked clone.
    assert!(!client.ct_has_feature(NODE, 900, "clone").await.unwrap());
    template(&client, 900).await;
    assert!(client.ct_has_feature(NODE, 900, "clone").await.unwrap());
    assert_eq!(
        client.ct_template(NODE, 900).await.unwrap_err().kind,
        ErrorKind::AlreadyDone
    );
    let params = Params::new()
        .set("newid", 901)
        .set("hostname", "clone")
        .set("description", "phoenix: v1 vmid=901");
    done(&client, client.ct_clone(NODE, 900, &params).await).await;
    let clone = client.ct_config(NODE, 901).await.unwrap();
    let rootfs = clone.rootfs().unwrap();
    assert_eq!(
        (rootfs.base_vmid(), rootfs.own_name(), clone.description()),
        (Some(900), "subvol-901-disk-0", "phoenix: v1 vmid=901")
    );
    let volumes = client
        .storage_content(NODE, "lxc-disks", Some(901))
        .await
        .unwrap();
    assert!(
        volumes.iter().any(|v| v.volid == rootfs.volid
            && v.parent
                .as_deref()
                .is_some_and(|p| p.contains("basevol-900"))),
        "{volumes:?}"
    );
    let taken = client.ct_clone(NODE, 900, &params).await.unwrap_err();
    assert_eq!(taken.kind, ErrorKind::Exists);

    // The base stays as long as its clone does.
    let refused = client.ct_delete(NODE, 900, true).await.unwrap();
    assert_eq!(
        ended(&client, &refused).await.failure(),
        Some(ErrorKind::InUse)
    );
    done(&client, client.ct_delete(NODE, 901, true).await).await;
    done(&client, client.ct_delete(NODE, 900, true).await).await;
    for vmid in [900, 901] {
        assert_eq!(
            client.ct_config(NODE, vmid).await.unwrap_err().kind,
            ErrorKind::NotFound
        );
        assert!(client.vmid_is_free(vmid).await.unwrap());
    }
    assert_eq!(host.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn power_and_what_waits_for_a_restart() {
    let host = simulator().await;
    let client = client(&host);
    create(&client, 910).await;
    assert_eq!(
        client.ct_stop(NODE, 910).await.unwrap_err().kind,
        ErrorKind::NotRunning
    );
    assert_eq!(client.ct_interfaces(NODE, 910).await.unwrap(), None);
    done(&client, client.ct_start(NODE, 910).await).await;
    assert!(client.ct_status(NODE, 910).await.unwrap().is_running());
    assert_eq!(
        client.ct_start(NODE, 910).await.unwrap_err().kind,
        ErrorKind::AlreadyRunning
    );

    client
        .ct_set_config(
            NODE,
            910,
            &Params::new().set("timezone", "host").set("memory", 300),
            false,
        )
        .await
        .unwrap();
    let pending = client.ct_pending(NODE, 910).await.unwrap();
    assert!(
        pending.iter().any(|p| p.key == "timezone" && p.waits()),
        "{pending:?}"
    );
    assert!(
        pending.iter().any(|p| p.key == "memory" && !p.waits()),
        "{pending:?}"
    );
    assert_eq!(
        client.ct_config(NODE, 910).await.unwrap().get("timezone"),
        Some("host")
    );
    assert_eq!(
        client
            .ct_config_current(NODE, 910)
            .await
            .unwrap()
            .get("timezone"),
        None
    );

    done(&client, client.ct_shutdown(NODE, 910, 5, true).await).await;
    assert!(!client.ct_status(NODE, 910).await.unwrap().is_running());
    assert_eq!(
        client
            .ct_config_current(NODE, 910)
            .await
            .unwrap()
            .get("timezone"),
        Some("host")
    );
    assert!(
        client
            .ct_pending(NODE, 910)
            .await
            .unwrap()
            .iter()
            .all(|p| !p.waits())
    );
}

#[tokio::test]
async fn a_container_that_is_not_there_is_not_found_whenever_it_shows() {
    let host = simulator().await;
    let client = client(&host);
    assert_eq!(
        client.ct_config(NODE, 999).await.unwrap_err().kind,
        ErrorKind::NotFound
    );
    assert_eq!(
        client.ct_stop(NODE, 999).await.unwrap_err().kind,
        ErrorKind::NotRunning
    );
    let upid = client.ct_start(NODE, 999).await.unwrap();
    assert_eq!(
        ended(&client, &upid).await.failure(),
        Some(ErrorKind::NotFound)
    );
    assert!(client.task_log(&upid, 1).await.unwrap()[0].contains("does not exist"));
    let unknown: Upid = "UPID:pve:0000AAAA:0000BBBB:65000000:vzcreate:999:root@pam:"
        .parse()
        .unwrap();
    assert_eq!(
        client.task_status(&unknown).await.unwrap(),
        TaskState::Unknown
    );
    assert!(client.task_log(&unknown, 5).await.unwrap().is_empty());
    let bad = Params::new()
        .set("vmid", 901)
        .set("ostemplate", ARCHIVE)
        .set("rootfs", "lxc-disks:4")
        .set("memory", 1)
        .set("nosuch", 1);
    let invalid = client.create_ct(NODE, &bad).await.unwrap_err();
    assert_eq!(invalid.kind, ErrorKind::Invalid);
    assert!(
        invalid.errors.contains_key("memory") && invalid.errors.contains_key("nosuch"),
        "{invalid}"
    );
}

#[tokio::test]
async fn what_is_typed_into_a_console_comes_back() {
    let host = Simulator::start(SimulatorConfig {
        guests: Some(GuestSettings::default()),
        ..SimulatorConfig::default()
    })
    .await
    .unwrap();
    let client = client(&host);
    create(&client, 950).await;
    done(&client, client.ct_start(NODE, 950).await).await;
    let mut console = client.ct_console(NODE, 950).await.unwrap();
    console.resize(120, 40).await.unwrap();
    console
        .send(b"echo $((40 + 2))-$(stty size | tr ' ' x)\n")
        .await
        .unwrap();
    let mut shown = String::new();
    let reading = async {
        while let Some(bytes) = console.recv().await.unwrap() {
            shown.push_str(&String::from_utf8_lossy(&bytes));
            if shown.contains("42-40x120") {
                return true;
            }
        }
        false
    };
    let seen = tokio::time::timeout(Duration::from_secs(20), reading).await;
    assert_eq!(seen, Ok(true), "{shown:?}");

    // The session's end is the console's.
    console.send(b"exit\n").await.unwrap();
    let ending = async { while console.recv().await.unwrap().is_some() {} };
    tokio::time::timeout(Duration::from_secs(20), ending)
        .await
        .unwrap();
}
