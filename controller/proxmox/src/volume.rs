//! Volumes as the configuration names them: `store:subvol-105-disk-0,size=8G`, and for a linked clone
//! `store:basevol-900-disk-0/subvol-105-disk-0,size=8G`.

use crate::{PropertyString, parse_size};

/// A root filesystem or mount point of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Storage and name, as Proxmox names the volume. For a bind mount the path.
    pub volid: String,
    /// The storage; empty for a bind mount.
    pub storage: String,
    /// The name on the storage, with the base's in front of it for a linked clone.
    pub volume: String,
    /// The base that a linked clone hangs on.
    pub base: Option<String>,
    /// The configured size, rounded up to whole GiB.
    pub size_gib: Option<u64>,
    /// The whole value, for editing; its default key is `volume`.
    pub props: PropertyString,
}

impl Volume {
    /// Reads a `rootfs` or `mp<n>` value. `None` where no volume is named.
    pub fn parse(text: &str) -> Option<Self> {
        let props = PropertyString::parse(text, Some("volume"));
        let volid = props.get("volume")?.to_owned();
        let (storage, volume) = match volid.split_once(':') {
            Some((storage, volume)) if !volid.starts_with('/') => {
                (storage.to_owned(), volume.to_owned())
            }
            _ => (String::new(), volid.clone()),
        };
        let base = if storage.is_empty() {
            None
        } else {
            base_of(&volume)
        };
        let size_gib = props
            .get("size")
            .and_then(parse_size)
            .map(|bytes| bytes.div_ceil(1 << 30));
        Some(Self {
            volid,
            storage,
            volume,
            base,
            size_gib,
            props,
        })
    }

    /// The volume's own name, without the base of a linked clone.
    pub fn own_name(&self) -> &str {
        match &self.base {
            Some(base) => self.volume.get(base.len() + 1..).unwrap_or(&self.volume),
            None => &self.volume,
        }
    }

    /// The VMID whose template this linked clone hangs on.
    pub fn base_vmid(&self) -> Option<u32> {
        self.base.as_deref()?.split('-').nth(1)?.parse().ok()
    }

    /// Whether it is a directory of the host rather than a volume of a storage.
    pub fn is_bind(&self) -> bool {
        self.storage.is_empty()
    }
}

fn base_of(volume: &str) -> Option<String> {
    let (base, own) = volume.split_once('/')?;
    (base.starts_with("base") && !own.is_empty()).then(|| base.to_owned())
}

#[cfg(test)]
mod tests {
    use super::Volume;

    #[test]
    fn reads_a_plain_volume() {
        let volume = Volume::parse("lxc-disks:subvol-100-disk-0,size=2G").unwrap();
        assert_eq!(
            (volume.volid.as_str(), volume.storage.as_str()),
            ("lxc-disks:subvol-100-disk-0", "lxc-disks")
        );
        assert_eq!(
            (volume.own_name(), volume.base_vmid(), volume.size_gib),
            ("subvol-100-disk-0", None, Some(2))
        );
    }

    #[test]
    fn reads_a_linked_clone() {
        let volume = Volume::parse(
            "lxc-disks:basevol-900-disk-0/subvol-901-disk-0,mountoptions=noatime,size=512M",
        )
        .unwrap();
        assert_eq!(
            volume.volid,
            "lxc-disks:basevol-900-disk-0/subvol-901-disk-0"
        );
        assert_eq!(
            (volume.base.as_deref(), volume.base_vmid()),
            (Some("basevol-900-disk-0"), Some(900))
        );
        assert_eq!(
            (volume.own_name(), volume.size_gib),
            ("subvol-901-disk-0", Some(1))
        );
        assert_eq!(volume.props.get("mountoptions"), Some("noatime"));
    }

    #[test]
    fn a_bind_mount_has_no_storage() {
        let volume = Volume::parse("/srv/models,mp=/models,ro=1").unwrap();
        assert!(volume.is_bind());
        assert_eq!(
            (volume.volid.as_str(), volume.size_gib),
            ("/srv/models", None)
        );
        assert!(Volume::parse("size=8G").is_none());
    }
}
