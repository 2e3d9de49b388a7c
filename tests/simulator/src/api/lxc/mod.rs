//! Containers.

mod apply;
mod clone;
mod config;
mod create;
mod destroy;
mod disk;
mod ha;
mod keys;
mod power;
mod snapshot;
mod start;
mod template;

use futures::future::{BoxFuture, FutureExt};
use serde_json::{Value, json};

pub(crate) use ha::by_host as start_by_host;
pub(crate) use power::stopped;

use super::Call;
use crate::{
    console,
    model::{Container, State, storage::leaf, volume},
    reply::{Failure, Outcome, Reply},
};

/// Carries out a call below `/nodes/{node}/lxc`.
pub(super) fn dispatch(
    rest: &'static str,
    method: &'static str,
    call: Call,
) -> BoxFuture<'static, Outcome> {
    async move {
        match (method, rest) {
            ("GET", "") => list(&call),
            ("POST", "") => create::create(call).await,
            ("GET", "/{vmid}") => index(&call),
            ("DELETE", "/{vmid}") => destroy::destroy(&call),
            ("GET", "/{vmid}/config") => config::get(&call),
            ("PUT", "/{vmid}/config") => config::put(call).await,
            ("GET", "/{vmid}/pending") => config::pending(&call),
            ("GET", "/{vmid}/status") => power::index(),
            ("GET", "/{vmid}/status/current") => current(&call),
            ("POST", "/{vmid}/status/start") => power::start(&call),
            ("POST", "/{vmid}/status/stop") => power::stop(&call),
            ("POST", "/{vmid}/status/shutdown") => power::shutdown(&call),
            ("POST", "/{vmid}/status/reboot") => power::reboot(&call),
            ("POST", "/{vmid}/status/suspend") => power::suspend(&call),
            ("POST", "/{vmid}/status/resume") => power::resume(&call),
            ("GET", "/{vmid}/snapshot") => snapshot::list(&call),
            ("POST", "/{vmid}/snapshot") => snapshot::create(&call),
            ("GET", "/{vmid}/snapshot/{snapname}") => snapshot::index(),
            ("DELETE", "/{vmid}/snapshot/{snapname}") => snapshot::delete(&call),
            ("GET", "/{vmid}/snapshot/{snapname}/config") => snapshot::config(&call),
            ("PUT", "/{vmid}/snapshot/{snapname}/config") => snapshot::describe(&call),
            ("POST", "/{vmid}/snapshot/{snapname}/rollback") => snapshot::rollback(&call),
            ("POST", "/{vmid}/clone") => clone::clone(call).await,
            ("POST", "/{vmid}/template") => template::convert(call).await,
            ("PUT", "/{vmid}/resize") => disk::resize(&call),
            ("POST", "/{vmid}/move_volume") => disk::move_volume(&call),
            ("GET", "/{vmid}/interfaces") => interfaces(&call),
            ("GET", "/{vmid}/feature") => feature(&call),
            ("GET", "/{vmid}/rrddata") => rrddata(&call),
            ("POST", "/{vmid}/migrate") => migrate(&call),
            ("POST", "/{vmid}/termproxy") => console::termproxy(&call),
            _ => Err(super::unsimulated(method, rest)),
        }
    }
    .boxed()
}

/// The name under which a guest's root goes.
fn root(storage: &str, volume: &str) -> String {
    format!("{storage}:{}", leaf(volume))
}

/// The volume of a container's root disk.
fn root_volume(container: &Container) -> Option<(String, String)> {
    let mounts = volume::mounts(&container.file.main);
    let rootfs = mounts.iter().find(|mount| mount.key == "rootfs")?;
    rootfs
        .volume()
        .map(|(storage, name)| (storage.to_owned(), name.to_owned()))
}

