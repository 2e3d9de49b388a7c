//! Every recorded exchange of a real Proxmox VE, asked of the simulator in the same order.
//!
//! Compared are status, reason phrase, errors, the shape of the data (keys and types), a configuration's values, and how tasks end. A file may
//! begin with containers that an earlier one left, and containers were removed in between without a recording: the harness makes both true.
//! `PHOENIX_RECORDINGS` names another folder of recordings of the same form.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use proxmox_simulator::{HostShape, Simulator, SimulatorConfig};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Answer, Client};

/// So many of the committed exchanges match; it may only grow.
const MATCHING: usize = 1014;

/// What differs on purpose: file, the title's beginning, why.
const DIFFERENT: [(&str, &str, &str); 12] = [
    (
        "a2",
        "html version",
        "the HTML pages of the API aren't simulated",
    ),
    (
        "a2",
        "secret with trailing newline",
        "clients cut blanks at a header's end before they send it",
    ),
    ("a2", "broken JSON body", "the text is Perl's parser's own"),
    (
        "a2",
        "non-UTF8 body",
        "the recording holds the bytes as Python prints them",
    ),
    (
        "a2",
        "CT does not exist: GET /lxc/999/rrddata",
        "there are no round-robin files to be missing",
    ),
    (
        "b1",
        "status/current right after the task's end",
        "the start that create began was still under way on the slow host",
    ),
    (
        "b1",
        "two creates of one VMID at once",
        "recorded at once, replayed one after the other",
    ),
    (
        "b5-clone-2",
        "",
        "recorded while other clones ran, and cleaned up in the middle",
    ),
    (
        "b7",
        "protection=0",
        "the rollback before it was still under way on the slow host",
    ),
    (
        "c2",
        "",
        "begins with the container that c1 left, its broken network included",
    ),
    (
        "f",
        "config of 90",
        "asked again and again while the conversion ran",
    ),
    (
        "d",
        "task",
        "how a console's task ended depends on what its client did",
    ),
];

/// One recorded exchange.
#[derive(Debug, Deserialize)]
struct Exchange {
    title: String,
    auth: Option<String>,
    method: String,
    path: String,
    status: u16,
    reason: String,
    body: Value,
    form: Option<Value>,
    request_headers: Option<BTreeMap<String, String>>,
    request_body: Option<String>,
}

impl Exchange {
    fn vmid(&self) -> Option<u32> {
        let rest = self.path.split("/lxc/").nth(1)?;
        rest.split(['/', '?']).next()?.parse().ok()
    }

    fn field(&self, key: &str) -> Option<String> {
        match self.form.as_ref()?.get(key)? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// The id of the container that this call makes.
    fn makes(&self) -> Option<u32> {
        let key = if self.path.ends_with("/clone") {
            "newid"
        } else {
            "vmid"
        };
        let making =
            self.method == "POST" && (self.path.ends_with("/clone") || self.path.ends_with("/lxc"));
        making.then(|| self.field(key)).flatten()?.parse().ok()
    }

    fn pairs(&self) -> Vec<(String, String)> {
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

    fn excuse(&self, file: &str) -> Option<&'static str> {
        DIFFERENT
            .iter()
            .find(|(name, title, _)| file.starts_with(name) && self.title.starts_with(title))
            .map(|(_, _, why)| *why)
    }
}

/// A file's replay.
struct Replay {
    simulator: Simulator,
    clients: BTreeMap<String, Client>,
    /// Recorded task ids and digests, and what they are here.
    known: BTreeMap<String, String>,
}

impl Replay {
    async fn new() -> Self {
        let config = SimulatorConfig {
            host: HostShape::recorded(),
            ..SimulatorConfig::default()
        };
        Self {
            simulator: Simulator::start(config).await.unwrap(),
            clients: BTreeMap::new(),
            known: BTreeMap::new(),
        }
    }

    async fn client(&mut self, auth: &str) -> Client {
        if let Some(client) = self.clients.get(auth) {
            return client.clone();
        }
        let mut client = match auth {
            "none" => Client::anonymous(&self.simulator),
            "root-ticket-nocsrf" => Client::login(&self.simulator, "root@pam")
                .await
                .without_header("CSRFPreventionToken"),
            ticket if ticket.ends_with("-ticket") => {
                let user = if ticket.starts_with("root") {
                    "root@pam"
                } else {
                    "op@pve"
                };
                Client::login(&self.simulator, user).await
            }
            raw if raw.starts_with("raw:") => {
                let secret = self.simulator.token_of("root@pam!op").unwrap().secret;
                Client::anonymous(&self.simulator)
                    .with_header("Authorization", &raw[4..].replace("TOKEN-SECRET", &secret))
            }
            token => Client::token(&self.simulator, &self.simulator.token_of(token).unwrap()),
        };
        "pve1".clone_into(&mut client.node);
        self.clients.insert(auth.to_owned(), client.clone());
        client
    }

