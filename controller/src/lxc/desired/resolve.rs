//! Puts a `Desired` together.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt, core::SelectorExt};
use phoenix_crds::{
    Hypervisor, LxcSpec, LxcStatus, Sharing,
    conditions::{ConditionType as C, Reason},
    lxc::DeletionPolicy,
    quantity::Quantity,
};

use super::{
    Absence, Desired, Goal, Present, Source, Target, WantedNet, allowed, mounts,
    place::{Known, place},
    setup, source,
};
use crate::{context::Context, engine::key_of, fault::Fault, hash, lxc::LxcKind};

/// Counts changes of our own that alter what a build makes of the same spec; an upgrade alone must change no revision.
const RECIPE: &str = "1";

/// What the object asks for.
pub(crate) async fn desired<K: LxcKind>(object: &K, cx: &Context) -> Result<Desired, Fault> {
    let spec = object.spec_shared();
    let deleting = object.meta().deletion_timestamp.is_some();
    let hypervisor = hypervisor(object, deleting, cx)?;
    let status = object.status_shared();
    let target = Target {
        key: key_of(object),
        uid: object.uid().unwrap_or_default(),
        instance: hypervisor
            .as_ref()
            .and_then(|h| h.spec.instance.clone())
            .unwrap_or_else(|| cx.instance.clone()),
        hypervisor: hypervisor
            .as_ref()
            .map(ResourceExt::name_any)
            .or_else(|| status.and_then(|s| s.hypervisor.clone()))
            .unwrap_or_default(),
        vmid: status
            .and_then(|s| s.vmid)
            .and_then(|v| u32::try_from(v).ok()),
        node_hint: status.and_then(|s| s.node.clone()),
    };
    let shutdown_timeout = spec.shutdown_timeout().into();
    if deleting {
        let retain = spec.deletion_policy == Some(DeletionPolicy::Retain);
        let children = children(object, cx);
        return Ok(Desired {
            target,
            goal: Goal::Absent(Absence {
                retain,
                children,
                shutdown_timeout,
            }),
        });
    }
    let Some(hypervisor) = hypervisor else {
        return Err(Fault::bug("a hypervisor was resolved to nothing"));
    };
    namespace_allowed(object, &hypervisor, cx).await?;
    // resolved once: a second hypervisor that appears while this one waits for something changes nothing for it
    let present = present(object, &hypervisor, cx)
        .await
        .map_err(|fault| fault.on(&hypervisor.name_any()))?;
    Ok(Desired {
        target,
        goal: Goal::Present(Box::new(present)),
    })
}

/// The hypervisor of an object: the one it has, the one it names, or the only one there is.
fn hypervisor<K: LxcKind>(
    object: &K,
    deleting: bool,
    cx: &Context,
) -> Result<Option<Hypervisor>, Fault> {
    let named = object
        .spec_shared()
        .hypervisor_ref
        .as_ref()
        .map(|r| r.name.as_str());
    let kept = object.status_shared().and_then(|s| s.hypervisor.as_deref());
    let not_found =
        |message: String| Fault::user(C::HypervisorReady, Reason::HypervisorNotFound, message);
    if let (Some(named), Some(kept)) = (named, kept)
        && named != kept
        && !deleting
    {
        let message = format!(
            "spec.hypervisorRef names {named}, but the container is on {kept} and does not move; set it back, or make a new object."
        );
        return Err(Fault::user(C::ConfigInSync, Reason::Invalid, message));
    }
    if let Some(name) = kept.or(named) {
        return match cx.stores.hypervisor(name) {
            Some(found) => Ok(Some(found)),
            // nothing was ever asked of it
            None if deleting && object.status_shared().is_none_or(|s| s.vmid.is_none()) => Ok(None),
            None => Err(not_found(format!(
                "Hypervisor {name} does not exist; create it, or correct spec.hypervisorRef."
            ))),
        };
    }
    if deleting {
        return Ok(None);
    }
    let mut all = cx.stores.all_hypervisors();
    match all.len() {
        1 => Ok(all.pop()),
        0 => Err(not_found(
            "There is no Hypervisor; create one (see manifests/hypervisor).".to_owned(),
        )),
        _ => {
            let names: Vec<String> = all.iter().map(ResourceExt::name_any).collect();
            Err(not_found(format!(
                "There are several hypervisors ({}); say which in spec.hypervisorRef.",
                names.join(", ")
            )))
        }
    }
}

