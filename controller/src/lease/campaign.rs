//! The campaign itself: contend, hold, renew, release.
//!
//! It decides when the Lease may be taken and when to give up; what its timings mean and what leadership is to the rest of
//! the process stands in the parent module.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};

use super::{Ended, LeaseSettings};

/// The campaign for one Lease; dropping it ends the leadership.
#[derive(Debug)]
pub struct Campaign {
    api: Api<Lease>,
    settings: LeaseSettings,
    until: watch::Sender<Option<Instant>>,
    _lost: DropGuard,
}

/// A Lease that is ours, and when the request that made it so was sent.
struct Held {
    lease: Box<Lease>,
    sent: Instant,
}

enum Attempt {
    Won(Held),
    HeldBy { holder: String, expires: Instant },
}

/// What a contender last saw in the Lease and since when it has not changed.
struct Sighting {
    spec: LeaseSpec,
    since: Instant,
}

#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("the apiserver did not answer within {0:?}")]
    TimedOut(Duration),
    #[error("{}", answer(.0))]
    Kube(#[source] kube::Error),
}

/// The apiserver's own sentence where there is one: kube's Display repeats the whole Status.
fn answer(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}

impl CallError {
    /// The Lease is no longer the one we know.
    fn outdated(&self) -> bool {
        matches!(self, Self::Kube(kube::Error::Api(status))
            if status.is_conflict() || status.is_already_exists() || status.is_not_found())
    }
}

impl Campaign {
    pub(super) fn new(
        client: Client,
        settings: LeaseSettings,
        until: watch::Sender<Option<Instant>>,
        lost: DropGuard,
    ) -> Self {
        Self {
            api: Api::namespaced(client, &settings.namespace),
            settings,
            until,
            _lost: lost,
        }
    }

    /// Contends until it leads, then renews until leadership ends.
    ///
    /// Cancel `shutdown` only after all that needs leadership has stopped: the Lease is then cleared and a standby may lead
    /// before this returns. Every request is bounded, so that it returns within seconds of the cancellation.
    pub async fn run(self, shutdown: CancellationToken) -> Ended {
        match self.contend(&shutdown).await {
            Some(held) => self.hold(held, &shutdown).await,
            None => Ended::NeverLed,
        }
    }

    async fn contend(&self, shutdown: &CancellationToken) -> Option<Held> {
        let mut sighting = None;
        let mut failing = false;
        let mut rival = None;
        while !shutdown.is_cancelled() {
            let mut pause = self.settings.jittered_retry();
            match self.attempt(&mut sighting).await {
                Ok(Attempt::Won(held)) => return Some(held),
                Ok(Attempt::HeldBy { holder, expires }) => {
                    failing = false;
                    pause = pause.min(expires.saturating_duration_since(Instant::now()));
                    if rival.as_ref() != Some(&holder) {
                        info!(lease = %self.settings.name, %holder, "standing by: another replica leads");
                        rival = Some(holder);
                    }
                }
                // Losing a race is no failure: the next look tells who won.
                Err(error) if error.outdated() => debug!(%error, "the Lease changed meanwhile"),
                Err(error) if failing => debug!(%error, "still cannot reach the Lease"),
                Err(error) => {
                    failing = true;
                    warn!(
                        lease = %self.settings.name, namespace = %self.settings.namespace, %error,
                        "cannot read or take the Lease; trying on"
                    );
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = sleep(pause) => {}
            }
        }
        None
    }

    async fn hold(&self, mut held: Held, shutdown: &CancellationToken) -> Ended {
        info!(lease = %self.settings.name, identity = %self.settings.identity, "leading");
        let mut pause = self.settings.retry_period;
        loop {
            let deadline = held.sent + self.settings.renew_deadline;
            self.until.send_replace(Some(deadline));
            let renewal = async {
                sleep(pause).await;
                self.renew(&held.lease).await
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    self.until.send_replace(None);
                    self.release(*held.lease).await;
                    return Ended::Released;
                }
                () = sleep_until(deadline) => {
                    return self.lose(format!(
                        "no renewal of Lease {} succeeded for {:?}",
                        self.settings.name, self.settings.renew_deadline
                    ));
                }
                renewed = renewal => match renewed {
                    Ok(Attempt::Won(next)) => {
                        held = next;
                        pause = self.settings.retry_period;
                    }
                    Ok(Attempt::HeldBy { holder, .. }) => {
                        return self.lose(format!("Lease {} is held by {holder} now", self.settings.name));
                    }
                    Err(error) => {
                        warn!(%error, left = ?deadline.saturating_duration_since(Instant::now()), "could not renew the Lease");
                        pause = self.settings.hurried_retry();
                    }
                },
            }
        }
    }

    fn lose(&self, why: String) -> Ended {
        self.until.send_replace(None);
        warn!(%why, "leadership lost");
        Ended::Lost { why }
    }

