//! `systemctl` as scripts call it.

use std::fmt::Write as _;
use std::sync::Arc;

use super::file::UnitFile;
use super::show::{enablement, properties, status, status_code};
use super::{Active, FOLDERS, WANTS, full_name, is_builtin, load, path_of};
use crate::guest::boot::Guest;
use crate::guest::calls::{self, Call};
use crate::guests::GuestEvent;

#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
struct Options {
    quiet: bool,
    now: bool,
    no_block: bool,
    value: bool,
    unix_times: bool,
    wait: bool,
    failed: bool,
    lines: Option<usize>,
    properties: Vec<String>,
    words: Vec<String>,
}

fn options(args: &[String]) -> Options {
    let mut found = Options::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let (name, attached) = calls::option(arg);
        let mut value = || {
            attached
                .clone()
                .or_else(|| args.next().cloned())
                .unwrap_or_default()
        };
        match name {
            "-q" | "--quiet" => found.quiet = true,
            "--now" => found.now = true,
            "--no-block" => found.no_block = true,
            "--value" => found.value = true,
            "--wait" => found.wait = true,
            "--failed" => found.failed = true,
            "--timestamp" => found.unix_times = value() == "unix",
            "-p" | "--property" | "-P" => {
                found.value |= name == "-P";
                found
                    .properties
                    .extend(value().split(',').map(str::to_owned));
            }
            "-n" | "--lines" => found.lines = value().parse().ok(),
            "-t" | "--type" | "--state" | "-s" | "--signal" | "--kill-who" | "--kill-whom"
            | "-o" | "--output" | "--job-mode" | "-H" | "-M" | "--root" => drop(value()),
            _ if name.starts_with('-') && name.len() > 1 => {
                if let Some(property) = name
                    .strip_prefix("-p")
                    .filter(|rest| !rest.is_empty() && !name.starts_with("--"))
                {
                    found.properties.push(property.to_owned());
                }
            }
            _ => found.words.push(arg.clone()),
        }
    }
    found
}

/// `systemctl`.
pub(in crate::guest) async fn run(guest: &Arc<Guest>, call: &Call) -> i32 {
    if call.args.iter().any(|arg| arg == "--version") {
        call.reply
            .out("systemd 255 (255.4-1ubuntu8)\n+PAM +AUDIT +SELINUX +APPARMOR +IMA\n")
            .await;
        return 0;
    }
    let options = options(&call.args);
    let verb = options.words.first().map_or("list-units", String::as_str);
    let names: Vec<String> = options
        .words
        .iter()
        .skip(1)
        .map(|name| full_name(name))
        .collect();
    match verb {
        "is-system-running" => is_system_running(guest, call, &options).await,
        "daemon-reload" | "daemon-reexec" | "reset-failed" | "preset" | "set-environment"
        | "import-environment" | "set-default" => {
            if verb == "reset-failed" {
                reset_failed(guest, &names);
            }
            0
        }
        "get-default" => {
            call.reply.out("multi-user.target\n").await;
            0
        }
        "start" | "stop" | "restart" | "try-restart" | "reload" | "reload-or-restart"
        | "condrestart" | "kill" => power(guest, call, verb, &names, &options).await,
        "enable" | "disable" | "reenable" | "mask" | "unmask" => {
            install(guest, call, verb, &names, &options).await
        }
        "is-active" | "is-failed" => {
            is_state(guest, call, verb == "is-failed", &names, options.quiet).await
        }
        "is-enabled" => is_enabled(guest, call, &names, options.quiet).await,
        "show" => show(guest, call, &names, &options).await,
        "status" => show_status(guest, call, &names, options.lines.unwrap_or(10)).await,
        "cat" => cat(guest, call, &names).await,
        "list-units" | "list-unit-files" => list(guest, call, options.failed).await,
        "poweroff" | "halt" | "reboot" => power_off(guest, verb == "reboot"),
        other => {
            call.reply
                .err(&format!("Unknown command verb '{other}'.\n"))
                .await;
            1
        }
    }
}

/// Takes the guest down from inside, as its init does.
pub(in crate::guest) fn power_off(guest: &Arc<Guest>, reboot: bool) -> i32 {
    let guest = guest.clone();
    tokio::spawn(async move {
        guest.stop_units().await;
        let vmid = guest.vmid;
        if guest.shared.take_down(vmid).await {
            guest.shared.report(if reboot {
                GuestEvent::Rebooted { vmid }
            } else {
                GuestEvent::PoweredOff { vmid }
            });
        }
    });
    0
}

