//! Whether two answers are alike: status, reason phrase, errors, message, and the data by keys, types and values, without what chance decides.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    marks::{is_measured, levelled},
    recording::Exchange,
    wire::Answer,
};

/// What tells rows of a list apart, the first that they have.
const NAMES: [&str; 11] = [
    "vmid", "upid", "id", "storage", "userid", "key", "iface", "volid", "subdir", "name", "n",
];

/// What differs, in words.
pub(crate) fn difference(exchange: &Exchange, answer: &Answer) -> Option<String> {
    let (then, now) = (
        (exchange.status(), levelled(exchange.reason())),
        (answer.status, levelled(&answer.reason)),
    );
    if then != now {
        return Some(format!("{now:?}, recorded {then:?}"));
    }
    if let Some(text) = headers(exchange, answer) {
        return Some(text);
    }
    if let Value::String(text) = &exchange.body {
        let (then, now) = (levelled(text.trim_end()), levelled(answer.text.trim_end()));
        return (then != now).then(|| format!("{now:?}, recorded {then:?}"));
    }
    let mut then = exchange.body.clone();
    let mut now = answer.body.clone();
    if then["data"]
        .get("status")
        .is_some_and(|status| status == "running")
        && exchange.task().is_some()
    {
        forget_the_end(&mut then);
        forget_the_end(&mut now);
    }
    forget_lines(&mut now, |line| {
        line.starts_with("transferred ") && line.ends_with(" %")
    });
    forget_lines(&mut then, |line| {
        matches!(line, "trying to acquire lock..." | " OK")
    });
    if let Some(text) = listed(exchange, &mut then, &mut now) {
        return Some(text);
    }
    let machine = !exchange.path().contains("/lxc/")
        && !exchange.path().contains("/lxc?")
        && !exchange.path().ends_with("/lxc");
    first(&level(&then, machine), &level(&now, machine), "")
}

/// The type of the body, and whether the connection ends: after refusals it does, else it is a matter of how many it has served.
fn headers(exchange: &Exchange, answer: &Answer) -> Option<String> {
    if exchange.headers.is_empty() {
        return None;
    }
    let looked_at = [
        ("Content-Type", true),
        ("Connection", exchange.status() >= 400),
    ];
    looked_at
        .into_iter()
        .filter(|(_, look)| *look)
        .find_map(|(name, _)| {
            let (then, now) = (
                exchange.headers.get(name).map(String::as_str),
                answer.header(name),
            );
            (then != now).then(|| format!("{name} is {now:?}, recorded {then:?}"))
        })
}

/// Whether a poll meets a task before or after its end is a matter of time.
fn forget_the_end(body: &mut Value) {
    if let Some(data) = body["data"].as_object_mut() {
        data.remove("status");
        data.remove("exitstatus");
    }
}

/// Leaves out lines of a log: a task that the replay slows down says how far it is, and one that had to wait for its lock says so.
fn forget_lines(body: &mut Value, gone: impl Fn(&str) -> bool) {
    let Some(rows) = body["data"].as_array_mut() else {
        return;
    };
    let before = rows.len();
    rows.retain(|row| !row["t"].as_str().is_some_and(&gone));
    let left = rows.len();
    if left < before {
        for (number, row) in rows.iter_mut().enumerate() {
            row["n"] = json!(number + 1);
        }
        body["total"] = json!(left);
    }
}

