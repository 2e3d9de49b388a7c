//! Runs tasks as Proxmox's forked workers run: the call has its UPID at once, the work goes on, and it can be stopped, fail or be killed.

use std::{future::Future, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    auth::access::Identity,
    core::Core,
    fault::TaskEffect,
    model::task::{Task, Upid},
};

/// How a task ended that didn't end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Broken {
    /// An error: the work cleans up behind itself.
    Failed(String),
    /// Killed: nothing is cleaned up.
    Killed,
}

impl From<String> for Broken {
    fn from(text: String) -> Self {
        Self::Failed(text)
    }
}

impl Broken {
    /// Puts words before the text, as Perl's nested `die` does.
    pub(crate) fn within(self, prefix: &str) -> Self {
        match self {
            Self::Failed(text) => Self::Failed(format!("{prefix}{text}")),
            Self::Killed => Self::Killed,
        }
    }
}

/// A running task, seen from its own work.
pub(crate) struct Job {
    pub(crate) core: Arc<Core>,
    pub(crate) upid: Upid,
    cancel: CancellationToken,
    fault: Option<TaskEffect>,
}

impl Job {
    fn with_task(&self, change: impl FnOnce(&mut Task)) {
        if let Some(task) = self.core.state().tasks.get_mut(&self.upid) {
            change(task);
        }
    }

    pub(crate) fn log(&self, line: impl Into<String>) {
        self.with_task(|task| task.log.push(line.into()));
    }

    pub(crate) fn warn(&self, text: &str) {
        self.with_task(|task| {
            task.warnings += 1;
            task.log.push(format!("WARN: {text}"));
        });
    }

    /// Takes the time that the work takes on a real host; faults strike in the middle of it.
    pub(crate) async fn work(&self, real: Duration) -> Result<(), Broken> {
        let length = self.core.config.timing.task(real);
        let work = async {
            match &self.fault {
                None => tokio::time::sleep(length).await,
                Some(effect) => {
                    tokio::time::sleep(length / 2).await;
                    match effect {
                        TaskEffect::Fail { text } => return Err(Broken::Failed(text.clone())),
                        TaskEffect::Kill => return Err(Broken::Killed),
                        TaskEffect::Hang => std::future::pending().await,
                        TaskEffect::Slow { seconds } => {
                            tokio::time::sleep(Duration::from_secs_f64(*seconds)).await;
                        }
                    }
                }
            }
            Ok(())
        };
        tokio::select! {
            done = work => done,
            () = self.cancel.cancelled() => Err(Broken::Failed("interrupted by signal".to_owned())),
            () = self.core.stop.cancelled() => Err(Broken::Killed),
        }
    }
}

impl Job {
    /// Waits, unless the task is stopped.
    pub(crate) async fn pause(&self, length: Duration) -> Result<(), Broken> {
        tokio::select! {
            () = tokio::time::sleep(length) => Ok(()),
            () = self.cancel.cancelled() => Err(Broken::Failed("interrupted by signal".to_owned())),
            () = self.core.stop.cancelled() => Err(Broken::Killed),
        }
    }
}

/// Begins a task; the answer is its UPID.
pub(crate) fn spawn<F, W>(
    core: &Arc<Core>,
    who: &Identity,
    node: &str,
    kind: &str,
    id: &str,
    work: F,
) -> String
where
    F: FnOnce(Arc<Job>) -> W,
    W: Future<Output = Result<(), Broken>> + Send + 'static,
{
    let (upid, cancel) = {
        let mut state = core.state();
        let booted = state.nodes.get(node).map_or(0, |node| node.booted);
        state.tasks.begin(node, booted, kind, id, &who.id())
    };
    let job = Arc::new(Job {
        core: Arc::clone(core),
        upid: upid.clone(),
        cancel,
        fault: core.faults.strike_task(kind, id),
    });
    let done = work(Arc::clone(&job));
    core.running.spawn(async move {
        let result = done.await;
        job.with_task(|task| match &result {
            Ok(()) => task.end(&Ok(())),
            Err(Broken::Failed(text)) => task.end(&Err(text.clone())),
            Err(Broken::Killed) => task.kill(),
        });
    });
    upid.to_string()
}
