//! On which node a container is made: said by the spec, the source or the hypervisor, or chosen once by the plan.

use phoenix_crds::{Hypervisor, LxcSpec, LxcStatus, LxcTemplate, hypervisor::Defaults};

use super::{Source, SourceTemplate, WantedNet, Wish};

/// Proxmox's default for a container that names none.
const DEFAULT_MEMORY: u64 = 512 << 20;

/// What is known of an object when its place is looked for.
pub(super) struct Known<'a> {
    pub(super) spec: &'a LxcSpec,
    pub(super) status: Option<&'a LxcStatus>,
    pub(super) source: &'a Source,
    /// The source's object.
    pub(super) template: Option<&'a LxcTemplate>,
    pub(super) hypervisor: &'a Hypervisor,
    pub(super) defaults: &'a Defaults,
    pub(super) storage: Option<&'a str>,
    pub(super) nets: &'a [WantedNet],
    pub(super) gpus: &'a [u32],
    pub(super) gpu_count: u32,
}

/// The node, or what one must have to be chosen.
pub(super) fn place(known: &Known<'_>) -> (String, Option<Wish>) {
    if let Source::Template(source) = known.source
        && (known.template.is_none() || stays(known, source))
    {
        return (source.node.clone(), None);
    }
    let status = known.status.and_then(|s| s.node.as_ref());
    let said = known
        .spec
        .node
        .as_ref()
        .or(status)
        .or(known.defaults.node.as_ref());
    if let Some(node) = said {
        return (node.clone(), None);
    }
    let nodes = known.hypervisor.status.as_ref().map(|s| s.nodes.as_slice());
    match nodes {
        Some([only]) => (only.name.clone(), None),
        _ => (String::new(), Some(wish(known))),
    }
}

/// A clone that is made where its source is: it shares the source's blocks, unless another node is named, or has them from a storage of
/// that node alone.
fn stays(known: &Known<'_>, source: &SourceTemplate) -> bool {
    (source.linked && known.spec.node.is_none())
        || local_storage(known.spec, known.template, source, known.hypervisor).is_some()
}

/// The storage that keeps a clone from being made on another node than its source's: Proxmox copies between nodes only what both see.
pub(super) fn local_storage(
    spec: &LxcSpec,
    template: Option<&LxcTemplate>,
    source: &SourceTemplate,
    hypervisor: &Hypervisor,
) -> Option<String> {
    let shared = |name: &str| {
        let storages = hypervisor.status.iter().flat_map(|s| &s.storages);
        storages
            .filter(|s| s.name == name && s.node == source.node)
            .any(|s| s.shared == Some(true))
    };
    let is = resolved(template).and_then(|r| r.rootfs.as_ref()?.storage.clone());
    let asked = spec.rootfs.as_ref().and_then(|r| r.storage.clone());
    let Some(is) = is else {
        return Some("a storage that its status does not tell".to_owned());
    };
    [Some(is), asked].into_iter().flatten().find(|s| !shared(s))
}

fn resolved(template: Option<&LxcTemplate>) -> Option<&phoenix_crds::status::Resolved> {
    template?.status.as_ref()?.resolved.as_ref()
}

fn wish(known: &Known<'_>) -> Wish {
    let inherited = resolved(known.template);
    let memory = known
        .spec
        .resources
        .as_ref()
        .and_then(|r| r.memory.clone())
        .or_else(|| inherited.and_then(|r| r.resources.as_ref()?.memory.clone()));
    let storage = known
        .storage
        .map(str::to_owned)
        .or_else(|| inherited.and_then(|r| r.rootfs.as_ref()?.storage.clone()));
    Wish {
        storage,
        bridges: known.nets.iter().map(|n| n.bridge.clone()).collect(),
        os_template: match known.source {
            Source::OsTemplate(volume) => Some(volume.clone()),
            Source::Template(_) => None,
        },
        memory: memory
            .and_then(|m| m.mebibytes().ok())
            .map_or(DEFAULT_MEMORY, |mib| mib << 20),
        gpus: known.gpus.to_vec(),
        gpu_count: known.gpu_count,
        known_gpus: known_gpus(known.hypervisor),
    }
}

