//! Tasks: how one stands, what it wrote, which are running. Nothing here waits for one.

use crate::{
    Client, Error, ErrorKind, Upid,
    call::{Call, escape},
    classify_task_exit, wire,
};
use serde::Deserialize;

/// How a task stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// It is still at work.
    Running,
    /// It succeeded.
    Ok,
    /// It succeeded with so many warnings.
    Warnings(u32),
    /// It failed.
    Failed {
        /// Proxmox's text.
        exit: String,
    },
    /// Proxmox no longer knows it: what it did has to be seen from its effects.
    Unknown,
}

impl TaskState {
    /// Reads an exit status.
    pub fn from_exit(exit: &str) -> Self {
        if exit == "OK" {
            return Self::Ok;
        }
        match exit.strip_prefix("WARNINGS:").map(|n| n.trim().parse()) {
            Some(Ok(n)) => Self::Warnings(n),
            Some(Err(_)) => Self::Warnings(1),
            None => Self::Failed {
                exit: exit.to_owned(),
            },
        }
    }

    /// Whether it ended well; warnings are no failure.
    pub fn succeeded(&self) -> bool {
        matches!(self, Self::Ok | Self::Warnings(_))
    }

    /// Whether it ended, one way or the other.
    pub fn is_finished(&self) -> bool {
        !matches!(self, Self::Running)
    }

    /// The class of its failure.
    pub fn failure(&self) -> Option<ErrorKind> {
        match self {
            Self::Failed { exit } => Some(classify_task_exit(exit)),
            Self::Unknown => Some(ErrorKind::Unknown),
            Self::Running | Self::Ok | Self::Warnings(_) => None,
        }
    }
}

/// A row of a node's task list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskListEntry {
    /// The task.
    pub upid: Upid,
    /// `RUNNING`, or the exit status of one that ended; absent where Proxmox does not say.
    pub status: Option<String>,
}

impl TaskListEntry {
    /// Whether it is at work: Proxmox lists tasks that have just ended among the active ones, with their exit status.
    pub fn is_running(&self) -> bool {
        self.status.as_deref().is_none_or(|s| s == "RUNNING")
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawEntry {
    #[serde(deserialize_with = "wire::text_or_empty")]
    upid: String,
    #[serde(deserialize_with = "wire::text")]
    status: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawStatus {
    #[serde(deserialize_with = "wire::text_or_empty")]
    status: String,
    #[serde(deserialize_with = "wire::text")]
    exitstatus: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Line {
    #[serde(deserialize_with = "wire::number")]
    n: Option<u64>,
    #[serde(deserialize_with = "wire::text_or_empty")]
    t: String,
}

/// What Proxmox writes in place of a log that is empty or gone.
const NO_LOG: [&str; 2] = [
    "no content",
    "unable to open file - No such file or directory",
];

impl Client {
    /// The tasks at work on a node, of one guest or of all. A token without Sys.Audit on the node sees only its own.
    pub async fn active_tasks(
        &self,
        node: &str,
        vmid: Option<u32>,
    ) -> Result<Vec<TaskListEntry>, Error> {
        let call = Call::get(
            "/nodes/{node}/tasks",
            format!("/nodes/{}/tasks", escape(node)),
        )
        .query("source", "active");
        let rows: Vec<RawEntry> = self.fetch(call.query_opt("vmid", vmid)).await?;
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                Some(TaskListEntry {
                    upid: row.upid.parse().ok()?,
                    status: row.status,
                })
            })
            .collect())
    }

    /// How a task stands.
    pub async fn task_status(&self, upid: &Upid) -> Result<TaskState, Error> {
        let call = Call::get(
            "/nodes/{node}/tasks/{upid}/status",
            format!(
                "/nodes/{}/tasks/{}/status",
                escape(&upid.node),
                escape(&upid.raw)
            ),
        );
        match self.fetch::<RawStatus>(call).await {
            Ok(raw) if raw.status == "running" => Ok(TaskState::Running),
            Ok(raw) => Ok(TaskState::from_exit(
                raw.exitstatus.as_deref().unwrap_or("unexpected status"),
            )),
            Err(error)
                if error.status == Some(400)
                    && error
                        .errors
                        .get("upid")
                        .is_some_and(|text| text.contains("no such task")) =>
            {
                Ok(TaskState::Unknown)
            }
            Err(error) => Err(error),
        }
    }

    /// The last lines of a task's log, at most so many, oldest first.
    pub async fn task_log(&self, upid: &Upid, limit: u32) -> Result<Vec<String>, Error> {
        const PAGE: u64 = 500;
        let mut start = 0;
        let mut last = std::collections::VecDeque::new();
        // The log is read from its beginning, page by page: only so does it end where the task's output ends.
        loop {
            let call = Call::get(
                "/nodes/{node}/tasks/{upid}/log",
                format!(
                    "/nodes/{}/tasks/{}/log",
                    escape(&upid.node),
                    escape(&upid.raw)
                ),
            );
            let mut page: Vec<Line> = self
                .fetch(call.query("start", start).query("limit", PAGE))
                .await?;
            page.sort_by_key(|line| line.n);
            let full = page.len() as u64 >= PAGE;
            for line in page {
                last.push_back(line.t);
                if last.len() > limit as usize {
                    last.pop_front();
                }
            }
            if !full {
                break;
            }
            start += PAGE;
        }
        if last.len() == 1
            && last
                .front()
                .is_some_and(|line| NO_LOG.contains(&line.as_str()))
        {
            last.clear();
        }
        Ok(last.into())
    }
}

#[cfg(test)]
mod tests {
    use super::TaskState;
    use crate::ErrorKind;

    #[test]
    fn warnings_are_success() {
        assert_eq!(TaskState::from_exit("OK"), TaskState::Ok);
        assert_eq!(TaskState::from_exit("WARNINGS: 3"), TaskState::Warnings(3));
        assert!(TaskState::from_exit("WARNINGS: 1").succeeded());
        let failed = TaskState::from_exit("container did not stop");
        assert!(failed.is_finished() && !failed.succeeded());
        assert_eq!(
            TaskState::from_exit("CT is locked (disk)").failure(),
            Some(ErrorKind::Locked)
        );
    }
}
