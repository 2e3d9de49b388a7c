//! Runs tasks as Proxmox's forked workers run: the call has its UPID at once, the work goes on, and it can be stopped, fail or be killed.

use std::{future::Future, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    auth::access::Identity,
    core::Core,
    fault::TaskEffect,
    model::task::{Task, Upid},
};

/// How often a slow task says something.
const STEP: Duration = Duration::from_millis(100);

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

impl From<anyhow::Error> for Broken {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(format!("{error:#}"))
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
    killed: CancellationToken,
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
                None | Some(TaskEffect::KillLate) => tokio::time::sleep(length).await,
                Some(TaskEffect::Warn { text }) => {
                    self.warn(text);
                    tokio::time::sleep(length).await;
                }
                Some(effect) => {
                    tokio::time::sleep(length / 2).await;
                    match effect {
                        TaskEffect::Fail { text } => return Err(Broken::Failed(text.clone())),
                        TaskEffect::Kill => return Err(Broken::Killed),
                        TaskEffect::Hang | TaskEffect::Stuck => std::future::pending().await,
                        TaskEffect::Slow { seconds } => self.dawdle(*seconds).await,
                        TaskEffect::KillLate | TaskEffect::Warn { .. } => {}
                    }
                }
            }
            Ok(())
        };
        tokio::select! {
            done = work => done,
            () = self.interrupted() => Err(Broken::Failed("interrupted by signal".to_owned())),
            () = self.core.stop.cancelled() => Err(Broken::Killed),
        }
    }

    /// Where the effect is there but nothing has been tidied up yet; a late killer strikes here.
    pub(crate) fn late(&self) -> Result<(), Broken> {
        if self.fault == Some(TaskEffect::KillLate) {
            return Err(Broken::Killed);
        }
        Ok(())
    }

    /// A worker that was asked to end, and does; one that is stuck in its cleaning up never gets there.
    async fn interrupted(&self) {
        self.cancel.cancelled().await;
        if self.fault == Some(TaskEffect::Stuck) {
            std::future::pending::<()>().await;
        }
    }

    /// Slow work that says that it goes on.
    async fn dawdle(&self, seconds: f64) {
        let total = Duration::from_secs_f64(seconds.max(0.0));
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < total {
            tokio::time::sleep(STEP.min(total.saturating_sub(begun.elapsed()))).await;
            let share = begun.elapsed().as_secs_f64() / total.as_secs_f64();
            self.log(format!("transferred {:.0} %", share.min(1.0) * 100.0));
        }
    }

    /// Waits, unless the task is stopped.
    pub(crate) async fn pause(&self, length: Duration) -> Result<(), Broken> {
        tokio::select! {
            () = tokio::time::sleep(length) => Ok(()),
            () = self.interrupted() => Err(Broken::Failed("interrupted by signal".to_owned())),
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
    let (upid, cancel, killed) = {
        let mut state = core.state();
        let booted = state.nodes.get(node).map_or(0, |node| node.booted);
        let (upid, cancel) = state.tasks.begin(node, booted, kind, id, &who.id());
        let killed = state.tasks.get(&upid).map(|task| task.killed.clone());
        (upid, cancel, killed.unwrap_or_default())
    };
    let job = Arc::new(Job {
        core: Arc::clone(core),
        upid: upid.clone(),
        cancel,
        killed,
        fault: core.faults.strike_task(kind, id),
    });
    let done = work(Arc::clone(&job));
    core.running.spawn(async move {
        // A killed worker stops where it is: what it held is free, what it has made stays.
        let result = tokio::select! {
            result = done => result,
            () = job.killed.cancelled() => Err(Broken::Killed),
        };
        job.with_task(|task| match &result {
            Ok(()) => task.end(&Ok(())),
            Err(Broken::Failed(text)) => task.end(&Err(text.clone())),
            Err(Broken::Killed) => task.kill(),
        });
    });
    upid.to_string()
}