async fn is_system_running(guest: &Guest, call: &Call, options: &Options) -> i32 {
    while options.wait && guest.units.system_state() == "starting" {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let state = guest.units.system_state();
    if !options.quiet {
        call.reply.out(&format!("{state}\n")).await;
    }
    i32::from(state != "running")
}

fn reset_failed(guest: &Guest, names: &[String]) {
    let mut table = guest.units.table();
    for (name, entry) in &mut table.units {
        if names.is_empty() || names.contains(name) {
            entry.state.send_if_modified(|state| {
                let failed = state.active == Active::Failed;
                if failed {
                    (state.active, state.sub, state.result) = (Active::Inactive, "dead", "success");
                }
                failed
            });
        }
    }
}

async fn power(
    guest: &Arc<Guest>,
    call: &Call,
    verb: &str,
    names: &[String],
    options: &Options,
) -> i32 {
    let mut code = 0;
    for name in names {
        if is_builtin(name) {
            continue;
        }
        let Some(file) = load(guest, name) else {
            let masked = path_of(guest, name).is_some();
            if verb == "stop" && guest.units.watch(name).is_some() {
                guest.units.stop(name).await;
                continue;
            }
            call.reply
                .err(&if masked {
                    format!("Failed to {verb} {name}: Unit {name} is masked.\n")
                } else {
                    format!("Failed to {verb} {name}: Unit {name} not found.\n")
                })
                .await;
            code = 5;
            continue;
        };
        let runs = matches!(
            guest.units.state(name).active,
            Active::Active | Active::Activating
        );
        match verb {
            "reload" => continue,
            "try-restart" | "condrestart" if !runs => continue,
            "start" => {}
            _ => {
                if options.no_block {
                    let (guest, name, start) = (
                        guest.clone(),
                        name.clone(),
                        !matches!(verb, "stop" | "kill"),
                    );
                    tokio::spawn(async move {
                        guest.units.stop(&name).await;
                        if start {
                            guest.units.launch(&guest, &name, &file);
                        }
                    });
                    continue;
                }
                guest.units.stop(name).await;
            }
        }
        if matches!(verb, "stop" | "kill") {
            continue;
        }
        guest.units.launch(guest, name, &file);
        if !options.no_block && !started(guest, name, &file).await {
            call.reply.err(&format!("Job for {name} failed because the control process exited with error code.\nSee \"systemctl status {name}\" and \"journalctl -xeu {name}\" for details.\n")).await;
            code = 1;
        }
    }
    code
}

/// Waits until a start job is over, and says whether it succeeded.
pub(super) async fn started(guest: &Arc<Guest>, name: &str, file: &UnitFile) -> bool {
    let service = super::file::Service::of(file);
    let Some(mut state) = guest.units.watch(name) else {
        return false;
    };
    let over = state
        .wait_for(|state| {
            state.active != Active::Activating
                || (!service.exec && state.main_pid > 0)
                || state.sub == "auto-restart"
        })
        .await;
    let Ok(state) = over.map(|state| state.clone()) else {
        return false;
    };
    let failed = state.active == Active::Failed || state.sub == "auto-restart";
    !(failed
        && service.exec
        && (service.oneshot || service.notify || state.main_start.is_none() || state.status == 203))
}

async fn install(
    guest: &Arc<Guest>,
    call: &Call,
    verb: &str,
    names: &[String],
    options: &Options,
) -> i32 {
    for name in names {
        let place = format!("/etc/systemd/system/{name}");
        match verb {
            "mask" => {
                guest.files.link(&place, "/dev/null").ok();
                continue;
            }
            "unmask" => {
                if guest.files.read(&place).is_none_or(|text| text.is_empty()) {
                    guest.files.remove(&place);
                }
                continue;
            }
            _ => {}
        }
        let Some(path) = path_of(guest, name) else {
            if is_builtin(name) {
                continue;
            }
            call.reply
                .err(&format!(
                    "Failed to {verb} unit: Unit file {name} does not exist.\n"
                ))
                .await;
            return 1;
        };
        let Some(file) = load(guest, name) else {
            call.reply
                .err(&format!(
                    "Failed to {verb} unit: Unit file {place} is masked.\n"
                ))
                .await;
            return 1;
        };
        let targets: Vec<_> = file
            .all("Install", "WantedBy")
            .flat_map(str::split_whitespace)
            .map(str::to_owned)
            .collect();
        for target in targets {
            let link = format!("/etc/systemd/system/{target}.wants/{name}");
            let said = if verb == "disable" {
                guest
                    .files
                    .remove(&link)
                    .then(|| format!("Removed \"{link}\".\n"))
            } else {
                let new = !guest.files.exists(&link);
                guest.files.link(&link, &path).ok();
                new.then(|| format!("Created symlink {link} → {path}.\n"))
            };
            if let Some(said) = said.filter(|_| !options.quiet) {
                call.reply.err(&said).await;
            }
        }
    }
    if options.now && matches!(verb, "enable" | "reenable" | "disable" | "mask") {
        let verb = if matches!(verb, "disable" | "mask") {
            "stop"
        } else {
            "start"
        };
        return Box::pin(power(guest, call, verb, names, options)).await;
    }
    0
}

async fn is_state(guest: &Guest, call: &Call, failed: bool, names: &[String], quiet: bool) -> i32 {
    let wanted = if failed {
        Active::Failed
    } else {
        Active::Active
    };
    let mut matched = false;
    for name in names {
        let active = if is_builtin(name) {
            Active::Active
        } else {
            guest.units.state(name).active
        };
        matched |= active == wanted;
        if !quiet {
            let text: &'static str = active.into();
            call.reply.out(&format!("{text}\n")).await;
        }
    }
    match (matched, failed) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => 3,
    }
}

