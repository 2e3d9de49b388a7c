//! Fourth stage: one mutation. Every change of a container goes through [`Hand`], which has just seen our mark on it.

mod gpus;
mod guest;

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kube::runtime::events::EventType;
use phoenix_crds::{
    conditions::{ConditionType as C, Reason},
    status::Placement,
};
use proxmox_client::{Error, ErrorKind, Params, Upid};

use super::{
    LxcKind,
    desired::Desired,
    mark::Ownership,
    observe::Observed,
    plan::{SET_DEVICE, missing_device, missing_gpu_device},
    step::{Change, Site, Step},
};
use crate::{
    condition::{sentence, whole_seconds},
    context::Context,
    engine::{Announcement, Named, Receipt, StartedTask, apply_status},
    fault::Fault,
    fleet::{Cluster, Presence, Seen},
};

/// A look not older than this counts as "just seen".
const JUST_SEEN: Duration = Duration::from_secs(2);

/// Carries out one step.
pub(crate) async fn act<K: LxcKind>(
    object: &K,
    step: &Step,
    desired: &Desired,
    observed: &Observed,
    cx: &Arc<Context>,
) -> Result<Receipt, Fault> {
    let Some(cluster) = cx.fleet.get(&desired.target.hypervisor) else {
        return Err(Fault::retry(
            C::HypervisorReady,
            Reason::Unreachable,
            "the hypervisor's connection was closed meanwhile",
        ));
    };
    let hand = Hand {
        desired,
        observed,
        cx,
        cluster,
    };
    match step {
        Step::ReserveVmid { .. } | Step::ChooseNode { .. } => {
            reserve(object, step, desired, cx).await
        }
        Step::TakeGpus {
            site,
            gpus,
            exclusive,
        } => gpus::take_gpus(object, site, gpus, *exclusive, desired, cx).await,
        Step::Create { site, params } => hand.create(site, None, params, step).await,
        Step::Clone {
            site,
            source,
            params,
            ..
        } => hand.create(site, Some(*source), params, step).await,
        Step::Destroy { site, .. } => hand.destroy(site, step).await,
        Step::Configure { site, change } => hand.configure(site, change, step).await,
        Step::Resize { site, disk, gib } => {
            hand.ours(site).await?;
            let answer = hand
                .cluster
                .client()
                .ct_resize(&site.node, site.vmid, disk, *gib)
                .await;
            hand.task(site, answer, C::ConfigInSync, step, None)
        }
        Step::Start { site } => hand.start(site, step).await,
        Step::Shutdown {
            site,
            timeout,
            force,
        } => hand.shutdown(site, *timeout, *force, step).await,
        Step::Guest { site, step } => hand.guest(site, *step).await,
        Step::Convert { site } => hand.convert(site, step).await,
        Step::Snapshot { site, name } => {
            hand.ours(site).await?;
            let answer = hand
                .cluster
                .client()
                .ct_snapshot(
                    &site.node,
                    site.vmid,
                    name,
                    Some("sealed by the Phoenix operator"),
                )
                .await;
            hand.task(site, answer, C::Sealed, step, None)
        }
    }
}

/// Writes what is chosen once into the status, upon the very object that was read: a second writer makes this fail.
async fn reserve<K: LxcKind>(
    object: &K,
    step: &Step,
    desired: &Desired,
    cx: &Context,
) -> Result<Receipt, Fault> {
    let mut status = object.status_shared().cloned().unwrap_or_default();
    let mut receipt = Receipt::default();
    status.hypervisor = Some(desired.target.hypervisor.clone());
    if let Step::ReserveVmid { vmid } = step {
        status.vmid = Some(i64::from(*vmid));
        receipt.vmid = Some(*vmid);
    }
    if let Step::ChooseNode { node, why } = step {
        let (node, reason) = (node.clone(), why.clone());
        receipt.announcement = Some(Announcement {
            kind: EventType::Normal,
            reason: "Placed",
            note: format!("Node {node} was chosen: {reason}."),
        });
        status.node = Some(node.clone());
        status.placement = Some(Placement { node, reason });
    }
    let version = object.resource_version();
    apply_status(object, status, version.as_deref(), cx)
        .await
        .map_err(|e| Fault::kube(&e, &format!("could not {}", step.phrase())))?;
    Ok(receipt)
}

