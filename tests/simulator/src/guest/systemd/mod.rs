//! The guest's systemd: loads unit files from the guest's own folders, runs services for real inside it, keeps their journal.
//!
//! Decides when a service starts, restarts, fails; the commands that speak with it are in `systemctl`. Left out is what no setup script looks at:
//! dependencies beyond `WantedBy`, sockets, timers, and sandboxing.

mod file;
mod journal;
mod process;
mod service;
mod show;
mod systemctl;
mod transient;
mod words;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::boot::Guest;
pub(super) use file::UnitFile;
pub(super) use journal::Journal;
pub(super) use journal::journalctl;
pub(super) use systemctl::{power_off, run};
pub(super) use transient::run_transient;

/// Where unit files are looked for, first come first served.
const FOLDERS: [&str; 4] = [
    "/run/systemd/transient",
    "/etc/systemd/system",
    "/run/systemd/system",
    PACKAGED,
];
/// Where packages put theirs.
pub(super) const PACKAGED: &str = "/usr/local/lib/systemd/system";
const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";

/// A unit's `ActiveState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
#[expect(clippy::enum_variant_names, reason = "the states are systemd's")]
pub(super) enum Active {
    Inactive,
    Activating,
    Active,
    Deactivating,
    Failed,
}

/// What is known of a unit.
#[derive(Debug, Clone)]
struct State {
    active: Active,
    sub: &'static str,
    result: &'static str,
    main_pid: u32,
    restarts: u32,
    /// 1: exited, 2: killed.
    code: i32,
    status: i32,
    since_active: Option<SystemTime>,
    since_inactive: Option<SystemTime>,
    main_start: Option<SystemTime>,
    main_exit: Option<SystemTime>,
    invocation: String,
    /// The service has said that it is up.
    ready: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            active: Active::Inactive,
            sub: "dead",
            result: "success",
            main_pid: 0,
            restarts: 0,
            code: 0,
            status: 0,
            since_active: None,
            since_inactive: None,
            main_start: None,
            main_exit: None,
            invocation: String::new(),
            ready: false,
        }
    }
}

struct Entry {
    state: watch::Sender<State>,
    /// Cancelled to stop the unit; a new one for each start.
    stop: CancellationToken,
    transient: Option<UnitFile>,
}

#[derive(Default)]
struct Table {
    units: HashMap<String, Entry>,
    booted: bool,
    ended: bool,
}

/// All units of a guest.
#[derive(Default)]
pub(super) struct Units {
    table: Mutex<Table>,
    pub(super) journal: Journal,
}

/// A unit's full name.
pub(super) fn full_name(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or(name);
    let kinds = [
        ".service", ".target", ".socket", ".timer", ".mount", ".path", ".slice", ".scope",
    ];
    if kinds.iter().any(|kind| name.ends_with(kind)) {
        name.to_owned()
    } else {
        format!("{name}.service")
    }
}

