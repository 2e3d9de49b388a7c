//! Things that go wrong on demand.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallEffect {
    /// It is answered later.
    Delay {
        /// By how many seconds.
        seconds: f64,
    },
    /// It is answered with this instead, nothing done.
    Status {
        /// `500`, `595`…
        code: u16,
        /// The text.
        reason: String,
    },
    /// The connection is cut before anything is done.
    ResetBefore,
    /// It is done, but the connection is cut instead of an answer.
    ResetAfter,
    /// It is done, but answered `596 Connection timed out`, as the proxy does after 30 s.
    TimeoutAfter,
    /// It is done only so much later, in one of the daemon's three workers; after 30 s of that (scaled) the answer is 596.
    Slow {
        /// By how many seconds.
        seconds: f64,
    },
    /// Numbers come as texts, as Perl likes to tell them.
    TextNumbers,
}

/// What happens to a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskEffect {
    /// It fails half-way with this text and cleans up.
    Fail {
        /// Its exit status.
        text: String,
    },
    /// Its worker is killed half-way: locks and half-made volumes stay.
    Kill,
    /// Its worker is killed when the main part is done and nothing is tidied up: what it made is named in the configuration, locks stay.
    KillLate,
    /// It goes on for ever, and when it is stopped cleaning up takes longer than Proxmox waits: it is killed.
    Stuck,
    /// It succeeds with a warning.
    Warn {
        /// What it warns of.
        text: String,
    },
    /// It goes on for ever.
    Hang,
    /// It takes longer.
    Slow {
        /// By how many seconds.
        seconds: f64,
    },
}

/// A fault that waits for its victim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// For calls.
    Call {
        /// `POST`; any where left out.
        #[serde(default)]
        method: Option<String>,
        /// The end of the path, `/lxc/900/clone`, or `/clone`; where empty, any.
        #[serde(default)]
        path: String,
        /// What happens.
        effect: CallEffect,
        /// How often; for ever where left out.
        #[serde(default)]
        times: Option<u32>,
    },
    /// For tasks.
    Task {
        /// `vzclone`; any where left out.
        #[serde(default)]
        kind: Option<String>,
        /// The id in its UPID (for a clone: its source); any where left out.
        #[serde(default)]
        vmid: Option<u32>,
        /// What happens.
        effect: TaskEffect,
        /// How often; for ever where left out.
        #[serde(default)]
        times: Option<u32>,
    },
}

impl Fault {
    /// A fault for calls with that method whose path ends so, once.
    pub fn call(method: &str, path: &str, effect: CallEffect) -> Self {
        Self::Call {
            method: Some(method.to_owned()),
            path: path.to_owned(),
            effect,
            times: Some(1),
        }
    }

    /// A fault for tasks of that kind, once.
    pub fn task(kind: &str, effect: TaskEffect) -> Self {
        Self::Task {
            kind: Some(kind.to_owned()),
            vmid: None,
            effect,
            times: Some(1),
        }
    }

    /// Only for that container.
    #[must_use]
    pub fn of(mut self, id: u32) -> Self {
        if let Self::Task { vmid, .. } = &mut self {
            *vmid = Some(id);
        }
        self
    }

    /// So often.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        match &mut self {
            Self::Call { times, .. } | Self::Task { times, .. } => *times = Some(count),
        }
        self
    }

    /// Until it is cleared.
    #[must_use]
    pub fn forever(mut self) -> Self {
        match &mut self {
            Self::Call { times, .. } | Self::Task { times, .. } => *times = None,
        }
        self
    }

    fn spent(&self) -> bool {
        let (Self::Call { times, .. } | Self::Task { times, .. }) = self;
        *times == Some(0)
    }

    fn use_up(&mut self) {
        let (Self::Call { times, .. } | Self::Task { times, .. }) = self;
        if let Some(times) = times {
            *times -= 1;
        }
    }
}

/// The faults that wait.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    waiting: Mutex<Vec<Fault>>,
}

impl Faults {
    pub(crate) fn add(&self, fault: Fault) {
        if fault.spent() {
            return;
        }
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(fault);
    }

    pub(crate) fn clear(&self) {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    pub(crate) fn all(&self) -> Vec<Fault> {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn strike<T>(&self, hit: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, effect) = waiting
            .iter()
            .enumerate()
            .find_map(|(at, fault)| hit(fault).map(|effect| (at, effect)))?;
        waiting[at].use_up();
        waiting.retain(|fault| !fault.spent());
        Some(effect)
    }

    /// What happens to this call; delays add up with nothing else.
    pub(crate) fn strike_call(&self, asked: &str, asked_path: &str) -> Option<CallEffect> {
        self.strike(|fault| match fault {
            Fault::Call {
                method,
                path,
                effect,
                ..
            } => {
                let fits = method.as_deref().is_none_or(|method| method == asked)
                    && asked_path.ends_with(path.as_str());
                fits.then(|| effect.clone())
            }
            Fault::Task { .. } => None,
        })
    }

    pub(crate) fn strike_task(&self, begun: &str, id: &str) -> Option<TaskEffect> {
        self.strike(|fault| match fault {
            Fault::Task {
                kind, vmid, effect, ..
            } => {
                let fits = kind.as_deref().is_none_or(|kind| kind == begun)
                    && vmid.is_none_or(|vmid| vmid.to_string() == id);
                fits.then(|| effect.clone())
            }
            Fault::Call { .. } => None,
        })
    }
}

impl CallEffect {
    pub(crate) fn delay(&self) -> Option<Duration> {
        match self {
            Self::Delay { seconds } => Some(Duration::from_secs_f64(seconds.max(0.0))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_strike_as_often_as_asked() {
        let faults = Faults::default();
        faults.add(Fault::call("POST", "/clone", CallEffect::ResetAfter).times(2));
        assert_eq!(faults.strike_call("GET", "/nodes/pve/lxc/900/clone"), None);
        assert_eq!(
            faults.strike_call("POST", "/nodes/pve/lxc/900/clone"),
            Some(CallEffect::ResetAfter)
        );
        assert_eq!(
            faults.strike_call("POST", "/nodes/pve/lxc/900/clone"),
            Some(CallEffect::ResetAfter)
        );
        assert_eq!(faults.strike_call("POST", "/nodes/pve/lxc/900/clone"), None);
        faults.add(Fault::task("vzclone", TaskEffect::Kill).of(900).forever());
        assert_eq!(faults.strike_task("vzclone", "901"), None);
        assert_eq!(faults.strike_task("vzclone", "900"), Some(TaskEffect::Kill));
        assert_eq!(faults.all().len(), 1);
        faults.clear();
        assert_eq!(faults.strike_task("vzclone", "900"), None);
        faults.add(Fault::task("vzclone", TaskEffect::Kill).times(0));
        assert_eq!(faults.strike_task("vzclone", "900"), None);
    }

    #[test]
    fn faults_read_from_json() {
        let fault: Fault = serde_json::from_str(r#"{"call": {"method": "POST", "path": "/clone", "effect": {"status": {"code": 500, "reason": "no"}}, "times": 1}}"#).unwrap();
        assert_eq!(
            fault,
            Fault::call(
                "POST",
                "/clone",
                CallEffect::Status {
                    code: 500,
                    reason: "no".into()
                }
            )
        );
    }
}