    /// Looks at the Lease and takes it if it is absent, free, ours, or has been silent for too long.
    async fn attempt(&self, sighting: &mut Option<Sighting>) -> Result<Attempt, CallError> {
        let Some(lease) = self.bounded(self.api.get_opt(&self.settings.name)).await? else {
            return self.create().await.map(Attempt::Won);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if let Some(holder) = holder(&spec).filter(|holder| *holder != self.settings.identity) {
            let expires = self.expiry(&spec, sighting);
            if Instant::now() < expires {
                return Ok(Attempt::HeldBy {
                    holder: holder.to_owned(),
                    expires,
                });
            }
            info!(lease = %self.settings.name, %holder, "the leader has gone silent; taking over");
        }
        self.replace(&lease).await.map(Attempt::Won)
    }

    /// When the holder's time is over by our clock, which starts anew whenever the Lease changes.
    fn expiry(&self, spec: &LeaseSpec, sighting: &mut Option<Sighting>) -> Instant {
        let since = match sighting {
            Some(seen) if seen.spec == *spec => seen.since,
            _ => {
                let since = Instant::now();
                *sighting = Some(Sighting {
                    spec: spec.clone(),
                    since,
                });
                since
            }
        };
        // The holder's own promise counts: it may have been started with other timings than we were.
        let promised = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .filter(|seconds| *seconds > 0);
        since + promised.map_or(self.settings.lease_duration, Duration::from_secs)
    }

    async fn renew(&self, lease: &Lease) -> Result<Attempt, CallError> {
        match self.replace(lease).await {
            Ok(held) => Ok(Attempt::Won(held)),
            // Somebody wrote to it or deleted it, or an earlier renewal arrived although its answer did not. One more look
            // decides; a foreign holder is never "silent for too long" here, since it is seen for the first time.
            Err(error) if error.outdated() => self.attempt(&mut None).await,
            Err(error) => Err(error),
        }
    }

    async fn create(&self) -> Result<Held, CallError> {
        let mut lease = Lease::default();
        lease.metadata.name = Some(self.settings.name.clone());
        lease.spec = Some(self.claim(LeaseSpec::default()));
        let sent = Instant::now();
        let lease = self
            .bounded(self.api.create(&PostParams::default(), &lease))
            .await?;
        Ok(Held {
            lease: Box::new(lease),
            sent,
        })
    }

    /// Writes our claim over exactly the version that was read: of two who try, the apiserver refuses one.
    async fn replace(&self, known: &Lease) -> Result<Held, CallError> {
        let mut lease = known.clone();
        lease.spec = Some(self.claim(lease.spec.unwrap_or_default()));
        let sent = Instant::now();
        let lease = self.put(&lease).await?;
        Ok(Held {
            lease: Box::new(lease),
            sent,
        })
    }

    fn claim(&self, mut spec: LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        if holder(&spec) != Some(&*self.settings.identity) {
            spec.lease_transitions = Some(match spec.lease_transitions {
                Some(transitions) => transitions.saturating_add(1),
                None => 0,
            });
            spec.acquire_time = Some(now.clone());
            spec.holder_identity = Some(self.settings.identity.clone());
        }
        let whole_seconds = self.settings.lease_duration.as_millis().div_ceil(1000);
        spec.lease_duration_seconds = Some(i32::try_from(whole_seconds).unwrap_or(i32::MAX));
        spec.renew_time = Some(now);
        spec
    }

    /// Gives the Lease back. A failure only costs the successor the wait for its end, so there is no fight over it.
    async fn release(&self, mut lease: Lease) {
        for _ in 0..2 {
            let Some(spec) = lease
                .spec
                .as_mut()
                .filter(|spec| holder(spec) == Some(&*self.settings.identity))
            else {
                return;
            };
            spec.holder_identity = None;
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            let Err(error) = self.put(&lease).await else {
                info!(lease = %self.settings.name, "released the Lease");
                return;
            };
            // A renewal that was cut short by the shutdown may have arrived all the same.
            let fresh = if error.outdated() {
                self.bounded(self.api.get_opt(&self.settings.name)).await
            } else {
                Err(error)
            };
            match fresh {
                Ok(Some(fresh)) => lease = fresh,
                Ok(None) => return,
                Err(error) => {
                    warn!(%error, "could not release the Lease; a successor waits for its end");
                    return;
                }
            }
        }
    }

    async fn put(&self, lease: &Lease) -> Result<Lease, CallError> {
        let name = lease.name_any();
        self.bounded(self.api.replace(&name, &PostParams::default(), lease))
            .await
    }

    async fn bounded<T>(
        &self,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, CallError> {
        let limit = self.settings.request_timeout();
        match timeout(limit, call).await {
            Ok(answer) => answer.map_err(CallError::Kube),
            Err(_) => Err(CallError::TimedOut(limit)),
        }
    }
}

/// A cleared holder is written as absent by us and as an empty text by some.
fn holder(spec: &LeaseSpec) -> Option<&str> {
    spec.holder_identity
        .as_deref()
        .filter(|holder| !holder.is_empty())
}
