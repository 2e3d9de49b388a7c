//! Configuration: how values are kept, what a PUT refuses, and what waits for a stop.

use super::client::{Client, simulator};

const PATH: &str = "/nodes/pve/lxc/103/config";

#[tokio::test]
async fn puts_answer_as_recorded() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(103, &[]).await;
    for (form, status, reason) in [
        (&[("cores", "2"), ("memory", "512")][..], 200, "OK"),
        (
            &[
                ("cores", "1"),
                ("digest", "0000000000000000000000000000000000000000"),
            ],
            500,
            "detected modified configuration - file changed by other user? Try again.",
        ),
        (&[("delete", "cores")], 200, "OK"),
        (&[("delete", "cpulimit")], 200, "OK"),
        (
            &[("delete", "rootfs")],
            500,
            "unable to delete required option 'rootfs'",
        ),
        (
            &[("delete", "memory")],
            500,
            "unable to delete required option 'memory'",
        ),
        (
            &[("delete", "unprivileged")],
            500,
            "unable to delete read-only option: 'unprivileged'",
        ),
        (
            &[("unprivileged", "1")],
            500,
            "unable to modify read-only option: 'unprivileged'",
        ),
        (&[("delete", "tags,description")], 200, "OK"),
        (&[], 500, "no options specified"),
    ] {
        let answer = operator.put(PATH, form).await;
        assert_eq!(
            (answer.status, answer.reason.as_str()),
            (status, reason),
            "{form:?}"
        );
    }
    for (form, key, error) in [
        (
            &[("delete", "nosuch")][..],
            "delete",
            "unknown option 'nosuch'",
        ),
        (
            &[("delete", "cores"), ("cores", "2")],
            "delete",
            "you can't use '-cores' and -delete cores' at the same time",
        ),
        (
            &[("vmid", "101")],
            "vmid",
            "duplicate parameter (already defined in URI) with conflicting values!",
        ),
        (
            &[("hostname", "a_b")],
            "hostname",
            "invalid format - value does not look like a valid DNS name\n",
        ),
    ] {
        let answer = operator.put(PATH, form).await;
        assert_eq!(
            (answer.status, answer.reason.as_str()),
            (400, "Parameter verification failed.")
        );
        assert_eq!(answer.body["errors"][key], error, "{form:?}");
    }
    let absent = operator
        .put("/nodes/pve/lxc/999/config", &[("cores", "2")])
        .await;
    assert_eq!(
        absent.text,
        r#"{"data":null,"message":"Configuration file 'nodes/pve/lxc/999.conf' does not exist\n"}"#
    );
}

#[tokio::test]
async fn values_come_back_in_proxmoxs_form() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(103, &[]).await;
    let form = [
        ("tags", "zeta;Alpha;k8s,beta gamma;alpha"),
        ("description", "# Title\n\n- b: ä ✓ % \\ end"),
        ("cpulimit", "0.5"),
        ("onboot", "1"),
        ("startup", "order=2,up=5"),
    ];
    assert_eq!(operator.put(PATH, &form).await.status, 200);
    let config = operator.config(103).await;
    assert_eq!(config["tags"], "alpha;beta;gamma;k8s;zeta");
    assert_eq!(config["description"], "# Title\n\n- b: ä ✓ % \\ end\n");
    assert_eq!(
        config["cpulimit"], "0.5",
        "numbers that aren't integers are texts"
    );
    assert_eq!(config["onboot"], 1);
    operator.put(PATH, &[("tags", "")]).await;
    assert_eq!(operator.config(103).await["tags"], " ");
    let before = operator.config(103).await["net0"].clone();
    operator
        .put(
            PATH,
            &[(
                "net0",
                "name=eth0,bridge=vmbr0,ip=10.0.0.201/24,gw=10.0.0.1",
            )],
        )
        .await;
    let after = operator.config(103).await["net0"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        after.starts_with("name=eth0,bridge=vmbr0,gw=10.0.0.1,hwaddr=BC:24:11:")
            && after.ends_with(",ip=10.0.0.201/24,type=veth"),
        "{after}"
    );
    assert_ne!(
        before,
        after.as_str(),
        "without a hardware address there's a new one each time"
    );
    operator.put(PATH, &[("net0", &after)]).await;
    assert_eq!(operator.config(103).await["net0"], after.as_str());
    assert!(
        simulator
            .config_text(103)
            .unwrap()
            .starts_with("## Title\n#\n#- b%3A ")
    );
}

#[tokio::test]
async fn an_unknown_bridge_is_stored_and_then_every_put_fails() {
    let simulator = simulator().await;
    let root = Client::login(&simulator, "root@pam").await;
    root.create(103, &[]).await;
    let answer = root.put(PATH, &[("net0", "name=eth0,bridge=vmbr7")]).await;
    assert_eq!(
        (answer.status, answer.reason.as_str()),
        (500, "bridge 'vmbr7' does not exist")
    );
    assert!(
        root.config(103).await["net0"]
            .as_str()
            .unwrap()
            .contains("vmbr7")
    );
    assert_eq!(
        root.put(PATH, &[("memory", "300")]).await.reason,
        "bridge 'vmbr7' does not exist"
    );
    assert_eq!(root.config(103).await["memory"], 300, "stored all the same");
    assert_eq!(
        root.task("POST", "/nodes/pve/lxc/103/status/start", &[])
            .await,
        "bridge 'vmbr7' does not exist"
    );
    assert_eq!(
        root.put(PATH, &[("net0", "name=eth0,bridge=vmbr0")])
            .await
            .status,
        200
    );
    let operator = Client::operator(&simulator);
    let foreign = operator
        .put(PATH, &[("net0", "name=eth0,bridge=vmbr9")])
        .await;
    assert_eq!(
        foreign.reason,
        "Permission check failed (/sdn/zones/localnetwork/vmbr9, SDN.Use)"
    );
}

