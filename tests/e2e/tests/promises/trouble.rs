//! Answers that are lost, tasks that fail or die, a storage that is full: what happened is found out from Proxmox, nothing is done twice,
//! and what passes by itself is waited for.

use phoenix_crds::{LxcContainer, LxcTemplate};
use proxmox_simulator::{CallEffect, Fault, TaskEffect};
use serde_json::json;

use crate::stage::{Settings, Stage, condition};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_to_any_change_ends_in_one_container() {
    let stage = Stage::raise("lost-answers", Settings::default()).await;
    let lost = [
        ("POST", "/nodes/pve/lxc"),
        ("PUT", "/config"),
        ("POST", "/status/start"),
        ("POST", "/clone"),
        ("PUT", "/resize"),
        ("POST", "/status/shutdown"),
        ("POST", "/template"),
    ];
    for (method, path) in lost {
        stage
            .simulator
            .inject(Fault::call(method, path, CallEffect::ResetAfter));
    }
    let setup =
        |layer: &str| json!({"script": format!("#!/bin/sh\necho {layer} >> /etc/layers\n")});
    stage
        .template("base", json!({"vmid": 900, "setup": setup("base")}))
        .await;
    let top = json!({"vmid": 901, "setup": setup("top"), "rootfs": {"size": "6Gi"}});
    stage.container("top", "base", top).await;
    stage.ready::<LxcTemplate>("base").await;
    stage.ready::<LxcContainer>("top").await;
    assert_eq!(vmids(&stage), [900, 901]);
    let layers = stage
        .simulator
        .guests()
        .unwrap()
        .read_file(901, "/etc/layers");
    assert_eq!(layers.as_deref(), Some("base\ntop\n"));

    stage
        .simulator
        .inject(Fault::call("DELETE", "/lxc/901", CallEffect::ResetAfter));
    stage.delete::<LxcContainer>("top").await;
    stage.delete::<LxcTemplate>("base").await;
    assert_eq!(vmids(&stage), Vec::<u32>::new());
    assert_eq!(stage.simulator.problems(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_fail_are_tried_again_in_their_own_words() {
    let stage = Stage::raise("failing-tasks", Settings::without_guests()).await;
    let refused = || TaskEffect::Fail {
        text: "unable to create CT 900 - a disk was on fire".into(),
    };
    stage.simulator.inject(Fault::task("vzcreate", refused()));
    stage.simulator.inject(Fault::task(
        "vztemplate",
        TaskEffect::Fail {
            text: "no such luck".into(),
        },
    ));
    stage.template("base", json!({"vmid": 900})).await;
    let told = stage
        .reason::<LxcTemplate>("base", "Created", "TaskFailed")
        .await;
    assert!(
        told.message.contains("a disk was on fire"),
        "{}",
        told.message
    );
    stage.ready::<LxcTemplate>("base").await;
    assert_eq!(vmids(&stage), [900]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_storage_is_told_and_waited_for() {
    let stage = Stage::raise("full-storage", Settings::without_guests()).await;
    stage.simulator.set_storage_full("lxc-disks", true).unwrap();
    stage.template("base", json!({"vmid": 900})).await;
    let told = stage
        .reason::<LxcTemplate>("base", "Created", "StorageFull")
        .await;
    assert!(told.message.contains("out of space"), "{}", told.message);
    stage
        .simulator
        .set_storage_full("lxc-disks", false)
        .unwrap();
    let base: LxcTemplate = stage.ready("base").await;
    assert!(condition(&base, "Stalled").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_died_leaves_a_lock_that_only_a_person_removes() {
    let stage = Stage::raise("dead-worker", Settings::default()).await;
    stage.template("base", json!({"vmid": 900})).await;
    stage.ready::<LxcTemplate>("base").await;
    stage
        .simulator
        .inject(Fault::task("vzclone", TaskEffect::Kill));
    stage.container("top", "base", json!({"vmid": 901})).await;
    let told = stage
        .reason::<LxcContainer>("top", "Created", "Locked")
        .await;
    assert!(told.message.contains("pct unlock 901"), "{}", told.message);
    // the source was left locked as well: told on whoever wants to clone it next, and harmless to what is sealed
    for vmid in [900, 901] {
        stage.simulator.unlock(vmid).unwrap();
    }
    stage.ready::<LxcContainer>("top").await;
    assert_eq!(vmids(&stage), [900, 901]);
}

fn vmids(stage: &Stage) -> Vec<u32> {
    stage.simulator.containers().keys().copied().collect()
}