/// Lists tell of everything on a host, which had more on it than one file tells of: of containers the common ones count, of tasks the forms.
fn listed(exchange: &Exchange, then: &mut Value, now: &mut Value) -> Option<String> {
    let path = exchange.path().split('?').next().unwrap_or_default();
    let containers = ["/lxc", "/cluster/resources", "/content"]
        .iter()
        .any(|end| path.ends_with(end));
    let (Some(old), Some(new)) = (then["data"].as_array(), now["data"].as_array()) else {
        return None;
    };
    if ["/tasks", "/hardware/pci", "/network"]
        .iter()
        .any(|end| path.ends_with(end))
    {
        let found = forms(old, new);
        for body in [then, now] {
            body["data"] = Value::Null;
            // How many there are tells of the whole host.
            if body.get("total").is_some() {
                body["total"] = json!(0);
            }
        }
        return found;
    }
    if containers {
        let ids = |rows: &[Value]| -> BTreeSet<u64> {
            rows.iter().filter_map(|row| row["vmid"].as_u64()).collect()
        };
        let both: BTreeSet<u64> = ids(old).intersection(&ids(new)).copied().collect();
        let files = |rows: &[Value]| -> BTreeSet<String> {
            rows.iter()
                .filter_map(|row| row["volid"].as_str().map(str::to_owned))
                .collect()
        };
        let known: BTreeSet<String> = files(old).intersection(&files(new)).cloned().collect();
        let common = |rows: &[Value]| -> Value {
            let kept = |row: &&Value| {
                row["vmid"].as_u64().is_none_or(|vmid| both.contains(&vmid))
                    && row["volid"]
                        .as_str()
                        .is_none_or(|file| known.contains(file))
            };
            rows.iter().filter(kept).cloned().collect()
        };
        if old.is_empty() != new.is_empty() && old.is_empty() {
            return Some(format!("{} rows, recorded none", new.len()));
        }
        let (old, new) = (common(old), common(new));
        then["data"] = old;
        now["data"] = new;
    }
    None
}

/// Every recorded form of a row is one of ours.
fn forms(old: &[Value], new: &[Value]) -> Option<String> {
    let forms = |rows: &[Value]| -> BTreeSet<String> {
        rows.iter().map(|row| form(row).to_string()).collect()
    };
    let ours = forms(new);
    let missing = forms(old).into_iter().find(|form| !ours.contains(form))?;
    Some(format!("no row of the form {missing}, but {ours:?}"))
}

/// Keys and types of a row.
pub(crate) fn form(row: &Value) -> Value {
    let Some(row) = row.as_object() else {
        return json!(kind(row));
    };
    let typed: Map<String, Value> = row
        .iter()
        .map(|(key, value)| (key.clone(), json!(kind(value))))
        .collect();
    Value::Object(typed)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

/// A value without what chance decides, its lists in order.
pub(crate) fn level(value: &Value, machine: bool) -> Value {
    match value {
        Value::String(text) => Value::String(levelled(text)),
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(|item| level(item, machine)).collect();
            if items.iter().all(Value::is_object) {
                items.sort_by_cached_key(|item| {
                    NAMES.iter().find_map(|name| item.get(name)).map(|name| {
                        name.as_u64()
                            .map_or_else(|| name.to_string(), |n| format!("{n:09}"))
                    })
                });
            }
            Value::Array(items)
        }
        Value::Object(map) => {
            let of_machine = match map.get("type").and_then(Value::as_str) {
                Some("node" | "storage") => true,
                Some("lxc") => false,
                _ => machine,
            };
            let entry = |(key, value): (&String, &Value)| {
                let value = if is_measured(key, of_machine) {
                    json!(kind(value))
                } else if let ("content", Value::String(kinds)) = (key.as_str(), value) {
                    // In the order of a hash.
                    json!(kinds.split(',').collect::<BTreeSet<_>>())
                } else {
                    level(value, of_machine)
                };
                (key.clone(), value)
            };
            Value::Object(map.iter().map(entry).collect())
        }
        other => other.clone(),
    }
}