#[tokio::test]
async fn on_a_running_container_some_changes_wait() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(103, &[]).await;
    operator
        .task("POST", "/nodes/pve/lxc/103/status/start", &[])
        .await;
    assert_eq!(
        operator
            .put(
                PATH,
                &[
                    ("memory", "300"),
                    ("hostname", "live"),
                    ("nameserver", "1.1.1.1"),
                    ("features", "nesting=1")
                ]
            )
            .await
            .status,
        200
    );
    let merged = operator.config(103).await;
    let live = operator.get(&format!("{PATH}?current=1")).await.body["data"].clone();
    assert_eq!(
        (&merged["memory"], &live["memory"]),
        (&300.into(), &300.into())
    );
    assert_eq!(
        (&merged["nameserver"], live.get("nameserver")),
        (&"1.1.1.1".into(), None)
    );
    let pending = operator.get("/nodes/pve/lxc/103/pending").await.body["data"].clone();
    let row = pending
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["key"] == "features")
        .unwrap();
    assert_eq!(
        row,
        &serde_json::json!({"key": "features", "pending": "nesting=1"})
    );
    assert_eq!(
        operator.put(PATH, &[("revert", "features")]).await.status,
        200
    );
    assert!(operator.config(103).await.get("features").is_none());
    operator.put(PATH, &[("delete", "hostname")]).await;
    operator
        .task("POST", "/nodes/pve/lxc/103/status/stop", &[])
        .await;
    let stopped = operator.get(&format!("{PATH}?current=1")).await.body["data"].clone();
    assert_eq!(
        stopped["nameserver"], "1.1.1.1",
        "what waited takes effect at the stop"
    );
    assert!(
        !simulator
            .config_text(103)
            .unwrap()
            .contains("[pve:pending]")
    );
}

#[tokio::test]
async fn mounts_allocate_become_unused_and_go() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(103, &[]).await;
    operator.put(PATH, &[("mp0", "lxc-disks:1,mp=/data")]).await;
    operator.put(PATH, &[("mp0", "lxc-disks:1,mp=/data")]).await;
    let config = operator.config(103).await;
    assert_eq!(
        config["mp0"], "lxc-disks:subvol-103-disk-2,mp=/data,size=1G",
        "the allocating form makes a new volume each time"
    );
    assert_eq!(config["unused0"], "lxc-disks:subvol-103-disk-1");
    operator.put(PATH, &[("delete", "mp0")]).await;
    operator.put(PATH, &[("delete", "unused0")]).await;
    let config = operator.config(103).await;
    assert_eq!(
        (config.get("unused0"), config["unused1"].as_str()),
        (None, Some("lxc-disks:subvol-103-disk-2"))
    );
    assert!(!simulator.zfs_list().contains("disk-1"));
    assert_eq!(simulator.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn creates_are_refused_as_recorded() {
    let simulator = simulator().await;
    let root = Client::login(&simulator, "root@pam").await;
    root.create(100, &[]).await;
    let ubuntu = (
        "ostemplate",
        "local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst",
    );
    for (form, status, reason) in [
        (
            &[("vmid", "100"), ubuntu, ("rootfs", "lxc-disks:2")][..],
            500,
            "CT 100 already exists on node 'pve'",
        ),
        (
            &[("vmid", "101"), ubuntu, ("rootfs", "nosuch:2")],
            500,
            "storage 'nosuch' does not exist",
        ),
        (
            &[
                ("vmid", "101"),
                ("ostemplate", "nosuch:vztmpl/x"),
                ("rootfs", "lxc-disks:2"),
            ],
            500,
            "storage 'nosuch' does not exist",
        ),
        (
            &[("vmid", "101"), ubuntu, ("rootfs", "lxc-disks:2G")],
            500,
            "unable to parse zfs volume name '2G'",
        ),
        (
            &[
                ("vmid", "101"),
                ubuntu,
                ("rootfs", "lxc-disks:2"),
                ("pool", "nosuch"),
            ],
            403,
            "Permission check failed (pool 'nosuch' does not exist)",
        ),
        (
            &[
                ("vmid", "101"),
                ("ostemplate", "/tmp/x"),
                ("rootfs", "lxc-disks:2"),
            ],
            500,
            "Only root can pass arbitrary filesystem paths. at /usr/share/perl5/PVE/Storage.pm line 651.",
        ),
    ] {
        let answer = root.post("/nodes/pve/lxc", form).await;
        assert_eq!(
            (answer.status, answer.reason.as_str()),
            (status, reason),
            "{form:?}"
        );
    }
    let no_storage = root
        .post("/nodes/pve/lxc", &[("vmid", "101"), ubuntu])
        .await;
    assert_eq!(
        no_storage.body["errors"]["storage"],
        "storage 'local' does not support container directories"
    );
    let absent = root
        .create(101, &[("ostemplate", "local:vztmpl/nosuch.tar.zst")])
        .await;
    assert_eq!(
        absent,
        "unable to create CT 101 - volume 'local:vztmpl/nosuch.tar.zst' does not exist"
    );
    assert!(
        !simulator.containers().contains_key(&101),
        "a failed create leaves nothing"
    );
    let warned = root
        .create(
            102,
            &[(
                "ostemplate",
                "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst",
            )],
        )
        .await;
    assert_eq!(
        warned, "WARNINGS: 1",
        "an ordinary template without nesting warns"
    );
    assert_eq!(root.config(102).await["hostname"], "CT102");
    assert_eq!(simulator.problems(), Vec::<String>::new());
}
