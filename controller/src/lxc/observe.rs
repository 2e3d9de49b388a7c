//! Second stage: what is there. Reads the fleet's cache, the container where the next decision needs it, and what guest and probes said
//! last. Never writes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kube::ResourceExt;
use phoenix_crds::conditions::ConditionType as C;
use proxmox_client::{ErrorKind, TaskState, Upid};

use super::{
    LxcKind,
    desired::{Desired, Goal, Present, Role, Source, WantedNet},
    mark::{Mark, Ownership},
};
use crate::{
    context::Context,
    fault::Fault,
    fleet::{Barred, Cluster, Health, Look, Presence, Seen, Turn},
    memory::Failure,
    prober::ProbeView,
    sessions::GuestView,
};

/// Absence is asked for again before something is created upon it.
const ABSENT_FRESH: Duration = Duration::from_secs(1);
/// A DHCP server's answer is waited for at this pace.
const ADDRESS_RECHECK: Duration = Duration::from_secs(5);

/// A task that this object started, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSeen {
    /// Its UPID.
    pub upid: String,
    /// Its type.
    pub kind: String,
    /// Its state.
    pub state: TaskState,
}

/// What a storage can do for containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageKind {
    /// Snapshots and linked clones (zfspool, lvmthin, rbd, btrfs).
    Clones,
    /// Neither, but its containers can be converted (dir, nfs, cifs).
    Plain,
    /// None of it (thick lvm).
    Thick,
}

impl StorageKind {
    /// By Proxmox's storage type (pve-storage: `volume_has_feature` of each plugin).
    pub fn of(storage_type: &str) -> Self {
        match storage_type {
            "zfspool" | "lvmthin" | "rbd" | "btrfs" => Self::Clones,
            "lvm" => Self::Thick,
            _ => Self::Plain,
        }
    }
}

/// What the status says of an earlier look into the guest: good enough while nothing speaks against it, so that a restart of the operator
/// enters no guest that does its job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reported {
    /// Minors of the GPUs that were seen inside.
    pub gpus: Vec<u32>,
    /// Hash of the arguments that vLLM ran with.
    pub args_hash: Option<String>,
}

impl Reported {
    fn of(status: Option<&phoenix_crds::LxcStatus>) -> Self {
        let Some(status) = status else {
            return Self::default();
        };
        let seen = status.gpus.iter().filter(|g| g.uuid.is_some());
        Self {
            gpus: seen.filter_map(|g| u32::try_from(g.index).ok()).collect(),
            args_hash: status.vllm.as_ref().and_then(|v| v.args_hash.clone()),
        }
    }
}

/// What is there.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, read by one check"
)]
pub struct Observed {
    /// Of the connection.
    pub health: Health,
    /// Why nothing may be changed.
    pub barred: Option<Barred>,
    /// A root password was given.
    pub has_root: bool,
    /// When this object is to be looked at again at rest.
    pub drift: Duration,
    /// How often the fleet is polled: so often is looked for what a person was asked to do and no poll shows.
    pub interval: Duration,
    /// The container.
    pub look: Option<Arc<Look>>,
    /// Whose it is, by its mark.
    pub ownership: Option<Ownership>,
    /// The status says that it was made to the end at some time.
    pub was_created: bool,
    /// The mark that it had then, where it has lost it.
    pub lost_mark: Option<Mark>,
    /// It carries our mark but was never made to the end.
    pub half_made: bool,
    /// The task that we started last.
    pub task: Option<TaskSeen>,
    /// Some task is at work on it.
    pub active_task: bool,
    /// It is being converted.
    pub converting: bool,
    /// What failed repeatedly.
    pub failure: Option<Failure>,
    /// A VMID that could be taken.
    pub candidate: Option<u32>,
    /// Whose turn it is to clone.
    pub turn: Option<Turn>,
    /// Bridges of the node, where a network device is about to be set.
    pub bridges: Option<Vec<String>>,
    /// Names of its snapshots, where they matter.
    pub snapshots: Vec<String>,
    /// What its storage can do.
    pub storage: Option<StorageKind>,
    /// Volumes cloned from its own that belong to no object.
    pub dependents: Vec<String>,
    /// Containers that hold one of its addresses.
    pub rivals: Vec<String>,
    /// Optional devices that the host lacks.
    pub skipped_devices: BTreeSet<String>,
    /// What was found inside.
    pub guest: GuestView,
    /// What the status says of that.
    pub reported: Reported,
    /// What probes say.
    pub probe: Option<ProbeView>,
}

impl Observed {
    /// The container, where it is there.
    pub fn seen(&self) -> Option<&Seen> {
        match &self.look.as_ref()?.presence {
            Presence::Here(seen) => Some(seen),
            _ => None,
        }
    }

