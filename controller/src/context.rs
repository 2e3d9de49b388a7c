//! What every pass has at hand; passed in, no globals.

use std::sync::Arc;

use kube::{
    Client, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        events::Recorder,
        reflector::{ObjectRef, Store},
    },
};
use phoenix_crds::{
    Hypervisor, LxcContainer, LxcTemplate,
    conditions::{ConditionType, Reason},
};
use tokio::sync::watch;

use crate::{
    digest_key::DigestKey,
    engine::{Backoffs, Kind, Latest},
    fleet::Fleet,
    lease::Leadership,
    memory::Memory,
    prober::Prober,
    service::Published,
    sessions::Sessions,
    settings::Settings,
    telemetry::Metrics,
    wake::{KindName, ObjectKey, Wakes},
};

/// The caches of our kinds, filled by their watches.
#[derive(Clone)]
pub struct Stores {
    /// All hypervisors that this operator works for.
    pub hypervisors: Store<DeserializeGuard<Hypervisor>>,
    /// All templates.
    pub templates: Store<DeserializeGuard<LxcTemplate>>,
    /// All containers.
    pub containers: Store<DeserializeGuard<LxcContainer>>,
}

impl Stores {
    /// A hypervisor by name.
    pub fn hypervisor(&self, name: &str) -> Option<Hypervisor> {
        self.hypervisors
            .get(&ObjectRef::new(name))
            .and_then(|g| g.0.as_ref().ok().cloned())
    }

    /// All hypervisors that decode.
    pub fn all_hypervisors(&self) -> Vec<Hypervisor> {
        self.hypervisors
            .state()
            .iter()
            .filter_map(|g| g.0.as_ref().ok().cloned())
            .collect()
    }

    /// A template by namespace and name.
    pub fn template(&self, namespace: &str, name: &str) -> Option<LxcTemplate> {
        self.templates
            .get(&ObjectRef::new(name).within(namespace))
            .and_then(|g| g.0.as_ref().ok().cloned())
    }

    /// All templates that decode.
    pub fn all_templates(&self) -> Vec<LxcTemplate> {
        self.templates
            .state()
            .iter()
            .filter_map(|g| g.0.as_ref().ok().cloned())
            .collect()
    }

    /// All containers that decode.
    pub fn all_containers(&self) -> Vec<LxcContainer> {
        self.containers
            .state()
            .iter()
            .filter_map(|g| g.0.as_ref().ok().cloned())
            .collect()
    }
}

/// Which caches have been filled once: on half of what there is nothing can be judged.
///
/// Not `Store::wait_until_ready`: of several that wait for one store only the last is woken, and kube's own controller waits, too.
#[derive(Debug)]
pub(crate) struct Filled(watch::Sender<u8>);

impl Default for Filled {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Filled {
    fn bit(kind: KindName) -> u8 {
        match kind {
            KindName::Hypervisor => 1,
            KindName::LxcTemplate => 2,
            KindName::LxcContainer => 4,
        }
    }

    /// The cache of a kind holds all that there is.
    pub(crate) fn mark(&self, kind: KindName) {
        self.0.send_modify(|filled| *filled |= Self::bit(kind));
    }

    /// Waits for all.
    pub(crate) async fn all(&self) {
        // the sending end lives as long as we do
        let _ = self.0.subscribe().wait_for(|filled| *filled == 7).await;
    }
}

/// What every pass has at hand.
pub struct Context {
    /// Kubernetes.
    pub kube: Client,
    /// Flags and environment.
    pub settings: Settings,
    /// Namespace that the operator runs in: credentials are read there and nowhere else.
    pub namespace: String,
    /// Uid of namespace kube-system: who we are in ownership marks unless the hypervisor says otherwise.
    pub instance: String,
    /// Caches.
    pub stores: Stores,
    /// Proxmox.
    pub fleet: Fleet,
    /// Guests.
    pub sessions: Arc<Sessions>,
    /// Probes.
    pub prober: Arc<Prober>,
    /// Whether we may change anything.
    pub leadership: Leadership,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// Events; one per process, since it holds the aggregation.
    pub recorder: Recorder,
    /// Wakes.
    pub wakes: Wakes,
    /// Back-offs.
    pub backoffs: Backoffs,
    /// Failures counted.
    pub memory: Memory,
    /// Whose turn it is to take GPUs.
    pub(crate) gpu_turn: tokio::sync::Mutex<()>,
    /// What values of Secrets are hashed by.
    pub digest_key: DigestKey,
    /// Our own last writes.
    pub(crate) latest_writes: Latest,
    /// Caches that have been filled.
    pub(crate) filled: Filled,
    /// The Services and EndpointSlices of containers.
    pub(crate) published: Published,
}

impl Context {
    /// The newer of the watch's object and what we wrote last.
    pub(crate) fn latest<K: Kind>(&self, watched: &K) -> Arc<K> {
        self.latest_writes.newer(watched)
    }

