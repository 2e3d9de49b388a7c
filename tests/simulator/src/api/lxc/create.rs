//! Creating a container from a template archive.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};

use super::{
    super::Call,
    config::store,
    keys::{self, Change, config_params},
    root,
    start::{self, Locks},
    systemd_warning,
};
use crate::{
    config::TemplateShape,
    core::Core,
    guest::ssh::HostKey,
    guests::RootFile,
    model::{
        Container,
        section::{ConfigFile, Section},
        storage::leaf,
        volume::{self, Mount},
    },
    reply::{Failure, Outcome, Reply},
    schema::MountSpec,
    worker::{self, Broken, Job},
};

/// A container being created waits less long for its lock.
pub(super) const CREATE_FLOCK: Duration = Duration::from_secs(5);
const DEFAULT_ROOTFS: u64 = 4 << 30;

/// What the worker goes by.
struct Plan {
    vmid: u32,
    node: String,
    section: Section,
    mounts: Vec<Mount>,
    archive: String,
    template: Option<TemplateShape>,
    pool: Option<String>,
    start: bool,
    ssh_keys: Option<String>,
}

pub(super) async fn create(call: Call) -> Outcome {
    let plan = check(&call)?;
    let vmid = plan.vmid;
    let lock = call
        .core
        .flock(vmid, CREATE_FLOCK)
        .await
        .map_err(|text| format!("unable to create CT {vmid} - {text}"))?;
    {
        let mut state = call.core.state();
        state
            .taken(vmid)
            .map_err(|text| format!("unable to create CT {vmid} - {text}"))?;
        let mut file = ConfigFile::default();
        file.set_lock(Some("create"));
        state
            .containers
            .insert(vmid, Container::new(&plan.node, file));
    }
    let who = call.who.clone();
    let node = plan.node.clone();
    let upid = worker::spawn(
        &call.core,
        &call.who,
        &node,
        "vzcreate",
        &vmid.to_string(),
        |job| async move {
            let start = plan.start;
            let done = work(&job, plan).await;
            drop(lock);
            done?;
            if start {
                start::spawn(&job.core, &who, &job.upid.node, vmid, Locks::Heeded);
            }
            Ok(())
        },
    );
    Ok(Reply::data(upid.into()))
}

/// All checks that are answered at once, in Proxmox's order.
fn check(call: &Call) -> Result<Plan, Failure> {
    let vmid = call.vmid();
    let core = &call.core;
    if !core.state().quorate {
        return Err(Failure::die("cluster not ready - no quorum?"));
    }
    let mut set = config_params(call);
    set.retain(|key, _| !volume::numbered(key, "unused"));
    // An old host makes privileged ones unless it is told, and lets everybody.
    let old = core.config.host.is_old();
    if !old {
        set.entry("unprivileged".to_owned())
            .or_insert_with(|| "1".to_owned());
    }
    let unprivileged = set.get("unprivileged").is_some_and(|value| value == "1");
    if !unprivileged && !old && !call.who.is_root() {
        call.demand("/", "Sys.Modify")?;
    }
    core.state().taken(vmid)?;
    if call.given("ssh-public-keys").is_some_and(|keys| {
        !keys
            .lines()
            .filter(|line| !line.trim().is_empty())
            .all(is_key)
    }) {
        return Err(Failure::die("SSH public key validation error"));
    }
    let pool = call.given("pool").map(str::to_owned);
    if let Some(pool) = pool
        .as_deref()
        .filter(|pool| !core.state().access.pools.contains_key(*pool))
    {
        return Err(Failure::forbidden(&format!("pool '{pool}' does not exist")));
    }
    let may = |path: &str| core.state().access.may(&call.who, path, "VM.Allocate");
    let by_pool = pool
        .as_deref()
        .is_some_and(|pool| may(&format!("/pool/{pool}")));
    if !by_pool && !may(&format!("/vms/{vmid}")) {
        return Err(Failure::forbidden(""));
    }
    let storage = call.given("storage").unwrap_or("local").to_owned();
    let empty = Section::default();
    keys::check(
        call,
        &Change {
            vmid,
            pool: pool.as_deref(),
            old: &empty,
            set: &set,
            delete: &[],
            unprivileged,
            default_storage: &storage,
        },
    )?;
    let (archive, template) = archive(call)?;
    let mounts = mounts(call, &mut set, &storage)?;
    let mut section = Section::default();
    for (key, value) in set {
        store(&mut section, &key, &value);
    }
    Ok(Plan {
        vmid,
        node: call.node.clone(),
        section,
        mounts,
        archive,
        template,
        pool,
        start: call.flag("start"),
        ssh_keys: call.given("ssh-public-keys").map(str::to_owned),
    })
}

