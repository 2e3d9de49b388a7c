//! Guest operations in the background: one at a time per container, each on a console connection of its own, the object woken at the
//! end. A reconcile never waits for a guest; it starts an operation and reads here what the last one found.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{Instrument, debug, info};

use crate::{
    fleet::Cluster,
    guest::{self, GuestError, GuestFacts, GuestKey, GuestOp},
    memory::Failure,
    wake::{ObjectKey, Wakes},
};

/// What is known of a guest.
#[derive(Debug, Clone, Default)]
pub struct GuestView {
    /// The operation under way, by name.
    pub busy: Option<&'static str>,
    /// What the last operation found, and when.
    pub facts: Option<(Arc<GuestFacts>, Instant)>,
    /// Why the last one failed.
    pub trouble: Option<Failure>,
    /// The console belongs to a human: not a failure, but nothing can be done meanwhile.
    pub console_busy: Option<String>,
}

impl GuestView {
    /// The facts, however old.
    pub fn known(&self) -> Option<&GuestFacts> {
        self.facts.as_ref().map(|(facts, _)| &**facts)
    }
}

/// The guests entered, by the object's uid.
#[derive(Debug, Default)]
pub struct Sessions {
    by_uid: Mutex<HashMap<String, GuestView>>,
}

/// Where an operation is to happen, and who wants to know of it.
pub struct Visit {
    /// Through whose API.
    pub cluster: Arc<Cluster>,
    /// Node of the container.
    pub node: String,
    /// Container and object.
    pub key: GuestKey,
    /// To be woken at the end.
    pub who: ObjectKey,
    /// How.
    pub wakes: Wakes,
}

impl Sessions {
    fn with<T>(&self, uid: &str, f: impl FnOnce(&mut GuestView) -> T) -> T {
        f(self.by_uid.lock().unwrap_or_else(PoisonError::into_inner).entry(uid.to_owned()).or_default())
    }

    /// What is known.
    pub fn view(&self, uid: &str) -> GuestView {
        self.with(uid, |v| v.clone())
    }

    /// The guest was stopped, started or replaced: what was found in it says nothing any more.
    pub fn outdated(&self, uid: &str) {
        self.with(uid, |v| v.facts = None);
    }

    /// The object is gone.
    pub fn forget(&self, uid: &str) {
        self.by_uid.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Starts an operation unless one is under way.
    pub fn start(self: &Arc<Self>, visit: Visit, op: GuestOp, limit: Duration) {
        let uid = visit.key.uid.clone();
        let free = self.with(&uid, |v| v.busy.is_none().then(|| v.busy = Some(op.name())).is_some());
        if !free {
            return;
        }
        let sessions = Arc::clone(self);
        let span = tracing::info_span!("guest", who = %visit.who, vmid = visit.key.vmid, op = op.name());
        tokio::spawn(
            async move {
                let outcome = match tokio::time::timeout(limit, enter(&visit, &op)).await {
                    Ok(outcome) => outcome,
                    Err(_) => Err(GuestError::timeout(op.name(), limit)),
                };
                sessions.with(&uid, |view| view.ended(&op, outcome));
                visit.wakes.wake(&visit.who);
            }
            .instrument(span),
        );
    }
}

impl GuestView {
    fn ended(&mut self, op: &GuestOp, outcome: Result<GuestFacts, GuestError>) {
        self.busy = None;
        self.console_busy = None;
        match outcome {
            Ok(facts) => {
                debug!(?facts.init, "guest operation done");
                self.facts = Some((Arc::new(facts), Instant::now()));
                self.trouble = None;
            }
            Err(e) => {
                info!(error = %e, "guest operation failed");
                if let GuestError::ConsoleBusy { .. } = &e {
                    self.console_busy = Some(e.to_string());
                }
                let count = self.trouble.as_ref().filter(|t| t.what == op.name()).map_or(0, |t| t.count) + 1;
                self.trouble = Some(Failure { what: op.name().to_owned(), message: e.to_string(), count, at: Instant::now() });
            }
        }
    }
}

async fn enter(visit: &Visit, op: &GuestOp) -> Result<GuestFacts, GuestError> {
    let console = visit.cluster.client().ct_console(&visit.node, visit.key.vmid).await.map_err(|e| GuestError::unreached(&e))?;
    guest::run(console, &visit.key, op).await
}