    /// An object is gone: all that is remembered of it goes too.
    pub(crate) fn forget(&self, uid: &str, key: &ObjectKey, hypervisor: Option<&str>) {
        self.memory.forget(uid);
        self.sessions.forget(uid);
        self.prober.forget(uid);
        self.backoffs.reset(uid);
        self.latest_writes.forget(uid);
        self.metrics.vllm_gone(&key.namespace, &key.name);
        if let Some(cluster) = hypervisor.and_then(|name| self.fleet.get(name)) {
            cluster.forget(key);
        }
    }

    /// Brings the gauges that are read off the caches up to date.
    pub(crate) fn gauge(&self) {
        use phoenix_crds::{lxc::Lxc as _, status::State};
        const STATES: [State; 11] = [
            State::Pending,
            State::Creating,
            State::Configuring,
            State::Starting,
            State::SettingUp,
            State::Sealing,
            State::Sealed,
            State::Running,
            State::Stopped,
            State::Deleting,
            State::Failed,
        ];
        let (templates, containers) = (self.stores.all_templates(), self.stores.all_containers());
        let count = |states: &[Option<State>], state: State| {
            states
                .iter()
                .filter(|s| s.unwrap_or(State::Pending) == state)
                .count()
        };
        let of_templates: Vec<_> = templates
            .iter()
            .map(|t| t.status_shared().and_then(|s| s.state))
            .collect();
        let of_containers: Vec<_> = containers
            .iter()
            .map(|c| c.status_shared().and_then(|s| s.state))
            .collect();
        for state in STATES {
            self.metrics
                .objects("LxcTemplate", state.into(), count(&of_templates, state));
            self.metrics
                .objects("LxcContainer", state.into(), count(&of_containers, state));
        }
        for h in self.stores.all_hypervisors() {
            let gpus = h
                .status
                .as_ref()
                .map(|s| s.gpus.as_slice())
                .unwrap_or_default();
            self.metrics.gpus(
                &h.name_any(),
                gpus.iter().filter(|g| !g.held_by.is_empty()).count(),
                gpus.len(),
            );
        }
        for c in containers.iter().filter(|c| c.spec.vllm.is_some()) {
            let ready = c
                .status
                .as_ref()
                .and_then(|s| s.vllm.as_ref())
                .is_some_and(|v| v.state.as_deref() == Some("Serving"));
            self.metrics
                .vllm_ready(&c.namespace().unwrap_or_default(), &c.name_any(), ready);
        }
        self.metrics.leader(self.leadership.is_leader());
    }

    /// Wakes every object of ours that fits.
    pub(crate) fn wake_users_of(&self, hypervisor: &str) {
        let uses = |named: Option<&str>| named.is_none_or(|n| n == hypervisor);
        for t in self.stores.all_templates() {
            if uses(crate::lxc::hypervisor_of(&t).as_deref()) {
                self.wakes.wake(&crate::engine::key_of(&t));
            }
        }
        for c in self.stores.all_containers() {
            if uses(crate::lxc::hypervisor_of(&c).as_deref()) {
                self.wakes.wake(&crate::engine::key_of(&c));
            }
        }
    }

