//! What both Lxc kinds go through, in five stages: desired, observe, plan, act, status. What is theirs alone stands in `template` and
//! `container`.

pub(crate) mod act;
pub mod container;
pub mod desired;
pub mod mark;
pub mod observe;
pub mod plan;
pub mod status;
pub mod step;
pub mod template;

use std::sync::Arc;

use phoenix_crds::{
    LxcStatus,
    conditions::{ConditionType, Reason},
    lxc::Lxc,
};

use crate::{
    context::Context,
    engine::{Kind, Plan, key_of},
    fault::Fault,
};

/// What distinguishes the two kinds within the shared stages.
pub(crate) trait LxcKind:
    Lxc
    + Kind<
        Desired = desired::Desired,
        Observed = observe::Observed,
        Step = step::Step,
        Status = LxcStatus,
    >
{
    /// It is sealed in the end, and others are cloned from it.
    const SEALED: bool;
    /// What it does in the end.
    fn role(&self, cx: &Context) -> impl Future<Output = Result<desired::Role, Fault>> + Send;
}

/// The hypervisor that an object uses or asks for.
pub(crate) fn hypervisor_of<K: Lxc>(object: &K) -> Option<String> {
    let kept = object.status_shared().and_then(|s| s.hypervisor.clone());
    kept.or_else(|| {
        object
            .spec_shared()
            .hypervisor_ref
            .as_ref()
            .map(|r| r.name.clone())
    })
}

/// Whether an object is this operator's: where several run side by side, the one whose hypervisor it uses.
pub(crate) async fn concerns<K: Lxc>(object: &K, cx: &Context) -> bool {
    if cx.settings.hypervisor_selector.is_none() {
        return true;
    }
    if let Some(name) = hypervisor_of(object) {
        return cx.stores.hypervisor(&name).is_some();
    }
    // none is named: it is the only one there is, ours or another operator's
    let all: kube::Api<kube::core::PartialObjectMeta<phoenix_crds::Hypervisor>> =
        kube::Api::all(cx.kube.clone());
    match all
        .list_metadata(&kube::api::ListParams::default().limit(2))
        .await
    {
        Ok(list) => {
            matches!(list.items.as_slice(), [only] if cx.stores.hypervisor(only.metadata.name.as_deref().unwrap_or_default()).is_some())
        }
        Err(_) => false,
    }
}

/// An address and a port as they stand in a URL.
fn authority(address: &str, port: impl std::fmt::Display) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// The template that an object is cloned from.
pub(crate) fn template_of<K: Lxc>(object: &K) -> Option<&str> {
    object
        .spec_shared()
        .source
        .template_ref
        .as_ref()
        .map(|r| r.name.as_str())
}

/// The status says that its container was made to the end at some time: also where it then lost its mark, so that no other is made for
/// it as long as that is so, and while a backup keeps it locked.
pub(crate) fn was_created(status: Option<&LxcStatus>) -> bool {
    let Some(status) = status else { return false };
    let reason = |kind: ConditionType| {
        status
            .conditions
            .iter()
            .find(|c| c.type_ == kind.as_str())
            .map(|c| c.reason.as_str())
    };
    let one_of = |kind: ConditionType, reasons: &[Reason]| {
        reason(kind).is_some_and(|is| reasons.iter().any(|r| r.as_str() == is))
    };
    one_of(
        ConditionType::Created,
        &[Reason::Created, Reason::OwnershipLost],
    ) || (one_of(
        ConditionType::Created,
        &[Reason::Busy, Reason::Locked, Reason::NotAllowed],
    ) && one_of(
        ConditionType::ConfigInSync,
        &[Reason::InSync, Reason::RestartRequired],
    ))
}

pub(crate) fn forget<K: LxcKind>(object: &K, cx: &Arc<Context>) {
    let key = key_of(object);
    let hypervisor = hypervisor_of(object);
    cx.forget(
        &object.uid().unwrap_or_default(),
        &key,
        hypervisor.as_deref(),
    );
    // its source may be waiting to follow, and the hypervisor to be let go
    if let (Some(template), Some(namespace)) = (template_of(object), object.namespace()) {
        let key = crate::wake::ObjectKey {
            kind: crate::wake::KindName::LxcTemplate,
            namespace,
            name: template.to_owned(),
        };
        cx.wakes.wake(&key);
    }
    if let Some(hypervisor) = hypervisor {
        cx.wakes
            .wake(&crate::wake::ObjectKey::hypervisor(&hypervisor));
    }
}