/// Proxmox's warning about a systemd that wants nesting.
fn systemd_warning(state: &State, container: &Container) -> Option<String> {
    let (storage, name) = root_volume(container)?;
    let version = state
        .storages
        .get(&storage)?
        .volumes
        .get(leaf(&name))?
        .systemd?;
    let nesting = container
        .file
        .main
        .get("features")
        .is_some_and(|features| features.split(',').any(|flag| flag == "nesting=1"));
    (!nesting).then(|| format!("Systemd {version} detected. You may need to enable nesting."))
}

fn list(call: &Call) -> Outcome {
    let state = call.core.state();
    let here = state
        .containers
        .iter()
        .filter(|(_, container)| container.node == call.node);
    let shown = here.filter(|(vmid, _)| {
        state
            .access
            .may(&call.who, &format!("/vms/{vmid}"), "VM.Audit")
    });
    Ok(Reply::data(
        shown
            .map(|(vmid, container)| Value::Object(container.status(*vmid, &state)))
            .collect(),
    ))
}

fn index(call: &Call) -> Outcome {
    call.core.state().container(&call.node, call.vmid())?;
    let names = [
        "config",
        "pending",
        "status",
        "vncproxy",
        "termproxy",
        "vncwebsocket",
        "spiceproxy",
        "migrate",
        "clone",
        "rrd",
        "rrddata",
        "firewall",
        "snapshot",
        "resize",
        "interfaces",
    ];
    Ok(Reply::data(
        names.iter().map(|name| json!({"subdir": name})).collect(),
    ))
}

fn current(call: &Call) -> Outcome {
    let state = call.core.state();
    let container = state.container(&call.node, call.vmid())?;
    let mut status = container.status(call.vmid(), &state);
    let mut ha = json!({"managed": 0});
    if state.ha.contains(&call.vmid()) {
        let wanted = if container.is_running() {
            "started"
        } else {
            "stopped"
        };
        ha = json!({"managed": 1, "state": wanted});
    }
    status.insert("ha".to_owned(), ha);
    Ok(Reply::data(Value::Object(status)))
}

/// The addresses inside; nothing where it doesn't run or isn't there.
fn interfaces(call: &Call) -> Outcome {
    let nets = {
        let state = call.core.state();
        match state.container(&call.node, call.vmid()) {
            Ok(container) if container.is_running() => start::nets(container),
            _ => return Ok(Reply::null()),
        }
    };
    let mut seen = call.core.guests.addresses(call.vmid());
    if seen.is_empty() {
        // Without guests the configured addresses are taken for the real ones.
        seen = nets
            .into_iter()
            .map(|net| crate::guests::GuestInterface {
                cidr: net.ip.filter(|ip| ip.contains('/')),
                name: net.name,
                hwaddr: net.hwaddr,
            })
            .collect();
    }
    let address = |kind: &str, ip: &str, prefix: &str| json!({"ip-address-type": kind, "ip-address": ip, "prefix": prefix});
    let mut rows = vec![json!({
        "name": "lo", "hwaddr": "00:00:00:00:00:00", "hardware-address": "00:00:00:00:00:00", "inet": "127.0.0.1/8", "inet6": "::1/128",
        "ip-addresses": [address("inet", "127.0.0.1", "8"), address("inet6", "::1", "128")],
    })];
    for interface in seen {
        let mac = interface.hwaddr.to_lowercase();
        let local = link_local(&mac);
        let mut addresses = Vec::new();
        let mut row = json!({"name": interface.name, "hwaddr": mac, "hardware-address": mac});
        if let Some((ip, prefix)) = interface
            .cidr
            .as_deref()
            .and_then(|cidr| cidr.split_once('/'))
        {
            addresses.push(address("inet", ip, prefix));
            row["inet"] = json!(format!("{ip}/{prefix}"));
        }
        if let Some(local) = local {
            addresses.push(address("inet6", &local, "64"));
            row["inet6"] = json!(format!("{local}/64"));
        }
        row["ip-addresses"] = json!(addresses);
        rows.push(row);
    }
    Ok(Reply::data(Value::Array(rows)))
}

