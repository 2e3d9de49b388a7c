//! Volumes, directories of the node and device nodes come into a container once each, within what its Hypervisor allows and no further.

use kube::api::{Patch, PatchParams};
use phoenix_crds::LxcContainer;
use serde_json::{Value, json};

use crate::stage::{Settings, Stage, merged};

/// A Hypervisor that allows directories below `/fastData` and the nodes below `/dev/dri`.
async fn allowing(name: &str, settings: Settings) -> Stage {
    let mut stage = Stage::raise(
        name,
        Settings {
            operator: false,
            ..settings
        },
    )
    .await;
    let allowed = json!({"hostPaths": ["/fastData/*"], "devices": ["/dev/dri/*"]});
    stage
        .hypervisors()
        .patch(
            name,
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"allowed": allowed}})),
        )
        .await
        .unwrap();
    stage.start_operator();
    stage.template("base", json!({"vmid": 900})).await;
    stage
}

/// What stands in a container's config under keys that begin so.
fn entries(stage: &Stage, vmid: u32, key: &str) -> Vec<String> {
    let containers = stage.simulator.containers();
    let config = containers.get(&vmid).map(|c| c.config.clone());
    let of = |k: &str| k.strip_prefix(key).is_some_and(|n| n.parse::<u8>().is_ok());
    let config = config.unwrap_or_default();
    let found = config.iter().filter(|(k, _)| of(k));
    found.map(|(_, v)| v.clone()).collect()
}

fn data(size: &str) -> Value {
    json!({"path": "/data", "size": size, "backup": true})
}

fn models() -> Value {
    json!({"path": "/models", "hostPath": "/fastData/models", "readOnly": true})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_is_made_once_grows_and_is_put_right() {
    let stage = allowing("mounts", Settings::default()).await;
    let spec = json!({
        "vmid": 901,
        "mounts": [data("2Gi"), models()],
        "devices": [{"path": "/dev/dri/renderD128", "mode": "0666"}],
    });
    stage.container("store", "base", spec.clone()).await;
    stage.ready::<LxcContainer>("store").await;
    let mounts = entries(&stage, 901, "mp");
    let at = |path: &str| {
        let text = format!("mp={path}");
        let here = |m: &&String| m.split(',').any(|part| part == text);
        let found: Vec<String> = entries(&stage, 901, "mp")
            .iter()
            .filter(here)
            .cloned()
            .collect();
        assert!(found.len() <= 1, "twice: {found:?}");
        found.first().cloned().unwrap_or_default()
    };
    assert_eq!(mounts.len(), 2, "{mounts:?}");
    let volume = at("/data");
    assert!(volume.contains("size=2G"), "{volume}");
    assert!(volume.contains("backup=1"), "{volume}");
    let bind = at("/models");
    assert!(bind.starts_with("/fastData/models,"), "{bind}");
    assert!(bind.contains("ro=1"), "{bind}");
    let devices = entries(&stage, 901, "dev");
    assert_eq!(devices, ["/dev/dri/renderD128,mode=0666"]);

    // it grows, as the same volume
    let larger = merged(spec, json!({"mounts": [data("3Gi"), models()]}));
    stage.container("store", "base", larger).await;
    stage
        .eventually("a larger volume", || at("/data").contains("size=3G"))
        .await;
    let id = |m: &str| m.split(',').next().unwrap_or_default().to_owned();
    assert_eq!(id(&at("/data")), id(&volume));
    assert_eq!(entries(&stage, 901, "mp").len(), 2);
    assert_eq!(entries(&stage, 901, "unused"), Vec::<String>::new());

    // what is not allowed is told before anything is made
    let secrets = json!({"path": "/keys", "hostPath": "/etc/pve", "readOnly": true});
    stage
        .container("thief", "base", json!({"vmid": 902, "mounts": [secrets]}))
        .await;
    let told = stage
        .reason::<LxcContainer>("thief", "Created", "NotAllowed")
        .await;
    for word in ["/etc/pve", "allowed.hostPaths", "mounts"] {
        assert!(told.message.contains(word), "{word}: {}", told.message);
    }
    assert!(!stage.simulator.containers().contains_key(&902));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_root_the_line_to_run_is_told() {
    let settings = Settings {
        root: false,
        ..Settings::without_guests()
    };
    let stage = allowing("mounts-unrooted", settings).await;
    stage
        .container("store", "base", json!({"vmid": 901, "mounts": [models()]}))
        .await;
    let told = stage
        .reason::<LxcContainer>("store", "ConfigInSync", "RootRequired")
        .await;
    let line = "pct set 901 ";
    assert!(told.message.contains(line), "{}", told.message);
    assert!(
        told.message.contains("/fastData/models,mp=/models"),
        "{}",
        told.message
    );
}