    fn here(&self, text: &str) -> String {
        self.known
            .iter()
            .fold(text.to_owned(), |text, (then, now)| {
                text.replace(&escaped(then), &escaped(now))
                    .replace(then, now)
            })
    }

    /// What happened on the recorded host just before, without a call.
    async fn happen(&mut self, file: &str, title: &str) {
        let simulator = &self.simulator;
        match (file, title) {
            ("b3-power.json", "current (stopped)") => {
                self.make(103).await;
                let left = [
                    ("cmode", "shell"),
                    ("cpulimit", "0.5"),
                    ("cpuunits", "200"),
                    ("nameserver", "1.1.1.1 9.9.9.9"),
                    ("onboot", "1"),
                    ("protection", "0"),
                    ("searchdomain", "x.local"),
                    ("startup", "order=2,up=5,down=10"),
                    ("swap", "128"),
                    ("tags", " "),
                    ("timezone", "host"),
                    ("rootfs", "lxc-disks:subvol-103-disk-0,size=4G"),
                ];
                for (key, value) in left {
                    self.simulator.edit_config(103, key, Some(value)).unwrap();
                }
                self.simulator.edit_config(103, "cores", None).unwrap();
                self.simulator
                    .set_volume_size("lxc-disks", "subvol-103-disk-0", 4 << 30)
                    .unwrap();
            }
            ("b3-power-0-locked-ct.json", "current (stopped)") => {
                self.make(100).await;
                let root = self.client("root@pam!op").await;
                root.put(
                    "/nodes/pve1/lxc/100/config",
                    &[("tags", ""), ("cpulimit", "0.5")],
                )
                .await;
                root.task("POST", "/nodes/pve1/lxc/100/status/start", &[])
                    .await;
                self.simulator
                    .edit_config(100, "arch", Some("arm64"))
                    .unwrap();
                self.simulator.set_lock(100, "backup").unwrap();
            }
            ("b3-power-2.json", "shutdown timeout 3") => simulator.ignore_shutdown(104).unwrap(),
            ("b4-snapshot.json", "delete s3 whose zfs snapshot is gone") => simulator
                .drop_volume_snapshot("lxc-disks", "subvol-210-disk-0", "s3")
                .unwrap(),
            ("b6-template.json", "to template while running (CT 103)") => self.make(103).await,
            ("b7-destroy.json", "destroy when the dataset is busy (a process sits in it)") => {
                simulator
                    .set_busy("lxc-disks", "subvol-130-disk-0", true)
                    .unwrap();
            }
            _ => {}
        }
    }

    /// Makes true what the recording presupposes.
    async fn prepare(&mut self, exchange: &Exchange) {
        let there: BTreeSet<u32> = self.simulator.containers().into_keys().collect();
        let taken = exchange.reason.contains("already exists");
        if let Some(vmid) = exchange.makes() {
            if there.contains(&vmid) && !taken && !exchange.reason.contains("locked") {
                self.simulator.delete_container(vmid).await.unwrap();
            } else if !there.contains(&vmid) && taken {
                self.make(vmid).await;
            }
        }
        let Some(vmid) = exchange.vmid().filter(|vmid| *vmid < 990) else {
            return;
        };
        let gone = exchange
            .reason
            .contains(&format!("{vmid}.conf' does not exist"));
        let presupposed = exchange.status != 400
            && !gone
            && !exchange.reason.contains("not running")
            && exchange
                .body
                .get("data")
                .is_none_or(|data| !data.is_null() || exchange.status != 200);
        if there.contains(&vmid) && gone {
            self.simulator.delete_container(vmid).await.unwrap();
        } else if !there.contains(&vmid) && presupposed {
            self.make(vmid).await;
        }
    }

    async fn make(&mut self, vmid: u32) {
        let root = self.client("root@pam!op").await;
        let (id, name) = (vmid.to_string(), format!("ct{vmid}"));
        let form = [
            ("vmid", id.as_str()),
            (
                "ostemplate",
                "local:vztmpl/debian-13-mini_13.0-1_amd64.tar.zst",
            ),
            ("hostname", &name),
            ("rootfs", "lxc-disks:2"),
            ("cores", "1"),
            ("memory", "256"),
            ("swap", "0"),
            ("net0", "name=eth0,bridge=vmbr0,ip=dhcp"),
        ];
        root.task("POST", "/nodes/pve1/lxc", &form).await;
    }

