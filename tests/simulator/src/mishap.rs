//! Everything that can befall a host from outside its API, in one list: the typed handle, the admin port and the command line all take it.
//!
//! Faults that wait for a call or a task stand in `fault`; here is what happens at once. None of it leaves a task.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{ArgAction, Subcommand};
use serde::{Deserialize, Serialize};

use crate::{api, core::Core, model::now, simulator::Simulator};

/// Something that happens to the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Subcommand)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Mishap {
    /// A lock is left in a container's configuration.
    Lock {
        /// The container.
        vmid: u32,
        /// `disk`, `create`, `snapshot-delete`…
        lock: String,
    },
    /// `pct unlock`.
    Unlock {
        /// The container.
        vmid: u32,
    },
    /// A container's lock file is held, as by a long operation.
    HoldFlock {
        /// The container.
        vmid: u32,
        /// For how long.
        seconds: f64,
    },
    /// Somebody edits a container's configuration file.
    Edit {
        /// The container.
        vmid: u32,
        /// The key.
        key: String,
        /// Its value; without one the key goes.
        value: Option<String>,
    },
    /// Somebody removes a container with its disks.
    Remove {
        /// The container.
        vmid: u32,
    },
    /// Somebody makes a container.
    Make {
        /// Its id.
        vmid: u32,
        /// Its name.
        hostname: String,
    },
    /// Somebody migrates a container.
    Move {
        /// The container.
        vmid: u32,
        /// Where to.
        node: String,
    },
    /// A container goes down by itself.
    PowerOff {
        /// The container.
        vmid: u32,
    },
    /// A container's init ignores being asked to halt, until its next start.
    IgnoreShutdown {
        /// The container.
        vmid: u32,
    },
    /// Somebody types into a container's shared console.
    Type {
        /// The container.
        vmid: u32,
        /// What; a newline follows.
        text: String,
    },
    /// High availability takes care of a container, or no longer.
    Ha {
        /// The container.
        vmid: u32,
        /// Whether it does.
        #[arg(action = ArgAction::Set)]
        managed: bool,
    },
    /// A node leaves the net, or is back.
    NodeOnline {
        /// The node.
        node: String,
        /// Whether it can be reached.
        #[arg(action = ArgAction::Set)]
        online: bool,
    },
    /// A node reboots: its tasks are killed, its containers go down, and those with `onboot` come up again.
    RebootNode {
        /// The node.
        node: String,
        /// How long it is away.
        seconds: f64,
    },
    /// The cluster has a majority, or has none.
    Quorum {
        /// Whether it has.
        #[arg(action = ArgAction::Set)]
        present: bool,
    },
    /// Nothing more fits on a storage, or it does again.
    StorageFull {
        /// The storage.
        storage: String,
        /// Whether it is full.
        #[arg(action = ArgAction::Set)]
        full: bool,
    },
    /// A storage is inactive, or is back.
    StorageOnline {
        /// The storage.
        storage: String,
        /// Whether it is there.
        #[arg(action = ArgAction::Set)]
        online: bool,
    },
    /// A storage hangs: who asks for its state waits, and all figures of guests get old.
    StorageHung {
        /// The storage.
        storage: String,
        /// Whether it hangs.
        #[arg(action = ArgAction::Set)]
        hung: bool,
    },
    /// A process sits in a volume, so that it can't be destroyed.
    VolumeBusy {
        /// The storage.
        storage: String,
        /// The volume's name.
        volume: String,
        /// Whether one does.
        #[arg(action = ArgAction::Set)]
        busy: bool,
    },
    /// A device file of the contacted node appears or goes.
    Device {
        /// `/dev/nvidia0`.
        path: String,
        /// Whether it is there.
        #[arg(action = ArgAction::Set)]
        present: bool,
    },
    /// The contacted node has another NVIDIA driver, as after an upgrade and a boot.
    NvidiaDriver {
        /// Its version; empty: none is loaded.
        version: String,
    },
    /// The NVIDIA device files of the contacted node are gone, as after a boot until something uses the driver, or are made.
    NvidiaDevices {
        /// Whether they are there.
        #[arg(action = ArgAction::Set)]
        present: bool,
    },
    /// The statistics daemon hangs, or goes on.
    StatisticsHang {
        /// Whether it hangs.
        #[arg(action = ArgAction::Set)]
        hang: bool,
    },
    /// What the statistics daemon said last is that much older.
    AgeStatistics {
        /// By so much.
        seconds: u64,
    },
    /// All login tickets are worth nothing from here on.
    ExpireTickets,
    /// A user's login asks for a second factor, or no longer.
    SecondFactor {
        /// `root@pam`.
        user: String,
        /// Whether it does.
        #[arg(action = ArgAction::Set)]
        asked: bool,
    },
    /// An API token is removed.
    RevokeToken {
        /// `phoenix@pve!operator`.
        id: String,
    },
    /// An API token's time is over.
    ExpireToken {
        /// `phoenix@pve!operator`.
        id: String,
    },
    /// A privilege is taken from everybody on a path of the access control list.
    RevokePrivilege {
        /// `/vms`.
        path: String,
        /// `VM.Audit`.
        privilege: String,
    },
    /// A new authority and a new node certificate.
    ReplaceCertificate,
    /// The archive loses all tasks that are over.
    RotateTasks,
    /// The API's workers are replaced: every connection is cut, in the middle of a call or not.
    RecycleWorkers,
    /// Consoles end before they let anybody in, or no longer.
    DeadConsoles {
        /// Whether they do.
        #[arg(action = ArgAction::Set)]
        dead: bool,
    },
    /// The next call for a console reaches another node, where no proxy waits.
    LoseConsoles,
}

