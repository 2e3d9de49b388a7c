//! The log of all calls, to count what a client costs.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// One call that was answered.
#[derive(Debug, Clone)]
pub struct CallRecord {
    /// When it arrived.
    pub at: Instant,
    /// `GET`.
    pub method: String,
    /// `/nodes/{node}/lxc/{vmid}/config`; the path itself where no such path exists.
    pub endpoint: String,
    /// The path as asked, with its query.
    pub path: String,
    /// Who asked: `phoenix@pve!operator`, empty where nobody did.
    pub who: String,
    /// The status code; 0 where the connection was cut.
    pub code: u16,
    /// How long the answer took.
    pub took: Duration,
}

/// All calls of a simulator.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    all: Mutex<Vec<CallRecord>>,
}

impl Calls {
    pub(crate) fn add(&self, record: CallRecord) {
        self.all
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(record);
    }

    pub(crate) fn all(&self) -> Vec<CallRecord> {
        self.all
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn clear(&self) {
        self.all
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// How often each endpoint was called with which code.
    pub(crate) fn counts(&self) -> BTreeMap<(String, String, u16), usize> {
        let mut counts = BTreeMap::new();
        for call in self.all() {
            *counts
                .entry((call.method, call.endpoint, call.code))
                .or_insert(0) += 1;
        }
        counts
    }
}
