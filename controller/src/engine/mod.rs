//! The one reconcile loop, generic over [`Kind`].
//!
//! The engine owns what every kind needs and none should write again: decode guard, deadline, panic capture, finalizer, back-off,
//! pause, events, metrics, the status write and the choice of when to look again. It decides nothing about Proxmox.

mod backoff;
mod drive;
mod pass;
mod undecodable;
mod write;

use std::{fmt::Debug, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt, core::DeserializeGuard, runtime::controller::Action,
};
use serde::{Serialize, de::DeserializeOwned};
use tracing::{Instrument, debug, error, info, warn};

pub use backoff::Backoffs;
pub(crate) use drive::{Streams, drive};
pub(crate) use pass::Pass;
pub use pass::{Announcement, Plan, Publication, Receipt, StartedTask, Verdict};
pub(crate) use write::{Latest, MANAGER, apply_status};

use crate::{
    context::Context,
    fault::{Class, Fault},
    memory::TRIES,
    wake::{KindName, ObjectKey},
};

/// A whole pass may take so long; every call in it has a shorter limit of its own.
const DEADLINE: Duration = Duration::from_secs(90);
/// A task wakes its object when it ends; should that be lost, it is looked at after this.
const TASK_RECHECK: Duration = Duration::from_secs(30);
/// Passes that end with a change are followed by the next at once.
const AT_ONCE: Duration = Duration::from_millis(1);

/// What a step is called in logs and metrics, and in words for people.
pub trait Named: Debug {
    /// A bounded name.
    fn name(&self) -> &'static str;
    /// A phrase that completes "next: …".
    fn phrase(&self) -> String;
}

/// What the engine needs to know of a kind: the five stages, each in a file of that name.
pub(crate) trait Kind:
    Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Which one it is.
    const NAME: KindName;
    /// A spec that makes sense, all references resolved.
    type Desired: Send + Sync;
    /// What is there.
    type Observed: Send + Sync;
    /// What can be done.
    type Step: Named + Clone + Send + Sync;
    /// What is reported.
    type Status: Serialize + PartialEq + Clone + Send + Sync;

    /// The API for this object's scope.
    fn api(client: Client, namespace: Option<&str>) -> Api<Self>;
    /// The status as stored.
    fn stored(&self) -> Option<&Self::Status>;

    /// Spec and references; reads Kubernetes only. Fails with the user's fault in his words.
    fn desired(
        &self,
        cx: &Arc<Context>,
    ) -> impl Future<Output = Result<Self::Desired, Fault>> + Send;
    /// What is there; never writes.
    fn observe(
        &self,
        desired: &Self::Desired,
        cx: &Arc<Context>,
    ) -> impl Future<Output = Result<Self::Observed, Fault>> + Send;
    /// Pure: what to do about the difference.
    fn plan(
        &self,
        desired: &Self::Desired,
        observed: &Self::Observed,
        now: Timestamp,
    ) -> Plan<Self::Step>;
    /// One mutation.
    fn act(
        &self,
        step: &Self::Step,
        desired: &Self::Desired,
        observed: &Self::Observed,
        cx: &Arc<Context>,
    ) -> impl Future<Output = Result<Receipt, Fault>> + Send;
    /// Pure: what to report.
    fn status(&self, pass: &Pass<Self>, now: Timestamp) -> Self::Status;
    /// Brings in line with the status what Kubernetes holds for the object beside it: a report, too, and written where it differs.
    fn publish(
        &self,
        _status: &Self::Status,
        _cx: &Arc<Context>,
    ) -> impl Future<Output = Publication> + Send {
        async { Publication::default() }
    }
    /// Whether the object is this operator's at all: side by side, each has its hypervisors.
    fn concerns(&self, cx: &Arc<Context>) -> impl Future<Output = bool> + Send;
    /// The object is gone: forget it.
    fn forget(&self, cx: &Arc<Context>);
}

/// An object's key.
pub(crate) fn key_of<K: Kind>(object: &K) -> ObjectKey {
    ObjectKey {
        kind: K::NAME,
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    }
}

