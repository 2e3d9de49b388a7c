//! What a Hypervisor lets namespaced objects ask for. Pure: spec against spec, before anything is done for either.

use std::net::IpAddr;

use kube::ResourceExt;
use phoenix_crds::{Hypervisor, LxcSpec};

/// What the spec asks for and may not have, each in a sentence; `None` where all is allowed. What is inherited was judged at the template.
pub(super) fn refusal(spec: &LxcSpec, hypervisor: &Hypervisor) -> Option<String> {
    let name = hypervisor.name_any();
    let allowed = hypervisor.spec.allowed.clone().unwrap_or_default();
    let defaults = hypervisor.spec.defaults.clone().unwrap_or_default();
    let mut sentences = Vec::new();
    let mut refuse = |field: String, what: &str, list: &str| {
        sentences.push(format!(
            "{field} asks for {what}, which Hypervisor {name} does not allow: choose another, or have it added to spec.allowed.{list} there."
        ));
    };
    let listed = |what: &str, list: &[String], default: Option<&String>| {
        default.is_some_and(|d| d == what) || list.iter().any(|l| l == what)
    };

    let rootfs = spec.rootfs.as_ref().and_then(|r| r.storage.as_ref());
    let rootfs = rootfs.map(|s| ("spec.rootfs.storage".to_owned(), s));
    let volumes = spec
        .mounts
        .iter()
        .filter_map(|m| Some((format!("spec.mounts {:?}", m.path), m.storage.as_ref()?)));
    for (field, storage) in rootfs.into_iter().chain(volumes) {
        if !listed(storage, &allowed.storages, defaults.storage.as_ref()) {
            refuse(field, &format!("storage {storage}"), "storages");
        }
    }
    for net in &spec.network {
        let field = format!("spec.network {:?}", net.name);
        if let Some(bridge) = &net.bridge
            && !listed(bridge, &allowed.bridges, defaults.bridge.as_ref())
        {
            refuse(field.clone(), &format!("bridge {bridge}"), "bridges");
        }
        for address in [&net.address, &net.address6].into_iter().flatten() {
            if !address_allowed(address, &allowed.addresses) {
                refuse(field.clone(), &format!("address {address}"), "addresses");
            }
        }
    }
    if let Some(pool) = &spec.pool
        && !listed(pool, &allowed.pools, defaults.pool.as_ref())
    {
        refuse("spec.pool".to_owned(), &format!("pool {pool}"), "pools");
    }
    for mount in &spec.mounts {
        if let Some(path) = &mount.host_path
            && !path_allowed(path, &allowed.host_paths)
        {
            let field = format!("spec.mounts {:?}", mount.path);
            refuse(field, &format!("hostPath {path}"), "hostPaths");
        }
    }
    for device in &spec.devices {
        if !path_allowed(&device.path, &allowed.devices) {
            let what = format!("device {}", device.path);
            refuse("spec.devices".to_owned(), &what, "devices");
        }
    }
    let mut switch = |asked: bool, on: bool, what: &str, field: &str| {
        if asked && !on {
            sentences.push(format!(
                "{what}, which Hypervisor {name} does not allow: leave it out, or have spec.allowed.{field} set to true there."
            ));
        }
    };
    switch(
        spec.unprivileged == Some(false),
        allowed.privileged.unwrap_or_default(),
        "spec.unprivileged asks for a privileged container",
        "privileged",
    );
    switch(
        spec.gpus.is_some(),
        allowed.gpus.unwrap_or(true),
        "spec.gpus asks for GPUs",
        "gpus",
    );
    (!sentences.is_empty()).then(|| sentences.join(" "))
}

/// A static address lies in one of the networks; without a list any does.
fn address_allowed(address: &str, networks: &[String]) -> bool {
    let Some((address, _)) = address.split_once('/') else {
        // dhcp, auto
        return true;
    };
    networks.is_empty()
        || address
            .parse()
            .is_ok_and(|address| networks.iter().any(|network| within(address, network)))
}