    /// Our mark on it.
    pub fn mark(&self) -> Option<&Mark> {
        match self.ownership.as_ref()? {
            Ownership::Ours(mark) => Some(mark),
            _ => None,
        }
    }

    /// The order that high availability took and whose effect is still to come: such a task ends long before it.
    pub fn asked_ha(&self) -> Option<&TaskSeen> {
        let running = self.seen()?.running();
        let task = self.task.as_ref().filter(|t| t.state == TaskState::Ok)?;
        matches!(
            (task.kind.as_str(), running),
            ("hastart", false) | ("hastop", true)
        )
        .then_some(task)
    }

    pub(super) fn nothing(health: Health, barred: Option<Barred>) -> Self {
        Self {
            health,
            barred,
            has_root: false,
            drift: Duration::from_mins(10),
            interval: Duration::from_secs(10),
            look: None,
            ownership: None,
            was_created: false,
            lost_mark: None,
            half_made: false,
            task: None,
            active_task: false,
            converting: false,
            failure: None,
            candidate: None,
            turn: None,
            bridges: None,
            snapshots: Vec::new(),
            storage: None,
            dependents: Vec::new(),
            rivals: Vec::new(),
            skipped_devices: BTreeSet::new(),
            guest: GuestView::default(),
            reported: Reported::default(),
            probe: None,
        }
    }
}

/// Looks.
pub(crate) async fn observe<K: LxcKind>(
    object: &K,
    desired: &Desired,
    cx: &Arc<Context>,
) -> Result<Observed, Fault> {
    let target = &desired.target;
    let Some(cluster) = cx.fleet.get(&target.hypervisor) else {
        return Ok(Observed::nothing(Health::Unknown, None));
    };
    let mut seen = Observed::nothing(cluster.health(), cluster.barred());
    seen.was_created = super::was_created(object.status_shared());
    seen.has_root = cluster.client().has_root();
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
            details(object, &mut seen, desired, present, vmid, &cluster, cx).await?
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
                .task_failed(&target.uid, &task.upid, &task.type_, exit)
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
    seen.rivals = rivals(object, present, cluster.name(), cx);
    if let Role::Template { .. } = present.role {
        sealing(seen, &mark, &container, vmid, cluster, cx).await?;
    }
    if !container.running() {
        cx.sessions.outdated(&target.uid);
    }
    seen.guest = cx.sessions.view(&target.uid);
    seen.reported = Reported::of(object.status_shared());
    seen.probe = probe(present, &mark, &container, desired, cluster, cx);
    Ok(())
}

