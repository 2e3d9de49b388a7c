//! Nodes: who they are, what they have, what certificate they show.

use crate::{
    Client, Error, Fingerprint,
    call::{Call, escape},
    wire,
};
use serde::Deserialize;

/// A row of `/nodes`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Node {
    /// The node's name.
    #[serde(rename = "node", deserialize_with = "wire::text_or_empty")]
    pub name: String,
    /// `online`, `offline` or `unknown`.
    #[serde(deserialize_with = "wire::text_or_empty")]
    pub status: String,
    /// Cores, where the token may see them.
    #[serde(deserialize_with = "wire::number")]
    pub maxcpu: Option<u32>,
    /// Memory in bytes, where the token may see it.
    #[serde(deserialize_with = "wire::number")]
    pub maxmem: Option<u64>,
    /// Seconds since the boot, where the token may see it.
    #[serde(deserialize_with = "wire::number")]
    pub uptime: Option<u64>,
    /// SHA-256 of the certificate that the node shows.
    #[serde(deserialize_with = "wire::text")]
    pub ssl_fingerprint: Option<String>,
}

impl Node {
    /// Whether the node is a member right now.
    pub fn is_online(&self) -> bool {
        self.status == "online"
    }
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "RawStatus")]
pub struct NodeStatus {
    /// Logical CPUs.
    pub cores: Option<u32>,
    /// Memory in bytes.
    pub memory_total: Option<u64>,
    /// Memory in use, bytes.
    pub memory_used: Option<u64>,
    /// Seconds since the boot.
    pub uptime: Option<u64>,
    /// The running kernel.
    pub kernel: Option<String>,
    /// The version of pve-manager, with its hash.
    pub pve_version: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawStatus {
    cpuinfo: Cpu,
    memory: Memory,
    #[serde(deserialize_with = "wire::number")]
    uptime: Option<u64>,
    #[serde(deserialize_with = "wire::text")]
    kversion: Option<String>,
    #[serde(deserialize_with = "wire::text")]
    pveversion: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cpu {
    #[serde(deserialize_with = "wire::number")]
    cpus: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Memory {
    #[serde(deserialize_with = "wire::number")]
    total: Option<u64>,
    #[serde(deserialize_with = "wire::number")]
    used: Option<u64>,
}

impl From<RawStatus> for NodeStatus {
    fn from(raw: RawStatus) -> Self {
        Self {
            cores: raw.cpuinfo.cpus,
            memory_total: raw.memory.total,
            memory_used: raw.memory.used,
            uptime: raw.uptime,
            kernel: raw.kversion,
            pve_version: raw.pveversion,
        }
    }
}

/// A certificate of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Certificate {
    /// `pve-root-ca.pem`, `pve-ssl.pem` or `pveproxy-ssl.pem`.
    #[serde(deserialize_with = "wire::text_or_empty")]
    pub filename: String,
    /// SHA-256 of the certificate.
    #[serde(deserialize_with = "wire::text")]
    pub fingerprint: Option<String>,
    /// The certificate itself.
    #[serde(deserialize_with = "wire::text")]
    pub pem: Option<String>,
    /// Whom it is for.
    #[serde(deserialize_with = "wire::text")]
    pub subject: Option<String>,
    /// Until when it is valid, seconds since the epoch.
    #[serde(deserialize_with = "wire::number")]
    pub notafter: Option<u64>,
}

impl Certificate {
    /// Whether it is the cluster's own certificate authority.
    pub fn is_root_ca(&self) -> bool {
        self.filename == "pve-root-ca.pem"
    }

    /// The fingerprint, parsed.
    pub fn sha256(&self) -> Option<Fingerprint> {
        self.fingerprint.as_deref()?.parse().ok()
    }
}

/// A device on a node's PCI bus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PciDevice {
    /// Its address: `0000:01:00.0`.
    #[serde(deserialize_with = "wire::text_or_empty")]
    pub id: String,
    /// What it is, as the bus codes it: `0x030000` is a VGA controller, `0x030200` a 3D controller.
    #[serde(deserialize_with = "wire::text_or_empty")]
    pub class: String,
    /// Who made it: `0x10de` is NVIDIA.
    #[serde(deserialize_with = "wire::text_or_empty")]
    pub vendor: String,
    /// The model, where the node's list of PCI ids knows it.
    #[serde(deserialize_with = "wire::text")]
    pub device_name: Option<String>,
}

impl PciDevice {
    /// Whether it is a GPU of NVIDIA.
    pub fn is_nvidia_gpu(&self) -> bool {
        self.vendor.eq_ignore_ascii_case("0x10de") && self.class.starts_with("0x03")
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Iface {
    #[serde(deserialize_with = "wire::text_or_empty")]
    iface: String,
}

impl Client {
    /// The nodes that the token may see.
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
        self.fetch(Call::get("/nodes", "/nodes")).await
    }

    /// What a node says of itself; needs Sys.Audit on it.
    pub async fn node_status(&self, node: &str) -> Result<NodeStatus, Error> {
        self.fetch(Call::get(
            "/nodes/{node}/status",
            format!("/nodes/{}/status", escape(node)),
        ))
        .await
    }

    /// The bridges of a node that the token may use.
    pub async fn bridges(&self, node: &str) -> Result<Vec<String>, Error> {
        let call = Call::get(
            "/nodes/{node}/network",
            format!("/nodes/{}/network", escape(node)),
        )
        .query("type", "any_bridge");
        let found: Vec<Iface> = self.fetch(call).await?;
        Ok(found
            .into_iter()
            .map(|bridge| bridge.iface)
            .filter(|name| !name.is_empty())
            .collect())
    }

    /// The devices on a node's PCI bus, but for memory controllers, bridges and processors; needs Sys.Audit or Sys.Modify on `/`.
    pub async fn pci_devices(&self, node: &str) -> Result<Vec<PciDevice>, Error> {
        self.fetch(Call::get(
            "/nodes/{node}/hardware/pci",
            format!("/nodes/{}/hardware/pci", escape(node)),
        ))
        .await
    }

    /// The certificates of a node, the cluster's CA among them; needs no more than a valid token on current hosts.
    pub async fn certificates(&self, node: &str) -> Result<Vec<Certificate>, Error> {
        self.fetch(Call::get(
            "/nodes/{node}/certificates/info",
            format!("/nodes/{}/certificates/info", escape(node)),
        ))
        .await
    }
}
