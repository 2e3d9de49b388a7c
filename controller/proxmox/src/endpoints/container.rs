//! Containers: create, configure, power, clone, convert, grow, remove. Whatever starts a task yields its UPID at once.

use crate::{
    Client, CtConfig, Error, ErrorKind, Params, Upid,
    call::{As, Call, escape},
    wire,
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The template of a container's endpoint, for spans and metrics.
macro_rules! template {
    ($rest:literal) => {
        concat!("/nodes/{node}/lxc/{vmid}", $rest)
    };
}
pub(super) use template;

pub(crate) fn path(node: &str, vmid: u32, rest: &str) -> String {
    format!("/nodes/{}/lxc/{vmid}{rest}", escape(node))
}

/// A key whose present and coming values differ, or the present value of one that waits for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PendingEntry {
    /// The configuration key.
    #[serde(deserialize_with = "wire::text_or_empty")]
    pub key: String,
    /// The value in effect.
    #[serde(deserialize_with = "wire::text")]
    pub value: Option<String>,
    /// The value that the next start brings.
    #[serde(deserialize_with = "wire::text")]
    pub pending: Option<String>,
    /// Whether the next start removes the key.
    #[serde(deserialize_with = "wire::flag")]
    pub delete: bool,
}

impl PendingEntry {
    /// Whether the key waits for a restart.
    pub fn waits(&self) -> bool {
        self.delete || self.pending.is_some()
    }
}

/// What a container does right now.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CtStatus {
    /// `running` or `stopped`.
    #[serde(deserialize_with = "wire::text_or_empty")]
    pub status: String,
    /// Its host name.
    #[serde(deserialize_with = "wire::text")]
    pub name: Option<String>,
    /// Its lock.
    #[serde(deserialize_with = "wire::text")]
    pub lock: Option<String>,
    /// Seconds since it started; 0 when stopped.
    #[serde(deserialize_with = "wire::number")]
    pub uptime: Option<u64>,
    /// Its init on the host.
    #[serde(deserialize_with = "wire::number")]
    pub pid: Option<u32>,
    /// Memory in use, bytes.
    #[serde(deserialize_with = "wire::number")]
    pub mem: Option<u64>,
    /// Memory allowed, bytes.
    #[serde(deserialize_with = "wire::number")]
    pub maxmem: Option<u64>,
    /// Root filesystem in use, bytes; 0 when stopped.
    #[serde(deserialize_with = "wire::number")]
    pub disk: Option<u64>,
    /// Root filesystem's size, bytes.
    #[serde(deserialize_with = "wire::number")]
    pub maxdisk: Option<u64>,
    /// Whether high availability owns its power state.
    #[serde(rename = "ha", deserialize_with = "ha_managed")]
    pub ha_managed: bool,
}

fn ha_managed<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Ok(Value::deserialize(from)?
        .get("managed")
        .is_some_and(wire::as_flag))
}

impl CtStatus {
    /// Whether its init exists; no more than that.
    pub fn is_running(&self) -> bool {
        self.status == "running"
    }
}

