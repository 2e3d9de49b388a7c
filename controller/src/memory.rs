//! What is remembered of an object between passes and may be lost at any moment: failures to count, guests looked into.
//!
//! Nothing that the next step depends on lives here alone; after a restart it is found again or counted anew.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::by_uid::ByUid;

/// So often is something tried before `Stalled` says that somebody should look.
pub const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// A failure that repeats: tasks that end badly, guests that can't be entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What failed, by a bounded name (a task's type, a guest operation).
    pub what: String,
    /// What was said.
    pub message: String,
    /// How often in a row.
    pub count: u32,
    /// The last time.
    pub at: Instant,
}

impl Failure {
    /// The one after `last`: it counts on where the same thing fails again.
    pub(crate) fn after(last: Option<&Self>, what: &str, message: &str) -> Self {
        Self {
            what: what.to_owned(),
            message: message.to_owned(),
            count: last.filter(|f| f.what == what).map_or(0, |f| f.count) + 1,
            at: Instant::now(),
        }
    }

    /// Often enough: a person should look.
    pub fn exhausted(&self) -> bool {
        self.count >= TRIES
    }

    /// What is left of the pause before the next try; `None` when it is over.
    pub fn pause_left(&self) -> Option<Duration> {
        let pause = FIRST_PAUSE
            .saturating_mul(1 << self.count.saturating_sub(1).min(10))
            .min(LONGEST_PAUSE);
        pause
            .checked_sub(self.at.elapsed())
            .filter(|left| !left.is_zero())
    }
}

#[derive(Debug, Default)]
struct Remembered {
    failure: Option<Failure>,
    last_upid: Option<String>,
    skipped_devices: BTreeSet<String>,
}

/// Memories by uid.
#[derive(Debug, Default)]
pub struct Memory {
    by_uid: ByUid<Remembered>,
}

impl Memory {
    /// The failure that repeats, if any.
    pub fn failure(&self, uid: &str) -> Option<Failure> {
        self.by_uid.with(uid, |r| r.failure.clone())
    }

    /// Counts a failed task, once per UPID however often it is looked at.
    pub fn task_failed(&self, uid: &str, upid: &str, what: &str, message: &str) {
        self.by_uid.with(uid, |r| {
            if r.last_upid.as_deref() != Some(upid) {
                r.last_upid = Some(upid.to_owned());
                r.count(what, message);
            }
        });
    }

    /// A task went well: what failed before is over. Once per UPID, so that an old success can't hide a newer failure.
    pub fn task_succeeded(&self, uid: &str, upid: &str) {
        self.by_uid.with(uid, |r| {
            if r.last_upid.as_deref() != Some(upid) {
                r.last_upid = Some(upid.to_owned());
                r.failure = None;
            }
        });
    }

    /// Something other than a task failed.
    pub fn failed(&self, uid: &str, what: &str, message: &str) {
        self.by_uid.with(uid, |r| r.count(what, message));
    }

    /// The same went well.
    pub fn recovered(&self, uid: &str, what: &str) {
        self.by_uid.with(uid, |r| {
            r.failure = r.failure.take().filter(|f| f.what != what);
        });
    }

    /// Device nodes that the host turned out not to have, among those that are optional.
    pub fn skipped_devices(&self, uid: &str) -> BTreeSet<String> {
        self.by_uid.with(uid, |r| r.skipped_devices.clone())
    }

    /// The host lacks this optional device node.
    pub fn skip_device(&self, uid: &str, path: &str) {
        self.by_uid
            .with(uid, |r| r.skipped_devices.insert(path.to_owned()));
    }

    /// The object is gone.
    pub fn forget(&self, uid: &str) {
        self.by_uid.forget(uid);
    }
}

impl Remembered {
    fn count(&mut self, what: &str, message: &str) {
        self.failure = Some(Failure::after(self.failure.as_ref(), what, message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_task_counts_once_and_another_kind_starts_anew() {
        let memory = Memory::default();
        memory.task_failed("u", "UPID:1", "vzcreate", "no space");
        memory.task_failed("u", "UPID:1", "vzcreate", "no space");
        assert_eq!(memory.failure("u").unwrap().count, 1);
        memory.task_failed("u", "UPID:2", "vzcreate", "no space");
        assert_eq!(memory.failure("u").unwrap().count, 2);
        assert!(memory.failure("u").unwrap().pause_left().is_some());
        memory.task_failed("u", "UPID:3", "vzstart", "no init");
        assert_eq!(memory.failure("u").unwrap().count, 1);
        memory.task_succeeded("u", "UPID:4");
        assert_eq!(memory.failure("u"), None);
    }
}
