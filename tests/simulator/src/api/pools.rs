//! Resource pools.

use serde_json::{Value, json};

use super::Call;
use crate::{
    auth::access::Pool,
    reply::{Failure, Outcome, Reply},
};

pub(super) fn list(call: &Call) -> Outcome {
    let state = call.core.state();
    if let Some(name) = call.given("poolid") {
        let name = name.to_owned();
        drop(state);
        return Ok(Reply::data(json!([members(call, &name)?])));
    }
    let shown = state.access.pools.keys().filter(|name| {
        state
            .access
            .may(&call.who, &format!("/pool/{name}"), "Pool.Audit")
    });
    Ok(Reply::data(
        shown.map(|name| json!({"poolid": name})).collect(),
    ))
}

pub(super) fn get(call: &Call) -> Outcome {
    Ok(Reply::data(members(call, call.text("poolid"))?))
}

fn members(call: &Call, name: &str) -> Result<Value, Failure> {
    let state = call.core.state();
    let pool = state
        .access
        .pools
        .get(name)
        .ok_or_else(|| Failure::die(format!("pool '{name}' does not exist")))?;
    let guests = pool.guests.iter().filter_map(|vmid| {
        state
            .containers
            .get(vmid)
            .map(|container| Value::Object(container.row(*vmid, None)))
    });
    let storages = pool.storages.iter().map(|id| json!({"type": "storage", "storage": id, "id": format!("storage/{}/{id}", call.core.contacted_node())}));
    Ok(json!({"poolid": name, "members": guests.chain(storages).collect::<Vec<_>>()}))
}

pub(super) fn create(call: &Call) -> Outcome {
    let name = call.text("poolid").to_owned();
    let mut state = call.core.state();
    if state.access.pools.contains_key(&name) {
        return Err(Failure::die(format!(
            "create pool failed: pool '{name}' already exists"
        )));
    }
    state.access.pools.insert(name, Pool::default());
    Ok(Reply::null())
}

/// Adds or, with `delete`, removes guests and storages.
pub(super) fn update(call: &Call) -> Outcome {
    let name = call.text("poolid");
    let remove = call.flag("delete");
    let mut state = call.core.state();
    let guests: Vec<u32> = call
        .text("vms")
        .split([',', ';', ' '])
        .filter_map(|vmid| vmid.parse().ok())
        .collect();
    let storages: Vec<String> = call
        .text("storage")
        .split([',', ';', ' '])
        .filter(|id| !id.is_empty())
        .map(str::to_owned)
        .collect();
    if let Some(known) = guests
        .iter()
        .find(|vmid| !remove && !state.containers.contains_key(vmid))
    {
        return Err(Failure::die(format!("VM {known} does not exist")));
    }
    let pool = state.access.pools.get_mut(name).ok_or_else(|| {
        Failure::die(format!("update pools failed: pool '{name}' does not exist"))
    })?;
    if remove {
        pool.guests.retain(|vmid| !guests.contains(vmid));
        pool.storages.retain(|id| !storages.contains(id));
    } else {
        pool.guests.extend(guests);
        pool.storages.extend(storages);
    }
    Ok(Reply::null())
}

pub(super) fn delete(call: &Call) -> Outcome {
    let name = call.text("poolid");
    let mut state = call.core.state();
    match state.access.pools.get(name) {
        None => Err(Failure::die(format!(
            "delete pool failed: pool '{name}' does not exist"
        ))),
        Some(pool) if !pool.guests.is_empty() || !pool.storages.is_empty() => Err(Failure::die(
            format!("delete pool failed: pool '{name}' is not empty"),
        )),
        Some(_) => {
            state.access.pools.remove(name);
            Ok(Reply::null())
        }
    }
}
