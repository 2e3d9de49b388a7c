//! What a real Proxmox VE 9.2 answered, put into its class and read into its type.

use crate::server::{Reply, Server};
use proxmox_client::{
    Client, Error, ErrorKind, Params, ResourceKind, TaskState, classify_task_exit,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, sync::Mutex};

#[derive(Clone, Deserialize)]
struct Recorded {
    method: String,
    path: String,
    status: u16,
    reason: String,
    kind: String,
    message: Option<String>,
    #[serde(default)]
    errors: BTreeMap<String, String>,
}

/// Makes some call of this method; which one does not matter to how the answer is read.
async fn call(client: &Client, method: &str) -> Error {
    let failed = match method {
        "GET" => client.ct_config("pve1", 100).await.map(|_| ()),
        "POST" => client.create_ct("pve1", &Params::new()).await.map(|_| ()),
        "PUT" => {
            client
                .ct_set_config("pve1", 100, &Params::new(), false)
                .await
        }
        "DELETE" => client.ct_delete("pve1", 100, true).await.map(|_| ()),
        other => panic!("no call for {other}"),
    };
    failed.unwrap_err()
}

#[tokio::test]
async fn every_recorded_error_falls_into_its_class() {
    let all: Vec<Recorded> = serde_json::from_str(include_str!("../recorded/errors.json")).unwrap();
    assert!(all.len() > 90, "the recordings are there");
    let current = Arc::new(Mutex::new(String::new()));
    for old_host in [false, true] {
        let (answers, at) = (all.clone(), Arc::clone(&current));
        let server = Server::start(move |_| {
            let index: usize = at.lock().unwrap().parse().unwrap();
            let recorded: &Recorded = &answers[index];
            let mut body = json!({ "data": null });
            if !recorded.errors.is_empty() {
                body["errors"] = json!(recorded.errors);
            }
            // Hosts before 8.4 say it in the reason phrase only.
            if let (Some(message), false) = (&recorded.message, old_host) {
                body["message"] = json!(message);
            }
            let body = if recorded.message.is_none() {
                String::new()
            } else {
                body.to_string()
            };
            Reply::Answer {
                status: recorded.status,
                reason: recorded.reason.clone(),
                body,
            }
        })
        .await;
        let client = server.client();
        for (index, recorded) in all.iter().enumerate() {
            *current.lock().unwrap() = index.to_string();
            let error = call(&client, &recorded.method).await;
            let what = format!(
                "{} {} -> {} {}",
                recorded.method, recorded.path, recorded.status, recorded.reason
            );
            assert_eq!(format!("{:?}", error.kind), recorded.kind, "{what}");
            assert_eq!(
                (error.status, &*error.reason),
                (Some(recorded.status), recorded.reason.as_str()),
                "{what}"
            );
            let text = recorded
                .message
                .as_deref()
                .filter(|_| !old_host)
                .unwrap_or(&recorded.reason)
                .trim();
            assert_eq!(error.message, text, "{what}");
            assert_eq!(
                error.errors.keys().collect::<Vec<_>>(),
                recorded.errors.keys().collect::<Vec<_>>(),
                "{what}"
            );
            let sentence = error.to_string();
            assert!(
                sentence.contains(text) && !sentence.contains('\n'),
                "{sentence}"
            );
        }
    }
}

#[test]
fn every_recorded_exit_status_falls_into_its_class() {
    #[derive(Deserialize)]
    struct Exit {
        exit: String,
        kind: String,
    }
    let all: Vec<Exit> = serde_json::from_str(include_str!("../recorded/exits.json")).unwrap();
    assert!(all.len() > 25, "the recordings are there");
    for Exit { exit, kind } in all {
        assert_eq!(format!("{:?}", classify_task_exit(&exit)), kind, "{exit}");
        assert_eq!(TaskState::from_exit(&exit), TaskState::Failed { exit });
    }
}

#[tokio::test]
async fn a_lock_is_named() {
    let server = Server::start(|_| Reply::error(500, "CT is locked (snapshot-delete)")).await;
    let error = server
        .client()
        .ct_set_config("pve1", 1, &Params::new().set("cores", 1), false)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind.clone(), error.lock()),
        (ErrorKind::Locked, Some("snapshot-delete"))
    );
}

#[tokio::test]
async fn a_hot_plug_that_waits_for_somebody_is_not_the_callers_fault() {
    let body = json!({"data": null, "message": "Parameter verification failed.\n", "errors": {"mp0": "unable to apply pending change mp0 : zfs error: cannot create 'tank/subvol-1-disk-1': out of space"}});
    let server = Server::start(move |_| Reply::Answer {
        status: 400,
        reason: "Parameter verification failed.".into(),
        body: body.to_string(),
    })
    .await;
    let error = server
        .client()
        .ct_set_config("pve1", 1, &Params::new().set("mp0", "x"), false)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::StorageFull);
}

