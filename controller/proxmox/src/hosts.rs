//! Which endpoint is asked: the first of those given that is not known to be dead.

use crate::{Error, ErrorKind};
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// How long an endpoint that could not be reached is passed over.
const PASS_OVER: Duration = Duration::from_secs(30);
/// The port of pveproxy, where an endpoint names none.
const PORT: u16 = 8006;

/// One endpoint.
pub(crate) struct Host {
    /// Scheme, host and port, without a slash at the end.
    pub(crate) base: String,
    /// How many calls may be in flight to it.
    pub(crate) permits: Semaphore,
    /// Until when it is passed over.
    dead_until: Mutex<Option<Instant>>,
}

impl Host {
    pub(crate) fn mark_alive(&self) {
        self.set(None);
    }

    pub(crate) fn mark_dead(&self) {
        self.set(Some(Instant::now() + PASS_OVER));
    }

    fn set(&self, until: Option<Instant>) {
        *self
            .dead_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Whether it is worth asking. Where its time is up that is true for one caller, who finds out for the others.
    fn worth_asking(&self, now: Instant) -> bool {
        let mut dead_until = self
            .dead_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match *dead_until {
            None => true,
            Some(until) if until > now => false,
            Some(_) => {
                *dead_until = Some(now + PASS_OVER);
                true
            }
        }
    }
}

/// All endpoints of one cluster.
pub(crate) struct Hosts(Vec<Host>);

impl Hosts {
    pub(crate) fn new(endpoints: &[String], permits: usize) -> Result<Self, Error> {
        let unusable = |message| Error::local(ErrorKind::Invalid, "", "", message);
        if endpoints.is_empty() {
            return Err(unusable("no endpoint is given".to_owned()));
        }
        let host = |text: &String| {
            let base = base_of(text).map_err(unusable)?;
            Ok(Host {
                base,
                permits: Semaphore::new(permits),
                dead_until: Mutex::new(None),
            })
        };
        endpoints
            .iter()
            .map(host)
            .collect::<Result<_, Error>>()
            .map(Self)
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Host> {
        self.0.get(index)
    }

    /// The endpoints to ask, in the order given: those not known to be dead, or else all.
    pub(crate) fn order(&self) -> Vec<usize> {
        let now = Instant::now();
        let all = 0..self.0.len();
        let alive: Vec<usize> = all
            .clone()
            .filter(|i| self.0[*i].worth_asking(now))
            .collect();
        if alive.is_empty() {
            all.collect()
        } else {
            alive
        }
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