impl Simulator {
    /// Lets it happen.
    pub async fn suffer(&self, mishap: Mishap) -> Result<()> {
        self.core.suffer(mishap).await
    }
}

fn length(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))
}

impl Core {
    pub(crate) async fn suffer(self: &Arc<Self>, mishap: Mishap) -> Result<()> {
        match mishap {
            Mishap::Lock { vmid, lock } => self.set_lock(vmid, Some(&lock))?,
            Mishap::Unlock { vmid } => self.set_lock(vmid, None)?,
            Mishap::HoldFlock { vmid, seconds } => self.hold_flock(vmid, length(seconds)).await?,
            Mishap::Edit { vmid, key, value } => self.edit_config(vmid, &key, value.as_deref())?,
            Mishap::Remove { vmid } => self.vanish(vmid).await?,
            Mishap::Make { vmid, hostname } => self.create_foreign(vmid, &hostname).await?,
            Mishap::Move { vmid, node } => self.move_container(vmid, &node)?,
            Mishap::PowerOff { vmid } => self.power_off(vmid).await?,
            Mishap::IgnoreShutdown { vmid } => self.ignore_shutdown(vmid)?,
            Mishap::Type { vmid, text } => self.type_into(vmid, &text).await?,
            Mishap::Ha { vmid, managed } => self.set_ha(vmid, managed)?,
            Mishap::NodeOnline { node, online } => self.set_online(&node, online)?,
            Mishap::RebootNode { node, seconds } => {
                self.reboot_node(&node, length(seconds)).await?;
            }
            Mishap::Quorum { present } => self.state().quorate = present,
            Mishap::StorageFull { storage, full } => {
                self.set_storage(&storage, Some(full), None)?;
            }
            Mishap::StorageOnline { storage, online } => {
                self.set_storage(&storage, None, Some(online))?;
            }
            Mishap::StorageHung { storage, hung } => {
                let mut state = self.state();
                state
                    .storage_mut(&storage)
                    .map_err(anyhow::Error::msg)?
                    .hung = hung;
            }
            Mishap::VolumeBusy {
                storage,
                volume,
                busy,
            } => self.set_busy(&storage, &volume, busy)?,
            Mishap::Device { path, present } => self.set_device(&path, present),
            Mishap::NvidiaDriver { version } => self.set_driver(&version),
            Mishap::NvidiaDevices { present } => self.set_nvidia_devices(present),
            Mishap::StatisticsHang { hang } => self.statistics_hang.store(hang, Ordering::Relaxed),
            Mishap::AgeStatistics { seconds } => self.age_statistics(seconds),
            Mishap::ExpireTickets => self.keys.rotate(),
            Mishap::SecondFactor { user, asked } => self.set_second_factor(&user, asked),
            Mishap::RevokeToken { id } => self.revoke_token(&id),
            Mishap::ExpireToken { id } => self.expire_token(&id)?,
            Mishap::RevokePrivilege { path, privilege } => {
                self.revoke_privilege(&path, &privilege);
            }
            Mishap::ReplaceCertificate => self.certificate.replace()?,
            Mishap::RotateTasks => self.state().tasks.rotate(),
            Mishap::RecycleWorkers => self.recycle.notify_waiters(),
            Mishap::DeadConsoles { dead } => self.consoles.set_dead(dead),
            Mishap::LoseConsoles => self.consoles.lose(),
        }
        Ok(())
    }

