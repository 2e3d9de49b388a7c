//! Second stage: what is there. Reads the fleet's cache, the container where the next decision needs it, and what guest and probes said
//! last. Never writes.

mod driver;
mod facts;
mod gpus;
mod rivals;
mod storage;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use phoenix_crds::conditions::ConditionType as C;
use proxmox_client::{TaskState, Upid};

pub use driver::DriverStep;
use driver::driver_step;
pub(super) use facts::host_key;
pub use facts::{Observed, Reported, StorageKind, TaskSeen};
pub use gpus::Claim;
pub(in crate::lxc) use gpus::{claims, is_exclusive};
use rivals::rivals;
use storage::{active, remains, sealing};

use super::{
    LxcKind,
    desired::{Desired, Goal, Present, Role, Source},
    mark::Mark,
};
use crate::{
    condition::said_true,
    context::Context,
    fault::Fault,
    fleet::{Cluster, Health, Place, Presence, Seen},
    guest::GuestFacts,
    prober::{ProbeSpec, ProbeView},
};

/// Absence is asked for again before something is created upon it.
const ABSENT_FRESH: Duration = Duration::from_secs(1);
/// A DHCP server's answer is waited for at this pace.
const ADDRESS_RECHECK: Duration = Duration::from_secs(5);

/// Looks.
pub(crate) async fn observe<K: LxcKind>(
    object: &K,
    desired: &Desired,
    cx: &Arc<Context>,
) -> Result<Observed, Fault> {
    let target = &desired.target;
    let Some(cluster) = cx.fleet.get(&target.hypervisor) else {
        let mut seen = Observed::nothing(Health::Unknown, None);
        seen.reported = Reported::of(object.status_shared());
        return Ok(seen);
    };
    let mut seen = Observed::nothing(cluster.health(), cluster.barred());
    seen.was_created = super::was_created(object.status_shared());
    seen.reported = Reported::of(object.status_shared());
    seen.has_root = cluster.client().has_root();
    seen.ssh_key = cluster.ssh_line();
    if seen.health != Health::Connected || seen.barred.is_some() {
        return Ok(seen);
    }
    seen.task = task(object, &cluster, desired, cx);
    seen.failure = cx.memory.failure(&target.uid);
    if seen
        .task
        .as_ref()
        .is_some_and(|t| t.state == TaskState::Running)
    {
        return Ok(seen);
    }
    let Some(vmid) = target.vmid else {
        seen.places = places(desired, &cluster).await?;
        if seen.places.is_some() {
            return Ok(seen);
        }
        seen.candidate = candidate(desired, &cluster).await?;
        return Ok(seen);
    };
    seen.drift = cluster.drift_due(vmid);
    seen.interval = cluster.settings().interval;
    let max_age = if waits_for_a_person(object.status_shared()) {
        seen.interval
    } else {
        seen.drift
    };
    cluster.interested(vmid, &target.key);
    let failed = |e: proxmox_client::Error| {
        Fault::proxmox(&e, &format!("looking at container {vmid}"), C::Created)
    };
    let mut look = cluster
        .look(vmid, target.node_hint.as_deref(), max_age)
        .await
        .map_err(failed)?;
    if !matches!(look.presence, Presence::Here(_)) && look.at.elapsed() > ABSENT_FRESH {
        look = cluster
            .look(vmid, target.node_hint.as_deref(), ABSENT_FRESH)
            .await
            .map_err(failed)?;
    }
    if matches!(&look.presence, Presence::Here(container) if container.lacks_address()) {
        look = cluster
            .look(vmid, target.node_hint.as_deref(), ADDRESS_RECHECK)
            .await
            .map_err(failed)?;
        seen.drift = seen.drift.min(ADDRESS_RECHECK);
    }
    if let Presence::Here(container) = &look.presence {
        seen.ownership = Some(target.mark(vmid).judge(container.config.description()));
    }
    seen.look = Some(look);
    match &desired.goal {
        Goal::Present(present) => {
            details(object, &mut seen, desired, present, vmid, &cluster, cx).await?;
        }
        Goal::Absent(_) => remains(&mut seen, vmid, &cluster).await?,
    }
    Ok(seen)
}

