//! When each system was in which state, and how much of the time was the operator's own.
//!
//! The critical path is what cannot be avoided whoever drives it: Proxmox' tasks, the guests' boots and the setups as the simulator
//! measured them, and the workload's own start, along the chain of sources that takes longest.

use std::collections::BTreeMap;

use proxmox_simulator::{
    Simulator, TaskRecord,
    guest::{GuestControl, UnitRun},
};
use serde_json::{Value, json};

use super::systems::{System, Systems};

/// The run, as data.
#[derive(Debug, Clone)]
pub struct Timeline {
    systems: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    name: String,
    vmid: Option<i64>,
    source: Option<String>,
    states: Vec<(String, f64)>,
    ready_at: f64,
    tasks: BTreeMap<String, f64>,
    boot: f64,
    setup: f64,
    workload: f64,
}

impl Entry {
    fn unavoidable(&self) -> f64 {
        self.tasks.values().sum::<f64>() + self.boot + self.setup + self.workload
    }
}

/// What the operator adds.
#[derive(Debug, Clone, Copy)]
pub struct Overhead {
    /// From apply to all Ready, in seconds.
    pub total: f64,
    /// The critical path, in seconds.
    pub critical_path: f64,
    /// One by the other.
    pub factor: f64,
}

impl Timeline {
    pub(super) fn of(systems: &Systems, simulator: &Simulator) -> Self {
        let tasks = simulator.tasks();
        let timing = simulator
            .guests()
            .map(GuestControl::timing)
            .unwrap_or_default();
        let runs = simulator
            .guests()
            .map(GuestControl::runs)
            .unwrap_or_default();
        let entries = systems.all().map(|system| {
            let workload = if system.status.vllm.is_some() {
                timing.model_load.as_secs_f64()
            } else {
                0.0
            };
            Entry {
                name: system.name.clone(),
                vmid: system.vmid,
                source: system.source.clone().filter(|s| systems.get(s).is_some()),
                states: system.states.clone(),
                ready_at: system.ready_at.unwrap_or_default(),
                tasks: own_tasks(system, systems, &tasks),
                boot: timing.boot.as_secs_f64(),
                setup: setup_seconds(system, &runs),
                workload,
            }
        });
        Self {
            systems: entries.collect(),
        }
    }

    /// Total, critical path and their ratio.
    pub fn overhead(&self) -> Overhead {
        let total = self.systems.iter().map(|s| s.ready_at).fold(0.0, f64::max);
        let critical_path = self
            .systems
            .iter()
            .map(|s| self.chain(s))
            .fold(0.0, f64::max);
        Overhead {
            total,
            critical_path,
            factor: total / critical_path.max(0.001),
        }
    }

    fn chain(&self, entry: &Entry) -> f64 {
        let above = entry
            .source
            .as_ref()
            .and_then(|s| self.systems.iter().find(|e| e.name == *s))
            .map_or(0.0, |e| self.chain(e));
        above + entry.unavoidable()
    }

    /// As `--json` prints it.
    pub fn json(&self) -> Value {
        let overhead = self.overhead();
        let systems: Vec<Value> = self
            .systems
            .iter()
            .map(|s| {
                let states: Vec<Value> = s.states.iter().map(|(state, at)| json!({"state": state, "at": rounded(*at)})).collect();
                json!({
                    "name": s.name, "vmid": s.vmid, "source": s.source, "readyAt": rounded(s.ready_at), "states": states,
                    "unavoidable": {"tasks": s.tasks, "boot": s.boot, "setup": rounded(s.setup), "workload": s.workload, "sum": rounded(s.unavoidable())},
                })
            })
            .collect();
        json!({
            "total": rounded(overhead.total), "criticalPath": rounded(overhead.critical_path), "factor": rounded(overhead.factor), "systems": systems,
        })
    }
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// The seconds that Proxmox spent on a system, by task type. A clone's task carries its source's VMID; all clones take about the same.
fn own_tasks(system: &System, systems: &Systems, tasks: &[TaskRecord]) -> BTreeMap<String, f64> {
    let id = system.vmid.map(|v| v.to_string()).unwrap_or_default();
    let mut seconds: BTreeMap<String, f64> = BTreeMap::new();
    for task in tasks
        .iter()
        .filter(|t| t.id == id && !matches!(t.kind.as_str(), "vzclone" | "vncproxy"))
    {
        *seconds.entry(task.kind.clone()).or_default() += task.seconds.unwrap_or_default();
    }
    let source = system
        .source
        .as_deref()
        .and_then(|s| systems.get(s))
        .and_then(|s| s.vmid)
        .map(|v| v.to_string());
    let clones: Vec<f64> = tasks
        .iter()
        .filter(|t| t.kind == "vzclone" && Some(&t.id) == source.as_ref())
        .filter_map(|t| t.seconds)
        .collect();
    if let Some(shortest) = clones.iter().copied().reduce(f64::min) {
        seconds.insert("vzclone".to_owned(), shortest);
    }
    seconds
}

fn setup_seconds(system: &System, runs: &[UnitRun]) -> f64 {
    let mine = |run: &&UnitRun| {
        Some(i64::from(run.vmid)) == system.vmid && run.unit.starts_with("phoenix-setup")
    };
    runs.iter().filter(mine).map(|run| run.seconds).sum()
}
