//! Snapshots and templates.

use super::client::{Client, simulator};

#[tokio::test]
async fn snapshots_live_as_recorded() {
    let simulator = simulator().await;
    let mut operator = Client::login(&simulator, "root@pam").await;
    operator.node = "pve".to_owned();
    operator.create(210, &[]).await;
    let snapshots = "/nodes/pve/lxc/210/snapshot";
    let none = operator.get(snapshots).await.body["data"].clone();
    assert_eq!(
        (none.as_array().unwrap().len(), &none[0]["name"]),
        (1, &"current".into())
    );
    assert_eq!(
        operator
            .task(
                "POST",
                snapshots,
                &[("snapname", "s1"), ("description", "first\nsecond")]
            )
            .await,
        "OK"
    );
    assert_eq!(
        operator
            .task("POST", snapshots, &[("snapname", "s1")])
            .await,
        "snapshot name 's1' already used"
    );
    assert_eq!(
        operator
            .post(snapshots, &[("snapname", "current")])
            .await
            .reason,
        "unable to use snapshot name 'current' (reserved name)"
    );
    assert_eq!(
        operator
            .task("POST", snapshots, &[("snapname", "s2")])
            .await,
        "OK"
    );
    let list = operator.get(snapshots).await.body["data"].clone();
    assert_eq!(
        (
            &list[0]["description"],
            &list[1]["parent"],
            &list[2]["parent"]
        ),
        (&"first\nsecond\n".into(), &"s1".into(), &"s2".into())
    );
    assert_eq!(operator.config(210).await["parent"], "s2");
    assert!(simulator.zfs_list().contains("tank/subvol-210-disk-0@s1"));
    operator
        .task("POST", "/nodes/pve/lxc/210/status/start", &[])
        .await;
    let not_newest = operator
        .task("POST", &format!("{snapshots}/s1/rollback"), &[])
        .await;
    assert_eq!(
        not_newest,
        "can't rollback, 's1' is not most recent snapshot on 'lxc-disks:subvol-210-disk-0'"
    );
    assert!(
        simulator.containers()[&210].running,
        "a refused rollback stops nothing"
    );
    operator
        .put("/nodes/pve/lxc/210/config", &[("memory", "1024")])
        .await;
    assert_eq!(
        operator
            .task("POST", &format!("{snapshots}/s2/rollback"), &[])
            .await,
        "OK"
    );
    assert!(!simulator.containers()[&210].running, "a rollback stops it");
    assert_eq!(operator.config(210).await["memory"], 512);
    assert_eq!(
        operator
            .post("/nodes/pve/lxc/210/template", &[])
            .await
            .reason,
        "unable to create template, because CT contains snapshots"
    );
    assert_eq!(
        operator
            .task("DELETE", &format!("{snapshots}/nosuch"), &[])
            .await,
        "snapshot 'nosuch' does not exist"
    );
    assert_eq!(
        operator
            .task("DELETE", &format!("{snapshots}/s1"), &[])
            .await,
        "OK"
    );
    assert!(
        operator.get(&format!("{snapshots}/s2/config")).await.body["data"]
            .get("parent")
            .is_none()
    );
    assert_eq!(
        operator
            .task("DELETE", &format!("{snapshots}/s2"), &[])
            .await,
        "OK"
    );
    assert!(operator.config(210).await.get("parent").is_none());
    assert_eq!(simulator.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn templates_refuse_what_real_ones_refuse() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(120, &[]).await;
    assert_eq!(
        operator
            .get("/nodes/pve/lxc/120/feature?feature=clone")
            .await
            .body["data"]["hasFeature"],
        0
    );
    operator
        .task("POST", "/nodes/pve/lxc/120/status/start", &[])
        .await;
    assert_eq!(
        operator
            .post("/nodes/pve/lxc/120/template", &[])
            .await
            .reason,
        "you can't convert a CT to template if the CT is running"
    );
    operator
        .task("POST", "/nodes/pve/lxc/120/status/stop", &[])
        .await;
    operator.seal(120).await;
    assert!(
        simulator
            .tasks()
            .iter()
            .any(|task| task.kind == "vztemplate" && task.exit.as_deref() == Some("OK")),
        "the work is a task that nobody is told of"
    );
    assert_eq!(
        operator
            .post("/nodes/pve/lxc/120/template", &[])
            .await
            .reason,
        "you can't convert a template to a template"
    );
    assert_eq!(
        operator
            .task("POST", "/nodes/pve/lxc/120/status/start", &[])
            .await,
        "you can't start a CT if it's a template"
    );
    assert_eq!(
        operator
            .task("POST", "/nodes/pve/lxc/120/snapshot", &[("snapname", "x1")])
            .await,
        "you can't take a snapshot if it's a template"
    );
    let with_storage = operator
        .post(
            "/nodes/pve/lxc/120/clone",
            &[("newid", "121"), ("storage", "lxc-disks")],
        )
        .await;
    assert_eq!(
        with_storage.reason,
        "parameter 'storage' not allowed for linked clones"
    );
    assert!(
        operator.config(120).await.get("lock").is_none(),
        "a refused clone unlocks its source"
    );
    assert_eq!(
        operator
            .task(
                "POST",
                "/nodes/pve/lxc/120/clone",
                &[("newid", "123"), ("full", "1")]
            )
            .await,
        "OK"
    );
    assert_eq!(
        operator.config(123).await["rootfs"],
        "lxc-disks:subvol-123-disk-0,size=8G"
    );
    assert_eq!(
        operator
            .task(
                "PUT",
                "/nodes/pve/lxc/123/resize",
                &[("disk", "rootfs"), ("size", "+1G")]
            )
            .await,
        "OK"
    );
    assert_eq!(
        operator
            .put(
                "/nodes/pve/lxc/123/resize",
                &[("disk", "rootfs"), ("size", "9G")]
            )
            .await
            .reason,
        "disk is already at specified size"
    );
    assert_eq!(
        operator
            .put(
                "/nodes/pve/lxc/123/resize",
                &[("disk", "rootfs"), ("size", "1G")]
            )
            .await
            .reason,
        "unable to shrink disk size"
    );
    assert_eq!(
        operator
            .put(
                "/nodes/pve/lxc/123/resize",
                &[("disk", "mp3"), ("size", "1G")]
            )
            .await
            .reason,
        "format error"
    );
    assert_eq!(
        operator
            .put("/nodes/pve/lxc/123/config", &[("protection", "1")])
            .await
            .status,
        200
    );
    assert_eq!(
        operator
            .delete("/nodes/pve/lxc/123?force=1&purge=1")
            .await
            .reason,
        "can't remove CT 123 - protection mode enabled"
    );
}