/// The last pass asked somebody to do something, perhaps to the container itself: what was seen of it then says little now.
fn waits_for_a_person(status: Option<&phoenix_crds::LxcStatus>) -> bool {
    status.is_some_and(|s| s.conditions.iter().any(|c| c.type_ == C::Stalled.as_str()))
}

/// The task in the status, followed by the watcher; its failure is counted once.
fn task<K: LxcKind>(
    object: &K,
    cluster: &Arc<Cluster>,
    desired: &Desired,
    cx: &Context,
) -> Option<TaskSeen> {
    let task = object.status_shared()?.task.as_ref()?;
    let upid: Upid = task.upid.parse().ok()?;
    let target = &desired.target;
    let state = cluster.tasks().state(&task.upid).unwrap_or_else(|| {
        cluster.watch(&upid, target.vmid.unwrap_or_default(), &target.key);
        TaskState::Running
    });
    match &state {
        TaskState::Failed { exit } => {
            cx.memory
                .task_failed(&target.uid, &task.upid, &task.type_, exit);
        }
        TaskState::Ok | TaskState::Warnings(_) => cx.memory.task_succeeded(&target.uid, &task.upid),
        TaskState::Running | TaskState::Unknown => {}
    }
    Some(TaskSeen {
        upid: task.upid.clone(),
        kind: task.type_.clone(),
        state,
    })
}

/// The nodes, for an object that has none yet.
async fn places(desired: &Desired, cluster: &Cluster) -> Result<Option<Arc<Vec<Place>>>, Fault> {
    if !matches!(&desired.goal, Goal::Present(present) if present.wish.is_some()) {
        return Ok(None);
    }
    let places = cluster.places(cluster.settings().interval).await;
    places
        .map(Some)
        .map_err(|e| Fault::proxmox(&e, "looking for a node", C::Created))
}

async fn candidate(desired: &Desired, cluster: &Cluster) -> Result<Option<u32>, Fault> {
    let Goal::Present(present) = &desired.goal else {
        return Ok(None);
    };
    if let Some(pinned) = present.pinned {
        return Ok(Some(pinned));
    }
    cluster
        .choose_vmid(present.range.clone(), &present.taken, &desired.target.key)
        .await
        .map_err(|e| Fault::proxmox(&e, "choosing a VMID", C::Created))
}

/// What the next decision about a container that shall be there needs to know.
async fn details<K: LxcKind>(
    object: &K,
    seen: &mut Observed,
    desired: &Desired,
    present: &Present,
    vmid: u32,
    cluster: &Arc<Cluster>,
    cx: &Arc<Context>,
) -> Result<(), Fault> {
    let target = &desired.target;
    seen.skipped_devices = cx.memory.skipped_devices(&target.uid);
    let absent = matches!(
        seen.look.as_ref().map(|l| &l.presence),
        Some(Presence::Absent)
    );
    if absent {
        seen.places = places(desired, cluster).await?;
        if seen.places.is_some() {
            return Ok(());
        }
    }
    seen.turn = match (&present.source, absent) {
        (Source::Template(source), true) => Some(cluster.clones().join(source.vmid, &target.key)),
        _ => {
            cluster.done_cloning(&target.key);
            None
        }
    };
    let foreign = !absent && seen.mark().is_none();
    seen.lost_mark = object
        .status_shared()
        .filter(|_| foreign && seen.was_created)
        .map(|status| lost_mark(status, target.mark(vmid), present));
    if foreign && present.pinned.is_none() && !seen.was_created {
        seen.candidate = candidate(desired, cluster).await?;
    }
    let node = seen
        .seen()
        .map_or(present.node.as_str(), |s| s.node.as_str())
        .to_owned();
    if needs_bridges(present, seen.seen()) {
        // who may not list them is told by Proxmox itself, later
        seen.bridges = cluster
            .client()
            .bridges(&node)
            .await
            .ok()
            .filter(|b| !b.is_empty());
    }
    let Some((mark, container)) = seen.mark().cloned().zip(seen.seen().cloned()) else {
        return Ok(());
    };
    seen.half_made = !mark.created;
    if seen.half_made || container.config.lock().is_some() {
        let source = match &present.source {
            Source::Template(t) => Some(t.vmid),
            Source::OsTemplate(_) => None,
        };
        seen.active_task = active(cluster, &node, vmid, source).await?;
    }
    // only a start is refused for their sake
    if !container.running() {
        seen.rivals = rivals(object, present, cluster.name(), cx);
    }
    if let Role::Template { .. } = present.role {
        sealing(seen, &mark, &container, vmid, cluster, cx).await?;
    }
    if !container.running() {
        cx.sessions.outdated(&target.uid);
    }
    seen.guest = cx.sessions.view(&target.uid);
    if present.asks_gpus() {
        let status = object.status_shared();
        seen.gpus_held = held(status);
        seen.gpu_claims = claims(cluster.name(), &node, &target.uid, cx);
        seen.node_gpus = gpus::of_node(cluster.name(), &node, cx);
        let versions = seen.guest.known().and_then(GuestFacts::driver_mismatch);
        if let Some((_, host)) = versions {
            seen.driver_step = driver_step(object, &host, cx).await;
        }
    }
    seen.probe = probe(seen, present, &mark, &container, desired, cluster, cx);
    Ok(())
}

