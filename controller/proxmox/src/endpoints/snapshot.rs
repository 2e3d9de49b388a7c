//! Snapshots of a container. Whether one may be taken or removed shows only in the task.

use super::container::{path, template};
use crate::{
    Client, Error, Params, Upid,
    call::{Call, escape},
    wire,
};
use serde::Deserialize;

/// A snapshot of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// Its name. Proxmox's entry for the present state, `current`, is left out of lists.
    #[serde(deserialize_with = "wire::text_or_empty")]
    pub name: String,
    /// Its description, without the line end that Proxmox adds.
    #[serde(deserialize_with = "trimmed")]
    pub description: String,
    /// When it was taken, seconds since the epoch.
    #[serde(deserialize_with = "wire::number")]
    pub snaptime: Option<u64>,
    /// The snapshot before it.
    #[serde(deserialize_with = "wire::text")]
    pub parent: Option<String>,
    /// `prepare` or `delete` where an operation on it is under way or was cut off.
    #[serde(deserialize_with = "wire::text")]
    pub snapstate: Option<String>,
}

fn trimmed<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = wire::text_or_empty(from)?;
    Ok(text.strip_suffix('\n').map(str::to_owned).unwrap_or(text))
}

impl Client {
    /// The snapshots of a container, in no particular order.
    pub async fn ct_snapshots(&self, node: &str, vmid: u32) -> Result<Vec<Snapshot>, Error> {
        let all: Vec<Snapshot> = self
            .fetch(Call::get(
                template!("/snapshot"),
                path(node, vmid, "/snapshot"),
            ))
            .await?;
        Ok(all
            .into_iter()
            .filter(|snapshot| snapshot.name != "current")
            .collect())
    }

    /// Takes a snapshot.
    pub async fn ct_snapshot(
        &self,
        node: &str,
        vmid: u32,
        name: &str,
        description: Option<&str>,
    ) -> Result<Upid, Error> {
        let params = Params::new()
            .set("snapname", name)
            .opt("description", description);
        self.submit(Call::post(template!("/snapshot"), path(node, vmid, "/snapshot")).form(&params))
            .await
    }

    /// Removes a snapshot.
    pub async fn ct_delete_snapshot(
        &self,
        node: &str,
        vmid: u32,
        name: &str,
    ) -> Result<Upid, Error> {
        let path = path(node, vmid, &format!("/snapshot/{}", escape(name)));
        self.submit(Call::delete(template!("/snapshot/{snapname}"), path))
            .await
    }
}
