//! Nodes: figures, network, hardware, certificates.

use serde_json::{Value, json};

use super::Call;
use crate::{
    model::now,
    reply::{Outcome, Reply},
};

const GIB: u64 = 1 << 30;
const ROOT_DISK: u64 = 94 * GIB;
const ROOT_USED: u64 = 9 * GIB;

pub(super) fn list(call: &Call) -> Outcome {
    let state = call.core.state();
    let fingerprint = call.core.certificate.current().fingerprint;
    let rows = state.nodes.iter().map(|(name, node)| {
        let mut row = node.row(
            state
                .access
                .may(&call.who, &format!("/nodes/{name}"), "Sys.Audit"),
        );
        row.insert("ssl_fingerprint".to_owned(), json!(fingerprint));
        Value::Object(row)
    });
    Ok(Reply::data(rows.collect()))
}

pub(super) fn index() -> Outcome {
    let names = [
        "certificates",
        "dns",
        "hardware",
        "lxc",
        "network",
        "qemu",
        "status",
        "storage",
        "tasks",
        "time",
        "version",
    ];
    Ok(Reply::data(
        names.iter().map(|name| json!({"name": name})).collect(),
    ))
}

pub(super) fn time() -> Outcome {
    Ok(Reply::data(
        json!({"timezone": "Etc/UTC", "time": now(), "localtime": now()}),
    ))
}

pub(super) fn dns() -> Outcome {
    Ok(Reply::data(json!({"dns1": "10.0.0.1"})))
}

pub(super) fn status(call: &Call) -> Outcome {
    let host = &call.core.config.host;
    let state = call.core.state();
    let Some(node) = state.nodes.get(&call.node) else {
        return Ok(Reply::null());
    };
    let memory = node.shape.memory_mib << 20;
    let used = memory / 4;
    Ok(Reply::data(json!({
        "cpu": 0.0213, "idle": 0, "wait": 0.0004, "uptime": now().saturating_sub(node.booted), "loadavg": ["0.57", "0.49", "0.44"],
        "pveversion": format!("pve-manager/{}/{}", host.version, host.repoid),
        "kversion": "Linux 6.17.2-1-pve #1 SMP PREEMPT_DYNAMIC PMX 6.17.2-1",
        "current-kernel": {"sysname": "Linux", "release": "6.17.2-1-pve", "version": "#1 SMP PREEMPT_DYNAMIC PMX 6.17.2-1", "machine": "x86_64"},
        "boot-info": {"mode": "efi", "secureboot": 0},
        "cpuinfo": {"cpus": node.shape.cores, "cores": node.shape.cores / 2, "sockets": 1, "model": "AMD Ryzen Threadripper PRO 5955WX 16-Cores", "mhz": "4000.000", "hvm": "1", "user_hz": 100, "flags": "fpu vme svm"},
        "memory": {"total": memory, "used": used, "free": memory - used, "available": memory - used},
        "swap": {"total": 8 * GIB, "used": 0, "free": 8 * GIB},
        "rootfs": {"total": ROOT_DISK, "used": ROOT_USED, "free": ROOT_DISK - ROOT_USED, "avail": ROOT_DISK - ROOT_USED},
        "ksm": {"shared": 0},
    })))
}

/// Interfaces; of bridges, where they are asked for, only those one may use.
pub(super) fn network(call: &Call) -> Outcome {
    let state = call.core.state();
    let Some(node) = state.nodes.get(&call.node) else {
        return Ok(Reply::null());
    };
    let kind = call.get("type");
    let mut rows = Vec::new();
    for (number, bridge) in node.shape.bridges.iter().enumerate() {
        let usable = state.access.may_any(
            &call.who,
            &format!("/sdn/zones/localnetwork/{bridge}"),
            &["SDN.Audit", "SDN.Use"],
        );
        let wanted = match kind {
            None | Some("bridge") => true,
            Some("any_bridge" | "any_local_bridge" | "include_sdn") => usable,
            Some(_) => false,
        };
        if wanted {
            let mut row = json!({
                "iface": bridge, "type": "bridge", "active": 1, "autostart": 1, "method": "static", "method6": "manual", "families": ["inet"],
                "bridge_ports": format!("eno{}", number + 1), "bridge_stp": "off", "bridge_fd": "0", "priority": 4 + number,
            });
            if number == 0 {
                row["address"] = json!(node.shape.address.to_string());
                row["netmask"] = json!("24");
                row["cidr"] = json!(format!("{}/24", node.shape.address));
            }
            rows.push(row);
        }
        if matches!(kind, None | Some("eth")) {
            rows.push(json!({
                "iface": format!("eno{}", number + 1), "type": "eth", "active": 1, "exists": 1, "method": "manual", "method6": "manual",
                "families": ["inet"], "priority": 3, "altnames": [],
            }));
        }
    }
    Ok(Reply::data(Value::Array(rows)))
}

/// Devices; memory controllers, bridges and processors are left out by default.
pub(super) fn pci(call: &Call) -> Outcome {
    let state = call.core.state();
    let Some(node) = state.nodes.get(&call.node) else {
        return Ok(Reply::null());
    };
    let mut rows = vec![json!({
        "id": "0000:02:00.0", "class": "0x010802", "vendor": "0x144d", "vendor_name": "Samsung Electronics Co Ltd", "device": "0xa80c",
        "device_name": "NVMe SSD Controller S4LV008[Pascal]", "iommugroup": 14, "subsystem_vendor": "0x144d", "subsystem_device": "0xa801",
    })];
    for (number, gpu) in node.shape.gpus.iter().enumerate() {
        rows.push(json!({
            "id": gpu.pci_address, "class": "0x030000", "vendor": "0x10de", "vendor_name": "NVIDIA Corporation", "device": "0x26b1",
            "device_name": "AD102GL [RTX 6000 Ada Generation]", "iommugroup": 20 + number, "subsystem_vendor": "0x10de", "subsystem_device": "0x16a1",
        }));
    }
    Ok(Reply::data(Value::Array(rows)))
}

pub(super) fn certificates(call: &Call) -> Outcome {
    let issued = call.core.certificate.current();
    let node = &call.node;
    Ok(Reply::data(json!([
        {"filename": "pve-root-ca.pem", "pem": issued.ca_pem, "subject": "/CN=Proxmox Virtual Environment/O=PVE Cluster Manager CA", "issuer": "/CN=Proxmox Virtual Environment/O=PVE Cluster Manager CA", "public-key-type": "id-ecPublicKey", "public-key-bits": 256},
        {"filename": "pve-ssl.pem", "pem": issued.leaf_pem, "fingerprint": issued.fingerprint, "san": ["127.0.0.1", "localhost", node, format!("{node}.local")],
         "subject": format!("/OU=PVE Cluster Node/O=Proxmox Virtual Environment/CN={node}.local"), "issuer": "/CN=Proxmox Virtual Environment/O=PVE Cluster Manager CA", "public-key-type": "id-ecPublicKey", "public-key-bits": 256}
    ])))
}
