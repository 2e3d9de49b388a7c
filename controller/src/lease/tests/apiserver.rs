//! An apiserver that knows one Lease and guards its version, reached over links that can be cut.

use std::convert::Infallible;
use std::future;
use std::sync::{Arc, Mutex, MutexGuard};

use http::{Method, Request, Response, StatusCode};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::time::Instant;
use tower::service_fn;

const COLLECTION: &str = "/apis/coordination.k8s.io/v1/namespaces/phoenix-system/leases";
const ITEM: &str =
    "/apis/coordination.k8s.io/v1/namespaces/phoenix-system/leases/phoenix-controller";

/// What a link does to the requests of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    None,
    Refuses,
    Swallows,
    LosesAnswers,
}

/// The way from one client to the apiserver.
#[derive(Clone, Debug)]
pub(super) struct Link(Arc<Mutex<Cut>>);

impl Link {
    pub(super) const WORKS: Cut = Cut::None;
    /// The connection fails at once.
    pub(super) const REFUSES: Cut = Cut::Refuses;
    /// Requests go out and nothing ever comes back; they have had no effect.
    pub(super) const SWALLOWS: Cut = Cut::Swallows;
    /// Requests have their effect, but the answers do not come back.
    pub(super) const LOSES_ANSWERS: Cut = Cut::LosesAnswers;

    pub(super) fn set(&self, cut: Cut) {
        *self.0.lock().unwrap() = cut;
    }

    fn get(&self) -> Cut {
        *self.0.lock().unwrap()
    }
}

impl Default for Link {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Cut::None)))
    }
}

#[derive(Default)]
struct State {
    lease: Option<Lease>,
    version: u64,
    written: Option<Instant>,
}

impl State {
    fn store(&mut self, mut lease: Lease) -> Lease {
        self.version += 1;
        self.written = Some(Instant::now());
        lease.metadata.name = Some("phoenix-controller".to_owned());
        lease.metadata.namespace = Some("phoenix-system".to_owned());
        lease.metadata.resource_version = Some(self.version.to_string());
        self.lease.insert(lease).clone()
    }

    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> Result<Lease, StatusCode> {
        let sent = || serde_json::from_slice::<Lease>(body).expect("a Lease");
        match (method, path) {
            (&Method::GET, ITEM) => self.lease.clone().ok_or(StatusCode::NOT_FOUND),
            (&Method::POST, COLLECTION) if self.lease.is_some() => Err(StatusCode::CONFLICT),
            (&Method::POST, COLLECTION) => Ok(self.store(sent())),
            (&Method::PUT, ITEM) => {
                let known = self.lease.as_ref().ok_or(StatusCode::NOT_FOUND)?;
                let lease = sent();
                let version = lease.metadata.resource_version.as_ref();
                assert!(
                    version.is_some(),
                    "a replace without a version would overwrite anything"
                );
                if version == known.metadata.resource_version.as_ref() {
                    Ok(self.store(lease))
                } else {
                    Err(StatusCode::CONFLICT)
                }
            }
            other => panic!("unexpected request {other:?}"),
        }
    }
}

#[derive(Clone, Default)]
pub(super) struct Apiserver(Arc<Mutex<State>>);

impl Apiserver {
    pub(super) fn client(&self, link: &Link) -> Client {
        let (server, link) = (self.clone(), link.clone());
        let service = service_fn(move |request: Request<Body>| {
            let (server, link) = (server.clone(), link.clone());
            async move {
                match link.get() {
                    Cut::Refuses => {
                        Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))
                    }
                    Cut::Swallows => future::pending().await,
                    Cut::None | Cut::LosesAnswers => {
                        let answer = server
                            .serve(request)
                            .await
                            .unwrap_or_else(|never| match never {});
                        if link.get() == Cut::LosesAnswers {
                            future::pending::<()>().await;
                        }
                        Ok(answer)
                    }
                }
            }
        });
        Client::new(service, "phoenix-system")
    }

    async fn serve(&self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.expect("a body in memory");
        let answer = self.state().answer(&parts.method, parts.uri.path(), &body);
        let (code, json) = match answer {
            Ok(lease) => (StatusCode::OK, serde_json::to_vec(&lease)),
            Err(code) => {
                let reason = match (code, &parts.method) {
                    (StatusCode::NOT_FOUND, _) => "NotFound",
                    (_, &Method::POST) => "AlreadyExists",
                    _ => "Conflict",
                };
                let status = json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "reason": reason, "message": reason, "code": code.as_u16(),
                });
                (code, serde_json::to_vec(&status))
            }
        };
        let mut response = Response::new(Body::from(json.expect("plain data")));
        *response.status_mut() = code;
        Ok(response)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn edit(&self, change: impl FnOnce(&mut Lease)) {
        let mut state = self.state();
        let mut lease = state.lease.clone().unwrap_or_default();
        change(&mut lease);
        state.store(lease);
    }

    pub(super) fn spec(&self) -> LeaseSpec {
        self.state()
            .lease
            .clone()
            .and_then(|lease| lease.spec)
            .expect("a Lease with a spec")
    }

    /// When the Lease was last written to.
    pub(super) fn written(&self) -> Instant {
        self.state().written.expect("written")
    }

    pub(super) fn put_holder(&self, holder: Option<&str>, transitions: i32) {
        self.edit(|lease| {
            let spec = lease.spec.get_or_insert_default();
            spec.holder_identity = holder.map(str::to_owned);
            spec.lease_transitions = Some(transitions);
        });
    }

    /// A foreign holder's renewal, stamped by a clock of its own.
    pub(super) fn renew_at(&self, year: i16, second: i8) {
        let stamp = format!("{year}-01-01T00:00:{second:02}Z")
            .parse()
            .expect("a time");
        self.edit(|lease| lease.spec.get_or_insert_default().renew_time = Some(MicroTime(stamp)));
    }

    pub(super) fn promise(&self, seconds: i32) {
        self.edit(|lease| {
            lease.spec.get_or_insert_default().lease_duration_seconds = Some(seconds);
        });
    }

    pub(super) fn annotate(&self, key: &str, value: &str) {
        self.edit(|lease| {
            lease
                .metadata
                .annotations
                .get_or_insert_default()
                .insert(key.to_owned(), value.to_owned());
        });
    }

    pub(super) fn annotation(&self, key: &str) -> Option<String> {
        self.state()
            .lease
            .as_ref()?
            .metadata
            .annotations
            .as_ref()?
            .get(key)
            .cloned()
    }

    pub(super) fn delete(&self) {
        self.state().lease = None;
    }
}