struct Hand<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    cx: &'a Arc<Context>,
    cluster: Arc<Cluster>,
}

impl Hand<'_> {
    /// The container with our mark, as of just now. Nothing that isn't ours passes here.
    async fn ours(&self, site: &Site) -> Result<Seen, Fault> {
        let look = self
            .cluster
            .look(site.vmid, Some(&site.node), JUST_SEEN)
            .await;
        let look = look.map_err(|e| {
            Fault::proxmox(
                &e,
                &format!("looking at container {}", site.vmid),
                C::Created,
            )
        })?;
        if let Presence::Here(seen) = &look.presence {
            let judged = self
                .desired
                .target
                .mark(site.vmid)
                .judge(seen.config.description());
            if matches!(judged, Ownership::Ours(_)) {
                return Ok((**seen).clone());
            }
        }
        // the plan decides anew upon what is there now
        Err(Fault::retry(
            C::Created,
            Reason::Busy,
            format!(
                "container {} changed while something was about to be done with it",
                site.vmid
            ),
        ))
    }

    fn fault(error: &Error, step: &Step, condition: C) -> Fault {
        Fault::proxmox(error, &format!("could not {}", step.phrase()), condition)
    }

    /// A started task, or why it wasn't.
    fn task(
        &self,
        site: &Site,
        answer: Result<Upid, Error>,
        condition: C,
        step: &Step,
        event: Option<&'static str>,
    ) -> Result<Receipt, Fault> {
        self.cluster.invalidate(site.vmid);
        let upid = answer.map_err(|e| Self::fault(&e, step, condition))?;
        self.cluster
            .watch(&upid, site.vmid, &self.desired.target.key);
        let announcement = event.map(|reason| Announcement {
            kind: EventType::Normal,
            reason,
            note: sentence(&step.phrase()),
        });
        let task = StartedTask {
            upid: upid.to_string(),
            kind: upid.task_type.clone(),
            at: whole_seconds(Timestamp::now()),
        };
        Ok(Receipt {
            task: Some(task),
            announcement,
            ..Receipt::default()
        })
    }

    async fn create(
        &self,
        site: &Site,
        source: Option<u32>,
        params: &[(String, String)],
        step: &Step,
    ) -> Result<Receipt, Fault> {
        let client = self.cluster.client();
        let free = client
            .vmid_is_free(site.vmid)
            .await
            .map_err(|e| Self::fault(&e, step, C::Created))?;
        if !free {
            self.cluster.invalidate(site.vmid);
            return Err(Fault::retry(
                C::Created,
                Reason::Busy,
                format!("VMID {} was taken a moment ago", site.vmid),
            ));
        }
        let mut form = Params::new();
        for (key, value) in params {
            form = form.set(key, value);
        }
        let answer = match source {
            None => client.create_ct(&site.node, &form).await,
            Some(source) => client.ct_clone(&site.node, source, &form).await,
        };
        if answer.is_err() {
            // the next in line need not wait for our next try
            self.cluster.done_cloning(&self.desired.target.key);
        }
        self.task(
            site,
            answer,
            C::Created,
            step,
            Some(if source.is_some() {
                "Cloning"
            } else {
                "Creating"
            }),
        )
    }

    async fn destroy(&self, site: &Site, step: &Step) -> Result<Receipt, Fault> {
        self.ours(site).await?;
        self.cx.sessions.outdated(&self.desired.target.uid);
        let answer = self
            .cluster
            .client()
            .ct_delete(&site.node, site.vmid, true)
            .await;
        let receipt = self.task(site, answer, C::Ready, step, Some("Destroying"))?;
        self.cluster.freed(site.vmid);
        self.cluster.interested(site.vmid, &self.desired.target.key);
        Ok(receipt)
    }

    async fn start(&self, site: &Site, step: &Step) -> Result<Receipt, Fault> {
        self.ours(site).await?;
        self.cx.sessions.outdated(&self.desired.target.uid);
        match self.cluster.client().ct_start(&site.node, site.vmid).await {
            Err(e) if e.kind == ErrorKind::AlreadyRunning => Ok(self.done(site)),
            answer => self.task(site, answer, C::PowerInSync, step, Some("Starting")),
        }
    }

    async fn shutdown(
        &self,
        site: &Site,
        timeout: Duration,
        force: bool,
        step: &Step,
    ) -> Result<Receipt, Fault> {
        self.ours(site).await?;
        self.cx.sessions.outdated(&self.desired.target.uid);
        let seconds = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX);
        match self
            .cluster
            .client()
            .ct_shutdown(&site.node, site.vmid, seconds, force)
            .await
        {
            Err(e) if e.kind == ErrorKind::NotRunning => Ok(self.done(site)),
            answer => self.task(site, answer, C::PowerInSync, step, Some("Stopping")),
        }
    }

    /// It was so already.
    fn done(&self, site: &Site) -> Receipt {
        self.cluster.invalidate(site.vmid);
        Receipt::default()
    }

    async fn configure(&self, site: &Site, change: &Change, step: &Step) -> Result<Receipt, Fault> {
        let seen = self.ours(site).await?;
        let mut params = Params::new();
        for (key, value) in &change.set {
            params = params.set(key, value);
        }
        for key in &change.delete {
            params = params.delete(key);
        }
        params = params.digest(&seen.config.digest);
        let answer = self
            .cluster
            .client()
            .ct_set_config(&site.node, site.vmid, &params, change.as_root)
            .await;
        // a failed PUT may have stored something all the same
        self.cluster.invalidate(site.vmid);
        let uid = &self.desired.target.uid;
        let Err(error) = answer else {
            self.cx.memory.recovered(uid, SET_DEVICE);
            return Ok(Receipt::default());
        };
        if let (Some(device), true) = (
            &change.optional_device,
            error.message.contains("does not exist"),
        ) {
            self.cx.memory.skip_device(uid, device);
            return Ok(Receipt::default());
        }
        if missing_gpu_device(&error.message).is_some() {
            // what is to be done about it, and when it is tried again, is the plan's affair
            self.cx.memory.failed(uid, SET_DEVICE, &error.message);
            return Ok(Receipt::default());
        }
        Err(refused(&error, change, site, step))
    }

    async fn convert(&self, site: &Site, step: &Step) -> Result<Receipt, Fault> {
        self.ours(site).await?;
        let client = self.cluster.client();
        let answer = client.ct_template(&site.node, site.vmid).await;
        self.cluster.invalidate(site.vmid);
        answer.map_err(|e| Self::fault(&e, step, C::Sealed))?;
        // the answer is null, but the work is a task: its outcome is worth having
        let tasks = client
            .active_tasks(&site.node, Some(site.vmid))
            .await
            .unwrap_or_default();
        let upid = tasks
            .into_iter()
            .find(|t| t.upid.task_type == "vztemplate")
            .map(|t| t.upid);
        match upid {
            Some(upid) => self.task(site, Ok(upid), C::Sealed, step, Some("Sealing")),
            None => Ok(Receipt::default()),
        }
    }
}

/// Why a PUT was refused, in the words of the condition that it belongs to.
fn refused(error: &Error, change: &Change, site: &Site, step: &Step) -> Fault {
    if let Some(device) = missing_device(&error.message) {
        let message = format!(
            "node {} has no device {device}. Load its driver there, or correct spec.devices.",
            site.node
        );
        return Fault::user(C::ConfigInSync, Reason::Invalid, message);
    }
    let root = matches!(
        error.kind,
        ErrorKind::TwoFactor | ErrorKind::Unauthorized | ErrorKind::Forbidden
    );
    if change.as_root && root {
        let message = format!(
            "root@pam could not set {} on container {}: {error}. Run `{}` on node {} yourself, or correct rootPassword in the hypervisor's \
             Secret.",
            change.what.join(", "),
            site.vmid,
            change.pct_set(site.vmid),
            site.node
        );
        return Fault::user(C::ConfigInSync, Reason::RootRequired, message);
    }
    Hand::fault(error, step, C::ConfigInSync)
}