fn is_key(line: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-"]
        .iter()
        .any(|start| line.trim_start().starts_with(start))
        && line.split_whitespace().count() >= 2
}

/// The template archive: its path on the host, and what is known of it where it is there.
fn archive(call: &Call) -> Result<(String, Option<TemplateShape>), Failure> {
    let id = call.text("ostemplate");
    let Some((storage_id, name)) = id.split_once(':').filter(|_| !id.starts_with('/')) else {
        return Err(Failure::die(
            "Only root can pass arbitrary filesystem paths. at /usr/share/perl5/PVE/Storage.pm line 651.",
        ));
    };
    let state = call.core.state();
    let storage = state.storage(storage_id)?;
    let wanted = ["Datastore.AllocateSpace", "Datastore.Audit"];
    let path = format!("/storage/{storage_id}");
    if !state.access.may_any(&call.who, &path, &wanted) {
        return Err(Failure::forbidden(&format!("{path}, {}", wanted.join("|"))));
    }
    let Some(file) = name.strip_prefix("vztmpl/") else {
        return Err(Failure::die(format!(
            "unable to use volume {id} - content type needs to be 'vztmpl'"
        )));
    };
    let template = storage
        .shape
        .templates
        .iter()
        .find(|template| template.file == file)
        .cloned();
    Ok((format!("/var/lib/vz/template/cache/{file}"), template))
}

/// Takes the mounts out of the keys, `rootfs` by default, and checks their storages.
fn mounts(
    call: &Call,
    set: &mut BTreeMap<String, String>,
    storage: &str,
) -> Result<Vec<Mount>, Failure> {
    let mut mounts: Vec<Mount> = set
        .iter()
        .filter(|(key, _)| volume::is_mount(key))
        .map(|(key, value)| Mount::parse(key, value, storage))
        .collect();
    set.retain(|key, _| !volume::is_mount(key));
    if !mounts.iter().any(|mount| mount.key == "rootfs") {
        if !mounts.is_empty() {
            return Err(Failure::die(
                "mount points configured, but 'rootfs' not set - aborting",
            ));
        }
        let spec = MountSpec::Allocate {
            storage: storage.to_owned(),
            bytes: DEFAULT_ROOTFS,
        };
        mounts.push(Mount {
            key: "rootfs".to_owned(),
            spec,
            options: Vec::new(),
        });
    }
    mounts.sort_by_key(|mount| mount.key != "rootfs");
    for mount in &mounts {
        match &mount.spec {
            MountSpec::Allocate { storage, .. } => check_storage(call, storage)?,
            MountSpec::Volume { storage, name } => {
                check_storage(call, storage)?;
                if !call
                    .core
                    .state()
                    .storage(storage)?
                    .volumes
                    .contains_key(leaf(name))
                {
                    return Err(Failure::die(format!(
                        "unable to parse zfs volume name '{name}'"
                    )));
                }
            }
            MountSpec::Bind(_) | MountSpec::Device(_) => {}
        }
    }
    Ok(mounts)
}

/// Whether a storage can take a container's disk.
pub(super) fn check_storage(call: &Call, id: &str) -> Result<(), Failure> {
    {
        let state = call.core.state();
        let storage = state.storage(id)?;
        if !storage.holds("rootdir") {
            return Err(Failure::parameter(
                "storage",
                format!("storage '{id}' does not support container directories"),
            ));
        }
        if !storage.online {
            return Err(Failure::die(format!("storage '{id}' is not online")));
        }
    }
    call.demand(&format!("/storage/{id}"), "Datastore.AllocateSpace")
}

