//! A step inside: its operation started in the background, on the container that has just been seen to be ours.

use std::{sync::Arc, time::Duration};

use kube::runtime::events::EventType;

use super::Hand;
use crate::{
    engine::{Announcement, Receipt},
    fault::Fault,
    guest::{GuestKey, GuestOp},
    lxc::{
        desired::{Goal, Present, Role},
        observe::{DriverStep, host_key},
        step::{GuestStep, Site},
    },
    sessions::Visit,
};

/// How long a guest is waited for in one operation.
const BOOT_LIMIT: Duration = Duration::from_mins(1);
/// How long one operation follows a setup run: then its last lines reach the status, where they changed.
const FOLLOW_LIMIT: Duration = Duration::from_secs(15);
/// What an operation may take beside its own waits.
const GUEST_LIMIT: Duration = Duration::from_secs(90);

impl Hand<'_> {
    pub(super) async fn guest(&self, site: &Site, step: GuestStep) -> Result<Receipt, Fault> {
        let Goal::Present(present) = &self.desired.goal else {
            return Err(Fault::bug("a guest step for an object that shall go"));
        };
        let seen = self.ours(site).await?;
        let (op, limit) = operation(step, present, self.observed.driver_step.as_ref())?;
        let target = &self.desired.target;
        let host_key = host_key(present, self.observed);
        let visit = Visit {
            cluster: Arc::clone(&self.cluster),
            node: site.node.clone(),
            key: GuestKey {
                vmid: site.vmid,
                uid: target.uid.clone(),
            },
            access: self
                .cluster
                .access(seen.addresses.first().map(String::as_str), host_key),
            who: target.key.clone(),
            wakes: self.cx.wakes.clone(),
        };
        let announcement = match step {
            GuestStep::StartSetup { attempt } => Some(Announcement {
                kind: if attempt == 1 {
                    EventType::Normal
                } else {
                    EventType::Warning
                },
                reason: if attempt == 1 {
                    "SettingUp"
                } else {
                    "SetupRetried"
                },
                note: format!(
                    "Running the setup of container {} on node {}, attempt {attempt}.",
                    site.vmid,
                    self.observed.seen().map_or("?", |s| s.node.as_str())
                ),
            }),
            GuestStep::StartDriverStep { attempt } => Some(Announcement {
                kind: EventType::Normal,
                reason: "BringingDriver",
                note: format!(
                    "Bringing the NVIDIA libraries in container {} to the version of its node's driver, attempt {attempt}.",
                    site.vmid
                ),
            }),
            GuestStep::ApplyVllm => Some(Announcement {
                kind: EventType::Normal,
                reason: "StartingVllm",
                note: "Wrote vLLM's unit and started it.".to_owned(),
            }),
            _ => None,
        };
        self.cx.sessions.start(visit, op, limit);
        Ok(Receipt {
            wakes: true,
            announcement,
            ..Receipt::default()
        })
    }
}

/// The texts that a guest step needs.
fn operation(
    step: GuestStep,
    present: &Present,
    driver_step: Option<&DriverStep>,
) -> Result<(GuestOp, Duration), Fault> {
    let op = match step {
        GuestStep::AwaitBoot { network } => {
            return Ok((
                GuestOp::AwaitBoot {
                    network,
                    limit: BOOT_LIMIT,
                },
                BOOT_LIMIT + GUEST_LIMIT,
            ));
        }
        GuestStep::AwaitSetup => {
            return Ok((
                GuestOp::AwaitSetup {
                    limit: FOLLOW_LIMIT,
                },
                FOLLOW_LIMIT + GUEST_LIMIT,
            ));
        }
        GuestStep::Inspect => GuestOp::Inspect,
        GuestStep::Personalise => GuestOp::Personalise,
        GuestStep::Authorize => GuestOp::Authorize,
        GuestStep::Clean => GuestOp::CleanForSeal,
        GuestStep::StartSetup { attempt } => {
            let setup = present
                .setup
                .as_ref()
                .ok_or_else(|| Fault::bug("a setup step without a setup"))?;
            GuestOp::StartSetup(setup.run(attempt))
        }
        GuestStep::StartDriverStep { attempt } => GuestOp::StartSetup(
            driver_step
                .map(|step| step.started(attempt))
                .ok_or_else(|| Fault::bug("a driver step that nobody offers"))?,
        ),
        GuestStep::ApplyVllm => match &present.role {
            Role::Container {
                vllm: Some(files), ..
            } => GuestOp::ApplyVllm {
                unit: (**files).clone(),
            },
            _ => return Err(Fault::bug("a vLLM step without spec.vllm")),
        },
    };
    Ok((op, GUEST_LIMIT))
}
