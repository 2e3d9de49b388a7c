//! What a container is made from: an OS template of Proxmox, or a sealed `LxcTemplate`.

use phoenix_crds::{
    Hypervisor, LxcSpec, LxcStatus, LxcTemplate, Strategy as SpecStrategy,
    conditions::{ConditionType as C, Reason},
};

use super::place::local_storage;
use crate::{condition::Truth, context::Context, fault::Fault};

/// From what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A volume such as `local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst`.
    OsTemplate(String),
    /// A sealed template.
    Template(SourceTemplate),
}

/// A sealed template, as its status tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceTemplate {
    /// Name of the object.
    pub name: String,
    /// Its VMID.
    pub vmid: u32,
    /// Its node.
    pub node: String,
    /// The name that stands for its sealed state.
    pub snapshot: String,
    /// Clones share its blocks.
    pub linked: bool,
    /// The Proxmox snapshot that full clones are made from, where there is one.
    pub clone_snapshot: Option<String>,
    /// Its revision.
    pub revision: String,
}

impl Source {
    /// What it contributes to the revision of what is made from it.
    pub(super) fn revision(&self) -> &str {
        match self {
            Self::OsTemplate(volume) => volume,
            Self::Template(t) => &t.revision,
        }
    }
}

/// Resolves `spec.source`. An object whose container exists no longer depends on its source being there.
pub(super) fn resolve(
    spec: &LxcSpec,
    namespace: &str,
    status: Option<&LxcStatus>,
    created: bool,
    cx: &Context,
) -> Result<Source, Fault> {
    if let Some(volume) = &spec.source.os_template {
        return Ok(Source::OsTemplate(volume.clone()));
    }
    let Some(name) = spec.source.template_ref.as_ref().map(|r| r.name.clone()) else {
        return Err(Fault::user(
            C::ConfigInSync,
            Reason::Invalid,
            "spec.source names neither templateRef nor osTemplate; give exactly one.",
        ));
    };
    let template = cx.stores.template(namespace, &name);
    let source = match template.as_ref().map(|t| sealed(t, &name)) {
        Some(Ok(source)) => source,
        _ if created => return Ok(Source::Template(remembered(name, status))),
        Some(Err(waiting)) => return Err(waiting),
        None => {
            let message = format!(
                "LxcTemplate {namespace}/{name} (spec.source.templateRef) does not exist. Create it, and this goes on by itself; if the name is \
                 wrong, make this object anew with the right one."
            );
            return Err(Fault::retry(
                C::SourceReady,
                Reason::TemplateNotFound,
                message,
            ));
        }
    };
    if !created && let (Some(template), Some(expected)) = (&template, &spec.source.snapshot) {
        snapshot_matches(template, expected, &source.snapshot)?;
    }
    Ok(Source::Template(source))
}

fn snapshot_matches(template: &LxcTemplate, expected: &str, is: &str) -> Result<(), Fault> {
    if expected == is {
        return Ok(());
    }
    let message = format!(
        "spec.source.snapshot expects {expected:?}, but LxcTemplate {} is sealed as {is:?}. Make this object anew with the right name, or without one.",
        template.metadata.name.as_deref().unwrap_or_default()
    );
    Err(Fault::user(
        C::SourceReady,
        Reason::SnapshotMismatch,
        message,
    ))
}

fn sealed(template: &LxcTemplate, name: &str) -> Result<SourceTemplate, Fault> {
    let status = template.status.clone().unwrap_or_default();
    let truth = |kind: C| status.conditions.iter().find(|c| c.type_ == kind.as_str());
    let is_sealed = truth(C::Sealed).is_some_and(|c| c.status == <&str>::from(Truth::True));
    let snapshot = status.snapshot.clone().unwrap_or_default();
    let facts = (
        status.vmid.and_then(|v| u32::try_from(v).ok()),
        status.node.clone(),
        snapshot.name.clone(),
        status.revision.clone(),
    );
    if let (true, None, (Some(vmid), Some(node), Some(snapshot_name), Some(revision))) =
        (is_sealed, &template.metadata.deletion_timestamp, facts)
    {
        let linked = snapshot.strategy.as_deref() == Some(<&str>::from(super::Strategy::Linked));
        // a full clone of a converted container has no snapshot to start from
        let clone_snapshot = (!linked
            && snapshot
                .zfs_snapshot
                .as_deref()
                .is_some_and(|z| !z.ends_with("@__base__")))
        .then(|| snapshot_name.clone());
        return Ok(SourceTemplate {
            name: name.to_owned(),
            vmid,
            node,
            snapshot: snapshot_name,
            linked,
            clone_snapshot,
            revision,
        });
    }
    if template.metadata.deletion_timestamp.is_some() {
        let message = format!("LxcTemplate {name} is being deleted.");
        return Err(Fault::retry(
            C::SourceReady,
            Reason::WaitingForTemplate,
            message,
        ));
    }
    let message = match truth(C::Stalled) {
        Some(stalled) => format!(
            "LxcTemplate {name} is not sealed and needs somebody's hand: {}",
            stalled.message
        ),
        // not in which state it is: that would change, and be written here, with its every step
        None => format!("LxcTemplate {name} is not sealed yet."),
    };
    Err(Fault::retry(
        C::SourceReady,
        Reason::WaitingForTemplate,
        message,
    ))
}