impl Units {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self, name: &str) -> State {
        self.table()
            .units
            .get(name)
            .map(|entry| entry.state.borrow().clone())
            .unwrap_or_default()
    }

    /// Whether a unit is on its way up.
    pub(super) fn is_starting(&self, name: &str) -> bool {
        self.state(name).active == Active::Activating
    }

    fn update(&self, name: &str, change: impl FnOnce(&mut State)) {
        let mut table = self.table();
        let entry = table.units.entry(name.to_owned()).or_insert_with(|| Entry {
            state: watch::Sender::default(),
            stop: CancellationToken::new(),
            transient: None,
        });
        entry.state.send_modify(change);
    }

    fn watch(&self, name: &str) -> Option<watch::Receiver<State>> {
        self.table()
            .units
            .get(name)
            .map(|entry| entry.state.subscribe())
    }

    fn transient(&self, name: &str) -> Option<UnitFile> {
        self.table().units.get(name)?.transient.clone()
    }

    /// Starts a unit where it doesn't run already; true when it has been set going.
    fn launch(&self, guest: &Arc<Guest>, name: &str, file: &UnitFile) -> bool {
        let mut table = self.table();
        if table.ended {
            return false;
        }
        let entry = table.units.entry(name.to_owned()).or_insert_with(|| Entry {
            state: watch::Sender::default(),
            stop: CancellationToken::new(),
            transient: None,
        });
        if matches!(
            entry.state.borrow().active,
            Active::Active | Active::Activating | Active::Deactivating
        ) {
            return false;
        }
        entry.stop = CancellationToken::new();
        entry.state.send_modify(|state| {
            (state.active, state.sub, state.result) = (Active::Activating, "start", "success");
            (state.restarts, state.main_start) = (0, None);
        });
        let running = service::Running {
            guest: guest.clone(),
            name: name.to_owned(),
            service: file::Service::of(file),
            stop: entry.stop.clone(),
        };
        tokio::spawn(running.supervise());
        true
    }

    /// A service says that it is up; told by the invocation in its environment.
    pub(super) fn notify(&self, invocation: &str) {
        let table = self.table();
        let mut states = table.units.values().map(|entry| &entry.state);
        if let Some(state) = states.find(|state| state.borrow().invocation == invocation) {
            state.send_modify(|state| state.ready = true);
        }
    }

    /// Asks a unit to stop and waits until it has.
    async fn stop(&self, name: &str) {
        let Some(mut state) = self.watch(name) else {
            return;
        };
        if let Some(entry) = self.table().units.get(name) {
            entry.stop.cancel();
        }
        state
            .wait_for(|state| matches!(state.active, Active::Inactive | Active::Failed))
            .await
            .ok();
    }

    /// Starts what is enabled, in the order of names.
    pub(super) async fn boot(&self, guest: &Arc<Guest>) {
        tokio::time::sleep(guest.shared.faults.timing().boot).await;
        let mut wanted: Vec<_> = guest
            .files
            .list(WANTS)
            .into_iter()
            .filter(|name| is_kind(name, "service"))
            .collect();
        if !wanted.iter().any(|name| name == "ssh.service") {
            wanted.push("ssh.service".to_owned());
        }
        for name in wanted {
            if let Some(file) = load(guest, &name) {
                self.launch(guest, &name, &file);
            }
        }
        self.table().booted = true;
    }

    /// What a package's installation does with its service, unless it is masked.
    pub(super) fn start_packaged(&self, guest: &Arc<Guest>, name: &str) {
        if let Some(file) = load(guest, name) {
            self.launch(guest, name, &file);
        }
    }

    /// Stops all units, as on the way down.
    pub(super) async fn stop_all(&self) {
        let names: Vec<_> = {
            let mut table = self.table();
            table.ended = true;
            table.units.keys().cloned().collect()
        };
        futures::future::join_all(names.iter().map(|name| self.stop(name))).await;
    }

    /// Lets go of all units: the guest is being killed.
    pub(super) fn abandon(&self) {
        let mut table = self.table();
        table.ended = true;
        table.units.values().for_each(|entry| entry.stop.cancel());
    }

    fn ended(&self) -> bool {
        self.table().ended
    }

    /// `systemctl is-system-running`.
    fn system_state(&self) -> &'static str {
        let table = self.table();
        if table.ended {
            "stopping"
        } else if !table.booted {
            "starting"
        } else if table
            .units
            .values()
            .any(|entry| entry.state.borrow().active == Active::Failed)
        {
            "degraded"
        } else {
            "running"
        }
    }
}

/// Whether a file's name has a kind; systemd's names are lower case.
fn is_kind(name: &str, kind: &str) -> bool {
    name.strip_suffix(kind)
        .is_some_and(|stem| stem.ends_with('.'))
}

/// Units that are always there and active, with nothing behind them.
fn is_builtin(name: &str) -> bool {
    is_kind(name, "target")
        || is_kind(name, "slice")
        || matches!(
            name,
            "dbus.service"
                | "systemd-journald.service"
                | "systemd-logind.service"
                | "systemd-networkd.service"
                | "systemd-resolved.service"
                | "cron.service"
        )
}

/// Finds a unit's file: transient ones first, then the folders, with drop-ins. `None`: not found, or masked.
fn load(guest: &Guest, name: &str) -> Option<UnitFile> {
    if let Some(file) = guest.units.transient(name) {
        return Some(file);
    }
    let template = name.split_once('@').and_then(|(prefix, rest)| {
        rest.rsplit_once('.')
            .map(|(_, kind)| format!("{prefix}@.{kind}"))
    });
    let names: Vec<&str> = std::iter::once(name).chain(template.as_deref()).collect();
    // A link to /dev/null, which is no regular file, masks what lies in later folders.
    let text = names
        .iter()
        .find_map(|name| path_of(guest, name))
        .and_then(|path| guest.files.read(&path))?;
    if text.trim().is_empty() {
        return None;
    }
    let mut file = UnitFile::parse(&text);
    for folder in FOLDERS {
        let drop_ins = format!("{folder}/{name}.d");
        for part in guest
            .files
            .list(&drop_ins)
            .iter()
            .filter(|part| is_kind(part, "conf"))
        {
            file.extend(UnitFile::parse(
                &guest
                    .files
                    .read(&format!("{drop_ins}/{part}"))
                    .unwrap_or_default(),
            ));
        }
    }
    Some(file)
}

/// Where a unit's file lies.
fn path_of(guest: &Guest, name: &str) -> Option<String> {
    FOLDERS
        .iter()
        .map(|folder| format!("{folder}/{name}"))
        .find(|path| guest.files.exists(path))
}