/// The GPUs that the hypervisor's status tells of.
fn known_gpus(hypervisor: &Hypervisor) -> Vec<(String, u32)> {
    let gpus = hypervisor.status.iter().flat_map(|s| &s.gpus);
    gpus.filter_map(|g| Some((g.node.clone(), u32::try_from(g.index).ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use phoenix_crds::{HypervisorSpec, HypervisorStatus, LxcTemplateSpec};
    use serde_json::{Value, json};

    use super::*;

    struct Case {
        spec: Value,
        from: Option<bool>,
        defaults: Option<&'static str>,
        status: Option<&'static str>,
        nodes: &'static [&'static str],
    }

    const TWO: &[&str] = &["pve", "pve2"];

    /// The node, or `?` where one is to be chosen.
    fn placed(case: &Case) -> String {
        let mut spec = json!({"source": {"osTemplate": "local:vztmpl/u.tar.zst"}, "resources": {"memory": "2Gi"}});
        spec.as_object_mut()
            .unwrap()
            .extend(case.spec.as_object().unwrap().clone());
        let spec: LxcSpec = serde_json::from_value(spec).unwrap();
        let storage =
            |name: &str, shared: bool| json!({"node": "pve2", "name": name, "shared": shared});
        let nodes: Vec<Value> = case
            .nodes
            .iter()
            .map(|n| json!({"name": n, "online": true}))
            .collect();
        let status: HypervisorStatus = serde_json::from_value(json!({
            "nodes": nodes, "storages": [storage("tank", false), storage("nfs", true)],
        }))
        .unwrap();
        let hypervisor: HypervisorSpec =
            serde_json::from_value(json!({"endpoints": [], "credentialsSecret": "s"})).unwrap();
        let mut hypervisor = Hypervisor::new("home", hypervisor);
        hypervisor.status = Some(status);
        let template: LxcTemplateSpec = serde_json::from_value(
            json!({"source": {"osTemplate": "a:b"}, "snapshot": {"name": "s1"}}),
        )
        .unwrap();
        let mut template = LxcTemplate::new("base", template);
        let on = if case.from == Some(true) {
            "nfs"
        } else {
            "tank"
        };
        template.status =
            Some(serde_json::from_value(json!({"resolved": {"rootfs": {"storage": on}}})).unwrap());
        let linked = spec.source.snapshot.is_some();
        let source = match case.from {
            None => Source::OsTemplate("local:vztmpl/u.tar.zst".to_owned()),
            Some(_) => Source::Template(SourceTemplate {
                name: "base".to_owned(),
                vmid: 900,
                node: "pve2".to_owned(),
                snapshot: "s1".to_owned(),
                linked,
                clone_snapshot: None,
                revision: String::new(),
            }),
        };
        let status: LxcStatus = serde_json::from_value(json!({"node": case.status})).unwrap();
        let (node, wish) = place(&Known {
            spec: &spec,
            status: Some(&status),
            source: &source,
            template: case.from.map(|_| &template),
            hypervisor: &hypervisor,
            defaults: &Defaults {
                node: case.defaults.map(str::to_owned),
                ..Defaults::default()
            },
            storage: Some("nfs"),
            nets: &[],
            gpus: &[],
            gpu_count: 0,
        });
        match wish {
            Some(wish) => {
                assert_eq!((node.as_str(), wish.memory), ("", 2 << 30));
                "?".to_owned()
            }
            None => node,
        }
    }

    #[test]
    fn who_says_where() {
        let case = || Case {
            spec: json!({}),
            from: None,
            defaults: None,
            status: None,
            nodes: TWO,
        };
        let linked = json!({"source": {"templateRef": {"name": "base"}, "snapshot": "s1"}});
        let rows = [
            ("?", case()),
            (
                "pve",
                Case {
                    nodes: &["pve"],
                    ..case()
                },
            ),
            (
                "?",
                Case {
                    nodes: &[],
                    ..case()
                },
            ),
            (
                "pve",
                Case {
                    defaults: Some("pve"),
                    ..case()
                },
            ),
            (
                "pve2",
                Case {
                    defaults: Some("pve"),
                    spec: json!({"node": "pve2"}),
                    ..case()
                },
            ),
            // chosen once: what the hypervisor says later moves nothing
            (
                "pve2",
                Case {
                    defaults: Some("pve"),
                    status: Some("pve2"),
                    ..case()
                },
            ),
            // from local storage: with the source
            (
                "pve2",
                Case {
                    from: Some(false),
                    defaults: Some("pve"),
                    ..case()
                },
            ),
            // a full clone from shared storage
            (
                "?",
                Case {
                    from: Some(true),
                    ..case()
                },
            ),
            (
                "pve",
                Case {
                    from: Some(true),
                    defaults: Some("pve"),
                    ..case()
                },
            ),
            (
                "pve2",
                Case {
                    from: Some(true),
                    spec: json!({"rootfs": {"storage": "tank"}}),
                    defaults: Some("pve"),
                    ..case()
                },
            ),
            // a linked one
            (
                "pve2",
                Case {
                    from: Some(true),
                    spec: linked.clone(),
                    defaults: Some("pve"),
                    ..case()
                },
            ),
            (
                "pve",
                Case {
                    from: Some(true),
                    spec: merged(&linked, &json!({"node": "pve"})),
                    ..case()
                },
            ),
        ];
        for (i, (node, case)) in rows.iter().enumerate() {
            assert_eq!(placed(case), *node, "row {i}");
        }
    }

    fn merged(base: &Value, more: &Value) -> Value {
        let mut base = base.clone();
        base.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        base
    }
}
