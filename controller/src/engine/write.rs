//! The engine's writes to Kubernetes: finalizer, status, events.

use std::{any::Any, sync::Arc};

use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
    runtime::events::Event,
};
use phoenix_crds::FINALIZER;
use serde_json::json;
use tracing::debug;

use super::{Announcement, Kind};
use crate::{by_uid::ByUid, context::Context};

/// Field manager of everything that the operator writes.
pub(crate) const MANAGER: &str = "phoenix-hypervisor";

/// Objects as last written by us: the watch may be behind our own writes, and a pass that doesn't know the task it started would err.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    by_uid: ByUid<Arc<dyn Any + Send + Sync>>,
}

impl Latest {
    /// The newer of the watch's object and what we wrote last.
    pub(crate) fn newer<K: Kind>(&self, watched: &K) -> Arc<K> {
        let uid = watched.uid().unwrap_or_default();
        let written = self
            .by_uid
            .lock()
            .get(&uid)
            .cloned()
            .and_then(|a| a.downcast::<K>().ok());
        match written {
            Some(written) if version(&*written) > version(watched) => written,
            _ => Arc::new(watched.clone()),
        }
    }

    fn wrote<K: Kind>(&self, object: K) {
        if let Some(uid) = object.uid() {
            self.by_uid.lock().insert(uid, Arc::new(object));
        }
    }

    /// The object is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.by_uid.forget(uid);
    }
}

/// Resource versions are integers that grow (guaranteed to be comparable since Kubernetes 1.35, and so by etcd before).
fn version<K: Kind>(object: &K) -> u64 {
    object
        .resource_version()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

pub(super) async fn add_finalizer<K: Kind>(object: &K, cx: &Context) -> Result<(), kube::Error> {
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    set_finalizers(object, &finalizers, cx).await
}

pub(super) async fn remove_finalizer<K: Kind>(object: &K, cx: &Context) -> Result<(), kube::Error> {
    let finalizers: Vec<String> = object
        .finalizers()
        .iter()
        .filter(|f| *f != FINALIZER)
        .cloned()
        .collect();
    match set_finalizers(object, &finalizers, cx).await {
        Err(kube::Error::Api(s)) if s.is_not_found() => Ok(()),
        other => other,
    }
}

async fn set_finalizers<K: Kind>(
    object: &K,
    finalizers: &[String],
    cx: &Context,
) -> Result<(), kube::Error> {
    let api = K::api(cx.kube.clone(), object.namespace().as_deref());
    // the whole list is written, so only upon the very object that it was read from
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": object.resource_version()}});
    let written = api
        .patch(
            &object.name_any(),
            &PatchParams {
                field_manager: Some(MANAGER.into()),
                ..PatchParams::default()
            },
            &Patch::Merge(&patch),
        )
        .await?;
    cx.latest_writes.wrote(written);
    Ok(())
}

/// Applies the complete status. With `exactly`, only upon that resource version: for what must not be decided twice.
pub(crate) async fn apply_status<K: Kind>(
    object: &K,
    status: K::Status,
    exactly: Option<&str>,
    cx: &Context,
) -> Result<(), kube::Error> {
    let api = K::api(cx.kube.clone(), object.namespace().as_deref());
    let mut metadata = json!({"name": object.name_any()});
    if let Some(namespace) = object.namespace() {
        metadata["namespace"] = json!(namespace);
    }
    if let Some(version) = exactly {
        metadata["resourceVersion"] = json!(version);
    }
    let mut status = json!(status);
    // a text that is too long must never keep a status from being written
    phoenix_crds::fit_status(&K::kind(&()), &mut status);
    let body = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": metadata, "status": status});
    let written = api
        .patch_status(
            &object.name_any(),
            &PatchParams::apply(MANAGER).force(),
            &Patch::Apply(&body),
        )
        .await?;
    cx.latest_writes.wrote(written);
    Ok(())
}

/// An event; a failed one must not fail the pass.
pub(super) async fn announce<K: Kind>(object: &K, what: &Announcement, cx: &Context) {
    let event = Event {
        type_: what.kind,
        reason: what.reason.to_owned(),
        note: Some(what.note.chars().take(1000).collect()),
        action: what.reason.to_owned(),
        secondary: None,
    };
    if let Err(e) = cx.recorder.publish(&event, &object.object_ref(&())).await {
        debug!(error = %e, "event not written");
    }
}
