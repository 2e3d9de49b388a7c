//! The host that the Phoenix systems are made for, and who may use it.

use std::net::Ipv4Addr;

use crate::config::{
    AclShape, Gpu, HostShape, NodeShape, StorageKind, StorageShape, TemplateShape, TokenShape,
    UserShape,
};

/// The token that the operator uses.
pub(crate) const OPERATOR: &str = "phoenix@pve!operator";
const GIB: u64 = 1 << 30;

/// What the operator needs on containers: the very role that `manifests/hypervisor` tells an administrator to make.
const CONTAINERS: [&str; 11] = [
    "VM.Allocate",
    "VM.Audit",
    "VM.Clone",
    "VM.Config.CPU",
    "VM.Config.Disk",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.Console",
    "VM.PowerMgmt",
    "VM.Snapshot",
];

impl HostShape {
    /// One node `pve` with two GPUs, storages `lxc-disks` (ZFS) and `local`, and a user `phoenix@pve` whose token `operator`
    /// has the privileges the operator needs, and no more.
    pub fn phoenix() -> Self {
        Self {
            version: "9.2.11".to_owned(),
            release: "9.2".to_owned(),
            repoid: "14a22df3".to_owned(),
            nodes: vec![NodeShape::phoenix()],
            storages: vec![
                StorageShape {
                    id: "lxc-disks".to_owned(),
                    kind: StorageKind::ZfsPool {
                        pool: "tank".to_owned(),
                    },
                    content: vec!["rootdir".to_owned(), "images".to_owned()],
                    total: 1800 * GIB,
                    templates: Vec::new(),
                },
                StorageShape {
                    id: "local".to_owned(),
                    kind: StorageKind::Dir {
                        path: "/var/lib/vz".to_owned(),
                    },
                    content: ["vztmpl", "backup", "iso", "snippets"]
                        .map(str::to_owned)
                        .to_vec(),
                    total: 94 * GIB,
                    templates: vec![
                        TemplateShape::new(
                            "ubuntu-24.04-standard_24.04-2_amd64.tar.zst",
                            141_589_318,
                            523_000_000,
                            "ubuntu",
                        ),
                        TemplateShape {
                            systemd: Some(257),
                            ..TemplateShape::new(
                                "debian-13-standard_13.1-2_amd64.tar.zst",
                                124_000_000,
                                478_000_000,
                                "debian",
                            )
                        },
                    ],
                },
            ],
            users: vec![
                UserShape {
                    id: "root@pam".to_owned(),
                    password: Some(TokenShape::fresh_secret()),
                    enabled: true,
                    tokens: Vec::new(),
                },
                UserShape {
                    id: "phoenix@pve".to_owned(),
                    password: Some(TokenShape::fresh_secret()),
                    enabled: true,
                    tokens: vec![TokenShape {
                        id: "operator".to_owned(),
                        secret: TokenShape::fresh_secret(),
                        privsep: false,
                        expire: 0,
                    }],
                },
            ],
            acl: operator_acl("phoenix@pve"),
            pools: Vec::new(),
        }
    }
}

impl NodeShape {
    /// A workstation with two NVIDIA cards.
    pub fn phoenix() -> Self {
        let gpu = |index: u32, bus: &str, tail: &str| Gpu {
            index,
            pci_address: format!("0000:{bus}:00.0"),
            uuid: format!("GPU-5f1c2a7e-0d3b-4c6f-9a41-{tail}"),
            name: "NVIDIA RTX 6000 Ada Generation".to_owned(),
            memory_mib: 49140,
        };
        let devices = [
            "null",
            "zero",
            "full",
            "random",
            "urandom",
            "tty",
            "fuse",
            "net/tun",
            "kvm",
            "loop-control",
            "nvidia0",
            "nvidia1",
            "nvidiactl",
            "nvidia-uvm",
            "nvidia-uvm-tools",
            "nvidia-modeset",
            "dri/card0",
            "dri/renderD128",
            "dri/renderD129",
        ];
        Self {
            name: "pve".to_owned(),
            address: Ipv4Addr::new(10, 0, 0, 10),
            cores: 32,
            memory_mib: 131_072,
            bridges: vec!["vmbr0".to_owned()],
            devices: devices.map(|name| format!("/dev/{name}")).to_vec(),
            directories: vec!["/fastData/models".to_owned(), "/srv".to_owned()],
            gpus: vec![gpu(0, "01", "2b7d60e1c001"), gpu(1, "41", "2b7d60e1c002")],
            driver_version: "580.76.05".to_owned(),
        }
    }
}

impl TemplateShape {
    /// An archive with an operating system in it.
    pub fn new(file: &str, size: u64, unpacked: u64, os_type: &str) -> Self {
        Self {
            file: file.to_owned(),
            size,
            unpacked,
            os_type: Some(os_type.to_owned()),
            systemd: None,
        }
    }
}

fn operator_acl(who: &str) -> Vec<AclShape> {
    let line = |path, privileges: &[&str]| AclShape::inherited(who, path, privileges);
    let store = ["Datastore.AllocateSpace", "Datastore.Audit"];
    vec![
        line("/vms", &CONTAINERS),
        line("/storage/lxc-disks", &store),
        line("/storage/local", &store),
        line("/sdn/zones/localnetwork/vmbr0", &["SDN.Use"]),
        line("/nodes", &["Sys.Audit"]),
    ]
}

impl TokenShape {
    /// A random secret in the form that Proxmox gives tokens: a UUID.
    pub fn fresh_secret() -> String {
        let text = format!("{:032x}", rand::random::<u128>());
        format!(
            "{}-{}-{}-{}-{}",
            &text[..8],
            &text[8..12],
            &text[12..16],
            &text[16..20],
            &text[20..]
        )
    }
}
