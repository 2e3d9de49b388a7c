//! The task watcher: follows the Proxmox tasks that we started and wakes their objects when they end.
//!
//! Young tasks are asked about often and old ones seldom, so that a clone of a second isn't noticed two seconds late and a copy of an
//! hour doesn't cost a thousand calls. What it knows is a cache: after a restart the UPID in an object's status is simply watched again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use proxmox_client::{Client, ErrorKind, TaskState, Upid};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::wake::{ObjectKey, Wakes};

const FIRST: Duration = Duration::from_millis(80);
const LONGEST: Duration = Duration::from_secs(2);
/// Outcomes older than this are forgotten; the object has long read them, or asks again.
const KEPT: Duration = Duration::from_hours(1);

#[derive(Debug)]
struct Watched {
    state: TaskState,
    since: Instant,
}

/// Tasks in flight and their outcomes, by UPID.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    known: Arc<Mutex<HashMap<String, Watched>>>,
}

/// Told the type and the outcome of each finished task.
pub(super) type OnEnd = Arc<dyn Fn(&Upid, &TaskState) + Send + Sync>;

impl Tasks {
    /// What is known of a task; `None` when it isn't watched.
    pub fn state(&self, upid: &str) -> Option<TaskState> {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(upid)
            .map(|w| w.state.clone())
    }

    /// How many are running.
    pub fn running(&self) -> usize {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .values()
            .filter(|w| matches!(w.state, TaskState::Running))
            .count()
    }

    /// Watches a task and wakes `who` when it ends; a second call for the same task changes nothing.
    pub(super) fn watch(
        &self,
        client: Client,
        upid: Upid,
        who: ObjectKey,
        wakes: Wakes,
        on_end: OnEnd,
        stop: CancellationToken,
    ) {
        let id = upid.to_string();
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|_, w| matches!(w.state, TaskState::Running) || w.since.elapsed() < KEPT);
            if known.contains_key(&id) {
                return;
            }
            known.insert(
                id.clone(),
                Watched {
                    state: TaskState::Running,
                    since: Instant::now(),
                },
            );
        }
        let known = Arc::clone(&self.known);
        tokio::spawn(async move {
            let state = tokio::select! {
                () = stop.cancelled() => return,
                state = follow(&client, &upid) => state,
            };
            on_end(&upid, &state);
            known.lock().unwrap_or_else(PoisonError::into_inner).insert(
                id,
                Watched {
                    state,
                    since: Instant::now(),
                },
            );
            wakes.wake(&who);
        });
    }
}

async fn follow(client: &Client, upid: &Upid) -> TaskState {
    let mut pause = FIRST;
    loop {
        tokio::time::sleep(pause).await;
        pause = pause.mul_f32(1.2).min(LONGEST);
        match client.task_status(upid).await {
            Ok(TaskState::Running) => {}
            Ok(ended) => return ended,
            // whoever may not see the task any more must look at its effect
            Err(e) if matches!(e.kind, ErrorKind::Forbidden) => return TaskState::Unknown,
            Err(e) => {
                debug!(%upid, error = %e, "task status not readable, asking again");
                pause = LONGEST;
            }
        }
    }
}
