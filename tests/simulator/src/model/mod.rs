//! The state of the simulated cluster. It knows what is there and keeps it consistent; what a call may do and says stands in `api`.

pub(crate) mod check;
pub(crate) mod section;
pub(crate) mod status;
pub(crate) mod storage;
pub(crate) mod task;
pub(crate) mod volume;
pub(crate) mod zfs;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    auth::access::Access,
    config::{HostShape, NodeShape},
};
use section::ConfigFile;
use status::Sample;
use storage::{Storage, Volume};
use task::Tasks;

/// Everything that changes.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) containers: BTreeMap<u32, Container>,
    pub(crate) storages: BTreeMap<String, Storage>,
    pub(crate) access: Access,
    pub(crate) tasks: Tasks,
    pub(crate) quorate: bool,
    /// The host is a Proxmox VE 8.
    pub(crate) old: bool,
    /// Containers that high availability takes care of.
    pub(crate) ha: BTreeSet<u32>,
}

/// A node as it is now.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) shape: NodeShape,
    pub(crate) online: bool,
    pub(crate) booted: u64,
}

/// A container as it is now.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) node: String,
    pub(crate) file: ConfigFile,
    pub(crate) runtime: Option<Runtime>,
    /// When it came to be, in seconds since the epoch.
    pub(crate) created: u64,
    /// Whether it was ever started: only then LXC has a definition of it.
    pub(crate) started: bool,
    /// What the statistics daemon said last.
    pub(crate) sample: Option<Sample>,
}

/// A running container.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    pub(crate) pid: u32,
    pub(crate) started: u64,
    /// The configuration it was started with says what pending means.
    pub(crate) honours_shutdown: bool,
}

impl State {
    pub(crate) fn new(shape: &HostShape) -> Self {
        let booted = now().saturating_sub(86_400);
        let nodes = shape
            .nodes
            .iter()
            .map(|node| {
                (
                    node.name.clone(),
                    Node {
                        shape: node.clone(),
                        online: true,
                        booted,
                    },
                )
            })
            .collect();
        let storages = shape
            .storages
            .iter()
            .map(|storage| (storage.id.clone(), Storage::new(storage.clone())))
            .collect();
        Self {
            nodes,
            containers: BTreeMap::new(),
            storages,
            access: Access::new(shape),
            tasks: Tasks::default(),
            quorate: true,
            old: shape.is_old(),
            ha: BTreeSet::new(),
        }
    }

    /// The container of that id on that node, or Proxmox's text.
    pub(crate) fn container(&self, node: &str, vmid: u32) -> Result<&Container, String> {
        self.containers
            .get(&vmid)
            .filter(|container| container.node == node)
            .ok_or_else(|| missing(node, vmid))
    }

    pub(crate) fn container_mut(
        &mut self,
        node: &str,
        vmid: u32,
    ) -> Result<&mut Container, String> {
        self.containers
            .get_mut(&vmid)
            .filter(|container| container.node == node)
            .ok_or_else(|| missing(node, vmid))
    }

    /// A container wherever it is, for those who act outside the API.
    pub(crate) fn known_mut(&mut self, vmid: u32) -> anyhow::Result<&mut Container> {
        self.containers
            .get_mut(&vmid)
            .ok_or_else(|| anyhow::anyhow!("there is no container {vmid}"))
    }

    /// A storage, for those who act outside the API.
    pub(crate) fn known_storage(&mut self, id: &str) -> anyhow::Result<&mut Storage> {
        self.storages
            .get_mut(id)
            .ok_or_else(|| anyhow::anyhow!("there is no storage {id}"))
    }

    /// A volume, for those who act outside the API.
    pub(crate) fn known_volume(
        &mut self,
        storage: &str,
        name: &str,
    ) -> anyhow::Result<&mut Volume> {
        self.known_storage(storage)?
            .volumes
            .get_mut(storage::leaf(name))
            .ok_or_else(|| anyhow::anyhow!("there is no volume {name}"))
    }

    pub(crate) fn taken(&self, vmid: u32) -> Result<(), String> {
        match self.containers.get(&vmid) {
            Some(container) => Err(format!(
                "CT {vmid} already exists on node '{}'",
                container.node
            )),
            None => Ok(()),
        }
    }

    pub(crate) fn storage(&self, id: &str) -> Result<&Storage, String> {
        self.storages
            .get(id)
            .ok_or_else(|| format!("storage '{id}' does not exist"))
    }

    pub(crate) fn storage_mut(&mut self, id: &str) -> Result<&mut Storage, String> {
        self.storages
            .get_mut(id)
            .ok_or_else(|| format!("storage '{id}' does not exist"))
    }

    pub(crate) fn bridges(&self, node: &str) -> &[String] {
        self.nodes.get(node).map_or(&[], |node| &node.shape.bridges)
    }
}

fn missing(node: &str, vmid: u32) -> String {
    format!("Configuration file 'nodes/{node}/lxc/{vmid}.conf' does not exist")
}

impl Container {
    pub(crate) fn new(node: &str, file: ConfigFile) -> Self {
        Self {
            node: node.to_owned(),
            file,
            runtime: None,
            created: now(),
            started: false,
            sample: None,
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.runtime.is_some()
    }

    /// Proxmox's `check_lock`.
    pub(crate) fn check_lock(&self) -> Result<(), String> {
        match self.file.lock() {
            Some(lock) => Err(format!("CT is locked ({lock})")),
            None => Ok(()),
        }
    }

    /// Proxmox's `assert_if_modified`.
    pub(crate) fn check_digest(&self, expected: Option<&str>) -> Result<(), String> {
        if expected.is_some_and(|digest| digest != self.file.digest()) {
            return Err(
                "detected modified configuration - file changed by other user? Try again."
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// Seconds since the epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}
