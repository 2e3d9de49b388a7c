//! What changes live and what waits, and what clones and snapshots take over.

use super::super::client::{Client, simulator};

const PATH: &str = "/nodes/pve/lxc/100/config";

#[tokio::test]
async fn each_key_changes_live_or_waits_for_a_stop() {
    let simulator = simulator().await;
    let root = Client::login(&simulator, "root@pam").await;
    root.create(100, &[]).await;
    root.put(
        PATH,
        &[("mp0", "lxc-disks:1,mp=/old"), ("dev0", "/dev/tty")],
    )
    .await;
    root.task("POST", "/nodes/pve/lxc/100/status/start", &[])
        .await;
    let net = "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=10.0.0.9/24,type=veth";
    let now = [
        ("cores", "3"),
        ("cpulimit", "2"),
        ("cpuunits", "50"),
        ("memory", "700"),
        ("swap", "100"),
        ("hostname", "new"),
        ("description", "new"),
        ("tags", "new"),
        ("onboot", "1"),
        ("startup", "order=3"),
        ("net0", net),
        ("mp1", "lxc-disks:1,mp=/new"),
        ("dev1", "/dev/fuse"),
    ];
    let later = [
        ("cmode", "shell"),
        ("console", "0"),
        ("tty", "1"),
        ("nameserver", "9.9.9.9"),
        ("searchdomain", "example.org"),
        ("features", "nesting=1"),
        ("timezone", "UTC"),
        ("mp0", "lxc-disks:subvol-100-disk-1,mp=/moved,size=1G"),
        ("dev0", "/dev/null"),
    ];
    let live = || async { root.get(&format!("{PATH}?current=1")).await.body["data"].clone() };
    for (waits, changes) in [(false, &now[..]), (true, &later[..])] {
        for change in changes {
            let before = live().await;
            let answer = root.put(PATH, &[*change]).await;
            assert_eq!(answer.status, 200, "{change:?}: {}", answer.reason);
            let key = change.0;
            let (old, new) = (before.get(key).cloned(), live().await.get(key).cloned());
            assert_eq!(old == new, waits, "{key}: {old:?} {new:?}");
        }
    }
    let waiting: Vec<String> = root.get("/nodes/pve/lxc/100/pending").await.body["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row.get("pending").is_some())
        .map(|row| row["key"].as_str().unwrap().to_owned())
        .collect();
    for (key, _) in later {
        assert!(waiting.iter().any(|waiting| waiting == key), "{key}");
    }
    assert_eq!(waiting.len(), later.len(), "{waiting:?}");
    root.task("POST", "/nodes/pve/lxc/100/status/stop", &[])
        .await;
    let stopped = live().await;
    assert_eq!(
        (&stopped["timezone"], &stopped["dev0"]),
        (&"UTC".into(), &"/dev/null".into())
    );
    assert!(stopped["mp0"].as_str().unwrap().contains("mp=/moved"));
    assert_eq!(simulator.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn a_clone_takes_all_but_what_is_its_sources_own() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    let root = Client::login(&simulator, "root@pam").await;
    let more = [
        ("description", "source"),
        ("tags", "a;b"),
        ("onboot", "1"),
        ("protection", "1"),
        ("startup", "order=2"),
        ("hostname", "source"),
        ("dev0", "/dev/fuse"),
        ("features", "keyctl=1,nesting=1"),
    ];
    assert_eq!(root.create(100, &more).await, "OK");
    simulator
        .edit_config(100, "unused0", Some("lxc-disks:subvol-100-disk-7"))
        .unwrap();
    operator
        .task("POST", "/nodes/pve/lxc/100/snapshot", &[("snapname", "s1")])
        .await;
    let source = operator.config(100).await;
    let exit = operator
        .task("POST", "/nodes/pve/lxc/100/clone", &[("newid", "101")])
        .await;
    assert_eq!(exit, "OK");
    let clone = operator.config(101).await;
    for key in [
        "description",
        "tags",
        "onboot",
        "protection",
        "startup",
        "hostname",
        "dev0",
        "features",
        "memory",
        "ostype",
        "unprivileged",
    ] {
        assert_eq!(clone[key], source[key], "{key}");
    }
    for key in ["unused0", "parent", "lock", "template"] {
        assert!(clone.get(key).is_none(), "{key}");
    }
    assert_ne!(clone["net0"], source["net0"]);
    let snapshots = operator.get("/nodes/pve/lxc/101/snapshot").await;
    assert_eq!(snapshots.body["data"].as_array().unwrap().len(), 1);
    assert_eq!(
        operator.delete("/nodes/pve/lxc/101").await.reason,
        "can't remove CT 101 - protection mode enabled"
    );
    let named = [
        ("newid", "102"),
        ("hostname", "named"),
        ("description", "its own"),
    ];
    operator
        .task("POST", "/nodes/pve/lxc/100/clone", &named)
        .await;
    let clone = operator.config(102).await;
    assert_eq!(
        (&clone["hostname"], &clone["description"]),
        (&"named".into(), &"its own\n".into())
    );
}

#[tokio::test]
async fn a_rollback_brings_all_keys_back_but_the_description() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator
        .create(100, &[("description", "first"), ("tags", "old")])
        .await;
    let path = "/nodes/pve/lxc/100/snapshot";
    operator.task("POST", path, &[("snapname", "s1")]).await;
    let kept = operator.get(&format!("{path}/s1/config")).await.body["data"].clone();
    for key in ["lock", "digest", "description"] {
        assert!(kept.get(key).is_none(), "{key}");
    }
    assert!(kept["snaptime"].is_number());
    let form = [
        ("description", "second"),
        ("tags", "new"),
        ("memory", "700"),
        ("mp0", "lxc-disks:1,mp=/data"),
    ];
    assert_eq!(operator.put(PATH, &form).await.status, 200);
    assert_eq!(
        operator
            .task("POST", &format!("{path}/s1/rollback"), &[])
            .await,
        "OK"
    );
    let config = operator.config(100).await;
    assert_eq!(
        (&config["description"], &config["tags"], &config["memory"]),
        (&"second\n".into(), &"old".into(), &512.into())
    );
    assert!(config.get("mp0").is_none());
    let unused = config.as_object().unwrap().iter();
    let unused: Vec<_> = unused
        .filter(|(key, _)| key.starts_with("unused"))
        .map(|(_, value)| value)
        .collect();
    assert_eq!(
        unused,
        ["lxc-disks:subvol-100-disk-1"],
        "a volume of later is kept"
    );
    assert_eq!(config["parent"], "s1");
}
