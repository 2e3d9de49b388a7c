//! The metrics: one field and one method each.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabelSet, prometheus_text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets_range};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use proxmox_client::CallObserver;

use crate::probe::VllmFigures;

/// All metrics of the operator, with names that begin with `phoenix_`. Not global: a test or a second operator in the same
/// process has its own.
pub struct Metrics {
    registry: Registry,
    reconciles: Family<Reconcile, Counter>,
    reconcile_seconds: Family<Reconcile, Histogram, fn() -> Histogram>,
    steps: Family<Step, Counter>,
    bugs: Family<Kind, Counter>,
    objects: Family<Objects, Gauge>,
    requests: Family<Request, Counter>,
    request_seconds: Family<Endpoint, Histogram, fn() -> Histogram>,
    tasks: Family<Task, Counter>,
    queue_length: Family<Hypervisor, Gauge>,
    poll_age: Family<Hypervisor, Gauge<f64, AtomicU64>>,
    /// When each hypervisor's data was fresh: the age is computed when asked for, or a poller that hangs would look well.
    polled: Mutex<HashMap<String, Instant>>,
    gpus: Family<Hypervisor, Gauge>,
    gpus_allocated: Family<Hypervisor, Gauge>,
    vllm_ready: Family<Container, Gauge>,
    vllm_running: Family<Served, Gauge>,
    vllm_waiting: Family<Served, Gauge>,
    vllm_prompt_tokens: Family<Served, Counter>,
    vllm_generation_tokens: Family<Served, Counter>,
    leader: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reconcile {
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Step {
    kind: &'static str,
    step: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Objects {
    kind: &'static str,
    state: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Endpoint {
    endpoint: &'static str,
    method: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    endpoint: &'static str,
    method: &'static str,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Task {
    r#type: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Hypervisor {
    hypervisor: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Container {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Served {
    namespace: String,
    name: String,
    model: String,
}

impl Hypervisor {
    fn named(hypervisor: &str) -> Self {
        Self {
            hypervisor: hypervisor.to_owned(),
        }
    }
}

impl Container {
    fn named(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// From a pass that finds nothing to do to one that runs into its deadline.
fn reconcile_buckets() -> Histogram {
    Histogram::new(exponential_buckets_range(0.001, 60.0, 12))
}

/// From a node's answer out of memory to a call that waits for Proxmox's locks.
fn request_buckets() -> Histogram {
    Histogram::new(exponential_buckets_range(0.005, 60.0, 12))
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Metrics that count from nothing.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("phoenix"),
            reconciles: Family::default(),
            reconcile_seconds: Family::new_with_constructor(reconcile_buckets),
            steps: Family::default(),
            bugs: Family::default(),
            objects: Family::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(request_buckets),
            tasks: Family::default(),
            queue_length: Family::default(),
            poll_age: Family::default(),
            polled: Mutex::default(),
            gpus: Family::default(),
            gpus_allocated: Family::default(),
            vllm_ready: Family::default(),
            vllm_running: Family::default(),
            vllm_waiting: Family::default(),
            vllm_prompt_tokens: Family::default(),
            vllm_generation_tokens: Family::default(),
            leader: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register(
            "build",
            "The version that runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        r.register(
            "reconciles",
            "Passes over an object by kind and result",
            self.reconciles.clone(),
        );
        r.register_with_unit(
            "reconcile_duration",
            "How long passes took",
            Unit::Seconds,
            self.reconcile_seconds.clone(),
        );
        r.register(
            "steps",
            "Changes made to Proxmox or a guest by kind of object and step",
            self.steps.clone(),
        );
        r.register(
            "bugs",
            "Faults of the operator itself (panics, impossible states); should stay 0",
            self.bugs.clone(),
        );
        r.register("objects", "Objects by kind and state", self.objects.clone());
        r.register(
            "proxmox_requests",
            "Calls to Proxmox by endpoint, method and HTTP status; code 0 had no answer",
            self.requests.clone(),
        );
        r.register_with_unit(
            "proxmox_request_duration",
            "How long calls to Proxmox took",
            Unit::Seconds,
            self.request_seconds.clone(),
        );
        r.register(
            "tasks",
            "Finished Proxmox tasks by type and outcome",
            self.tasks.clone(),
        );
        r.register(
            "queue_length",
            "Objects that wait for their turn at a hypervisor",
            self.queue_length.clone(),
        );
        r.register_with_unit(
            "poll_age",
            "The age of what is known of a hypervisor's containers",
            Unit::Seconds,
            self.poll_age.clone(),
        );
        r.register("gpus", "GPUs of a hypervisor", self.gpus.clone());
        r.register(
            "gpus_allocated",
            "GPUs of a hypervisor that containers use",
            self.gpus_allocated.clone(),
        );
        r.register(
            "vllm_ready",
            "Whether a container's vLLM serves its model (1) or not (0)",
            self.vllm_ready.clone(),
        );
        r.register(
            "vllm_requests_running",
            "Requests that a container's vLLM works on",
            self.vllm_running.clone(),
        );
        r.register(
            "vllm_requests_waiting",
            "Requests that wait in a container's vLLM",
            self.vllm_waiting.clone(),
        );
        r.register(
            "vllm_prompt_tokens",
            "Tokens of all prompts that a container's vLLM has read; begins anew with each engine",
            self.vllm_prompt_tokens.clone(),
        );
        r.register(
            "vllm_generation_tokens",
            "Tokens that a container's vLLM has generated; begins anew with each engine",
            self.vllm_generation_tokens.clone(),
        );
        r.register(
            "leader",
            "Whether this replica leads (1) or stands by (0)",
            self.leader.clone(),
        );
    }

    /// A pass over an object of `kind` ended.
    pub fn reconcile(&self, kind: &'static str, result: &'static str, took: Duration) {
        let labels = Reconcile { kind, result };
        self.reconciles.get_or_create(&labels).inc();
        self.reconcile_seconds
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// A step of a plan was carried out.
    pub fn step(&self, kind: &'static str, step: &'static str) {
        self.steps.get_or_create(&Step { kind, step }).inc();
    }

    /// A fault of our own came to light.
    pub fn bug(&self, kind: &'static str) {
        self.bugs.get_or_create(&Kind { kind }).inc();
    }

    /// How many objects of `kind` are in `state` (one of the kind's few states). A state that nothing is in any more has to
    /// be reported as 0.
    pub fn objects(&self, kind: &'static str, state: &str, n: usize) {
        let labels = Objects {
            kind,
            state: state.to_owned(),
        };
        self.objects.get_or_create(&labels).set(gauge(n));
    }

    /// A call to Proxmox ended. `endpoint` is the template of the path, never one with VMIDs in it; `code` 0 means no answer.
    pub fn proxmox_call(
        &self,
        endpoint: &'static str,
        method: &'static str,
        code: u16,
        took: Duration,
    ) {
        let request = Request {
            endpoint,
            method,
            code,
        };
        self.requests.get_or_create(&request).inc();
        self.request_seconds
            .get_or_create(&Endpoint { endpoint, method })
            .observe(took.as_secs_f64());
    }

    /// A Proxmox task ended. `task_type` is the one in its UPID, of which Proxmox has a fixed list.
    pub fn task(&self, task_type: &str, outcome: &'static str) {
        let labels = Task {
            r#type: task_type.to_owned(),
            outcome,
        };
        self.tasks.get_or_create(&labels).inc();
    }

    /// How many objects wait for their turn at a hypervisor.
    pub fn queue_length(&self, hypervisor: &str, n: usize) {
        self.queue_length
            .get_or_create(&Hypervisor::named(hypervisor))
            .set(gauge(n));
    }

    /// What is known of a hypervisor is `seconds` old at this moment. The exported age goes on growing by itself until the
    /// next report. What cannot be an age is taken for none.
    pub fn poll_age(&self, hypervisor: &str, seconds: f64) {
        let age = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let now = Instant::now();
        self.polled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(hypervisor.to_owned(), now.checked_sub(age).unwrap_or(now));
    }

    /// How many GPUs a hypervisor has, and how many of them are given to containers.
    pub fn gpus(&self, hypervisor: &str, allocated: usize, total: usize) {
        let labels = Hypervisor::named(hypervisor);
        self.gpus.get_or_create(&labels).set(gauge(total));
        self.gpus_allocated
            .get_or_create(&labels)
            .set(gauge(allocated));
    }

    /// Takes all series of a hypervisor away, when it has been deleted.
    pub fn hypervisor_gone(&self, hypervisor: &str) {
        let labels = Hypervisor::named(hypervisor);
        self.polled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(hypervisor);
        self.queue_length.remove(&labels);
        self.poll_age.remove(&labels);
        self.gpus.remove(&labels);
        self.gpus_allocated.remove(&labels);
    }

    /// Whether a container's vLLM serves its model.
    pub fn vllm_ready(&self, namespace: &str, name: &str, ready: bool) {
        self.vllm_ready
            .get_or_create(&Container::named(namespace, name))
            .set(i64::from(ready));
    }

    /// How busy a container's vLLM is, by its own account.
    pub fn vllm_busy(&self, namespace: &str, name: &str, model: &str, figures: &VllmFigures) {
        let labels = Served {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            model: model.to_owned(),
        };
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.vllm_running
            .get_or_create(&labels)
            .set(count(figures.running));
        self.vllm_waiting
            .get_or_create(&labels)
            .set(count(figures.waiting));
        // the server counts, and Prometheus takes a smaller number for a counter that began anew
        let mirror = |counter: &Family<Served, Counter>, n: u64| {
            counter
                .get_or_create(&labels)
                .inner()
                .store(n, Ordering::Relaxed);
        };
        mirror(&self.vllm_prompt_tokens, figures.prompt_tokens);
        mirror(&self.vllm_generation_tokens, figures.generation_tokens);
    }

    /// It isn't known any more how busy a container's vLLM is: a figure that stands still would look like one.
    pub fn vllm_idle(&self, namespace: &str, name: &str, model: &str) {
        let labels = Served {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            model: model.to_owned(),
        };
        self.vllm_running.remove(&labels);
        self.vllm_waiting.remove(&labels);
        self.vllm_prompt_tokens.remove(&labels);
        self.vllm_generation_tokens.remove(&labels);
    }

    /// Takes the series of a container's vLLM away that tells whether it serves: it is deleted, or serves no model any more.
    pub fn vllm_gone(&self, namespace: &str, name: &str) {
        self.vllm_ready.remove(&Container::named(namespace, name));
    }

    /// Whether this replica leads. Ask at the moment of the scrape: leadership can end with time alone.
    pub fn leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// All of it in Prometheus' text format, version 0.0.4, which every scraper reads.
    pub fn encode(&self) -> String {
        for (hypervisor, polled) in &*self.polled.lock().unwrap_or_else(PoisonError::into_inner) {
            self.poll_age
                .get_or_create(&Hypervisor::named(hypervisor))
                .set(polled.elapsed().as_secs_f64());
        }
        let mut text = String::new();
        if let Err(error) = prometheus_text::encode(&mut text, &self.registry) {
            // A String takes whatever is written, so that only an encoder of the library could fail.
            tracing::error!(%error, "the metrics cannot be encoded");
        }
        text
    }
}

impl CallObserver for Metrics {
    fn call(&self, endpoint_template: &'static str, method: &'static str, code: u16, seconds: f64) {
        let took = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        self.proxmox_call(endpoint_template, method, code, took);
    }
}

fn gauge(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
