//! What people do to a container in Proxmox is put right; what they do to others' containers, and to what the spec says nothing of, is
//! left alone. What they change in the spec is changed there.

use kube::api::{Patch, PatchParams};
use phoenix_crds::{LxcContainer, LxcTemplate};
use serde_json::json;

use crate::stage::{Settings, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_put_right_after_people() {
    let stage = Stage::raise("drift", Settings::default()).await;
    stage.template("base", json!({"vmid": 900})).await;
    let resources = json!({"cores": 2, "memory": "512Mi"});
    stage
        .container(
            "top",
            "base",
            json!({"vmid": 901, "resources": resources, "tags": ["web"]}),
        )
        .await;
    stage.ready::<LxcContainer>("top").await;
    let config = |key: &str| {
        stage
            .simulator
            .containers()
            .get(&901)
            .and_then(|c| c.config.get(key).cloned())
    };

    // a value that the spec fixes comes back, another stays
    stage
        .simulator
        .edit_config(901, "memory", Some("4096"))
        .unwrap();
    stage
        .simulator
        .edit_config(901, "swap", Some("77"))
        .unwrap();
    stage
        .simulator
        .edit_config(901, "tags", Some("mine;web"))
        .unwrap();
    stage
        .eventually("the memory that the spec asks for", || {
            config("memory").as_deref() == Some("512")
        })
        .await;
    assert_eq!(
        config("swap").as_deref(),
        Some("77"),
        "the spec says nothing of it"
    );
    stage
        .eventually("our tag beside theirs", || {
            config("tags").as_deref() == Some("mine;phoenix;web")
        })
        .await;

    // stopped: started again; gone: made again
    stage.simulator.power_off(901).await.unwrap();
    stage
        .eventually("a running container", || {
            stage.simulator.containers()[&901].running
        })
        .await;
    stage.ready::<LxcContainer>("top").await;
    stage.simulator.power_off(901).await.unwrap();
    stage.simulator.delete_container(901).await.unwrap();
    stage
        .eventually("a new container", || {
            stage
                .simulator
                .containers()
                .get(&901)
                .is_some_and(|c| c.running)
        })
        .await;
    stage.ready::<LxcContainer>("top").await;
    assert_eq!(stage.simulator.problems(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_spec_is_applied_live() {
    let stage = Stage::raise("live", Settings::default()).await;
    stage
        .template("base", json!({"vmid": 900, "rootfs": {"size": "4Gi"}}))
        .await;
    stage
        .container(
            "top",
            "base",
            json!({"vmid": 901, "resources": {"cores": 1}}),
        )
        .await;
    stage.ready::<LxcContainer>("top").await;
    let spec = json!({"spec": {"resources": {"cores": 3, "memory": "1Gi"}, "rootfs": {"size": "7Gi"}, "boot": {"onBoot": true, "order": 3}}});
    stage
        .api::<LxcContainer>()
        .patch("top", &PatchParams::default(), &Patch::Merge(spec))
        .await
        .unwrap();
    let top: LxcContainer = stage.ready("top").await;
    let resolved = top.status.unwrap().resolved.unwrap();
    assert_eq!(resolved.resources.as_ref().and_then(|r| r.cores), Some(3));
    assert_eq!(
        resolved
            .rootfs
            .and_then(|r| r.size)
            .map(|s| s.to_string())
            .as_deref(),
        Some("7Gi")
    );
    let container = stage.simulator.containers()[&901].clone();
    assert_eq!(
        container.config.get("memory").map(String::as_str),
        Some("1024")
    );
    assert_eq!(
        container.config.get("startup").map(String::as_str),
        Some("order=3")
    );
    assert!(container.running, "nothing of this needs a restart");

    let stop = json!({"spec": {"powerState": "Stopped"}});
    stage
        .api::<LxcContainer>()
        .patch("top", &PatchParams::default(), &Patch::Merge(stop))
        .await
        .unwrap();
    let stopped: LxcContainer = stage.ready("top").await;
    assert_eq!(
        stopped
            .status
            .unwrap()
            .state
            .map(|s| s.to_string())
            .as_deref(),
        Some("Stopped")
    );
    assert!(!stage.simulator.containers()[&901].running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_template_is_a_snapshot_that_copies_are_made_from() {
    let stage = Stage::raise("full", Settings::default()).await;
    let setup = json!({"script": "#!/bin/sh\necho base > /etc/layer\n"});
    let snapshot = json!({"name": "golden", "strategy": "Full"});
    stage
        .template(
            "base",
            json!({"vmid": 900, "snapshot": snapshot, "setup": setup}),
        )
        .await;
    stage.container("one", "base", json!({"vmid": 901})).await;
    stage.container("two", "base", json!({"vmid": 902})).await;
    let base: LxcTemplate = stage.ready("base").await;
    let sealed = base.status.unwrap().snapshot.unwrap();
    assert_eq!(
        (sealed.name.as_deref(), sealed.strategy.as_deref()),
        (Some("golden"), Some("Full"))
    );
    assert_eq!(
        sealed.zfs_snapshot.as_deref(),
        Some("subvol-900-disk-0@golden")
    );
    stage.ready::<LxcContainer>("one").await;
    stage.ready::<LxcContainer>("two").await;
    for vmid in [901, 902] {
        assert_eq!(
            stage
                .simulator
                .guests()
                .unwrap()
                .read_file(vmid, "/etc/layer")
                .as_deref(),
            Some("base\n")
        );
        let zfs = stage.simulator.zfs_list();
        let line = zfs
            .lines()
            .find(|l| l.contains(&format!("/subvol-{vmid}-disk-0 ")))
            .unwrap();
        assert_eq!(
            line.split_whitespace().nth(1),
            Some("-"),
            "a full copy has no origin: {line}"
        );
    }
    // two copies of one source were never under way at the same time
    let refused = stage
        .simulator
        .calls()
        .iter()
        .filter(|c| c.path.contains("/clone") && c.code != 200)
        .count();
    assert_eq!(refused, 0);
}
