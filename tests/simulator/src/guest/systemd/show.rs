//! `systemctl show` and `status`: a unit's properties as text.

use std::fmt::Write as _;
use std::time::SystemTime;

use super::file::UnitFile;
use super::journal::{long_time, since_epoch};
use super::{Active, State, Units, is_builtin, is_kind, load, path_of};
use crate::guest::boot::Guest;

/// All properties that are known of a unit, in the order in which they are shown.
pub(super) fn properties(
    guest: &Guest,
    name: &str,
    unix_times: bool,
) -> Vec<(&'static str, String)> {
    let units: &Units = &guest.units;
    let file = load(guest, name);
    let mut state = units.state(name);
    if is_builtin(name) {
        (state.active, state.sub) = (
            Active::Active,
            if is_kind(name, "target") {
                "active"
            } else {
                "running"
            },
        );
    }
    let path = path_of(guest, name);
    let loaded = match (&file, &path) {
        (Some(_), _) => "loaded",
        (None, _) if is_builtin(name) => "loaded",
        (None, Some(_)) => "masked",
        (None, None) => "not-found",
    };
    let time = |at: Option<SystemTime>| match at {
        None => String::new(),
        Some(at) if unix_times => format!("@{}", since_epoch(at).as_secs()),
        Some(at) => long_time(at),
    };
    let file = file.unwrap_or_default();
    let setting = |key: &str, default: &str| file.get("Service", key).unwrap_or(default).to_owned();
    let active: &'static str = state.active.into();
    vec![
        ("Type", setting("Type", "simple")),
        ("Restart", setting("Restart", "no")),
        ("RestartUSec", setting("RestartSec", "100ms")),
        ("RemainAfterExit", setting("RemainAfterExit", "no")),
        ("MainPID", state.main_pid.to_string()),
        ("Result", state.result.to_owned()),
        ("NRestarts", state.restarts.to_string()),
        ("ExecMainStartTimestamp", time(state.main_start)),
        ("ExecMainExitTimestamp", time(state.main_exit)),
        ("ExecMainPID", state.main_pid.to_string()),
        ("ExecMainCode", state.code.to_string()),
        ("ExecMainStatus", state.status.to_string()),
        ("ExecStart", setting("ExecStart", "")),
        (
            "Environment",
            file.all("Service", "Environment")
                .collect::<Vec<_>>()
                .join(" "),
        ),
        (
            "EnvironmentFiles",
            file.all("Service", "EnvironmentFile")
                .map(|path| format!("{path} (ignore_errors=no)"))
                .collect::<Vec<_>>()
                .join("\n"),
        ),
        ("Id", name.to_owned()),
        ("Names", name.to_owned()),
        (
            "Description",
            file.get("Unit", "Description").unwrap_or(name).to_owned(),
        ),
        ("LoadState", loaded.to_owned()),
        ("ActiveState", active.to_owned()),
        ("SubState", state.sub.to_owned()),
        ("FragmentPath", path.unwrap_or_default()),
        ("UnitFileState", enablement(guest, name, &file).to_owned()),
        (
            "StateChangeTimestamp",
            time(state.since_active.max(state.since_inactive)),
        ),
        ("ActiveEnterTimestamp", time(state.since_active)),
        ("InactiveEnterTimestamp", time(state.since_inactive)),
        ("InvocationID", state.invocation),
        ("NeedDaemonReload", "no".to_owned()),
    ]
}

/// `systemctl is-enabled`; empty for what has no file.
pub(super) fn enablement(guest: &Guest, name: &str, file: &UnitFile) -> &'static str {
    let linked = |unit: &str| {
        guest
            .files
            .list("/etc/systemd/system")
            .iter()
            .filter(|folder| is_kind(folder, "wants") || is_kind(folder, "requires"))
            .any(|folder| {
                guest
                    .files
                    .exists(&format!("/etc/systemd/system/{folder}/{unit}"))
            })
    };
    if guest.units.transient(name).is_some() {
        "transient"
    } else if path_of(guest, name).is_none() {
        if is_builtin(name) { "static" } else { "" }
    } else if load(guest, name).is_none() {
        "masked"
    } else if linked(name) || name == "ssh.service" {
        "enabled"
    } else if file.all("Install", "WantedBy").next().is_some() {
        "disabled"
    } else {
        "static"
    }
}

/// `systemctl status` of one unit.
pub(super) fn status(guest: &Guest, name: &str, lines: usize) -> String {
    let all = properties(guest, name, false);
    let get = |key: &str| {
        all.iter()
            .find(|(known, _)| *known == key)
            .map(|(_, value)| value.as_str())
            .unwrap_or_default()
    };
    let dot = match get("ActiveState") {
        "active" => "●",
        "failed" => "×",
        _ => "○",
    };
    let mut text = format!(
        "{dot} {name} - {}\n     Loaded: {} ({}; {})\n",
        get("Description"),
        get("LoadState"),
        get("FragmentPath"),
        get("UnitFileState")
    );
    let result = if get("ActiveState") == "failed" {
        format!(" (Result: {})", get("Result"))
    } else {
        format!(" ({})", get("SubState"))
    };
    write!(text, "     Active: {}{result}", get("ActiveState")).ok();
    if !get("StateChangeTimestamp").is_empty() {
        write!(text, " since {}", get("StateChangeTimestamp")).ok();
    }
    text.push('\n');
    if get("MainPID") != "0" {
        writeln!(text, "   Main PID: {}", get("MainPID")).ok();
    }
    let journal = guest.units.journal.of(Some(name));
    for line in &journal[journal.len().saturating_sub(lines)..] {
        writeln!(text, "{}[{}]: {}", line.identifier, line.pid, line.text).ok();
    }
    text
}

/// The exit status of `systemctl status`.
pub(super) fn status_code(state: &State, found: bool) -> i32 {
    match state.active {
        Active::Active | Active::Activating => 0,
        _ if found => 3,
        _ => 4,
    }
}
