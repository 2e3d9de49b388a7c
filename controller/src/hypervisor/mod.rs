//! `Hypervisor`: the connection, its credentials and identity, the inventory. The same five files as the Lxc kinds.

mod act;
mod desired;
mod gpus;
mod observe;
mod plan;
mod ssh;
mod status;

pub(crate) use desired::{credentials, trust};
pub(crate) use observe::Inventory;
pub(crate) use ssh::secret_name as ssh_secret_name;

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client, ResourceExt};
use phoenix_crds::{Hypervisor, HypervisorStatus};

use crate::{
    context::Context,
    engine::{Kind, Named, Pass, Plan, Receipt, key_of},
    fault::Fault,
    wake::KindName,
};

/// What can be done with a hypervisor: nothing is ever changed on it, only the connection in memory, and the Secret of its SSH key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make the key pair for SSH into its containers.
    MakeSshKey,
    /// Let changes through: its identity is the one that was pinned (or is pinned now).
    Admit,
    /// Let none through: it is another one.
    Bar {
        /// Why.
        why: String,
    },
}

impl Named for Step {
    fn name(&self) -> &'static str {
        match self {
            Self::MakeSshKey => "make_ssh_key",
            Self::Admit => "admit",
            Self::Bar { .. } => "bar",
        }
    }

    fn phrase(&self) -> String {
        match self {
            Self::MakeSshKey => "make the SSH key".to_owned(),
            Self::Admit => "let changes through".to_owned(),
            Self::Bar { why } => format!("let no change through: {why}"),
        }
    }
}

impl Kind for Hypervisor {
    const NAME: KindName = KindName::Hypervisor;
    type Desired = desired::Desired;
    type Observed = observe::Observed;
    type Step = Step;
    type Status = HypervisorStatus;

    fn api(client: Client, _: Option<&str>) -> Api<Self> {
        Api::all(client)
    }

    fn stored(&self) -> Option<&Self::Status> {
        self.status.as_ref()
    }

    async fn desired(&self, cx: &Arc<Context>) -> Result<Self::Desired, Fault> {
        desired::desired(self, cx).await
    }

    async fn observe(
        &self,
        desired: &Self::Desired,
        cx: &Arc<Context>,
    ) -> Result<Self::Observed, Fault> {
        observe::observe(self, desired, cx).await
    }

    fn plan(
        &self,
        desired: &Self::Desired,
        observed: &Self::Observed,
        _: Timestamp,
    ) -> Plan<Self::Step> {
        plan::plan(self, desired, observed)
    }

    async fn act(
        &self,
        step: &Self::Step,
        desired: &Self::Desired,
        _: &Self::Observed,
        cx: &Arc<Context>,
    ) -> Result<Receipt, Fault> {
        act::act(self, step, desired, cx).await
    }

    fn status(&self, pass: &Pass<Self>, now: Timestamp) -> Self::Status {
        status::status(self, pass, now)
    }

    async fn concerns(&self, _: &Arc<Context>) -> bool {
        // the watch is of ours only
        true
    }

    fn forget(&self, cx: &Arc<Context>) {
        cx.fleet.remove(&self.name_any());
        cx.metrics.hypervisor_gone(&self.name_any());
        cx.forget(&self.uid().unwrap_or_default(), &key_of(self), None);
    }
}
