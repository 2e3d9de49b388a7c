//! Unit files: sections, keys, and what a service of them is.
//!
//! Reads what setup scripts and operators write. Keys that have no bearing on a stand-in (limits, sandboxing) are kept, shown and otherwise left out.

use std::time::Duration;

use super::words;

/// A unit file's assignments in order. An empty assignment of a list resets what came before, as systemd does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::guest) struct UnitFile {
    entries: Vec<(String, String, String)>,
}

impl UnitFile {
    pub(in crate::guest) fn parse(text: &str) -> Self {
        let mut file = Self::default();
        let mut section = String::new();
        let mut pending = String::new();
        for line in text.lines() {
            let trimmed = line.trim();
            if trimmed.starts_with('#')
                || trimmed.starts_with(';')
                || (trimmed.is_empty() && pending.is_empty())
            {
                continue;
            }
            if let Some(continued) = trimmed.strip_suffix('\\') {
                pending.push_str(continued);
                pending.push(' ');
                continue;
            }
            let whole = std::mem::take(&mut pending) + trimmed;
            if let Some(name) = whole
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                name.clone_into(&mut section);
            } else if let Some((key, value)) = whole.split_once('=') {
                file.set(&section, key.trim(), value.trim());
            }
        }
        file
    }

    pub(in crate::guest) fn set(&mut self, section: &str, key: &str, value: &str) {
        if value.is_empty() {
            self.entries
                .retain(|(in_section, known, _)| in_section != section || known != key);
        } else {
            self.entries
                .push((section.to_owned(), key.to_owned(), value.to_owned()));
        }
    }

    /// Adds a drop-in's assignments.
    pub(in crate::guest) fn extend(&mut self, other: Self) {
        for (section, key, value) in other.entries {
            self.set(&section, &key, &value);
        }
    }

    pub(in crate::guest) fn all<'a>(
        &'a self,
        section: &'a str,
        key: &'a str,
    ) -> impl Iterator<Item = &'a str> {
        self.entries
            .iter()
            .filter(move |(s, k, _)| s == section && k == key)
            .map(|(_, _, value)| value.as_str())
    }

    pub(in crate::guest) fn get(&self, section: &str, key: &str) -> Option<&str> {
        self.entries
            .iter()
            .rev()
            .find(|(s, k, _)| s == section && k == key)
            .map(|(_, _, value)| value.as_str())
    }
}

/// When a service is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restart {
    No,
    Always,
    OnFailure,
    OnSuccess,
    OnAbnormal,
}

/// What is sent to a service that shall stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KillMode {
    ControlGroup,
    Mixed,
    Process,
}

/// A service as its unit file wants it.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a setting of the unit file"
)]
pub(super) struct Service {
    pub(super) oneshot: bool,
    /// The service says itself when it is up.
    pub(super) notify: bool,
    /// The start waits for the program to be executed.
    pub(super) exec: bool,
    pub(super) start_pre: Vec<String>,
    pub(super) start: Vec<String>,
    pub(super) start_post: Vec<String>,
    pub(super) stop: Vec<String>,
    pub(super) environment: Vec<String>,
    pub(super) environment_files: Vec<String>,
    pub(super) working_directory: Option<String>,
    pub(super) output: Option<String>,
    pub(super) restart: Restart,
    pub(super) restart_after: Duration,
    pub(super) start_limit: Option<(u32, Duration)>,
    pub(super) stop_timeout: Duration,
    pub(super) runtime_max: Option<Duration>,
    pub(super) remain: bool,
    pub(super) kill_mode: KillMode,
    pub(super) success_codes: Vec<i32>,
}

