//! `phoenix controller`: from flags to a running operator, and from signals to its end.

use anyhow::Context;
use kube::Client;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::settings::Settings;
use crate::telemetry;

const AFTER_HELP: &str = "\
The cluster is the one that the pod runs in, else the current context of KUBECONFIG or ~/.kube/config.
SIGTERM or Ctrl-C ends it in order: nothing new is begun, the current call is finished, the Lease is given back. A second one ends it at once.

Examples:
  phoenix controller
          One operator for all Hypervisors
  phoenix controller --watch-namespaces team-a,team-b --metrics-addr 127.0.0.1:9090
          Two namespaces only, metrics on the local machine only
  phoenix controller --hypervisor-selector site=berlin --lease-name phoenix-berlin --leader-elect
          One of several operators, each with its Hypervisors";

#[derive(clap::Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Arguments {
    #[command(flatten)]
    settings: Settings,
}

impl Arguments {
    pub(super) fn into_settings(self) -> Settings {
        self.settings
    }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let settings = arguments.into_settings().checked()?;
    telemetry::init_logging(settings.log_format, &settings.log_filter)?;
    info!(version = env!("CARGO_PKG_VERSION"), "starting");
    runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?
        .block_on(operate(settings))
}

async fn operate(settings: Settings) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    cancel_on_signals(shutdown.clone()).context("cannot listen for signals")?;
    let client = Client::try_default().await.context(
        "cannot connect to Kubernetes: neither a service account's files nor a usable KUBECONFIG is there",
    )?;
    crate::run(settings, client, shutdown).await?;
    info!("ended in order");
    Ok(())
}

/// The first SIGTERM or SIGINT asks for an orderly end; the next one is obeyed at once, for whoever does not want to wait.
fn cancel_on_signals(shutdown: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for first in [true, false] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if first {
                info!(signal = name, "ending");
                shutdown.cancel();
            } else {
                warn!(signal = name, "ending at once");
                std::process::exit(1);
            }
        }
    });
    Ok(())
}
