//! What chance and time decide, made equal: task and process ids, times, digests, hardware addresses, keys, figures of load.

use std::{collections::BTreeMap, sync::LazyLock};

use regex::Regex;
use serde_json::Value;

static UPID: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"UPID:([^:/ ]+):[0-9A-F]{8}:[0-9A-F]{8,9}:[0-9A-F]{8}:([^:/ ]+):([^:/ ]*):([^:/ ]+):",
    )
    .unwrap()
});
static DIGEST: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b[0-9a-f]{40}\b").unwrap());

/// Patterns of chance in texts, and what stands for them.
static CHANCE: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    [
        (r"(?i)\bBC:24:11(:[0-9A-F]{2}){3}", "MAC"),
        (r"\b[0-9a-f]{40}\b", "DIGEST"),
        (r"\b([0-9A-F]{2}:){31}[0-9A-F]{2}\b", "FINGERPRINT"),
        (
            r"PVE(VNC)?:([^ :]+:)?[0-9A-F]{8}::[A-Za-z0-9+/=]+",
            "TICKET",
        ),
        (r"\b[0-9A-F]{8}:[A-Za-z0-9+/]{40,}", "CSRF"),
        (r"SHA256:[A-Za-z0-9+/]{43}", "SSH-KEY"),
        (r"termproxy 59\d\d", "termproxy PORT"),
        (r"[0-9][0-9.,]*\s?(M|G|k|K)iB/s", "RATE"),
        (r"[0-9][0-9.,]* bytes/sec", "RATE"),
        (r"[0-9][0-9.,]* seconds", "SECONDS"),
        (r"speedup is [0-9.,]+", "SPEEDUP"),
        (
            r"(?s)-----BEGIN [A-Z ]+-----.*-----END [A-Z ]+-----\n?",
            "PEM",
        ),
    ]
    .map(|(pattern, name)| (Regex::new(pattern).unwrap(), name))
    .into()
});

/// Keys whose values are times, process ids, secrets and figures of load, wherever they stand.
const MEASURED: [&str; 34] = [
    "starttime",
    "endtime",
    "snaptime",
    "ctime",
    "time",
    "localtime",
    "notbefore",
    "notafter",
    "uptime",
    "pid",
    "pstart",
    "cpu",
    "mem",
    "memhost",
    "disk",
    "netin",
    "netout",
    "diskread",
    "diskwrite",
    "pressurecpusome",
    "pressurecpufull",
    "pressureiosome",
    "pressureiofull",
    "pressurememorysome",
    "pressurememoryfull",
    "ticket",
    "CSRFPreventionToken",
    "digest",
    "port",
    "fingerprint",
    "ssl_fingerprint",
    "pem",
    "used_fraction",
    "saved",
];

/// Keys that tell of the machine below, in answers about nodes and storages.
const MACHINE: [&str; 32] = [
    "loadavg",
    "wait",
    "idle",
    "used",
    "avail",
    "free",
    "available",
    "total",
    "memory",
    "swap",
    "rootfs",
    "ksm",
    "cpuinfo",
    "kversion",
    "current-kernel",
    "pveversion",
    "boot-info",
    "size",
    "maxdisk",
    "maxmem",
    "subject",
    "issuer",
    "san",
    "public-key-bits",
    "public-key-type",
    "filename",
    "level",
    "maxcpu",
    "options",
    "dns1",
    "search",
    "cpus",
];

/// The task id in a text, decoded.
pub(crate) fn upid(text: &str) -> Option<String> {
    let plain = text
        .replace("%3A", ":")
        .replace("%3a", ":")
        .replace("%40", "@")
        .replace("%21", "!");
    UPID.find(&plain).map(|found| found.as_str().to_owned())
}

/// What stands in a recording for something of the replay: task ids and digests.
#[derive(Debug, Default)]
pub(crate) struct Known(BTreeMap<String, String>);

impl Known {
    /// Walks through both answers and notes what corresponds.
    pub(crate) fn learn(&mut self, then: &Value, now: &Value) {
        match (then, now) {
            (Value::String(then), Value::String(now)) => {
                let both = |pattern: &Regex| pattern.is_match(then) && pattern.is_match(now);
                if both(&UPID) || (DIGEST.is_match(then) && then.len() == 40 && both(&DIGEST)) {
                    self.0.insert(then.clone(), now.clone());
                }
            }
            (Value::Object(then), Value::Object(now)) => {
                for (key, then) in then {
                    if let Some(now) = now.get(key) {
                        self.learn(then, now);
                    }
                }
            }
            _ => {}
        }
    }

    pub(crate) fn task(&self, then: &str) -> Option<&str> {
        self.0.get(then).map(String::as_str)
    }

    pub(crate) fn alias(&mut self, then: &str, now: &str) {
        self.0.insert(then.to_owned(), now.to_owned());
    }

    /// A recorded text as it is here.
    pub(crate) fn here(&self, text: &str) -> String {
        let escape = |text: &str| {
            text.replace(':', "%3A")
                .replace('@', "%40")
                .replace('!', "%21")
        };
        let lower = |text: &str| escape(text).replace("%3A", "%3a");
        let half = |text: &str| text.replace('@', "%40").replace('!', "%21");
        let mut out = text.to_owned();
        for (then, now) in &self.0 {
            out = out.replace(then, now);
            let forms: [&dyn Fn(&str) -> String; 3] = [&escape, &lower, &half];
            for form in forms {
                out = out.replace(&form(then), &form(now));
            }
        }
        out
    }
}

/// A line of rsync's summary: its figures tell of the files that were copied.
static SUMMARY: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("^(Number of |Total |Literal data|Matched data|File list |sent |total size)")
        .unwrap()
});
static FIGURE: LazyLock<Regex> = LazyLock::new(|| Regex::new("[0-9][0-9,.]*").unwrap());

/// A text without what chance decided.
pub(crate) fn levelled(text: &str) -> String {
    if SUMMARY.is_match(text) && !text.starts_with("Total bytes read") {
        return FIGURE.replace_all(text, "#").into_owned();
    }
    let mut out = UPID.replace_all(text, "UPID:$1:$2:$3:$4:").into_owned();
    for (pattern, name) in CHANCE.iter() {
        if pattern.is_match(&out) {
            out = pattern.replace_all(&out, *name).into_owned();
        }
    }
    out
}

/// Whether the value of a key is measured, so that only its type counts; `machine`: in an answer about a node or a storage.
pub(crate) fn is_measured(key: &str, machine: bool) -> bool {
    MEASURED.contains(&key) || (machine && MACHINE.contains(&key))
}
