//! When a part of the control plane counts as up, and what is said when it does not come up.

use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

use super::processes::Processes;

const POLL: Duration = Duration::from_millis(50);

/// The API server answers and has created its first roles.
pub(super) async fn serves(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else {
        return false;
    };
    client.request_text(request).await.is_ok()
}

/// The controllers work: one of them has made the service account that each namespace has.
pub(super) async fn controls(client: &Client) -> bool {
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), "default");
    matches!(accounts.get_opt("default").await, Ok(Some(_)))
}

pub(super) async fn wait_for<F: Future<Output = bool>>(
    processes: &mut Processes,
    applet: &str,
    deadline: Instant,
    ready: impl Fn() -> F,
) -> Result<()> {
    loop {
        processes.check()?;
        if let Ok(true) = timeout(Duration::from_secs(5), ready()).await {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "{applet} was not ready in time; its last lines:\n{}",
                processes.last_lines(applet)
            );
        }
        sleep(POLL).await;
    }
}
