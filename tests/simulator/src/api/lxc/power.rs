//! Starting and stopping.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use super::{super::Call, apply, config::FLOCK, keys, root, root_volume, systemd_warning};
use crate::{
    auth::access::Identity,
    core::Core,
    guests::{BootSpec, DeviceSpec, NetSpec},
    model::{
        Container, Runtime, now,
        volume::{self, Mount, numbered},
    },
    reply::{Failure, Outcome, Reply},
    schema::MountSpec,
    worker::{self, Broken, Job},
};

const SHUTDOWN_TIMEOUT: u64 = 60;
/// However fast simulated time runs, a real init gets that long to halt.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn index() -> Outcome {
    let names = [
        "current", "start", "stop", "shutdown", "suspend", "resume", "reboot",
    ];
    Ok(Reply::data(
        names.iter().map(|name| json!({"subdir": name})).collect(),
    ))
}

fn running(call: &Call) -> bool {
    call.core
        .state()
        .container(&call.node, call.vmid())
        .is_ok_and(Container::is_running)
}

/// Only root@pam may go past locks.
fn check_skiplock(call: &Call) -> Result<(), Failure> {
    if call.flag("skiplock") && !call.who.is_root() {
        return Err(Failure::parameter(
            "skiplock",
            "Only root may use this option.",
        ));
    }
    Ok(())
}

pub(super) fn start(call: &Call) -> Outcome {
    check_skiplock(call)?;
    if !call.core.state().quorate {
        return Err(Failure::die("cluster not ready - no quorum?"));
    }
    if running(call) {
        return Err(Failure::die(format!("CT {} already running", call.vmid())));
    }
    Ok(Reply::data(
        spawn_start(&call.core, &call.who, &call.node, call.vmid()).into(),
    ))
}

/// Begins a task that starts a container.
pub(super) fn spawn_start(core: &Arc<Core>, who: &Identity, node: &str, vmid: u32) -> String {
    worker::spawn(
        core,
        who,
        node,
        "vzstart",
        &vmid.to_string(),
        move |job| async move { bring_up(&job, vmid).await },
    )
}

async fn bring_up(job: &Arc<Job>, vmid: u32) -> Result<(), Broken> {
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
        if container.file.lock() != Some("mounted") {
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
    if !directories_exist(job, vmid)? {
        job.log("run_buffer: 571 Script exited with status 2");
        job.log(format!(
            "lxc_init: 845 Failed to run lxc.hook.pre-start for container \"{vmid}\""
        ));
        job.log(format!(
            "__lxc_start: 2039 Failed to initialize container \"{vmid}\""
        ));
        return Err(Broken::Failed(format!(
            "startup for container '{vmid}' failed"
        )));
    }
    let pid = match core.guests.boot(vmid, spec).await {
        Ok(pid) => pid,
        Err(error) => {
            job.log(format!("lxc_init: 845 {error:#}"));
            job.log(format!(
                "__lxc_start: 2039 Failed to initialize container \"{vmid}\""
            ));
            return Err(Broken::Failed(format!(
                "startup for container '{vmid}' failed"
            )));
        }
    };
    let mut state = core.state();
    let container = state.container_mut(node, vmid)?;
    container.runtime = Some(Runtime {
        pid,
        started: now(),
        honours_shutdown: true,
    });
    Ok(())
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
            bridge: parts.remove("bridge").unwrap_or_default(),
            hwaddr: parts.remove("hwaddr").unwrap_or_default(),
            ip: parts.remove("ip"),
            gateway: parts.remove("gw"),
        })
        .collect()
}

fn boot_spec(vmid: u32, container: &Container) -> BootSpec {
    let main = &container.file.main;
    let text = |key: &str| main.get(key).unwrap_or_default().to_owned();
    let device = |value: &String| {
        let parts = keys::pairs(value);
        let number = |key: &str, radix: u32, default: u32| {
            parts
                .get(key)
                .and_then(|text| u32::from_str_radix(text, radix).ok())
                .unwrap_or(default)
        };
        DeviceSpec {
            path: keys::device_path(value).to_owned(),
            mode: number("mode", 8, 0o660),
            uid: number("uid", 10, 0),
            gid: number("gid", 10, 0),
        }
    };
    BootSpec {
        volume: root_volume(container)
            .map(|(storage, name)| root(&storage, &name))
            .unwrap_or_default(),
        hostname: main
            .get("hostname")
            .map_or_else(|| format!("CT{vmid}"), str::to_owned),
        os_type: text("ostype"),
        unprivileged: main.get("unprivileged") == Some("1"),
        features: text("features"),
        nets: nets(container),
        devices: main
            .keys
            .iter()
            .filter(|(key, _)| numbered(key, "dev"))
            .map(|(_, value)| device(value))
            .collect(),
        nameservers: text("nameserver")
            .split(' ')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
        searchdomain: main.get("searchdomain").map(str::to_owned),
        cores: main.get("cores").and_then(|text| text.parse().ok()),
        memory_mib: main
            .get("memory")
            .and_then(|text| text.parse().ok())
            .unwrap_or(512),
    }
}

