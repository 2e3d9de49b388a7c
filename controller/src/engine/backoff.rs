//! Capped exponential back-off with jitter, per object.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use crate::by_uid::ByUid;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_mins(2);

/// The back-offs of all objects, by uid.
#[derive(Debug, Default)]
pub struct Backoffs {
    by_uid: ByUid<(u32, ExponentialBackoff)>,
}

impl Backoffs {
    /// How long this object waits now; longer each time until `reset`.
    pub fn next(&self, uid: &str) -> Duration {
        let mut map = self.by_uid.lock();
        let backoff = map.entry(uid.to_owned()).or_insert_with(|| {
            let pauses = ExponentialBuilder::default()
                .with_min_delay(FIRST)
                .with_max_delay(LONGEST)
                .with_jitter()
                .without_max_times()
                .build();
            (0, pauses)
        });
        backoff.0 += 1;
        backoff.1.next().unwrap_or(LONGEST).min(LONGEST * 2)
    }

    /// How often in a row it went wrong.
    pub fn count(&self, uid: &str) -> u32 {
        self.by_uid.lock().get(uid).map_or(0, |b| b.0)
    }

    /// It went well, or the object is gone.
    pub fn reset(&self, uid: &str) {
        self.by_uid.forget(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_and_is_forgotten() {
        let backoffs = Backoffs::default();
        let early: Duration = (0..2).map(|_| backoffs.next("a")).sum();
        let late: Duration = (0..12).map(|_| backoffs.next("a")).max().unwrap();
        assert!(early < late && late >= LONGEST);
        assert_eq!(backoffs.count("a"), 14);
        backoffs.reset("a");
        assert_eq!(backoffs.count("a"), 0);
        assert!(backoffs.next("a") < Duration::from_secs(2));
    }
}
