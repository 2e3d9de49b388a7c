//! What a human administrator, or plain bad luck, does to a cluster behind everybody's back. All of it is at once and leaves no task.

use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};

use crate::{
    api,
    core::Core,
    model::{
        Container,
        section::{ConfigFile, kept_description},
        storage::leaf,
    },
    simulator::Simulator,
};

impl Core {
    pub(crate) fn edit_config(&self, vmid: u32, key: &str, value: Option<&str>) -> Result<()> {
        let mut state = self.state();
        let file = &mut state.known_mut(vmid)?.file;
        match (key, value) {
            ("description", value) => file.main.description = value.and_then(kept_description),
            (_, Some(value)) => file.main.set(key, value),
            (_, None) => {
                file.main.keys.remove(key);
            }
        }
        Ok(())
    }

    pub(crate) async fn vanish(&self, vmid: u32) -> Result<()> {
        ensure!(
            self.state().containers.contains_key(&vmid),
            "there is no container {vmid}"
        );
        self.guests.halt(vmid).await?;
        let mut roots = Vec::new();
        {
            let mut state = self.state();
            state.containers.remove(&vmid);
            for (id, storage) in &mut state.storages {
                for name in storage.volumes_of(vmid) {
                    if let Some(volume) = storage.volumes.get_mut(&name) {
                        volume.busy = false;
                    }
                    storage.destroy(&name).map_err(anyhow::Error::msg)?;
                    roots.push(format!("{id}:{name}"));
                }
            }
        }
        for root in roots {
            self.guests.destroy_root(root).await?;
        }
        Ok(())
    }

    pub(crate) async fn create_foreign(&self, vmid: u32, hostname: &str) -> Result<()> {
        let root = {
            let mut state = self.state();
            state.taken(vmid).map_err(anyhow::Error::msg)?;
            let (id, storage) = state
                .storages
                .iter_mut()
                .find(|(_, storage)| storage.holds("rootdir"))
                .context("no storage takes containers")?;
            let name = storage
                .allocate(vmid, 8 << 30)
                .map_err(anyhow::Error::msg)?;
            storage.write(&name, 400 << 20);
            let (id, written) = (id.clone(), storage.written(&name));
            let mut file = ConfigFile::default();
            let keys = [
                ("arch", "amd64"),
                ("cores", "1"),
                ("hostname", hostname),
                ("memory", "512"),
                ("ostype", "debian"),
                ("swap", "512"),
                ("unprivileged", "1"),
            ];
            for (key, value) in keys {
                file.main.set(key, value);
            }
            file.main.set("rootfs", format!("{id}:{written},size=8G"));
            let node = self.contacted_node().to_owned();
            state.containers.insert(vmid, Container::new(&node, file));
            format!("{id}:{name}")
        };
        self.guests
            .create_root(root, "debian-13-standard_13.1-2_amd64.tar.zst".to_owned())
            .await
    }

    pub(crate) fn set_lock(&self, vmid: u32, lock: Option<&str>) -> Result<()> {
        self.state().known_mut(vmid)?.file.set_lock(lock);
        Ok(())
    }

    pub(crate) fn set_online(&self, node: &str, online: bool) -> Result<()> {
        self.state()
            .nodes
            .get_mut(node)
            .with_context(|| format!("there is no node {node}"))?
            .online = online;
        Ok(())
    }

    pub(crate) fn set_storage(
        &self,
        id: &str,
        full: Option<bool>,
        online: Option<bool>,
    ) -> Result<()> {
        let mut state = self.state();
        let storage = state.known_storage(id)?;
        storage.full = full.unwrap_or(storage.full);
        storage.online = online.unwrap_or(storage.online);
        Ok(())
    }

    pub(crate) async fn power_off(&self, vmid: u32) -> Result<()> {
        let node = self.state().known_mut(vmid)?.node.clone();
        self.guests.halt(vmid).await?;
        api::stopped(self, &node, vmid);
        Ok(())
    }

    pub(crate) fn ignore_shutdown(&self, vmid: u32) -> Result<()> {
        let mut state = self.state();
        let container = state.known_mut(vmid)?;
        container
            .runtime
            .as_mut()
            .with_context(|| format!("container {vmid} doesn't run"))?
            .honours_shutdown = false;
        Ok(())
    }

    pub(crate) fn set_busy(&self, storage: &str, volume: &str, busy: bool) -> Result<()> {
        let mut state = self.state();
        state.known_volume(storage, volume)?.busy = busy;
        Ok(())
    }

    pub(crate) fn set_device(&self, path: &str, present: bool) {
        let node = self.contacted_node().to_owned();
        if let Some(node) = self.state().nodes.get_mut(&node) {
            node.shape.devices.retain(|device| device != path);
            if present {
                node.shape.devices.push(path.to_owned());
            }
        }
    }

    pub(crate) fn set_driver(&self, version: &str) {
        let node = self.contacted_node().to_owned();
        if let Some(node) = self.state().nodes.get_mut(&node) {
            version.clone_into(&mut node.shape.driver_version);
        }
        self.guests.set_driver(version);
    }

    /// The device files of the driver and of each card.
    pub(crate) fn set_nvidia_devices(&self, present: bool) {
        let node = self.contacted_node().to_owned();
        let cards: Vec<u32> = {
            let state = self.state();
            let node = state.nodes.get(&node);
            node.iter()
                .flat_map(|node| &node.shape.gpus)
                .map(|gpu| gpu.index)
                .collect()
        };
        let common = ["ctl", "-uvm", "-uvm-tools", "-modeset"].map(str::to_owned);
        for name in common.into_iter().chain(cards.iter().map(u32::to_string)) {
            self.set_device(&format!("/dev/nvidia{name}"), present);
        }
    }