/// One pass over one object. Never fails: what went wrong stands in the object's status, and the returned action says when to look again.
pub(crate) async fn reconcile<K: Kind>(
    guard: Arc<DeserializeGuard<K>>,
    cx: Arc<Context>,
) -> Result<Action, std::convert::Infallible> {
    cx.filled.all().await;
    let started = std::time::Instant::now();
    let kind: &'static str = K::NAME.into();
    let (result, action) = match &guard.0 {
        Err(invalid) => {
            warn!(kind, name = invalid.metadata.name, error = %invalid.error, "object does not decode");
            undecodable::report::<K>(&invalid.metadata, &invalid.error, &cx).await;
            ("undecodable", Action::requeue(cx.settings.slow_recheck))
        }
        Ok(object) => {
            let object = cx.latest::<K>(object);
            let uid = object.uid().unwrap_or_default();
            let span = tracing::info_span!("reconcile", object = %key_of(&*object));
            let pass = AssertUnwindSafe(pass(&object, &cx)).catch_unwind();
            match tokio::time::timeout(DEADLINE, pass).instrument(span).await {
                Ok(Ok(next)) => next.settle(&uid, &cx),
                Ok(Err(_)) => {
                    cx.metrics.bug(kind);
                    error!(
                        kind,
                        name = object.name_any(),
                        "a reconcile panicked; this is a bug"
                    );
                    ("panic", Action::requeue(cx.settings.slow_recheck))
                }
                Err(_) => {
                    warn!(
                        kind,
                        name = object.name_any(),
                        "a pass took longer than {DEADLINE:?} and was ended"
                    );
                    ("deadline", Action::requeue(cx.backoffs.next(&uid)))
                }
            }
        }
    };
    cx.metrics.reconcile(kind, result, started.elapsed());
    Ok(action)
}

/// When to look again, before back-off is applied.
enum Next {
    Now,
    At(Duration),
    OnWake,
    Failed(Class),
    Gone,
}

impl Next {
    /// A fault has its own back-off, and that it is reset by the next success must stay so.
    fn at_latest(self, recheck: Option<Duration>) -> Self {
        match (self, recheck) {
            (Self::At(delay), Some(recheck)) => Self::At(delay.min(recheck)),
            (Self::OnWake, Some(recheck)) => Self::At(recheck),
            (next, _) => next,
        }
    }

    fn settle(self, uid: &str, cx: &Context) -> (&'static str, Action) {
        match self {
            Self::Failed(Class::Retry) => ("retry", Action::requeue(cx.backoffs.next(uid))),
            Self::Failed(Class::User) => ("user", Action::requeue(cx.settings.slow_recheck)),
            Self::Failed(Class::Bug) => ("bug", Action::requeue(cx.settings.slow_recheck)),
            next => {
                cx.backoffs.reset(uid);
                match next {
                    Self::Now => ("changed", Action::requeue(AT_ONCE)),
                    Self::At(delay) => ("ok", Action::requeue(delay)),
                    _ => ("ok", Action::await_change()),
                }
            }
        }
    }
}

async fn pass<K: Kind>(object: &Arc<K>, cx: &Arc<Context>) -> Next {
    if !object.concerns(cx).await {
        return Next::OnWake;
    }
    let deleting = object.meta().deletion_timestamp.is_some();
    let held = object
        .finalizers()
        .iter()
        .any(|f| f == phoenix_crds::FINALIZER);
    match (deleting, held) {
        (true, false) => {
            object.forget(cx);
            return Next::OnWake;
        }
        (false, false) => {
            // the update that this makes is the next pass; nothing is created before the finalizer stands
            return match write::add_finalizer(&**object, cx).await {
                Ok(()) => Next::OnWake,
                Err(e) => failed_write(&e),
            };
        }
        _ => {}
    }
    let paused = object
        .annotations()
        .get(phoenix_crds::ANNOTATION_PAUSED)
        .is_some_and(|v| v == "true");
    let mut pass = stages(object, paused, cx).await;
    for announcement in &pass.announcements() {
        write::announce(&**object, announcement, cx).await;
    }
    let now = Timestamp::now();
    let mut status = object.status(&pass, now);
    pass.published = object.publish(&status, cx).await;
    if pass.published.finding.is_some() {
        status = object.status(&pass, now);
    }
    // the next pass follows at once and reports more; a write for each small step would only wake everybody who watches
    let passing = matches!(next(&pass, paused), Next::Now)
        && pass.receipt.as_ref().is_some_and(|r| r.vmid.is_none());
    if object.stored() != Some(&status)
        && !passing
        && let Err(e) = write::apply_status(&**object, status, None, cx).await
    {
        return failed_write(&e);
    }
    if matches!(pass.plan.as_ref().map(|p| &p.verdict), Some(Verdict::Gone)) && !paused {
        return match write::remove_finalizer(&**object, cx).await {
            Ok(()) => {
                info!("gone");
                object.forget(cx);
                Next::Gone
            }
            Err(e) => failed_write(&e),
        };
    }
    next(&pass, paused).at_latest(pass.published.recheck)
}