async fn work(job: &Arc<Job>, plan: Plan) -> Result<(), Broken> {
    let (vmid, node) = (plan.vmid, plan.node.clone());
    match build(job, plan).await {
        Ok(()) => {
            let warning = {
                let state = job.core.state();
                state
                    .container(&node, vmid)
                    .ok()
                    .and_then(|container| systemd_warning(&state, container))
            };
            if let Some(text) = warning {
                job.warn(&text);
            }
            Ok(())
        }
        Err(Broken::Killed) => Err(Broken::Killed),
        Err(broken) => {
            discard(&job.core, vmid).await;
            Err(broken.within(&format!("unable to create CT {vmid} - ")))
        }
    }
}

/// Removes a half-made container with its disks.
pub(super) async fn discard(core: &Arc<Core>, vmid: u32) {
    let mut roots = Vec::new();
    {
        let mut state = core.state();
        state.containers.remove(&vmid);
        for pool in state.access.pools.values_mut() {
            pool.guests.remove(&vmid);
        }
        for (id, storage) in &mut state.storages {
            for name in storage.volumes_of(vmid) {
                if storage.destroy(&name).is_ok() {
                    roots.push(root(id, &name));
                }
            }
        }
    }
    for root in roots {
        if let Err(error) = core.guests.destroy_root(root).await {
            tracing::debug!(%error, "no such root");
        }
    }
}

async fn build(job: &Arc<Job>, plan: Plan) -> Result<(), Broken> {
    let core = &job.core;
    let vmid = plan.vmid;
    let Some(template) = plan.template else {
        let text = format!(
            "volume 'local:vztmpl/{}' does not exist",
            leaf(&plan.archive)
        );
        job.log(text.clone());
        return Err(Broken::Failed(text));
    };
    let mounts = allocate(core, vmid, plan.mounts)?;
    job.log(format!("extracting archive '{}'", plan.archive));
    let durations = &core.config.timing.durations;
    job.work(durations.create + durations.copying(template.unpacked))
        .await?;
    let Some(os_type) = template.os_type.clone() else {
        job.log("zstd: /*stdin*\\: unsupported format ");
        job.log("tar: Child returned status 1");
        job.log("tar: Error is not recoverable: exiting now");
        return Err(Broken::Failed(format!(
            "command 'lxc-usernsexec -m u:0:100000:65536 -m g:0:100000:65536 -- tar xpf - --zstd --totals --one-file-system -p --sparse --numeric-owner --acls --xattrs '--xattrs-include=user.*' '--xattrs-include=security.capability' '--warning=no-file-ignored' '--warning=no-xattr-write' -C /var/lib/lxc/{vmid}/rootfs --skip-old-files --anchored --exclude './dev/*'' failed: exit code 2"
        )));
    };
    let root = fill(core, &mounts, &template)?;
    core.guests
        .create_root(root.clone(), template.file.clone())
        .await?;
    job.log(format!(
        "Total bytes read: {} ({}, 200MiB/s)",
        template.unpacked,
        rounded_up(template.unpacked)
    ));
    if os_type == "unmanaged" {
        job.log(
            "/etc/os-release file not found and autodetection failed, falling back to 'unmanaged'",
        );
        job.log("Falling back to amd64.");
        job.log("Use `pct set VMID --arch ARCH` to change.");
    } else {
        job.log("Detected container architecture: amd64");
    }
    let hostname = plan.section.get("hostname").map(str::to_owned);
    {
        let mut state = core.state();
        let container = state.container_mut(&plan.node, vmid)?;
        // This first write drops the lock; the lock file is still held.
        let mut main = plan.section;
        main.set("ostype", os_type);
        main.set("arch", "amd64");
        for (mount, size) in &mounts {
            main.set(&mount.key, mount.print(*size));
        }
        container.file = ConfigFile {
            main,
            ..ConfigFile::default()
        };
    }
    if template.file.contains("-standard_") {
        let made = make_host_keys(job, hostname.as_deref().unwrap_or_default())?;
        core.guests.write_root(root.clone(), made).await?;
    }
    if let Some(keys) = plan.ssh_keys {
        let text = format!(
            "# --- BEGIN PVE ---\n{}\n# --- END PVE ---\n",
            keys.trim_end()
        );
        let file = RootFile {
            path: "root/.ssh/authorized_keys",
            text,
            mode: 0o600,
        };
        core.guests.write_root(root, vec![file]).await?;
    }
    job.late()?;
    let mut state = core.state();
    let container = state.container_mut(&plan.node, vmid)?;
    for (key, value) in [
        ("hostname", format!("CT{vmid}")),
        ("memory", "512".to_owned()),
        ("swap", "512".to_owned()),
    ] {
        let keys = &mut container.file.main.keys;
        keys.entry(key.to_owned()).or_insert(value);
    }
    if let Some(pool) = plan.pool.and_then(|pool| state.access.pools.get_mut(&pool)) {
        pool.guests.insert(vmid);
    }
    Ok(())
}