async fn is_enabled(guest: &Guest, call: &Call, names: &[String], quiet: bool) -> i32 {
    let mut code = 0;
    for name in names {
        let said = enablement(guest, name, &load(guest, name).unwrap_or_default());
        if !matches!(said, "enabled" | "static" | "transient") {
            code = 1;
        }
        if !quiet {
            call.reply
                .out(&format!(
                    "{}\n",
                    if said.is_empty() { "not-found" } else { said }
                ))
                .await;
        }
    }
    code
}

async fn show(guest: &Guest, call: &Call, names: &[String], options: &Options) -> i32 {
    let manager = [
        ("Version", "255.4-1ubuntu8".to_owned()),
        ("SystemState", guest.units.system_state().to_owned()),
    ];
    let all: Vec<_> = if names.is_empty() {
        vec![manager.into()]
    } else {
        names
            .iter()
            .map(|name| properties(guest, name, options.unix_times))
            .collect()
    };
    for (index, properties) in all.iter().enumerate() {
        let mut text = if index > 0 {
            "\n".to_owned()
        } else {
            String::new()
        };
        for (key, value) in properties.iter().filter(|(key, _)| {
            options.properties.is_empty() || options.properties.iter().any(|wanted| wanted == key)
        }) {
            if !options.value {
                text.push_str(key);
                text.push('=');
            }
            text.push_str(value);
            text.push('\n');
        }
        call.reply.out(&text).await;
    }
    0
}

async fn show_status(guest: &Guest, call: &Call, names: &[String], lines: usize) -> i32 {
    let mut code = 0;
    for name in names {
        let found = load(guest, name).is_some() || is_builtin(name);
        if found || guest.units.watch(name).is_some() {
            call.reply.out(&status(guest, name, lines)).await;
        } else {
            call.reply
                .err(&format!("Unit {name} could not be found.\n"))
                .await;
        }
        code = if is_builtin(name) {
            0
        } else {
            status_code(&guest.units.state(name), found)
        };
    }
    code
}

async fn cat(guest: &Guest, call: &Call, names: &[String]) -> i32 {
    for name in names {
        let Some(path) = path_of(guest, name) else {
            call.reply
                .err(&format!("No files found for {name}.\n"))
                .await;
            return 1;
        };
        call.reply
            .out(&format!(
                "# {path}\n{}",
                guest.files.read(&path).unwrap_or_default()
            ))
            .await;
    }
    0
}

async fn list(guest: &Guest, call: &Call, only_failed: bool) -> i32 {
    let mut names: Vec<String> = guest.units.table().units.keys().cloned().collect();
    for folder in FOLDERS.into_iter().filter(|folder| *folder != WANTS) {
        names.extend(
            guest
                .files
                .list(folder)
                .into_iter()
                .filter(|name| name.ends_with(".service")),
        );
    }
    names.sort();
    names.dedup();
    let mut text = String::new();
    for name in names {
        let state = guest.units.state(&name);
        let active: &'static str = state.active.into();
        if !only_failed || state.active == Active::Failed {
            writeln!(text, "  {name} loaded {active} {} {name}", state.sub).ok();
        }
    }
    call.reply.out(&text).await;
    0
}
