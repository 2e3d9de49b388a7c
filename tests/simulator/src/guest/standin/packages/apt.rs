//! `apt-get`, `apt`, `apt-cache` and `apt-mark`.

use std::sync::Arc;

use super::unpack::unpack;
use super::{Installed, sources, versions};
use crate::guest::boot::Guest;
use crate::guest::calls::Call;
use crate::guest::standin::system::reaches_outside;

/// `apt-get` and `apt`.
pub(in crate::guest::standin) async fn apt(guest: &Arc<Guest>, call: &Call) -> i32 {
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

pub(super) async fn install(guest: &Arc<Guest>, call: &Call, wanted: &[&str], quiet: bool) -> i32 {
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
    let held = |(name, version): &(String, String)| {
        let entry = installed.0.get(name);
        entry.is_some_and(|(is, held)| *held && is != version)
    };
    let allowed = call
        .args
        .iter()
        .any(|arg| arg == "--allow-change-held-packages");
    if !allowed && new.iter().any(held) {
        call.reply.err("E: Held packages were changed and -y was used without --allow-change-held-packages.\n").await;
        return 100;
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
        unpack(guest, name, version);
    }
    0
}

/// `apt-cache`, and what `apt` answers of it.
pub(in crate::guest::standin) async fn cache(guest: &Guest, call: &Call) -> i32 {
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
                .collect::<Vec<_>>()
                .concat(),
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
pub(in crate::guest::standin) async fn mark(guest: &Guest, call: &Call) -> i32 {
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
                .collect::<Vec<_>>()
                .concat();
            call.reply.out(&held).await;
        }
        _ => {}
    }
    0
}
