//! Starting and stopping.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use super::{
    super::Call,
    apply,
    config::FLOCK,
    ha::{self, Wanted},
    start::{self, Locks},
};
use crate::{
    core::Core,
    model::Container,
    reply::{Failure, Outcome, Reply},
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
    if ha::managed(call) {
        return ha::request(call, Wanted::Started);
    }
    let locks = if call.flag("skiplock") {
        Locks::Ignored
    } else {
        Locks::Heeded
    };
    Ok(Reply::data(
        start::spawn(&call.core, &call.who, &call.node, call.vmid(), locks).into(),
    ))
}

pub(super) fn stop(call: &Call) -> Outcome {
    check_skiplock(call)?;
    let vmid = call.vmid();
    if !running(call) {
        return Err(Failure::die(format!("CT {vmid} not running")));
    }
    if ha::managed(call) {
        return ha::request(call, Wanted::Stopped);
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
    if ha::managed(call) {
        return ha::request(call, Wanted::Stopped);
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
pub(super) async fn go_down(
    job: &Arc<Job>,
    vmid: u32,
    timeout: u64,
    force: bool,
) -> Result<(), Broken> {
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
        core.guests.shutdown(vmid, patience).await?
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
            start::bring_up(&job, vmid, Locks::Ignored).await
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

fn checkpoint(call: &Call, kind: &'static str, flags: &'static str) -> Outcome {
    let vmid = call.vmid();
    let upid = worker::spawn(
        &call.core,
        &call.who,
        &call.node,
        kind,
        &vmid.to_string(),
        move |job| async move {
            let defined = job.core.state().container(&job.upid.node, vmid)?.started;
            let said = |source: &str, text: &str| {
                job.log(format!(
                    "lxc-checkpoint: {vmid}: ../src/lxc/{source}: {text}"
                ));
            };
            if defined {
                said(
                    "criu.c",
                    "criu_version_ok: 767 Connection refused - execing criu failed, is it installed?",
                );
                if kind == "vzresume" {
                    said(
                        "tools/lxc_checkpoint.c",
                        &format!("restore_finalize: 203 Restoring {vmid} failed"),
                    );
                }
            } else {
                said(
                    "tools/lxc_checkpoint.c",
                    &format!("lxc_checkpoint_main: 299 {vmid} is not defined"),
                );
            }
            Err(Broken::Failed(format!(
                "command 'lxc-checkpoint -n {vmid} {flags} -D /var/lib/vz/dump' failed: exit code 1"
            )))
        },
    );
    Ok(Reply::data(upid.into()))
}