impl Service {
    pub(super) fn of(file: &UnitFile) -> Self {
        let get = |key| file.get("Service", key);
        let all = |key| {
            file.all("Service", key)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let span = |key, default| get(key).and_then(parse_span).unwrap_or(default);
        let kind = get("Type").unwrap_or("simple");
        let limit = |key| file.get("Unit", key).or_else(|| get(key));
        let interval = limit("StartLimitIntervalSec")
            .and_then(parse_span)
            .unwrap_or(Duration::from_secs(10));
        let burst = limit("StartLimitBurst")
            .and_then(|burst| burst.parse().ok())
            .unwrap_or(5);
        Self {
            oneshot: kind == "oneshot",
            notify: kind == "notify",
            exec: kind != "simple",
            start_pre: all("ExecStartPre"),
            start: all("ExecStart"),
            start_post: all("ExecStartPost"),
            stop: all("ExecStop"),
            environment: all("Environment"),
            environment_files: all("EnvironmentFile"),
            working_directory: get("WorkingDirectory").map(str::to_owned),
            output: get("StandardOutput").map(str::to_owned),
            restart: match get("Restart") {
                Some("always") => Restart::Always,
                Some("on-failure") => Restart::OnFailure,
                Some("on-success") => Restart::OnSuccess,
                Some("on-abnormal" | "on-abort" | "on-watchdog") => Restart::OnAbnormal,
                _ => Restart::No,
            },
            restart_after: span("RestartSec", Duration::from_millis(100)),
            start_limit: (!interval.is_zero() && burst > 0).then_some((burst, interval)),
            stop_timeout: span("TimeoutStopSec", Duration::from_secs(90)),
            runtime_max: get("RuntimeMaxSec").and_then(parse_span),
            remain: get("RemainAfterExit").is_some_and(is_true),
            kill_mode: match get("KillMode") {
                Some("mixed") => KillMode::Mixed,
                Some("process" | "none") => KillMode::Process,
                _ => KillMode::ControlGroup,
            },
            success_codes: file
                .all("Service", "SuccessExitStatus")
                .flat_map(str::split_whitespace)
                .filter_map(|code| code.parse().ok())
                .collect(),
        }
    }

    /// The assignments of `Environment=`.
    pub(super) fn assignments(&self) -> Vec<(String, String)> {
        let words = self
            .environment
            .iter()
            .flat_map(|line| words::split(line).unwrap_or_default());
        words
            .filter_map(|word| {
                word.split_once('=')
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
            })
            .collect()
    }
}

/// systemd's booleans.
pub(super) fn is_true(value: &str) -> bool {
    matches!(
        value.to_ascii_lowercase().as_str(),
        "1" | "yes" | "y" | "true" | "t" | "on"
    )
}

/// systemd's time spans: `5`, `100ms`, `1min 30s`; `infinity` is very long.
pub(super) fn parse_span(text: &str) -> Option<Duration> {
    if text == "infinity" {
        return Some(Duration::from_secs(u64::from(u32::MAX)));
    }
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "" | "s" | "sec" | "second" | "seconds" => 1.0,
            "ms" | "msec" => 0.001,
            "us" | "usec" => 0.000_001,
            "m" | "min" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            _ => return None,
        };
        total += Duration::try_from_secs_f64(number * unit).ok()?;
        rest = rest[letters..].trim_start();
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continuations_comments_and_resets_are_as_systemd_reads_them() {
        let file = UnitFile::parse(
            "[Service]\n# no\nExecStart=/bin/a \\\n  one\n; no\nExecStart=\nExecStart=/bin/b\nEnvironment=A=1\nEnvironment=B=2\n",
        );
        assert_eq!(
            file.all("Service", "ExecStart").collect::<Vec<_>>(),
            ["/bin/b"]
        );
        assert_eq!(
            Service::of(&file).assignments(),
            [
                ("A".to_owned(), "1".to_owned()),
                ("B".to_owned(), "2".to_owned())
            ]
        );
    }

    #[test]
    fn spans() {
        for (text, millis) in [
            ("5", 5000),
            ("100ms", 100),
            ("1min 30s", 90_000),
            ("1.5s", 1500),
            ("2h", 7_200_000),
        ] {
            assert_eq!(
                parse_span(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        assert_eq!(parse_span("soon"), None);
    }

    #[test]
    fn a_start_limit_of_zero_is_none() {
        assert!(
            Service::of(&UnitFile::parse("[Unit]\nStartLimitIntervalSec=0\n"))
                .start_limit
                .is_none()
        );
        assert_eq!(
            Service::of(&UnitFile::default()).start_limit,
            Some((5, Duration::from_secs(10)))
        );
    }
}