/// The hypervisor may be used from this namespace.
async fn namespace_allowed<K: LxcKind>(
    object: &K,
    hypervisor: &Hypervisor,
    cx: &Context,
) -> Result<(), Fault> {
    let Some(selector) = &hypervisor.spec.allowed_namespaces else {
        return Ok(());
    };
    let name = object.namespace().unwrap_or_default();
    let api: Api<Namespace> = Api::all(cx.kube.clone());
    let labels = api
        .get(&name)
        .await
        .map_err(|e| Fault::kube(&e, &format!("reading namespace {name}")))?
        .metadata
        .labels
        .unwrap_or_default();
    let selector = kube::core::Selector::try_from(selector.clone()).map_err(|e| {
        let message = format!(
            "Hypervisor {}: spec.allowedNamespaces is no valid selector: {e}",
            hypervisor.name_any()
        );
        Fault::user(C::HypervisorReady, Reason::NamespaceNotAllowed, message)
    })?;
    if selector.matches(&labels) {
        return Ok(());
    }
    let message = format!(
        "Hypervisor {} may not be used from namespace {name}: its labels don't match spec.allowedNamespaces there.",
        hypervisor.name_any()
    );
    Err(Fault::user(
        C::HypervisorReady,
        Reason::NamespaceNotAllowed,
        message,
    ))
}

