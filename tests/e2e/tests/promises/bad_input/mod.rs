//! What a user gets wrong ends in the documented condition, with a sentence that says what to do; nothing is touched meanwhile that must
//! not be, and once it is put right the rest goes on by itself.

mod alone;
mod connection;
mod hands;
mod object;

use std::fmt::Debug;

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::Condition};
use kube::api::{Patch, PatchParams};
use phoenix_crds::{
    Hypervisor,
    conditions::{ConditionType as C, Reason},
    lxc::Lxc,
};
use proxmox_simulator::Simulator;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{documented::documented, stage::Stage};

/// Waits until an Lxc object tells of that reason, as documented; the sentence.
async fn told<K>(stage: &Stage, name: &str, kind: C, reason: Reason) -> String
where
    K: Lxc + kube::Resource<Scope = NamespaceResourceScope> + DeserializeOwned + Debug + Serialize,
{
    let object: K = stage
        .until(stage.api(), name, &format!("{kind} {reason}"), |o| {
            has(conditions_of(o), kind, reason)
        })
        .await;
    documented(conditions_of(&object), kind, reason, false)
}

/// As `told`, once the attempts are used up.
async fn told_in_the_end<K>(stage: &Stage, name: &str, kind: C, reason: Reason) -> String
where
    K: Lxc + kube::Resource<Scope = NamespaceResourceScope> + DeserializeOwned + Debug + Serialize,
{
    let ended =
        |o: &K| has(conditions_of(o), kind, reason) && has(conditions_of(o), C::Stalled, reason);
    let object: K = stage
        .until(
            stage.api(),
            name,
            &format!("{kind} {reason} after all attempts"),
            ended,
        )
        .await;
    documented(conditions_of(&object), kind, reason, true)
}

/// Waits until the stage's Hypervisor tells of that reason, as documented; the sentence.
async fn hypervisor_told(stage: &Stage, kind: C, reason: Reason) -> String {
    let conditions = |h: &Hypervisor| {
        h.status
            .as_ref()
            .map(|s| s.conditions.clone())
            .unwrap_or_default()
    };
    let what = format!("{kind} {reason}");
    let hypervisor = stage
        .until(stage.hypervisors(), &stage.name, &what, |h| {
            // what is said before the first answer is another matter
            let asked = |c: &Condition| !c.message.starts_with("Connecting to ");
            has(&conditions(h), kind, reason) && conditions(h).iter().all(asked)
        })
        .await;
    documented(&conditions(&hypervisor), kind, reason, false)
}

/// Waits until the stage's Hypervisor is as it should be.
async fn hypervisor_ready(stage: &Stage) -> Hypervisor {
    let ready = |h: &Hypervisor| {
        h.status.as_ref().is_some_and(|s| {
            s.conditions
                .iter()
                .any(|c| c.type_ == "Ready" && c.status == "True")
        })
    };
    stage
        .until(stage.hypervisors(), &stage.name, "Ready", ready)
        .await
}

/// Changes the stage's Hypervisor.
async fn patch_hypervisor(stage: &Stage, change: Value) {
    let patch = Patch::Merge(change);
    stage
        .hypervisors()
        .patch(&stage.name, &PatchParams::default(), &patch)
        .await
        .expect("a changed Hypervisor");
}

/// `spec.network` with a way out, which whatever enters a guest waits for.
fn network(last: u8) -> Value {
    json!([{"name": "eth0", "bridge": "vmbr0", "address": format!("10.0.0.{last}/24"), "gateway": "10.0.0.1"}])
}

fn conditions_of<K: Lxc>(object: &K) -> &[Condition] {
    object
        .status_shared()
        .map(|s| s.conditions.as_slice())
        .unwrap_or_default()
}

fn has(conditions: &[Condition], kind: C, reason: Reason) -> bool {
    conditions
        .iter()
        .any(|c| c.type_ == kind.as_str() && c.reason == reason.as_str())
}

/// Calls that change something, or try to.
fn changes(simulator: &Simulator) -> Vec<String> {
    let calls = simulator.calls().into_iter().filter(|c| c.method != "GET");
    calls.map(|c| format!("{} {}", c.method, c.path)).collect()
}
