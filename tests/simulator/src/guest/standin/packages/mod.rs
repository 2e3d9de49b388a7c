//! apt and dpkg: what is installed is a list in the guest's root, and packages that bring commands bring stand-ins or links to the machine's own.
//!
//! Any well-formed name can be installed, but those of a third party need its repository, and names that begin with `no-such-` exist nowhere: a script's
//! mistake can be played, and a user's own script need not be foreseen.

mod apt;
mod dpkg;
mod unpack;

use std::collections::BTreeMap;

use crate::guest::boot::Guest;

pub(super) use apt::{apt, cache, mark};
pub(super) use dpkg::dpkg;
pub(super) use unpack::install_driver;

/// What is installed: name, version, held.
const STATE: &str = "/var/lib/dpkg/simulated";
/// The version of the user-space driver that is installed.
pub(super) const DRIVER: &str = "/usr/local/share/simulated/nvidia-driver";
/// Releases that the driver vendor's repository has.
const DRIVERS: [&str; 6] = [
    "560.35.05",
    "570.172.08",
    "575.57.08",
    "580.65.06",
    "580.82.07",
    "580.95.05",
];

pub(super) struct Installed(BTreeMap<String, (String, bool)>);

impl Installed {
    pub(super) fn read(guest: &Guest) -> Self {
        let text = guest.files.read(STATE).unwrap_or_default();
        Self(
            text.lines()
                .filter_map(|line| {
                    let mut words = line.split(' ');
                    Some((
                        words.next()?.to_owned(),
                        (words.next()?.to_owned(), words.next() == Some("hold")),
                    ))
                })
                .collect(),
        )
    }

    fn write(&self, guest: &Guest) {
        let text: String = self
            .0
            .iter()
            .map(|(name, (version, held))| {
                format!("{name} {version}{}\n", if *held { " hold" } else { "" })
            })
            .collect::<Vec<_>>()
            .concat();
        if let Err(error) = guest.files.write(STATE, &text, 0o644) {
            tracing::warn!("guest {}: {error:#}", guest.vmid);
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// Which repository's files a package needs, told by a word in the sources.
fn repository_of(name: &str) -> Option<&'static str> {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if starts(&[
        "docker-ce",
        "containerd.io",
        "docker-buildx-plugin",
        "docker-compose-plugin",
    ]) {
        Some("docker")
    } else if starts(&["nvidia-container-toolkit", "libnvidia-container"]) {
        Some("libnvidia-container")
    } else if starts(&[
        "cuda",
        "libcuda1",
        "libnvidia-",
        "nvidia-",
        "libcudnn",
        "libnccl",
    ]) {
        Some("cuda")
    } else {
        None
    }
}

fn sources(guest: &Guest) -> String {
    let folder = "/etc/apt/sources.list.d";
    let parts = guest
        .files
        .list(folder)
        .into_iter()
        .filter_map(|name| guest.files.read(&format!("{folder}/{name}")));
    guest
        .files
        .read("/etc/apt/sources.list")
        .into_iter()
        .chain(parts)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The versions that the guest's repositories offer of a package, newest first.
fn versions(guest: &Guest, name: &str) -> Vec<String> {
    if name.starts_with("no-such-")
        || guest
            .files
            .list("/var/lib/apt/lists")
            .iter()
            .all(|list| list == "lock" || list == "partial")
    {
        return Vec::new();
    }
    let debian = guest
        .files
        .read("/etc/os-release")
        .is_some_and(|text| text.contains("ID=debian"));
    match repository_of(name) {
        None => vec![if debian {
            "1.0-1".to_owned()
        } else {
            "1.0-1ubuntu1".to_owned()
        }],
        Some(word) if !sources(guest).contains(word) => Vec::new(),
        Some("cuda") if is_driver_part(name) => {
            let branch = name
                .rsplit('-')
                .next()
                .filter(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
                .unwrap_or_default();
            let suffix = if debian { "-1" } else { "-0ubuntu1" };
            DRIVERS
                .iter()
                .rev()
                .filter(|version| version.starts_with(branch))
                .map(|version| format!("{version}{suffix}"))
                .collect()
        }
        Some("docker") => vec!["5:29.1.2-1".to_owned()],
        Some("libnvidia-container") => vec!["1.18.0-1".to_owned()],
        Some(_) => vec!["13.0.2-1".to_owned()],
    }
}

fn is_driver_part(name: &str) -> bool {
    let word = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
    name == "libcuda1"
        || matches!(
            word,
            "libnvidia-compute"
                | "nvidia-utils"
                | "nvidia-smi"
                | "libnvidia-ml"
                | "libnvidia-ptxjitcompiler"
                | "libnvidia-nvvm"
                | "libnvidia-decode"
                | "libnvidia-encode"
                | "nvidia-driver"
                | "nvidia-headless-no-dkms"
        )
}

/// A name against a pattern with stars at its ends.
fn matches_pattern(name: &str, pattern: &str) -> bool {
    let bare = pattern.trim_matches('*');
    match (
        pattern.starts_with('*') && pattern.len() > 1,
        pattern.ends_with('*'),
    ) {
        (true, true) => name.contains(bare),
        (true, false) => name.ends_with(bare),
        (false, true) => name.starts_with(bare),
        (false, false) => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn third_parties_need_their_repository() {
        assert_eq!(repository_of("docker-ce"), Some("docker"));
        assert_eq!(
            repository_of("nvidia-container-toolkit"),
            Some("libnvidia-container")
        );
        assert_eq!(repository_of("libnvidia-compute-580"), Some("cuda"));
        assert_eq!(repository_of("curl"), None);
        assert!(
            is_driver_part("libnvidia-compute-580")
                && is_driver_part("libnvidia-ml1")
                && !is_driver_part("nvidia-container-toolkit")
        );
        assert!(matches_pattern("libnvidia-ml1", "libnvidia*") && !matches_pattern("curl", "url"));
    }
}
