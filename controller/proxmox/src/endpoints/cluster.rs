//! What the cluster says of itself: version, members, resources, privileges, free VMIDs.

use crate::{Client, Error, ErrorKind, call::Call, wire};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The version of the node that answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Version {
    /// The full version, such as `9.2.11`.
    #[serde(deserialize_with = "wire::text_or_empty")]
    pub version: String,
    /// The release, such as `9.2`.
    #[serde(deserialize_with = "wire::text_or_empty")]
    pub release: String,
}

/// What a row of `/cluster/resources` is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum ResourceKind {
    /// A node.
    Node,
    /// A container.
    Lxc,
    /// A virtual machine: it takes a VMID too.
    Qemu,
    /// A storage on a node.
    Storage,
    /// A pool.
    Pool,
    /// A software-defined network.
    Sdn,
    /// Something that this client does not know.
    #[default]
    Other,
}

impl<'de> Deserialize<'de> for ResourceKind {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(match wire::text_or_empty(from)?.as_str() {
            "node" => Self::Node,
            "lxc" => Self::Lxc,
            "qemu" => Self::Qemu,
            "storage" => Self::Storage,
            "pool" => Self::Pool,
            "sdn" | "network" => Self::Sdn,
            _ => Self::Other,
        })
    }
}

/// A row of `/cluster/resources`. Existence, node, lock, tags and pool are immediate; everything else is up to a quarter
/// of a minute old, and absent for a container that was just made.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Resource {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: ResourceKind,
    /// The row's identity, such as `lxc/900`.
    #[serde(deserialize_with = "wire::text_or_empty")]
    pub id: String,
    /// The node.
    #[serde(deserialize_with = "wire::text")]
    pub node: Option<String>,
    /// The VMID of a guest.
    #[serde(deserialize_with = "wire::number")]
    pub vmid: Option<u32>,
    /// `running`, `stopped`, `unknown`; `online`, `offline`; `available`.
    #[serde(deserialize_with = "wire::text")]
    pub status: Option<String>,
    /// The guest's name.
    #[serde(deserialize_with = "wire::text")]
    pub name: Option<String>,
    /// The guest's lock.
    #[serde(deserialize_with = "wire::text")]
    pub lock: Option<String>,
    /// Whether the guest is a template.
    #[serde(deserialize_with = "wire::flag")]
    pub template: bool,
    /// The guest's tags.
    #[serde(deserialize_with = "wire::list")]
    pub tags: Vec<String>,
    /// The guest's pool, where the token may see it.
    #[serde(deserialize_with = "wire::text")]
    pub pool: Option<String>,
    /// Cores.
    #[serde(deserialize_with = "wire::fraction")]
    pub maxcpu: Option<f64>,
    /// Memory in bytes.
    #[serde(deserialize_with = "wire::number")]
    pub maxmem: Option<u64>,
    /// Memory in use, bytes.
    #[serde(deserialize_with = "wire::number")]
    pub mem: Option<u64>,
    /// Disk size in bytes.
    #[serde(deserialize_with = "wire::number")]
    pub maxdisk: Option<u64>,
    /// Disk in use, bytes.
    #[serde(deserialize_with = "wire::number")]
    pub disk: Option<u64>,
    /// Seconds since the start.
    #[serde(deserialize_with = "wire::number")]
    pub uptime: Option<u64>,
    /// The storage's name.
    #[serde(deserialize_with = "wire::text")]
    pub storage: Option<String>,
    /// The storage's type, such as `zfspool`.
    #[serde(deserialize_with = "wire::text")]
    pub plugintype: Option<String>,
    /// What the storage may hold.
    #[serde(deserialize_with = "wire::list")]
    pub content: Vec<String>,
    /// Whether the storage is one for all nodes.
    #[serde(deserialize_with = "wire::flag")]
    pub shared: bool,
    /// The state that high availability wants the guest in.
    #[serde(deserialize_with = "wire::text")]
    pub hastate: Option<String>,
}

/// What a row of `/cluster/status` is about.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum ClusterStatusKind {
    /// The cluster as a whole; there is no such row on a single node.
    Cluster,
    /// A node.
    Node,
    /// Something that this client does not know.
    #[default]
    Other,
}

impl<'de> Deserialize<'de> for ClusterStatusKind {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(match wire::text_or_empty(from)?.as_str() {
            "cluster" => Self::Cluster,
            "node" => Self::Node,
            _ => Self::Other,
        })
    }
}

