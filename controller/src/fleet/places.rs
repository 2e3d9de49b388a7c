//! The nodes as places for a container that is yet to be made. Asked only for an object that has no node, and kept for one interval, so
//! that many such objects ask once.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use proxmox_client::{Error, ErrorKind, Storage};

use super::cluster::{Cluster, lock};

/// A node as a place. What the token may not see is `None`, and speaks neither for nor against it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Place {
    /// Its name.
    pub node: String,
    /// It is a member of the cluster right now.
    pub online: bool,
    /// Its memory and what of it is in use, in bytes.
    pub memory: Option<(u64, u64)>,
    /// What the limits of all guests there come to, in bytes.
    pub promised: u64,
    /// Its storages.
    pub storages: Option<Vec<Storage>>,
    /// Its bridges.
    pub bridges: Option<Vec<String>>,
    /// OS templates by the storage that they are on.
    pub archives: BTreeMap<String, Vec<String>>,
}

impl Cluster {
    /// The nodes as places, not older than `max_age`.
    ///
    /// # Errors
    /// Those of the calls, but for what is only hidden or away.
    pub async fn places(&self, max_age: Duration) -> Result<Arc<Vec<Place>>, Error> {
        if let Some((at, places)) = &*lock(&self.places)
            && at.elapsed() <= max_age
        {
            return Ok(Arc::clone(places));
        }
        let at = Instant::now();
        let mut places = Vec::new();
        for node in self.client().nodes().await? {
            let mut place = Place {
                node: node.name.clone(),
                online: node.is_online(),
                promised: self.promised(&node.name),
                ..Place::default()
            };
            if place.online {
                match self.look_at(&mut place).await {
                    Err(e) if e.kind == ErrorKind::NodeOffline => place.online = false,
                    looked => looked?,
                }
            }
            places.push(place);
        }
        places.sort_by(|a, b| a.node.cmp(&b.node));
        let places = Arc::new(places);
        *lock(&self.places) = Some((at, Arc::clone(&places)));
        Ok(places)
    }

    async fn look_at(&self, place: &mut Place) -> Result<(), Error> {
        let (client, node) = (self.client(), place.node.as_str());
        place.memory = seen(client.node_status(node).await)?
            .and_then(|status| Some((status.memory_total?, status.memory_used?)));
        // an empty list is what a token without rights on any is shown
        place.bridges = seen(client.bridges(node).await)?.filter(|b| !b.is_empty());
        place.storages = seen(client.storages(node).await)?;
        let usable = |s: &&Storage| s.holds_archives() && s.active && s.enabled;
        for storage in place.storages.iter().flatten().filter(usable) {
            if let Some(volumes) = seen(client.storage_content(node, &storage.name, None).await)? {
                let archives = volumes.into_iter().filter(|v| v.content == "vztmpl");
                place
                    .archives
                    .insert(storage.name.clone(), archives.map(|v| v.volid).collect());
            }
        }
        Ok(())
    }
}

/// What the token may not see is left out, not an error.
fn seen<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind == ErrorKind::Forbidden => Ok(None),
        Err(e) => Err(e),
    }
}
