//! Storages of a node and the volumes on them.

use crate::{
    Client, Error,
    call::{Call, escape},
    wire,
};
use serde::Deserialize;

/// A storage as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Storage {
    /// Its name.
    #[serde(rename = "storage", deserialize_with = "wire::text_or_empty")]
    pub name: String,
    /// Its type, such as `zfspool` or `dir`.
    #[serde(rename = "type", deserialize_with = "wire::text_or_empty")]
    pub kind: String,
    /// What it may hold: `rootdir`, `vztmpl`, …
    #[serde(deserialize_with = "wire::list")]
    pub content: Vec<String>,
    /// Whether it answers.
    #[serde(deserialize_with = "wire::flag")]
    pub active: bool,
    /// Whether it is switched on.
    #[serde(deserialize_with = "wire::flag")]
    pub enabled: bool,
    /// Whether it is one for all nodes.
    #[serde(deserialize_with = "wire::flag")]
    pub shared: bool,
    /// Its size in bytes.
    #[serde(deserialize_with = "wire::number")]
    pub total: Option<u64>,
    /// Bytes in use.
    #[serde(deserialize_with = "wire::number")]
    pub used: Option<u64>,
    /// Bytes free.
    #[serde(deserialize_with = "wire::number")]
    pub avail: Option<u64>,
}

impl Storage {
    /// Whether containers' volumes may lie on it.
    pub fn holds_containers(&self) -> bool {
        self.content.iter().any(|c| c == "rootdir")
    }

    /// Whether templates' archives may lie on it.
    pub fn holds_archives(&self) -> bool {
        self.content.iter().any(|c| c == "vztmpl")
    }
}

/// A volume on a storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct VolumeInfo {
    /// Storage and name.
    #[serde(deserialize_with = "wire::text_or_empty")]
    pub volid: String,
    /// What it is: `rootdir`, `images`, `vztmpl`, …
    #[serde(deserialize_with = "wire::text_or_empty")]
    pub content: String,
    /// `subvol`, `raw`, `tzst`, …
    #[serde(deserialize_with = "wire::text_or_empty")]
    pub format: String,
    /// Its size in bytes.
    #[serde(deserialize_with = "wire::number")]
    pub size: Option<u64>,
    /// The guest that it belongs to.
    #[serde(deserialize_with = "wire::number")]
    pub vmid: Option<u32>,
    /// What it was cloned from: `basevol-900-disk-0@__base__`.
    #[serde(deserialize_with = "wire::text")]
    pub parent: Option<String>,
}

impl Client {
    /// The storages of a node. Proxmox probes each of them, which takes time: not to be called often.
    pub async fn storages(&self, node: &str) -> Result<Vec<Storage>, Error> {
        self.fetch(Call::get(
            "/nodes/{node}/storage",
            format!("/nodes/{}/storage", escape(node)),
        ))
        .await
    }

    /// The volumes on a storage that the token may see, of one guest or of all.
    pub async fn storage_content(
        &self,
        node: &str,
        storage: &str,
        vmid: Option<u32>,
    ) -> Result<Vec<VolumeInfo>, Error> {
        let call = Call::get(
            "/nodes/{node}/storage/{storage}/content",
            format!(
                "/nodes/{}/storage/{}/content",
                escape(node),
                escape(storage)
            ),
        );
        self.fetch(call.query_opt("vmid", vmid)).await
    }
}
