//! Clones of one source queue up here rather than fail there: Proxmox locks the source for the length of a copy and refuses a second.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use crate::wake::ObjectKey;

/// Where an object stands among those that want to clone the same source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// It may clone now.
    Now,
    /// It waits for this one, the next before it.
    Behind(ObjectKey),
}

/// The queues, by the source's VMID.
#[derive(Debug, Default)]
pub struct CloneQueue {
    waiting: Mutex<HashMap<u32, VecDeque<ObjectKey>>>,
}

impl CloneQueue {
    /// Takes a place at the end (or keeps the one it has) and says whose turn it is.
    pub fn join(&self, source: u32, who: &ObjectKey) -> Turn {
        let mut queues = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(source).or_default();
        let place = queue.iter().position(|k| k == who).unwrap_or_else(|| {
            queue.push_back(who.clone());
            queue.len() - 1
        });
        match place.checked_sub(1).and_then(|before| queue.get(before)) {
            None => Turn::Now,
            Some(before) => Turn::Behind(before.clone()),
        }
    }

    /// Gives up the place in every queue; yields those whose turn it has become.
    pub fn leave(&self, who: &ObjectKey) -> Vec<ObjectKey> {
        let mut queues = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Vec::new();
        queues.retain(|_, queue| {
            let was_first = queue.front() == Some(who);
            queue.retain(|k| k != who);
            if was_first {
                next.extend(queue.front().cloned());
            }
            !queue.is_empty()
        });
        next
    }

    /// How many objects wait or clone now.
    pub fn len(&self) -> usize {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .map(VecDeque::len)
            .sum()
    }

    /// Whether nobody clones.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wake::KindName;

    fn key(name: &str) -> ObjectKey {
        ObjectKey {
            kind: KindName::LxcTemplate,
            namespace: "default".into(),
            name: name.into(),
        }
    }

    #[test]
    fn one_clones_and_the_others_wait_in_order() {
        let queue = CloneQueue::default();
        assert_eq!(queue.join(900, &key("a")), Turn::Now);
        assert_eq!(queue.join(900, &key("b")), Turn::Behind(key("a")));
        assert_eq!(queue.join(900, &key("c")), Turn::Behind(key("b")));
        assert_eq!(
            queue.join(900, &key("a")),
            Turn::Now,
            "asking again changes nothing"
        );
        assert_eq!(
            queue.join(902, &key("d")),
            Turn::Now,
            "sources run in parallel"
        );
        assert_eq!(
            queue.leave(&key("b")),
            vec![],
            "one in the middle frees nobody"
        );
        assert_eq!(queue.leave(&key("a")), vec![key("c")]);
        assert_eq!(queue.join(900, &key("c")), Turn::Now);
        queue.leave(&key("c"));
        queue.leave(&key("d"));
        assert!(queue.is_empty());
    }
}
