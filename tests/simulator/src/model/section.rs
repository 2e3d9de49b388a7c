//! A container's configuration file: text in, text out, with the digest over the very text.
//!
//! A file has a main section, one for pending changes and one per snapshot. Keys are written in order, descriptions as comments, raw
//! `lxc.*` lines at the end of their section, as Proxmox VE writes them.

use std::{collections::BTreeMap, fmt::Write};

use sha1::{Digest, Sha1};

/// The raw key that a variable of the environment is kept under.
const ENVIRONMENT: &str = "lxc.environment.runtime";

/// One section of a configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Section {
    /// Without the trailing newline that reading adds.
    pub(crate) description: Option<String>,
    pub(crate) keys: BTreeMap<String, String>,
    pub(crate) raw: Vec<(String, String)>,
}

impl Section {
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(String::as_str)
    }

    pub(crate) fn set(&mut self, key: &str, value: impl Into<String>) {
        self.keys.insert(key.to_owned(), value.into());
    }

    fn print(&self, out: &mut String) {
        for line in self.description.iter().flat_map(|text| text.split('\n')) {
            out.push('#');
            encode(line, out);
            out.push('\n');
        }
        for (key, value) in self.keys.iter().filter(|(key, _)| *key != "env") {
            let _ = writeln!(out, "{key}: {value}");
        }
        // The environment lies in the file as LXC's own lines, one a variable.
        for variable in self.get("env").iter().flat_map(|text| text.split('\0')) {
            let _ = writeln!(out, "{ENVIRONMENT}: {variable}");
        }
        for (key, value) in &self.raw {
            let _ = writeln!(out, "{key}: {value}");
        }
    }

    fn read_line(&mut self, line: &str) {
        if let Some(comment) = line.strip_prefix('#') {
            let text = crate::schema::percent_decode(comment);
            match &mut self.description {
                Some(known) => {
                    known.push('\n');
                    known.push_str(&text);
                }
                None => self.description = Some(text),
            }
        } else if let Some((key, value)) = line.split_once(':') {
            let key = key.trim().to_owned();
            // A value of blanks alone is one blank to Proxmox's own parser.
            let value = match value.trim() {
                "" if !value.is_empty() => " ".to_owned(),
                value => value.to_owned(),
            };
            if key == ENVIRONMENT {
                let known = self.keys.entry("env".to_owned()).or_default();
                if !known.is_empty() {
                    known.push('\0');
                }
                known.push_str(&value);
            } else if key.starts_with("lxc.") {
                self.raw.push((key, value));
            } else {
                self.keys.insert(key, value);
            }
        }
    }
}

/// A whole configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ConfigFile {
    pub(crate) main: Section,
    /// Values that wait for the next stop; a key in `pending_delete` waits to go.
    pub(crate) pending: Section,
    pub(crate) pending_delete: Vec<String>,
    pub(crate) snapshots: BTreeMap<String, Section>,
}

impl ConfigFile {
    /// The file as it lies in the cluster's file system.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        self.main.print(&mut out);
        if self.has_pending() {
            out.push_str("\n[pve:pending]\n");
            if !self.pending_delete.is_empty() {
                let _ = writeln!(out, "delete: {}", self.pending_delete.join(","));
            }
            self.pending.print(&mut out);
        }
        for (name, section) in &self.snapshots {
            let _ = writeln!(out, "\n[{name}]");
            section.print(&mut out);
        }
        out
    }

    pub(crate) fn has_pending(&self) -> bool {
        self.pending != Section::default() || !self.pending_delete.is_empty()
    }

    pub(crate) fn digest(&self) -> String {
        hex::encode(Sha1::digest(self.text()))
    }

    /// Reads a file, however it was written.
    pub(crate) fn parse(text: &str) -> Self {
        let mut file = Self::default();
        let mut name: Option<String> = None;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            if let Some(section) = line
                .trim_end()
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                if section != "pve:pending" {
                    file.snapshots.entry(section.to_owned()).or_default();
                }
                name = Some(section.to_owned());
                continue;
            }
            match name.as_deref() {
                None => file.main.read_line(line),
                Some("pve:pending") => file.pending.read_line(line),
                Some(snapshot) => file
                    .snapshots
                    .entry(snapshot.to_owned())
                    .or_default()
                    .read_line(line),
            }
        }
        if let Some(keys) = file.pending.keys.remove("delete") {
            file.pending_delete = keys.split(',').map(str::to_owned).collect();
        }
        file
    }

    pub(crate) fn lock(&self) -> Option<&str> {
        self.main.get("lock")
    }

    pub(crate) fn set_lock(&mut self, lock: Option<&str>) {
        match lock {
            Some(lock) => self.main.set("lock", lock),
            None => {
                self.main.keys.remove("lock");
            }
        }
    }

    pub(crate) fn is_template(&self) -> bool {
        self.main.get("template") == Some("1")
    }
}

/// Escapes what a comment line of the file can't hold.
fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_control() || byte >= 0x7f || byte == b'%' || byte == b':' {
            let _ = write!(out, "%{byte:02X}");
        } else {
            out.push(char::from(byte));
        }
    }
}

/// A description as it is kept: without trailing newlines, nothing when empty.
pub(crate) fn kept_description(text: &str) -> Option<String> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_back_as_it_was_written() {
        let mut file = ConfigFile::default();
        file.main.description = kept_description("# Title\n\n- a: ä ✓ % \\ end\n");
        file.main.set("hostname", "base-template");
        file.main
            .set("rootfs", "lxc-disks:subvol-900-disk-0,size=32G");
        file.main
            .raw
            .push(("lxc.apparmor.profile".into(), "unconfined".into()));
        file.main.set("tags", " ");
        file.main.set("env", "A=1\0B=2");
        file.pending.set("features", "nesting=1");
        file.pending_delete.push("nameserver".into());
        let mut snapshot = Section::default();
        snapshot.set("snaptime", "1");
        file.snapshots.insert("s1".into(), snapshot);
        assert_eq!(ConfigFile::parse(&file.text()), file);
        assert!(
            file.text().starts_with("## Title\n#\n#- a%3A %C3%A4"),
            "{}",
            file.text()
        );
    }

    #[test]
    fn any_change_changes_the_digest() {
        let mut file = ConfigFile::default();
        let before = file.digest();
        file.set_lock(Some("backup"));
        assert_ne!(file.digest(), before);
        assert_eq!(before, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        file.set_lock(None);
        assert_eq!(file.digest(), before);
    }
}
