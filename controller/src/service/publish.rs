//! Writes where what stands is not what is wanted, and says how that went.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use phoenix_crds::{
    LxcContainer, LxcStatus,
    conditions::{ConditionType as C, Reason},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tracing::{info, warn};

use super::wanted::{Compare, Wanted, owned, wanted};
use crate::{
    condition::{Finding, remembered_of},
    context::Context,
    engine::{MANAGER, Publication},
};

/// Nothing wakes us when somebody else's Service goes, or when a right is given.
const RECHECK: Duration = Duration::from_secs(30);
/// A write that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Why something does not stand as wanted.
enum Hindrance {
    /// It is another's.
    Foreign(&'static str),
    /// Kubernetes said no, or nothing.
    Refused(kube::Error),
}

impl From<kube::Error> for Hindrance {
    fn from(error: kube::Error) -> Self {
        Self::Refused(error)
    }
}

/// Brings Service and EndpointSlice of a container in line with its status.
pub(crate) async fn publish(
    object: &LxcContainer,
    status: &LxcStatus,
    cx: &Context,
) -> Publication {
    let wanted = wanted(object, status);
    let deleting = object.metadata.deletion_timestamp.is_some();
    let known = cx.published.known();
    if known.is_err() || !cx.leadership.is_leader() {
        let said = wanted
            .as_ref()
            .filter(|_| !deleting)
            .map(|_| unknown(object, known.err().flatten()));
        return Publication {
            finding: said,
            recheck: None,
        };
    }
    let hand = Hand {
        uid: object.uid().unwrap_or_default(),
        namespace: object.namespace().unwrap_or_default(),
        deleting,
        cx,
    };
    match (hand.publish(wanted.as_ref()).await, &wanted) {
        (Ok(()), None) => Publication::default(),
        // it goes, and all of this with it
        (_, Some(_)) if deleting => Publication::default(),
        (Ok(()), Some(wanted)) => Publication {
            finding: Some(Finding::met(
                C::ServiceReady,
                Reason::InSync,
                sentence(wanted),
            )),
            recheck: None,
        },
        (Err(hindrance), wanted) => hindered(&hindrance, &hand.namespace, wanted.as_ref()),
    }
}

/// What was said before stands until the watch tells more.
fn unknown(object: &LxcContainer, trouble: Option<String>) -> Finding {
    let said = object
        .status
        .as_ref()
        .and_then(|s| remembered_of(&s.conditions, C::ServiceReady));
    match (trouble, said) {
        (Some(trouble), _) => Finding::working(
            C::ServiceReady,
            Reason::Pending,
            format!(
                "The operator can't watch Services and EndpointSlices: {trouble}. The chart of its version gives it the right to."
            ),
        ),
        (None, Some(said)) => said,
        (None, None) => Finding::working(
            C::ServiceReady,
            Reason::Pending,
            "Services are being listed.",
        ),
    }
}

fn sentence(wanted: &Wanted) -> String {
    let leads = if wanted.slice.is_some() {
        "Pods reach it at"
    } else {
        "The container has no address; once it has, pods reach it at"
    };
    format!("{leads} {}.", wanted.at)
}

fn hindered(hindrance: &Hindrance, namespace: &str, wanted: Option<&Wanted>) -> Publication {
    let name = wanted.map(|w| w.service.name_any()).unwrap_or_default();
    let (finding, recheck) = match hindrance {
        Hindrance::Foreign(kind) => {
            let message = format!(
                "{kind} {namespace}/{name} is there already and not this container's, so it is left alone, and leads wherever it led. Choose another spec.service.name, or \
                 remove it; this goes on by itself then.",
            );
            (
                Finding::stalled(C::ServiceReady, Reason::OwnedByAnother, message),
                RECHECK,
            )
        }
        Hindrance::Refused(kube::Error::Api(s)) if s.is_forbidden() => {
            let message = format!(
                "the operator may not write Service {namespace}/{name}: {}. The chart of its version gives it the right to.",
                s.message.trim_end_matches('.')
            );
            (
                Finding::stalled(C::ServiceReady, Reason::Forbidden, message),
                RECHECK,
            )
        }
        Hindrance::Refused(kube::Error::Api(s)) if s.is_invalid() => {
            let message = format!(
                "Kubernetes refuses Service {namespace}/{name}: {}",
                s.message
            );
            (
                Finding::stalled(C::ServiceReady, Reason::Invalid, message),
                RECHECK,
            )
        }
        Hindrance::Refused(error) => {
            warn!(%error, "Service not written");
            // no more of the error: it may differ each time, and the condition would be written each time
            let message = format!("Service {namespace}/{name} could not be written yet.");
            (
                Finding::working(C::ServiceReady, Reason::Pending, message),
                RETRY,
            )
        }
    };
    Publication {
        finding: wanted.map(|_| finding),
        recheck: Some(recheck),
    }
}

struct Hand<'a> {
    uid: String,
    namespace: String,
    deleting: bool,
    cx: &'a Context,
}

