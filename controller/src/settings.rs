//! The settings of `phoenix controller`: flags and environment, nothing else.
//!
//! One struct, read by clap and checked once by [`Settings::checked`]; everything behind it takes the values as given. It
//! leaves out what belongs into a Hypervisor (endpoints, credentials, limits, polling): that is configured in Kubernetes.

mod selector;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use kube::core::Selector;

use crate::lease::LeaseSettings;
use crate::telemetry::{DEFAULT_FILTER, LogFormat};

/// Where the operator is unless it is told.
pub(crate) const NAMESPACE: &str = "phoenix-system";
const LEASE_NAME: &str = "phoenix-controller";
const METRICS_PORT: u16 = 8080;
const HEALTH_PORT: u16 = 8081;
const CONCURRENCY: u16 = 16;
const SLOW_RECHECK: Duration = Duration::from_mins(10);

/// Everything that the controller is told at its start.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Namespace of the operator: its Lease and the Secrets with Proxmox credentials
    #[arg(long, env = "POD_NAMESPACE", default_value = NAMESPACE, value_name = "NAME")]
    pub namespace: String,

    /// Namespaces whose templates and containers are looked after, separated by commas [default: all]
    #[arg(
        long,
        env = "PHOENIX_WATCH_NAMESPACES",
        value_name = "NAMES",
        value_delimiter = ','
    )]
    pub watch_namespaces: Vec<String>,

    /// Look after the Hypervisors with these labels only, and what belongs to them [default: all]
    #[arg(
        long,
        env = "PHOENIX_HYPERVISOR_SELECTOR",
        value_name = "LABELS",
        help_heading = "Side by side"
    )]
    pub hypervisor_selector: Option<String>,

    /// Act only while holding the Lease; needed for more than one replica
    #[arg(
        long,
        env = "PHOENIX_LEADER_ELECT",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        help_heading = "Side by side"
    )]
    pub leader_elect: bool,

    /// Name of the Lease; operators with different Hypervisors need different ones
    #[arg(
        long,
        env = "PHOENIX_LEASE_NAME",
        default_value = LEASE_NAME,
        value_name = "NAME",
        help_heading = "Side by side"
    )]
    pub lease_name: String,

    /// Name of this pod, shown as the holder of the Lease
    #[arg(
        long,
        env = "POD_NAME",
        value_name = "NAME",
        help_heading = "Side by side"
    )]
    pub pod_name: Option<String>,

    /// Address of /metrics; port 0 lets the kernel choose
    #[arg(
        long,
        env = "PHOENIX_METRICS_ADDR",
        default_value_t = everywhere(METRICS_PORT),
        value_name = "IP:PORT",
        help_heading = "Observing"
    )]
    pub metrics_addr: SocketAddr,

    /// Address of /healthz and /readyz; may be the same as that of /metrics
    #[arg(
        long,
        env = "PHOENIX_HEALTH_ADDR",
        default_value_t = everywhere(HEALTH_PORT),
        value_name = "IP:PORT",
        help_heading = "Observing"
    )]
    pub health_addr: SocketAddr,

    /// Form of the log
    #[arg(
        long,
        env = "PHOENIX_LOG_FORMAT",
        value_enum,
        default_value_t,
        value_name = "FORM",
        help_heading = "Observing"
    )]
    pub log_format: LogFormat,

    /// What is logged, as in `phoenix_controller=debug,info`
    #[arg(
        long,
        env = "RUST_LOG",
        default_value = DEFAULT_FILTER,
        value_name = "FILTER",
        help_heading = "Observing"
    )]
    pub log_filter: String,

    /// Objects of a kind that are worked on at the same time
    #[arg(
        long,
        env = "PHOENIX_CONCURRENCY",
        default_value_t = CONCURRENCY,
        value_parser = clap::value_parser!(u16).range(1..=1024),
        value_name = "N",
        help_heading = "Pace"
    )]
    pub concurrency: u16,

    /// How long until something is looked at again that only a change by somebody can help
    #[arg(
        long,
        env = "PHOENIX_SLOW_RECHECK",
        default_value = "10m",
        value_parser = duration,
        value_name = "DURATION",
        help_heading = "Pace"
    )]
    pub slow_recheck: Duration,
}