async fn stages<K: Kind>(object: &Arc<K>, paused: bool, cx: &Arc<Context>) -> Pass<K> {
    let exhausted = cx.backoffs.count(&object.uid().unwrap_or_default()) >= TRIES;
    let mut pass = Pass {
        paused,
        exhausted,
        ..Pass::default()
    };
    let desired = match object.desired(cx).await {
        Ok(desired) => desired,
        Err(fault) => return pass.failed(fault),
    };
    let observed = match object.observe(&desired, cx).await {
        Ok(observed) => observed,
        Err(fault) => {
            pass.desired = Some(desired);
            return pass.failed(fault);
        }
    };
    let plan = object.plan(&desired, &observed, Timestamp::now());
    if let (Verdict::Do(step), false) = (&plan.verdict, paused) {
        if cx.leadership.is_leader() {
            info!(step = step.name(), "{}", step.phrase());
            cx.metrics.step(K::NAME.into(), step.name());
            match object.act(step, &desired, &observed, cx).await {
                Ok(receipt) => pass.receipt = Some(receipt),
                Err(fault) => {
                    warn!(
                        step = step.name(),
                        reason = <&str>::from(fault.reason),
                        "{}",
                        fault.message
                    );
                    pass.fault = Some(fault);
                }
            }
        } else {
            debug!("not the leader any more: nothing is changed");
        }
    }
    pass.desired = Some(desired);
    pass.observed = Some(observed);
    pass.plan = Some(plan);
    pass
}

fn next<K: Kind>(pass: &Pass<K>, paused: bool) -> Next {
    if let Some(fault) = &pass.fault {
        return Next::Failed(fault.class);
    }
    match pass.plan.as_ref().map(|p| &p.verdict) {
        None => Next::Failed(Class::Bug),
        Some(Verdict::Gone) => Next::OnWake,
        Some(Verdict::Do(_)) if paused => Next::OnWake,
        Some(Verdict::Do(_)) => match &pass.receipt {
            Some(receipt) if receipt.task.is_some() || receipt.wakes => Next::At(TASK_RECHECK),
            _ => Next::Now,
        },
        Some(Verdict::Done { recheck }) => Next::At(*recheck),
        Some(Verdict::Wait { until }) => Next::At(*until),
        Some(Verdict::Blocked { recheck }) => recheck.map_or(Next::Failed(Class::User), Next::At),
    }
}

fn failed_write(error: &kube::Error) -> Next {
    match error {
        kube::Error::Api(s) if s.is_not_found() => Next::OnWake,
        // somebody wrote meanwhile: the newer object is on its way to us
        kube::Error::Api(s) if s.is_conflict() => Next::At(Duration::from_millis(200)),
        kube::Error::Api(s) => {
            warn!(code = s.code, "Kubernetes refused a write: {}", s.message);
            Next::Failed(Class::Retry)
        }
        other => {
            warn!(error = %other, "Kubernetes could not be written to");
            Next::Failed(Class::Retry)
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_refused_write_is_tried_again_with_back_off_but_a_conflict_at_once() {
        let refused = |code, reason| {
            let status = Status::failure("no", reason).with_code(code);
            failed_write(&kube::Error::Api(Box::new(status)))
        };
        assert!(matches!(refused(409, "Conflict"), Next::At(_)));
        assert!(matches!(refused(404, "NotFound"), Next::OnWake));
        // such as a status that the CRD does not allow: it would be as invalid a moment later
        assert!(matches!(
            refused(422, "Invalid"),
            Next::Failed(Class::Retry)
        ));
    }
}