    async fn hold_flock(self: &Arc<Self>, vmid: u32, length: Duration) -> Result<()> {
        let held = self
            .flock(vmid, Duration::from_secs(10))
            .await
            .map_err(anyhow::Error::msg)?;
        let stop = self.stop.clone();
        self.running.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(length) => {}
                () = stop.cancelled() => {}
            }
            drop(held);
        });
        Ok(())
    }

    fn move_container(&self, vmid: u32, node: &str) -> Result<()> {
        let mut state = self.state();
        let known = state.nodes.contains_key(node);
        anyhow::ensure!(known, "there is no node {node}");
        node.clone_into(&mut state.known_mut(vmid)?.node);
        Ok(())
    }

    async fn type_into(&self, vmid: u32, text: &str) -> Result<()> {
        let mode = crate::console::mode(self.state().known_mut(vmid)?);
        let session = self.guests.attach(vmid, mode).await?;
        let typed = format!("{text}\n").into_bytes();
        let input = crate::guests::ConsoleInput::Data(typed);
        session
            .input
            .send(input)
            .await
            .context("the console is over")
    }

    fn set_ha(&self, vmid: u32, managed: bool) -> Result<()> {
        let mut state = self.state();
        state.known_mut(vmid)?;
        if managed {
            state.ha.insert(vmid);
        } else {
            state.ha.remove(&vmid);
        }
        Ok(())
    }

    async fn reboot_node(self: &Arc<Self>, node: &str, away: Duration) -> Result<()> {
        let lost = {
            let mut state = self.state();
            state
                .nodes
                .get_mut(node)
                .with_context(|| format!("there is no node {node}"))?
                .online = false;
            let dead = state.tasks.newest().filter(|task| task.upid.node == node);
            dead.for_each(|task| task.killed.cancel());
            let here = state.containers.iter_mut();
            let here = here.filter(|(_, container)| container.node == node);
            here.map(|(vmid, container)| {
                container.runtime = None;
                *vmid
            })
            .collect::<Vec<u32>>()
        };
        for vmid in lost {
            self.guests.halt(vmid).await?;
        }
        let core = Arc::clone(self);
        let node = node.to_owned();
        self.running.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(away) => core.boot_node(&node),
                () = core.stop.cancelled() => {}
            }
        });
        Ok(())
    }

    fn boot_node(self: &Arc<Self>, node: &str) {
        let wanted: Vec<u32> = {
            let mut state = self.state();
            if let Some(node) = state.nodes.get_mut(node) {
                node.online = true;
                node.booted = now();
            }
            let here = state.containers.iter().filter(|(_, container)| {
                container.node == node && container.file.main.get("onboot") == Some("1")
            });
            here.map(|(vmid, _)| *vmid).collect()
        };
        for vmid in wanted {
            api::start_by_host(self, node, vmid);
        }
    }

    fn age_statistics(&self, seconds: u64) {
        let mut state = self.state();
        let samples = state.containers.values_mut();
        for sample in samples.filter_map(|container| container.sample.as_mut()) {
            sample.taken = sample.taken.saturating_sub(seconds);
        }
    }

    fn expire_token(&self, id: &str) -> Result<()> {
        let unknown = || format!("there is no token {id}");
        let (user, name) = id.split_once('!').with_context(unknown)?;
        let mut state = self.state();
        let user = state.access.users.get_mut(user).with_context(unknown)?;
        let token = user.tokens.iter_mut().find(|token| token.id == name);
        token.with_context(unknown)?.expire = 1;
        Ok(())
    }
}
