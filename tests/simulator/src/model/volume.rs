//! The volumes that a configuration names: which keys hold one, and how such a value is read and written.

use std::{collections::BTreeMap, fmt::Write};

use super::section::{ConfigFile, Section};
use crate::schema::MountSpec;

/// One `rootfs`, `mpN` or `unusedN` of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) key: String,
    pub(crate) spec: MountSpec,
    /// What stands behind the volume, `mp=/data,size=2G`, in order.
    pub(crate) options: Vec<(String, String)>,
}

impl Mount {
    /// Reads a value; the volume may be the first, keyless part or `volume=`.
    pub(crate) fn parse(key: &str, value: &str, default_storage: &str) -> Self {
        let mut volume = "";
        let mut options = Vec::new();
        for part in value.split(',').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("volume", text)) => volume = text,
                Some((name, text)) => options.push((name.to_owned(), text.to_owned())),
                None => volume = part,
            }
        }
        Self {
            key: key.to_owned(),
            spec: MountSpec::parse(volume, default_storage),
            options,
        }
    }

    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        self.options
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Storage and volume name, where it is a volume.
    pub(crate) fn volume(&self) -> Option<(&str, &str)> {
        match &self.spec {
            MountSpec::Volume { storage, name } => Some((storage, name)),
            _ => None,
        }
    }

    /// As a configuration writes it: the volume first, the options in order, with the size at its end.
    pub(crate) fn print(&self, size: Option<u64>) -> String {
        let mut text = match &self.spec {
            MountSpec::Volume { storage, name } => format!("{storage}:{name}"),
            MountSpec::Allocate { storage, bytes } => format!("{storage}:{}", bytes >> 30),
            MountSpec::Bind(path) | MountSpec::Device(path) => path.clone(),
        };
        let mut options: BTreeMap<&str, String> = self
            .options
            .iter()
            .map(|(key, value)| (key.as_str(), value.clone()))
            .collect();
        if let Some(size) = size {
            options.insert("size", crate::schema::print_size(size));
        }
        // Required keys come first.
        if let Some(path) = options.remove("mp") {
            let _ = write!(text, ",mp={path}");
        }
        for (key, value) in options {
            let _ = write!(text, ",{key}={value}");
        }
        text
    }
}

/// Whether a key holds a mount.
pub(crate) fn is_mount(key: &str) -> bool {
    key == "rootfs" || numbered(key, "mp")
}

/// Whether a key is `stem` and a number.
pub(crate) fn numbered(key: &str, stem: &str) -> bool {
    key.strip_prefix(stem)
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// All mounts of a section, `rootfs` first.
pub(crate) fn mounts(section: &Section) -> Vec<Mount> {
    let mut found: Vec<Mount> = section
        .keys
        .iter()
        .filter(|(key, _)| is_mount(key))
        .map(|(key, value)| Mount::parse(key, value, "local"))
        .collect();
    found.sort_by_key(|mount| mount.key != "rootfs");
    found
}

/// Every volume that a file refers to, unused and pending ones too.
pub(crate) fn all_volumes(file: &ConfigFile) -> Vec<(String, String)> {
    let sections = [&file.main, &file.pending]
        .into_iter()
        .chain(file.snapshots.values());
    let mut found: Vec<(String, String)> = sections
        .flat_map(|section| section.keys.iter())
        .filter(|(key, _)| is_mount(key) || numbered(key, "unused"))
        .filter_map(|(key, value)| {
            Mount::parse(key, value, "local")
                .volume()
                .map(|(storage, name)| (storage.to_owned(), name.to_owned()))
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// The first `stemN` that is free.
fn free_key(section: &Section, stem: &str) -> String {
    (0..256)
        .map(|number| format!("{stem}{number}"))
        .find(|key| !section.keys.contains_key(key))
        .unwrap_or_else(|| format!("{stem}0"))
}

/// Whether a file mounts a volume anywhere: now, after the next stop, or in a snapshot.
pub(crate) fn is_mounted(file: &ConfigFile, storage: &str, name: &str) -> bool {
    [&file.main, &file.pending]
        .into_iter()
        .chain(file.snapshots.values())
        .any(|section| {
            mounts(section)
                .iter()
                .any(|mount| mount.volume() == Some((storage, name)))
        })
}

/// Keeps a volume that is no longer mounted in view, as `unusedN`; never twice.
pub(crate) fn add_unused(main: &mut Section, storage: &str, name: &str) {
    let value = format!("{storage}:{name}");
    let known = main
        .keys
        .iter()
        .any(|(key, kept)| numbered(key, "unused") && *kept == value);
    if !known {
        let key = free_key(main, "unused");
        main.set(&key, value);
    }
}

/// A volume that is mounted isn't unused: whenever Proxmox writes a file, it leaves such keys out.
pub(crate) fn drop_used(main: &mut Section) {
    let mounted: Vec<String> = mounts(main)
        .iter()
        .filter_map(Mount::volume)
        .map(|(storage, name)| format!("{storage}:{name}"))
        .collect();
    main.keys
        .retain(|key, value| !numbered(key, "unused") || !mounted.contains(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_written_as_proxmox_writes_them() {
        for (value, size, text) in [
            (
                "volume=lxc-disks:subvol-101-disk-0,size=2G",
                Some(2 << 30),
                "lxc-disks:subvol-101-disk-0,size=2G",
            ),
            (
                "lxc-disks:subvol-150-disk-1,backup=1,mp=/data",
                Some(1 << 30),
                "lxc-disks:subvol-150-disk-1,mp=/data,backup=1,size=1G",
            ),
            ("/srv/bind,mp=/bind", None, "/srv/bind,mp=/bind"),
        ] {
            assert_eq!(Mount::parse("mp0", value, "local").print(size), text);
        }
    }

    #[test]
    fn unused_and_pending_volumes_count() {
        let mut file = ConfigFile::default();
        file.main.set(
            "rootfs",
            "lxc-disks:basevol-900-disk-0/subvol-901-disk-0,size=1G",
        );
        file.main.set("unused0", "lxc-disks:subvol-901-disk-1");
        file.pending.set("mp1", "/srv/x,mp=/x");
        let names: Vec<String> = all_volumes(&file)
            .into_iter()
            .map(|(_, name)| name)
            .collect();
        assert_eq!(
            names,
            ["basevol-900-disk-0/subvol-901-disk-0", "subvol-901-disk-1"]
        );
    }
}