/// Makes the volumes; the answer is each mount as it is now, with its size.
fn allocate(
    core: &Core,
    vmid: u32,
    mounts: Vec<Mount>,
) -> Result<Vec<(Mount, Option<u64>)>, String> {
    let mut state = core.state();
    let make = |mut mount: Mount| match mount.spec.clone() {
        MountSpec::Allocate { storage, bytes } => {
            let on = state.storage_mut(&storage)?;
            let name = on.allocate(vmid, bytes)?;
            mount.spec = MountSpec::Volume {
                name: on.written(&name),
                storage,
            };
            Ok((mount, Some(bytes)))
        }
        _ => Ok((mount, None)),
    };
    mounts.into_iter().map(make).collect()
}

/// Writes the archive's bytes; the answer is the root's name.
fn fill(
    core: &Core,
    mounts: &[(Mount, Option<u64>)],
    template: &TemplateShape,
) -> Result<String, Broken> {
    let (storage, name) = mounts
        .first()
        .and_then(|(mount, _)| mount.volume())
        .ok_or_else(|| Broken::Failed("no root volume".to_owned()))?;
    let mut state = core.state();
    let on = state.storage_mut(storage)?;
    if let Some(volume) = on.volumes.get_mut(leaf(name)) {
        volume.systemd = template.systemd;
    }
    on.write(leaf(name), template.unpacked);
    Ok(root(storage, name))
}

/// Templates with an SSH server get keys of their own.
fn make_host_keys(job: &Job, hostname: &str) -> Result<Vec<RootFile>, Broken> {
    let name = format!("root@{hostname}");
    let key = HostKey::make(&name).map_err(|error| Broken::Failed(error.to_string()))?;
    for kind in ["rsa", "ecdsa", "ed25519"] {
        // the one that is used is a real one
        let print = match kind {
            "ed25519" => key.fingerprint.clone(),
            _ => format!(
                "SHA256:{}",
                STANDARD_NO_PAD.encode(rand::random::<[u8; 32]>())
            ),
        };
        job.log(format!(
            "Creating SSH host key 'ssh_host_{kind}_key' - this may take some time ..."
        ));
        job.log(format!("done: {print} {name}"));
    }
    let file = |path, text, mode| RootFile { path, text, mode };
    Ok(vec![
        file("etc/ssh/ssh_host_ed25519_key", key.private, 0o600),
        file("etc/ssh/ssh_host_ed25519_key.pub", key.public, 0o644),
    ])
}

/// A count of bytes as tar prints it: in the largest unit that fits, rounded up.
fn rounded_up(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fitting = units.iter().find(|(shift, _)| bytes >= 1 << shift);
    fitting.map_or_else(
        || format!("{bytes}B"),
        |(shift, unit)| format!("{}{unit}", bytes.div_ceil(1 << shift)),
    )
}
