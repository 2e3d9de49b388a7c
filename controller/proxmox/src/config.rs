//! A container's configuration as Proxmox gives it back: every key as text, with readers for those that have structure.

use crate::{PropertyString, Volume, wire};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;

/// The configuration of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CtConfig {
    /// SHA-1 of the configuration file: it changes with any write, a lock included.
    pub digest: String,
    /// All scalar keys, values as text: flags are `0` and `1`.
    pub keys: BTreeMap<String, String>,
    /// Lines of the configuration that are raw LXC settings, in order.
    pub raw_lxc: Vec<(String, String)>,
}

impl<'de> Deserialize<'de> for CtConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut config = Self::default();
        for (key, value) in BTreeMap::<String, Value>::deserialize(from)? {
            match (key.as_str(), &value) {
                ("digest", _) => config.digest = wire::as_text(&value).unwrap_or_default(),
                ("lxc", Value::Array(lines)) => {
                    config.raw_lxc = lines.iter().filter_map(raw_line).collect();
                }
                _ => {
                    if let Some(text) = wire::as_text(&value) {
                        config.keys.insert(key, text);
                    }
                }
            }
        }
        Ok(config)
    }
}

fn raw_line(line: &Value) -> Option<(String, String)> {
    let [key, value] = line.as_array()?.as_slice() else {
        return None;
    };
    Some((wire::as_text(key)?, wire::as_text(value)?))
}