impl Hand<'_> {
    async fn publish(&self, wanted: Option<&Wanted>) -> Result<(), Hindrance> {
        let services = self.cx.published.services_of(&self.uid);
        let slices = self.cx.published.slices_of(&self.uid);
        let name = wanted.and_then(|w| w.service.metadata.name.as_deref());
        for other in services
            .iter()
            .filter(|s| s.metadata.name.as_deref() != name)
        {
            self.remove(&**other).await?;
        }
        let service = match wanted {
            Some(wanted) => self.bring(&wanted.service, &services, "Service").await,
            None => Ok(()),
        };
        // a slice adds to whatever Service has its name: none while that is not ours
        let slice = wanted
            .filter(|_| service.is_ok())
            .and_then(|w| w.slice.as_ref());
        let kept = matches!(service, Err(Hindrance::Refused(_)));
        let name = slice.and_then(|s| s.metadata.name.as_deref());
        for other in slices
            .iter()
            .filter(|s| !kept && s.metadata.name.as_deref() != name)
        {
            self.remove(&**other).await?;
        }
        service?;
        match slice {
            Some(slice) => self.bring(slice, &slices, "EndpointSlice").await,
            None => Ok(()),
        }
    }

    fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.cx.kube.clone(), &self.namespace)
    }

    /// Makes it, or puts it right where it is ours.
    async fn bring<K>(
        &self,
        wanted: &K,
        seen: &[std::sync::Arc<K>],
        kind: &'static str,
    ) -> Result<(), Hindrance>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Compare
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let (api, name) = (self.api::<K>(), wanted.name_any());
        let stands = match seen.iter().find(|o| o.name_any() == name) {
            Some(seen) => Some((**seen).clone()),
            // the watch may be behind, and shows nothing of what others made
            None => api.get_opt(&name).await?,
        };
        let mut params = PatchParams::apply(MANAGER);
        let mut body = wanted.clone();
        match stands {
            Some(stands) if !owned(stands.meta(), &self.uid) => {
                return Err(Hindrance::Foreign(kind));
            }
            Some(stands) if stands.is(wanted) || stands.meta().deletion_timestamp.is_some() => {
                return Ok(());
            }
            Some(stands) => {
                // upon this very one: another of that name would not be ours
                body.meta_mut().uid = stands.uid();
                if let Some(mut excess) = stands.excess(wanted) {
                    excess["metadata"] = json!({"uid": stands.uid()});
                    let params = PatchParams {
                        field_manager: Some(MANAGER.to_owned()),
                        ..PatchParams::default()
                    };
                    api.patch(&name, &params, &Patch::Merge(excess)).await?;
                }
                params = params.force();
            }
            // without force: where somebody makes one of that name just now, that shows as a conflict
            None if self.deleting => return Ok(()),
            None => {}
        }
        info!(kind, name, "publish");
        api.patch(&name, &params, &Patch::Apply(&body)).await?;
        Ok(())
    }

    async fn remove<K>(&self, object: &K) -> Result<(), Hindrance>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        if object.meta().deletion_timestamp.is_some() {
            return Ok(());
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: object.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        info!(name = object.name_any(), "withdraw");
        match self.api::<K>().delete(&object.name_any(), &params).await {
            Err(kube::Error::Api(s)) if s.is_not_found() => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;
    use crate::condition::Progress;

    #[test]
    fn each_hindrance_is_said_with_whose_move_it_is() {
        let refused = |code: u16, reason: &str| {
            let status = Status {
                code,
                reason: reason.to_owned(),
                message: "no.".to_owned(),
                ..Status::default()
            };
            Hindrance::Refused(kube::Error::Api(Box::new(status)))
        };
        let rows = [
            (
                Hindrance::Foreign("Service"),
                Reason::OwnedByAnother,
                Progress::Stalled,
            ),
            (
                refused(403, "Forbidden"),
                Reason::Forbidden,
                Progress::Stalled,
            ),
            (refused(422, "Invalid"), Reason::Invalid, Progress::Stalled),
            (
                refused(409, "Conflict"),
                Reason::Pending,
                Progress::Reconciling,
            ),
            (
                refused(500, "InternalError"),
                Reason::Pending,
                Progress::Reconciling,
            ),
        ];
        let wanted = Wanted {
            service: k8s_openapi::api::core::v1::Service::default(),
            slice: None,
            at: String::new(),
        };
        for (hindrance, reason, progress) in rows {
            let said = hindered(&hindrance, "ai", Some(&wanted)).finding.unwrap();
            assert_eq!((said.reason, said.progress), (reason, progress));
        }
        assert_eq!(
            hindered(&Hindrance::Foreign("Service"), "ai", None).finding,
            None
        );
    }
}
