//! The setup's text, wherever it stands, and the hash that names it.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use phoenix_crds::{
    conditions::{ConditionType as C, Reason},
    setup::Setup as SpecSetup,
};

use super::Setup;
use crate::{context::Context, fault::Fault, hash};

/// What stands in the mark of a container that has no setup of its own.
pub(super) const NO_SETUP: &str = "none";

/// Reads `spec.setup`.
pub(in crate::lxc) async fn resolve(
    spec: &SpecSetup,
    namespace: &str,
    cx: &Context,
) -> Result<Setup, Fault> {
    let script = match (&spec.script, &spec.script_from) {
        (Some(script), _) => script.clone(),
        (None, Some(from)) => {
            let reference = &from.config_map_key_ref;
            from_config_map(&reference.name, &reference.key, namespace, cx).await?
        }
        (None, None) => {
            return Err(Fault::user(
                C::SetupComplete,
                Reason::Failed,
                "spec.setup has neither script nor scriptFrom; give exactly one.",
            ));
        }
    };
    let hash = hash::short(&[&script, spec.verify.as_deref().unwrap_or_default()]);
    Ok(Setup {
        script,
        verify: spec.verify.clone(),
        timeout: spec.timeout.into(),
        retries: u32::try_from(spec.retries).unwrap_or_default(),
        hash,
    })
}

async fn from_config_map(
    name: &str,
    key: &str,
    namespace: &str,
    cx: &Context,
) -> Result<String, Fault> {
    let api: Api<ConfigMap> = Api::namespaced(cx.kube.clone(), namespace);
    let map = api
        .get_opt(name)
        .await
        .map_err(|e| Fault::kube(&e, &format!("reading ConfigMap {namespace}/{name}")))?;
    let Some(map) = map else {
        let message = format!(
            "ConfigMap {namespace}/{name} (spec.setup.scriptFrom) does not exist; create it, and this goes on by itself."
        );
        return Err(Fault::retry(C::SetupComplete, Reason::Waiting, message));
    };
    map.data
        .and_then(|mut data| data.remove(key))
        .ok_or_else(|| {
            let message =
                format!("ConfigMap {namespace}/{name} has no key {key:?} (spec.setup.scriptFrom).");
            Fault::retry(C::SetupComplete, Reason::Waiting, message)
        })
}
