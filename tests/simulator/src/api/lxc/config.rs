//! Reading and changing a container's configuration.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    super::Call,
    apply,
    keys::{self, Change},
};
use crate::{
    model::section::{ConfigFile, Section, kept_description},
    reply::{Failure, Outcome, Reply},
    schema::{SCHEMA, lookup},
};

/// How long a lock file is waited for.
pub(super) const FLOCK: Duration = Duration::from_secs(10);
const REQUIRED: [&str; 3] = ["memory", "rootfs", "ostype"];
const READ_ONLY: [&str; 1] = ["unprivileged"];

/// A value as JSON: integers and booleans as numbers, all else as text.
pub(super) fn typed(key: &str, value: &str) -> Value {
    let kind = lookup(SCHEMA.container_keys(), key).and_then(|property| property.kind.as_deref());
    match kind {
        Some("integer" | "boolean") => value
            .parse::<i64>()
            .map_or_else(|_| json!(value), |number| json!(number)),
        None if key == "snaptime" => value
            .parse::<i64>()
            .map_or_else(|_| json!(value), |number| json!(number)),
        _ => json!(value),
    }
}

/// A section as JSON.
pub(super) fn printed(section: &Section) -> Map<String, Value> {
    let mut out: Map<String, Value> = section
        .keys
        .iter()
        .map(|(key, value)| (key.clone(), typed(key, value)))
        .collect();
    if let Some(description) = &section.description {
        out.insert("description".to_owned(), json!(format!("{description}\n")));
    }
    if !section.raw.is_empty() {
        out.insert("lxc".to_owned(), json!(section.raw));
    }
    out
}

/// What would be in effect after a restart.
fn merged(file: &ConfigFile) -> Section {
    let mut section = file.main.clone();
    for key in &file.pending_delete {
        section.keys.remove(key);
    }
    section.keys.extend(file.pending.keys.clone());
    section
}

pub(super) fn get(call: &Call) -> Outcome {
    let state = call.core.state();
    let file = &state.container(&call.node, call.vmid())?.file;
    let section = match call.given("snapshot") {
        Some(_) if call.flag("current") => {
            return Err(Failure::parameter(
                "snapshot",
                "cannot use 'snapshot' parameter with 'current'",
            ));
        }
        Some(name) => file
            .snapshots
            .get(name)
            .cloned()
            .ok_or_else(|| format!("snapshot '{name}' does not exist"))?,
        None if call.flag("current") => file.main.clone(),
        None => merged(file),
    };
    let mut out = printed(&section);
    out.insert("digest".to_owned(), json!(file.digest()));
    if !state.access.may(
        &call.who,
        &format!("/vms/{}", call.vmid()),
        "VM.Config.Options",
    ) {
        out.remove("env");
    }
    Ok(Reply::data(Value::Object(out)))
}

pub(super) fn pending(call: &Call) -> Outcome {
    let state = call.core.state();
    let file = &state.container(&call.node, call.vmid())?.file;
    let mut main = printed(&file.main);
    main.remove("lxc");
    main.insert("digest".to_owned(), json!(file.digest()));
    let mut rows = Vec::new();
    for (key, value) in main {
        let mut row = json!({"key": key, "value": value});
        if let Some(pending) = file.pending.get(&key) {
            row["pending"] = typed(&key, pending);
        }
        if file.pending_delete.contains(&key) {
            row["delete"] = json!(1);
        }
        rows.push(row);
    }
    let fresh = file
        .pending
        .keys
        .iter()
        .filter(|(key, _)| file.main.get(key).is_none());
    rows.extend(fresh.map(|(key, value)| json!({"key": key, "pending": typed(key, value)})));
    Ok(Reply::data(Value::Array(rows)))
}

fn names(call: &Call, key: &str) -> Vec<String> {
    call.text(key)
        .split([',', ';', ' '])
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Changes keys: the checks, then the work, all under the container's lock file.
pub(super) async fn put(call: Call) -> Outcome {
    let vmid = call.vmid();
    let set = keys::config_params(&call);
    let delete = names(&call, "delete");
    let revert = names(&call, "revert");
    if set.is_empty() && delete.is_empty() && revert.is_empty() {
        return Err(Failure::die("no options specified"));
    }
    call.core.state().container(&call.node, vmid)?;
    let _lock = call.core.flock(vmid, FLOCK).await?;
    let (old, unprivileged) = {
        let state = call.core.state();
        let container = state.container(&call.node, vmid)?;
        container.check_lock()?;
        container.check_digest(call.get("digest"))?;
        (
            container.file.main.clone(),
            container.file.main.get("unprivileged") == Some("1"),
        )
    };
    let pool = call.core.state().access.pool_of(vmid).map(str::to_owned);
    let check = |set, delete| {
        keys::check(
            &call,
            &Change {
                vmid,
                pool: pool.as_deref(),
                old: &old,
                set,
                delete,
                unprivileged,
                default_storage: "local",
            },
        )
    };
    let nothing = BTreeMap::new();
    check(&nothing, &delete)?;
    check_names("delete", &delete, &set)?;
    check_names("revert", &revert, &set)?;
    check(&set, &[])?;
    if let Some(key) = set.keys().find(|key| READ_ONLY.contains(&key.as_str())) {
        return Err(Failure::die(format!(
            "unable to modify read-only option: '{key}'"
        )));
    }
    if let Some(key) = delete.iter().find(|key| REQUIRED.contains(&key.as_str())) {
        return Err(Failure::die(format!(
            "unable to delete required option '{key}'"
        )));
    }
    if let Some(key) = delete.iter().find(|key| READ_ONLY.contains(&key.as_str())) {
        return Err(Failure::die(format!(
            "unable to delete read-only option: '{key}'"
        )));
    }
    apply::change(&call, &set, &delete, &revert).await?;
    Ok(Reply::null())
}

fn check_names(
    param: &str,
    names: &[String],
    set: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    for name in names {
        if lookup(SCHEMA.container_keys(), name).is_none()
            || matches!(
                name.as_str(),
                "node" | "vmid" | "delete" | "digest" | "revert"
            )
        {
            return Err(Failure::parameter(
                param,
                format!("unknown option '{name}'"),
            ));
        }
        if set.contains_key(name) {
            return Err(Failure::parameter(
                param,
                format!("you can't use '-{name}' and -{param} {name}' at the same time"),
            ));
        }
    }
    Ok(())
}

/// Puts a value into a section in the form that is kept.
pub(super) fn store(section: &mut Section, key: &str, value: &str) {
    if key == "description" {
        section.description = kept_description(value);
    } else {
        section.set(key, keys::kept(key, value));
    }
}
