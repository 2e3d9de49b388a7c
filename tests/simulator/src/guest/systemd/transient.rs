//! `systemd-run`: a service made up on the spot.

use std::sync::Arc;

use super::file::UnitFile;
use super::systemctl::started;
use super::{Active, full_name, path_of};
use crate::guest::boot::Guest;
use crate::guest::calls::{self, Call};
use crate::guest::confine::PATH;

/// `systemd-run`: a service made up on the spot.
pub(in crate::guest) async fn run_transient(guest: &Arc<Guest>, call: &Call) -> i32 {
    let mut file = UnitFile::default();
    let mut name = None;
    let (mut wait, mut quiet, mut no_block) = (false, false, false);
    let mut args = call.args.iter();
    let mut command = Vec::new();
    while let Some(arg) = args.next() {
        if !arg.starts_with('-') || arg == "--" {
            command.extend((arg != "--").then(|| arg.clone()));
            command.extend(args.by_ref().cloned());
            break;
        }
        let (option, attached) = calls::option(arg);
        let mut value = || {
            attached
                .clone()
                .or_else(|| args.next().cloned())
                .unwrap_or_default()
        };
        match option {
            "-u" | "--unit" => name = Some(full_name(&value())),
            "-p" | "--property" => {
                let assignment = value();
                let (key, value) = assignment.split_once('=').unwrap_or((&assignment, ""));
                file.set("Service", key, value);
            }
            "-E" | "--setenv" => {
                let pair = value();
                file.set(
                    "Service",
                    "Environment",
                    &format!(
                        "\"{}\"",
                        pair.replace('\\', "\\\\")
                            .replace('"', "\\\"")
                            .replace('%', "%%")
                    ),
                );
            }
            "--description" => file.set("Unit", "Description", &value()),
            "--working-directory" => file.set("Service", "WorkingDirectory", &value()),
            "--service-type" => file.set("Service", "Type", &value()),
            "-r" | "--remain-after-exit" => file.set("Service", "RemainAfterExit", "yes"),
            "--wait" | "-P" | "--pipe" => wait = true,
            "-q" | "--quiet" => quiet = true,
            "--no-block" => no_block = true,
            "--uid" | "--gid" | "--nice" | "--slice" | "-M" | "-H" => drop(value()),
            _ => {}
        }
    }
    let Some(program) = command.first() else {
        call.reply.err("Command line to execute required.\n").await;
        return 1;
    };
    let name =
        name.unwrap_or_else(|| format!("run-{}.service", hex::encode(rand::random::<[u8; 8]>())));
    if !program.starts_with('/')
        && PATH
            .split(':')
            .all(|folder| !guest.files.exists(&format!("{folder}/{program}")))
    {
        call.reply
            .err(&format!(
                "Failed to find executable {program}: No such file or directory\n"
            ))
            .await;
        return 1;
    }
    let state = guest.units.state(&name);
    if !matches!(state.active, Active::Inactive) || path_of(guest, &name).is_some() {
        call.reply.err(&format!("Failed to start transient service unit: Unit {name} was already loaded or has a fragment file.\n")).await;
        return 1;
    }
    let quoted: Vec<_> = command
        .iter()
        .map(|word| {
            format!(
                "\"{}\"",
                word.replace('\\', "\\\\")
                    .replace('"', "\\\"")
                    .replace('%', "%%")
                    .replace('$', "$$")
                    .replace('\n', "\\n")
            )
        })
        .collect();
    file.set("Service", "ExecStart", &quoted.join(" "));
    guest.units.update(&name, |_| {});
    if let Some(entry) = guest.units.table().units.get_mut(&name) {
        entry.transient = Some(file.clone());
    }
    guest.units.launch(guest, &name, &file);
    if !quiet {
        call.reply
            .err(&format!(
                "Running as unit: {name}; invocation ID: {}\n",
                guest.units.state(&name).invocation
            ))
            .await;
    }
    if wait {
        let Some(mut state) = guest.units.watch(&name) else {
            return 1;
        };
        let ended = state
            .wait_for(|state| matches!(state.active, Active::Inactive | Active::Failed))
            .await
            .map(|state| state.clone());
        return ended.map_or(1, |state| {
            if state.code == 2 {
                128 + state.status
            } else {
                state.status
            }
        });
    }
    if !no_block && !started(guest, &name, &file).await {
        call.reply.err(&format!("Job for {name} failed.\n")).await;
        return 1;
    }
    0
}
