//! Clones: linked ones hang on a template's base, full ones copy. The source is locked for the whole length.

use std::sync::Arc;

use super::{
    super::Call,
    config::FLOCK,
    create::{CREATE_FLOCK, discard},
    keys, root, systemd_warning,
};
use crate::{
    core::Core,
    model::{
        Container, State,
        section::{ConfigFile, Section, kept_description},
        storage::leaf,
        volume::{self, Mount, numbered},
    },
    reply::{Failure, Outcome, Reply},
    schema::MountSpec,
    worker::{self, Broken, Job},
};

/// Keys that a clone doesn't get.
const LEFT: [&str; 6] = [
    "lock",
    "template",
    "parent",
    "snaptime",
    "snapstate",
    "digest",
];

struct Plan {
    source: u32,
    target: u32,
    full: bool,
    snapshot: Option<String>,
    storage: Option<String>,
    pool: Option<String>,
    /// The node that it is given to in the end.
    node: String,
    mounts: Vec<Mount>,
}

pub(super) async fn clone(call: Call) -> Outcome {
    let core = &call.core;
    let (source, target) = (call.vmid(), call.text("newid").parse::<u32>().unwrap_or(0));
    check_surroundings(&call)?;
    core.state().container(&call.node, source)?;
    {
        let _lock = core.flock(source, FLOCK).await?;
        let mut state = core.state();
        let container = state.container_mut(&call.node, source)?;
        container.check_lock()?;
        container.file.set_lock(Some("disk"));
    }
    match reserve(&call, source, target).await {
        Ok(plan) => {
            let upid = worker::spawn(
                core,
                &call.who,
                &call.node,
                "vzclone",
                &source.to_string(),
                move |job| async move { work(&job, plan).await },
            );
            Ok(Reply::data(upid.into()))
        }
        Err(failure) => {
            unlock(core, source);
            Err(failure)
        }
    }
}

fn check_surroundings(call: &Call) -> Result<(), Failure> {
    let state = call.core.state();
    if let Some(pool) = call
        .given("pool")
        .filter(|pool| !state.access.pools.contains_key(*pool))
    {
        return Err(Failure::forbidden(&format!("pool '{pool}' does not exist")));
    }
    if let Some(node) = call
        .given("target")
        .filter(|node| !state.nodes.contains_key(*node))
    {
        return Err(Failure::die(format!("no such cluster node '{node}'")));
    }
    if let Some(storage) = call.given("storage") {
        let local = !state.storage(storage)?.shared();
        if local
            && call
                .given("target")
                .is_some_and(|target| target != call.node)
        {
            return Err(Failure::die(format!(
                "can't clone to non-shared storage '{storage}'"
            )));
        }
    }
    if state.quorate {
        Ok(())
    } else {
        Err(Failure::die("cluster not ready - no quorum?"))
    }
}

fn unlock(core: &Core, vmid: u32) {
    if let Some(container) = core.state().containers.get_mut(&vmid)
        && container.file.lock() == Some("disk")
    {
        container.file.set_lock(None);
    }
}

/// Takes the target's id, decides what kind of clone it will be, and writes the target's configuration but for its volumes.
async fn reserve(call: &Call, source: u32, target: u32) -> Result<Plan, Failure> {
    let core = &call.core;
    core.state().taken(target)?;
    let _lock = core.flock(target, CREATE_FLOCK).await?;
    {
        let mut state = core.state();
        state.taken(target)?;
        let mut file = ConfigFile::default();
        file.set_lock(Some("create"));
        state
            .containers
            .insert(target, Container::new(&call.node, file));
    }
    let planned = plan(call, source, target);
    if planned.is_err() {
        core.state().containers.remove(&target);
    }
    planned
}