/// A server that gives the n-th recorded answer to a path (digits do not count).
async fn replay() -> Server {
    let all: Vec<Value> = serde_json::from_str(include_str!("../recorded/answers.json")).unwrap();
    Server::start(move |seen| {
        let wanted = seen.path.trim_start_matches("/api2/json");
        let found = all.iter().find(|a| {
            a["method"] == seen.method.as_str()
                && a["path"].as_str().unwrap().split('?').next() == Some(wanted)
        });
        match found {
            Some(answer) => Reply::Answer {
                status: 200,
                reason: "OK".into(),
                body: answer["body"].to_string(),
            },
            None => Reply::error(
                501,
                &format!("Method '{} {wanted}' not implemented", seen.method),
            ),
        }
    })
    .await
}

#[tokio::test]
async fn recorded_answers_of_cluster_and_nodes_are_read() {
    let server = replay().await;
    let client = server.client();
    let version = client.version().await.unwrap();
    assert_eq!(
        (version.version.as_str(), version.release.as_str()),
        ("9.2.11", "9.2")
    );
    let resources = client.cluster_resources().await.unwrap();
    assert!(
        resources.iter().all(|r| r.kind != ResourceKind::Other),
        "{resources:?}"
    );
    let guest = resources
        .iter()
        .find(|r| r.kind == ResourceKind::Lxc)
        .unwrap();
    assert!(guest.vmid.is_some() && guest.node.as_deref() == Some("pve1"));
    let storage = resources
        .iter()
        .find(|r| r.storage.as_deref() == Some("lxc-disks"))
        .unwrap();
    assert_eq!(
        (
            storage.plugintype.as_deref(),
            storage.status.as_deref(),
            storage.shared
        ),
        (Some("zfspool"), Some("available"), false)
    );
    let members = client.cluster_status().await.unwrap();
    assert!(members[0].online && members[0].local && members[0].name == "pve1");
    let nodes = client.nodes().await.unwrap();
    assert!(nodes[0].is_online() && nodes[0].name == "pve1" && nodes[0].maxcpu == Some(2));
    let status = client.node_status("pve1").await.unwrap();
    assert!(
        status.cores == Some(2)
            && status.memory_total.unwrap() > 1 << 30
            && status.uptime.unwrap() > 0
    );
    let storages = client.storages("pve1").await.unwrap();
    assert_eq!(
        storages
            .iter()
            .filter(|s| s.holds_containers() && s.active && s.enabled)
            .count(),
        2
    );
    assert_eq!(
        storages
            .iter()
            .filter(|s| s.holds_archives())
            .map(|s| s.name.as_str())
            .collect::<Vec<_>>(),
        ["local"]
    );
    assert!(
        client
            .bridges("pve1")
            .await
            .unwrap()
            .contains(&"vmbr0".to_owned())
    );
    let devices = client.pci_devices("pve1").await.unwrap();
    assert_eq!(
        (devices[0].id.as_str(), devices[0].class.as_str()),
        ("0000:00:01.1", "0x010180")
    );
    assert!(!devices.iter().any(proxmox_client::PciDevice::is_nvidia_gpu));
    assert!(
        client
            .permissions()
            .await
            .unwrap()
            .0
            .values()
            .any(|p| p.contains_key("VM.Allocate"))
    );
    let volumes = client
        .storage_content("pve1", "lxc-disks", None)
        .await
        .unwrap();
    assert!(
        volumes.iter().any(|v| v.parent.is_some()) && volumes.iter().all(|v| v.vmid.is_some()),
        "{volumes:?}"
    );
    assert!(client.vmid_is_free(4711).await.unwrap());
}

