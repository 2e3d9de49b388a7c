//! apt and dpkg: what is installed is a list in the guest's root, and packages that bring commands bring stand-ins or links to the machine's own.
//!
//! Any well-formed name can be installed, but those of a third party need its repository, and names that begin with `no-such-` exist nowhere: a script's
//! mistake can be played, and a user's own script need not be foreseen.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::system::reaches_outside;
use crate::guest::boot::Guest;
use crate::guest::calls::Call;
use crate::guest::roots::STAND_IN;
use crate::guest::systemd;

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
            .collect();
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

/// `apt-get` and `apt`.
pub(super) async fn apt(guest: &Arc<Guest>, call: &Call) -> i32 {
    let words: Vec<_> = call
        .args
        .iter()
        .enumerate()
        .filter(|(index, arg)| {
            !arg.starts_with('-')
                && (*index == 0
                    || !matches!(
                        call.args[index - 1].as_str(),
                        "-o" | "-t" | "-c" | "--option"
                    ))
        })
        .map(|(_, arg)| arg.as_str())
        .collect();
    let quiet = call.args.iter().any(|arg| arg.starts_with("-qq"));
    let timing = guest.shared.faults.timing();
    match words.first().copied() {
        Some("update") => update(guest, call, quiet).await,
        Some("install" | "reinstall") => install(guest, call, &words[1..], quiet).await,
        Some("upgrade" | "dist-upgrade" | "full-upgrade") => {
            tokio::time::sleep(timing.package_install).await;
            call.reply.out("Reading package lists...\nBuilding dependency tree...\nReading state information...\nCalculating upgrade...\n0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.\n").await;
            0
        }
        Some("remove" | "purge" | "autoremove" | "autopurge") => {
            let mut installed = Installed::read(guest);
            let before = installed.0.len();
            installed
                .0
                .retain(|name, _| !words[1..].contains(&name.as_str()));
            installed.write(guest);
            call.reply.out(&format!("Reading package lists...\nBuilding dependency tree...\nReading state information...\n0 upgraded, 0 newly installed, {} to remove and 0 not upgraded.\n", before - installed.0.len())).await;
            0
        }
        Some("list" | "search" | "show" | "policy") => cache(guest, call).await,
        Some("clean" | "autoclean" | "check" | "edit-sources" | "satisfy") => 0,
        Some(other) => {
            call.reply
                .err(&format!("E: Invalid operation {other}\n"))
                .await;
            100
        }
        None => {
            call.reply.out("apt 2.7.14 (amd64)\n").await;
            0
        }
    }
}

async fn update(guest: &Guest, call: &Call, quiet: bool) -> i32 {
    tokio::time::sleep(guest.shared.faults.timing().package_index).await;
    let sources = sources(guest);
    let mirrors: Vec<_> = sources
        .lines()
        .filter(|line| line.trim_start().starts_with("deb"))
        .filter_map(|line| line.split_whitespace().find(|word| word.contains("://")))
        .collect();
    if !reaches_outside(guest) {
        // apt warns and ends with 0, as it really does.
        for mirror in &mirrors {
            let host = mirror.split('/').nth(2).unwrap_or_default();
            call.reply
                .err(&format!(
                    "W: Failed to fetch {mirror}/InRelease  Temporary failure resolving '{host}'\n"
                ))
                .await;
        }
        call.reply.err("W: Some index files failed to download. They have been ignored, or old ones used instead.\n").await;
        return 0;
    }
    let mut names: Vec<_> = mirrors
        .iter()
        .map(|mirror| {
            mirror
                .split("://")
                .nth(1)
                .unwrap_or_default()
                .trim_end_matches('/')
                .replace('/', "_")
        })
        .collect();
    names.dedup();
    for (index, name) in names.iter().enumerate() {
        guest
            .files
            .write(&format!("/var/lib/apt/lists/{name}_InRelease"), "", 0o644)
            .ok();
        if !quiet {
            call.reply
                .out(&format!(
                    "Get:{} {} InRelease\n",
                    index + 1,
                    mirrors[index.min(mirrors.len() - 1)]
                ))
                .await;
        }
    }
    if !quiet {
        call.reply.out("Reading package lists...\n").await;
    }
    0
}

