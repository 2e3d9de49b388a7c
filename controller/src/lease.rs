//! Leader election over one `coordination.k8s.io/v1` Lease, so that of several replicas one acts.
//!
//! What it decides: who leads, and until when this process may go on believing that it does. Two clocks keep two leaders
//! apart without trusting any node's wall clock: a contender takes a Lease over only after it has watched it stay unchanged
//! for the holder's lease duration by its own monotonic clock, and a leader stops believing in itself a good while earlier,
//! counted from the moment at which it *sent* its last successful renewal. A leader cut off from the apiserver therefore
//! ends before a successor can begin.
//!
//! What it leaves out: what leading means. Callers ask [`Leadership::is_leader`] at the moment of acting and stop when
//! [`Leadership::lost`] fires. A leadership once lost is not campaigned for again: the process is meant to end and start anew,
//! as nobody can vouch for what it was in the middle of.

mod campaign;

use std::time::Duration;

use futures::future;
use kube::Client;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::campaign::Campaign;

/// How long others leave a silent leader alone. A standby sees a renewal at most a jittered retry period late and wakes
/// exactly when the lease ends, so it leads within about 13.5 seconds of a leader's sudden death.
pub const LEASE_DURATION: Duration = Duration::from_secs(11);
/// How long a leader believes in itself without a successful renewal. What lies between this and [`LEASE_DURATION`] is for
/// the call in flight to end.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(8);
/// How often a leader renews and a standby looks.
pub const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Which Lease is campaigned for, by whom, and how fast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseSettings {
    /// The namespace in which the Lease lives; the operator's own.
    pub namespace: String,
    /// The name of the Lease; operators that share it exclude each other.
    pub name: String,
    /// Who we are. Has to differ between any two processes, restarts of one included.
    pub identity: String,
    /// How long others wait for a silent leader. Written into the Lease in whole seconds, rounded up.
    pub lease_duration: Duration,
    /// After how long without a renewal a leader gives up by itself.
    pub renew_deadline: Duration,
    /// The pause between two renewals or two looks.
    pub retry_period: Duration,
}

impl LeaseSettings {
    /// Settings with the default timings.
    pub fn new(
        namespace: impl Into<String>,
        name: impl Into<String>,
        identity: impl Into<String>,
    ) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: LEASE_DURATION,
            renew_deadline: RENEW_DEADLINE,
            retry_period: RETRY_PERIOD,
        }
    }

    fn check(&self) -> Result<(), UnusableLease> {
        if self.identity.is_empty() {
            return Err(UnusableLease::NoIdentity);
        }
        let ordered = Duration::ZERO < self.retry_period
            && self.retry_period < self.renew_deadline
            && self.renew_deadline < self.lease_duration;
        if ordered {
            Ok(())
        } else {
            Err(UnusableLease::Timings {
                lease: self.lease_duration,
                renew: self.renew_deadline,
                retry: self.retry_period,
            })
        }
    }

    /// Leaves room for three attempts before the deadline, even if the first two vanish without an answer.
    fn request_timeout(&self) -> Duration {
        self.renew_deadline.saturating_sub(self.retry_period) / 3
    }

    /// The pause after a renewal that failed: the deadline approaches.
    fn hurried_retry(&self) -> Duration {
        self.retry_period / 4
    }

    /// The retry period, spread upwards so that standbys do not march in step.
    fn jittered_retry(&self) -> Duration {
        self.retry_period.mul_f64(rand::random_range(1.0..1.2_f64))
    }
}

/// Why a Lease cannot be campaigned for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnusableLease {
    /// An empty holder means a free Lease, hence nobody can be called that.
    #[error("the identity for leader election is empty")]
    NoIdentity,
    /// The timings would let two replicas lead at once, or none for long.
    #[error(
        "leader election needs 0 < retry period ({retry:?}) < renew deadline ({renew:?}) < lease duration ({lease:?})"
    )]
    Timings {
        /// The configured lease duration.
        lease: Duration,
        /// The configured renew deadline.
        renew: Duration,
        /// The configured retry period.
        retry: Duration,
    },
}

/// What a process knows about its own leadership. Cheap to clone and to ask.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// Until when we lead; absent where there is no election at all.
    until: Option<watch::Receiver<Option<Instant>>>,
    lost: CancellationToken,
}

impl Leadership {
    /// Leadership without an election, for an operator that runs once.
    pub fn always() -> Self {
        Self {
            until: None,
            lost: CancellationToken::new(),
        }
    }

    /// Whether we lead right now. Compares with the local deadline at the moment of the call, so that the answer is right
    /// even where the task that renews has not been scheduled for a while.
    pub fn is_leader(&self) -> bool {
        !self.lost.is_cancelled()
            && self
                .until
                .as_ref()
                .is_none_or(|until| lasts(&until.borrow()))
    }

    /// Waits until we lead. Never ends once leadership has been lost: select it against [`Leadership::lost`].
    pub async fn leading(&self) {
        if let Some(until) = &self.until
            && until.clone().wait_for(lasts).await.is_err()
        {
            future::pending::<()>().await;
        }
    }

    /// Cancelled when leadership is over for good: lost, released, or the campaign is gone. Cancelling the returned token
    /// ends nothing but what was derived from it.
    pub fn lost(&self) -> CancellationToken {
        self.lost.child_token()
    }
}

#[expect(clippy::ref_option, reason = "the signature that wait_for asks for")]
fn lasts(until: &Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() < until)
}

/// How a campaign ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a lost leadership has to end the process"]
pub enum Ended {
    /// Shut down before it led.
    NeverLed,
    /// Shut down while it led; the Lease was given back where the apiserver could be reached.
    Released,
    /// Led, and does so no longer. The process should end.
    Lost {
        /// What happened, as a sentence for the log.
        why: String,
    },
}

/// Prepares to campaign. Nothing is sent before [`Campaign::run`].
pub fn campaign(
    client: Client,
    settings: LeaseSettings,
) -> Result<(Leadership, Campaign), UnusableLease> {
    settings.check()?;
    let (until, receiver) = watch::channel(None);
    let lost = CancellationToken::new();
    let leadership = Leadership {
        until: Some(receiver),
        lost: lost.clone(),
    };
    let campaign = Campaign::new(client, settings, until, lost.drop_guard());
    Ok((leadership, campaign))
}

#[cfg(test)]
mod tests;
