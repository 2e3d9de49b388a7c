//! Storages and the volumes on them: names, origins, sizes and snapshots, for ZFS, directories and LVM thin.
//!
//! Volumes are kept by the last part of their name (`subvol-900-disk-0`); how a configuration writes them depends on the storage.

use std::collections::BTreeMap;

use crate::config::{StorageKind, StorageShape};

const EMPTY_DATASET: u64 = 96 << 10;
const FRESH_CLONE: u64 = 8 << 10;
/// The snapshot that clones of a ZFS template hang on.
pub(crate) const BASE_SNAPSHOT: &str = "__base__";

/// A storage with what lies on it.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) shape: StorageShape,
    pub(crate) volumes: BTreeMap<String, Volume>,
    /// A storage that isn't is refused.
    pub(crate) online: bool,
    /// Nothing more fits.
    pub(crate) full: bool,
    /// Who asks for its state waits, and the statistics daemon is one of them.
    pub(crate) hung: bool,
}

/// A container's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) vmid: u32,
    /// The size asked for: ZFS's refquota.
    pub(crate) size: u64,
    pub(crate) refer: u64,
    /// What is its own.
    pub(crate) used: u64,
    /// The base it was cloned from.
    pub(crate) origin: Option<String>,
    pub(crate) base: bool,
    /// In the order they were taken.
    pub(crate) snapshots: Vec<VolumeSnapshot>,
    /// A process sits in it.
    pub(crate) busy: bool,
    /// The version of systemd on it, where Proxmox warns about nesting.
    pub(crate) systemd: Option<u32>,
}

/// A snapshot of one volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumeSnapshot {
    pub(crate) name: String,
    pub(crate) refer: u64,
    pub(crate) size: u64,
}

/// The last part of a volume's name.
pub(crate) fn leaf(volume: &str) -> &str {
    volume.rsplit('/').next().unwrap_or(volume)
}

impl Storage {
    pub(crate) fn new(shape: StorageShape) -> Self {
        Self {
            shape,
            volumes: BTreeMap::new(),
            online: true,
            full: false,
            hung: false,
        }
    }

    /// The volumes of one container.
    pub(crate) fn volumes_of(&self, vmid: u32) -> Vec<String> {
        self.volumes
            .iter()
            .filter(|(_, volume)| volume.vmid == vmid)
            .map(|(name, _)| name.clone())
            .collect()
    }

