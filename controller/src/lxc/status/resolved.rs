//! What is in effect, read back from the config.

use std::collections::BTreeMap;

use phoenix_crds::{
    Quantity,
    lxc::{Features, Resources, Rootfs},
    mounts::Mount,
    network::{Dns, NetworkInterface},
    status::Resolved,
};
use proxmox_client::{CtConfig, PropertyString, Volume};

/// What is in effect, inherited or defaulted or asked for, as the config has it.
pub(super) fn resolved(config: &CtConfig) -> Resolved {
    let number = |key: &str| config.get(key).and_then(|v| v.parse::<i64>().ok());
    let mebibytes = |key: &str| {
        config
            .get(key)
            .and_then(|v| v.parse::<u64>().ok())
            .map(Quantity::from_mebibytes)
    };
    let words = |key: &str| -> Vec<String> {
        config
            .get(key)
            .map(|v| {
                v.split([' ', ','])
                    .filter(|w| !w.is_empty())
                    .map(str::to_owned)
                    .collect()
            })
            .unwrap_or_default()
    };
    let dns = Dns {
        nameservers: words("nameserver"),
        search_domain: config.get("searchdomain").map(str::to_owned),
    };
    Resolved {
        hostname: config.hostname().map(str::to_owned),
        resources: Some(Resources {
            cores: number("cores"),
            cpu_limit: config.get("cpulimit").and_then(|v| v.parse().ok()),
            cpu_units: number("cpuunits"),
            memory: mebibytes("memory"),
            swap: mebibytes("swap"),
        }),
        rootfs: config.rootfs().map(|r| Rootfs {
            storage: Some(r.storage),
            size: r.size_gib.map(Quantity::from_gibibytes),
        }),
        mounts: mounts(config),
        network: config.nets().values().filter_map(network).collect(),
        dns: (dns != Dns::default()).then_some(dns),
        features: Some(features(&config.features())).filter(|f| *f != Features::default()),
        unprivileged: Some(config.unprivileged()),
    }
}

/// By path, and those only whose paths a spec could name: the schema refuses the whole status else.
fn mounts(config: &CtConfig) -> Vec<Mount> {
    let plain = |path: &str| {
        let odd = |c: char| !c.is_ascii_alphanumeric() && !"/._@+~-".contains(c);
        path.len() > 1 && path.starts_with('/') && !path.contains("//") && !path.contains(odd)
    };
    let mount = |volume: Volume| {
        let path = volume.props.get("mp")?.trim_end_matches('/').to_owned();
        let on = |key: &str| volume.props.get(key).map(|v| v == "1");
        let bind = volume.is_bind();
        let mount = Mount {
            size: volume.size_gib.map(Quantity::from_gibibytes),
            storage: (!bind).then(|| volume.storage.clone()),
            backup: on("backup"),
            host_path: bind.then(|| volume.volid.clone()),
            read_only: on("ro"),
            path: path.clone(),
        };
        let fits = plain(&path) && mount.host_path.as_deref().is_none_or(plain);
        fits.then_some((path, mount))
    };
    let by_path: BTreeMap<String, Mount> =
        config.mounts().into_values().filter_map(mount).collect();
    by_path.into_values().collect()
}

fn network(net: &PropertyString) -> Option<NetworkInterface> {
    let text = |key: &str| net.get(key).map(str::to_owned);
    Some(NetworkInterface {
        name: text("name")?,
        bridge: text("bridge"),
        address: text("ip"),
        gateway: text("gw"),
        address6: text("ip6"),
        gateway6: text("gw6"),
        hwaddr: text("hwaddr"),
        vlan: net.get("tag").and_then(|v| v.parse().ok()),
        mtu: net.get("mtu").and_then(|v| v.parse().ok()),
        rate: net.get("rate").and_then(|v| v.parse().ok()),
        firewall: net.get("firewall").map(|v| v == "1"),
    })
}

fn features(features: &PropertyString) -> Features {
    let on = |key: &str| features.get(key).map(|v| v == "1");
    Features {
        nesting: on("nesting"),
        keyctl: on("keyctl"),
        fuse: on("fuse"),
        mknod: on("mknod"),
        mount: features
            .get("mount")
            .map(|m| m.split(';').map(str::to_owned).collect())
            .unwrap_or_default(),
        force_rw_sys: on("force_rw_sys"),
    }
}
