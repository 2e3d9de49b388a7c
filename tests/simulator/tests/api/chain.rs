//! The operator's whole way: a hierarchy of templates, each a linked clone of the one below.

use super::client::{Client, simulator};

#[tokio::test]
async fn the_seeds_chain_of_linked_clones_has_the_origins_of_a_real_one() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    let root = Client::login(&simulator, "root@pam").await;

    let exit = operator
        .create(
            900,
            &[
                ("hostname", "base-template"),
                ("description", "phoenix: v1 vmid=900"),
                ("cmode", "shell"),
                ("features", "nesting=1"),
                ("tags", "phoenix"),
            ],
        )
        .await;
    assert_eq!(exit, "OK");
    let config = operator.config(900).await;
    assert_eq!(config["rootfs"], "lxc-disks:subvol-900-disk-0,size=8G");
    assert_eq!(config["description"], "phoenix: v1 vmid=900\n");
    assert_eq!(
        (&config["memory"], &config["swap"], &config["unprivileged"]),
        (&512.into(), &512.into(), &1.into())
    );
    assert_eq!(config["ostype"], "ubuntu");
    assert_eq!(
        operator
            .task("POST", "/nodes/pve/lxc/900/status/start", &[])
            .await,
        "OK"
    );
    assert_eq!(
        operator
            .task(
                "POST",
                "/nodes/pve/lxc/900/status/shutdown",
                &[("timeout", "20"), ("forceStop", "1")]
            )
            .await,
        "OK"
    );
    operator.seal(900).await;
    assert_eq!(
        operator.config(900).await["rootfs"],
        "lxc-disks:basevol-900-disk-0,size=8G"
    );
    assert_eq!(
        operator
            .get("/nodes/pve/lxc/900/feature?feature=clone")
            .await
            .body["data"]["hasFeature"],
        1
    );

    let clone = |from: u32, to: &'static str, name: &'static str| {
        let operator = operator.clone();
        async move {
            operator
                .task(
                    "POST",
                    &format!("/nodes/pve/lxc/{from}/clone"),
                    &[
                        ("newid", to),
                        ("full", "0"),
                        ("hostname", name),
                        ("description", name),
                    ],
                )
                .await
        }
    };
    assert_eq!(clone(900, "901", "gpu").await, "OK");
    assert_eq!(clone(900, "902", "docker").await, "OK");
    let denied = operator
        .put(
            "/nodes/pve/lxc/901/config",
            &[("dev0", "/dev/nvidia0,mode=0666")],
        )
        .await;
    assert_eq!(
        (denied.status, denied.reason.as_str()),
        (
            403,
            "Permission check failed (configuring device passthrough is only allowed for root@pam)"
        )
    );
    assert_eq!(
        root.put(
            "/nodes/pve/lxc/901/config",
            &[("dev0", "/dev/nvidia0,mode=0666")]
        )
        .await
        .status,
        200
    );
    let missing = root
        .put(
            "/nodes/pve/lxc/901/config",
            &[("dev1", "/dev/null"), ("dev2", "/dev/nvidia7")],
        )
        .await;
    assert_eq!(
        (missing.status, missing.reason.as_str()),
        (500, "Device /dev/nvidia7 does not exist")
    );
    assert!(operator.config(901).await.get("dev1").is_none());
    operator.seal(901).await;
    assert_eq!(clone(901, "920", "vllm").await, "OK");
    operator.seal(920).await;
    assert_eq!(clone(920, "950", "qwen").await, "OK");
    assert_eq!(
        operator
            .task(
                "PUT",
                "/nodes/pve/lxc/950/resize",
                &[("disk", "rootfs"), ("size", "10G")]
            )
            .await,
        "OK"
    );
    let config = operator.config(950).await;
    assert_eq!(
        config["rootfs"],
        "lxc-disks:basevol-920-disk-0/subvol-950-disk-0,size=10G"
    );
    assert_eq!(config["dev0"], "/dev/nvidia0,mode=0666");
    assert_eq!(config["hostname"], "qwen");

    let origins: Vec<(String, String)> = simulator
        .zfs_list()
        .lines()
        .skip(2)
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>())
        .map(|row| (row[0].to_owned(), row[1].to_owned()))
        .collect();
    let expected = [
        ("tank/basevol-900-disk-0", "-"),
        ("tank/basevol-900-disk-0@__base__", "-"),
        (
            "tank/basevol-901-disk-0",
            "tank/basevol-900-disk-0@__base__",
        ),
        ("tank/basevol-901-disk-0@__base__", "-"),
        (
            "tank/basevol-920-disk-0",
            "tank/basevol-901-disk-0@__base__",
        ),
        ("tank/basevol-920-disk-0@__base__", "-"),
        ("tank/subvol-902-disk-0", "tank/basevol-900-disk-0@__base__"),
        ("tank/subvol-950-disk-0", "tank/basevol-920-disk-0@__base__"),
    ];
    assert_eq!(
        origins,
        expected.map(|(name, origin)| (name.to_owned(), origin.to_owned()))
    );

    let in_use = operator
        .task("DELETE", "/nodes/pve/lxc/901?purge=1", &[])
        .await;
    assert_eq!(
        in_use,
        "base volume 'basevol-900-disk-0/basevol-901-disk-0' is still in use by linked clones"
    );
    for vmid in [950, 920, 901, 902, 900] {
        assert_eq!(
            operator
                .task("DELETE", &format!("/nodes/pve/lxc/{vmid}?purge=1"), &[])
                .await,
            "OK"
        );
    }
    assert_eq!(
        operator.get("/cluster/nextid?vmid=900").await.body["data"],
        "900"
    );
    assert_eq!(
        simulator.zfs_list().lines().count(),
        2,
        "{}",
        simulator.zfs_list()
    );
    assert_eq!(simulator.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn full_clones_copy_and_lock_their_source() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(200, &[("features", "nesting=1")]).await;
    let refused = operator
        .post(
            "/nodes/pve/lxc/200/clone",
            &[("newid", "110"), ("full", "0")],
        )
        .await;
    assert_eq!(
        refused.reason,
        "Linked clone feature for 'lxc-disks:subvol-200-disk-0' is not available"
    );
    let before = operator.config(200).await;
    assert_eq!(
        operator
            .task("POST", "/nodes/pve/lxc/200/clone", &[("newid", "110")])
            .await,
        "OK"
    );
    let config = operator.config(110).await;
    assert_eq!(config["rootfs"], "lxc-disks:subvol-110-disk-0,size=8G");
    assert_ne!(
        config["net0"], before["net0"],
        "a clone has a hardware address of its own"
    );
    let again = operator
        .post("/nodes/pve/lxc/200/clone", &[("newid", "110")])
        .await;
    assert_eq!(again.reason, "CT 110 already exists on node 'pve'");
    assert!(operator.config(200).await.get("lock").is_none());
    for (form, reason) in [
        (
            &[("newid", "111"), ("snapname", "nosuch")][..],
            "snapshot 'nosuch' does not exist",
        ),
        (
            &[("newid", "111"), ("storage", "nosuch")],
            "storage 'nosuch' does not exist",
        ),
        (
            &[("newid", "111"), ("target", "pve2")],
            "no such cluster node 'pve2'",
        ),
        (
            &[("newid", "111"), ("pool", "nosuch")],
            "Permission check failed (pool 'nosuch' does not exist)",
        ),
    ] {
        assert_eq!(
            operator.post("/nodes/pve/lxc/200/clone", form).await.reason,
            reason
        );
    }
    let root = Client::login(&simulator, "root@pam").await;
    let onto_files = root
        .task(
            "POST",
            "/nodes/pve/lxc/200/clone",
            &[("newid", "111"), ("storage", "local")],
        )
        .await;
    assert_eq!(
        onto_files,
        "clone failed: content type 'rootdir' is not available or configured on storage 'local'"
    );
    assert!(!simulator.containers().contains_key(&111));
    assert_eq!(simulator.problems(), Vec::<String>::new());
}
