//! A look at one container: what is really there, read from Proxmox and kept until something says that it changed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use proxmox_client::{CtConfig, CtStatus, Error, ErrorKind, PendingEntry};

use super::cluster::{Cluster, lock};

/// What stands behind a VMID, and when that was read.
#[derive(Debug, Clone)]
pub struct Look {
    /// When.
    pub at: Instant,
    /// What.
    pub presence: Presence,
}

/// The three things that can stand behind a VMID.
#[derive(Debug, Clone)]
pub enum Presence {
    /// Nothing, confirmed by `GET /cluster/nextid?vmid=`: no list that leaves it out proves that.
    Absent,
    /// Something that isn't ours to read: a virtual machine, or a container that the token may not see.
    Hidden {
        /// What is known of it.
        what: String,
    },
    /// A container.
    Here(Box<Seen>),
}

/// A container as Proxmox tells it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The node that it is on.
    pub node: String,
    /// Its config, pending values merged in.
    pub config: CtConfig,
    /// What waits for a restart.
    pub pending: Vec<PendingEntry>,
    /// Its run state.
    pub status: CtStatus,
    /// Its addresses without prefix lengths: static ones from the config, the others from inside while it runs.
    pub addresses: Vec<String>,
}

impl Seen {
    /// It runs and asks for an address, but has none yet.
    pub fn lacks_address(&self) -> bool {
        let asks = self
            .config
            .nets()
            .values()
            .any(|n| n.get("ip") == Some("dhcp") || n.get("ip6") == Some("dhcp"));
        self.running() && asks && self.addresses.is_empty()
    }

    /// Whether its init runs.
    pub fn running(&self) -> bool {
        self.status.is_running()
    }
}

#[derive(Debug, Default)]
pub(super) struct Looks {
    known: Mutex<HashMap<u32, Known>>,
}

/// What was read of a VMID, and since when what is read counts: a look that was under way when something changed tells the old state.
#[derive(Debug, Default)]
struct Known {
    look: Option<Arc<Look>>,
    forgotten: Option<Instant>,
}

impl Looks {
    pub(super) fn forget(&self, vmid: u32) {
        *lock(&self.known).entry(vmid).or_default() = Known {
            look: None,
            forgotten: Some(Instant::now()),
        };
    }

    pub(super) async fn get(
        &self,
        cluster: &Cluster,
        vmid: u32,
        hint: Option<&str>,
        max_age: Duration,
    ) -> Result<Arc<Look>, Error> {
        if let Some(look) = self.known(vmid).filter(|l| l.at.elapsed() <= max_age) {
            return Ok(look);
        }
        let at = Instant::now();
        let presence = look(cluster, vmid, hint).await?;
        let look = Arc::new(Look { at, presence });
        self.keep(vmid, &look);
        Ok(look)
    }

    fn known(&self, vmid: u32) -> Option<Arc<Look>> {
        lock(&self.known).get(&vmid)?.look.clone()
    }

    fn keep(&self, vmid: u32, look: &Arc<Look>) {
        let mut known = lock(&self.known);
        let known = known.entry(vmid).or_default();
        if known.forgotten.is_none_or(|at| at < look.at) {
            known.look = Some(Arc::clone(look));
        }
    }
}

async fn look(cluster: &Cluster, vmid: u32, hint: Option<&str>) -> Result<Presence, Error> {
    let row = |()| lock(&cluster.rows).guest(vmid).cloned();
    let mut node = match row(()) {
        Some(row) if !row.lxc => return Ok(vm(vmid, &row.node)),
        Some(row) => Some(row.node),
        None => hint.map(str::to_owned),
    };
    for attempt in 0..2 {
        if let Some(node) = &node {
            match read(cluster, node, vmid).await {
                Ok(seen) => return Ok(Presence::Here(Box::new(seen))),
                Err(e) if e.kind == ErrorKind::NotFound => {}
                Err(e) if e.kind == ErrorKind::Forbidden => return hidden(cluster, vmid, &e).await,
                Err(e) => return Err(e),
            }
        }
        if cluster.client().vmid_is_free(vmid).await? {
            return Ok(Presence::Absent);
        }
        if attempt == 0 {
            // taken, but not where we thought: moved, or made a moment ago
            cluster.refresh().await?;
            match row(()) {
                Some(row) if !row.lxc => return Ok(vm(vmid, &row.node)),
                Some(row) => node = Some(row.node),
                None => break,
            }
        }
    }
    Ok(Presence::Hidden {
        what: format!("VMID {vmid} is taken by a guest that the API token may not see"),
    })
}

fn vm(vmid: u32, node: &str) -> Presence {
    Presence::Hidden {
        what: format!("VMID {vmid} is a virtual machine on node {node}"),
    }
}

async fn hidden(cluster: &Cluster, vmid: u32, error: &Error) -> Result<Presence, Error> {
    if cluster.client().vmid_is_free(vmid).await? {
        return Ok(Presence::Absent);
    }
    Ok(Presence::Hidden {
        what: format!(
            "VMID {vmid} exists, but the API token may not read it: {}",
            error.message
        ),
    })
}

async fn read(cluster: &Cluster, node: &str, vmid: u32) -> Result<Seen, Error> {
    let client = cluster.client();
    let config = client.ct_config(node, vmid).await?;
    let status = client.ct_status(node, vmid).await?;
    // only a running container keeps changes back
    let pending = if status.is_running() {
        client.ct_pending(node, vmid).await?
    } else {
        Vec::new()
    };
    let addresses = addresses(cluster, node, vmid, &config, &status).await?;
    Ok(Seen {
        node: node.to_owned(),
        config,
        pending,
        status,
        addresses,
    })
}

async fn addresses(
    cluster: &Cluster,
    node: &str,
    vmid: u32,
    config: &CtConfig,
    status: &CtStatus,
) -> Result<Vec<String>, Error> {
    let nets = config.nets();
    let fixed: Vec<String> = nets
        .values()
        .flat_map(|n| [n.get("ip"), n.get("ip6")])
        .flatten()
        .filter_map(|a| a.split_once('/'))
        .map(|(a, _)| a.to_owned())
        .collect();
    let dynamic = nets
        .values()
        .any(|n| n.get("ip") == Some("dhcp") || matches!(n.get("ip6"), Some("dhcp" | "auto")));
    if !dynamic || !status.is_running() {
        return Ok(fixed);
    }
    let interfaces = cluster
        .client()
        .ct_interfaces(node, vmid)
        .await?
        .unwrap_or_default();
    let inside = interfaces
        .iter()
        .filter(|i| i.name != "lo")
        .flat_map(|i| &i.addresses)
        .map(|a| a.address.to_string());
    let mut all = fixed;
    for address in inside.filter(|a| !a.starts_with("fe80:")) {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_was_under_way_when_something_changed_is_not_kept() {
        let looks = Looks::default();
        let look = || {
            Arc::new(Look {
                at: Instant::now(),
                presence: Presence::Absent,
            })
        };
        let before = look();
        looks.forget(900);
        looks.keep(900, &before);
        assert!(looks.known(900).is_none());
        looks.keep(900, &look());
        assert!(looks.known(900).is_some());
    }
}
