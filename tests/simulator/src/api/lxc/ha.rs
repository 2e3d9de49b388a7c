//! Containers that high availability takes care of: it is asked for a state and brings it about in its own time, after the task that asked is over.

use std::{sync::Arc, time::Duration};

use super::{
    super::Call,
    power,
    start::{self, Locks},
};
use crate::{
    auth::access::Identity,
    core::Core,
    reply::{Outcome, Reply},
    worker,
};

/// One round of the local resource manager.
const ROUND: Duration = Duration::from_secs(10);
const SHUTDOWN_TIMEOUT: u64 = 60;

/// The state that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Started,
    Stopped,
}

pub(super) fn managed(call: &Call) -> bool {
    call.core.state().ha.contains(&call.vmid())
}

/// Asks for a state; the task says no more than that it was asked.
pub(super) fn request(call: &Call, wanted: Wanted) -> Outcome {
    let (kind, verb) = match wanted {
        Wanted::Started => ("hastart", "start"),
        Wanted::Stopped => ("hastop", "stop"),
    };
    let vmid = call.vmid();
    let upid = worker::spawn(
        &call.core,
        &call.who,
        &call.node,
        kind,
        &vmid.to_string(),
        move |job| async move {
            job.log(format!("Requesting HA {verb} for CT {vmid}"));
            let core = Arc::clone(&job.core);
            let node = job.upid.node.clone();
            job.core.running.spawn(async move {
                let round = core.config.timing.wait(ROUND);
                tokio::select! {
                    () = tokio::time::sleep(round) => bring_about(&core, &node, vmid, wanted),
                    () = core.stop.cancelled() => {}
                }
            });
            Ok(())
        },
    );
    Ok(Reply::data(upid.into()))
}

fn bring_about(core: &Arc<Core>, node: &str, vmid: u32, wanted: Wanted) {
    match wanted {
        Wanted::Started => by_host(core, node, vmid),
        Wanted::Stopped => {
            worker::spawn(
                core,
                &Identity::user("root@pam"),
                node,
                "vzshutdown",
                &vmid.to_string(),
                move |job| async move { power::go_down(&job, vmid, SHUTDOWN_TIMEOUT, true).await },
            );
        }
    }
}

/// The host itself starts a container: at boot, or for high availability.
pub(crate) fn by_host(core: &Arc<Core>, node: &str, vmid: u32) {
    start::spawn(core, &Identity::user("root@pam"), node, vmid, Locks::Heeded);
}