/// The source of a container that exists, from its own status.
fn remembered(name: String, status: Option<&LxcStatus>) -> SourceTemplate {
    let source = status.and_then(|s| s.source.clone()).unwrap_or_default();
    SourceTemplate {
        name,
        vmid: 0,
        node: status.and_then(|s| s.node.clone()).unwrap_or_default(),
        snapshot: source.snapshot.unwrap_or_default(),
        linked: true,
        clone_snapshot: None,
        revision: source.revision.unwrap_or_default(),
    }
}

/// What a clone can't have other than its source: checked before anything is created.
pub(super) fn compatible(
    spec: &LxcSpec,
    source: &SourceTemplate,
    template: &LxcTemplate,
    disk_gib: Option<u64>,
    hypervisor: &Hypervisor,
) -> Result<(), Fault> {
    let resolved = template
        .status
        .as_ref()
        .and_then(|s| s.resolved.clone())
        .unwrap_or_default();
    let refuse = |message: String| Err(Fault::user(C::SourceReady, Reason::Incompatible, message));
    let name = &source.name;
    if let (Some(asked), Some(is)) = (spec.unprivileged, resolved.unprivileged)
        && asked != is
    {
        return refuse(format!(
            "spec.unprivileged is {asked}, but {name} is {is}, and Proxmox can't change that between a clone and its source."
        ));
    }
    let rootfs = resolved.rootfs.unwrap_or_default();
    if let (Some(asked), Some(is)) = (disk_gib, rootfs.size.and_then(|s| s.gibibytes().ok()))
        && asked < is
    {
        return refuse(format!(
            "spec.rootfs.size is {asked}Gi, but {name} has {is}Gi, and a disk never shrinks; ask for {is}Gi or more."
        ));
    }
    if let (true, Some(asked), Some(is)) = (
        source.linked,
        spec.rootfs.as_ref().and_then(|r| r.storage.as_ref()),
        &rootfs.storage,
    ) && asked != is
    {
        return refuse(format!(
            "spec.rootfs.storage is {asked}, but a linked clone stays on its source's storage {is}; leave it out, or seal {name} with strategy Full."
        ));
    }
    for mount in &spec.mounts {
        let Some(is) = resolved.mounts.iter().find(|m| m.path == mount.path) else {
            continue;
        };
        let path = &mount.path;
        if mount.host_path.is_some() {
            return refuse(format!(
                "spec.mounts {path:?} asks for a hostPath, but {name} has a volume there, which its clones inherit; choose another path."
            ));
        }
        let gibibytes = |m: &phoenix_crds::mounts::Mount| m.size.as_ref()?.gibibytes().ok();
        if let (Some(asked), Some(has)) = (gibibytes(mount), gibibytes(is))
            && asked < has
        {
            return refuse(format!(
                "spec.mounts {path:?} asks for {asked}Gi, but the volume of {name} has {has}Gi, and a volume never shrinks; ask for {has}Gi or more."
            ));
        }
        if let (true, Some(asked), Some(has)) = (source.linked, &mount.storage, &is.storage)
            && asked != has
        {
            return refuse(format!(
                "spec.mounts {path:?} asks for storage {asked}, but a linked clone's volumes stay on their source's storage {has}; leave it out."
            ));
        }
    }
    if let Some(node) = spec.node.as_ref().filter(|node| **node != source.node)
        && let Some(storage) = local_storage(spec, Some(template), source, hypervisor)
    {
        return refuse(format!(
            "spec.node is {node}, but {name} is on {}, and storage {storage} is not shared between nodes: a clone to another node needs \
             shared storage. Leave spec.node out in a new object, or seal {name} on shared storage.",
            source.node
        ));
    }
    if spec.network.is_empty() && !resolved.network.is_empty() {
        let message = format!(
            "spec.network is left out, but {name} has a network: two clones would boot with one address. List the interfaces."
        );
        return Err(Fault::user(C::ConfigInSync, Reason::Invalid, message));
    }
    Ok(())
}

impl From<SpecStrategy> for super::Strategy {
    fn from(strategy: SpecStrategy) -> Self {
        match strategy {
            SpecStrategy::Linked => Self::Linked,
            SpecStrategy::Full => Self::Full,
            // a strategy of a newer API: the one that looks at the storage is the safe reading
            SpecStrategy::Auto | SpecStrategy::Unknown => Self::Auto,
        }
    }
}
