//! Guest operations in the background: one at a time per container, on a console that is given back when nothing follows, the object
//! woken at the end of each. A reconcile never waits for a guest; it starts an operation and reads here what the last one found.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{Instrument, debug, info};

use crate::{
    by_uid::ByUid,
    fleet::Cluster,
    guest::{Access, GuestError, GuestFacts, GuestKey, GuestOp, Session},
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

    /// How old the facts are, where there are any.
    pub fn age(&self) -> Option<Duration> {
        self.facts.as_ref().map(|(_, at)| at.elapsed())
    }
}

/// A console stays ours for so long after an operation, since another one mostly follows at once; then it is everybody's again.
const LINGER: Duration = Duration::from_secs(3);

/// An SSH server that is yet to start is tried at this pace.
const SERVER_RECHECK: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Order {
    op: GuestOp,
    limit: Duration,
}

#[derive(Debug, Default)]
struct Entry {
    view: GuestView,
    /// Leads to the session that is open, if one is.
    open: Option<UnboundedSender<Order>>,
}

/// The guests entered, by the object's uid.
#[derive(Debug, Default)]
pub struct Sessions {
    by_uid: ByUid<Entry>,
}

/// Where an operation is to happen, and who wants to know of it.
pub struct Visit {
    /// Through whose API.
    pub cluster: Arc<Cluster>,
    /// Node of the container.
    pub node: String,
    /// Container and object.
    pub key: GuestKey,
    /// By which ways it may be entered.
    pub access: Access,
    /// To be woken at the end.
    pub who: ObjectKey,
    /// How.
    pub wakes: Wakes,
}

impl Visit {
    /// Opens a session. Where it is by SSH alone, the start of the server belongs to the boot that is waited for.
    async fn open(&self, op: &GuestOp) -> Result<Session, GuestError> {
        let patience = match op {
            GuestOp::AwaitBoot { limit, .. } => *limit,
            _ => Duration::ZERO,
        };
        let end = Instant::now() + patience;
        loop {
            let client = self.cluster.client();
            match Session::open(client, &self.node, &self.key, &self.access).await {
                Err(GuestError::SshUnreached { .. }) if Instant::now() < end => {
                    tokio::time::sleep(SERVER_RECHECK).await;
                }
                outcome => return outcome,
            }
        }
    }
}

impl Sessions {
    /// What is known.
    pub fn view(&self, uid: &str) -> GuestView {
        self.by_uid
            .with_known(uid, |e| e.view.clone())
            .unwrap_or_default()
    }

    /// The guest was stopped, started or replaced: what was found in it says nothing any more, and its console is another.
    pub fn outdated(&self, uid: &str) {
        self.by_uid.with_known(uid, |e| {
            e.view.facts = None;
            e.open = None;
        });
    }

    /// The object is gone.
    pub fn forget(&self, uid: &str) {
        self.by_uid.forget(uid);
    }

    /// Starts an operation unless one is under way.
    pub fn start(self: &Arc<Self>, visit: Visit, op: GuestOp, limit: Duration) {
        let uid = visit.key.uid.clone();
        self.by_uid.with(&uid, |entry| {
            if entry.view.busy.is_some() {
                return;
            }
            entry.view.busy = Some(op.name());
            let order = Order { op, limit };
            let order = match &entry.open {
                Some(open) => match open.send(order) {
                    Ok(()) => return,
                    Err(returned) => returned.0,
                },
                None => order,
            };
            let (sender, orders) = unbounded_channel();
            // the receiver is held below, so this can't fail
            drop(sender.send(order));
            entry.open = Some(sender.clone());
            let span = tracing::info_span!("guest", who = %visit.who, vmid = visit.key.vmid);
            tokio::spawn(
                Arc::clone(self)
                    .serve(visit, sender, orders)
                    .instrument(span),
            );
        });
    }

    /// Carries out orders on one session until none has come for a while.
    async fn serve(
        self: Arc<Self>,
        visit: Visit,
        me: UnboundedSender<Order>,
        mut orders: UnboundedReceiver<Order>,
    ) {
        let uid = visit.key.uid.clone();
        let mut session: Option<Session> = None;
        while let Some(order) = self.next(&uid, &me, &mut orders).await {
            let work = async {
                let open = match session.take() {
                    Some(open) => open,
                    None => visit.open(&order.op).await?,
                };
                session.insert(open).run(&order.op).await
            };
            let outcome = match tokio::time::timeout(order.limit, work).await {
                Ok(outcome) => outcome,
                Err(_) => Err(GuestError::timeout(order.op.name(), order.limit)),
            };
            if outcome.is_err()
                && let Some(open) = session.take()
            {
                // nobody should find our silent loop on a console that we have left
                open.close().await;
            }
            // whose object is gone, has none any more
            self.by_uid
                .with_known(&uid, |entry| entry.view.ended(&order.op, outcome));
            visit.wakes.wake(&visit.who);
        }
        if let Some(session) = session {
            session.close().await;
        }
    }

    /// The next order, or `None` when it is time to leave; after that nothing is sent here any more.
    async fn next(
        &self,
        uid: &str,
        me: &UnboundedSender<Order>,
        orders: &mut UnboundedReceiver<Order>,
    ) -> Option<Order> {
        if let Ok(order) = tokio::time::timeout(LINGER, orders.recv()).await {
            return order;
        }
        // orders are given under the same lock, so none can slip in between
        self.by_uid.with_known(uid, |entry| {
            let late = orders.try_recv().ok();
            if late.is_none()
                && entry
                    .open
                    .as_ref()
                    .is_some_and(|open| open.same_channel(me))
            {
                entry.open = None;
            }
            late
        })?
    }
}

impl GuestView {
    fn ended(&mut self, op: &GuestOp, outcome: Result<GuestFacts, GuestError>) {
        self.busy = None;
        self.console_busy = None;
        match outcome {
            Ok(facts) => {
                debug!(op = op.name(), init = ?facts.init, "guest operation done");
                self.facts = Some((Arc::new(facts), Instant::now()));
                self.trouble = None;
            }
            Err(e) => {
                info!(op = op.name(), error = %e, "guest operation failed");
                if e.is_console_busy() {
                    self.console_busy = Some(e.to_string());
                }
                if e.is_host_key_changed() {
                    // what was seen may be another machine's
                    self.facts = None;
                }
                let last = self.trouble.as_ref();
                self.trouble = Some(Failure::after(last, op.name(), &e.to_string()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_at_what_is_gone_keeps_nothing_of_it() {
        let sessions = Sessions::default();
        assert!(sessions.view("gone").known().is_none());
        sessions.outdated("gone");
        assert!(sessions.by_uid.lock().is_empty());
    }
}
