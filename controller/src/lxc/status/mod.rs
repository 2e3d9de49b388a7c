//! Fifth stage, pure: what is reported, computed on success and on failure alike from what the pass yielded.
//!
//! Everything that has not changed comes out as it was stored, so that at rest nothing is written.

mod resolved;
mod words;
mod workload;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use phoenix_crds::{
    LxcStatus,
    conditions::{ConditionType as C, Reason},
    status::{SetupStatus, SnapshotStatus, SourceStatus, SshStatus, TaskStatus},
};
use proxmox_client::TaskState;

use resolved::resolved;
use words::{display, state};
use workload::{gpus, vllm};

use super::{
    LxcKind,
    desired::{Desired, Goal, Present, Role, Source},
    observe::{Observed, host_key},
    plan::{Seal, sealed},
};
use crate::{
    condition::{Finding, Truth, conditions, whole_seconds},
    engine::{Pass, Receipt},
    fleet::{Presence, Seen},
    guest::{SetupPhase, SetupState},
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
                denied_gpus(&pass.findings()),
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
    if !pass.partial() {
        let plan = pass.plan.iter().flat_map(|p| p.ahead.iter());
        status.plan = plan.take(PLAN_LINES).cloned().collect();
    }
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
        .filter(|c| {
            ![C::Paused, C::ServiceReady]
                .map(C::as_str)
                .contains(&c.type_.as_str())
        })
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

/// Others hold its GPUs, by what was found.
fn denied_gpus(findings: &[Finding]) -> bool {
    findings.iter().any(|f| {
        f.condition == C::GpuAllocated && matches!(f.reason, Reason::Conflict | Reason::NoFreeGpu)
    })
}

fn report(
    status: &mut LxcStatus,
    previous: &LxcStatus,
    desired: &Desired,
    observed: &Observed,
    receipt: Option<&Receipt>,
    denied: bool,
    now: Timestamp,
) {
    status.task = task(previous, observed, receipt);
    if observed.look.is_none() && observed.was_created {
        // nothing was looked at: what was known of it stands
        return;
    }
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
        let presence = observed.look.as_ref().map(|look| &look.presence);
        if matches!(presence, Some(Presence::Absent)) {
            // another container will have another key
            status.ssh = None;
        }
        return;
    };
    status.node = Some(seen.node.clone());
    status.addresses.clone_from(&seen.addresses);
    status.resolved = Some(resolved(&seen.config));
    status.ssh = host_key(present, observed)
        .filter(|_| mark.created)
        .map(|fingerprint| SshStatus {
            host_key_fingerprint: Some(fingerprint),
        });
    if let Some(run) = observed
        .guest
        .known()
        .and_then(|f| f.state.as_ref())
        .and_then(|s| s.setup.as_ref())
    {
        status.setup = Some(setup(run));
    }
    if let Role::Template { snapshot, strategy } = &present.role {
        status.snapshot = sealed(observed, snapshot, *strategy).map(|by| {
            let way = observed
                .storage
                .map_or(by, |storage| Seal::choose(*strategy, storage));
            seal(seen, snapshot, by, way, previous, now)
        });
    }
    status.gpus = gpus(
        present,
        seen,
        mark,
        observed.guest.known(),
        denied,
        previous,
    );
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
        Seal::Snapshot => Some(format!("{dataset}@{name}")),
        Seal::Stopped => None,
        Seal::Linked | Seal::Converted => Some(format!("{dataset}@__base__")),
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
        zfs_snapshot: zfs,
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