async fn install(guest: &Arc<Guest>, call: &Call, wanted: &[&str], quiet: bool) -> i32 {
    let mut installed = Installed::read(guest);
    let mut new = Vec::new();
    for word in wanted {
        if word.starts_with('/') || word.starts_with("./") {
            new.push((
                word.rsplit('/')
                    .next()
                    .unwrap_or(word)
                    .split('_')
                    .next()
                    .unwrap_or(word)
                    .to_owned(),
                "1.0-1".to_owned(),
            ));
            continue;
        }
        let (name, exact) = word
            .split_once('=')
            .map_or((*word, None), |(name, version)| (name, Some(version)));
        let name = name.trim_end_matches(":amd64");
        let offered = versions(guest, name);
        let version = match exact {
            None if installed.has(name) => continue,
            None => offered.first(),
            Some(exact) => offered.iter().find(|version| *version == exact),
        };
        match (version, exact) {
            (Some(version), _) => new.push((name.to_owned(), version.clone())),
            (None, Some(exact)) if !offered.is_empty() => {
                call.reply
                    .err(&format!(
                        "E: Version '{exact}' for '{name}' was not found\n"
                    ))
                    .await;
                return 100;
            }
            (None, _) => {
                call.reply
                    .err(&format!("E: Unable to locate package {name}\n"))
                    .await;
                return 100;
            }
        }
    }
    if !new.is_empty() && !reaches_outside(guest) {
        call.reply.err("E: Failed to fetch archives  Temporary failure resolving the mirror\nE: Unable to fetch some archives, maybe run apt-get update or try with --fix-missing?\n").await;
        return 100;
    }
    if !quiet {
        let names: Vec<_> = new.iter().map(|(name, _)| name.as_str()).collect();
        call.reply.out("Reading package lists...\nBuilding dependency tree...\nReading state information...\n").await;
        if !names.is_empty() {
            call.reply
                .out(&format!(
                    "The following NEW packages will be installed:\n  {}\n",
                    names.join(" ")
                ))
                .await;
        }
        call.reply
            .out(&format!(
                "0 upgraded, {} newly installed, 0 to remove and 0 not upgraded.\n",
                new.len()
            ))
            .await;
    }
    if !new.is_empty() {
        tokio::time::sleep(guest.shared.faults.timing().package_install).await;
    }
    for (name, version) in &new {
        if !quiet {
            call.reply
                .out(&format!(
                    "Unpacking {name} ({version}) ...\nSetting up {name} ({version}) ...\n"
                ))
                .await;
        }
        installed.0.insert(name.clone(), (version.clone(), false));
    }
    installed.write(guest);
    for (name, version) in &new {
        unpack(guest, name, version).await;
    }
    0
}

/// Puts a stand-in, or the machine's own program where it is there and harmless.
fn place(guest: &Guest, path: &str) {
    if let Err(error) = guest.files.link(path, STAND_IN) {
        tracing::warn!("guest {}: {error:#}", guest.vmid);
    }
}

fn place_host_tool(guest: &Guest, name: &str) {
    let own = format!("/usr/bin/{name}");
    let target = if std::path::Path::new(&own).exists() {
        format!("/.host{own}")
    } else {
        STAND_IN.to_owned()
    };
    guest.files.link(&own, &target).ok();
}

