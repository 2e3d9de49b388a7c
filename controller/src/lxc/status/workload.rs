//! What the container is for: its GPUs and its model server.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use phoenix_crds::{
    LxcStatus, Quantity,
    status::{GpuStatus, VllmStatus},
};

use crate::{
    condition::whole_seconds,
    fleet::Seen,
    guest::GuestFacts,
    lxc::{
        authority,
        desired::{Present, Role},
        mark::Mark,
        observe::Observed,
        plan::{gpus_due, with_devices},
    },
    probe::VllmProbe,
    prober::{ProbeSpec, ProbeView},
};

/// The GPUs that the container holds, with what the guest told of each: those that it was given for as long as they are due, and those
/// whose devices it runs with. `denied`: another came before it.
pub(super) fn gpus(
    present: &Present,
    seen: &Seen,
    mark: &Mark,
    facts: Option<&GuestFacts>,
    denied: bool,
    previous: &LxcStatus,
) -> Vec<GpuStatus> {
    let known: BTreeMap<i64, &GpuStatus> = previous.gpus.iter().map(|g| (g.index, g)).collect();
    let given = |gpu: &u32| {
        known
            .get(&i64::from(*gpu))
            .is_some_and(|g| g.sharing.is_some())
    };
    let due = gpus_due(present, mark, seen.running()) && (seen.running() || !denied);
    let mut held: BTreeSet<u32> = present
        .gpus
        .iter()
        .copied()
        .filter(|gpu| due && given(gpu))
        .collect();
    if seen.running() {
        held.extend(with_devices(seen));
    }
    let facts = facts.map(|f| f.gpus.as_slice()).unwrap_or_default();
    // where the driver hides its minors, the order of the list is the order of the devices
    let ordered = facts.iter().all(|g| g.minor.is_none()) && facts.len() == held.len();
    held.iter()
        .enumerate()
        .map(|(place, minor)| {
            let index = i64::from(*minor);
            let before = known.get(&index).copied();
            let fact = facts
                .iter()
                .find(|g| g.minor == Some(*minor))
                .or_else(|| facts.get(place).filter(|_| ordered));
            match (fact, before) {
                (Some(fact), _) => GpuStatus {
                    index,
                    uuid: Some(fact.uuid.clone()),
                    name: Some(fact.name.clone()),
                    memory: Some(Quantity::from_mebibytes(fact.memory_mib)),
                    driver_version: Some(fact.driver_version.clone()),
                    sharing: before.and_then(|g| g.sharing.clone()),
                },
                (None, Some(before)) => before.clone(),
                (None, None) => GpuStatus {
                    index,
                    ..GpuStatus::default()
                },
            }
        })
        .collect()
}

pub(super) fn vllm(
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
    let endpoint = seen
        .addresses
        .first()
        .map(|a| format!("http://{}/v1", authority(a, *port)));
    let args_hash = unit
        .map(|u| u.args_hash.clone())
        .or_else(|| observed.reported.args_hash.clone());
    let current = args_hash.as_ref() == Some(&files.args_hash);
    let mut status = VllmStatus {
        endpoint,
        args_hash,
        ..VllmStatus::default()
    };
    if current
        && observed.reported.answered
        && observed.probe.as_ref().is_some_and(ProbeView::unasked)
    {
        // a prober that has just started has no answer yet
        return Some(VllmStatus {
            endpoint: status.endpoint,
            args_hash: status.args_hash,
            ..before
        });
    }
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
