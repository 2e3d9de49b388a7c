//! Durations as Kubernetes users write them: `90s`, `30m`, `1h30m`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Hours, minutes, seconds, milliseconds, in this order, each once: a subset of Go's syntax.
pub(crate) const PATTERN: &str = r"^([0-9]{1,5}h)?([0-9]{1,6}m)?([0-9]{1,7}s)?([0-9]{1,9}ms)?$";
/// All four parts at their longest.
pub(crate) const MAX_LENGTH: u32 = 32;

/// A span of time, with a resolution of a millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(time::Duration);

/// A text that isn't a duration.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[error("`{0}` is not a duration: write hours, minutes and seconds, such as 90s, 30m or 1h30m")]
pub struct DurationError(String);

impl Duration {
    /// A number of seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }

    /// A number of minutes.
    pub const fn from_mins(minutes: u64) -> Self {
        Self(time::Duration::from_secs(minutes * 60))
    }

    /// The same span as the standard library's type.
    pub const fn get(self) -> time::Duration {
        self.0
    }

    /// Whole seconds, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0.as_secs()
    }
}

impl From<Duration> for time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || DurationError(text.to_owned());
        let mut rest = text;
        let mut total = 0_u64;
        let mut last_rank = 0_u8;
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit())
                .ok_or_else(malformed)?;
            let value: u64 = rest[..digits].parse().map_err(|_| malformed())?;
            rest = &rest[digits..];
            let (rank, milliseconds, unit) = if rest.starts_with("ms") {
                (4, 1, "ms")
            } else if rest.starts_with('s') {
                (3, 1_000, "s")
            } else if rest.starts_with('m') {
                (2, 60_000, "m")
            } else if rest.starts_with('h') {
                (1, 3_600_000, "h")
            } else {
                return Err(malformed());
            };
            if rank <= last_rank {
                return Err(malformed());
            }
            last_rank = rank;
            rest = &rest[unit.len()..];
            total = value
                .checked_mul(milliseconds)
                .and_then(|part| total.checked_add(part))
                .ok_or_else(malformed)?;
        }
        if last_rank == 0 {
            Err(malformed())
        } else {
            Ok(Self(time::Duration::from_millis(total)))
        }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let parts = [
            (seconds / 3600, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
            (u64::from(self.0.subsec_millis()), "ms"),
        ];
        let mut written = false;
        for (value, unit) in parts {
            if value > 0 {
                write!(f, "{value}{unit}")?;
                written = true;
            }
        }
        if written { Ok(()) } else { f.write_str("0s") }
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 2, "maxLength": MAX_LENGTH, "pattern": PATTERN })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Duration, MAX_LENGTH, PATTERN};

    #[test]
    fn units_add_up() {
        let millis = |text: &str| text.parse::<Duration>().unwrap().get().as_millis();
        assert_eq!(millis("90s"), 90_000);
        assert_eq!(millis("1h30m"), 5_400_000);
        assert_eq!(millis("1m5s7ms"), 65_007);
        assert_eq!(millis("5ms"), 5);
        assert_eq!(Duration::from_mins(90).to_string(), "1h30m");
        assert_eq!(Duration::from_secs(0).to_string(), "0s");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "90",
            "1.5h",
            "-1s",
            "1s1m",
            "1m1m",
            "h",
            "1d",
            "1 s",
            "99999999999999999999h",
        ] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(millis in 0..u64::from(u32::MAX)) {
            let duration = Duration(std::time::Duration::from_millis(millis));
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn whatever_the_schema_lets_in_can_be_read(text in "([0-9]{0,6}(h|m|s|ms|d)?){0,4}") {
            let let_in = !text.is_empty() && regex::Regex::new(PATTERN).unwrap().is_match(&text);
            let read = text.parse::<Duration>().is_ok();
            // The schema also bounds the digits, so that all four parts fit.
            prop_assert!(read || !let_in, "{}", text);
            prop_assert!(!let_in || text.len() <= MAX_LENGTH as usize);
        }
    }
}
