//! The journal of a guest: what its units print and what systemd says of them, and `journalctl`.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::full_name;
use crate::guest::boot::Guest;
use crate::guest::calls::{self, Call};

const KEPT: usize = 20_000;

#[derive(Debug, Clone)]
pub(in crate::guest) struct Line {
    pub(in crate::guest) at: SystemTime,
    pub(in crate::guest) unit: String,
    pub(in crate::guest) identifier: String,
    pub(in crate::guest) pid: u32,
    pub(in crate::guest) text: String,
}

/// The last lines of all units.
#[derive(Default)]
pub(in crate::guest) struct Journal(Mutex<VecDeque<Line>>);

impl Journal {
    fn lines(&self) -> MutexGuard<'_, VecDeque<Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::guest) fn write(&self, unit: &str, identifier: &str, pid: u32, text: &str) {
        let mut lines = self.lines();
        if lines.len() >= KEPT {
            lines.pop_front();
        }
        lines.push_back(Line {
            at: SystemTime::now(),
            unit: unit.to_owned(),
            identifier: identifier.to_owned(),
            pid,
            text: text.to_owned(),
        });
    }

    /// All lines of a unit, or of all.
    pub(in crate::guest) fn of(&self, unit: Option<&str>) -> Vec<Line> {
        self.lines()
            .iter()
            .filter(|line| unit.is_none_or(|unit| line.unit == unit))
            .cloned()
            .collect()
    }

    fn clear(&self) {
        self.lines().clear();
    }
}

/// `journalctl`.
pub(in crate::guest) async fn journalctl(guest: &Guest, call: &Call) -> i32 {
    let mut units = Vec::new();
    let mut identifiers = Vec::new();
    let mut count = None;
    let mut cat = false;
    let mut reverse = false;
    let mut quiet = false;
    let mut since: Option<u64> = None;
    let mut args = call.args.iter();
    while let Some(arg) = args.next() {
        let (name, attached) = calls::option(arg);
        let mut value = || {
            attached
                .clone()
                .or_else(|| args.next().cloned())
                .unwrap_or_default()
        };
        match name {
            "-u" | "--unit" => units.push(full_name(&value())),
            "-t" | "--identifier" => identifiers.push(value()),
            "-n" | "--lines" => count = value().parse::<usize>().ok(),
            "-o" | "--output" => cat = value() == "cat",
            "-r" | "--reverse" => reverse = true,
            "-q" | "--quiet" => quiet = true,
            // `@` and a time in Unix seconds; other notations bound nothing here
            "-S" | "--since" => {
                since = value().strip_prefix('@').and_then(|at| at.parse().ok());
            }
            "-U" | "--until" | "-p" | "--priority" | "-g" | "--grep" => {
                drop(value());
            }
            "--vacuum-time" | "--vacuum-size" | "--vacuum-files" => {
                guest.units.journal.clear();
                call.reply
                    .err("Vacuuming done, freed 0B of archived journals from /var/log/journal.\n")
                    .await;
                return 0;
            }
            "--rotate" | "--flush" | "--sync" => return 0,
            _ => match name
                .strip_prefix("-n")
                .and_then(|digits| digits.parse().ok())
            {
                Some(digits) => count = Some(digits),
                None => {
                    if let Some(unit) = name.strip_prefix("-u").filter(|unit| !unit.is_empty()) {
                        units.push(full_name(unit));
                    }
                }
            },
        }
    }
    let wanted = |line: &Line| {
        (units.is_empty() || units.contains(&line.unit))
            && (identifiers.is_empty() || identifiers.contains(&line.identifier))
            && since.is_none_or(|since| since_epoch(line.at).as_secs() >= since)
    };
    let mut lines: Vec<_> = guest
        .units
        .journal
        .of(None)
        .into_iter()
        .filter(wanted)
        .collect();
    lines.drain(..lines.len().saturating_sub(count.unwrap_or(usize::MAX)));
    if reverse {
        lines.reverse();
    }
    if lines.is_empty() && !quiet {
        call.reply.out("-- No entries --\n").await;
    }
    let host = &guest.spec.hostname;
    let text: String = lines
        .iter()
        .map(|line| {
            if cat {
                format!("{}\n", line.text)
            } else {
                format!(
                    "{} {host} {}[{}]: {}\n",
                    syslog_time(line.at),
                    line.identifier,
                    line.pid,
                    line.text
                )
            }
        })
        .collect();
    call.reply.out(&text).await;
    0
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// `Nov 24 18:42:23`, in UTC as containers have it.
fn syslog_time(at: SystemTime) -> String {
    let (_, month, day, seconds) = civil(at);
    format!(
        "{} {day:02} {:02}:{:02}:{:02}",
        MONTHS[month - 1],
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// `Tue 2026-11-24 18:42:23 UTC`.
pub(super) fn long_time(at: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let days = since_epoch(at).as_secs() / 86_400;
    let (year, month, day, seconds) = civil(at);
    let weekday = DAYS[usize::try_from(days % 7).unwrap_or_default()];
    format!(
        "{weekday} {year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

pub(super) fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Year, month, day and second of the day.
fn civil(at: SystemTime) -> (u64, usize, u64, u64) {
    let seconds = since_epoch(at).as_secs();
    // Days since 0000-03-01, so that the leap day ends a year (the well-known civil-from-days reckoning).
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (
        year,
        usize::try_from(month).unwrap_or(1),
        day,
        seconds % 86_400,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_as_systemd_prints_them() {
        for (seconds, wanted) in [
            (0, "Thu 1970-01-01 00:00:00 UTC"),
            (1_795_545_743, "Tue 2026-11-24 18:42:23 UTC"),
            (1_709_164_800, "Thu 2024-02-29 00:00:00 UTC"),
        ] {
            assert_eq!(long_time(UNIX_EPOCH + Duration::from_secs(seconds)), wanted);
        }
    }
}