/// The mark as it stood, from what the status says was durably done.
fn lost_mark(status: &phoenix_crds::LxcStatus, bare: Mark, present: &Present) -> Mark {
    let set_up = status
        .conditions
        .iter()
        .any(|c| c.type_ == C::SetupComplete.as_str() && c.status == "True");
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

/// Whether a task works on the container; a clone's task carries its source's VMID.
async fn active(
    cluster: &Cluster,
    node: &str,
    vmid: u32,
    source: Option<u32>,
) -> Result<bool, Fault> {
    let tasks = cluster
        .client()
        .active_tasks(node, None)
        .await
        .map_err(|e| Fault::proxmox(&e, "listing tasks", C::Created))?;
    let (own, source) = (vmid.to_string(), source.map(|s| s.to_string()));
    Ok(tasks.iter().any(|t| {
        t.upid.id == own || (t.upid.task_type == "vzclone" && source.as_ref() == Some(&t.upid.id))
    }))
}

async fn sealing(
    seen: &mut Observed,
    mark: &Mark,
    container: &Seen,
    vmid: u32,
    cluster: &Cluster,
    cx: &Context,
) -> Result<(), Fault> {
    let failed = |e: proxmox_client::Error| {
        Fault::proxmox(
            &e,
            &format!("looking at container {vmid} before the seal"),
            C::Sealed,
        )
    };
    let storage = container.config.rootfs().map(|r| r.storage);
    seen.storage = cx
        .stores
        .hypervisor(cluster.name())
        .and_then(|h| h.status)
        .and_then(|s| {
            s.storages
                .into_iter()
                .find(|s| Some(&s.name) == storage.as_ref() && s.node == container.node)
        })
        .and_then(|s| s.type_)
        .map(|t| StorageKind::of(&t));
    if container.config.is_template() || mark.setup.is_none() || container.running() {
        return Ok(());
    }
    let client = cluster.client();
    let snapshots = client
        .ct_snapshots(&container.node, vmid)
        .await
        .map_err(failed)?;
    seen.snapshots = snapshots
        .into_iter()
        .map(|s| s.name)
        .filter(|name| name != "current")
        .collect();
    if mark.revision.is_some() {
        let tasks = client
            .active_tasks(&container.node, Some(vmid))
            .await
            .map_err(failed)?;
        seen.converting = tasks.iter().any(|t| t.upid.task_type == "vztemplate");
    }
    Ok(())
}

/// What may hinder the deletion.
async fn remains(seen: &mut Observed, vmid: u32, cluster: &Cluster) -> Result<(), Fault> {
    let Some((mark, container)) = seen.mark().cloned().zip(seen.seen().cloned()) else {
        return Ok(());
    };
    seen.half_made = !mark.created;
    if container.config.lock().is_some() {
        seen.active_task = active(cluster, &container.node, vmid, None).await?;
    }
    if container.config.is_template()
        && let Some(rootfs) = container.config.rootfs()
    {
        let base = format!("basevol-{vmid}-disk-");
        match cluster
            .client()
            .storage_content(&container.node, &rootfs.storage, None)
            .await
        {
            Ok(volumes) => {
                let cloned = |v: &&proxmox_client::VolumeInfo| {
                    v.volid.contains(&format!(":{base}")) && v.volid.contains('/')
                };
                seen.dependents = volumes
                    .iter()
                    .filter(cloned)
                    .map(|v| v.volid.clone())
                    .collect();
            }
            // without the right to list volumes Proxmox' own refusal says it, later
            Err(e) if e.kind == ErrorKind::Forbidden => {}
            Err(e) => {
                return Err(Fault::proxmox(
                    &e,
                    "listing the storage's volumes",
                    C::Created,
                ));
            }
        }
    }
    Ok(())
}

/// Containers of this hypervisor that run with one of the static addresses that this one asks for; another one's bridges are others.
fn rivals<K: LxcKind>(
    object: &K,
    present: &Present,
    hypervisor: &str,
    cx: &Context,
) -> Vec<String> {
    use phoenix_crds::{lxc::Lxc, status::State};
    let uid = object.uid();
    let alive = |s: Option<&phoenix_crds::LxcStatus>| {
        s.is_some_and(|s| {
            s.hypervisor.as_deref() == Some(hypervisor)
                && matches!(
                    s.state,
                    Some(State::Running | State::SettingUp | State::Starting)
                )
        })
    };
    let mut found = Vec::new();
    let mut compare = |name: String, other: &phoenix_crds::LxcSpec| {
        for (mine, theirs) in present
            .nets
            .iter()
            .flatten()
            .flat_map(|m| other.network.iter().map(move |t| (m, t)))
        {
            if same_place(mine, theirs) {
                found.push(format!(
                    "{name} runs with the address {} on bridge {}",
                    mine.address().unwrap_or_default(),
                    mine.bridge
                ));
            }
        }
    };
    for t in cx
        .stores
        .all_templates()
        .iter()
        .filter(|t| t.uid() != uid && alive(t.status_shared()))
    {
        compare(
            format!(
                "LxcTemplate {}/{}",
                t.namespace().unwrap_or_default(),
                t.name_any()
            ),
            t.spec_shared(),
        );
    }
    for c in cx
        .stores
        .all_containers()
        .iter()
        .filter(|c| c.uid() != uid && alive(c.status_shared()))
    {
        compare(
            format!(
                "LxcContainer {}/{}",
                c.namespace().unwrap_or_default(),
                c.name_any()
            ),
            c.spec_shared(),
        );
    }
    found
}

fn same_place(mine: &WantedNet, theirs: &phoenix_crds::network::NetworkInterface) -> bool {
    let address = theirs
        .address
        .as_deref()
        .and_then(|a| a.split_once('/'))
        .map(|(a, _)| a);
    let vlan = theirs.vlan.map(|v| v.to_string());
    mine.address().is_some()
        && mine.address() == address
        && theirs.bridge.as_ref().is_none_or(|b| *b == mine.bridge)
        && mine.vlan() == vlan.as_deref()
}

/// Asks for the probes of a container that shall serve, and tells what they said last.
fn probe(
    present: &Present,
    mark: &Mark,
    container: &Seen,
    desired: &Desired,
    cluster: &Arc<Cluster>,
    cx: &Arc<Context>,
) -> Option<ProbeView> {
    let Role::Container {
        running: true,
        probe: Some(spec),
        ..
    } = &present.role
    else {
        return None;
    };
    let uid = &desired.target.uid;
    let ready = container.running() && mark.setup.as_deref() == Some(present.setup_mark.as_str());
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
