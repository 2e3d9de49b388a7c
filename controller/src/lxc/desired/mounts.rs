//! What a container has beside its root file system, as the spec wants it, merged into what Proxmox holds.
//!
//! An `mpN` that exists is always sent as the read-back string with edits: the allocating form makes a new volume each time.

use std::collections::BTreeSet;

use phoenix_crds::{
    Hypervisor, LxcSpec, LxcStatus, Quantity,
    conditions::{ConditionType as C, Reason},
    mounts::{Device, Mount},
};
use proxmox_client::PropertyString;

use crate::fault::Fault;

/// A volume or a directory of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedMount {
    /// Where in the container; what identifies it in the config.
    pub path: String,
    /// What.
    pub kind: MountKind,
    /// The container may only read it.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A volume of a storage.
    Volume {
        /// Where it is made; none where neither the spec nor the hypervisor says.
        storage: Option<String>,
        /// The spec names that storage.
        named: bool,
        /// Its size.
        gib: u64,
        /// Backups take it along.
        backup: bool,
    },
    /// A directory of the node.
    Bind {
        /// Which.
        host_path: String,
    },
}

impl WantedMount {
    /// `current` with this mount's properties put in; equal to `current` where nothing differs.
    pub fn merge(&self, current: &PropertyString) -> PropertyString {
        let mut mount = current.clone();
        if let MountKind::Bind { host_path } = &self.kind {
            mount.set("volume", host_path);
        }
        if let MountKind::Volume { backup, .. } = self.kind {
            flag(&mut mount, "backup", backup);
        }
        flag(&mut mount, "ro", self.read_only);
        mount
    }

    /// As it is set where there is none: a volume is allocated by it, so it is sent once.
    pub fn fresh(&self) -> Option<PropertyString> {
        let volume = match &self.kind {
            MountKind::Volume { storage, gib, .. } => format!("{}:{gib}", storage.as_ref()?),
            MountKind::Bind { host_path } => host_path.clone(),
        };
        let mut mount = PropertyString::parse(&volume, Some("volume"));
        mount.set("mp", &self.path);
        Some(self.merge(&mount))
    }

    /// It is a directory of the node.
    pub fn is_bind(&self) -> bool {
        matches!(self.kind, MountKind::Bind { .. })
    }
}

/// `current` with this device's properties put in.
pub(crate) fn merge_device(device: &Device, current: Option<&PropertyString>) -> PropertyString {
    let mut merged = current
        .cloned()
        .unwrap_or_else(|| PropertyString::parse("", Some("path")));
    merged.set("path", &device.path);
    let number = |n: Option<i64>| n.filter(|n| *n != 0).map(|n| n.to_string());
    for (key, value, default) in [
        ("mode", device.mode.clone(), "0660"),
        ("uid", number(device.uid), "0"),
        ("gid", number(device.gid), "0"),
    ] {
        match value {
            Some(value) => drop(merged.set(key, value)),
            None if merged.get(key).is_some_and(|is| is != default) => drop(merged.remove(key)),
            None => {}
        }
    }
    flag(
        &mut merged,
        "deny-write",
        device.deny_write.unwrap_or_default(),
    );
    merged
}

/// `x=0` means the same as its absence.
fn flag(props: &mut PropertyString, key: &str, on: bool) {
    let is = props.get(key).is_some_and(|v| v != "0");
    if on && !is {
        props.set(key, "1");
    } else if !on && is {
        props.remove(key);
    }
}

/// `spec.mounts`, with the hypervisor's storage where they name none.
pub(super) fn resolve(
    spec: &LxcSpec,
    status: Option<&LxcStatus>,
    hypervisor: &Hypervisor,
    node: &str,
) -> Result<Vec<WantedMount>, Fault> {
    let default = hypervisor
        .spec
        .defaults
        .as_ref()
        .and_then(|d| d.storage.as_ref());
    let there: BTreeSet<&str> = status
        .and_then(|s| s.resolved.as_ref())
        .map(|r| r.mounts.iter().map(|m| m.path.as_str()).collect())
        .unwrap_or_default();
    let inventory: Vec<&str> = hypervisor
        .status
        .iter()
        .flat_map(|s| &s.storages)
        .filter(|s| s.node == node)
        .map(|s| s.name.as_str())
        .collect();
    spec.mounts
        .iter()
        .map(|mount| {
            let wanted = wanted(mount, default)?;
            if let MountKind::Volume { storage, .. } = &wanted.kind
                && !there.contains(wanted.path.as_str())
            {
                on_a_storage(&wanted.path, storage.as_deref(), node, &inventory, spec)?;
            }
            Ok(wanted)
        })
        .collect()
}

fn wanted(mount: &Mount, default: Option<&String>) -> Result<WantedMount, Fault> {
    let invalid = |message: String| Fault::user(C::ConfigInSync, Reason::Invalid, message);
    let kind = match (&mount.host_path, &mount.size) {
        (Some(host_path), _) => MountKind::Bind {
            host_path: host_path.clone(),
        },
        (None, Some(size)) => MountKind::Volume {
            storage: mount.storage.as_ref().or(default).cloned(),
            named: mount.storage.is_some(),
            gib: Quantity::gibibytes(size)
                .map_err(|e| invalid(format!("spec.mounts {:?}: size: {e}.", mount.path)))?,
            backup: mount.backup.unwrap_or_default(),
        },
        (None, None) => {
            return Err(invalid(format!(
                "spec.mounts {:?} has neither size nor hostPath; give exactly one.",
                mount.path
            )));
        }
    };
    Ok(WantedMount {
        path: mount.path.clone(),
        kind,
        read_only: mount.read_only.unwrap_or_default(),
    })
}

/// A volume that is still to be made has a storage that takes it, as far as the hypervisor's inventory tells.
fn on_a_storage(
    path: &str,
    storage: Option<&str>,
    node: &str,
    inventory: &[&str],
    spec: &LxcSpec,
) -> Result<(), Fault> {
    let message = match storage {
        // a clone may have inherited it
        None if spec.source.template_ref.is_some() => return Ok(()),
        None => format!(
            "spec.mounts {path:?} names no storage; give one, or spec.defaults.storage of the hypervisor."
        ),
        Some(storage) if inventory.is_empty() || inventory.contains(&storage) => return Ok(()),
        Some(storage) => format!(
            "spec.mounts {path:?}: storage {storage} of node {node} does not exist or takes no volumes of containers (it lacks the \
             content type rootdir); use one of {}.",
            inventory.join(", ")
        ),
    };
    Err(Fault::user(C::ConfigInSync, Reason::Invalid, message))
}
