//! What the stages of a pass yield, and what is made of it.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::events::EventType;

use super::Kind;
use crate::{condition::Finding, fault::Fault};

/// What to do now.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict<S> {
    /// All is as asked; look again after `recheck`.
    Done {
        /// The slow cycle.
        recheck: Duration,
    },
    /// Something goes on that ends by itself; a wake comes, or else a look after `until`.
    Wait {
        /// At the latest.
        until: Duration,
    },
    /// Somebody has to do something; `None` leaves the slow re-check to the engine.
    Blocked {
        /// When to look whether it was done.
        recheck: Option<Duration>,
    },
    /// The one step to take.
    Do(S),
    /// Nothing is left of it: the finalizer may go.
    Gone,
}

/// A plan: what was found, what to do, and what lies ahead in words.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan<S> {
    /// What each check found, in their order.
    pub findings: Vec<Finding>,
    /// What to do now.
    pub verdict: Verdict<S>,
    /// The steps ahead, for people.
    pub ahead: Vec<String>,
    /// The checks ended before all could speak, for want of a look: what earlier passes found of the others still stands.
    pub partial: bool,
}

/// A running Proxmox task that a step started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartedTask {
    /// Its UPID.
    pub upid: String,
    /// Its type, as Proxmox names it (`vzcreate`).
    pub kind: String,
    /// When.
    pub at: Timestamp,
}

/// A Kubernetes event.
#[derive(Debug, Clone, PartialEq)]
pub struct Announcement {
    /// Normal or Warning.
    pub kind: EventType,
    /// CamelCase.
    pub reason: &'static str,
    /// Constant for a reason where it can be: repeats keep the first note.
    pub note: String,
}

/// What a step left behind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Receipt {
    /// The Proxmox task that it started.
    pub task: Option<StartedTask>,
    /// A VMID that was chosen and persisted.
    pub vmid: Option<u32>,
    /// Something was started whose end wakes the object.
    pub wakes: bool,
    /// What a person would want to know.
    pub announcement: Option<Announcement>,
}

/// What was found of the objects that Kubernetes holds for ours.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Publication {
    /// Whether they stand.
    pub finding: Option<Finding>,
    /// When to look again at the latest.
    pub recheck: Option<Duration>,
}

/// All that the stages yielded, or why they stopped: status is computed from this alone.
#[derive(Debug)]
pub(crate) struct Pass<K: Kind> {
    /// First stage.
    pub desired: Option<K::Desired>,
    /// Second.
    pub observed: Option<K::Observed>,
    /// Third.
    pub plan: Option<Plan<K::Step>>,
    /// Fourth.
    pub receipt: Option<Receipt>,
    /// Why a stage failed.
    pub fault: Option<Fault>,
    /// What was found of the objects beside it.
    pub published: Publication,
    /// The object is paused: nothing was done.
    pub paused: bool,
    /// Passes went wrong so often in a row that somebody should look.
    pub exhausted: bool,
}

impl<K: Kind> Default for Pass<K> {
    fn default() -> Self {
        Self {
            desired: None,
            observed: None,
            plan: None,
            receipt: None,
            fault: None,
            published: Publication::default(),
            paused: false,
            exhausted: false,
        }
    }
}

impl<K: Kind> Pass<K> {
    pub(super) fn failed(self, fault: Fault) -> Self {
        Self {
            fault: Some(fault),
            ..self
        }
    }

    pub(super) fn announcements(&self) -> Vec<Announcement> {
        self.receipt
            .iter()
            .filter_map(|r| r.announcement.clone())
            .collect()
    }

    /// Findings of the plan and the fault, the fault in the place of what its condition said before, and what was found beside it.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> =
            self.plan.iter().flat_map(|p| p.findings.clone()).collect();
        if let Some(fault) = &self.fault {
            let found = fault.finding(self.exhausted);
            match findings.iter_mut().find(|f| f.condition == found.condition) {
                Some(place) => *place = found,
                None => findings.push(found),
            }
        }
        findings.extend(self.published.finding.clone());
        findings
    }

    /// Whether conditions that nothing was found of still stand.
    pub(crate) fn partial(&self) -> bool {
        self.fault.is_some() || self.plan.as_ref().is_none_or(|p| p.partial)
    }
}
