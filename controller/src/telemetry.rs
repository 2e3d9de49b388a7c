//! Logs and metrics.
//!
//! It decides the names of all metrics, their labels and their buckets, so that a dashboard's author reads one file. Labels
//! come from closed sets or from objects that exist (a hypervisor, a container); nothing that a user or Proxmox may make up
//! freely becomes one. It leaves out when something is worth counting: that is the caller's, who holds a [`Metrics`].

mod metrics;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

pub use self::metrics::Metrics;

/// The default filter: kube logs each retried request as a warning of its own, and below that each request.
pub const DEFAULT_FILTER: &str = "info,kube_client=warn";
/// The content type of what [`Metrics::encode`] returns.
pub const CONTENT_TYPE: &str = prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people: coloured on a terminal.
    #[default]
    Text,
    /// For log collectors: one object a line, spans' fields included.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter makes no sense.
    #[error("the log filter {filter:?} cannot be read; a valid one is {DEFAULT_FILTER:?}")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What the parser says.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something else in this process logs already.
    #[error("logging is set up already")]
    Twice(#[source] TryInitError),
}

/// Starts logging to stderr; stdout belongs to what commands print. `filter` has `RUST_LOG`'s syntax.
pub fn init_logging(format: LogFormat, filter: &str) -> Result<(), LoggingError> {
    let filter = EnvFilter::try_new(filter).map_err(|source| LoggingError::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines
            .with_ansi(std::io::stderr().is_terminal())
            .finish()
            .try_init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .finish()
            .try_init(),
    }
    .map_err(LoggingError::Twice)
}

#[cfg(test)]
mod tests;