    async fn ask(&mut self, exchange: &Exchange) -> Answer {
        let mut client = self
            .client(exchange.auth.as_deref().unwrap_or("none"))
            .await;
        for (name, value) in exchange.request_headers.iter().flatten() {
            client = client.with_header(name, value);
        }
        let path = self.here(&exchange.path);
        if !path.starts_with("/api2") {
            return client.raw(&exchange.method, &path, "").await;
        }
        if let Some(body) = &exchange.request_body {
            return client.raw(&exchange.method, &path, body).await;
        }
        let pairs: Vec<(String, String)> = exchange
            .pairs()
            .into_iter()
            .map(|(key, value)| (key, self.here(&value)))
            .collect();
        let form: Vec<(&str, &str)> = pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        client.call(&exchange.method, &path, &form).await
    }

    /// Remembers what a recorded id or digest is here, and waits for the task.
    async fn learn(&mut self, exchange: &Exchange, answer: &Answer) {
        let (then, now) = (&exchange.body["data"], &answer.body["data"]);
        if let (Some(then), Some(now)) = (then.as_str(), now.as_str()) {
            self.known.insert(then.to_owned(), now.to_owned());
        }
        for key in ["digest", "upid"] {
            if let (Some(then), Some(now)) = (then[key].as_str(), now[key].as_str()) {
                self.known.insert(then.to_owned(), now.to_owned());
            }
        }
        self.simulator.idle(Duration::from_secs(10)).await;
    }
}

fn escaped(text: &str) -> String {
    text.replace(':', "%3A")
        .replace('@', "%40")
        .replace('!', "%21")
}

/// Kinds of value: numbers are one.
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

/// What chance decides, made equal.
fn levelled(value: &Value) -> String {
    let patterns = [
        ("BC:24:11:..:..:..", "MAC"),
        ("\"snaptime\":[0-9]+", "SNAPTIME"),
        ("[0-9a-f]{40}", "DIGEST"),
    ];
    patterns
        .iter()
        .fold(value.to_string(), |text, (pattern, name)| {
            Regex::new(pattern)
                .unwrap()
                .replace_all(&text, *name)
                .into_owned()
        })
}

fn difference(exchange: &Exchange, answer: &Answer) -> Option<String> {
    if (answer.status, &answer.reason) != (exchange.status, &exchange.reason) {
        return Some(format!(
            "{} {:?}, recorded {} {:?}",
            answer.status, answer.reason, exchange.status, exchange.reason
        ));
    }
    if !exchange.body.is_object() {
        return (answer.text.is_empty() != (exchange.body == ""))
            .then(|| format!("body {:?}, recorded {}", answer.text, exchange.body));
    }
    if answer.body.get("errors") != exchange.body.get("errors") {
        return Some(format!(
            "errors {}, recorded {}",
            answer.body["errors"], exchange.body["errors"]
        ));
    }
    let (now, then) = (&answer.body["data"], &exchange.body["data"]);
    if kind(now) != kind(then) {
        return Some(format!("data {now}, recorded {then}"));
    }
    let config = exchange.path.contains("/config");
    if config && then.is_object() && levelled(now) != levelled(then) {
        return Some(format!(
            "{}\n      recorded {}",
            levelled(now),
            levelled(then)
        ));
    }
    let (Some(now), Some(then)) = (now.as_object(), then.as_object()) else {
        return None;
    };
    let keys = |map: &serde_json::Map<String, Value>| {
        map.iter()
            .map(|(key, value)| (key.clone(), kind(value)))
            .collect::<BTreeMap<_, _>>()
    };
    if keys(now) != keys(then) {
        return Some(format!("keys {:?}, recorded {:?}", keys(now), keys(then)));
    }
    (now.get("exitstatus") != then.get("exitstatus")).then(|| {
        format!(
            "ended {:?}, recorded {:?}",
            now.get("exitstatus"),
            then.get("exitstatus")
        )
    })
}

#[tokio::test]
async fn recorded_exchanges_are_answered_alike() {
    let folder = std::env::var_os("PHOENIX_RECORDINGS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("recordings/pve"),
        PathBuf::from,
    );
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .collect();
    files.sort();
    let (mut all, mut alike, mut unexplained) = (0, 0, Vec::new());
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let exchanges: Vec<Exchange> =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let mut replay = Replay::new().await;
        for exchange in &exchanges {
            replay.happen(&name, &exchange.title).await;
            replay.prepare(exchange).await;
            let answer = replay.ask(exchange).await;
            let found = difference(exchange, &answer);
            replay.learn(exchange, &answer).await;
            all += 1;
            match found {
                None => alike += 1,
                Some(text) => {
                    let told = format!(
                        "{name}: {} ({} {}): {text}",
                        exchange.title, exchange.method, exchange.path
                    );
                    match exchange.excuse(&name) {
                        Some(why) => println!("differs, {why}: {told}"),
                        None => unexplained.push(told),
                    }
                }
            }
        }
    }
    println!("{alike} of {all} recorded exchanges match");
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
    if std::env::var_os("PHOENIX_RECORDINGS").is_none() {
        assert!(
            alike >= MATCHING,
            "{alike} of {all} match, {MATCHING} did before"
        );
    }
}
