//! Fifth stage, pure: what is reported, computed on success and on failure alike from what the pass yielded.
//!
//! Everything that has not changed comes out as it was stored, so that at rest nothing is written.

use std::collections::BTreeMap;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use phoenix_crds::{
    LxcStatus, Quantity,
    conditions::{ConditionType as C, Reason},
    lxc::{Features, Resources, Rootfs},
    network::{Dns, NetworkInterface},
    status::{
        GpuStatus, LxcDisplay, Resolved, SetupStatus, SnapshotStatus, SourceStatus, State,
        TaskStatus, VllmStatus,
    },
};
use proxmox_client::{CtConfig, PropertyString, TaskState};

use super::{
    LxcKind,
    desired::{Desired, Goal, Present, Role, Source},
    observe::Observed,
    plan::{Seal, sealed},
};
use crate::{
    condition::{Finding, Truth, conditions, whole_seconds},
    engine::{Pass, Receipt},
    fleet::Seen,
    guest::{GuestFacts, SetupPhase, SetupState},
    probe::VllmProbe,
    prober::ProbeSpec,
};

/// Longest list of steps ahead; more is no use to a person.
const PLAN_LINES: usize = 8;

/// The status after a pass.
pub(crate) fn status<K: LxcKind>(object: &K, pass: &Pass<K>, now: Timestamp) -> LxcStatus {
    let previous = object.status_shared().cloned().unwrap_or_default();
    let mut status = previous.clone();
    status.observed_generation = object.meta().generation;
    if let Some(desired) = &pass.desired {
        if !desired.target.hypervisor.is_empty() {
            status.hypervisor = Some(desired.target.hypervisor.clone());
        }
        if let Some(observed) = &pass.observed {
            report(
                &mut status,
                &previous,
                desired,
                observed,
                pass.receipt.as_ref(),
                now,
            );
        }
    }
    if let Some(hypervisor) = pass.fault.as_ref().and_then(|f| f.hypervisor.clone()) {
        status.hypervisor.get_or_insert(hypervisor);
    }
    if let Some(vmid) = pass.receipt.as_ref().and_then(|r| r.vmid) {
        status.vmid = Some(i64::from(vmid));
    }
    status.plan = pass
        .plan
        .iter()
        .flat_map(|p| p.ahead.iter().take(PLAN_LINES).cloned())
        .collect();
    let mut findings = pass.findings();
    if pass.paused {
        let message = "The annotation phoenix-hypervisor.io/paused is set: nothing is changed until it is removed.";
        findings.push(Finding::said(
            C::Paused,
            Truth::True,
            Reason::Annotated,
            message,
        ));
    }
    let kept: &[Condition] = if pass.partial() {
        &previous.conditions
    } else {
        &[]
    };
    let kept: Vec<Condition> = kept
        .iter()
        .filter(|c| c.type_ != C::Paused.as_str())
        .cloned()
        .collect();
    status.conditions = conditions(
        &findings,
        &kept,
        &previous.conditions,
        object.meta().generation,
        now,
    );
    status.state = Some(state(
        object.meta().deletion_timestamp.is_some(),
        &status,
        &previous,
        pass.observed.as_ref(),
    ));
    status.display = Some(display(&status, pass.desired.as_ref()));
    status
}

fn report(
    status: &mut LxcStatus,
    previous: &LxcStatus,
    desired: &Desired,
    observed: &Observed,
    receipt: Option<&Receipt>,
    now: Timestamp,
) {
    status.task = task(previous, observed, receipt);
    let Goal::Present(present) = &desired.goal else {
        return;
    };
    let mark = observed.mark();
    if !mark.is_some_and(|m| m.created) || status.source.is_none() {
        status.source = Some(source(present));
    }
    status.revision = Some(
        mark.and_then(|m| m.revision.clone())
            .unwrap_or_else(|| present.revision.clone()),
    );
    let (Some(seen), Some(mark)) = (observed.seen(), mark) else {
        return;
    };
    status.node = Some(seen.node.clone());
    status.addresses.clone_from(&seen.addresses);
    status.resolved = Some(resolved(&seen.config));
    if let Some(run) = observed
        .guest
        .known()
        .and_then(|f| f.state.as_ref())
        .and_then(|s| s.setup.as_ref())
    {
        status.setup = Some(setup(run));
    }
    if let Role::Template { snapshot, strategy } = &present.role {
        status.snapshot = sealed(seen, mark, snapshot, &observed.snapshots).map(|by| {
            let way = observed
                .storage
                .map_or(by, |storage| Seal::choose(*strategy, storage));
            seal(seen, snapshot, by, way, previous, now)
        });
    }
    status.gpus = gpus(present, seen, observed.guest.known(), previous);
    status.vllm = vllm(present, seen, observed, previous, now);
}

