//! What goes wrong, and what the client makes of it.

use crate::host::{NODE, client, create, ended, simulator};
use proxmox_client::{ErrorKind, Params, TaskState};
use proxmox_simulator::{CallEffect, Fault, TaskEffect};

#[tokio::test]
async fn a_lost_answer_is_unknown_whether_or_not_the_call_was_carried_out() {
    let host = simulator().await;
    let client = client(&host);
    create(&client, 900).await;
    for effect in [
        CallEffect::ResetBefore,
        CallEffect::ResetAfter,
        CallEffect::TimeoutAfter,
    ] {
        host.clear_calls();
        host.inject(Fault::call("PUT", "/lxc/900/config", effect.clone()));
        let error = client
            .ct_set_config(NODE, 900, &Params::new().set("memory", 300), false)
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unknown, "{effect:?}: {error}");
        assert!(host.calls().len() <= 1, "a write is never repeated");
    }
    assert_eq!(client.ct_config(NODE, 900).await.unwrap().memory_mib(), 300);
}

#[tokio::test]
async fn a_read_gets_over_one_broken_connection() {
    let host = simulator().await;
    let client = client(&host);
    host.inject(Fault::call("GET", "/version", CallEffect::ResetBefore));
    assert_eq!(client.version().await.unwrap().release, "9.2");
}

#[tokio::test]
async fn locks_quorum_and_absent_nodes_have_their_class() {
    let host = simulator().await;
    let client = client(&host);
    create(&client, 900).await;
    let change = Params::new().set("memory", 300);

    host.set_lock(900, "backup").unwrap();
    let locked = client
        .ct_set_config(NODE, 900, &change, false)
        .await
        .unwrap_err();
    assert_eq!(
        (locked.kind.clone(), locked.lock()),
        (ErrorKind::Locked, Some("backup"))
    );
    assert_eq!(
        client.ct_config(NODE, 900).await.unwrap().lock(),
        Some("backup")
    );
    host.unlock(900).unwrap();

    let guard = host.hold_flock(900).await.unwrap();
    assert_eq!(
        client
            .ct_set_config(NODE, 900, &change, false)
            .await
            .unwrap_err()
            .kind,
        ErrorKind::Busy
    );
    drop(guard);

    host.set_quorate(false);
    let create = Params::new()
        .set("vmid", 901)
        .set("ostemplate", crate::host::ARCHIVE)
        .set("rootfs", "lxc-disks:4");
    assert_eq!(
        client.create_ct(NODE, &create).await.unwrap_err().kind,
        ErrorKind::NoQuorum
    );
    host.set_quorate(true);

    host.set_storage_full("lxc-disks", true).unwrap();
    let upid = client.create_ct(NODE, &create).await.unwrap();
    assert_eq!(
        ended(&client, &upid).await.failure(),
        Some(ErrorKind::StorageFull)
    );
    host.set_storage_full("lxc-disks", false).unwrap();

    client
        .ct_set_config(NODE, 900, &Params::new().flag("protection", true), false)
        .await
        .unwrap();
    assert_eq!(
        client.ct_delete(NODE, 900, true).await.unwrap_err().kind,
        ErrorKind::Protected
    );

    host.inject(Fault::call(
        "GET",
        "/lxc/900/config",
        CallEffect::Status {
            code: 595,
            reason: "No route to host".to_owned(),
        },
    ));
    assert_eq!(
        client.ct_config(NODE, 900).await.unwrap_err().kind,
        ErrorKind::NodeOffline
    );
}

#[tokio::test]
async fn a_killed_worker_leaves_an_unknown_outcome_and_a_running_task_is_listed() {
    let host = simulator().await;
    let client = client(&host);
    create(&client, 900).await;
    host.inject(Fault::task("vzsnapshot", TaskEffect::Kill));
    let killed = client.ct_snapshot(NODE, 900, "s1", None).await.unwrap();
    let state = ended(&client, &killed).await;
    assert_eq!(
        (state.clone(), state.failure()),
        (
            TaskState::Failed {
                exit: "unexpected status".to_owned()
            },
            Some(ErrorKind::Unknown)
        )
    );
    assert_eq!(
        client.ct_config(NODE, 900).await.unwrap().lock(),
        Some("snapshot")
    );
    host.unlock(900).unwrap();

    host.inject(Fault::task("vzstart", TaskEffect::Hang));
    let running = client.ct_start(NODE, 900).await.unwrap();
    assert_eq!(
        client.task_status(&running).await.unwrap(),
        TaskState::Running
    );
    let active = client.active_tasks(NODE, Some(900)).await.unwrap();
    assert_eq!(
        active.iter().map(|t| &t.upid).collect::<Vec<_>>(),
        [&running]
    );
    assert!(
        client
            .active_tasks(NODE, Some(901))
            .await
            .unwrap()
            .is_empty()
    );
}
