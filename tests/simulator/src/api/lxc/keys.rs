//! The keys of a container's configuration: who may set which, and in what form a value is kept.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;

use super::super::Call;
use crate::{
    model::{State, section::Section, volume::numbered},
    reply::Failure,
    schema::{MountSpec, SCHEMA, lookup},
};

/// Keys that a PUT or a create takes beside the configuration's own.
const NOT_CONFIG: [&str; 20] = [
    "node",
    "vmid",
    "delete",
    "digest",
    "revert",
    "ostemplate",
    "password",
    "storage",
    "force",
    "restore",
    "ssh-public-keys",
    "pool",
    "start",
    "unique",
    "bwlimit",
    "ignore-unpack-errors",
    "ha-managed",
    "skiplock",
    "newid",
    "full",
];

/// The configuration's keys among a call's parameters.
pub(super) fn config_params(call: &Call) -> BTreeMap<String, String> {
    let keys = SCHEMA.container_keys();
    let wanted = call
        .params
        .iter()
        .filter(|(key, _)| !NOT_CONFIG.contains(&key.as_str()) && lookup(keys, key).is_some());
    wanted
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// What the permission check looks at.
pub(super) struct Change<'a> {
    pub(super) vmid: u32,
    pub(super) pool: Option<&'a str>,
    pub(super) old: &'a Section,
    pub(super) set: &'a BTreeMap<String, String>,
    pub(super) delete: &'a [String],
    pub(super) unprivileged: bool,
    pub(super) default_storage: &'a str,
}

/// Whether the caller may change these keys.
pub(super) fn check(call: &Call, change: &Change<'_>) -> Result<(), Failure> {
    if call.who.is_root() {
        return Ok(());
    }
    for (key, value) in change.set {
        check_key(call, change, key, Some(value))?;
    }
    change
        .delete
        .iter()
        .try_for_each(|key| check_key(call, change, key, None))
}

fn check_key(
    call: &Call,
    change: &Change<'_>,
    key: &str,
    value: Option<&str>,
) -> Result<(), Failure> {
    match key {
        "cores" | "cpuunits" | "cpulimit" => vm_permission(call, change, "VM.Config.CPU"),
        "memory" | "swap" => vm_permission(call, change, "VM.Config.Memory"),
        "hostname" | "nameserver" | "searchdomain" => {
            vm_permission(call, change, "VM.Config.Network")
        }
        "features" => check_features(call, change, value),
        "hookscript" => Err(Failure::forbidden(
            "changing the hookscript is only allowed for root@pam",
        )),
        // The pool doesn't help here, on a real one neither.
        "tags" => call.demand(&format!("/vms/{}", change.vmid), "VM.Config.Options"),
        _ if numbered(key, "dev") => Err(Failure::forbidden(
            "configuring device passthrough is only allowed for root@pam",
        )),
        _ if numbered(key, "net") => {
            vm_permission(call, change, "VM.Config.Network")?;
            let bridges: BTreeSet<String> = [change.old.get(key), value]
                .into_iter()
                .flatten()
                .filter_map(bridge_path)
                .collect();
            bridges
                .iter()
                .try_for_each(|path| call.demand(path, "SDN.Use"))
        }
        _ if crate::model::volume::is_mount(key) => {
            vm_permission(call, change, "VM.Config.Disk")?;
            value.map_or(Ok(()), |value| check_mount(call, change, key, value))
        }
        _ => vm_permission(call, change, "VM.Config.Options"),
    }
}

fn vm_permission(call: &Call, change: &Change<'_>, privilege: &str) -> Result<(), Failure> {
    let by_pool = change.pool.is_some_and(|pool| {
        call.core
            .state()
            .access
            .may(&call.who, &format!("/pool/{pool}"), privilege)
    });
    if by_pool {
        Ok(())
    } else {
        call.demand(&format!("/vms/{}", change.vmid), privilege)
    }
}

fn check_mount(call: &Call, change: &Change<'_>, key: &str, value: &str) -> Result<(), Failure> {
    let mount = crate::model::volume::Mount::parse(key, value, change.default_storage);
    let only_root = |kind: &str| {
        Err(Failure::forbidden(&format!(
            "mount point type {kind} is only allowed for root@pam"
        )))
    };
    match &mount.spec {
        MountSpec::Bind(_) => only_root("bind"),
        MountSpec::Device(_) => only_root("device"),
        MountSpec::Allocate { storage, .. } => {
            call.demand(&format!("/storage/{storage}"), "Datastore.AllocateSpace")
        }
        MountSpec::Volume { .. } => Ok(()),
    }
}

fn check_features(call: &Call, change: &Change<'_>, value: Option<&str>) -> Result<(), Failure> {
    if !change.unprivileged {
        return Err(Failure::forbidden(
            "changing feature flags for privileged container is only allowed for root@pam",
        ));
    }
    let flags = |text: Option<&str>| -> BTreeMap<String, String> {
        let parts = text
            .into_iter()
            .flat_map(|text| text.split(','))
            .filter_map(|part| part.split_once('='));
        parts
            .filter(|(_, value)| *value != "0")
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    };
    let (mut old, mut new) = (flags(change.old.get("features")), flags(value));
    let nesting = old.remove("nesting") != new.remove("nesting");
    if old != new {
        return Err(Failure::forbidden(
            "changing feature flags (except nesting) is only allowed for root@pam",
        ));
    }
    if nesting {
        vm_permission(call, change, "VM.Allocate")
    } else {
        Ok(())
    }
}

