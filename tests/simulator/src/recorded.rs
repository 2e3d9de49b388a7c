//! The host on which the recordings of a real Proxmox VE were made, to compare the simulator with it.

use std::net::Ipv4Addr;

use crate::config::{
    AclShape, HostShape, NodeShape, StorageKind, StorageShape, TemplateShape, TokenShape, UserShape,
};

const POOL: u64 = 20_283_654_144;
const ROOT: u64 = 16_729_894_912;

const CONTAINERS: [&str; 12] = [
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
    "VM.Snapshot.Rollback",
];

impl HostShape {
    /// One node `pve1` with storages `lxc-disks`, `tank2` and `local`, users `op@pve` (limited), `no@pve` (no rights) and `off@pve` (disabled), each
    /// with a token `op`, and a full token `root@pam!op`.
    pub fn recorded() -> Self {
        let zfs = |id: &str, pool: &str, content: &[&str]| StorageShape {
            id: id.to_owned(),
            kind: StorageKind::ZfsPool {
                pool: pool.to_owned(),
            },
            content: content.iter().map(|kind| (*kind).to_owned()).collect(),
            total: POOL,
            templates: Vec::new(),
        };
        let mini = |file: &str, os: Option<&str>| TemplateShape {
            file: file.to_owned(),
            size: 9_000_000,
            unpacked: 22_353_920,
            os_type: os.map(str::to_owned),
            systemd: None,
        };
        let local = StorageShape {
            id: "local".to_owned(),
            kind: StorageKind::Dir {
                path: "/var/lib/vz".to_owned(),
            },
            content: ["vztmpl", "backup", "iso", "snippets"]
                .map(str::to_owned)
                .to_vec(),
            total: ROOT,
            templates: vec![
                TemplateShape {
                    systemd: Some(257),
                    ..TemplateShape::new(
                        "debian-13-standard_13.0-1_amd64.tar.zst",
                        72_144_541,
                        222_443_520,
                        "debian",
                    )
                },
                mini("debian-13-mini_13.0-1_amd64.tar.zst", Some("debian")),
                mini("broken_1.0_amd64.tar.zst", None),
                TemplateShape {
                    unpacked: 10_240,
                    ..mini("empty_1.0_amd64.tar.zst", Some("unmanaged"))
                },
            ],
        };
        Self {
            storages: vec![
                zfs("lxc-disks", "tank", &["rootdir", "images"]),
                zfs("tank2", "tank/tank2", &["rootdir"]),
                local,
            ],
            nodes: vec![NodeShape {
                name: "pve1".to_owned(),
                address: Ipv4Addr::new(10, 0, 2, 15),
                cores: 2,
                memory_mib: 3922,
                bridges: vec!["vmbr0".to_owned()],
                devices: ["/dev/null", "/dev/zero", "/dev/fuse", "/dev/net/tun"]
                    .map(str::to_owned)
                    .to_vec(),
                directories: vec!["/srv/bind".to_owned()],
                gpus: Vec::new(),
                driver_version: String::new(),
            }],
            users: vec![
                user(
                    "root@pam",
                    "pvetest",
                    true,
                    &[("op", false, 0), ("expired", false, 1)],
                ),
                user("op@pve", "oppass123", true, &[("op", true, 0)]),
                user("no@pve", "nopass123", true, &[("op", true, 0)]),
                user("off@pve", "offpass123", false, &[("op", true, 0)]),
            ],
            acl: ["op@pve", "op@pve!op"]
                .into_iter()
                .flat_map(limited)
                .collect(),
            pools: Vec::new(),
            ..Self::phoenix()
        }
    }
}

fn user(id: &str, password: &str, enabled: bool, tokens: &[(&str, bool, u64)]) -> UserShape {
    let token = |(name, privsep, expire): &(&str, bool, u64)| TokenShape {
        id: (*name).to_owned(),
        secret: TokenShape::fresh_secret(),
        privsep: *privsep,
        expire: *expire,
    };
    UserShape {
        id: id.to_owned(),
        password: Some(password.to_owned()),
        enabled,
        tokens: tokens.iter().map(token).collect(),
    }
}

fn limited(who: &str) -> Vec<AclShape> {
    let line = |path, privileges: &[&str]| AclShape::inherited(who, path, privileges);
    let storage = ["Datastore.Audit", "Datastore.AllocateSpace"];
    vec![
        line("/vms", &CONTAINERS),
        line("/storage/lxc-disks", &storage),
        line("/storage/local", &storage),
        line("/sdn/zones/localnetwork", &["SDN.Audit", "SDN.Use"]),
    ]
}
