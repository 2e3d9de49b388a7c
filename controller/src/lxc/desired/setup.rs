//! The setup's text and environment, wherever they stand, and the hash that names them.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use phoenix_crds::{
    conditions::{ConditionType as C, Reason},
    setup::{Setup as SpecSetup, SetupEnv},
};
use secrecy::{ExposeSecret, SecretString};

use super::Setup;
use crate::{context::Context, digest_key::Key, fault::Fault, guest::SetupVariable, hash, secrets};

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
            let field = "spec.setup.scriptFrom";
            from_config_map(&reference.name, &reference.key, field, namespace, cx).await?
        }
        (None, None) => {
            return Err(Fault::user(
                C::SetupComplete,
                Reason::Failed,
                "spec.setup has neither script nor scriptFrom; give exactly one.",
            ));
        }
    };
    let mut env = Vec::with_capacity(spec.env.len());
    for entry in &spec.env {
        env.push(variable(entry, namespace, cx).await?);
    }
    // their order means nothing
    env.sort_by(|a, b| a.name.cmp(&b.name));
    let key = if env.iter().any(|v| v.masked) {
        Some(cx.digest_key.get(&cx.kube, &cx.namespace).await?)
    } else {
        None
    };
    Ok(Setup {
        hash: hash_of(&script, spec.verify.as_deref(), &env, key),
        script,
        verify: spec.verify.clone(),
        env,
        timeout: spec.timeout.into(),
        retries: u32::try_from(spec.retries).unwrap_or_default(),
    })
}

/// Over all that makes another setup of it. Values of Secrets enter by a keyed digest: the hash is for everybody to read.
fn hash_of(script: &str, verify: Option<&str>, env: &[SetupVariable], key: Option<&Key>) -> String {
    let mut parts = vec![script.to_owned(), verify.unwrap_or_default().to_owned()];
    for variable in env {
        let value = variable.value.expose_secret();
        parts.push(variable.name.clone());
        parts.push(match key.filter(|_| variable.masked) {
            Some(key) => format!("secret {}", key.digest(value)),
            None => format!("value {value}"),
        });
    }
    hash::short(&parts.iter().map(String::as_str).collect::<Vec<_>>())
}

async fn variable(entry: &SetupEnv, namespace: &str, cx: &Context) -> Result<SetupVariable, Fault> {
    let field = format!("spec.setup.env[{}]", entry.name);
    let (value, masked) = match (
        &entry.value,
        &entry.config_map_key_ref,
        &entry.secret_key_ref,
    ) {
        (Some(value), None, None) => (value.clone().into(), false),
        (None, Some(from), None) => {
            let value = from_config_map(&from.name, &from.key, &field, namespace, cx).await?;
            (value.into(), false)
        }
        (None, None, Some(from)) => (
            from_secret(&from.name, &from.key, &field, namespace, cx).await?,
            true,
        ),
        _ => {
            let message =
                format!("{field} needs exactly one of value, configMapKeyRef and secretKeyRef.");
            return Err(Fault::user(C::SetupComplete, Reason::Failed, message));
        }
    };
    Ok(SetupVariable {
        name: entry.name.clone(),
        value,
        masked,
    })
}

async fn from_config_map(
    name: &str,
    key: &str,
    field: &str,
    namespace: &str,
    cx: &Context,
) -> Result<String, Fault> {
    let api: Api<ConfigMap> = Api::namespaced(cx.kube.clone(), namespace);
    let map = api
        .get_opt(name)
        .await
        .map_err(|e| Fault::kube(&e, &format!("reading ConfigMap {namespace}/{name}")))?;
    let Some(map) = map else {
        return Err(missing("ConfigMap", name, namespace, field));
    };
    map.data
        .and_then(|mut data| data.remove(key))
        .ok_or_else(|| keyless("ConfigMap", name, key, namespace, field))
}

async fn from_secret(
    name: &str,
    key: &str,
    field: &str,
    namespace: &str,
    cx: &Context,
) -> Result<SecretString, Fault> {
    let Some(secret) = secrets::read(&cx.kube, namespace, name).await? else {
        return Err(missing("Secret", name, namespace, field));
    };
    let bytes = secret
        .data
        .and_then(|mut data| data.remove(key))
        .ok_or_else(|| keyless("Secret", name, key, namespace, field))?;
    match String::from_utf8(bytes.0) {
        Ok(text) if !text.contains('\0') => Ok(text.into()),
        _ => {
            let message = format!(
                "Secret {namespace}/{name}: {key:?} is not text, and an environment holds nothing else ({field}); encode it, for instance by base64."
            );
            Err(Fault::user(C::SetupComplete, Reason::Failed, message))
        }
    }
}

fn missing(kind: &str, name: &str, namespace: &str, field: &str) -> Fault {
    let message = format!(
        "{kind} {namespace}/{name} ({field}) does not exist; create it, and this goes on by itself."
    );
    Fault::retry(C::SetupComplete, Reason::Waiting, message)
}

fn keyless(kind: &str, name: &str, key: &str, namespace: &str, field: &str) -> Fault {
    let message = format!("{kind} {namespace}/{name} has no key {key:?} ({field}).");
    Fault::retry(C::SetupComplete, Reason::Waiting, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest_key::tests_key;

    fn variable(name: &str, value: &str, masked: bool) -> SetupVariable {
        SetupVariable {
            name: name.to_owned(),
            value: value.into(),
            masked,
        }
    }

    #[test]
    fn a_setup_without_environment_is_named_as_ever() {
        assert_eq!(hash_of("true", None, &[], None), hash::short(&["true", ""]));
    }

    #[test]
    fn names_values_and_where_they_come_from_make_another_setup() {
        let key = tests_key(1);
        let of = |env: &[SetupVariable]| hash_of("true", None, env, Some(&key));
        let hashes = [
            of(&[]),
            of(&[variable("A", "1", false)]),
            of(&[variable("A", "2", false)]),
            of(&[variable("B", "1", false)]),
            of(&[variable("A", "1", true)]),
            of(&[variable("A", "2", true)]),
            of(&[variable("A", "1", false), variable("B", "1", false)]),
            hash_of(
                "true",
                None,
                &[variable("A", "1", true)],
                Some(&tests_key(2)),
            ),
        ];
        let different: std::collections::BTreeSet<_> = hashes.iter().collect();
        assert_eq!(different.len(), hashes.len(), "{hashes:?}");
    }
}