impl Default for Settings {
    /// What no flag and an empty environment give.
    fn default() -> Self {
        Self {
            namespace: NAMESPACE.to_owned(),
            watch_namespaces: Vec::new(),
            hypervisor_selector: None,
            leader_elect: false,
            lease_name: LEASE_NAME.to_owned(),
            pod_name: None,
            metrics_addr: everywhere(METRICS_PORT),
            health_addr: everywhere(HEALTH_PORT),
            log_format: LogFormat::default(),
            log_filter: DEFAULT_FILTER.to_owned(),
            concurrency: CONCURRENCY,
            slow_recheck: SLOW_RECHECK,
        }
    }
}

/// A setting that cannot work, named as the user knows it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// A name that no namespace or Lease can have.
    #[error("--{flag}: {value:?} is no valid name: lower-case letters, digits and inner hyphens{}, at most {max} characters",
            if *.dots { " or dots" } else { "" })]
    Name {
        /// The flag, without its hyphens.
        flag: &'static str,
        /// The value as given.
        value: String,
        /// Whether dots are allowed.
        dots: bool,
        /// The greatest length.
        max: usize,
    },
    /// A label selector that the apiserver would refuse.
    #[error("--hypervisor-selector: {0}")]
    Selector(String),
}

impl Settings {
    /// Checks what a flag's own parser cannot, and makes the values uniform: empty texts, as an unset chart value leaves
    /// them, mean the same as an absent flag.
    pub fn checked(mut self) -> Result<Self, SettingsError> {
        name("namespace", &self.namespace, Name::Label)?;
        name("lease-name", &self.lease_name, Name::Subdomain)?;

        let watched: BTreeSet<_> = self
            .watch_namespaces
            .iter()
            .map(|name| name.trim())
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        self.watch_namespaces = watched.into_iter().collect();
        for namespace in &self.watch_namespaces {
            name("watch-namespaces", namespace, Name::Label)?;
        }

        self.pod_name = self.pod_name.filter(|name| !name.trim().is_empty());
        self.hypervisor_selector = self
            .hypervisor_selector
            .filter(|selector| !selector.trim().is_empty());
        self.selector()?;
        Ok(self)
    }

    /// The hypervisor selector in a form that matches labels and prints itself; selects all where none is given.
    pub fn selector(&self) -> Result<Selector, SettingsError> {
        self.hypervisor_selector
            .as_deref()
            .map_or_else(|| Ok(Selector::default()), selector::parse)
            .map_err(SettingsError::Selector)
    }

    /// What to campaign with. Each call makes another identity: a restarted process is not the one that died, whatever the
    /// pod is called.
    pub fn lease(&self) -> LeaseSettings {
        let who = self.pod_name.as_deref().unwrap_or("phoenix");
        let identity = format!("{who}_{:08x}", rand::random::<u32>());
        LeaseSettings::new(&self.namespace, &self.lease_name, identity)
    }
}

const fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: kube::core::Duration = text
        .parse()
        .map_err(|error| format!("{error}; write it as 90s, 10m or 1h30m"))?;
    if parsed.is_negative() || parsed < Duration::from_secs(1) {
        return Err("the shortest is 1s".to_owned());
    }
    Ok(parsed.into())
}

#[derive(Clone, Copy)]
enum Name {
    Label,
    Subdomain,
}

fn name(flag: &'static str, value: &str, kind: Name) -> Result<(), SettingsError> {
    let (dots, max) = match kind {
        Name::Label => (false, 63),
        Name::Subdomain => (true, 253),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let valid = value.len() <= max
        && match kind {
            Name::Label => label(value),
            Name::Subdomain => value.split('.').all(label),
        };
    valid.then_some(()).ok_or_else(|| SettingsError::Name {
        flag,
        value: value.to_owned(),
        dots,
        max,
    })
}

#[cfg(test)]
mod tests;