fn within(address: IpAddr, network: &str) -> bool {
    let parts = network
        .split_once('/')
        .and_then(|(base, length)| Some((base.parse().ok()?, length.parse::<u32>().ok()?)));
    let same = |a: u128, b: u128, width: u32, length: u32| {
        length <= width && (a ^ b).checked_shr(width - length).unwrap_or(0) == 0
    };
    match (address, parts) {
        (IpAddr::V4(a), Some((IpAddr::V4(b), length))) => {
            same(u32::from(a).into(), u32::from(b).into(), 32, length)
        }
        (IpAddr::V6(a), Some((IpAddr::V6(b), length))) => {
            same(u128::from(a), u128::from(b), 128, length)
        }
        _ => false,
    }
}

/// Whether one of the patterns stands for a path: segment by segment, and only for a path that says plainly where it leads.
fn path_allowed(path: &str, patterns: &[String]) -> bool {
    let Some(segments) = plain(path) else {
        return false;
    };
    patterns.iter().any(|pattern| {
        plain(pattern).is_some_and(|pattern| {
            pattern.len() == segments.len()
                && pattern.iter().zip(&segments).all(|(p, s)| segment(p, s))
        })
    })
}

/// The segments of an absolute path; `None` where it has empty ones, `.` or `..`.
fn plain(path: &str) -> Option<Vec<&str>> {
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let odd = |s: &&str| matches!(*s, "" | "." | "..");
    (!segments.iter().any(odd)).then_some(segments)
}

/// `*` stands for any characters, none included.
fn segment(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(text) = text.strip_prefix(head) else {
        return false;
    };
    let starts = text.char_indices().map(|(i, _)| i).chain([text.len()]);
    starts
        .filter_map(|i| text.get(i..))
        .any(|tail| segment(rest, tail))
}

#[cfg(test)]
mod tests {
    use phoenix_crds::{Hypervisor, LxcSpec};
    use serde_json::{Value, json};

    use super::{address_allowed, path_allowed, refusal};

    fn hypervisor(allowed: Value) -> Hypervisor {
        let mut spec = json!({
            "endpoints": ["https://pve:8006"], "credentialsSecret": "home",
            "defaults": {"storage": "lxc-disks", "bridge": "vmbr0", "pool": "ai"},
        });
        spec["allowed"] = allowed;
        serde_json::from_value(json!({"metadata": {"name": "home"}, "spec": spec})).unwrap()
    }