async fn unpack(guest: &Arc<Guest>, name: &str, version: &str) {
    match name {
        "curl" | "wget" => place(guest, &format!("/usr/bin/{name}")),
        "gnupg" | "gpg" => place(guest, "/usr/bin/gpg"),
        "jq" | "git" | "rsync" | "vim" | "nano" | "less" | "htop" | "lsof" | "tree" | "unzip"
        | "zip" | "bc" | "file" | "tmux" | "nvtop" | "make" | "gcc" => place_host_tool(guest, name),
        "build-essential" => ["gcc", "g++", "make"]
            .iter()
            .for_each(|tool| place_host_tool(guest, tool)),
        "python3" => place(guest, "/usr/bin/python3"),
        "python3-pip" => ["pip", "pip3"]
            .iter()
            .for_each(|tool| place(guest, &format!("/usr/bin/{tool}"))),
        "docker-ce-cli" => place(guest, "/usr/bin/docker"),
        "docker-ce" | "docker.io" => {
            if name == "docker.io" {
                place(guest, "/usr/bin/docker");
            }
            place(guest, "/usr/bin/dockerd");
            let unit = "[Unit]\nDescription=Docker Application Container Engine\nStartLimitBurst=3\nStartLimitIntervalSec=60\n[Service]\nType=notify\nExecStart=/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock\nRestart=always\nRestartSec=2\n[Install]\nWantedBy=multi-user.target\n";
            guest
                .files
                .write(
                    &format!("{}/docker.service", systemd::PACKAGED),
                    unit,
                    0o644,
                )
                .ok();
            guest
                .files
                .link(
                    "/etc/systemd/system/multi-user.target.wants/docker.service",
                    &format!("{}/docker.service", systemd::PACKAGED),
                )
                .ok();
            guest.files.append("/etc/group", "docker:x:988:\n").ok();
            guest.units.start_packaged(guest, "docker.service");
        }
        "nvidia-container-toolkit" => {
            place(guest, "/usr/bin/nvidia-ctk");
            place(guest, "/usr/bin/nvidia-container-cli");
        }
        _ if is_driver_part(name) => {
            let release = version.split('-').next().unwrap_or(version);
            install_driver(
                guest,
                release,
                name.starts_with("nvidia-utils") || name == "nvidia-smi",
            );
        }
        _ if name.starts_with("cuda-") => {
            let mut numbers = name.rsplit('-');
            if let (Some(minor), Some(major)) = (numbers.next(), numbers.next())
                && major.parse::<u32>().is_ok()
            {
                place(guest, &format!("/usr/local/cuda-{major}.{minor}/bin/nvcc"));
            }
        }
        _ => {}
    }
}

/// Leaves the driver's libraries, and `nvidia-smi` where the package brings it.
pub(super) fn install_driver(guest: &Guest, release: &str, with_tools: bool) {
    guest.files.write(DRIVER, release, 0o644).ok();
    for library in ["libcuda.so.1", "libnvidia-ml.so.1"] {
        guest
            .files
            .write(
                &format!("/usr/local/lib/simulated/{library}"),
                release,
                0o644,
            )
            .ok();
    }
    if with_tools {
        place(guest, "/usr/bin/nvidia-smi");
    }
}

/// `apt-cache`, and what `apt` answers of it.
pub(super) async fn cache(guest: &Guest, call: &Call) -> i32 {
    let words: Vec<_> = call
        .args
        .iter()
        .filter(|arg| !arg.starts_with('-'))
        .map(String::as_str)
        .collect();
    let (Some(verb), names) = (words.first(), &words[1.min(words.len())..]) else {
        return 100;
    };
    for name in names {
        let offered = versions(guest, name);
        let installed = Installed::read(guest)
            .0
            .get(*name)
            .map(|(version, _)| version.clone());
        let text = match *verb {
            "madison" => offered
                .iter()
                .map(|version| format!("{name} | {version} | http://mirror.lan Packages\n"))
                .collect(),
            "policy" => format!(
                "{name}:\n  Installed: {}\n  Candidate: {}\n",
                installed.as_deref().unwrap_or("(none)"),
                offered.first().map_or("(none)", String::as_str)
            ),
            "show" if offered.is_empty() => {
                call.reply
                    .err(&format!(
                        "E: No packages found\nN: Unable to locate package {name}\n"
                    ))
                    .await;
                return 100;
            }
            "show" => format!("Package: {name}\nVersion: {}\n\n", offered[0]),
            _ => installed
                .map(|version| format!("{name}/stable,now {version} amd64 [installed]\n"))
                .unwrap_or_default(),
        };
        call.reply.out(&text).await;
    }
    0
}