    pub(crate) fn set_second_factor(&self, user: &str, asked: bool) {
        let factors = &mut self.state().access.second_factor;
        if asked {
            factors.insert(user.to_owned());
        } else {
            factors.remove(user);
        }
    }

    pub(crate) fn revoke_token(&self, id: &str) {
        if let Some((user, name)) = id.split_once('!')
            && let Some(user) = self.state().access.users.get_mut(user)
        {
            user.tokens.retain(|token| token.id != name);
        }
    }

    pub(crate) fn revoke_privilege(&self, path: &str, privilege: &str) {
        for line in self
            .state()
            .access
            .acl
            .iter_mut()
            .filter(|line| line.path == path)
        {
            line.privileges.retain(|held| held != privilege);
        }
    }
}

impl Simulator {
    /// Sets a key of a container's configuration file, or removes it, as an editor on the host would.
    pub fn edit_config(&self, vmid: u32, key: &str, value: Option<&str>) -> Result<()> {
        self.core.edit_config(vmid, key, value)
    }

    /// Replaces a container's whole configuration file.
    pub fn replace_config(&self, vmid: u32, text: &str) -> Result<()> {
        self.core.state().known_mut(vmid)?.file = ConfigFile::parse(text);
        Ok(())
    }

    /// Removes a container with its disks.
    pub async fn delete_container(&self, vmid: u32) -> Result<()> {
        self.core.vanish(vmid).await
    }

    /// A stopped container that somebody else made.
    pub async fn create_foreign(&self, vmid: u32, hostname: &str) -> Result<()> {
        self.core.create_foreign(vmid, hostname).await
    }

    /// Leaves a lock in a container's configuration.
    pub fn set_lock(&self, vmid: u32, lock: &str) -> Result<()> {
        self.core.set_lock(vmid, Some(lock))
    }

    /// `pct unlock`.
    pub fn unlock(&self, vmid: u32) -> Result<()> {
        self.core.set_lock(vmid, None)
    }

    /// Takes a container's lock file, as a long operation does; freed when the guard is dropped.
    pub async fn hold_flock(&self, vmid: u32) -> Result<impl Sized + use<>> {
        self.core
            .flock(vmid, std::time::Duration::from_secs(10))
            .await
            .map_err(anyhow::Error::msg)
    }

    /// The container goes down by itself.
    pub async fn power_off(&self, vmid: u32) -> Result<()> {
        self.core.power_off(vmid).await
    }

    /// From now on its init ignores being asked to halt, until it is started again.
    pub fn ignore_shutdown(&self, vmid: u32) -> Result<()> {
        self.core.ignore_shutdown(vmid)
    }

    /// A process sits in a volume of that name, so that it can't be destroyed.
    pub fn set_busy(&self, storage: &str, volume: &str, busy: bool) -> Result<()> {
        self.core.set_busy(storage, volume, busy)
    }

    /// Somebody destroyed a snapshot with ZFS's own tool.
    pub fn drop_volume_snapshot(&self, storage: &str, volume: &str, name: &str) -> Result<()> {
        let mut state = self.core.state();
        state
            .known_storage(storage)?
            .drop_snapshot(leaf(volume), name)
            .map_err(anyhow::Error::msg)
    }

    /// Somebody changed a volume's size with the storage's own tool.
    pub fn set_volume_size(&self, storage: &str, volume: &str, bytes: u64) -> Result<()> {
        let mut state = self.core.state();
        state.known_volume(storage, volume)?.size = bytes;
        Ok(())
    }

    /// Takes a node off the net, or brings it back.
    pub fn set_online(&self, node: &str, online: bool) -> Result<()> {
        self.core.set_online(node, online)
    }

    /// The statistics daemon hangs, or goes on: `cluster/resources` tells old figures meanwhile.
    pub fn set_statistics_hang(&self, hang: bool) {
        self.core.statistics_hang.store(hang, Ordering::Relaxed);
    }

    /// Whether the cluster has a majority.
    pub fn set_quorate(&self, quorate: bool) {
        self.core.state().quorate = quorate;
    }

    /// Nothing more fits on a storage, or it does again.
    pub fn set_storage_full(&self, id: &str, full: bool) -> Result<()> {
        self.core.set_storage(id, Some(full), None)
    }

    /// A storage hangs, or is back.
    pub fn set_storage_online(&self, id: &str, online: bool) -> Result<()> {
        self.core.set_storage(id, None, Some(online))
    }

    /// A device file of the contacted node appears or goes.
    pub fn set_device(&self, path: &str, present: bool) {
        self.core.set_device(path, present);
    }

    /// All login tickets are worth nothing from here on.
    pub fn expire_tickets(&self) {
        self.core.keys.rotate();
    }

    /// A user's login asks for a second factor, or no longer.
    pub fn set_second_factor(&self, user: &str, asked: bool) {
        self.core.set_second_factor(user, asked);
    }

    /// Removes an API token.
    pub fn revoke_token(&self, id: &str) {
        self.core.revoke_token(id);
    }

    /// Takes a privilege from everybody on that path of the access control list.
    pub fn revoke_privilege(&self, path: &str, privilege: &str) {
        self.core.revoke_privilege(path, privilege);
    }

    /// A new authority and a new node certificate, as after a reinstallation.
    pub fn replace_certificate(&self) -> Result<()> {
        self.core.certificate.replace()
    }
}
