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

const FLAGS: &str = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ht syscall nx mmxext fxsr_opt pdpe1gb \
    rdtscp lm constant_tsc rep_good nopl nonstop_tsc cpuid extd_apicid aperfmperf rapl pni pclmulqdq monitor ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes xsave \
    avx f16c rdrand lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs skinit wdt tce topoext perfctr_core perfctr_nb bmi1 \
    avx2 smep bmi2 invpcid rdseed adx smap clflushopt clwb sha_ni xsaveopt xsavec xgetbv1 clzero irperf xsaveerptr wbnoinvd arat npt lbrv svm_lock nrip_save \
    tsc_scale vmcb_clean flushbyasid decodeassists pausefilter pfthreshold avic umip rdpid overflow_recov succor smca";

/// What there is below a node.
const INDEX: [&str; 41] = [
    "aplinfo",
    "apt",
    "capabilities",
    "ceph",
    "certificates",
    "config",
    "disks",
    "dns",
    "firewall",
    "hardware",
    "hosts",
    "journal",
    "lxc",
    "migrateall",
    "netstat",
    "network",
    "qemu",
    "query-oci-repo-tags",
    "query-url-metadata",
    "replication",
    "report",
    "rrd",
    "rrddata",
    "scan",
    "sdn",
    "services",
    "spiceshell",
    "startall",
    "status",
    "stopall",
    "storage",
    "subscription",
    "suspendall",
    "syslog",
    "tasks",
    "termproxy",
    "time",
    "version",
    "vncshell",
    "vzdump",
    "wakeonlan",
];

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
    Ok(Reply::data(
        INDEX.iter().map(|name| json!({"name": name})).collect(),
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
        "cpuinfo": {"cpus": node.shape.cores, "cores": node.shape.cores / 2, "sockets": 1, "model": "AMD Ryzen Threadripper PRO 5955WX 16-Cores", "mhz": "4000.000", "hvm": "1", "user_hz": 100, "flags": FLAGS},
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
                let [a, b, c, _] = node.shape.address.octets();
                row["gateway"] = json!(format!("{a}.{b}.{c}.1"));
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
        "device_name": "NVMe SSD Controller S4LV008[Pascal]", "iommugroup": 14, "subsystem_vendor": "0x144d", "subsystem_vendor_name": "Samsung Electronics Co Ltd",
        "subsystem_device": "0xa801", "subsystem_device_name": "SSD 990 PRO",
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