/// The task that a step started, the one that runs, or the creation whose success is not durably marked yet.
fn task(
    previous: &LxcStatus,
    observed: &Observed,
    receipt: Option<&Receipt>,
) -> Option<TaskStatus> {
    if let Some(started) = receipt.and_then(|r| r.task.as_ref()) {
        return Some(TaskStatus {
            upid: started.upid.clone(),
            type_: started.kind.clone(),
            started_at: Some(Time(started.at)),
            progress: None,
        });
    }
    let seen = observed.task.as_ref()?;
    let unmarked =
        observed.half_made && matches!(seen.state, TaskState::Ok | TaskState::Warnings(_));
    // without a look nothing is known about the effect, so the task stays until there is one
    let unlooked = observed.look.is_none();
    let awaited = observed.asked_ha().is_some();
    if seen.state == TaskState::Running || unmarked || unlooked || awaited {
        previous.task.clone()
    } else {
        None
    }
}

fn source(present: &Present) -> SourceStatus {
    match &present.source {
        Source::OsTemplate(volume) => SourceStatus {
            template: Some(volume.clone()),
            snapshot: None,
            revision: None,
        },
        Source::Template(t) => SourceStatus {
            template: Some(t.name.clone()),
            snapshot: Some(t.snapshot.clone()),
            revision: Some(t.revision.clone()),
        },
    }
}

fn seal(
    seen: &Seen,
    name: &str,
    by: Seal,
    way: Seal,
    previous: &LxcStatus,
    now: Timestamp,
) -> SnapshotStatus {
    let volume = seen.config.rootfs().map(|r| r.volid);
    let dataset = volume
        .as_ref()
        .and_then(|v| v.rsplit(['/', ':']).next())
        .unwrap_or_default();
    let zfs = match by {
        Seal::Snapshot => format!("{dataset}@{name}"),
        _ => format!("{dataset}@__base__"),
    };
    let strategy = if by == Seal::Snapshot {
        by.strategy()
    } else {
        way.strategy()
    };
    let created_at = previous
        .snapshot
        .as_ref()
        .and_then(|s| s.created_at.clone())
        .unwrap_or_else(|| Time(whole_seconds(now)));
    SnapshotStatus {
        name: Some(name.to_owned()),
        strategy: Some(strategy.to_string()),
        volume,
        zfs_snapshot: Some(zfs),
        created_at: Some(created_at),
    }
}

fn setup(run: &SetupState) -> SetupStatus {
    let time = |seconds: i64| Timestamp::from_second(seconds).ok().map(Time);
    let exit_code = match run.phase {
        SetupPhase::Exited { code } | SetupPhase::VerifyFailed { code } => Some(i64::from(code)),
        SetupPhase::Verified => Some(0),
        SetupPhase::TimedOut => Some(124),
        SetupPhase::Running | SetupPhase::Verifying | SetupPhase::Lost => None,
    };
    SetupStatus {
        attempt: Some(i64::from(run.attempt)),
        started_at: time(run.started_at),
        finished_at: run.finished_at.and_then(time),
        exit_code,
        last_lines: (!run.tail.is_empty()).then(|| run.tail.clone()),
    }
}

/// What is in effect, inherited or defaulted or asked for, as the config has it.
fn resolved(config: &CtConfig) -> Resolved {
    let number = |key: &str| config.get(key).and_then(|v| v.parse::<i64>().ok());
    let mebibytes = |key: &str| {
        config
            .get(key)
            .and_then(|v| v.parse::<u64>().ok())
            .map(Quantity::from_mebibytes)
    };
    let words = |key: &str| -> Vec<String> {
        config
            .get(key)
            .map(|v| {
                v.split([' ', ','])
                    .filter(|w| !w.is_empty())
                    .map(str::to_owned)
                    .collect()
            })
            .unwrap_or_default()
    };
    let dns = Dns {
        nameservers: words("nameserver"),
        search_domain: config.get("searchdomain").map(str::to_owned),
    };
    Resolved {
        hostname: config.hostname().map(str::to_owned),
        resources: Some(Resources {
            cores: number("cores"),
            cpu_limit: config.get("cpulimit").and_then(|v| v.parse().ok()),
            cpu_units: number("cpuunits"),
            memory: mebibytes("memory"),
            swap: mebibytes("swap"),
        }),
        rootfs: config.rootfs().map(|r| Rootfs {
            storage: Some(r.storage),
            size: r.size_gib.map(Quantity::from_gibibytes),
        }),
        network: config.nets().values().filter_map(network).collect(),
        dns: (dns != Dns::default()).then_some(dns),
        features: Some(features(&config.features())).filter(|f| *f != Features::default()),
        unprivileged: Some(config.unprivileged()),
    }
}