/// The plan for either kind.
pub(crate) fn plan_for(
    desired: &desired::Desired,
    observed: &observe::Observed,
    now: k8s_openapi::jiff::Timestamp,
) -> Plan<step::Step> {
    plan::plan(desired, observed, now)
}

/// The stages of `Kind`, the same for both.
macro_rules! shared_stages {
    ($kind:ty) => {
        type Desired = crate::lxc::desired::Desired;
        type Observed = crate::lxc::observe::Observed;
        type Step = crate::lxc::step::Step;
        type Status = phoenix_crds::LxcStatus;

        fn api(client: kube::Client, namespace: Option<&str>) -> kube::Api<Self> {
            kube::Api::namespaced(client, namespace.unwrap_or("default"))
        }
        fn stored(&self) -> Option<&Self::Status> {
            self.status.as_ref()
        }
        async fn desired(&self, cx: &std::sync::Arc<Context>) -> Result<Self::Desired, Fault> {
            crate::lxc::desired::desired(self, cx).await
        }
        async fn observe(
            &self,
            desired: &Self::Desired,
            cx: &std::sync::Arc<Context>,
        ) -> Result<Self::Observed, Fault> {
            crate::lxc::observe::observe(self, desired, cx).await
        }
        fn plan(
            &self,
            desired: &Self::Desired,
            observed: &Self::Observed,
            now: k8s_openapi::jiff::Timestamp,
        ) -> Plan<Self::Step> {
            crate::lxc::plan_for(desired, observed, now)
        }
        async fn act(
            &self,
            step: &Self::Step,
            desired: &Self::Desired,
            observed: &Self::Observed,
            cx: &std::sync::Arc<Context>,
        ) -> Result<Receipt, Fault> {
            crate::lxc::act::act(self, step, desired, observed, cx).await
        }
        fn status(&self, pass: &Pass<Self>, now: k8s_openapi::jiff::Timestamp) -> Self::Status {
            crate::lxc::status::status(self, pass, now)
        }
        async fn concerns(&self, cx: &std::sync::Arc<Context>) -> bool {
            crate::lxc::concerns(self, cx).await
        }
        fn forget(&self, cx: &std::sync::Arc<Context>) {
            crate::lxc::forget(self, cx);
        }
    };
}
pub(crate) use shared_stages;

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::condition::{Finding, conditions};

    #[test]
    fn a_container_that_lost_its_mark_was_made_all_the_same() {
        let rows = [
            (
                Finding::met(ConditionType::Created, Reason::Created, ""),
                true,
            ),
            (
                Finding::stalled(ConditionType::Created, Reason::OwnershipLost, ""),
                true,
            ),
            (
                Finding::stalled(ConditionType::Created, Reason::VmidTaken, ""),
                false,
            ),
            (
                Finding::working(ConditionType::Created, Reason::Creating, ""),
                false,
            ),
            (
                Finding::met(ConditionType::SetupComplete, Reason::Succeeded, ""),
                false,
            ),
        ];
        for (finding, made) in rows {
            assert_eq!(
                was_created(Some(&status(std::slice::from_ref(&finding)))),
                made,
                "{finding:?}"
            );
        }
        assert!(!was_created(None));
    }

    #[test]
    fn a_backup_is_taken_of_what_was_made_only() {
        let busy = Finding::working(ConditionType::Created, Reason::Busy, "");
        assert!(
            !was_created(Some(&status(std::slice::from_ref(&busy)))),
            "it may be locked by its own creation"
        );
        assert!(was_created(Some(&status(&[
            busy,
            Finding::met(ConditionType::ConfigInSync, Reason::InSync, "")
        ]))));
    }

    fn status(findings: &[Finding]) -> LxcStatus {
        LxcStatus {
            conditions: conditions(findings, &[], &[], None, Timestamp::UNIX_EPOCH),
            ..LxcStatus::default()
        }
    }
}
