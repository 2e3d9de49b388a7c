//! Probes in the background, one loop per container that shall serve: short pauses while it isn't healthy, long ones at rest, and the
//! object woken only when the answer changes. What a probe means is decided by the plan.

use std::{net::IpAddr, sync::Arc, time::Duration};

use phoenix_crds::probe::{Probe, Scheme};
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info};

use crate::{
    by_uid::ByUid,
    hash,
    probe::{HttpProbe, HttpTarget, ProbeClient, VllmFigures, VllmProbe, VllmTarget, VllmWatch},
    telemetry::Metrics,
    wake::{ObjectKey, Wakes},
};

/// How long a loop rests between two looks.
#[derive(Debug, Clone, Copy)]
struct Pauses {
    /// While it isn't healthy.
    starting: Duration,
    /// Once it is.
    at_rest: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            starting: Duration::from_millis(500),
            at_rest: Duration::from_secs(10),
        }
    }
}

/// What to ask, but for the address.
#[derive(Debug, Clone)]
pub enum ProbeSpec {
    /// vLLM's own interface.
    Vllm {
        /// Its port.
        port: u16,
        /// The name that must be served.
        model: String,
        /// Its key.
        api_key: Option<SecretString>,
        /// Hash of the arguments that it shall run with: another engine is asked for a completion anew.
        args_hash: String,
    },
    /// `spec.probe`.
    Http(Probe),
}

impl ProbeSpec {
    fn model(&self) -> &str {
        match self {
            Self::Vllm { model, .. } => model,
            Self::Http(_) => "",
        }
    }
}

/// The last answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProbeView {
    /// Of vLLM.
    pub vllm: Option<VllmProbe>,
    /// Of an HTTP probe.
    pub http: Option<HttpProbe>,
}

impl ProbeView {
    /// No answer has come yet.
    pub fn unasked(&self) -> bool {
        self.vllm.is_none() && self.http.is_none()
    }

    fn healthy(&self) -> bool {
        matches!(self.vllm, Some(VllmProbe::Serving { .. }))
            || matches!(self.http, Some(HttpProbe::Healthy { .. }))
    }
}

#[derive(Debug)]
struct Running {
    key: String,
    view: ProbeView,
    stop: CancellationToken,
    busy: Busy,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// How busy a model server is, as long as it is known: with this its series go.
#[derive(Debug)]
struct Busy {
    metrics: Arc<Metrics>,
    namespace: String,
    name: String,
    model: String,
}

impl Busy {
    fn tell(&self, figures: Option<VllmFigures>) {
        let (namespace, name, model) = (&self.namespace, &self.name, &self.model);
        match figures {
            Some(figures) => self.metrics.vllm_busy(namespace, name, model, &figures),
            None => self.metrics.vllm_idle(namespace, name, model),
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.tell(None);
    }
}

/// The loops, by the object's uid.
#[derive(Debug, Default)]
pub struct Prober {
    by_uid: ByUid<Running>,
    metrics: Arc<Metrics>,
    pauses: Pauses,
}

enum Target {
    Vllm(Box<VllmTarget>),
    Http(HttpTarget),
}

impl Prober {
    /// `metrics` is told how busy model servers are.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            ..Self::default()
        }
    }

    /// Ends the loop of an object.
    pub fn forget(&self, uid: &str) {
        self.by_uid.forget(uid);
    }

