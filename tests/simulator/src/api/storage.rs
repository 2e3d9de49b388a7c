//! Storages: configuration, figures, content.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Call;
use crate::{
    config::StorageKind,
    model::storage::{BASE_SNAPSHOT, Storage, leaf},
    reply::{Failure, Outcome, Reply},
};

/// A `zfs` command gets that long.
const ZFS_TIMEOUT: Duration = Duration::from_secs(10);
/// What one needs to see a storage at all.
const SEE: [&str; 2] = ["Datastore.Audit", "Datastore.AllocateSpace"];

pub(super) fn configured(call: &Call) -> Outcome {
    let state = call.core.state();
    let shown = state.storages.iter().filter(|(id, _)| {
        state
            .access
            .may_any(&call.who, &format!("/storage/{id}"), &SEE)
    });
    let row = |id: &String, storage: &Storage| {
        let mut row = json!({"storage": id, "type": storage.plugin(), "content": storage.shape.content.join(","), "digest": "aea2ec37329483cdcf98bad0f3a65c2c6ef2958d"});
        match &storage.shape.kind {
            StorageKind::ZfsPool { pool } => {
                row["pool"] = json!(pool);
                row["sparse"] = json!(1);
            }
            StorageKind::Dir { path } => row["path"] = json!(path),
            StorageKind::Nfs { server, export } => {
                row["path"] = json!(format!("/mnt/pve/{id}"));
                row["server"] = json!(server);
                row["export"] = json!(export);
            }
            StorageKind::LvmThin { vg, pool } => {
                row["vgname"] = json!(vg);
                row["thinpool"] = json!(pool);
            }
        }
        if storage.shared() {
            row["shared"] = json!(1);
        }
        row
    };
    Ok(Reply::data(
        shown.map(|(id, storage)| row(id, storage)).collect(),
    ))
}

fn figures(storage: &Storage) -> Map<String, Value> {
    let used = storage.used().min(storage.shape.total);
    let mut row = Map::new();
    let online = storage.online;
    row.insert("type".to_owned(), json!(storage.plugin()));
    row.insert("content".to_owned(), json!(storage.shape.content.join(",")));
    row.insert("enabled".to_owned(), json!(1));
    row.insert("shared".to_owned(), json!(u8::from(storage.shared())));
    row.insert("active".to_owned(), json!(u8::from(online)));
    row.insert(
        "total".to_owned(),
        json!(if online { storage.shape.total } else { 0 }),
    );
    row.insert("used".to_owned(), json!(if online { used } else { 0 }));
    let free = if storage.full {
        0
    } else {
        storage.shape.total - used
    };
    row.insert("avail".to_owned(), json!(if online { free } else { 0 }));
    row
}

/// Who asks for the state of a storage that hangs waits for `zfs` to be given up.
async fn wait(call: &Call) {
    let hangs = {
        let state = call.core.state();
        let asked = call.get("storage");
        state
            .storages
            .iter()
            .any(|(id, storage)| storage.hung && asked.is_none_or(|asked| asked == id))
    };
    if hangs {
        tokio::time::sleep(call.core.config.timing.wait(ZFS_TIMEOUT)).await;
    }
}

pub(super) async fn list(call: Call) -> Outcome {
    wait(&call).await;
    let state = call.core.state();
    let shown = state
        .storages
        .iter()
        .filter(|(id, _)| call.get("storage").is_none_or(|asked| asked == *id))
        .filter(|(_, storage)| {
            call.get("content")
                .is_none_or(|asked| asked.split(',').any(|content| storage.holds(content)))
        })
        .filter(|(id, _)| {
            state
                .access
                .may_any(&call.who, &format!("/storage/{id}"), &SEE)
        });
    #[expect(clippy::cast_precision_loss, reason = "a fraction for display")]
    let row = |(id, storage): (&String, &Storage)| {
        let mut row = figures(storage);
        row.insert("storage".to_owned(), json!(id));
        row.insert(
            "used_fraction".to_owned(),
            json!(storage.used() as f64 / storage.shape.total.max(1) as f64),
        );
        Value::Object(row)
    };
    Ok(Reply::data(shown.map(row).collect()))
}

pub(super) async fn status(call: Call) -> Outcome {
    wait(&call).await;
    let state = call.core.state();
    let storage = state
        .storages
        .get(call.text("storage"))
        .ok_or_else(|| Failure::parameter("storage", "No such storage."))?;
    Ok(Reply::data(Value::Object(figures(storage))))
}

/// Volumes and files; disks only of guests one may configure.
pub(super) fn content(call: &Call) -> Outcome {
    let id = call.text("storage");
    let state = call.core.state();
    let storage = state.storage(id).map_err(Failure::die)?;
    if !storage.online {
        return Err(Failure::die(format!("storage '{id}' is not online")));
    }
    let wanted = |kind: &str| call.get("content").is_none_or(|asked| asked == kind);
    let owner = call.number("vmid");
    let path = format!("/storage/{id}");
    let all = state.access.may(&call.who, &path, "Datastore.Allocate");
    let audit = state.access.may(&call.who, &path, "Datastore.Audit");
    let mut rows = Vec::new();
    if wanted("rootdir") && storage.holds("rootdir") {
        for (name, volume) in &storage.volumes {
            let visible = all
                || (audit
                    && state.access.may(
                        &call.who,
                        &format!("/vms/{}", volume.vmid),
                        "VM.Config.Disk",
                    ));
            if !visible || owner.is_some_and(|owner| owner != u64::from(volume.vmid)) {
                continue;
            }
            let mut row = json!({
                "volid": format!("{id}:{}", storage.written(name)), "content": "rootdir", "vmid": volume.vmid, "size": volume.size,
            });
            match storage.shape.kind {
                StorageKind::ZfsPool { .. } => {
                    row["format"] = json!("subvol");
                    row["name"] = json!(name);
                    row["parent"] = json!(
                        volume
                            .origin
                            .as_ref()
                            .map(|base| format!("{}@{BASE_SNAPSHOT}", leaf(base)))
                    );
                }
                StorageKind::Dir { .. } | StorageKind::Nfs { .. } | StorageKind::LvmThin { .. } => {
                    row["format"] = json!("raw");
                }
            }
            rows.push(row);
        }
    }
    if wanted("vztmpl") && storage.holds("vztmpl") && owner.is_none() {
        for template in &storage.shape.templates {
            let zstd = std::path::Path::new(&template.file)
                .extension()
                .is_some_and(|extension| extension == "zst");
            let format = if zstd { "tzst" } else { "txz" };
            rows.push(json!({"volid": format!("{id}:vztmpl/{}", template.file), "content": "vztmpl", "size": template.size, "format": format, "ctime": 1_795_545_262}));
        }
    }
    Ok(Reply::data(Value::Array(rows)))
}