/// Objects that were cloned from this one and are still there.
fn children<K: LxcKind>(object: &K, cx: &Context) -> Vec<String> {
    if !K::SEALED {
        return Vec::new();
    }
    let (me, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    let mine = |ns: Option<String>, template: Option<&str>| {
        ns.as_deref() == Some(&namespace) && template == Some(&me)
    };
    let templates = cx.stores.all_templates();
    let containers = cx.stores.all_containers();
    let exists =
        |status: Option<&phoenix_crds::LxcStatus>| status.is_some_and(|s| s.vmid.is_some());
    let t = templates
        .iter()
        .filter(|t| mine(t.namespace(), crate::lxc::template_of(*t)) && exists(t.status.as_ref()));
    let c = containers
        .iter()
        .filter(|c| mine(c.namespace(), crate::lxc::template_of(*c)) && exists(c.status.as_ref()));
    t.map(|t| format!("lxctemplate/{}", t.name_any()))
        .chain(c.map(|c| format!("lxccontainer/{}", c.name_any())))
        .collect()
}

async fn present<K: LxcKind>(
    object: &K,
    hypervisor: &Hypervisor,
    cx: &Context,
) -> Result<Present, Fault> {
    let (spec, status) = (object.spec_shared(), object.status_shared());
    let namespace = object.namespace().unwrap_or_default();
    let created = crate::lxc::was_created(status);
    let defaults = hypervisor.spec.defaults.clone().unwrap_or_default();
    let disk_gib = quantity(
        spec.rootfs.as_ref().and_then(|r| r.size.as_ref()),
        "spec.rootfs.size",
        Quantity::gibibytes,
    )?;
    let source = source::resolve(spec, &namespace, status, created, cx)?;
    let template = match &source {
        Source::Template(s) => cx.stores.template(&namespace, &s.name),
        Source::OsTemplate(_) => None,
    };
    if let (Source::Template(s), Some(template), false) = (&source, &template, created) {
        source::compatible(spec, s, template, disk_gib, hypervisor)?;
    }
    let from_scratch = matches!(source, Source::OsTemplate(_));
    let storage = spec
        .rootfs
        .as_ref()
        .and_then(|r| r.storage.clone())
        .or_else(|| defaults.storage.clone().filter(|_| from_scratch));
    if from_scratch && storage.is_none() {
        let message = "no storage is named: give spec.rootfs.storage, or spec.defaults.storage of the hypervisor.";
        return Err(Fault::user(C::ConfigInSync, Reason::Invalid, message));
    }
    let setup = match &spec.setup {
        Some(setup) => Some(setup::resolve(setup, &namespace, cx).await?),
        None => None,
    };
    let setup_mark = setup
        .as_ref()
        .map_or(setup::NO_SETUP.to_owned(), |s| s.hash.clone());
    let keys = keys(spec, &defaults, from_scratch)?;
    let features = keys.get("features").cloned().unwrap_or_default();
    let mounted = if K::SEALED {
        let paths: Vec<&str> = spec.mounts.iter().map(|m| m.path.as_str()).collect();
        paths.join(":")
    } else {
        String::new()
    };
    let built_from = status
        .filter(|_| created)
        .and_then(|s| s.source.as_ref()?.revision.clone());
    let range = hypervisor
        .spec
        .vmid_range
        .map_or(100..=999_999_999, |r| bounded(r.start)..=bounded(r.end));
    let nets = nets(spec, &defaults)?;
    let held = gpus(spec, status);
    let gpu_count = spec
        .gpus
        .as_ref()
        .and_then(|g| u32::try_from(g.count?).ok());
    let (node, wish) = place(&Known {
        spec,
        status,
        source: &source,
        template: template.as_ref(),
        hypervisor,
        defaults: &defaults,
        storage: storage.as_deref(),
        nets: nets.as_deref().unwrap_or_default(),
        gpus: &held,
        gpu_count: gpu_count.unwrap_or_default(),
    });
    Ok(Present {
        pinned: spec.vmid.map(bounded),
        range,
        taken: taken(object, &hypervisor.name_any(), cx),
        mounts: mounts::resolve(spec, status, hypervisor, &node)?,
        devices: spec.devices.clone(),
        pool: spec.pool.clone().or(defaults.pool.clone()),
        not_allowed: allowed::refusal(spec, hypervisor),
        node,
        wish,
        hostname: spec.hostname.clone().unwrap_or_else(|| object.name_any()),
        nets,
        unprivileged: spec.unprivileged,
        tags: spec.tags.clone(),
        description: spec.description.clone(),
        storage,
        disk_gib,
        gpus: held,
        gpu_count,
        gpus_exclusive: spec
            .gpus
            .as_ref()
            .is_some_and(|g| g.sharing != Sharing::Shared),
        revision: hash::short(
            &[
                RECIPE,
                // a template says when its source went on; a container stays what it was made from
                built_from
                    .as_deref()
                    .filter(|_| !K::SEALED)
                    .unwrap_or_else(|| source.revision()),
                &setup_mark,
                &features,
                if spec.unprivileged == Some(false) {
                    "privileged"
                } else {
                    ""
                },
                // a container's own volumes shape nothing that is cloned
                &mounted,
            ][..if mounted.is_empty() { 5 } else { 6 }],
        ),
        built_from,
        source,
        setup,
        setup_mark,
        keys,
        shutdown_timeout: spec.shutdown_timeout().into(),
        role: object.role(cx).await?,
    })
}

/// The GPUs of the spec, or as many as it asks for where they were picked.
fn gpus(spec: &LxcSpec, status: Option<&LxcStatus>) -> Vec<u32> {
    let minor = |index: i64| u32::try_from(index).ok();
    match spec.gpus.as_ref().and_then(|gpus| gpus.count) {
        None => spec
            .gpu_indices()
            .iter()
            .copied()
            .filter_map(minor)
            .collect(),
        Some(count) => {
            let picked: Vec<u32> = status
                .iter()
                .flat_map(|s| s.gpus.iter())
                .filter(|g| g.sharing.is_some())
                .filter_map(|g| minor(g.index))
                .collect();
            let enough = i64::try_from(picked.len()) == Ok(count);
            picked.into_iter().filter(|_| enough).collect()
        }
    }
}

fn bounded(vmid: i64) -> u32 {
    u32::try_from(vmid).unwrap_or(u32::MAX)
}

/// VMIDs that other objects of this hypervisor hold.
fn taken<K: LxcKind>(object: &K, hypervisor: &str, cx: &Context) -> Vec<u32> {
    let uid = object.uid();
    let templates = cx
        .stores
        .all_templates()
        .into_iter()
        .map(|t| (t.uid(), t.status, t.spec.shared.vmid));
    let containers = cx
        .stores
        .all_containers()
        .into_iter()
        .map(|c| (c.uid(), c.status, c.spec.shared.vmid));
    templates
        .chain(containers)
        .filter(|(other, status, _)| {
            *other != uid
                && status
                    .as_ref()
                    .is_none_or(|s| s.hypervisor.as_deref().is_none_or(|h| h == hypervisor))
        })
        .flat_map(|(_, status, pinned)| [status.and_then(|s| s.vmid), pinned])
        .flatten()
        .map(bounded)
        .collect()
}

fn quantity<E: std::fmt::Display>(
    value: Option<&Quantity>,
    field: &str,
    unit: impl Fn(&Quantity) -> Result<u64, E>,
) -> Result<Option<u64>, Fault> {
    value
        .map(|q| {
            unit(q).map_err(|e| {
                Fault::user(C::ConfigInSync, Reason::Invalid, format!("{field}: {e}."))
            })
        })
        .transpose()
}

/// Config keys that the spec fixes, in Proxmox's spelling.
fn keys(
    spec: &LxcSpec,
    defaults: &phoenix_crds::hypervisor::Defaults,
    from_scratch: bool,
) -> Result<BTreeMap<&'static str, String>, Fault> {
    let mut keys = BTreeMap::new();
    let resources = spec.resources.clone().unwrap_or_default();
    let mut put = |key: &'static str, value: Option<String>| {
        if let Some(value) = value {
            keys.insert(key, value);
        }
    };
    put("cores", resources.cores.map(|n| n.to_string()));
    put("cpulimit", resources.cpu_limit.map(|n| n.to_string()));
    put("cpuunits", resources.cpu_units.map(|n| n.to_string()));
    put(
        "memory",
        quantity(
            resources.memory.as_ref(),
            "spec.resources.memory",
            Quantity::mebibytes,
        )?
        .map(|n| n.to_string()),
    );
    put(
        "swap",
        quantity(
            resources.swap.as_ref(),
            "spec.resources.swap",
            Quantity::mebibytes,
        )?
        .map(|n| n.to_string()),
    );
    put("features", spec.features.as_ref().map(features));
    let dns = spec.dns.clone().unwrap_or_default();
    let servers = if dns.nameservers.is_empty() && from_scratch {
        defaults.nameservers.clone()
    } else {
        dns.nameservers
    };
    put(
        "nameserver",
        (!servers.is_empty()).then(|| servers.join(" ")),
    );
    put("searchdomain", dns.search_domain);
    if let Some(boot) = &spec.boot {
        put("onboot", boot.on_boot.map(|on| u8::from(on).to_string()));
        let delay = boot
            .up_delay
            .map(|d| std::time::Duration::from(d).as_secs());
        let parts = [
            boot.order.map(|n| format!("order={n}")),
            delay.map(|s| format!("up={s}")),
        ];
        let startup: Vec<String> = parts.into_iter().flatten().collect();
        put("startup", (!startup.is_empty()).then(|| startup.join(",")));
    }
    Ok(keys)
}