    pub(crate) fn plugin(&self) -> &'static str {
        match self.shape.kind {
            StorageKind::ZfsPool { .. } => "zfspool",
            StorageKind::Dir { .. } => "dir",
            StorageKind::Nfs { .. } => "nfs",
            StorageKind::LvmThin { .. } => "lvmthin",
        }
    }

    /// One for all nodes.
    pub(crate) fn shared(&self) -> bool {
        matches!(self.shape.kind, StorageKind::Nfs { .. })
    }

    /// Disks are files.
    fn of_files(&self) -> bool {
        matches!(
            self.shape.kind,
            StorageKind::Dir { .. } | StorageKind::Nfs { .. }
        )
    }

    pub(crate) fn holds(&self, content: &str) -> bool {
        self.shape.content.iter().any(|known| known == content)
    }

    pub(crate) fn used(&self) -> u64 {
        let templates: u64 = self
            .shape
            .templates
            .iter()
            .map(|template| template.size)
            .sum();
        self.volumes.values().map(|volume| volume.used).sum::<u64>() + templates + EMPTY_DATASET
    }

    fn name(&self, vmid: u32, number: u32, base: bool) -> String {
        match (&self.shape.kind, base) {
            (StorageKind::ZfsPool { .. }, false) => format!("subvol-{vmid}-disk-{number}"),
            (StorageKind::ZfsPool { .. }, true) => format!("basevol-{vmid}-disk-{number}"),
            (StorageKind::Dir { .. } | StorageKind::Nfs { .. }, false) => {
                format!("vm-{vmid}-disk-{number}.raw")
            }
            (StorageKind::Dir { .. } | StorageKind::Nfs { .. }, true) => {
                format!("base-{vmid}-disk-{number}.raw")
            }
            (StorageKind::LvmThin { .. }, false) => format!("vm-{vmid}-disk-{number}"),
            (StorageKind::LvmThin { .. }, true) => format!("base-{vmid}-disk-{number}"),
        }
    }

    /// A volume as a configuration writes it.
    pub(crate) fn written(&self, leaf: &str) -> String {
        let Some(volume) = self.volumes.get(leaf) else {
            return leaf.to_owned();
        };
        match (&self.shape.kind, &volume.origin) {
            (StorageKind::ZfsPool { .. }, Some(origin)) => format!("{origin}/{leaf}"),
            (StorageKind::Dir { .. } | StorageKind::Nfs { .. }, _) => {
                format!("{}/{leaf}", volume.vmid)
            }
            _ => leaf.to_owned(),
        }
    }

    fn free_name(&self, vmid: u32) -> String {
        let taken = |number: u32| {
            [false, true]
                .iter()
                .any(|base| self.volumes.contains_key(&self.name(vmid, number, *base)))
        };
        let number = (0..=u32::MAX)
            .find(|number| !taken(*number))
            .unwrap_or_default();
        self.name(vmid, number, false)
    }

    /// The text when nothing more fits.
    fn check_space(&self, leaf: &str) -> Result<(), String> {
        if !self.full {
            return Ok(());
        }
        Err(match &self.shape.kind {
            StorageKind::ZfsPool { pool } => {
                format!("zfs error: cannot create '{pool}/{leaf}': out of space")
            }
            _ => format!("unable to create image '{leaf}' - No space left on device"),
        })
    }

    /// Makes a new volume; the answer is its last name part.
    pub(crate) fn allocate(&mut self, vmid: u32, size: u64) -> Result<String, String> {
        self.check_space(&self.free_name(vmid))?;
        Ok(self.allocate_empty(vmid, size))
    }

    /// Makes a new volume, whether or not anything fits into it.
    pub(crate) fn allocate_empty(&mut self, vmid: u32, size: u64) -> String {
        let leaf = self.free_name(vmid);
        let volume = Volume {
            vmid,
            size,
            refer: EMPTY_DATASET,
            used: EMPTY_DATASET,
            origin: None,
            base: false,
            snapshots: Vec::new(),
            busy: false,
            systemd: None,
        };
        self.volumes.insert(leaf.clone(), volume);
        leaf
    }

    /// Something was written to a volume.
    pub(crate) fn write(&mut self, leaf: &str, bytes: u64) {
        if let Some(volume) = self.volumes.get_mut(leaf) {
            volume.refer += bytes;
            volume.used += bytes;
        }
    }

    /// Whether a linked clone of this volume is possible.
    pub(crate) fn can_link(&self, leaf: &str, snapshot: bool) -> bool {
        let base = self.volumes.get(leaf).is_some_and(|volume| volume.base);
        match self.shape.kind {
            StorageKind::ZfsPool { .. } => base && !snapshot,
            StorageKind::LvmThin { .. } => base || snapshot,
            StorageKind::Dir { .. } | StorageKind::Nfs { .. } => false,
        }
    }

    pub(crate) fn can_snapshot(&self) -> bool {
        !self.of_files()
    }

    /// A linked clone; the answer is its last name part.
    pub(crate) fn link(&mut self, source: &str, vmid: u32) -> Result<String, String> {
        let leaf = self.free_name(vmid);
        self.check_space(&leaf)?;
        let from = self
            .volumes
            .get(source)
            .ok_or_else(|| format!("no such volume '{source}'"))?;
        let volume = Volume {
            vmid,
            size: from.size,
            refer: from.refer,
            used: FRESH_CLONE,
            origin: Some(source.to_owned()),
            base: false,
            snapshots: Vec::new(),
            busy: false,
            systemd: from.systemd,
        };
        self.volumes.insert(leaf.clone(), volume);
        Ok(leaf)
    }

    /// Turns a volume into one that clones can hang on; the answer is its new last name part.
    pub(crate) fn make_base(&mut self, old: &str) -> Result<String, String> {
        let mut volume = self
            .volumes
            .get(old)
            .cloned()
            .ok_or_else(|| self.absent(old))?;
        let number = old
            .trim_end_matches(".raw")
            .rsplit('-')
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let new = self.name(volume.vmid, number, true);
        volume.base = true;
        if matches!(self.shape.kind, StorageKind::ZfsPool { .. }) {
            volume.snapshots.push(VolumeSnapshot {
                name: BASE_SNAPSHOT.to_owned(),
                refer: volume.refer,
                size: volume.size,
            });
        }
        self.volumes.remove(old);
        self.volumes.insert(new.clone(), volume);
        Ok(new)
    }

    fn absent(&self, leaf: &str) -> String {
        match &self.shape.kind {
            StorageKind::ZfsPool { pool } => {
                format!("zfs error: cannot open '{pool}/{leaf}': dataset does not exist")
            }
            _ => format!("no such volume '{}:{leaf}'", self.shape.id),
        }
    }

    pub(crate) fn in_use(&self, leaf: &str) -> bool {
        self.volumes
            .values()
            .any(|volume| volume.origin.as_deref() == Some(leaf))
    }

    /// Destroys a volume with its snapshots; one that is gone already is fine.
    pub(crate) fn destroy(&mut self, leaf: &str) -> Result<(), String> {
        let Some(volume) = self.volumes.get(leaf) else {
            return Ok(());
        };
        if volume.base && self.in_use(leaf) {
            return Err(format!(
                "base volume '{}' is still in use by linked clones",
                self.written(leaf)
            ));
        }
        if volume.busy {
            return Err(match &self.shape.kind {
                StorageKind::ZfsPool { pool } => {
                    format!("zfs error: cannot unmount '/{pool}/{leaf}': pool or dataset is busy")
                }
                _ => format!("can't remove volume '{leaf}' - it is in use"),
            });
        }
        self.volumes.remove(leaf);
        Ok(())
    }

    pub(crate) fn snapshot(&mut self, leaf: &str, name: &str) -> Result<(), String> {
        let full = self.full;
        let absent = self.absent(leaf);
        let pool = self.root(leaf);
        let volume = self.volumes.get_mut(leaf).ok_or(absent)?;
        if full {
            return Err(format!(
                "zfs error: cannot create snapshot '{pool}@{name}': out of space"
            ));
        }
        if volume
            .snapshots
            .iter()
            .any(|snapshot| snapshot.name == name)
        {
            return Err(format!(
                "zfs error: cannot create snapshot '{pool}@{name}': dataset already exists"
            ));
        }
        volume.snapshots.push(VolumeSnapshot {
            name: name.to_owned(),
            refer: volume.refer,
            size: volume.size,
        });
        Ok(())
    }

    pub(crate) fn drop_snapshot(&mut self, leaf: &str, name: &str) -> Result<(), String> {
        let absent = self.absent(leaf);
        let volume = self.volumes.get_mut(leaf).ok_or(absent)?;
        let before = volume.snapshots.len();
        volume.snapshots.retain(|snapshot| snapshot.name != name);
        if volume.snapshots.len() == before {
            return Err(
                "zfs error: could not find any snapshots to destroy; check snapshot names."
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// ZFS goes back to the newest snapshot only.
    pub(crate) fn can_roll_back(&self, leaf: &str, name: &str) -> Result<(), String> {
        let volume = self.volumes.get(leaf).ok_or_else(|| self.absent(leaf))?;
        let newest_only = matches!(self.shape.kind, StorageKind::ZfsPool { .. });
        let newest = volume
            .snapshots
            .last()
            .is_some_and(|snapshot| snapshot.name == name);
        if newest_only && !newest {
            return Err(format!(
                "can't rollback, '{name}' is not most recent snapshot on '{}:{}'",
                self.shape.id,
                self.written(leaf)
            ));
        }
        Ok(())
    }

    pub(crate) fn roll_back(&mut self, leaf: &str, name: &str) {
        if let Some(volume) = self.volumes.get_mut(leaf)
            && let Some(snapshot) = volume
                .snapshots
                .iter()
                .find(|snapshot| snapshot.name == name)
        {
            (volume.refer, volume.size) = (snapshot.refer, snapshot.size);
        }
    }

    fn root(&self, leaf: &str) -> String {
        match &self.shape.kind {
            StorageKind::ZfsPool { pool } => format!("{pool}/{leaf}"),
            _ => leaf.to_owned(),
        }
    }
}