/// The GPUs that the object was given, by its status.
fn held(status: Option<&phoenix_crds::LxcStatus>) -> BTreeMap<u32, bool> {
    let given = status.iter().flat_map(|s| s.gpus.iter());
    given
        .filter(|g| g.sharing.is_some())
        .filter_map(|g| {
            let gpu = u32::try_from(g.index).ok()?;
            Some((gpu, is_exclusive(g.sharing.as_deref())))
        })
        .collect()
}

/// The mark as it stood, from what the status says was durably done.
fn lost_mark(status: &phoenix_crds::LxcStatus, bare: Mark, present: &Present) -> Mark {
    let set_up = said_true(&status.conditions, C::SetupComplete);
    Mark {
        created: true,
        setup: set_up.then(|| present.setup_mark.clone()),
        revision: status
            .snapshot
            .as_ref()
            .and_then(|_| status.revision.clone()),
        ..bare
    }
}

fn needs_bridges(present: &Present, seen: Option<&Seen>) -> bool {
    let Some(wanted) = &present.nets else {
        return false;
    };
    let Some(seen) = seen else { return true };
    let held: Vec<String> = seen
        .config
        .nets()
        .values()
        .filter_map(|n| n.get("bridge").map(str::to_owned))
        .collect();
    wanted.iter().any(|net| !held.contains(&net.bridge))
}
/// Asks for the probes of a container that shall serve, and tells what they said last.
fn probe(
    seen: &Observed,
    present: &Present,
    mark: &Mark,
    container: &Seen,
    desired: &Desired,
    cluster: &Arc<Cluster>,
    cx: &Arc<Context>,
) -> Option<ProbeView> {
    let uid = &desired.target.uid;
    let Role::Container {
        running: true,
        probe: Some(spec),
        ..
    } = &present.role
    else {
        cx.prober.forget(uid);
        return None;
    };
    let ready = container.running()
        && mark.setup.as_deref() == Some(present.setup_mark.as_str())
        && runs_with_these(seen, spec);
    let address = container.addresses.first().filter(|_| ready);
    let Some(address) = address else {
        cx.prober.forget(uid);
        return None;
    };
    Some(cx.prober.ensure(
        uid,
        spec,
        address,
        cluster.settings().guest_proxy.as_deref(),
        &desired.target.key,
        &cx.wakes,
    ))
}

/// The engine that would be asked was started with the arguments of this spec: what one with others says is no answer.
fn runs_with_these(seen: &Observed, spec: &ProbeSpec) -> bool {
    let ProbeSpec::Vllm { args_hash, .. } = spec else {
        return true;
    };
    let runs_with = match seen.guest.known() {
        Some(facts) => facts.vllm.as_ref().map(|unit| &unit.args_hash),
        None => seen.reported.args_hash.as_ref(),
    };
    runs_with == Some(args_hash)
}
