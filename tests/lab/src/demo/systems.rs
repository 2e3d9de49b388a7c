//! The six systems as Kubernetes tells of them, with the times at which each was seen in each state.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::BoxStream};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use phoenix_crds::{LxcContainer, LxcStatus, LxcTemplate, lxc::Lxc};

/// How many there are.
const SYSTEMS: usize = 6;

/// One system.
#[derive(Debug, Clone)]
pub(super) struct System {
    pub(super) name: String,
    pub(super) vmid: Option<i64>,
    pub(super) source: Option<String>,
    pub(super) status: LxcStatus,
    /// First time of each state, in seconds since the manifests were applied.
    pub(super) states: Vec<(String, f64)>,
    pub(super) ready_at: Option<f64>,
}

impl System {
    pub(super) fn condition(&self, kind: &str) -> Option<(&str, &str, &str)> {
        self.status
            .conditions
            .iter()
            .find(|c| c.type_ == kind)
            .map(|c| (c.status.as_str(), c.reason.as_str(), c.message.as_str()))
    }

    pub(super) fn ready(&self) -> bool {
        self.condition("Ready")
            .is_some_and(|(status, ..)| status == "True")
    }

    pub(super) fn state(&self) -> String {
        self.status
            .state
            .map_or_else(|| "Pending".to_owned(), |s| s.to_string())
    }
}

/// All of them, followed.
pub(super) struct Systems {
    /// When the first object appeared.
    began: Option<Instant>,
    by_name: BTreeMap<String, System>,
    changes: BoxStream<'static, (String, Option<String>, LxcStatus)>,
}

impl Systems {
    pub(super) fn follow(client: Client) -> Self {
        let changes = futures::stream::select(
            changes::<LxcTemplate>(client.clone()),
            changes::<LxcContainer>(client),
        )
        .boxed();
        Self {
            began: None,
            by_name: BTreeMap::new(),
            changes,
        }
    }

    /// Since the first object appeared.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.map(|began| began.elapsed()).unwrap_or_default()
    }

    /// Waits for a change, no longer than `limit`.
    pub(super) async fn changed(&mut self, limit: Duration) {
        let Ok(Some((name, source, status))) =
            tokio::time::timeout(limit, self.changes.next()).await
        else {
            return;
        };
        let at = self
            .began
            .get_or_insert_with(Instant::now)
            .elapsed()
            .as_secs_f64();
        let system = self.by_name.entry(name.clone()).or_insert_with(|| System {
            name,
            vmid: None,
            source: None,
            status: LxcStatus::default(),
            states: Vec::new(),
            ready_at: None,
        });
        system.vmid = status.vmid;
        system.source = source;
        system.status = status;
        let state = system.state();
        if system.states.last().is_none_or(|(last, _)| *last != state) {
            system.states.push((state, at));
        }
        match (system.ready(), system.ready_at) {
            (true, None) => system.ready_at = Some(at),
            (false, Some(_)) => system.ready_at = None,
            _ => {}
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &System> {
        self.by_name.values()
    }

    pub(super) fn get(&self, name: &str) -> Option<&System> {
        self.by_name.get(name)
    }

    pub(super) fn children<'a>(&'a self, of: Option<&'a str>) -> Vec<&'a System> {
        let known = |s: &&System| {
            s.source
                .as_deref()
                .is_some_and(|n| self.by_name.contains_key(n))
        };
        let mut list: Vec<&System> = self
            .all()
            .filter(|s| {
                if of.is_some() {
                    s.source.as_deref() == of
                } else {
                    !known(s)
                }
            })
            .collect();
        list.sort_by_key(|s| s.vmid.unwrap_or(i64::MAX));
        list
    }

    pub(super) fn all_ready(&self) -> bool {
        self.by_name.len() == SYSTEMS && self.all().all(System::ready)
    }

    /// Why those that aren't Ready are not.
    pub(super) fn reasons(&self) -> String {
        let lines: Vec<String> = self
            .all()
            .filter(|s| !s.ready())
            .map(|s| {
                let (_, reason, message) =
                    s.condition("Ready").unwrap_or(("", "nothing is known", ""));
                format!("  {}: {} ({reason}): {message}", s.name, s.state())
            })
            .collect();
        if lines.is_empty() {
            "  no object was seen".to_owned()
        } else {
            lines.join("\n")
        }
    }
}

fn changes<K>(client: Client) -> impl futures::Stream<Item = (String, Option<String>, LxcStatus)>
where
    K: Lxc + serde::de::DeserializeOwned + std::fmt::Debug,
{
    watcher(Api::<K>::all(client), watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .filter_map(|object| async move {
            let object = object.ok()?;
            let source = object
                .spec_shared()
                .source
                .template_ref
                .as_ref()
                .map(|r| r.name.clone());
            Some((
                object.name_any(),
                source,
                object.status_shared().cloned().unwrap_or_default(),
            ))
        })
}
