//! Property strings: `name=eth0,bridge=vmbr0,ip=dhcp`, a configuration value made of keys and values.
//!
//! Keys that nobody here knows stay, and so does the order: what is read from Proxmox, edited and sent back differs only
//! in what was edited. One key of a format may stand without its name (`rootfs: store:8,size=8G`); which one that is
//! depends on the format and is told to `parse`.

use std::{collections::BTreeMap, fmt};

/// An editable property string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertyString {
    default_key: Option<String>,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// `None` for a bare word where the format has no default key: kept and printed as it was.
    key: Option<String>,
    value: String,
    /// Whether the key stood in the text, so that it is printed as it was read.
    named: bool,
}

impl PropertyString {
    /// Reads a property string. Nothing is refused: what has no `=` and no default key to go under is kept as it is.
    pub fn parse(text: &str, default_key: Option<&str>) -> Self {
        let entries = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| match part.split_once('=') {
                Some((key, value)) => Entry {
                    key: Some(key.trim().to_owned()),
                    value: value.to_owned(),
                    named: true,
                },
                None => Entry {
                    key: default_key.map(str::to_owned),
                    value: part.to_owned(),
                    named: false,
                },
            })
            .collect();
        Self {
            default_key: default_key.map(str::to_owned),
            entries,
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries
            .iter()
            .find(|e| e.key.as_deref() == Some(key))
            .map(|e| e.value.as_str())
    }

    /// Sets a key: in place where it is there, at the end (the default key: at the front, without its name) where it is not.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "numbers and texts are given alike, without a borrow at every call"
    )]
    pub fn set(&mut self, key: &str, value: impl ToString) -> &mut Self {
        let value = value.to_string();
        if let Some(entry) = self
            .entries
            .iter_mut()
            .find(|e| e.key.as_deref() == Some(key))
        {
            entry.value = value;
        } else if self.default_key.as_deref() == Some(key) {
            self.entries.insert(
                0,
                Entry {
                    key: Some(key.to_owned()),
                    value,
                    named: false,
                },
            );
        } else {
            self.entries.push(Entry {
                key: Some(key.to_owned()),
                value,
                named: true,
            });
        }
        self
    }

    /// Removes a key and returns its value.
    pub fn remove(&mut self, key: &str) -> Option<String> {
        let at = self
            .entries
            .iter()
            .position(|e| e.key.as_deref() == Some(key))?;
        Some(self.entries.remove(at).value)
    }

    /// Keys and values in order; bare words without a key are left out.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries
            .iter()
            .filter_map(|e| Some((e.key.as_deref()?, e.value.as_str())))
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether both say the same, whatever the order and whether or not the default key is written out.
    pub fn means_same(&self, other: &Self) -> bool {
        self.meaning() == other.meaning()
    }

    fn meaning(&self) -> BTreeMap<(Option<&str>, &str), usize> {
        let mut meaning = BTreeMap::new();
        for entry in &self.entries {
            *meaning
                .entry((entry.key.as_deref(), entry.value.as_str()))
                .or_default() += 1;
        }
        meaning
    }
}

impl fmt::Display for PropertyString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, entry) in self.entries.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match &entry.key {
                Some(key) if entry.named => write!(f, "{key}={}", entry.value)?,
                _ => f.write_str(&entry.value)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::PropertyString;
    use proptest::prelude::*;

    const NET: &str = "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:5B:AE:E1,ip=dhcp,type=veth";

    #[test]
    fn an_edit_changes_only_what_was_edited() {
        let mut net = PropertyString::parse(NET, None);
        net.set("ip", "10.0.0.5/24").set("gw", "10.0.0.1");
        assert_eq!(net.remove("type").as_deref(), Some("veth"));
        assert_eq!(
            net.to_string(),
            "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:5B:AE:E1,ip=10.0.0.5/24,gw=10.0.0.1"
        );
        assert_eq!(net.get("mtu"), None);
    }

    #[test]
    fn the_default_key_needs_no_name() {
        let dev = PropertyString::parse("/dev/nvidia0,mode=0666", Some("path"));
        let same = PropertyString::parse("mode=0666,path=/dev/nvidia0", Some("path"));
        assert_eq!(dev.get("path"), Some("/dev/nvidia0"));
        assert!(dev.means_same(&same));
        assert_eq!(dev.to_string(), "/dev/nvidia0,mode=0666");
        let mut made = PropertyString::parse("mode=0666", Some("path"));
        made.set("path", "/dev/nvidia0");
        assert_eq!(made.to_string(), "/dev/nvidia0,mode=0666");
    }

    #[test]
    fn different_values_do_not_mean_the_same() {
        let net = PropertyString::parse(NET, None);
        let mut other = net.clone();
        other.set("tag", 12);
        assert!(!net.means_same(&other));
    }

    proptest! {
        #[test]
        fn round_trips(parts in prop::collection::vec(("[a-z][a-z0-9-]{0,6}", "[A-Za-z0-9:/.;=_-]{0,12}"), 0..8), bare in prop::option::of("[a-z:/0-9-]{1,12}")) {
            let mut text: Vec<String> = bare.into_iter().collect();
            text.extend(parts.iter().map(|(k, v)| format!("{k}={v}")));
            let text = text.join(",");
            for default_key in [None, Some("path")] {
                prop_assert_eq!(PropertyString::parse(&text, default_key).to_string(), text.clone());
            }
        }

        #[test]
        fn a_set_value_is_read_back(parts in prop::collection::vec(("[a-z]{1,4}", "[a-z0-9]{0,4}"), 0..6), key in "[a-z]{1,4}", value in "[a-z0-9=]{0,6}") {
            let text: Vec<_> = parts.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let mut props = PropertyString::parse(&text.join(","), None);
            props.set(&key, &value);
            let again = PropertyString::parse(&props.to_string(), None);
            prop_assert_eq!(again.get(&key), Some(value.as_str()));
            for (k, _) in parts.iter().filter(|(k, _)| *k != key) {
                prop_assert!(again.get(k).is_some());
            }
        }
    }
}