    /// Sees to it that exactly this is probed, and tells the last answer.
    pub fn ensure(
        self: &Arc<Self>,
        uid: &str,
        spec: &ProbeSpec,
        address: &str,
        proxy: Option<&str>,
        who: &ObjectKey,
        wakes: &Wakes,
    ) -> ProbeView {
        let key = identity(spec, address, proxy);
        if let Some(running) = self.by_uid.lock().get(uid).filter(|r| r.key == key) {
            return running.view.clone();
        }
        let unreachable = |why: String| match spec {
            ProbeSpec::Vllm { .. } => ProbeView {
                vllm: Some(VllmProbe::Unreachable { why }),
                http: None,
            },
            ProbeSpec::Http(_) => ProbeView {
                vllm: None,
                http: Some(HttpProbe::Unreachable { why }),
            },
        };
        let client = match ProbeClient::new(proxy) {
            Ok(client) => client,
            Err(e) => return unreachable(e.to_string()),
        };
        let Ok(ip) = address.parse::<IpAddr>() else {
            return unreachable(format!("{address} is no address"));
        };
        let stop = CancellationToken::new();
        self.by_uid.lock().insert(
            uid.to_owned(),
            Running {
                key: key.clone(),
                view: ProbeView::default(),
                stop: stop.clone(),
                busy: Busy {
                    metrics: Arc::clone(&self.metrics),
                    namespace: who.namespace.clone(),
                    name: who.name.clone(),
                    model: spec.model().to_owned(),
                },
            },
        );
        let pauses = self.pauses;
        let (prober, uid, who, wakes, target) = (
            Arc::downgrade(self),
            uid.to_owned(),
            who.clone(),
            wakes.clone(),
            target(spec, ip),
        );
        let span = tracing::info_span!("probe", %who);
        let work = async move {
            let mut watch = VllmWatch::default();
            loop {
                let seen = look(&client, &target, &mut watch).await;
                let Some(prober) = prober.upgrade() else {
                    return;
                };
                let pause = if seen.healthy() {
                    pauses.at_rest
                } else {
                    pauses.starting
                };
                if prober.saw(&uid, &key, seen, watch.figures()) {
                    wakes.wake(&who);
                }
                tokio::time::sleep(pause).await;
            }
        };
        tokio::spawn(async move { stop.run_until_cancelled(work).await }.instrument(span));
        ProbeView::default()
    }

    /// Keeps an answer; whether it is news.
    fn saw(&self, uid: &str, key: &str, seen: ProbeView, figures: Option<VllmFigures>) -> bool {
        let mut loops = self.by_uid.lock();
        let Some(running) = loops.get_mut(uid).filter(|r| r.key == key) else {
            return false;
        };
        running.busy.tell(figures);
        if running.view == seen {
            return false;
        }
        if running.view.healthy() == seen.healthy() {
            debug!(?seen, "probe");
        } else {
            info!(healthy = seen.healthy(), ?seen, "probe");
        }
        running.view = seen;
        true
    }
}

/// What makes two probes the same.
fn identity(spec: &ProbeSpec, address: &str, proxy: Option<&str>) -> String {
    let text = match spec {
        ProbeSpec::Vllm {
            port,
            model,
            api_key,
            args_hash,
        } => {
            let key = api_key
                .as_ref()
                .map(SecretString::expose_secret)
                .unwrap_or_default();
            hash::short(&[&port.to_string(), model, key, args_hash])
        }
        ProbeSpec::Http(probe) => format!("{probe:?}"),
    };
    format!("{address} {} {text}", proxy.unwrap_or_default())
}

fn target(spec: &ProbeSpec, address: IpAddr) -> Target {
    match spec {
        ProbeSpec::Vllm {
            port,
            model,
            api_key,
            args_hash,
        } => Target::Vllm(Box::new(VllmTarget {
            address,
            port: *port,
            model: model.clone(),
            api_key: api_key.clone(),
            args_hash: args_hash.clone(),
        })),
        ProbeSpec::Http(probe) => Target::Http(HttpTarget {
            https: probe.scheme() == Scheme::Https,
            address,
            port: u16::try_from(probe.port).unwrap_or_default(),
            path: probe.path().to_owned(),
            expect_status: probe.expect_status(),
            insecure_skip_verify: probe.insecure_skip_verify(),
        }),
    }
}

async fn look(client: &ProbeClient, target: &Target, watch: &mut VllmWatch) -> ProbeView {
    match target {
        Target::Vllm(target) => ProbeView {
            vllm: Some(watch.look(client, target).await),
            http: None,
        },
        Target::Http(target) => ProbeView {
            vllm: None,
            http: Some(client.http(target).await),
        },
    }
}

#[cfg(test)]
mod tests;