/// A row of `/cluster/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClusterStatus {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: ClusterStatusKind,
    /// The name of the cluster or node.
    #[serde(deserialize_with = "wire::text_or_empty")]
    pub name: String,
    /// Whether the node is a member right now.
    #[serde(deserialize_with = "wire::flag")]
    pub online: bool,
    /// The node's address.
    #[serde(deserialize_with = "wire::text")]
    pub ip: Option<String>,
    /// Whether this node answered.
    #[serde(deserialize_with = "wire::flag")]
    pub local: bool,
    /// Whether the cluster has quorum.
    #[serde(deserialize_with = "wire::flag")]
    pub quorate: bool,
    /// How many nodes the cluster has.
    #[serde(deserialize_with = "wire::number")]
    pub nodes: Option<u32>,
}

/// The privileges of the token by path, each with whether it reaches below. Paths that no rule mentions are not listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions(pub BTreeMap<String, BTreeMap<String, bool>>);

impl Permissions {
    /// Whether a privilege holds on a path: on the path itself where it is listed, or handed down from the nearest path
    /// above that is.
    pub fn allows(&self, path: &str, privilege: &str) -> bool {
        if let Some(privileges) = self.0.get(path) {
            return privileges.contains_key(privilege);
        }
        let mut above = path.trim_end_matches('/');
        while let Some((parent, _)) = above.rsplit_once('/') {
            above = parent;
            if let Some(privileges) = self.0.get(if above.is_empty() { "/" } else { above }) {
                return privileges.get(privilege).copied().unwrap_or_default();
            }
        }
        false
    }
}

impl<'de> Deserialize<'de> for Permissions {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let paths = BTreeMap::<String, BTreeMap<String, Value>>::deserialize(from)?;
        let flags = |privileges: BTreeMap<String, Value>| {
            privileges
                .into_iter()
                .map(|(name, below)| (name, wire::as_flag(&below)))
                .collect()
        };
        Ok(Self(
            paths
                .into_iter()
                .map(|(path, privileges)| (path, flags(privileges)))
                .collect(),
        ))
    }
}

impl Client {
    /// The version of the node that answers.
    pub async fn version(&self) -> Result<Version, Error> {
        self.fetch(Call::get("/version", "/version")).await
    }

    /// Every guest, node and storage that the token may see. An absent guest is no proof that it is gone.
    pub async fn cluster_resources(&self) -> Result<Vec<Resource>, Error> {
        self.fetch(Call::get("/cluster/resources", "/cluster/resources"))
            .await
    }

    /// The members of the cluster, and whether it has quorum.
    pub async fn cluster_status(&self) -> Result<Vec<ClusterStatus>, Error> {
        self.fetch(Call::get("/cluster/status", "/cluster/status"))
            .await
    }

    /// The token's privileges.
    pub async fn permissions(&self) -> Result<Permissions, Error> {
        self.fetch(Call::get("/access/permissions", "/access/permissions"))
            .await
    }

    /// The token's privileges on one path, inherited ones included.
    pub async fn permissions_on(&self, path: &str) -> Result<BTreeSet<String>, Error> {
        let call = Call::get("/access/permissions", "/access/permissions").query("path", path);
        let mut permissions: Permissions = self.fetch(call).await?;
        Ok(permissions
            .0
            .remove(path)
            .unwrap_or_default()
            .into_keys()
            .collect())
    }

    /// Whether no guest of the cluster has this VMID; true knowledge even where the token may not see the guest.
    pub async fn vmid_is_free(&self, vmid: u32) -> Result<bool, Error> {
        let call = Call::get("/cluster/nextid", "/cluster/nextid").query("vmid", vmid);
        match self.fetch::<Value>(call).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind == ErrorKind::Exists => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Permissions;
    use serde_json::json;

    #[test]
    fn a_privilege_reaches_below_only_where_it_says_so_and_no_nearer_path_says_otherwise() {
        let held: Permissions = serde_json::from_value(json!({
            "/": {"Sys.Audit": 1},
            "/vms": {"VM.Audit": 1, "VM.Clone": "1"},
            "/vms/9000": {"VM.Clone": 0},
            "/storage/tank": {"Datastore.Audit": 0}
        }))
        .unwrap();
        for (path, privilege, expected) in [
            ("/nodes/pve1", "Sys.Audit", true),
            ("/vms/100", "VM.Audit", true),
            ("/vms/100", "Sys.Audit", false),
            ("/vms/9000", "VM.Clone", true),
            ("/vms/9000", "VM.Audit", false),
            ("/storage/tank", "Datastore.Audit", true),
            ("/storage/tank/below", "Datastore.Audit", false),
            ("/storage/other", "Datastore.Audit", false),
            ("/", "Sys.Audit", true),
            ("/", "VM.Audit", false),
        ] {
            assert_eq!(
                held.allows(path, privilege),
                expected,
                "{privilege} on {path}"
            );
        }
        assert!(!Permissions::default().allows("/vms/1", "VM.Audit"));
    }
}