fn features(features: &phoenix_crds::lxc::Features) -> String {
    let flags = [
        ("force_rw_sys", features.force_rw_sys),
        ("fuse", features.fuse),
        ("keyctl", features.keyctl),
        ("mknod", features.mknod),
        ("nesting", features.nesting),
    ];
    let mut on: Vec<String> = flags
        .iter()
        .filter(|(_, f)| *f == Some(true))
        .map(|(name, _)| format!("{name}=1"))
        .collect();
    if !features.mount.is_empty() {
        on.push(format!("mount={}", features.mount.join(";")));
    }
    on.join(",")
}

fn nets(
    spec: &LxcSpec,
    defaults: &phoenix_crds::hypervisor::Defaults,
) -> Result<Option<Vec<WantedNet>>, Fault> {
    if spec.network.is_empty() {
        return Ok(None);
    }
    spec.network
        .iter()
        .map(|net| {
            let Some(bridge) = net.bridge.clone().or_else(|| defaults.bridge.clone()) else {
                let message = format!("spec.network {:?} names no bridge; give one, or spec.defaults.bridge of the hypervisor.", net.name);
                return Err(Fault::user(C::ConfigInSync, Reason::Invalid, message));
            };
            let fixed = net.address.as_deref().is_some_and(|a| a != "dhcp");
            let gateway = net.gateway.clone().or_else(|| defaults.gateway.clone().filter(|_| fixed && spec.network.len() == 1));
            let properties = [
                ("ip", net.address.clone()),
                ("gw", gateway.filter(|_| fixed)),
                ("ip6", net.address6.clone()),
                ("gw6", net.gateway6.clone()),
                ("tag", net.vlan.map(|n| n.to_string())),
                ("mtu", net.mtu.map(|n| n.to_string())),
                ("rate", net.rate.map(|n| n.to_string())),
                ("firewall", net.firewall.map(|f| u8::from(f).to_string())),
            ];
            Ok(WantedNet {
                name: net.name.clone(),
                bridge,
                properties: properties.into_iter().filter_map(|(k, v)| Some((k, v?))).collect(),
                hwaddr: net.hwaddr.as_ref().map(|a| a.to_uppercase()),
            })
        })
        .collect::<Result<Vec<_>, _>>()
        .map(Some)
}