/// The first difference, with where it is.
pub(crate) fn first(then: &Value, now: &Value, at: &str) -> Option<String> {
    match (then, now) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, then) in old {
                match new.get(key) {
                    None => return Some(format!("{at}.{key} is missing, recorded {then}")),
                    Some(now) => {
                        if let Some(text) = first(then, now, &format!("{at}.{key}")) {
                            return Some(text);
                        }
                    }
                }
            }
            let more = new.keys().find(|key| !old.contains_key(*key))?;
            Some(format!("{at}.{more} is {}, recorded without", new[more]))
        }
        (Value::Array(old), Value::Array(new)) => {
            for (number, (then, now)) in old.iter().zip(new).enumerate() {
                if let Some(text) = first(then, now, &format!("{at}[{number}]")) {
                    return Some(text);
                }
            }
            (old.len() != new.len()).then(|| {
                let rest = |of: &[Value], from: usize| {
                    Value::from(of.get(from..).unwrap_or_default().to_vec())
                };
                format!(
                    "{at} has {} rows, recorded {}: more {}, missing {}",
                    new.len(),
                    old.len(),
                    rest(new, old.len()),
                    rest(old, new.len())
                )
            })
        }
        _ => (then != now).then(|| format!("{at} is {now}, recorded {then}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(path: &str, body: Value) -> Exchange {
        Exchange {
            method: Some("GET".to_owned()),
            path: Some(path.to_owned()),
            status: Some(200),
            reason: Some("OK".to_owned()),
            body,
            ..Exchange::default()
        }
    }

    fn answer(body: Value) -> Answer {
        Answer {
            status: 200,
            reason: "OK".to_owned(),
            text: body.to_string(),
            body,
            ..Answer::default()
        }
    }

    #[test]
    fn differences_are_noticed() {
        const CONFIG: &str = "/api2/json/nodes/pve1/lxc/100/config";
        const STATUS: &str = "/api2/json/nodes/pve1/tasks/UPID:pve1:0000047D:000089CE:6B05E197:vzcreate:200:root@pam!op:/status";
        let config = json!({"data": {"memory": 512, "hostname": "a", "digest": "x"}});
        for (path, then, now) in [
            (
                CONFIG,
                config.clone(),
                json!({"data": {"memory": 512, "hostname": "a"}}),
            ),
            (
                CONFIG,
                config.clone(),
                json!({"data": {"memory": "512", "hostname": "a", "digest": "x"}}),
            ),
            (
                CONFIG,
                config.clone(),
                json!({"data": {"memory": 256, "hostname": "a", "digest": "x"}}),
            ),
            (
                CONFIG,
                config.clone(),
                json!({"data": {"memory": 512, "hostname": "a", "digest": "x", "swap": 0}}),
            ),
            (
                CONFIG,
                config.clone(),
                json!({"data": {"memory": 512, "hostname": "a", "digest": 7}}),
            ),
            (CONFIG, json!({"data": null}), config.clone()),
            (
                CONFIG,
                json!({"data": null, "errors": {"vmid": "a"}}),
                json!({"data": null, "errors": {"vmid": "b"}}),
            ),
            (
                CONFIG,
                json!({"data": null, "message": "a\n"}),
                json!({"data": null}),
            ),
            (
                STATUS,
                json!({"data": {"status": "stopped", "exitstatus": "OK"}}),
                json!({"data": {"status": "stopped", "exitstatus": "WARNINGS: 1"}}),
            ),
            (
                "/api2/json/nodes/pve1/lxc",
                json!({"data": []}),
                json!({"data": [{"vmid": 100}]}),
            ),
            (
                "/api2/json/nodes/pve1/lxc",
                json!({"data": [{"vmid": 100, "status": "running"}]}),
                json!({"data": [{"vmid": 100, "status": "stopped"}]}),
            ),
        ] {
            let found = difference(&exchange(path, then.clone()), &answer(now.clone()));
            assert!(found.is_some(), "{then} and {now} pass for alike");
        }
        let refused = Answer {
            status: 500,
            reason: "CT is locked (disk)".to_owned(),
            ..answer(json!({"data": null}))
        };
        assert!(difference(&exchange(CONFIG, json!({"data": null})), &refused).is_some());
    }

    #[test]
    fn chance_is_no_difference() {
        let upid =
            |pid: &str| format!("UPID:pve1:{pid}:000089CE:6B05E197:vzcreate:200:root@pam!op:");
        for (path, then, now) in [
            (
                "/api2/json/nodes/pve1/lxc",
                json!({"data": upid("0000047D")}),
                json!({"data": upid("00000001")}),
            ),
            (
                "/api2/json/nodes/pve1/lxc/100/config",
                json!({"data": {"net0": "name=eth0,hwaddr=BC:24:11:00:00:01"}}),
                json!({"data": {"net0": "name=eth0,hwaddr=BC:24:11:FF:FF:FF"}}),
            ),
            (
                "/api2/json/nodes/pve1/lxc",
                json!({"data": [{"vmid": 100, "cpu": 0.5}, {"vmid": 101}]}),
                json!({"data": [{"vmid": 102}, {"vmid": 100, "cpu": 0}]}),
            ),
            (
                "/api2/json/nodes/pve1/tasks/x/log",
                json!({"data": [{"n": 1, "t": "trying to acquire lock..."}, {"n": 2, "t": " OK"}, {"n": 3, "t": "TASK OK"}], "total": 3}),
                json!({"data": [{"n": 1, "t": "TASK OK"}], "total": 1}),
            ),
        ] {
            let found = difference(&exchange(path, then), &answer(now));
            assert_eq!(found, None);
        }
    }
}