    /// Somebody may have let go of a GPU: wakes those of the hypervisor that wait for one, who asked first first.
    pub(crate) fn wake_waiting_for_gpus(&self, hypervisor: &str) {
        let templates = self.stores.all_templates();
        let containers = self.stores.all_containers();
        let mut waiting: Vec<_> = templates
            .iter()
            .filter(|t| waits_for_gpu(*t, hypervisor))
            .map(|t| (t.creation_timestamp(), crate::engine::key_of(t)))
            .chain(
                containers
                    .iter()
                    .filter(|c| waits_for_gpu(*c, hypervisor))
                    .map(|c| (c.creation_timestamp(), crate::engine::key_of(c))),
            )
            .collect();
        waiting.sort();
        for (_, key) in &waiting {
            self.wakes.wake(key);
        }
    }

    /// Wakes the objects whose source is this template, those first that others wait for in turn: clones of one source are made one after
    /// the other, and the longest chain should not stand behind a short one.
    pub(crate) fn wake_clones_of(&self, namespace: &str, template: &str) {
        let templates = self.stores.all_templates();
        let containers = self.stores.all_containers();
        let sources: Vec<(ObjectKey, Option<String>)> = templates
            .iter()
            .map(|t| {
                (
                    crate::engine::key_of(t),
                    crate::lxc::template_of(t).map(str::to_owned),
                )
            })
            .chain(containers.iter().map(|c| {
                (
                    crate::engine::key_of(c),
                    crate::lxc::template_of(c).map(str::to_owned),
                )
            }))
            .filter(|(key, _)| key.namespace == namespace)
            .collect();
        let mut clones: Vec<&ObjectKey> = sources
            .iter()
            .filter(|(_, source)| source.as_deref() == Some(template))
            .map(|(key, _)| key)
            .collect();
        clones.sort_by_key(|key| std::cmp::Reverse(chain_below(key, &sources, CHAIN_LIMIT)));
        for key in clones {
            self.wakes.wake(key);
        }
    }
}

/// It waits for a GPU of this hypervisor that others hold.
fn waits_for_gpu<K: phoenix_crds::lxc::Lxc>(object: &K, hypervisor: &str) -> bool {
    let reasons = [Reason::Conflict, Reason::NoFreeGpu].map(Reason::as_str);
    object.status_shared().is_some_and(|s| {
        s.hypervisor.as_deref() == Some(hypervisor)
            && s.conditions.iter().any(|c| {
                c.type_ == ConditionType::GpuAllocated.as_str()
                    && reasons.contains(&c.reason.as_str())
            })
    })
}

/// No hierarchy is deeper; a circle of sources, which nothing refuses, ends here.
const CHAIN_LIMIT: usize = 16;

/// How many generations of clones wait below an object.
fn chain_below(key: &ObjectKey, sources: &[(ObjectKey, Option<String>)], limit: usize) -> usize {
    if key.kind != KindName::LxcTemplate || limit == 0 {
        return 0;
    }
    let children = sources
        .iter()
        .filter(|(_, source)| source.as_ref() == Some(&key.name));
    children
        .map(|(child, _)| 1 + chain_below(child, sources, limit - 1))
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_chain_is_told_and_a_circle_ends() {
        let key = |kind, name: &str| ObjectKey {
            kind,
            namespace: "default".into(),
            name: name.into(),
        };
        let row = |kind, name: &str, source: &str| (key(kind, name), Some(source.to_owned()));
        let sources = [
            row(KindName::LxcTemplate, "gpu", "base"),
            row(KindName::LxcTemplate, "docker", "base"),
            row(KindName::LxcTemplate, "vllm", "gpu"),
            row(KindName::LxcContainer, "qwen3", "vllm"),
            row(KindName::LxcContainer, "portainer", "docker"),
            row(KindName::LxcTemplate, "egg", "hen"),
            row(KindName::LxcTemplate, "hen", "egg"),
        ];
        let below =
            |name: &str| chain_below(&key(KindName::LxcTemplate, name), &sources, CHAIN_LIMIT);
        assert_eq!((below("gpu"), below("docker"), below("vllm")), (2, 1, 1));
        assert_eq!(below("egg"), CHAIN_LIMIT);
    }
}
