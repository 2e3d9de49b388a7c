//! Objects that the API server stores and our types can't read: a newer operator wrote them, or a looser CRD let them pass.
//!
//! Nothing is done for such an object but to say so on it, and to let it go when it is deleted: it can't tell what is meant by its
//! container, so none is touched. What its status tells of the container is kept for the day on which it can be read again.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject, ObjectMeta},
};
use phoenix_crds::{
    FINALIZER,
    conditions::{ConditionType, Reason},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::debug;

use super::{Kind, write::MANAGER};
use crate::{
    condition::{Finding, conditions},
    context::Context,
};

/// Tells on the object what is wrong with it, or lets it go.
pub(super) async fn report<K: Kind>(meta: &ObjectMeta, error: &str, cx: &Context) {
    let Some(name) = meta.name.as_deref() else {
        return;
    };
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = match meta.namespace.as_deref() {
        Some(namespace) => Api::namespaced_with(cx.kube.clone(), namespace, &resource),
        None => Api::all_with(cx.kube.clone(), &resource),
    };
    let done = if meta.deletion_timestamp.is_some() {
        release(&api, name, meta).await
    } else {
        tell::<K>(&api, name, error).await
    };
    if let Err(e) = done {
        debug!(error = %e, name, "undecodable object not written to");
    }
}

async fn release(
    api: &Api<DynamicObject>,
    name: &str,
    meta: &ObjectMeta,
) -> Result<(), kube::Error> {
    let finalizers: Vec<&String> = meta
        .finalizers
        .iter()
        .flatten()
        .filter(|f| *f != FINALIZER)
        .collect();
    let patch =
        json!({"metadata": {"finalizers": finalizers, "resourceVersion": meta.resource_version}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map(drop)
}

async fn tell<K: Kind>(
    api: &Api<DynamicObject>,
    name: &str,
    error: &str,
) -> Result<(), kube::Error> {
    let Some(object) = api.get_opt(name).await? else {
        return Ok(());
    };
    let stored = object
        .data
        .get("status")
        .cloned()
        .unwrap_or_else(|| json!({}));
    let before: Vec<Condition> = stored
        .get("conditions")
        .and_then(|c| serde_json::from_value(c.clone()).ok())
        .unwrap_or_default();
    let place = culprit::<K>(&json!(object)).map_or_else(String::new, |path| format!("{path}: "));
    let message = format!(
        "this object cannot be read: {place}{error}. Nothing is done for it; correct the field (or upgrade the operator, if a newer one wrote it)."
    );
    let finding = Finding::stalled(ConditionType::Ready, Reason::Invalid, message);
    // an apply takes away what it leaves out, and the status is how we know which container is its own: all of it goes along
    let mut status = stored.clone();
    status["observedGeneration"] = json!(object.metadata.generation);
    status["conditions"] = json!(conditions(
        &[finding],
        &before,
        &before,
        object.metadata.generation,
        Timestamp::now()
    ));
    if status == stored {
        return Ok(());
    }
    let body = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "metadata": {"name": name, "namespace": object.metadata.namespace}, "status": status,
    });
    api.patch_status(
        name,
        &PatchParams::apply(MANAGER).force(),
        &Patch::Apply(&body),
    )
    .await
    .map(drop)
}

/// The field without which the object could be read, as deep as that can be told: serde doesn't say where it gave up.
fn culprit<T: DeserializeOwned>(object: &Value) -> Option<String> {
    ["spec", "status"].into_iter().find_map(|root| {
        let mut place = vec![root.to_owned()];
        while let Some(key) = keys(object, &place)
            .into_iter()
            .find(|key| reads_without::<T>(object, &place, key))
        {
            place.push(key);
        }
        (place.len() > 1 || reads_without::<T>(object, &[], root)).then(|| place.join("."))
    })
}

fn keys(object: &Value, place: &[String]) -> Vec<String> {
    let inner = place.iter().try_fold(object, |value, key| value.get(key));
    inner
        .and_then(Value::as_object)
        .map(|fields| fields.keys().cloned().collect())
        .unwrap_or_default()
}

fn reads_without<T: DeserializeOwned>(object: &Value, place: &[String], key: &str) -> bool {
    let mut object = object.clone();
    let inner = place
        .iter()
        .try_fold(&mut object, |value, key| value.get_mut(key));
    inner
        .and_then(Value::as_object_mut)
        .and_then(|fields| fields.remove(key))
        .is_some()
        && serde_json::from_value::<T>(object).is_ok()
}

#[cfg(test)]
mod tests {
    use phoenix_crds::LxcContainer;

    use super::*;

    fn object(spec: &Value, status: &Value) -> Value {
        json!({"apiVersion": "phoenix-hypervisor.io/v1alpha1", "kind": "LxcContainer", "metadata": {"name": "a"}, "spec": spec, "status": status})
    }

    #[test]
    fn the_field_that_cannot_be_read_is_named() {
        let source = json!({"osTemplate": "local:vztmpl/a.tar.zst"});
        let rows = [
            (
                json!({"source": source, "hostname": ["a"]}),
                json!({}),
                Some("spec.hostname"),
            ),
            (
                json!({"source": source, "resources": {"cores": "many"}}),
                json!({}),
                Some("spec.resources.cores"),
            ),
            (
                json!({"source": source}),
                json!({"vmid": "nine"}),
                Some("status.vmid"),
            ),
            // required or twice wrong: nothing to be named
            (json!({"source": 7}), json!({}), None),
            (
                json!({"source": source, "hostname": 1}),
                json!({"vmid": "nine"}),
                None,
            ),
        ];
        for (spec, status, named) in rows {
            assert_eq!(
                culprit::<LxcContainer>(&object(&spec, &status)).as_deref(),
                named,
                "{spec} {status}"
            );
        }
    }
}