/// Where the right to use a network's bridge is looked up.
pub(super) fn bridge_path(net: &str) -> Option<String> {
    let parts = pairs(net);
    let bridge = parts.get("bridge")?;
    Some(match parts.get("tag") {
        Some(tag) => format!("/sdn/zones/localnetwork/{bridge}/{tag}"),
        None => format!("/sdn/zones/localnetwork/{bridge}"),
    })
}

/// A property string's keys and values.
pub(super) fn pairs(text: &str) -> BTreeMap<String, String> {
    text.split(',')
        .filter_map(|part| part.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// A value in the form that a real Proxmox VE keeps.
pub(super) fn kept(key: &str, value: &str) -> String {
    match key {
        "tags" => tags(value),
        "nameserver" | "searchdomain" => value
            .split([',', ';', ' ', '\0'])
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" "),
        _ if numbered(key, "net") => network(value),
        _ => value.to_owned(),
    }
}

/// Lower case, sorted, each once; nothing becomes one blank.
fn tags(value: &str) -> String {
    let found: BTreeSet<String> = value
        .split([',', ';', ' ', '\t', '\n', '\0'])
        .filter(|tag| !tag.is_empty())
        .map(str::to_lowercase)
        .collect();
    if found.is_empty() {
        " ".to_owned()
    } else {
        found.into_iter().collect::<Vec<_>>().join(";")
    }
}

/// With a hardware address and a type; the name first, the rest in order.
fn network(value: &str) -> String {
    let mut parts = pairs(value);
    let name = parts.remove("name").unwrap_or_default();
    parts
        .entry("hwaddr".to_owned())
        .or_insert_with(hardware_address);
    parts
        .entry("type".to_owned())
        .or_insert_with(|| "veth".to_owned());
    parts
        .into_iter()
        .fold(format!("name={name}"), |text, (key, value)| {
            format!("{text},{key}={value}")
        })
}

/// The same network with an address of its own.
pub(super) fn with_new_address(net: &str) -> String {
    let without: Vec<&str> = net
        .split(',')
        .filter(|part| !part.starts_with("hwaddr="))
        .collect();
    network(&without.join(","))
}

fn hardware_address() -> String {
    let mut rng = rand::rng();
    let tail: [u8; 3] = rng.random();
    format!("BC:24:11:{:02X}:{:02X}:{:02X}", tail[0], tail[1], tail[2])
}

/// The device path of a `devN`.
pub(super) fn device_path(value: &str) -> &str {
    value
        .split(',')
        .find_map(|part| {
            part.strip_prefix("path=")
                .or_else(|| part.starts_with('/').then_some(part))
        })
        .unwrap_or_default()
}

/// What makes the generated container configuration fail: then every PUT fails, though it is stored, and so does a start.
pub(super) fn generated_problem(
    state: &State,
    node: &str,
    section: &Section,
) -> Result<(), String> {
    for (key, value) in &section.keys {
        if numbered(key, "net")
            && let Some(bridge) = pairs(value).get("bridge")
            && !state.bridges(node).contains(bridge)
        {
            return Err(format!("bridge '{bridge}' does not exist"));
        }
        if numbered(key, "dev") {
            device_exists(state, node, value)?;
        }
    }
    Ok(())
}

/// Whether the node has the device that a `devN` names.
pub(super) fn device_exists(state: &State, node: &str, value: &str) -> Result<(), String> {
    let path = device_path(value);
    let known = state
        .nodes
        .get(node)
        .is_some_and(|node| node.shape.devices.iter().any(|device| device == path));
    if known {
        Ok(())
    } else {
        Err(format!("Device {path} does not exist"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_kept_as_recorded() {
        assert_eq!(
            kept("tags", "zeta;Alpha;k8s,beta gamma;alpha"),
            "alpha;beta;gamma;k8s;zeta"
        );
        assert_eq!(kept("tags", ""), " ");
        assert_eq!(kept("nameserver", "1.1.1.1 9.9.9.9"), "1.1.1.1 9.9.9.9");
        assert_eq!(kept("dev0", "path=/dev/null"), "path=/dev/null");
        let net = kept("net0", "name=eth0,bridge=vmbr0,ip=10.0.2.50/24,gw=10.0.2.2");
        assert!(
            net.starts_with("name=eth0,bridge=vmbr0,gw=10.0.2.2,hwaddr=BC:24:11:"),
            "{net}"
        );
        assert!(net.ends_with(",ip=10.0.2.50/24,type=veth"), "{net}");
        assert_eq!(kept("net0", &net), net);
        assert_ne!(with_new_address(&net), net);
    }

    #[test]
    fn devices_are_found_in_both_spellings() {
        assert_eq!(device_path("/dev/nvidia0,mode=0666"), "/dev/nvidia0");
        assert_eq!(device_path("mode=0666,path=/dev/null"), "/dev/null");
    }
}
