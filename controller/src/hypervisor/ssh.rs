//! The SSH key pair of a hypervisor: a Secret beside the credentials, made once and never again while it exists.

use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Resource, ResourceExt, api::PostParams};
use phoenix_crds::{
    Hypervisor,
    conditions::{ConditionType as C, Reason},
};
use secrecy::{ExposeSecret, SecretString};

use crate::{condition::Finding, context::Context, fault::Fault, guest::SshKey, secrets};

const PRIVATE: &str = "ssh-privatekey";
const PUBLIC: &str = "ssh-publickey";

/// How it is with the key pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyPair {
    /// SSH is not used.
    Unwanted,
    /// There is no Secret yet.
    Missing,
    /// There is one that can't be used, and why.
    Broken(String),
    /// It is there.
    There(SshKey),
}

/// The name of the Secret, in the operator's own namespace.
pub(crate) fn secret_name(hypervisor: &str) -> String {
    format!("phoenix-ssh-{hypervisor}")
}

impl KeyPair {
    /// Looks for it.
    pub(crate) async fn find(object: &Hypervisor, cx: &Context) -> Result<Self, Fault> {
        let guest = object.spec.guest.clone().unwrap_or_default();
        if !guest.transport().by_ssh() {
            return Ok(Self::Unwanted);
        }
        let name = secret_name(&object.name_any());
        let Some(secret) = secrets::read(&cx.kube, &cx.namespace, &name).await? else {
            return Ok(Self::Missing);
        };
        let data = secret.data.unwrap_or_default();
        let text = data
            .get(PRIVATE)
            .and_then(|b| String::from_utf8(b.0.clone()).ok());
        let key = match text {
            Some(text) => SshKey::from_openssh(&SecretString::from(text), &whose(object, cx))
                .map_err(|e| e.to_string()),
            None => Err(format!("it has no {PRIVATE}")),
        };
        Ok(match key {
            Ok(key) => Self::There(key),
            Err(why) => Self::Broken(format!(
                "Secret {}/{name} holds no SSH key that can be used: {why}. Put the right one back; or delete it and a new one is made, which \
                 containers that are there already don't know.",
                cx.namespace
            )),
        })
    }

    /// Makes the Secret. One that somebody else has made meanwhile stays.
    pub(crate) async fn make(object: &Hypervisor, cx: &Context) -> Result<(), Fault> {
        let name = secret_name(&object.name_any());
        let bug =
            |e: crate::guest::SshKeyError| Fault::bug(format!("an SSH key could not be made: {e}"));
        let key = SshKey::generate(&whose(object, cx)).map_err(bug)?;
        let private = key.to_openssh().map_err(bug)?;
        let labels = [
            ("app.kubernetes.io/managed-by", "phoenix-hypervisor"),
            ("phoenix-hypervisor.io/hypervisor", &object.name_any()),
        ];
        let about = format!(
            "The key pair with which the operator enters containers of Hypervisor {} over SSH.",
            object.name_any()
        );
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
                annotations: Some([("kubernetes.io/description".to_owned(), about)].into()),
                owner_references: object.controller_owner_ref(&()).map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/ssh-auth".to_owned()),
            data: Some(
                [
                    (
                        PRIVATE.to_owned(),
                        ByteString(private.expose_secret().as_bytes().to_vec()),
                    ),
                    (
                        PUBLIC.to_owned(),
                        ByteString(format!("{}\n", key.authorized_line()).into_bytes()),
                    ),
                ]
                .into(),
            ),
            ..Secret::default()
        };
        let api: Api<Secret> = Api::namespaced(cx.kube.clone(), &cx.namespace);
        match api.create(&PostParams::default(), &secret).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(kube::Error::Api(status)) if status.is_forbidden() => {
                let message = format!(
                    "the operator may not create Secret {}/{name} for its SSH key: {}. Install the chart of this version, whose Role lets it; or set \
                     spec.guest.transport to Console.",
                    cx.namespace, status.message
                );
                Err(Fault::user(C::SshKeyReady, Reason::Forbidden, message))
            }
            Err(e) => Err(Fault::kube(
                &e,
                &format!("creating Secret {}/{name}", cx.namespace),
            )),
        }
    }

    /// As a condition, where SSH is used.
    pub(crate) fn finding(&self, hypervisor: &str) -> Option<Finding> {
        let found = match self {
            Self::Unwanted => return None,
            Self::Missing => Finding::working(
                C::SshKeyReady,
                Reason::Creating,
                "The operator's SSH key is yet to be made.",
            ),
            Self::Broken(why) => Finding::stalled(C::SshKeyReady, Reason::Invalid, why),
            Self::There(_) => {
                let message = format!(
                    "The operator's SSH key is in Secret {} of its namespace.",
                    secret_name(hypervisor)
                );
                Finding::met(C::SshKeyReady, Reason::Created, message)
            }
        };
        Some(found)
    }

    /// What guests are entered with.
    pub(crate) fn usable(&self) -> Option<Result<SshKey, String>> {
        match self {
            Self::Unwanted => None,
            Self::Missing => Some(Err("the operator's key is yet to be made".to_owned())),
            Self::Broken(why) => Some(Err(why.clone())),
            Self::There(key) => Some(Ok(key.clone())),
        }
    }
}

/// Which hypervisor of which installation a key is for: its comment in containers.
fn whose(object: &Hypervisor, cx: &Context) -> String {
    let instance = object.spec.instance.as_deref().unwrap_or(&cx.instance);
    format!("{}@{instance}", object.name_any())
}
