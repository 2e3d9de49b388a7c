//! What a recording presupposes: containers that an earlier one left, and what the recording's author did by hand in between.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use anyhow::Result;
use proxmox_simulator::{Fault, Simulator, TaskEffect};
use serde_json::Value;

use super::{inferred::end_of, recording::Exchange};

/// Something done on the host before an exchange.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    /// A key of a container's configuration file is set.
    Set(u32, &'static str, &'static str),
    /// Such tasks take longer, so that what was recorded during one happens during one.
    Slow(&'static str, f64),
    /// `zfs create`: a container's volume that its configuration doesn't name.
    Stray(u32, &'static str),
    /// `zfs destroy -r` of a volume.
    LoseVolume(&'static str),
    /// All tasks come to their ends first.
    Wait,
    /// The container is destroyed.
    Remove(u32),
    /// A client comes to the console that was opened last, and goes: with its ticket, or with a wrong one.
    Visit(bool),
}

/// By file and beginning of the title.
const ACTS: &[(&str, &str, &[Act])] = &[
    (
        "b1-create",
        "create with start=1",
        &[Act::Slow("vzstart", 0.5)],
    ),
    ("b1-create", "create by limited token", &[Act::Wait]),
    (
        "b1-create",
        "create by limited token on storage it may not use",
        &[Act::Remove(102)],
    ),
    (
        "b3-power-0-locked-ct",
        "current (stopped)",
        &[Act::Set(100, "arch", "arm64")],
    ),
    (
        "b7-destroy",
        "destroy with snapshots, destroy-unreferenced-disks=1",
        &[Act::Stray(130, "subvol-130-disk-7")],
    ),
    (
        "b7-destroy",
        "destroy when the dataset is busy (a process sits in it)",
        &[Act::Stray(130, "subvol-130-disk-7")],
    ),
    (
        "b7-destroy",
        "destroy when its dataset is already gone",
        &[Act::LoseVolume("subvol-130-disk-0")],
    ),
    (
        "c2-create-and-start-with-devices",
        "set dev0=/dev/fuse, mode (root ticket)",
        &[Act::Set(
            150,
            "net0",
            "name=eth0,bridge=vmbr7,hwaddr=BC:24:11:70:6A:BA,type=veth",
        )],
    ),
    ("d-console", "task after wrong ticket", &[Act::Visit(false)]),
    (
        "d-console",
        "task: tty console of a stopped CT",
        &[Act::Visit(false)],
    ),
];

/// What to do before an exchange: `title` has not been met before with these acts.
pub(crate) fn acts(file: &str, title: &str) -> impl Iterator<Item = &'static Act> {
    ACTS.iter()
        .filter(move |(name, begin, _)| file == *name && *begin == title)
        .flat_map(|(_, _, acts)| acts.iter())
}

/// Does it.
pub(crate) async fn perform(simulator: &Simulator, act: Act) -> Result<()> {
    const STORAGE: &str = "lxc-disks";
    match act {
        Act::Set(vmid, key, value) => simulator.edit_config(vmid, key, Some(value)),
        Act::Slow(kind, seconds) => {
            simulator.inject(Fault::task(kind, TaskEffect::Slow { seconds }));
            Ok(())
        }
        Act::Stray(vmid, volume) => simulator.place_volume(STORAGE, vmid, volume),
        Act::LoseVolume(volume) => simulator.lose_volume(STORAGE, volume),
        Act::Remove(vmid) => simulator.delete_container(vmid).await,
        Act::Wait => {
            simulator.idle(Duration::from_secs(10)).await;
            Ok(())
        }
        // That needs somebody who calls: the replay does it.
        Act::Visit(_) => Ok(()),
    }
}

/// What an exchange and those behind it say of a container before the first of them.
#[derive(Debug, Default)]
pub(crate) struct Presupposed {
    /// Whether it was there; none where nothing says so.
    pub(crate) there: Option<bool>,
    pub(crate) running: bool,
    keys: BTreeMap<String, String>,
    description: Option<String>,
    snapshots: Vec<String>,
}

impl Presupposed {
    /// Reads the exchanges from the one that is about to be replayed.
    pub(crate) fn of(vmid: u32, exchanges: &[Exchange]) -> Self {
        let mut found = Self::default();
        let mut running = None;
        let mut touched: Vec<String> = Vec::new();
        let unsaid = |exchange: &Exchange| exchange.path().contains("/extjs/");
        for (number, exchange) in exchanges.iter().enumerate() {
            if let Some(row) = row_of(vmid, exchange) {
                found.there = found.there.or(Some(true));
                running = running.or(Some(row["status"] == "running"));
                found.status(row, &mut touched);
            }
            let concerns = exchange.vmid() == Some(vmid) && !unsaid(exchange);
            if exchange.makes() == Some(vmid) {
                let taken = exchange
                    .reason()
                    .contains(&format!("CT {vmid} already exists"));
                let made = exchange.status() == 200;
                if taken || made {
                    found.there = found.there.or(Some(taken));
                }
                if made {
                    break;
                }
                continue;
            }
            if !concerns {
                continue;
            }
            if found.there.is_none() {
                found.there = presence(vmid, exchange, end_of(exchange, &exchanges[number + 1..]));
            }
            if found.there == Some(false) {
                break;
            }
            if running.is_none() {
                running = power(exchange);
            }
            found.look(exchange, &mut touched);
            if exchange.method() == "DELETE"
                && exchange.below().is_empty()
                && exchange.status() == 200
            {
                break;
            }
        }
        found.running = running.unwrap_or(false);
        found
    }

    /// Keys that a call shows and that no earlier one changed.
    fn look(&mut self, exchange: &Exchange, touched: &mut Vec<String>) {
        let ok = exchange.status() == 200;
        match (exchange.method(), exchange.below()) {
            ("GET", "/config") if ok && !exchange.path().contains("snapshot=") => {
                for (key, value) in exchange.data().as_object().into_iter().flatten() {
                    self.take(key, value, touched);
                }
                let seen = exchange.data().as_object().map(|map| map.keys().cloned());
                let absent = ["net0", "cores", "swap", "features"];
                let seen: Vec<String> = seen.into_iter().flatten().collect();
                touched.extend(absent.map(str::to_owned));
                touched.extend(seen);
            }
            ("GET", "/status/current") if ok => {
                self.status(exchange.data(), touched);
            }
            ("PUT", "/config") => {
                touched.extend(exchange.pairs().into_iter().map(|(key, _)| key));
                let deleted = exchange.field("delete").unwrap_or_default();
                touched.extend(deleted.split([',', ' ', ';']).map(str::to_owned));
            }
            ("PUT", "/resize") if ok => {
                touched.extend(["rootfs".to_owned(), "size".to_owned()]);
            }
            ("POST", "/template") if ok => {
                touched.extend(["template".to_owned(), "rootfs".to_owned()]);
            }
            ("GET", below)
                if ok && below.starts_with("/snapshot/") && below.ends_with("/config") =>
            {
                let name = below.split('/').nth(2).unwrap_or_default().to_owned();
                if !touched.contains(&format!("@{name}")) {
                    self.snapshots.push(name);
                }
            }
            ("POST", "/clone")
                if exchange.field("snapname").is_some() && exchange.status() == 200 =>
            {
                let name = exchange.field("snapname").unwrap_or_default();
                if !touched.contains(&format!("@{name}")) && !self.snapshots.contains(&name) {
                    self.snapshots.push(name);
                }
            }
            ("POST", "/snapshot") => {
                touched.push(format!(
                    "@{}",
                    exchange.field("snapname").unwrap_or_default()
                ));
                touched.push("parent".to_owned());
            }
            _ => {}
        }
    }

    /// What a status, or a row of a list, shows of the configuration.
    fn status(&mut self, data: &Value, touched: &mut Vec<String>) {
        let mib = |key: &str| data[key].as_u64().map(|bytes| Value::from(bytes >> 20));
        let gib = data["maxdisk"].as_u64().map(|bytes| bytes >> 30);
        let limited = data["cpus"].is_string();
        let told = [
            ("hostname", data.get("name").cloned()),
            ("tags", data.get("tags").cloned()),
            ("lock", data.get("lock").cloned()),
            (
                if limited { "cpulimit" } else { "cores" },
                data.get("cpus").cloned(),
            ),
            ("memory", mib("maxmem")),
            ("swap", mib("maxswap")),
        ];
        for (key, value) in told {
            if let Some(value) = value {
                self.take(key, &value, touched);
                touched.push(key.to_owned());
            }
        }
        touched.push("cores".to_owned());
        if let Some(gib) = gib.filter(|_| !touched.iter().any(|key| key == "size")) {
            self.keys.insert("size".to_owned(), format!("{gib}G"));
            touched.push("size".to_owned());
        }
    }

    fn take(&mut self, key: &str, value: &Value, touched: &[String]) {
        if key == "digest" || key == "lxc" || touched.iter().any(|known| known == key) {
            return;
        }
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        if key == "description" {
            self.description = Some(text.trim_end_matches('\n').to_owned());
        } else {
            self.keys.insert(key.to_owned(), text);
        }
    }

    /// A configuration file that says all this, and the rest as the recording's author made containers.
    pub(crate) fn text(&self, vmid: u32) -> String {
        let mut keys: BTreeMap<String, String> = [
            ("arch", "amd64".to_owned()),
            ("hostname", format!("ct{vmid}")),
            ("memory", "256".to_owned()),
            ("ostype", "debian".to_owned()),
            ("swap", "0".to_owned()),
            ("unprivileged", "1".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        if self.keys.is_empty() {
            keys.insert("cores".to_owned(), "1".to_owned());
            keys.insert(
                "net0".to_owned(),
                format!(
                    "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:{:02X},ip=dhcp,type=veth",
                    vmid % 256
                ),
            );
        }
        let size = self.keys.get("size").map_or("2G", String::as_str);
        keys.insert(
            "rootfs".to_owned(),
            format!("lxc-disks:subvol-{vmid}-disk-0,size={size}"),
        );
        keys.extend(
            self.keys
                .iter()
                .filter(|(key, _)| *key != "size")
                .map(|(key, value)| (key.clone(), value.clone())),
        );
        if let Some(last) = self.snapshots.last() {
            keys.entry("parent".to_owned())
                .or_insert_with(|| last.clone());
        }
        let mut out = String::new();
        for line in self.description.iter().flat_map(|text| text.split('\n')) {
            let _ = writeln!(out, "#{}", line.replace('%', "%25").replace(':', "%3A"));
        }
        let lines = |out: &mut String, keys: &BTreeMap<String, String>| {
            for (key, value) in keys {
                let _ = writeln!(out, "{key}: {value}");
            }
        };
        lines(&mut out, &keys);
        for name in &self.snapshots {
            let _ = writeln!(out, "\n[{name}]");
            let own = |(key, _): &(&String, &String)| {
                !matches!(key.as_str(), "parent" | "lock" | "template")
            };
            let mut section: BTreeMap<String, String> = keys
                .iter()
                .filter(own)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            section.insert("snaptime".to_owned(), "1795547000".to_owned());
            lines(&mut out, &section);
        }
        out
    }
}

/// A container's row in a list of containers.
fn row_of(vmid: u32, exchange: &Exchange) -> Option<&Value> {
    let path = exchange.path().split('?').next().unwrap_or_default();
    let mut rows = exchange
        .data()
        .as_array()
        .filter(|_| path.ends_with("/lxc"))?
        .iter();
    rows.find(|row| row["vmid"] == vmid)
}

/// What a call's answer says of its container's being there.
fn presence(vmid: u32, exchange: &Exchange, end: Option<&str>) -> Option<bool> {
    let missing = format!("{vmid}.conf' does not exist");
    if exchange.reason().contains(&missing)
        || exchange.reason().starts_with("RRD error")
        || end.is_some_and(|end| end.contains(&missing))
    {
        return Some(false);
    }
    let silent = matches!(exchange.status(), 400 | 401 | 403 | 501 | 506 | 595..)
        || exchange.reason().contains("not running")
        || (exchange.below() == "/interfaces" && exchange.data().is_null());
    (!silent).then_some(true)
}

/// What a call's answer says of its container's running before it.
fn power(exchange: &Exchange) -> Option<bool> {
    let ok = exchange.status() == 200;
    match (exchange.method(), exchange.below()) {
        ("GET", "/status/current") if ok => Some(exchange.data()["status"] == "running"),
        ("POST", "/status/start") if exchange.reason().contains("already running") => Some(true),
        ("POST", "/status/stop" | "/status/shutdown" | "/status/reboot" | "/status/suspend") => {
            Some(ok)
        }
        ("POST", "/status/start" | "/template") if ok => Some(false),
        ("POST", "/clone") if exchange.reason().contains("running container") => Some(true),
        ("POST", "/template") if exchange.reason().contains("running") => Some(true),
        // Only what runs has something to wait for.
        ("GET", "/pending")
            if exchange
                .data()
                .as_array()
                .is_some_and(|rows| rows.iter().any(|row| row.get("pending").is_some())) =>
        {
            Some(true)
        }
        ("GET", "/interfaces") if ok => Some(!exchange.data().is_null()),
        _ => None,
    }
}
