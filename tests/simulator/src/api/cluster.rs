//! The cluster as a whole: what is there, who is up, which id is free.

use serde_json::{Map, Value, json};

use super::Call;
use crate::reply::{Failure, Outcome, Reply};

const FIRST_ID: u32 = 100;
const LAST_ID: u32 = 999_999;

pub(super) fn version(call: &Call) -> Outcome {
    let host = &call.core.config.host;
    Ok(Reply::data(
        json!({"version": host.version, "release": host.release, "repoid": host.repoid}),
    ))
}

/// One row a guest, node and storage that the caller may see.
pub(super) fn resources(call: &Call) -> Outcome {
    let wanted = |kind: &str| call.get("type").is_none_or(|asked| asked == kind);
    let state = call.core.state();
    let access = &state.access;
    let who = &call.who;
    let mut rows: Vec<Map<String, Value>> = Vec::new();
    if wanted("vm") {
        for (vmid, container) in &state.containers {
            if access.may(who, &format!("/vms/{vmid}"), "VM.Audit") {
                let pool = access
                    .pool_of(*vmid)
                    .filter(|pool| access.may(who, &format!("/pool/{pool}"), "Pool.Audit"));
                rows.push(container.row(*vmid, pool));
            }
        }
    }
    if wanted("node") {
        for (name, node) in &state.nodes {
            let mut row = node.row(access.may(who, &format!("/nodes/{name}"), "Sys.Audit"));
            row.insert("cgroup-mode".to_owned(), json!(2));
            rows.push(row);
        }
    }
    if wanted("storage") {
        for node in state.nodes.values() {
            for (id, storage) in &state.storages {
                if access.may(who, &format!("/storage/{id}"), "Datastore.Audit") {
                    rows.push(storage_row(&node.shape.name, id, storage, node.online));
                }
            }
        }
    }
    if call.get("type").is_none() {
        for pool in access
            .pools
            .keys()
            .filter(|pool| access.may(who, &format!("/pool/{pool}"), "Pool.Audit"))
        {
            let row = json!({"id": format!("/pool/{pool}"), "type": "pool", "pool": pool});
            rows.extend(row.as_object().cloned());
        }
    }
    if wanted("sdn") {
        for node in state.nodes.keys() {
            if access.may_any(who, "/sdn/zones/localnetwork", &["SDN.Audit", "SDN.Use"]) {
                let row = json!({"id": format!("network/{node}/zone/localnetwork"), "type": "network", "network": "localnetwork", "network-type": "zone", "node": node, "status": "ok"});
                rows.extend(row.as_object().cloned());
            }
        }
    }
    Ok(Reply::data(rows.into_iter().map(Value::Object).collect()))
}

fn storage_row(
    node: &str,
    id: &str,
    storage: &crate::model::storage::Storage,
    online: bool,
) -> Map<String, Value> {
    let status = if online && storage.online {
        "available"
    } else {
        "unknown"
    };
    let row = json!({
        "id": format!("storage/{node}/{id}"), "type": "storage", "storage": id, "node": node, "status": status, "shared": u8::from(storage.shared()),
        "plugintype": storage.plugin(), "content": storage.shape.content.join(","), "maxdisk": storage.shape.total, "disk": storage.used(),
    });
    row.as_object().cloned().unwrap_or_default()
}

pub(super) fn status(call: &Call) -> Outcome {
    let state = call.core.state();
    let mut rows = Vec::new();
    if state.nodes.len() > 1 {
        rows.push(json!({"type": "cluster", "id": "cluster", "name": "phoenix", "nodes": state.nodes.len(), "version": 1, "quorate": u8::from(state.quorate)}));
    }
    for (number, (name, node)) in state.nodes.iter().enumerate() {
        let local = name == call.core.contacted_node();
        let id = if state.nodes.len() > 1 { number + 1 } else { 0 };
        rows.push(json!({
            "type": "node", "id": format!("node/{name}"), "name": name, "nodeid": id, "ip": node.shape.address.to_string(),
            "local": u8::from(local), "online": u8::from(node.online), "level": "",
        }));
    }
    Ok(Reply::data(Value::Array(rows)))
}

/// The next free id, or whether one is free.
pub(super) fn nextid(call: &Call) -> Outcome {
    let state = call.core.state();
    if let Some(vmid) = call
        .number("vmid")
        .and_then(|vmid| u32::try_from(vmid).ok())
    {
        if state.containers.contains_key(&vmid) {
            return Err(Failure::parameter(
                "vmid",
                format!("VM {vmid} already exists"),
            ));
        }
        return Ok(Reply::data(json!(vmid.to_string())));
    }
    let free = (FIRST_ID..=LAST_ID).find(|vmid| !state.containers.contains_key(vmid));
    free.map(|vmid| Reply::data(json!(vmid.to_string())))
        .ok_or_else(|| Failure::die("unable to get any free VMID in range [100,1000000]"))
}

pub(super) fn options() -> Outcome {
    Ok(Reply::data(
        json!({"description": "", "mac_prefix": "BC:24:11", "allowed-tags": []}),
    ))
}