impl CtConfig {
    /// A key's value as text.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(String::as_str)
    }

    /// A key that is a flag; absent is false.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|v| !matches!(v, "" | "0"))
    }

    /// The host name.
    pub fn hostname(&self) -> Option<&str> {
        self.get("hostname")
    }

    /// The description, without the line end that Proxmox adds; empty where there is none.
    pub fn description(&self) -> &str {
        let text = self.get("description").unwrap_or_default();
        text.strip_suffix('\n').unwrap_or(text)
    }

    /// The tags as Proxmox keeps them: lower-case and sorted.
    pub fn tags(&self) -> Vec<String> {
        wire::split_list(self.get("tags").unwrap_or_default())
    }

    /// Whether it is a template.
    pub fn is_template(&self) -> bool {
        self.flag("template")
    }

    /// Whether its root is mapped to an unprivileged user.
    pub fn unprivileged(&self) -> bool {
        self.flag("unprivileged")
    }

    /// Whether it is protected from removal.
    pub fn protection(&self) -> bool {
        self.flag("protection")
    }

    /// Whether it starts with the node.
    pub fn onboot(&self) -> bool {
        self.flag("onboot")
    }

    /// The configuration's lock.
    pub fn lock(&self) -> Option<&str> {
        self.get("lock").filter(|lock| !lock.is_empty())
    }

    /// CPU cores; none means all of the host's.
    pub fn cores(&self) -> Option<u32> {
        self.get("cores")?.parse().ok()
    }

    /// Memory in MiB; Proxmox's default where the key is not there yet.
    pub fn memory_mib(&self) -> u64 {
        self.get("memory")
            .and_then(|v| v.parse().ok())
            .unwrap_or(512)
    }

    /// Swap in MiB; Proxmox's default where the key is not there yet.
    pub fn swap_mib(&self) -> u64 {
        self.get("swap").and_then(|v| v.parse().ok()).unwrap_or(512)
    }

    /// The root filesystem; none while a create or clone has not made it yet.
    pub fn rootfs(&self) -> Option<Volume> {
        Volume::parse(self.get("rootfs")?)
    }

    /// Mount points by number.
    pub fn mounts(&self) -> BTreeMap<u8, Volume> {
        self.numbered("mp")
            .filter_map(|(n, text)| Some((n, Volume::parse(text)?)))
            .collect()
    }

    /// Network interfaces by number.
    pub fn nets(&self) -> BTreeMap<u8, PropertyString> {
        self.numbered("net")
            .map(|(n, text)| (n, PropertyString::parse(text, None)))
            .collect()
    }

    /// Devices passed through, by number; the default key is `path`.
    pub fn devices(&self) -> BTreeMap<u8, PropertyString> {
        self.numbered("dev")
            .map(|(n, text)| (n, PropertyString::parse(text, Some("path"))))
            .collect()
    }

    /// Volumes that are kept but not mounted, by number.
    pub fn unused(&self) -> BTreeMap<u8, Volume> {
        self.numbered("unused")
            .filter_map(|(n, text)| Some((n, Volume::parse(text)?)))
            .collect()
    }

    /// Feature flags; empty where there are none.
    pub fn features(&self) -> PropertyString {
        PropertyString::parse(self.get("features").unwrap_or_default(), None)
    }

    fn numbered<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (u8, &'a str)> {
        let from = self.keys.range(prefix.to_owned()..);
        from.take_while(move |(key, _)| key.starts_with(prefix))
            .filter_map(move |(key, value)| {
                Some((key.strip_prefix(prefix)?.parse().ok()?, value.as_str()))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::CtConfig;
    use serde_json::json;

    fn config() -> CtConfig {
        serde_json::from_value(json!({
            "digest": "ab", "hostname": "ct100", "tags": "a;b;k8s", "cores": 2, "memory": "256", "unprivileged": 1, "template": 0,
            "description": "line one\nline **two**\n", "lock": "backup", "swap": 0, "cpulimit": "0.5", "protection": true,
            "net0": "name=eth0,bridge=vmbr0,ip=dhcp", "net10": "name=eth10,bridge=vmbr1", "nested": {"is": "ignored"},
            "rootfs": "lxc-disks:basevol-900-disk-0/subvol-901-disk-0,size=8G", "mp0": "tank2:subvol-901-disk-1,mp=/data,size=1G",
            "dev0": "/dev/nvidia0,mode=0666", "dev255": "path=/dev/nvidiactl", "features": "nesting=1,keyctl=1", "mpx": "no",
            "lxc": [["lxc.mount.entry", "a b none"], ["lxc.cgroup2.devices.allow", "c 195:* rwm"], "odd"]
        }))
        .unwrap()
    }

    #[test]
    fn scalars() {
        let c = config();
        assert_eq!(
            (c.digest.as_str(), c.hostname(), c.lock()),
            ("ab", Some("ct100"), Some("backup"))
        );
        assert_eq!((c.cores(), c.memory_mib(), c.swap_mib()), (Some(2), 256, 0));
        assert_eq!(
            (
                c.is_template(),
                c.unprivileged(),
                c.protection(),
                c.onboot()
            ),
            (false, true, true, false)
        );
        assert_eq!(
            (c.description(), c.get("cpulimit")),
            ("line one\nline **two**", Some("0.5"))
        );
        assert_eq!(c.tags(), ["a", "b", "k8s"]);
        assert!(!c.keys.contains_key("digest") && !c.keys.contains_key("nested"));
    }

    #[test]
    fn structures() {
        let c = config();
        assert_eq!(c.rootfs().unwrap().base_vmid(), Some(900));
        assert_eq!(c.nets().keys().copied().collect::<Vec<_>>(), [0, 10]);
        assert_eq!(c.devices()[&0].get("path"), Some("/dev/nvidia0"));
        assert_eq!(c.devices()[&255].get("path"), Some("/dev/nvidiactl"));
        assert_eq!(c.mounts()[&0].props.get("mp"), Some("/data"));
        assert_eq!(c.features().get("keyctl"), Some("1"));
        assert_eq!(
            c.raw_lxc,
            [
                ("lxc.mount.entry".into(), "a b none".into()),
                ("lxc.cgroup2.devices.allow".into(), "c 195:* rwm".into())
            ]
        );
    }

    #[test]
    fn an_emptied_tags_key_is_no_tag_and_defaults_hold() {
        let c: CtConfig = serde_json::from_value(json!({"digest": "x", "tags": " "})).unwrap();
        assert_eq!(
            (c.tags().len(), c.description(), c.memory_mib(), c.rootfs()),
            (0, "", 512, None)
        );
    }
}
