//! The HTTP server for Prometheus and the kubelet: `/metrics`, `/healthz`, `/readyz`.
//!
//! It decides how to answer, and leaves out what health means: its [`Pages`] are closures, asked at the moment of the
//! request. No part of it talks to the apiserver or to Proxmox, so that neither's trouble makes the kubelet restart us.
//! Metrics and health have an address each, since a `NetworkPolicy` may open one and not the other; where both are the same,
//! one listener serves all three paths.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::telemetry::CONTENT_TYPE;

/// How long a shutdown waits for clients that do not finish their request.
const DRAIN: Duration = Duration::from_secs(2);

/// A check: `Ok`, or what is wrong as one line for whoever reads the probe's output.
pub type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What the paths show.
#[derive(Clone)]
pub struct Pages {
    /// `/metrics`, in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// `/healthz`: the process works; a failure makes the kubelet restart it.
    pub healthy: Check,
    /// `/readyz`: the kinds are installed and the caches are filled.
    pub ready: Check,
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {purpose}")]
pub struct BindError {
    address: SocketAddr,
    purpose: &'static str,
    #[source]
    source: io::Error,
}

/// Listens already, and answers once it runs. Bound before anything else starts, so that a taken port ends the process at once.
#[derive(Debug)]
pub struct Server {
    metrics: TcpListener,
    /// Absent where the metrics' listener serves health as well.
    health: Option<TcpListener>,
    metrics_addr: SocketAddr,
    health_addr: SocketAddr,
}

impl Server {
    /// Binds both addresses; port 0 lets the kernel choose.
    pub async fn bind(metrics: SocketAddr, health: SocketAddr) -> Result<Self, BindError> {
        let (metrics_listener, metrics_addr) = listen(metrics, "metrics").await?;
        let (health_listener, health_addr) = if health == metrics && health.port() != 0 {
            (None, metrics_addr)
        } else {
            let (listener, address) = listen(health, "health").await?;
            (Some(listener), address)
        };
        Ok(Self {
            metrics: metrics_listener,
            health: health_listener,
            metrics_addr,
            health_addr,
        })
    }

    /// Where metrics are served.
    pub fn metrics_addr(&self) -> SocketAddr {
        self.metrics_addr
    }

    /// Where health is served.
    pub fn health_addr(&self) -> SocketAddr {
        self.health_addr
    }

    /// Serves until `shutdown`, then lets requests in flight end for a moment.
    pub async fn run(self, pages: Pages, shutdown: CancellationToken) -> io::Result<()> {
        info!(metrics = %self.metrics_addr, health = %self.health_addr, "serving metrics and health");
        let mut at_metrics = metrics_routes(&pages);
        if self.health.is_none() {
            at_metrics = at_metrics.merge(health_routes(&pages));
        }
        let metrics = serve(self.metrics, at_metrics, &shutdown);
        let health = async {
            match self.health {
                Some(listener) => serve(listener, health_routes(&pages), &shutdown).await,
                None => Ok(()),
            }
        };
        tokio::try_join!(metrics, health).map(|_| ())
    }
}

async fn listen(
    address: SocketAddr,
    purpose: &'static str,
) -> Result<(TcpListener, SocketAddr), BindError> {
    let failed = |source| BindError {
        address,
        purpose,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

async fn serve(
    listener: TcpListener,
    routes: Router,
    shutdown: &CancellationToken,
) -> io::Result<()> {
    let drained = async {
        shutdown.cancelled().await;
        sleep(DRAIN).await;
    };
    tokio::select! {
        served = axum::serve(listener, routes).with_graceful_shutdown(shutdown.clone().cancelled_owned()) => served,
        () = drained => Ok(()),
    }
}

fn metrics_routes(pages: &Pages) -> Router {
    let metrics = pages.metrics.clone();
    Router::new().route(
        "/metrics",
        get(async move || ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics())),
    )
}

fn health_routes(pages: &Pages) -> Router {
    let (healthy, ready) = (pages.healthy.clone(), pages.ready.clone());
    Router::new()
        .route("/healthz", get(async move || verdict(healthy())))
        .route("/readyz", get(async move || verdict(ready())))
}

fn verdict(check: Result<(), String>) -> Response {
    match check {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests;