/// `apt-mark`.
pub(super) async fn mark(guest: &Guest, call: &Call) -> i32 {
    let words = call.args();
    let mut installed = Installed::read(guest);
    match words.first() {
        Some(&("hold" | "unhold")) => {
            for name in &words[1..] {
                let Some(entry) = installed.0.get_mut(*name) else {
                    call.reply.err(&format!("E: Can't select installed version from package {name} as it is not installed\n")).await;
                    return 100;
                };
                entry.1 = words[0] == "hold";
                call.reply
                    .out(&if entry.1 {
                        format!("{name} set on hold.\n")
                    } else {
                        format!("Canceled hold on {name}.\n")
                    })
                    .await;
            }
            installed.write(guest);
        }
        Some(&"showhold") => {
            let held: String = installed
                .0
                .iter()
                .filter(|(_, (_, held))| *held)
                .map(|(name, _)| format!("{name}\n"))
                .collect();
            call.reply.out(&held).await;
        }
        _ => {}
    }
    0
}

/// `dpkg` and `dpkg-query`.
pub(super) async fn dpkg(guest: &Arc<Guest>, call: &Call) -> i32 {
    let installed = Installed::read(guest);
    let words: Vec<_> = call
        .args
        .iter()
        .filter(|arg| !arg.starts_with('-'))
        .map(String::as_str)
        .collect();
    let has = |flags: &[&str]| call.args.iter().any(|arg| flags.contains(&arg.as_str()));
    if has(&["--print-architecture"]) {
        call.reply.out("amd64\n").await;
        return 0;
    }
    if has(&["--configure", "--audit", "-C", "--add-architecture"]) {
        return 0;
    }
    if has(&["-i", "--install"]) {
        let files: Vec<_> = words.iter().map(|word| call.path(word)).collect();
        for file in &files {
            if !guest.files.exists(file) {
                call.reply
                    .err(&format!(
                        "dpkg: error: cannot access archive '{file}': No such file or directory\n"
                    ))
                    .await;
                return 2;
            }
        }
        let names: Vec<_> = files.iter().map(String::as_str).collect();
        return install(guest, call, &names, false).await;
    }
    let format = call
        .args
        .iter()
        .enumerate()
        .find_map(|(index, arg)| match arg.as_str() {
            "-f" | "--showformat" => call.args.get(index + 1).cloned(),
            _ => arg
                .strip_prefix("-f=")
                .or_else(|| arg.strip_prefix("--showformat="))
                .or_else(|| arg.strip_prefix("-f"))
                .map(str::to_owned),
        });
    let names: Vec<_> = words
        .into_iter()
        .filter(|word| Some(*word) != format.as_deref())
        .collect();
    let mut code = 0;
    let found: Vec<_> = installed
        .0
        .iter()
        .filter(|(name, _)| {
            names.is_empty() || names.iter().any(|wanted| matches_pattern(name, wanted))
        })
        .collect();
    for (name, (version, held)) in found {
        let status = format!("{} ok installed", if *held { "hold" } else { "install" });
        let text = if has(&["-s", "--status"]) {
            format!(
                "Package: {name}\nStatus: {status}\nArchitecture: amd64\nVersion: {version}\n\n"
            )
        } else if let Some(format) = &format {
            format
                .replace("${Package}", name)
                .replace("${binary:Package}", name)
                .replace("${Version}", version)
                .replace("${Status}", &status)
                .replace("${db:Status-Status}", "installed")
                .replace("${db:Status-Abbrev}", "ii ")
                .replace("\\n", "\n")
                .replace("\\t", "\t")
        } else if has(&["-W", "--show"]) {
            format!("{name}\t{version}\n")
        } else {
            format!(
                "{}i  {name:<30} {version:<20} amd64\n",
                if *held { "h" } else { "i" }
            )
        };
        call.reply.out(&text).await;
    }
    let missing: Vec<_> = names
        .iter()
        .filter(|wanted| !installed.0.keys().any(|name| matches_pattern(name, wanted)))
        .collect();
    for name in missing {
        call.reply.err(&if has(&["-s", "--status"]) { format!("dpkg-query: package '{name}' is not installed and no information is available\n") } else { format!("dpkg-query: no packages found matching {name}\n") }).await;
        code = 1;
    }
    code
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