/// A network interface inside a running container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "RawInterface")]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address, lower-case.
    pub hwaddr: Option<String>,
    /// Its addresses.
    pub addresses: Vec<InterfaceAddress>,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The address.
    pub address: std::net::IpAddr,
    /// The length of its prefix.
    pub prefix: Option<u8>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct RawInterface {
    #[serde(deserialize_with = "wire::text_or_empty")]
    name: String,
    #[serde(deserialize_with = "wire::text")]
    hwaddr: Option<String>,
    #[serde(deserialize_with = "wire::text")]
    hardware_address: Option<String>,
    ip_addresses: Vec<RawAddress>,
    #[serde(deserialize_with = "wire::text")]
    inet: Option<String>,
    #[serde(deserialize_with = "wire::text")]
    inet6: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct RawAddress {
    #[serde(deserialize_with = "wire::text_or_empty")]
    ip_address: String,
    #[serde(deserialize_with = "wire::number")]
    prefix: Option<u8>,
}

impl From<RawInterface> for Interface {
    fn from(raw: RawInterface) -> Self {
        let mut addresses: Vec<InterfaceAddress> = raw
            .ip_addresses
            .iter()
            .filter_map(|a| {
                Some(InterfaceAddress {
                    address: a.ip_address.parse().ok()?,
                    prefix: a.prefix,
                })
            })
            .collect();
        // Hosts before 8.4 give one address of each family, with its prefix, and no list.
        if addresses.is_empty() {
            addresses.extend(
                [raw.inet, raw.inet6]
                    .into_iter()
                    .flatten()
                    .filter_map(|text| {
                        let (address, prefix) = text.split_once('/').unwrap_or((&text, ""));
                        Some(InterfaceAddress {
                            address: address.parse().ok()?,
                            prefix: prefix.parse().ok(),
                        })
                    }),
            );
        }
        Self {
            name: raw.name,
            hwaddr: raw
                .hwaddr
                .or(raw.hardware_address)
                .map(|mac| mac.to_lowercase()),
            addresses,
        }
    }
}

impl Client {
    /// Creates a container; `params` carry VMID, archive, storage and everything else.
    pub async fn create_ct(&self, node: &str, params: &Params) -> Result<Upid, Error> {
        self.submit(
            Call::post("/nodes/{node}/lxc", format!("/nodes/{}/lxc", escape(node))).form(params),
        )
        .await
    }

    /// The configuration with what waits for a restart merged in.
    pub async fn ct_config(&self, node: &str, vmid: u32) -> Result<CtConfig, Error> {
        self.fetch(Call::get(template!("/config"), path(node, vmid, "/config")))
            .await
    }

    /// The configuration in effect.
    pub async fn ct_config_current(&self, node: &str, vmid: u32) -> Result<CtConfig, Error> {
        self.fetch(Call::get(template!("/config"), path(node, vmid, "/config")).query("current", 1))
            .await
    }

    /// Every key with its present and its coming value.
    pub async fn ct_pending(&self, node: &str, vmid: u32) -> Result<Vec<PendingEntry>, Error> {
        self.fetch(Call::get(
            template!("/pending"),
            path(node, vmid, "/pending"),
        ))
        .await
    }

    /// Changes the configuration. `as_root` asks as root@pam itself, with a login ticket, for what Proxmox grants to nobody
    /// else. After a failure read again: Proxmox may have stored the change all the same.
    pub async fn ct_set_config(
        &self,
        node: &str,
        vmid: u32,
        params: &Params,
        as_root: bool,
    ) -> Result<(), Error> {
        let call = Call::put(template!("/config"), path(node, vmid, "/config")).form(params);
        self.execute(if as_root { call.by(As::Root) } else { call })
            .await
    }

    /// What the container does right now. Dearer than its row in [`Client::cluster_resources`].
    pub async fn ct_status(&self, node: &str, vmid: u32) -> Result<CtStatus, Error> {
        self.fetch(Call::get(
            template!("/status/current"),
            path(node, vmid, "/status/current"),
        ))
        .await
    }

    /// Starts the container.
    pub async fn ct_start(&self, node: &str, vmid: u32) -> Result<Upid, Error> {
        self.submit(Call::post(
            template!("/status/start"),
            path(node, vmid, "/status/start"),
        ))
        .await
    }

    /// Asks the container to halt; after `timeout_s` the task fails, or kills it where `force_stop` says so.
    pub async fn ct_shutdown(
        &self,
        node: &str,
        vmid: u32,
        timeout_s: u32,
        force_stop: bool,
    ) -> Result<Upid, Error> {
        let params = Params::new()
            .set("timeout", timeout_s)
            .flag("forceStop", force_stop);
        self.submit(
            Call::post(
                template!("/status/shutdown"),
                path(node, vmid, "/status/shutdown"),
            )
            .form(&params),
        )
        .await
    }

    /// Kills the container.
    pub async fn ct_stop(&self, node: &str, vmid: u32) -> Result<Upid, Error> {
        self.submit(Call::post(
            template!("/status/stop"),
            path(node, vmid, "/status/stop"),
        ))
        .await
    }

    /// Clones the container; `params` carry `newid` and everything else. The source is locked until the task ends.
    pub async fn ct_clone(&self, node: &str, vmid: u32, params: &Params) -> Result<Upid, Error> {
        self.submit(Call::post(template!("/clone"), path(node, vmid, "/clone")).form(params))
            .await
    }

    /// Begins the conversion to a template. Proxmox names no task: it is done when the configuration says `template: 1`.
    pub async fn ct_template(&self, node: &str, vmid: u32) -> Result<(), Error> {
        self.execute(Call::post(
            template!("/template"),
            path(node, vmid, "/template"),
        ))
        .await
    }

    /// Grows a disk to a size. One that has it already is [`ErrorKind::AlreadyDone`], a smaller one [`ErrorKind::Invalid`].
    pub async fn ct_resize(
        &self,
        node: &str,
        vmid: u32,
        disk: &str,
        size_gib: u64,
    ) -> Result<Upid, Error> {
        let params = Params::new()
            .set("disk", disk)
            .set("size", crate::render_gib(size_gib));
        self.submit(Call::put(template!("/resize"), path(node, vmid, "/resize")).form(&params))
            .await
    }

    /// Destroys the container and its volumes; `purge` also takes it out of backup, replication and availability jobs.
    pub async fn ct_delete(&self, node: &str, vmid: u32, purge: bool) -> Result<Upid, Error> {
        // Proxmox refuses a body on DELETE.
        let call = Call::delete(template!(""), path(node, vmid, ""));
        self.submit(if purge { call.query("purge", 1) } else { call })
            .await
    }

    /// The interfaces inside the container; none when it is stopped or not there.
    pub async fn ct_interfaces(
        &self,
        node: &str,
        vmid: u32,
    ) -> Result<Option<Vec<Interface>>, Error> {
        match self
            .fetch(Call::get(
                template!("/interfaces"),
                path(node, vmid, "/interfaces"),
            ))
            .await
        {
            Err(error) if error.kind == ErrorKind::NotRunning => Ok(None),
            answer => answer,
        }
    }

    /// Whether the container's storages can do `snapshot`, `clone` (a linked one) or `copy`.
    pub async fn ct_has_feature(
        &self,
        node: &str,
        vmid: u32,
        feature: &str,
    ) -> Result<bool, Error> {
        let call = Call::get(template!("/feature"), path(node, vmid, "/feature"))
            .query("feature", feature);
        let answer: Value = self.fetch(call).await?;
        Ok(answer.get("hasFeature").is_some_and(wire::as_flag))
    }
}