fn plan(call: &Call, source: u32, target: u32) -> Result<Plan, Failure> {
    let mut state = call.core.state();
    let container = state.container(&call.node, source)?;
    let snapshot = call.given("snapname").map(str::to_owned);
    let full = call
        .get("full")
        .map_or(!container.file.is_template(), |full| full == "1");
    let storage = call.given("storage").map(str::to_owned);
    if !full && storage.is_some() {
        return Err(Failure::die(
            "parameter 'storage' not allowed for linked clones",
        ));
    }
    let section = match &snapshot {
        Some(name) => container
            .file
            .snapshots
            .get(name)
            .ok_or_else(|| format!("snapshot '{name}' does not exist"))?
            .clone(),
        None => container.file.main.clone(),
    };
    if full && snapshot.is_none() && container.is_running() {
        return Err(Failure::die(
            "Full clone of a running container is only possible from a snapshot",
        ));
    }
    let mounts = volume::mounts(&section);
    for mount in &mounts {
        check_mount(
            call,
            &state,
            mount,
            full,
            snapshot.is_some(),
            storage.as_deref(),
        )?;
    }
    let elsewhere = call.given("target").filter(|node| *node != call.node);
    let local = |mount: &Mount| {
        let storage = mount.volume().map(|(id, _)| state.storage(id));
        !matches!(storage, Some(Ok(storage)) if storage.shared())
    };
    if elsewhere.is_some() && mounts.iter().any(local) {
        return Err(Failure::die(format!(
            "can't clone CT to node '{}' (CT uses local storage)",
            call.text("target")
        )));
    }
    let main = inherited(call, section, target);
    let nets = main.keys.iter().filter(|(key, _)| numbered(key, "net"));
    for path in nets.filter_map(|(_, value)| keys::bridge_path(value)) {
        if !call.who.is_root() && !state.access.may(&call.who, &path, "SDN.Use") {
            return Err(Failure::forbidden(&format!("{path}, SDN.Use")));
        }
    }
    if let Some(container) = state.containers.get_mut(&target) {
        container.file = ConfigFile {
            main,
            ..ConfigFile::default()
        };
        container.file.set_lock(Some("create"));
    }
    Ok(Plan {
        source,
        target,
        full,
        snapshot,
        storage,
        pool: call.given("pool").map(str::to_owned),
        node: elsewhere.unwrap_or(&call.node).to_owned(),
        mounts,
    })
}

fn check_mount(
    call: &Call,
    state: &State,
    mount: &Mount,
    full: bool,
    snapshot: bool,
    storage: Option<&str>,
) -> Result<(), Failure> {
    let Some((id, name)) = mount.volume() else {
        return Err(Failure::die(format!(
            "unable to clone mountpoint '{}' (type bind)",
            mount.key
        )));
    };
    if !full && !state.storage(id)?.can_link(leaf(name), snapshot) {
        return Err(Failure::die(format!(
            "Linked clone feature for '{id}:{name}' is not available"
        )));
    }
    let path = format!("/storage/{}", storage.unwrap_or(id));
    if call.who.is_root()
        || state
            .access
            .may(&call.who, &path, "Datastore.AllocateSpace")
    {
        return Ok(());
    }
    Err(Failure::forbidden(&format!(
        "{path}, Datastore.AllocateSpace"
    )))
}

/// What the clone takes over, with hardware addresses of its own.
fn inherited(call: &Call, mut section: Section, target: u32) -> Section {
    section.keys.retain(|key, _| {
        !LEFT.contains(&key.as_str()) && !volume::is_mount(key) && !numbered(key, "unused")
    });
    for (key, value) in &mut section.keys {
        if numbered(key, "net") {
            *value = keys::with_new_address(value);
        }
    }
    if let Some(hostname) = call.given("hostname") {
        section.set("hostname", hostname);
    }
    section
        .keys
        .entry("hostname".to_owned())
        .or_insert_with(|| format!("CT{target}"));
    if let Some(description) = call.given("description") {
        section.description = kept_description(description);
    }
    section
}

async fn work(job: &Arc<Job>, plan: Plan) -> Result<(), Broken> {
    let core = Arc::clone(&job.core);
    let (source, target, node) = (plan.source, plan.target, plan.node.clone());
    match copy(job, plan).await {
        Ok(()) => {
            unlock(&core, source);
            let mut state = core.state();
            let container = state.container_mut(&job.upid.node, target)?;
            container.file.set_lock(None);
            container.node = node;
            let warning = state
                .containers
                .get(&target)
                .and_then(|container| systemd_warning(&state, container));
            drop(state);
            if let Some(text) = warning {
                job.warn(&text);
            }
            Ok(())
        }
        // A killed worker leaves both locks and what it has made so far.
        Err(Broken::Killed) => Err(Broken::Killed),
        Err(broken) => {
            unlock(&core, source);
            discard(&core, target).await;
            Err(broken.within("clone failed: "))
        }
    }
}

