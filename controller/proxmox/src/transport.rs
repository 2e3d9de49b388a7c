//! How a call travels: which endpoint is asked, how long, how often, and what the answer's envelope holds.
//!
//! A call that was never sent goes to the next endpoint. A read whose connection broke is sent once more. A write that may
//! have arrived is never repeated: without an answer its outcome is [`ErrorKind::Unknown`]. Nothing else is retried here.

use crate::{
    CallObserver, Error, ErrorKind, Timeouts,
    call::Call,
    envelope::{self, chain, reason_phrase},
    trust::refused_certificate,
};
use http::HeaderMap;
use serde_json::Value;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;
use tracing::Instrument;

/// Proxmox closes a connection that was idle for 5 s; one reused at that moment breaks.
const POOL_IDLE: Duration = Duration::from_secs(4);
/// How long an endpoint that could not be reached is passed over.
const PASS_OVER: Duration = Duration::from_secs(30);
/// The port of pveproxy, where an endpoint names none.
const PORT: u16 = 8006;

/// What an answer held, and which endpoint gave it.
pub(crate) struct Answer {
    pub(crate) data: Value,
    pub(crate) endpoint: usize,
}

struct Endpoint {
    /// Scheme, host and port, without a slash at the end.
    base: String,
    permits: Semaphore,
    /// Until when the endpoint is passed over.
    dead_until: Mutex<Option<Instant>>,
}

pub(crate) struct Transport {
    http: reqwest::Client,
    tls: Arc<rustls::ClientConfig>,
    endpoints: Vec<Endpoint>,
    timeouts: Timeouts,
    observer: Option<Arc<dyn CallObserver>>,
}

/// Why an attempt yielded nothing.
enum Failure {
    /// The call was never sent.
    NotSent(Error),
    /// The connection broke under way.
    Broken(Error),
    /// Nothing came in time.
    TimedOut(Error),
    /// An answer came, and it is an error.
    Answer(Error),
}

