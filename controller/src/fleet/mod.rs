//! Proxmox as a cache: one client, one poll, one task watcher and one set of queues per `Hypervisor`.
//!
//! What the cache says is a hint about *change*; before a decision that matters the container itself is read (`Cluster::look`).
//! Hypervisors share nothing, so that a slow one doesn't slow another.

mod cluster;
mod look;
mod places;
mod poll;
mod queue;
mod tasks;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

pub(crate) use cluster::lock;
pub use cluster::{Barred, Cluster, ClusterSettings, Health};
pub use look::{Look, Presence, Seen};
pub use places::Place;
pub use queue::{CloneQueue, Turn};
pub use tasks::Tasks;

/// All clusters that a `Hypervisor` object leads to, by its name.
#[derive(Debug, Default)]
pub struct Fleet {
    clusters: RwLock<HashMap<String, Arc<Cluster>>>,
}

impl Fleet {
    /// The cluster of that `Hypervisor`, once its secret could be read.
    pub fn get(&self, name: &str) -> Option<Arc<Cluster>> {
        self.clusters
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// Puts a cluster in place of the former one, whose poll and watchers end.
    pub fn put(&self, cluster: Arc<Cluster>) {
        let name = cluster.name().to_owned();
        if let Some(former) = self
            .clusters
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, cluster)
        {
            former.stop();
        }
    }

    /// Forgets a cluster.
    pub fn remove(&self, name: &str) {
        if let Some(former) = self
            .clusters
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name)
        {
            former.stop();
        }
    }
}
