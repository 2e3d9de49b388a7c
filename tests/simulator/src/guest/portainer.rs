//! Portainer's server as far as it is looked at from outside: HTTPS with a certificate of its own, the status page, and the first administrator.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::boot::Guest;
use super::network::Listening;
use super::web::{self, Answer, SelfSigned};

/// A running server; dropping it ends it.
pub(super) struct Portainer {
    _port: Listening,
    running: CancellationToken,
    guest: Arc<Guest>,
    number: u16,
}

struct Server {
    version: String,
    instance: String,
    /// Somebody has set the administrator's password.
    administered: AtomicBool,
    started: Instant,
}

impl Server {
    /// Nobody came in time to be the administrator: it waits for a restart and tells everybody so.
    fn closed(&self, guest: &Guest, path: &str) -> bool {
        !self.administered.load(Ordering::Relaxed)
            && self.started.elapsed() >= guest.shared.faults.portainer_window()
            && path.starts_with("/api")
            && path != "/api/status"
            && path != "/api/settings/public"
    }
}

impl Portainer {
    /// Starts a server on a port of the guest; the image's tag is its version.
    pub(super) fn start(guest: &Arc<Guest>, port: u16, image: &str) -> Result<Self> {
        let identity = SelfSigned::new(&["portainer", &guest.spec.hostname])?;
        let acceptor = identity.acceptor();
        let version = image.rsplit_once(':').map_or("2.39.3", |(_, tag)| {
            if tag == "latest" || tag == "lts" {
                "2.39.3"
            } else {
                tag
            }
        });
        let server = Arc::new(Server {
            version: version.to_owned(),
            instance: uuid(),
            administered: AtomicBool::new(false),
            started: Instant::now(),
        });
        let running = CancellationToken::new();
        let (until, inside) = (running.clone(), Arc::downgrade(guest));
        let service = Arc::new(move |stream| {
            let (acceptor, server, until) = (acceptor.clone(), server.clone(), until.clone());
            let inside = inside.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    web::serve(stream, until, move |request| {
                        answer(server.clone(), inside.clone(), request)
                    });
                }
            });
        });
        let listening = guest.ports.listen(port, service).with_context(|| {
            format!("Bind for 0.0.0.0:{port} failed: port is already allocated")
        })?;
        guest
            .certificates
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(port, identity.certificate);
        Ok(Self {
            _port: listening,
            running,
            guest: guest.clone(),
            number: port,
        })
    }
}

impl Drop for Portainer {
    fn drop(&mut self) {
        self.running.cancel();
        self.guest
            .certificates
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .remove(&self.number);
    }
}

fn uuid() -> String {
    let digits = hex::encode(rand::random::<[u8; 16]>());
    format!(
        "{}-{}-4{}-a{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[13..16],
        &digits[17..20],
        &digits[20..]
    )
}

async fn answer(server: Arc<Server>, guest: Weak<Guest>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    if guest
        .upgrade()
        .is_some_and(|guest| server.closed(&guest, parts.uri.path()))
    {
        let message = "Administrator initialization timeout";
        let mut answer = json_answer(303, &json!({"message": message, "details": message}));
        answer.headers_mut().insert(
            "redirect-reason",
            HeaderValue::from_static("AdminInitTimeout"),
        );
        return answer;
    }
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    match (parts.method, parts.uri.path()) {
        (Method::GET, "/api/system/status" | "/api/status") => json_answer(
            200,
            &json!({"Version": server.version, "InstanceID": server.instance}),
        ),
        (Method::GET, "/api/users/admin/check") if server.administered.load(Ordering::Relaxed) => {
            Response::builder()
                .status(204)
                .body(Full::default())
                .unwrap_or_default()
        }
        (Method::GET, "/api/users/admin/check") => json_answer(
            404,
            &json!({"message": "No administrator account found inside the database", "details": "Object not found inside the database"}),
        ),
        (Method::POST, "/api/users/admin/init") => {
            let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
            if asked["Password"]
                .as_str()
                .is_none_or(|password| password.len() < 12)
            {
                return json_answer(
                    400,
                    &json!({"message": "Password does not meet the minimum strength requirements", "details": "Password does not meet the minimum strength requirements"}),
                );
            }
            if server.administered.swap(true, Ordering::Relaxed) {
                return json_answer(
                    409,
                    &json!({"message": "Unable to create administrator user", "details": "An administrator user already exists"}),
                );
            }
            json_answer(
                200,
                &json!({"Id": 1, "Username": asked["Username"].as_str().unwrap_or("admin"), "Role": 1}),
            )
        }
        (Method::GET, "/") => Response::builder()
            .header("content-type", "text/html; charset=utf-8")
            .body(Full::from(Bytes::from_static(
                b"<!doctype html><title>Portainer</title>\n",
            )))
            .unwrap_or_default(),
        (_, path) if path.starts_with("/api/") => json_answer(
            401,
            &json!({"message": "A valid authorization token is missing", "details": "Unauthorized"}),
        ),
        _ => json_answer(404, &json!({"message": "not found"})),
    }
}

fn json_answer(status: u16, value: &Value) -> Answer {
    let body = format!("{value}\n");
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::from(Bytes::from(body)))
        .unwrap_or_default()
}

/// The certificates of a guest's TLS servers by port: what a client inside can check them against.
pub(super) type Certificates =
    Mutex<std::collections::HashMap<u16, rustls::pki_types::CertificateDer<'static>>>;
