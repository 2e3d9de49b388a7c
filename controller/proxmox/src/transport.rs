//! How a call travels: which endpoint is asked, how long, how often, and what the answer's envelope holds.
//!
//! A call that was never sent goes to the next endpoint. A read whose connection broke is sent once more. A write that may
//! have arrived is never repeated: without an answer its outcome is [`ErrorKind::Unknown`]. Nothing else is retried here.

use crate::{
    CallObserver, Error, ErrorKind, Timeouts,
    call::Call,
    envelope::{self, chain, reason_phrase},
    hosts::{Host, Hosts},
    trust::refused_certificate,
};
use http::{HeaderMap, header};
use serde_json::Value;
use std::{sync::Arc, time::Instant};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};
use tracing::Instrument;

/// More than a terminal shows at once.
const LARGEST_MESSAGE: usize = 1 << 20;

/// A websocket over the same connections, trust and limits as everything else. The handshake is made here rather than by
/// the websocket's library, which writes the request with its credentials into its log.
pub(crate) type Socket = WebSocketStream<reqwest::Upgraded>;

/// What an answer held, and which endpoint gave it.
pub(crate) struct Answer {
    pub(crate) data: Value,
    pub(crate) endpoint: usize,
}

pub(crate) struct Transport {
    http: reqwest::Client,
    hosts: Hosts,
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
        let hosts = Hosts::new(endpoints, timeouts.calls_per_endpoint.max(1))?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .http1_title_case_headers()
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            // The console would not go through a proxy, and a proxy must not see a token.
            .no_proxy()
            .pool_idle_timeout(timeouts.idle)
            .pool_max_idle_per_host(timeouts.calls_per_endpoint.max(1))
            .connect_timeout(timeouts.connect)
            .timeout(timeouts.call)
            .user_agent(concat!("proxmox-client/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| {
                let message = format!("the HTTP client cannot be set up: {}", chain(&e));
                Error::local(ErrorKind::Invalid, "", "", message)
            })?;
        Ok(Self {
            http,
            hosts,
            timeouts,
            observer,
        })
    }

    /// Scheme, host and port of an endpoint.
    pub(crate) fn base(&self, endpoint: usize) -> Option<&str> {
        self.hosts.get(endpoint).map(|host| host.base.as_str())
    }

    /// Sends a call with these headers to the first endpoint that takes it.
    pub(crate) async fn send(&self, call: &Call, headers: &HeaderMap) -> Result<Answer, Error> {
        let mut worst: Option<Error> = None;
        for index in self.hosts.order() {
            let Some(host) = self.hosts.get(index) else {
                continue;
            };
            let failure = match self.send_to(host, call, headers).await {
                Ok(data) => {
                    host.mark_alive();
                    return Ok(Answer {
                        data,
                        endpoint: index,
                    });
                }
                Err(failure) => failure,
            };
            match failure {
                Failure::Answer(error) => {
                    host.mark_alive();
                    return Err(error);
                }
                Failure::Broken(error) if !call.is_read() => return Err(error),
                Failure::TimedOut(error) => {
                    host.mark_dead();
                    return Err(error);
                }
                Failure::NotSent(error) | Failure::Broken(error) => {
                    host.mark_dead();
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

    async fn send_to(
        &self,
        host: &Host,
        call: &Call,
        headers: &HeaderMap,
    ) -> Result<Value, Failure> {
        let _permit = host.permits.acquire().await.map_err(|_| {
            Failure::NotSent(call.fail(ErrorKind::Unreachable, "the client is closed"))
        })?;
        let first = self.attempt(host, call, headers).await;
        match first {
            Err(Failure::Broken(_)) if call.is_read() => self.attempt(host, call, headers).await,
            other => other,
        }
    }

    async fn attempt(
        &self,
        host: &Host,
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
            .exchange(host, call, headers)
            .instrument(span.clone())
            .await;
        span.record("code", code);
        self.observe(call, code, began);
        result
    }

    fn observe(&self, call: &Call, code: u16, began: Instant) {
        if let Some(observer) = &self.observer {
            let seconds = began.elapsed().as_secs_f64();
            observer.call(call.template, call.method, code, seconds);
        }
    }

    async fn exchange(
        &self,
        host: &Host,
        call: &Call,
        headers: &HeaderMap,
    ) -> (u16, Result<Value, Failure>) {
        let request = self.request(host, call, headers);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return (0, Err(self.no_answer(host, call, &error))),
        };
        let status = response.status().as_u16();
        let reason = reason_phrase(&response);
        let body = match response.bytes().await {
            Ok(body) => body.to_vec(),
            // An error needs no body to be one.
            Err(_) if status >= 400 => Vec::new(),
            Err(error) => return (status, Err(self.no_answer(host, call, &error))),
        };
        (
            status,
            envelope::unwrap(call, status, reason, &body).map_err(Failure::Answer),
        )
    }

    fn request(&self, host: &Host, call: &Call, headers: &HeaderMap) -> reqwest::RequestBuilder {
        let url = format!("{}/api2/json{}", host.base, call.path);
        let method = match call.method {
            "POST" => http::Method::POST,
            "PUT" => http::Method::PUT,
            "DELETE" => http::Method::DELETE,
            _ => http::Method::GET,
        };
        // Proxmox refuses a body on DELETE.
        let takes_form = matches!(call.method, "POST" | "PUT");
        let mut request = self.http.request(method, url).headers(headers.clone());
        if !call.query.is_empty() {
            request = request.query(&call.query);
        }
        if takes_form {
            request = request.form(&call.form);
        }
        request
    }

    /// Turns a call into a websocket, on the endpoint of this number and no other. Sent once.
    pub(crate) async fn upgrade(
        &self,
        endpoint: usize,
        call: &Call,
        headers: &HeaderMap,
    ) -> Result<Socket, Error> {
        let Some(host) = self.hosts.get(endpoint) else {
            return Err(call.fail(ErrorKind::Unreachable, "there is no such endpoint"));
        };
        let began = Instant::now();
        let span = tracing::debug_span!("proxmox", method = call.method, endpoint = call.template);
        let result = self.handshake(host, call, headers).instrument(span).await;
        let code = result
            .as_ref()
            .map_or_else(|error| error.status.unwrap_or_default(), |_| 101);
        self.observe(call, code, began);
        result
    }

    async fn handshake(
        &self,
        host: &Host,
        call: &Call,
        headers: &HeaderMap,
    ) -> Result<Socket, Error> {
        let key = generate_key();
        let request = self
            .request(host, call, headers)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, &key)
            // Without a subprotocol Proxmox drops the connection.
            .header(header::SEC_WEBSOCKET_PROTOCOL, "binary");
        let lost = |error: &reqwest::Error| self.no_answer(host, call, error).into_error();
        let response = request.send().await.map_err(|e| lost(&e))?;
        let status = response.status().as_u16();
        if status != 101 {
            let reason = reason_phrase(&response);
            let body = response.bytes().await.unwrap_or_default();
            return Err(match envelope::unwrap(call, status, reason, &body) {
                Ok(_) => call.fail(
                    ErrorKind::Other,
                    "an answer came where a websocket should have",
                ),
                Err(error) => error,
            });
        }
        let accept = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
        if accept.map(http::HeaderValue::as_bytes)
            != Some(derive_accept_key(key.as_bytes()).as_bytes())
        {
            return Err(call.fail(
                ErrorKind::Other,
                "the websocket was not accepted as it should be",
            ));
        }
        let stream = response.upgrade().await.map_err(|e| lost(&e))?;
        let limits = WebSocketConfig::default()
            .max_message_size(Some(LARGEST_MESSAGE))
            .max_frame_size(Some(LARGEST_MESSAGE));
        Ok(WebSocketStream::from_raw_socket(stream, Role::Client, Some(limits)).await)
    }

    fn no_answer(&self, host: &Host, call: &Call, error: &reqwest::Error) -> Failure {
        if let Some(refused) = refused_certificate(error) {
            return Failure::NotSent(refused.clone().into_error(call.method, call.template));
        }
        let at = &host.base;
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

impl Failure {
    fn into_error(self) -> Error {
        match self {
            Self::NotSent(error)
            | Self::Broken(error)
            | Self::TimedOut(error)
            | Self::Answer(error) => error,
        }
    }
}