fn network(net: &PropertyString) -> Option<NetworkInterface> {
    let text = |key: &str| net.get(key).map(str::to_owned);
    Some(NetworkInterface {
        name: text("name")?,
        bridge: text("bridge"),
        address: text("ip"),
        gateway: text("gw"),
        address6: text("ip6"),
        gateway6: text("gw6"),
        hwaddr: text("hwaddr"),
        vlan: net.get("tag").and_then(|v| v.parse().ok()),
        mtu: net.get("mtu").and_then(|v| v.parse().ok()),
        rate: net.get("rate").and_then(|v| v.parse().ok()),
        firewall: net.get("firewall").map(|v| v == "1"),
    })
}

fn features(features: &PropertyString) -> Features {
    let on = |key: &str| features.get(key).map(|v| v == "1");
    Features {
        nesting: on("nesting"),
        keyctl: on("keyctl"),
        fuse: on("fuse"),
        mknod: on("mknod"),
        mount: features
            .get("mount")
            .map(|m| m.split(';').map(str::to_owned).collect())
            .unwrap_or_default(),
        force_rw_sys: on("force_rw_sys"),
    }
}

/// The GPUs that the container has by its config, with what the guest told of each.
fn gpus(
    present: &Present,
    seen: &Seen,
    facts: Option<&GuestFacts>,
    previous: &LxcStatus,
) -> Vec<GpuStatus> {
    let given: Vec<u32> = seen
        .config
        .devices()
        .values()
        .filter_map(|d| d.get("path")?.strip_prefix("/dev/nvidia")?.parse().ok())
        .collect();
    let held: Vec<u32> = present
        .gpus
        .iter()
        .copied()
        .filter(|g| given.contains(g))
        .collect();
    let facts = facts.map(|f| f.gpus.as_slice()).unwrap_or_default();
    // where the driver hides its minors, the order of the list is the order of the devices
    let ordered = facts.iter().all(|g| g.minor.is_none()) && facts.len() == held.len();
    let known: BTreeMap<i64, &GpuStatus> = previous.gpus.iter().map(|g| (g.index, g)).collect();
    let mut list: Vec<GpuStatus> = held
        .iter()
        .enumerate()
        .map(|(place, minor)| {
            let index = i64::from(*minor);
            let fact = facts
                .iter()
                .find(|g| g.minor == Some(*minor))
                .or_else(|| facts.get(place).filter(|_| ordered));
            match (fact, known.get(&index)) {
                (Some(fact), _) => GpuStatus {
                    index,
                    uuid: Some(fact.uuid.clone()),
                    name: Some(fact.name.clone()),
                    memory: Some(Quantity::from_mebibytes(fact.memory_mib)),
                    driver_version: Some(fact.driver_version.clone()),
                    sharing: Some("Shared".to_owned()),
                },
                (None, Some(before)) => (*before).clone(),
                (None, None) => GpuStatus {
                    index,
                    sharing: Some("Shared".to_owned()),
                    ..GpuStatus::default()
                },
            }
        })
        .collect();
    list.sort_by_key(|g| g.index);
    list
}