async fn copy(job: &Arc<Job>, plan: Plan) -> Result<(), Broken> {
    let core = &job.core;
    let node = job.upid.node.clone();
    job.log(format!(
        "creating a clone of container {} with ID {}",
        plan.source, plan.target
    ));
    for mount in &plan.mounts {
        let Some((from, name)) = mount.volume() else {
            continue;
        };
        let kind = if plan.full {
            "full clone of mountpoint"
        } else {
            "linked clone of mount point"
        };
        job.log(format!("create {kind} {} ({from}:{name})", mount.key));
        let to = plan.storage.as_deref().unwrap_or(from);
        let (new, bytes) = make(core, &plan, from, leaf(name), to)?;
        let durations = &core.config.timing.durations;
        let length = if plan.full {
            durations.full_clone + durations.copying(bytes)
        } else {
            durations.linked_clone
        };
        job.work(length).await?;
        if plan.full {
            check_copied(core, to, plan.target)?;
            log_copy(job, bytes);
        }
        let written = {
            let mut state = core.state();
            let storage = state.storage_mut(to)?;
            if plan.full {
                storage.write(&new, bytes);
            }
            let mut mount = mount.clone();
            mount.spec = MountSpec::Volume {
                storage: to.to_owned(),
                name: storage.written(&new),
            };
            let size = storage.volumes.get(&new).map(|volume| volume.size);
            state
                .container_mut(&node, plan.target)?
                .file
                .main
                .set(&mount.key, mount.print(size));
            root(to, &new)
        };
        if mount.key == "rootfs" {
            core.guests
                .clone_root(root(from, name), plan.snapshot.clone(), written)
                .await?;
        }
    }
    job.late()?;
    join_pool(core, plan.pool.as_deref(), plan.target);
    Ok(())
}

/// What `rsync` comes to on a storage that is full.
fn check_copied(core: &Core, to: &str, target: u32) -> Result<(), String> {
    if !core.state().storage(to)?.full {
        return Ok(());
    }
    Err(format!(
        "command 'rsync --stats -X -A --numeric-ids -aH --whole-file --sparse --one-file-system --bwlimit=0 /var/lib/lxc/{target}/.copy-volume-2/ /var/lib/lxc/{target}/.copy-volume-1' failed: exit code 11"
    ))
}

fn join_pool(core: &Core, pool: Option<&str>, vmid: u32) {
    let mut state = core.state();
    if let Some(pool) = pool.and_then(|pool| state.access.pools.get_mut(pool)) {
        pool.guests.insert(vmid);
    }
}

/// Makes the target's volume; the answer is its name and how much there is to copy.
fn make(
    core: &Core,
    plan: &Plan,
    from: &str,
    source: &str,
    to: &str,
) -> Result<(String, u64), String> {
    let mut state = core.state();
    let volume = state
        .storage(from)?
        .volumes
        .get(source)
        .cloned()
        .ok_or_else(|| format!("no such volume '{from}:{source}'"))?;
    let target = state.storage_mut(to)?;
    if !plan.full {
        return Ok((target.link(source, plan.target)?, 0));
    }
    if !target.holds("rootdir") {
        return Err(format!(
            "content type 'rootdir' is not available or configured on storage '{to}'"
        ));
    }
    // An empty dataset fits where its content doesn't.
    let new = target.allocate_empty(plan.target, volume.size);
    if let Some(made) = target.volumes.get_mut(&new) {
        made.systemd = volume.systemd;
    }
    Ok((new, volume.refer))
}

fn log_copy(job: &Job, bytes: u64) {
    let size = grouped(bytes);
    // A file's average size gives plausible counts.
    let files = (bytes / 36_000).max(1);
    let (all, plain) = (grouped(files + files / 8), grouped(files));
    let kinds = format!("(reg: {plain}, dir: {}, link: 0)", grouped(files / 8));
    for line in [
        String::new(),
        format!("Number of files: {all} {kinds}"),
        format!("Number of created files: {all} {kinds}"),
        "Number of deleted files: 0".to_owned(),
        format!("Number of regular files transferred: {plain}"),
        format!("Total file size: {size} bytes"),
        format!("Total transferred file size: {size} bytes"),
        format!("Literal data: {size} bytes"),
        "Matched data: 0 bytes".to_owned(),
        "File list size: 0".to_owned(),
        "File list generation time: 0.017 seconds".to_owned(),
        "File list transfer time: 0.000 seconds".to_owned(),
        format!("Total bytes sent: {size}"),
        format!("Total bytes received: {}", grouped(files * 20)),
        String::new(),
        format!(
            "sent {size} bytes  received {} bytes  200,000,000.00 bytes/sec",
            grouped(files * 20)
        ),
        format!("total size is {size}  speedup is 1.00"),
    ] {
        job.log(line);
    }
}

/// `21,987,411`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_grouped() {
        assert_eq!(super::grouped(21_987_411), "21,987,411");
        assert_eq!(super::grouped(7), "7");
    }
}