    fn spec(more: &Value) -> LxcSpec {
        let mut spec = json!({"source": {"templateRef": {"name": "base"}}});
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn without_a_word_only_the_defaults_and_gpus_are_allowed() {
        let net = |bridge: &str| json!({"network": [{"name": "eth0", "bridge": bridge, "address": "10.9.9.9/24"}]});
        let mount = |more: Value| {
            let mut mount = json!({"path": "/data"});
            mount
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            json!({ "mounts": [mount] })
        };
        for (asked, refused) in [
            (json!({}), None),
            (json!({"rootfs": {"storage": "lxc-disks"}}), None),
            (json!({"rootfs": {"storage": "fast"}}), Some("storages")),
            (net("vmbr0"), None),
            (net("vmbr1"), Some("bridges")),
            (json!({"pool": "ai"}), None),
            (json!({"pool": "web"}), Some("pools")),
            (mount(json!({"size": "8Gi"})), None),
            (
                mount(json!({"size": "8Gi", "storage": "fast"})),
                Some("storages"),
            ),
            (mount(json!({"hostPath": "/srv"})), Some("hostPaths")),
            (
                json!({"devices": [{"path": "/dev/net/tun"}]}),
                Some("devices"),
            ),
            (json!({"unprivileged": true}), None),
            (json!({"unprivileged": false}), Some("privileged")),
            (json!({"gpus": {"indices": [0]}}), None),
        ] {
            for allowed in [Value::Null, json!({})] {
                let told = refusal(&spec(&asked), &hypervisor(allowed));
                match refused {
                    None => assert_eq!(told, None, "{asked}"),
                    Some(list) => {
                        let told = told.unwrap_or_else(|| panic!("{asked} is allowed"));
                        assert!(told.contains(&format!("spec.allowed.{list} ")), "{told}");
                        assert!(told.contains("Hypervisor home"), "{told}");
                    }
                }
            }
        }
    }

    #[test]
    fn each_list_adds_to_the_defaults_and_each_switch_turns() {
        let hypervisor = hypervisor(json!({
            "storages": ["fast"], "bridges": ["vmbr1"], "addresses": ["10.0.0.0/24"], "pools": ["web"],
            "hostPaths": ["/srv/*"], "devices": ["/dev/dri/renderD*"], "privileged": true, "gpus": false,
        }));
        let asked = json!({
            "rootfs": {"storage": "fast"}, "pool": "web", "unprivileged": false, "devices": [{"path": "/dev/dri/renderD128"}],
            "network": [{"name": "eth0", "bridge": "vmbr1", "address": "10.0.0.5/24"}, {"name": "eth1", "bridge": "vmbr0", "address": "dhcp", "address6": "auto"}],
            "mounts": [{"path": "/data", "size": "8Gi", "storage": "lxc-disks"}, {"path": "/models", "hostPath": "/srv/models"}],
        });
        assert_eq!(refusal(&spec(&asked), &hypervisor), None);
        let asked = json!({
            "gpus": {"indices": [0]}, "network": [{"name": "eth0", "address": "10.0.1.5/24"}],
        });
        let told = refusal(&spec(&asked), &hypervisor).unwrap();
        assert!(told.contains("address 10.0.1.5/24") && told.contains("spec.allowed.gpus"));
    }

    #[test]
    fn a_pattern_stands_for_one_segment_and_no_tricks() {
        for (path, pattern, allowed) in [
            ("/srv/models", "/srv/models", true),
            ("/srv/models", "/srv/*", true),
            ("/srv/models", "/srv/m*l*", true),
            ("/srv/models", "/srv/m*x", false),
            ("/srv/models", "/*/models", true),
            ("/srv/models/a", "/srv/*", false),
            ("/srv", "/srv/*", false),
            ("/srv/", "/srv/*", false),
            ("/srv//", "/srv/*", false),
            ("/srv/..", "/srv/*", false),
            ("/srv/.", "/srv/*", false),
            ("/srv/a/../../etc", "/srv/*/*/*/*", false),
            ("/srv/models", "/srv//models", false),
            ("srv/models", "srv/models", false),
            ("/dev/dri/renderD128", "/dev/dri/renderD*", true),
            ("/dev/dri/card0", "/dev/dri/renderD*", false),
            ("/srv/a", "*", false),
        ] {
            assert_eq!(
                path_allowed(path, &[pattern.to_owned()]),
                allowed,
                "{path} by {pattern}"
            );
        }
    }

    #[test]
    fn addresses_are_in_their_networks() {
        for (address, network, allowed) in [
            ("10.0.0.5/24", "10.0.0.0/24", true),
            ("10.0.1.5/24", "10.0.0.0/24", false),
            ("10.0.1.5/8", "0.0.0.0/0", true),
            ("10.0.0.5/24", "10.0.0.5/32", true),
            ("10.0.0.6/24", "10.0.0.5/32", false),
            ("fd00::5/64", "fd00::/64", true),
            ("fd01::5/64", "fd00::/64", false),
            ("fd01::5/64", "::/0", true),
            ("fd00::5/64", "10.0.0.0/24", false),
            ("10.0.0.5/24", "fd00::/64", false),
            ("dhcp", "10.0.0.0/24", true),
            ("10.0.0.5/24", "nonsense", false),
        ] {
            assert_eq!(
                address_allowed(address, &[network.to_owned()]),
                allowed,
                "{address} in {network}"
            );
        }
        assert!(address_allowed("192.168.7.7/24", &[]));
    }
}
