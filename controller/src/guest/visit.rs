//! An operation in a container of a Proxmox VE, from opening its console on.
//!
//! What is decided here: when a shell that somebody left at its prompt may be taken over. It may be our own, of an operator that was
//! killed or cut off in the moment between attaching and typing; nothing would ever end it. It is taken over only when
//! Proxmox shows no console of this container open, and we may see all that there are.

use std::time::Duration;

use proxmox_client::{Client, Console};

use super::error::GuestError;
use super::facts::GuestFacts;
use super::op::{GuestKey, GuestOp};
use super::{run, run_alone};

/// How long Proxmox may take to notice that the connection just closed is gone.
const FAREWELL: u32 = 10;

/// Opens the console and carries out the operation.
pub async fn visit(
    client: &Client,
    node: &str,
    key: &GuestKey,
    op: &GuestOp,
) -> Result<GuestFacts, GuestError> {
    match run(open(client, node, key).await?, key, op).await {
        Err(GuestError::ConsoleBusy { .. }) if is_alone(client, node, key.vmid).await => {
            run_alone(open(client, node, key).await?, key, op).await
        }
        outcome => outcome,
    }
}

async fn open(client: &Client, node: &str, key: &GuestKey) -> Result<Console, GuestError> {
    let opened = client.ct_console(node, key.vmid).await;
    opened.map_err(|error| GuestError::unreached(&error))
}

/// Nobody has a console of this container open. Any doubt is a no.
async fn is_alone(client: &Client, node: &str, vmid: u32) -> bool {
    // Without this privilege the list holds our own tasks only.
    let sees_all = match client.permissions().await {
        Ok(permissions) => permissions.allows(&format!("/nodes/{node}"), "Sys.Audit"),
        Err(_) => false,
    };
    if !sees_all {
        return false;
    }
    for _ in 0..FAREWELL {
        let Ok(tasks) = client.active_tasks(node, Some(vmid)).await else {
            return false;
        };
        // Proxmox lists tasks that have just ended among the active ones, with their exit status.
        let open =
            |status: &Option<String>| status.as_deref().is_none_or(|status| status == "RUNNING");
        if !tasks
            .iter()
            .any(|task| task.upid.task_type == "vncproxy" && open(&task.status))
        {
            return true;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    false
}
