//! Bringing a container up.

use std::sync::Arc;

use super::{apply, config::FLOCK, keys, root, root_volume, systemd_warning};
use crate::{
    auth::access::Identity,
    core::Core,
    guests::{BootSpec, DeviceSpec, NetSpec},
    model::{
        Container, Runtime, now,
        volume::{self, Mount, numbered},
    },
    schema::MountSpec,
    worker::{self, Broken, Job},
};

/// Whether a lock in the configuration stands in the way. A reboot goes past it, and so does `skiplock`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Locks {
    Heeded,
    Ignored,
}

/// Begins a task that starts a container.
pub(super) fn spawn(
    core: &Arc<Core>,
    who: &Identity,
    node: &str,
    vmid: u32,
    locks: Locks,
) -> String {
    worker::spawn(
        core,
        who,
        node,
        "vzstart",
        &vmid.to_string(),
        move |job| async move { bring_up(&job, vmid, locks).await },
    )
}

pub(super) async fn bring_up(job: &Arc<Job>, vmid: u32, locks: Locks) -> Result<(), Broken> {
    let core = &job.core;
    let node = &job.upid.node;
    core.state().container(node, vmid)?;
    let _lock = core.flock(vmid, FLOCK).await?;
    let (spec, warning) = {
        let mut state = core.state();
        let container = state.container(node, vmid)?;
        if container.is_running() {
            return Err(Broken::Failed(format!("CT {vmid} already running")));
        }
        if container.file.is_template() {
            return Err(Broken::Failed(
                "you can't start a CT if it's a template".to_owned(),
            ));
        }
        if locks == Locks::Heeded && container.file.lock() != Some("mounted") {
            container.check_lock()?;
        }
        apply::pending(&mut state, node, vmid);
        let container = state.container(node, vmid)?;
        keys::generated_problem(&state, node, &container.file.main)?;
        if let Some((storage, _)) = root_volume(container).filter(|(storage, _)| {
            !state
                .storages
                .get(storage)
                .is_some_and(|storage| storage.online)
        }) {
            return Err(Broken::Failed(format!("storage '{storage}' is not online")));
        }
        (
            boot_spec(vmid, container),
            systemd_warning(&state, container),
        )
    };
    if let Some(text) = warning {
        job.warn(&text);
    }
    job.work(core.config.timing.durations.start).await?;
    let failed = |reason: &str| {
        job.log(format!("lxc_init: 845 {reason}"));
        job.log(format!(
            "__lxc_start: 2039 Failed to initialize container \"{vmid}\""
        ));
        Broken::Failed(format!("startup for container '{vmid}' failed"))
    };
    // The hook that prepares the container's root is what fails.
    let hook = match (directories_exist(job, vmid)?, runs_here(job, vmid)?) {
        (false, _) => Some(2),
        (true, false) => Some(255),
        (true, true) => None,
    };
    if let Some(code) = hook {
        job.log(format!("run_buffer: 571 Script exited with status {code}"));
        return Err(failed(&format!(
            "Failed to run lxc.hook.pre-start for container \"{vmid}\""
        )));
    }
    let pid = core
        .guests
        .boot(vmid, spec)
        .await
        .map_err(|error| failed(&format!("{error:#}")))?;
    let mut state = core.state();
    let container = state.container_mut(node, vmid)?;
    container.started = true;
    container.runtime = Some(Runtime {
        pid,
        started: now(),
        honours_shutdown: true,
    });
    Ok(())
}

/// Whether the node's processors can run the container's programs.
fn runs_here(job: &Job, vmid: u32) -> Result<bool, String> {
    let state = job.core.state();
    let container = state.container(&job.upid.node, vmid)?;
    Ok(matches!(
        container.file.main.get("arch"),
        None | Some("amd64" | "i386")
    ))
}

/// Whether the node has what the container binds; the pre-start hook fails else.
fn directories_exist(job: &Job, vmid: u32) -> Result<bool, String> {
    let state = job.core.state();
    let container = state.container(&job.upid.node, vmid)?;
    let known = state
        .nodes
        .get(&job.upid.node)
        .map(|node| node.shape.directories.as_slice())
        .unwrap_or_default();
    let bound = |mount: &Mount| match &mount.spec {
        MountSpec::Bind(path) => known.iter().any(|directory| directory == path),
        _ => true,
    };
    Ok(volume::mounts(&container.file.main).iter().all(bound))
}

/// The networks of a container.
pub(super) fn nets(container: &Container) -> Vec<NetSpec> {
    let values = container
        .file
        .main
        .keys
        .iter()
        .filter(|(key, _)| numbered(key, "net"))
        .map(|(_, value)| keys::pairs(value));
    values
        .map(|mut parts| NetSpec {
            name: parts.remove("name").unwrap_or_default(),
            hwaddr: parts.remove("hwaddr").unwrap_or_default(),
            ip: parts.remove("ip"),
            gateway: parts.remove("gw"),
        })
        .collect()
}

fn boot_spec(vmid: u32, container: &Container) -> BootSpec {
    let main = &container.file.main;
    let text = |key: &str| main.get(key).unwrap_or_default().to_owned();
    BootSpec {
        volume: root_volume(container)
            .map(|(storage, name)| root(&storage, &name))
            .unwrap_or_default(),
        hostname: main
            .get("hostname")
            .map_or_else(|| format!("CT{vmid}"), str::to_owned),
        unprivileged: main.get("unprivileged") == Some("1"),
        features: text("features"),
        nets: nets(container),
        devices: main
            .keys
            .iter()
            .filter(|(key, _)| numbered(key, "dev"))
            .map(|(_, value)| DeviceSpec {
                path: keys::device_path(value).to_owned(),
            })
            .collect(),
        nameservers: text("nameserver")
            .split(' ')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
        searchdomain: main.get("searchdomain").map(str::to_owned),
    }
}
