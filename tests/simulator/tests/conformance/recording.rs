//! The recordings as they lie in files: what was asked, what was answered, and which of it says something about a host's behaviour.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use super::marks;

/// One recorded exchange, in any of the forms that recordings have.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Exchange {
    pub(crate) title: String,
    pub(crate) auth: Option<String>,
    pub(crate) method: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) form: Option<Value>,
    pub(crate) request_headers: Option<BTreeMap<String, String>>,
    pub(crate) request_body: Option<String>,
    pub(crate) status: Option<u16>,
    pub(crate) reason: Option<String>,
    /// Of its headers, those that say how to read on.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
    /// The container's configuration file after the call.
    pub(crate) stored_file: Option<String>,
    /// A container's row in `cluster/resources`.
    pub(crate) row: Option<Value>,
    /// Bytes on the wire instead of a call.
    pub(crate) request: Option<String>,
    pub(crate) response: Option<String>,
    pub(crate) responses: Option<Vec<String>>,
    pub(crate) last_head: Option<String>,
    pub(crate) end: Option<String>,
    pub(crate) count: Option<usize>,
    /// The ends of a list of tasks.
    pub(crate) oldest: Option<Value>,
    pub(crate) newest: Option<Value>,
}

/// What an exchange is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Call,
    Wire,
    Row,
    /// Remarks and measured times: nothing to compare.
    Note,
}

impl Exchange {
    pub(crate) fn kind(&self) -> Kind {
        if self.method.is_some() {
            Kind::Call
        } else if self.row.is_some() {
            Kind::Row
        } else if self.request.is_some()
            || self.response.is_some()
            || self.responses.is_some()
            || self.end.is_some()
        {
            Kind::Wire
        } else {
            Kind::Note
        }
    }

    /// Some calls were recorded by what is particular to them: a way to write a task's id, a filter of the task list.
    fn complete(&mut self) {
        if let (None, Some(filter)) = (&self.method, self.title.strip_prefix("task list")) {
            let query = filter.trim().replace(' ', "&");
            if let (Some(oldest), Some(newest)) = (self.oldest.take(), self.newest.take()) {
                self.body = serde_json::json!({"data": [oldest, newest], "total": self.count});
            }
            let query = if query.is_empty() {
                "source=all&limit=1000"
            } else {
                &query
            };
            self.path = Some(format!("/api2/json/nodes/pve1/tasks?{query}"));
            self.method = Some("GET".to_owned());
            self.auth = Some("root@pam!op".to_owned());
            self.status = Some(200);
            self.reason = Some("OK".to_owned());
        }
        if let (None, Some(id)) = (
            &self.method,
            self.path.as_deref().filter(|path| path.starts_with("UPID")),
        ) {
            self.path = Some(format!("/api2/json/nodes/pve1/tasks/{id}/status"));
            self.method = Some("GET".to_owned());
            self.auth = Some("root@pam!op".to_owned());
        }
    }

    pub(crate) fn method(&self) -> &str {
        self.method.as_deref().unwrap_or("GET")
    }

    pub(crate) fn path(&self) -> &str {
        self.path.as_deref().unwrap_or_default()
    }

    pub(crate) fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or_default()
    }

    pub(crate) fn status(&self) -> u16 {
        self.status.unwrap_or_default()
    }

    pub(crate) fn data(&self) -> &Value {
        &self.body["data"]
    }

    /// The container in its path.
    pub(crate) fn vmid(&self) -> Option<u32> {
        let rest = self.path().split("/lxc/").nth(1)?;
        rest.split(['/', '?']).next()?.parse().ok()
    }

    /// What stands behind the container in its path, without the query: `/config`.
    pub(crate) fn below(&self) -> &str {
        let rest = self.path().split("/lxc/").nth(1).unwrap_or_default();
        let end = rest.find(['/', '?']).map_or("", |at| &rest[at..]);
        end.split('?').next().unwrap_or_default()
    }

    pub(crate) fn pairs(&self) -> Vec<(String, String)> {
        let text = |value: &Value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        match &self.form {
            Some(Value::Object(map)) => map
                .iter()
                .map(|(key, value)| (key.clone(), text(value)))
                .collect(),
            Some(Value::Array(rows)) => rows
                .iter()
                .map(|row| (text(&row[0]), text(&row[1])))
                .collect(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn field(&self, key: &str) -> Option<String> {
        let mut pairs = self.pairs().into_iter();
        pairs.find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The container that this call makes.
    pub(crate) fn makes(&self) -> Option<u32> {
        if self.method() != "POST" {
            return None;
        }
        let key = match (self.vmid(), self.below()) {
            (Some(_), "/clone") => "newid",
            (None, _) if self.path().ends_with("/lxc") => "vmid",
            _ => return None,
        };
        self.field(key)?.parse().ok()
    }

    /// The task that it looks at.
    pub(crate) fn task(&self) -> Option<String> {
        let path = self.path();
        path.ends_with("/status")
            .then(|| marks::upid(path))
            .flatten()
    }

    /// Whether it saw a task that was over.
    pub(crate) fn saw_the_end(&self) -> bool {
        self.task().is_some() && self.data()["status"] == "stopped"
    }

    /// One of several calls that were sent at the same time: their common title.
    pub(crate) fn group(&self) -> Option<&str> {
        let end = self.title.find(" [")?;
        let number = self.title[end + 2..].split(']').next()?;
        number
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| &self.title[..end])
    }
}

/// One file of recordings.
#[derive(Debug)]
pub(crate) struct File {
    /// Without its ending.
    pub(crate) name: String,
    pub(crate) exchanges: Vec<Exchange>,
}

/// All files of a folder, by name.
pub(crate) fn load(folder: &Path) -> Vec<File> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut exchanges: Vec<Exchange> = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        exchanges.iter_mut().for_each(Exchange::complete);
        File {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            exchanges: at_once(exchanges),
        }
    };
    paths.into_iter().map(read).collect()
}

/// Calls that were sent at the same time were written down one by one, each with what followed: puts the calls before what followed.
fn at_once(exchanges: Vec<Exchange>) -> Vec<Exchange> {
    let mut out: Vec<Exchange> = Vec::new();
    let mut followed: Vec<Exchange> = Vec::new();
    let mut open: Option<String> = None;
    for exchange in exchanges {
        let group = exchange.group().map(str::to_owned);
        if group != open {
            out.append(&mut followed);
            open = group;
        }
        if open.is_some() && marks::upid(exchange.path()).is_some() {
            followed.push(exchange);
        } else {
            out.push(exchange);
        }
    }
    out.append(&mut followed);
    out
}