pub(super) fn stop(call: &Call) -> Outcome {
    check_skiplock(call)?;
    let vmid = call.vmid();
    if !running(call) {
        return Err(Failure::die(format!("CT {vmid} not running")));
    }
    if call.flag("overrule-shutdown") {
        let state = call.core.state();
        let id = vmid.to_string();
        let shutdowns = state.tasks.newest().filter(|task| {
            task.exit.is_none() && task.upid.kind == "vzshutdown" && task.upid.id == id
        });
        shutdowns.for_each(|task| task.cancel.cancel());
    }
    let upid = worker::spawn(
        &call.core,
        &call.who,
        &call.node,
        "vzstop",
        &vmid.to_string(),
        move |job| async move {
            let _lock = job.core.flock(vmid, FLOCK).await?;
            check_stoppable(&job, vmid)?;
            job.work(job.core.config.timing.durations.stop).await?;
            kill(&job.core, &job.upid.node, vmid).await;
            Ok(())
        },
    );
    Ok(Reply::data(upid.into()))
}

fn check_stoppable(job: &Job, vmid: u32) -> Result<(), String> {
    let state = job.core.state();
    let container = state.container(&job.upid.node, vmid)?;
    if container.file.lock() == Some("mounted") {
        Ok(())
    } else {
        container.check_lock()
    }
}

/// Kills a container and does what Proxmox does after each stop.
pub(super) async fn kill(core: &Arc<Core>, node: &str, vmid: u32) {
    if let Err(error) = core.guests.halt(vmid).await {
        tracing::warn!(vmid, %error, "a guest couldn't be halted");
    }
    stopped(core, node, vmid);
}

/// What happens whenever a container is down: what waited takes effect.
pub(crate) fn stopped(core: &Core, node: &str, vmid: u32) {
    let mut state = core.state();
    if let Ok(container) = state.container_mut(node, vmid) {
        container.runtime = None;
    }
    apply::pending(&mut state, node, vmid);
}

pub(super) fn shutdown(call: &Call) -> Outcome {
    let vmid = call.vmid();
    if !running(call) {
        return Err(Failure::die(format!("CT {vmid} not running")));
    }
    let timeout = call.number("timeout").unwrap_or(SHUTDOWN_TIMEOUT);
    let force = call.flag("forceStop");
    let upid = worker::spawn(
        &call.core,
        &call.who,
        &call.node,
        "vzshutdown",
        &vmid.to_string(),
        move |job| async move {
            let _lock = job.core.flock(vmid, FLOCK).await?;
            check_stoppable(&job, vmid)?;
            go_down(&job, vmid, timeout, force).await
        },
    );
    Ok(Reply::data(upid.into()))
}

/// Asks init to halt, and kills where that is allowed and time is up.
async fn go_down(job: &Arc<Job>, vmid: u32, timeout: u64, force: bool) -> Result<(), Broken> {
    let core = &job.core;
    let node = job.upid.node.clone();
    let honours = core
        .state()
        .container(&node, vmid)?
        .runtime
        .as_ref()
        .is_some_and(|running| running.honours_shutdown);
    let limit = core.config.timing.wait(Duration::from_secs(timeout));
    let down = if honours {
        job.work(core.config.timing.durations.shutdown).await?;
        let patience = limit.max(PATIENCE);
        core.guests
            .shutdown(vmid, patience)
            .await
            .map_err(|error| Broken::Failed(format!("{error:#}")))?
    } else {
        job.pause(limit).await?;
        false
    };
    if down {
        stopped(core, &node, vmid);
        return Ok(());
    }
    if force {
        job.log(format!(
            "command 'lxc-stop -n {vmid} --timeout {timeout}' failed: got timeout"
        ));
        kill(core, &node, vmid).await;
        return Ok(());
    }
    job.log(format!(
        "command 'lxc-stop -n {vmid} --nokill --timeout {timeout}' failed: exit code 1"
    ));
    Err(Broken::Failed("container did not stop".to_owned()))
}

pub(super) fn reboot(call: &Call) -> Outcome {
    let vmid = call.vmid();
    if !running(call) {
        return Err(Failure::die(format!("VM {vmid} not running")));
    }
    let timeout = call.number("timeout").unwrap_or(SHUTDOWN_TIMEOUT);
    let upid = worker::spawn(
        &call.core,
        &call.who,
        &call.node,
        "vzreboot",
        &vmid.to_string(),
        move |job| async move {
            {
                let _lock = job.core.flock(vmid, FLOCK).await?;
                go_down(&job, vmid, timeout, true).await?;
            }
            bring_up(&job, vmid).await
        },
    );
    Ok(Reply::data(upid.into()))
}

/// Checkpointing needs what no container host has set up.
pub(super) fn suspend(call: &Call) -> Outcome {
    let vmid = call.vmid();
    if !running(call) {
        return Err(Failure::die(format!("CT {vmid} not running")));
    }
    checkpoint(call, "vzsuspend", "-s")
}

pub(super) fn resume(call: &Call) -> Outcome {
    if running(call) {
        return Err(Failure::die(format!("CT {} already running", call.vmid())));
    }
    checkpoint(call, "vzresume", "-r --foreground")
}

fn checkpoint(call: &Call, kind: &str, flags: &'static str) -> Outcome {
    let vmid = call.vmid();
    let upid = worker::spawn(
        &call.core,
        &call.who,
        &call.node,
        kind,
        &vmid.to_string(),
        move |job| async move {
            job.core.state().container(&job.upid.node, vmid)?;
            job.log(format!("lxc-checkpoint: {vmid}: criu_version_ok: 767 Connection refused - execing criu failed, is it installed?"));
            Err(Broken::Failed(format!(
                "command 'lxc-checkpoint -n {vmid} {flags} -D /var/lib/vz/dump' failed: exit code 1"
            )))
        },
    );
    Ok(Reply::data(upid.into()))
}