#[tokio::test]
async fn recorded_answers_of_containers_are_read() {
    let server = replay().await;
    let client = server.client();
    let config = client.ct_config("pve1", 901).await.unwrap();
    assert!(config.digest.len() == 40 && config.is_template() && config.unprivileged());
    let rootfs = config.rootfs().unwrap();
    assert_eq!(
        (rootfs.own_name(), rootfs.base_vmid(), rootfs.size_gib),
        ("basevol-901-disk-0", Some(900), Some(1))
    );
    assert_eq!(config.devices()[&0].get("path"), Some("/dev/fuse"));
    assert_eq!(
        (config.description(), config.features().get("nesting")),
        ("phoenix: v1 vmid=901", Some("1"))
    );
    assert_eq!(config.nets()[&0].get("gw"), Some("10.0.2.2"));
    for (key, text) in [
        ("net0", config.nets()[&0].to_string()),
        ("rootfs", rootfs.props.to_string()),
        ("dev0", config.devices()[&0].to_string()),
    ] {
        assert_eq!(
            config.get(key),
            Some(text.as_str()),
            "what is read is printed back"
        );
    }
    let pending = client.ct_pending("pve1", 100).await.unwrap();
    let of = |key: &str| pending.iter().find(|p| p.key == key).unwrap();
    assert_eq!(
        (of("memory").value.as_deref(), of("memory").waits()),
        (Some("512"), false)
    );
    assert_eq!(
        (
            of("ostype").value.as_deref(),
            of("ostype").pending.as_deref()
        ),
        (Some("debian"), Some("ubuntu"))
    );
    assert!(of("cmode").waits() && of("cmode").value.is_none());
    let status = client.ct_status("pve1", 103).await.unwrap();
    assert!(
        status.is_running() && status.pid.is_some() && !status.ha_managed,
        "{status:?}"
    );
    let snapshots = client.ct_snapshots("pve1", 210).await.unwrap();
    assert!(
        !snapshots.is_empty()
            && snapshots
                .iter()
                .all(|s| s.name != "current" && s.snaptime.is_some())
    );
    assert!(
        snapshots.iter().all(|s| !s.description.ends_with('\n')),
        "{snapshots:?}"
    );
    let interfaces = client.ct_interfaces("pve1", 103).await.unwrap().unwrap();
    let eth0 = interfaces.iter().find(|i| i.name == "eth0").unwrap();
    assert_eq!(eth0.hwaddr.as_deref(), Some("bc:24:11:eb:12:8f"));
    assert!(
        eth0.addresses
            .iter()
            .any(|a| a.address.to_string() == "10.0.2.101" && a.prefix == Some(24))
    );
    let tasks = client.active_tasks("pve1", None).await.unwrap();
    assert!(
        tasks
            .iter()
            .all(|t| t.upid.task_type.starts_with("vz") && t.upid.vmid().is_some())
            && !tasks.is_empty()
    );
}

#[tokio::test]
async fn tasks_are_followed_by_their_own_node_and_forgotten_ones_are_unknown() {
    let server = Server::start(
        |seen| match (seen.number, seen.path.rsplit('/').next().unwrap()) {
            (1, "status") => Reply::data(&json!({"status": "running", "upid": "x"})),
            (2, "status") => {
                Reply::data(&json!({"status": "stopped", "exitstatus": "WARNINGS: 1"}))
            }
            (3, "status") => {
                Reply::data(&json!({"status": "stopped", "exitstatus": "CT is locked (disk)"}))
            }
            (4, "status") => Reply::Answer {
                status: 400,
                reason: "Parameter verification failed.".into(),
                body: json!({"data": null, "errors": {"upid": "no such task"}}).to_string(),
            },
            (5, "log") => Reply::data(&Value::from(
                (1..=500)
                    .map(|n| json!({"n": n, "t": format!("line {n}")}))
                    .collect::<Vec<_>>(),
            )),
            (6, "log") => {
                Reply::data(&json!([{"n": 502, "t": "TASK OK"}, {"n": 501, "t": "almost"}]))
            }
            (7, "log") => Reply::data(
                &json!([{"n": 1, "t": "unable to open file - No such file or directory"}]),
            ),
            _ => Reply::error(501, "nothing like this was expected"),
        },
    )
    .await;
    let client = server.client();
    let upid = "UPID:pve2:00000525:0000FB6A:6B05DEC6:vzclone:999:root@pam!op:"
        .parse()
        .unwrap();
    assert_eq!(client.task_status(&upid).await.unwrap(), TaskState::Running);
    assert_eq!(
        client.task_status(&upid).await.unwrap(),
        TaskState::Warnings(1)
    );
    assert_eq!(
        client.task_status(&upid).await.unwrap().failure(),
        Some(ErrorKind::Locked)
    );
    assert_eq!(client.task_status(&upid).await.unwrap(), TaskState::Unknown);
    assert_eq!(
        client.task_log(&upid, 3).await.unwrap(),
        ["line 500", "almost", "TASK OK"]
    );
    assert!(client.task_log(&upid, 3).await.unwrap().is_empty());
    let seen = server.seen();
    assert!(
        seen[0]
            .path
            .starts_with("/api2/json/nodes/pve2/tasks/UPID%3Apve2%3A"),
        "{}",
        seen[0].path
    );
    assert_eq!(
        (seen[4].query.as_str(), seen[5].query.as_str()),
        ("start=0&limit=500", "start=500&limit=500")
    );
}
