//! What an administrator's own commands leave behind: containers put back from a configuration file, volumes and snapshots that are gone.

use anyhow::{Result, ensure};

use crate::{
    model::{
        Container,
        section::ConfigFile,
        storage::{BASE_SNAPSHOT, Volume, VolumeSnapshot, leaf},
        volume,
    },
    schema::parse_size,
    simulator::Simulator,
};

/// What a restored volume holds.
const CONTENT: u64 = 22_200 << 10;

impl Simulator {
    /// A container as its configuration file describes it, stopped; the volumes that the file names are made where they are missing.
    pub fn place_container(&self, vmid: u32, text: &str) -> Result<()> {
        let file = ConfigFile::parse(text);
        let mut state = self.core.state();
        ensure!(
            !state.containers.contains_key(&vmid),
            "there is a container {vmid} already"
        );
        for (id, name) in volume::all_volumes(&file) {
            let storage = state.known_storage(&id)?;
            let own = leaf(&name).to_owned();
            if storage.volumes.contains_key(&own) {
                continue;
            }
            let size = size_of(&file, &format!("{id}:{name}"));
            let base = own.starts_with("base");
            let snapshots = file.snapshots.keys().cloned();
            let snapshots = snapshots.chain(base.then(|| BASE_SNAPSHOT.to_owned()));
            let snapshots = snapshots
                .map(|name| VolumeSnapshot {
                    name,
                    refer: CONTENT,
                    size,
                })
                .collect();
            let origin = name
                .rsplit_once('/')
                .map(|(parent, _)| leaf(parent).to_owned());
            let volume = Volume {
                vmid,
                size,
                refer: CONTENT,
                used: CONTENT,
                origin: origin.filter(|origin| storage.volumes.contains_key(origin)),
                base,
                snapshots,
                busy: false,
                systemd: None,
            };
            storage.volumes.insert(own, volume);
        }
        let node = self.core.contacted_node().to_owned();
        let mut container = Container::new(&node, file);
        container.started = true;
        state.containers.insert(vmid, container);
        Ok(())
    }

    /// A task that was there before anybody looked, over with that exit status or still running; the answer is its id.
    pub fn place_task(&self, kind: &str, id: &str, user: &str, exit: Option<&str>) -> String {
        let node = self.core.contacted_node().to_owned();
        let mut state = self.core.state();
        let booted = state.nodes.get(&node).map_or(0, |node| node.booted);
        let (upid, _) = state.tasks.begin(&node, booted, kind, id, user);
        if let (Some(task), Some(exit)) = (state.tasks.get_mut(&upid), exit) {
            let end = match exit {
                "OK" => Ok(()),
                text => Err(text.to_owned()),
            };
            task.end(&end);
        }
        upid.to_string()
    }

    /// An empty volume of a container that no configuration names.
    pub fn place_volume(&self, storage: &str, vmid: u32, name: &str) -> Result<()> {
        let mut state = self.core.state();
        let storage = state.storage_mut(storage).map_err(anyhow::Error::msg)?;
        ensure!(
            !storage.volumes.contains_key(name),
            "there is a volume {name} already"
        );
        let volume = Volume {
            vmid,
            size: 1 << 30,
            refer: 0,
            used: 0,
            origin: None,
            base: false,
            snapshots: Vec::new(),
            busy: false,
            systemd: None,
        };
        storage.volumes.insert(name.to_owned(), volume);
        Ok(())
    }

    /// `zfs destroy POOL/VOLUME@SNAPSHOT`, with Proxmox knowing nothing of it.
    pub fn lose_snapshot(&self, storage: &str, volume: &str, name: &str) -> Result<()> {
        let mut state = self.core.state();
        let storage = state.storage_mut(storage).map_err(anyhow::Error::msg)?;
        storage
            .drop_snapshot(leaf(volume), name)
            .map_err(anyhow::Error::msg)
    }

    /// `zfs destroy -r POOL/VOLUME`, with Proxmox knowing nothing of it.
    pub fn lose_volume(&self, storage: &str, volume: &str) -> Result<()> {
        let mut state = self.core.state();
        let storage = state.storage_mut(storage).map_err(anyhow::Error::msg)?;
        storage.destroy(leaf(volume)).map_err(anyhow::Error::msg)
    }
}

/// The size that stands behind a volume in the file.
fn size_of(file: &ConfigFile, volume: &str) -> u64 {
    let values = file.main.keys.values();
    let mut sizes = values
        .filter(|value| value.split(',').next() == Some(volume))
        .filter_map(|value| value.split(',').find_map(|part| part.strip_prefix("size=")));
    sizes.next().and_then(parse_size).unwrap_or(1 << 30)
}