/// The address that IPv6 derives from a MAC.
fn link_local(mac: &str) -> Option<String> {
    let bytes: Vec<u16> = mac
        .split(':')
        .map(|part| u16::from_str_radix(part, 16))
        .collect::<Result<_, _>>()
        .ok()?;
    let [ref vendor @ .., low, lowest] = bytes[..] else {
        return None;
    };
    let [first, second, third, high] = vendor else {
        return None;
    };
    Some(format!(
        "fe80::{:x}:{:x}:{:x}:{:x}",
        ((first ^ 2) << 8) | second,
        (third << 8) | 0xff,
        0xfe00 | high,
        (low << 8) | lowest
    ))
}

/// Whether all its volumes can do that.
fn feature(call: &Call) -> Outcome {
    let snapshot = call.given("snapname");
    let state = call.core.state();
    let container = state.container(&call.node, call.vmid())?;
    if let Some(name) = snapshot
        && !container.file.snapshots.contains_key(name)
    {
        return Err(Failure::die(format!("snapshot '{name}' does not exist")));
    }
    let able = volume::mounts(&container.file.main).iter().all(|mount| {
        let Some((id, name)) = mount.volume() else {
            return false;
        };
        let Some(storage) = state.storages.get(id) else {
            return false;
        };
        match call.text("feature") {
            "snapshot" => storage.can_snapshot(),
            "clone" => storage.can_link(leaf(name), snapshot.is_some()),
            _ => snapshot.is_none() || storage.plugin() != "zfspool",
        }
    });
    Ok(Reply::data(json!({"hasFeature": u8::from(able)})))
}

fn rrddata(call: &Call) -> Outcome {
    const STEP: u64 = 60;
    const SAMPLES: u64 = 60;
    let state = call.core.state();
    let vmid = call.vmid();
    // The figures lie in files of their own, which outlive nothing and are asked first.
    let container = state.container(&call.node, vmid).map_err(|_| {
        Failure::die(format!("RRD error: rrdcached@unix:/var/run/rrdcached.sock: rrd_fetch_r failed: opening '/var/lib/rrdcached/db/pve-vm-9.0/{vmid}': No such file or directory"))
    })?;
    let status = container.status(vmid, &state);
    let end = crate::model::now() / STEP * STEP;
    let rows = (0..SAMPLES).map(|number| {
        let time = end - (SAMPLES - 1 - number) * STEP;
        let mut row = json!({"time": time});
        if time + STEP > container.created {
            for key in [
                "mem",
                "maxmem",
                "disk",
                "maxdisk",
                "netin",
                "netout",
                "diskread",
                "diskwrite",
                "cpu",
            ] {
                row[key] = status[key].clone();
            }
            row["maxcpu"] = status["cpus"].as_str().map_or_else(
                || status["cpus"].clone(),
                |text| json!(text.parse::<f64>().unwrap_or(1.0)),
            );
            for kind in ["cpu", "io", "memory"] {
                row[format!("pressure{kind}some")] = json!(0);
                row[format!("pressure{kind}full")] = json!(0);
            }
        }
        row
    });
    Ok(Reply::data(rows.collect()))
}

/// Only the refusals: nothing is ever moved to another node here.
fn migrate(call: &Call) -> Outcome {
    let target = call.text("target");
    if target == call.node {
        return Err(Failure::parameter("target", "target is local node."));
    }
    let state = call.core.state();
    if !state.nodes.contains_key(target) {
        return Err(Failure::die(format!("no such cluster node '{target}'")));
    }
    let container = state.container(&call.node, call.vmid())?;
    container.check_lock()?;
    if container.is_running() && !call.flag("restart") && !call.flag("online") {
        return Err(Failure::die(
            "can't migrate running container without --online or --restart",
        ));
    }
    Err(super::unsimulated(
        "POST",
        "/nodes/{node}/lxc/{vmid}/migrate",
    ))
}