fn vllm(
    present: &Present,
    seen: &Seen,
    observed: &Observed,
    previous: &LxcStatus,
    now: Timestamp,
) -> Option<VllmStatus> {
    let Role::Container {
        vllm: Some(files),
        probe: Some(ProbeSpec::Vllm { port, .. }),
        ..
    } = &present.role
    else {
        return None;
    };
    let before = previous.vllm.clone().unwrap_or_default();
    let unit = observed.guest.known().and_then(|f| f.vllm.as_ref());
    let endpoint = seen.addresses.first().map(|a| {
        if a.contains(':') {
            format!("http://[{a}]:{port}/v1")
        } else {
            format!("http://{a}:{port}/v1")
        }
    });
    let args_hash = unit
        .map(|u| u.args_hash.clone())
        .or_else(|| observed.reported.args_hash.clone());
    let current = args_hash.as_ref() == Some(&files.args_hash);
    let mut status = VllmStatus {
        endpoint,
        args_hash,
        ..VllmStatus::default()
    };
    match observed.probe.as_ref().and_then(|p| p.vllm.as_ref()) {
        Some(VllmProbe::Serving { models, version }) if current => {
            status.state = Some("Serving".to_owned());
            status.models.clone_from(models);
            status.version.clone_from(version);
            status.ready_since = before
                .ready_since
                .or_else(|| Some(Time(whole_seconds(now))));
        }
        _ => status.state = Some(if current { "NotServing" } else { "Installing" }.to_owned()),
    }
    Some(status)
}

/// One word for a column.
fn state(
    deleting: bool,
    status: &LxcStatus,
    previous: &LxcStatus,
    observed: Option<&Observed>,
) -> State {
    let truth = |kind: C| status.conditions.iter().find(|c| c.type_ == kind.as_str());
    if deleting {
        return State::Deleting;
    }
    if truth(C::Stalled).is_some() {
        return State::Failed;
    }
    let unmet = |kind: C| truth(kind).is_some_and(|c| c.status != "True");
    if unmet(C::HypervisorReady) {
        return previous
            .state
            .filter(|s| *s != State::Failed)
            .unwrap_or(State::Pending);
    }
    let words = [
        (C::SourceReady, State::Pending),
        (C::Created, State::Creating),
        (C::PowerInSync, State::Starting),
        (C::SetupComplete, State::SettingUp),
        (C::Sealed, State::Sealing),
    ];
    // one that is locked for a backup was created long ago
    let made = observed.and_then(Observed::mark).is_some_and(|m| m.created);
    if let Some((_, word)) = words
        .iter()
        .find(|(kind, _)| unmet(*kind) && !(made && *kind == C::Created))
    {
        return *word;
    }
    if truth(C::ConfigInSync)
        .is_some_and(|c| c.status != "True" && c.reason != Reason::RestartRequired.as_str())
    {
        return State::Configuring;
    }
    if truth(C::Sealed).is_some() {
        return State::Sealed;
    }
    match observed.and_then(Observed::seen) {
        Some(seen) if seen.running() => State::Running,
        Some(_) => State::Stopped,
        None => previous.state.unwrap_or(State::Pending),
    }
}

/// The strings that columns print.
fn display(status: &LxcStatus, desired: Option<&Desired>) -> LxcDisplay {
    let source = status
        .source
        .as_ref()
        .and_then(|s| s.template.clone())
        .map(|t| short_source(&t));
    let gpus: Vec<String> = status.gpus.iter().map(|g| g.index.to_string()).collect();
    let vllm = desired.and_then(|d| match &d.goal {
        Goal::Present(p) => match &p.role {
            Role::Container {
                probe: Some(ProbeSpec::Vllm { port, model, .. }),
                ..
            } => Some(format!("{model} ({port})")),
            _ => None,
        },
        Goal::Absent(_) => None,
    });
    let before = status.display.as_ref();
    LxcDisplay {
        source: source.or_else(|| before.and_then(|d| d.source.clone())),
        gpus: (!gpus.is_empty()).then(|| gpus.join(",")),
        vllm: vllm.or_else(|| before.and_then(|d| d.vllm.clone())),
    }
}

/// `local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst` is `ubuntu-24.04`; a template's name is itself.
fn short_source(source: &str) -> String {
    let Some((_, file)) = source.rsplit_once('/') else {
        return source.to_owned();
    };
    let stem = file.split('_').next().unwrap_or(file);
    for variant in ["-standard", "-default", "-turnkey"] {
        if let Some(name) = stem.strip_suffix(variant) {
            return name.to_owned();
        }
    }
    stem.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_shown_as_people_call_it() {
        let rows = [
            (
                "local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst",
                "ubuntu-24.04",
            ),
            (
                "local:vztmpl/alpine-3.22-default_20250617_amd64.tar.xz",
                "alpine-3.22",
            ),
            ("base-template", "base-template"),
        ];
        for (source, shown) in rows {
            assert_eq!(short_source(source), shown);
        }
    }
}