impl Transport {
    pub(crate) fn new(
        endpoints: &[String],
        tls: rustls::ClientConfig,
        timeouts: Timeouts,
        observer: Option<Arc<dyn CallObserver>>,
    ) -> Result<Self, Error> {
        let unusable = |message: String| Error::local(ErrorKind::Invalid, "", "", message);
        if endpoints.is_empty() {
            return Err(unusable("no endpoint is given".to_owned()));
        }
        let endpoints = endpoints
            .iter()
            .map(|text| {
                let base = base_of(text).map_err(&unusable)?;
                Ok(Endpoint {
                    base,
                    permits: Semaphore::new(timeouts.calls_per_endpoint.max(1)),
                    dead_until: Mutex::new(None),
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .http1_only()
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            // The console would not go through a proxy, and a proxy must not see a token.
            .no_proxy()
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(timeouts.calls_per_endpoint.max(1))
            .connect_timeout(timeouts.connect)
            .timeout(timeouts.call)
            .user_agent(concat!("proxmox-client/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| unusable(format!("the HTTP client cannot be set up: {}", chain(&e))))?;
        Ok(Self {
            http,
            tls: Arc::new(tls),
            endpoints,
            timeouts,
            observer,
        })
    }

    pub(crate) fn tls(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.tls)
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Scheme, host and port of an endpoint.
    pub(crate) fn base(&self, endpoint: usize) -> Option<&str> {
        self.endpoints.get(endpoint).map(|e| e.base.as_str())
    }

    /// Sends a call with these headers to the first endpoint that takes it.
    pub(crate) async fn send(&self, call: &Call, headers: &HeaderMap) -> Result<Answer, Error> {
        let mut worst: Option<Error> = None;
        for index in self.order() {
            let Some(endpoint) = self.endpoints.get(index) else {
                continue;
            };
            let failure = match self.send_to(endpoint, call, headers).await {
                Ok(data) => {
                    endpoint.set_dead(None);
                    return Ok(Answer {
                        data,
                        endpoint: index,
                    });
                }
                Err(failure) => failure,
            };
            match failure {
                Failure::Answer(error) => {
                    endpoint.set_dead(None);
                    return Err(error);
                }
                Failure::Broken(error) if !call.is_read() => return Err(error),
                Failure::TimedOut(error) => {
                    endpoint.set_dead(Some(Instant::now() + PASS_OVER));
                    return Err(error);
                }
                Failure::NotSent(error) | Failure::Broken(error) => {
                    endpoint.set_dead(Some(Instant::now() + PASS_OVER));
                    // A certificate that has to be looked at says more than a host that is down.
                    let untrusted = |e: &Error| matches!(e.kind, ErrorKind::Untrusted { .. });
                    if !worst.as_ref().is_some_and(untrusted) {
                        worst = Some(error);
                    }
                }
            }
        }
        Err(worst.unwrap_or_else(|| {
            call.fail(ErrorKind::Unreachable, "no endpoint is left to be asked")
        }))
    }

    /// The endpoints worth asking, in the order given. One whose time is up is asked again, by one caller only.
    fn order(&self) -> Vec<usize> {
        let now = Instant::now();
        let alive = |endpoint: &Endpoint| {
            let mut dead_until = endpoint
                .dead_until
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            match *dead_until {
                None => true,
                Some(until) if until <= now => {
                    *dead_until = Some(now + PASS_OVER);
                    true
                }
                Some(_) => false,
            }
        };
        let alive: Vec<usize> = self
            .endpoints
            .iter()
            .enumerate()
            .filter(|(_, e)| alive(e))
            .map(|(i, _)| i)
            .collect();
        if alive.is_empty() {
            (0..self.endpoints.len()).collect()
        } else {
            alive
        }
    }

    async fn send_to(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        headers: &HeaderMap,
    ) -> Result<Value, Failure> {
        let _permit = endpoint.permits.acquire().await.map_err(|_| {
            Failure::NotSent(call.fail(ErrorKind::Unreachable, "the client is closed"))
        })?;
        let first = self.attempt(endpoint, call, headers).await;
        match first {
            Err(Failure::Broken(_)) if call.is_read() => {
                self.attempt(endpoint, call, headers).await
            }
            other => other,
        }
    }

    async fn attempt(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        headers: &HeaderMap,
    ) -> Result<Value, Failure> {
        let span = tracing::debug_span!(
            "proxmox",
            method = call.method,
            endpoint = call.template,
            code = tracing::field::Empty
        );
        let began = Instant::now();
        let (code, result) = self
            .exchange(endpoint, call, headers)
            .instrument(span.clone())
            .await;
        span.record("code", code);
        if let Some(observer) = &self.observer {
            observer.call(
                call.template,
                call.method,
                code,
                began.elapsed().as_secs_f64(),
            );
        }
        result
    }

    async fn exchange(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        headers: &HeaderMap,
    ) -> (u16, Result<Value, Failure>) {
        let url = format!("{}/api2/json{}", endpoint.base, call.path);
        let method = match call.method {
            "POST" => http::Method::POST,
            "PUT" => http::Method::PUT,
            "DELETE" => http::Method::DELETE,
            _ => http::Method::GET,
        };
        let takes_form = matches!(call.method, "POST" | "PUT");
        let mut request = self.http.request(method, url).headers(headers.clone());
        if !call.query.is_empty() {
            request = request.query(&call.query);
        }
        if takes_form {
            request = request.form(&call.form);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return (0, Err(self.no_answer(endpoint, call, &error))),
        };
        let status = response.status().as_u16();
        let reason = reason_phrase(&response);
        let body = match response.bytes().await {
            Ok(body) => body.to_vec(),
            // An error needs no body to be one.
            Err(_) if status >= 400 => Vec::new(),
            Err(error) => return (status, Err(self.no_answer(endpoint, call, &error))),
        };
        (
            status,
            envelope::unwrap(call, status, reason, &body).map_err(Failure::Answer),
        )
    }

    fn no_answer(&self, endpoint: &Endpoint, call: &Call, error: &reqwest::Error) -> Failure {
        if let Some(refused) = refused_certificate(error) {
            return Failure::NotSent(refused.clone().into_error(call.method, call.template));
        }
        let at = &endpoint.base;
        if error.is_connect() || error.is_builder() {
            return Failure::NotSent(call.fail(
                ErrorKind::Unreachable,
                format!("{at} cannot be reached: {}", chain(error)),
            ));
        }
        if !call.is_read() {
            let message = format!(
                "{at} gave no answer ({}); whether it carried the call out is not known",
                chain(error)
            );
            let lost = call.fail(ErrorKind::Unknown, message);
            return if error.is_timeout() {
                Failure::TimedOut(lost)
            } else {
                Failure::Broken(lost)
            };
        }
        if error.is_timeout() {
            let message = format!(
                "{at} gave no answer within {} s",
                self.timeouts.call.as_secs()
            );
            return Failure::TimedOut(call.fail(ErrorKind::Unreachable, message));
        }
        Failure::Broken(call.fail(
            ErrorKind::Unreachable,
            format!("the connection to {at} broke: {}", chain(error)),
        ))
    }
}

impl Endpoint {
    fn set_dead(&self, until: Option<Instant>) {
        *self
            .dead_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// Scheme, host and port of what somebody wrote as an endpoint.
fn base_of(text: &str) -> Result<String, String> {
    let text = text.trim();
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    let url = reqwest::Url::parse(&with_scheme)
        .map_err(|e| format!("the endpoint {text:?} is no URL: {e}"))?;
    if url.scheme() != "https" {
        return Err(format!("the endpoint {text:?} has to begin with https://"));
    }
    if !matches!(url.path(), "" | "/")
        || url.query().is_some()
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Err(format!(
            "the endpoint {text:?} has to be https://HOST:PORT and no more"
        ));
    }
    let host = url
        .host_str()
        .ok_or_else(|| format!("the endpoint {text:?} names no host"))?;
    // Url drops a port that is the scheme's own: one that was written stays.
    let port = url
        .port()
        .unwrap_or(if with_scheme.trim_end_matches('/').ends_with(":443") {
            443
        } else {
            PORT
        });
    Ok(format!("https://{host}:{port}"))
}
