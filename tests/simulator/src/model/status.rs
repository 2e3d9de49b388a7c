//! What is said of a container's state: live, and as the statistics daemon broadcast it last.

use serde_json::{Map, Value, json};

use super::{Container, Node, State, now, volume};
use crate::schema::parse_size;

/// One broadcast of the statistics daemon.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) taken: u64,
    pub(crate) fields: Map<String, Value>,
}

/// After this many seconds a broadcast is worth nothing.
pub(crate) const SAMPLE_LIFE: u64 = 300;
const DEFAULT_DISK: u64 = 4 << 30;
const DEFAULT_MEMORY: u64 = 512 << 20;
const IDLE_MEMORY: u64 = 38 << 20;

impl Container {
    fn number(&self, key: &str, default: u64) -> u64 {
        self.file
            .main
            .get(key)
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    }

    /// The size of its root disk.
    pub(crate) fn disk_size(&self) -> u64 {
        let rootfs = volume::mounts(&self.file.main)
            .into_iter()
            .find(|mount| mount.key == "rootfs");
        rootfs
            .and_then(|mount| mount.option("size").and_then(parse_size))
            .unwrap_or(DEFAULT_DISK)
    }

    /// An item of `GET nodes/N/lxc`, and the most of `status/current`.
    pub(crate) fn status(&self, vmid: u32, state: &State) -> Map<String, Value> {
        let cores = state
            .nodes
            .get(&self.node)
            .map_or(1, |node| node.shape.cores);
        let running = self.runtime.as_ref();
        let name = self
            .file
            .main
            .get("hostname")
            .map_or_else(|| format!("CT{vmid}"), str::to_owned);
        let cpus = match self.file.main.get("cpulimit").filter(|limit| *limit != "0") {
            // A limit is told as the text it was given as.
            Some(limit) => json!(limit),
            None => json!(self.number("cores", u64::from(cores))),
        };
        let mut item = json!({
            "vmid": vmid, "type": "lxc", "name": name, "cpus": cpus,
            "status": if running.is_some() { "running" } else { "stopped" },
            "maxmem": self.number("memory", 512) << 20, "maxswap": self.number("swap", 512) << 20, "maxdisk": self.disk_size(),
            "cpu": 0, "mem": 0, "swap": 0, "disk": 0, "diskread": 0, "diskwrite": 0, "netin": 0, "netout": 0, "uptime": 0,
        });
        if let Some(running) = running {
            let uptime = now().saturating_sub(running.started);
            item["pid"] = json!(running.pid);
            item["uptime"] = json!(uptime);
            item["mem"] = json!(IDLE_MEMORY);
            item["disk"] = json!(self.written(state));
            item["netin"] = json!(774 + uptime * 12);
            item["netout"] = json!(1286 + uptime * 3);
            for key in [
                "pressurecpufull",
                "pressurecpusome",
                "pressureiofull",
                "pressureiosome",
                "pressurememoryfull",
                "pressurememorysome",
            ] {
                item[key] = json!("0.00");
            }
        }
        for key in ["lock", "tags"] {
            if let Some(value) = self.file.main.get(key) {
                item[key] = json!(value);
            }
        }
        if self.file.is_template() {
            item["template"] = json!(1);
        }
        match item {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    fn written(&self, state: &State) -> u64 {
        volume::mounts(&self.file.main)
            .iter()
            .filter_map(super::volume::Mount::volume)
            .find_map(|(storage, name)| {
                state
                    .storages
                    .get(storage)?
                    .volumes
                    .get(super::storage::leaf(name))
            })
            .map_or(0, |volume| volume.refer)
    }

    /// The fields that a broadcast carries.
    fn sample(&self, vmid: u32, state: &State) -> Sample {
        let mut status = self.status(vmid, state);
        if self.sample.is_none() {
            // The daemon still knows the file as it was while the container was being made.
            status.insert("name".to_owned(), json!(format!("CT{vmid}")));
            status.insert("maxdisk".to_owned(), json!(DEFAULT_DISK));
            status.insert("maxmem".to_owned(), json!(DEFAULT_MEMORY));
        }
        let mut fields = Map::new();
        for (from, to) in [
            ("name", "name"),
            ("status", "status"),
            ("maxmem", "maxmem"),
            ("maxdisk", "maxdisk"),
            ("mem", "mem"),
            ("disk", "disk"),
            ("uptime", "uptime"),
            ("netin", "netin"),
            ("netout", "netout"),
            ("diskread", "diskread"),
            ("diskwrite", "diskwrite"),
            ("cpu", "cpu"),
        ] {
            fields.insert(to.to_owned(), status.get(from).cloned().unwrap_or_default());
        }
        let maxcpu = match &status["cpus"] {
            Value::String(text) => text.parse::<f64>().map_or(json!(1), |number| json!(number)),
            number => number.clone(),
        };
        fields.insert("maxcpu".to_owned(), maxcpu);
        fields.insert("memhost".to_owned(), status["mem"].clone());
        fields.insert(
            "template".to_owned(),
            json!(u8::from(self.file.is_template())),
        );
        Sample {
            taken: now(),
            fields,
        }
    }

    /// The row of `cluster/resources`: replicated facts at once, the rest from the last broadcast.
    pub(crate) fn row(&self, vmid: u32, pool: Option<&str>) -> Map<String, Value> {
        let mut row = match &self.sample {
            Some(sample) if now().saturating_sub(sample.taken) <= SAMPLE_LIFE => {
                sample.fields.clone()
            }
            _ => Map::from_iter([("status".to_owned(), json!("unknown"))]),
        };
        row.insert("id".to_owned(), json!(format!("lxc/{vmid}")));
        row.insert("type".to_owned(), json!("lxc"));
        row.insert("vmid".to_owned(), json!(vmid));
        row.insert("node".to_owned(), json!(self.node));
        let optional = [
            ("lock", self.file.lock()),
            ("tags", self.file.main.get("tags")),
            ("pool", pool),
        ];
        row.extend(
            optional
                .into_iter()
                .filter_map(|(key, value)| value.map(|value| (key.to_owned(), json!(value)))),
        );
        row
    }
}

impl Node {
    /// The row of `nodes` and `cluster/resources`; figures only for those who may see them.
    pub(crate) fn row(&self, figures: bool) -> Map<String, Value> {
        let status = if self.online { "online" } else { "offline" };
        let mut row = json!({"id": format!("node/{}", self.shape.name), "type": "node", "node": self.shape.name, "status": status, "level": ""});
        if figures && self.online {
            row["cpu"] = json!(0.0213);
            row["maxcpu"] = json!(self.shape.cores);
            row["mem"] = json!(self.shape.memory_mib << 18);
            row["maxmem"] = json!(self.shape.memory_mib << 20);
            row["disk"] = json!(9_663_676_416_u64);
            row["maxdisk"] = json!(100_861_726_720_u64);
            row["uptime"] = json!(now().saturating_sub(self.booted));
        }
        match row {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

impl State {
    /// One round of the statistics daemon.
    pub(crate) fn broadcast(&mut self) {
        let samples: Vec<(u32, Sample)> = self
            .containers
            .iter()
            .filter(|(_, container)| {
                self.nodes
                    .get(&container.node)
                    .is_some_and(|node| node.online)
            })
            .map(|(vmid, container)| (*vmid, container.sample(*vmid, self)))
            .collect();
        for (vmid, sample) in samples {
            if let Some(container) = self.containers.get_mut(&vmid) {
                container.sample = Some(sample);
            }
        }
    }
}
