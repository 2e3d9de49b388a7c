//! Spec and Secret become a client; the connection is kept in the fleet, anew whenever one of the two changed.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use phoenix_crds::{
    Hypervisor,
    conditions::{ConditionType as C, Reason},
};
use proxmox_client::{
    Client, ClientConfig, Credentials, Fingerprint, SecretString, Timeouts, Trust,
};
use secrecy::ExposeSecret;

use super::ssh::KeyPair;
use crate::{
    context::Context,
    engine::key_of,
    fault::Fault,
    fleet::{Cluster, ClusterSettings},
    hash, secrets,
};

/// What the connection is to be.
#[derive(Debug)]
pub(crate) struct Desired {
    /// The object goes; the connection follows when nobody uses it.
    pub(crate) deleting: bool,
    /// The connection.
    pub(crate) cluster: Option<Arc<Cluster>>,
    /// Objects that use it.
    pub(crate) users: Vec<String>,
    /// The key pair for SSH into its containers.
    pub(crate) ssh: KeyPair,
    /// Where its credentials are, as `namespace/name`.
    pub(crate) secret: String,
}

pub(crate) async fn desired(object: &Hypervisor, cx: &Arc<Context>) -> Result<Desired, Fault> {
    let deleting = object.metadata.deletion_timestamp.is_some();
    let users = users(object, cx);
    let cluster = match connect(object, cx).await {
        Ok(cluster) => Some(cluster),
        // without a Secret nothing can be asked, but the object may still go when nobody uses it
        Err(_) if deleting => cx.fleet.get(&object.name_any()),
        Err(fault) => return Err(fault),
    };
    let ssh = if deleting {
        KeyPair::Unwanted
    } else {
        KeyPair::find(object, cx).await?
    };
    if let Some(cluster) = cluster.as_ref().filter(|_| !deleting) {
        cluster.keep_ssh(ssh.usable());
    }
    Ok(Desired {
        deleting,
        cluster,
        ssh,
        users,
        secret: format!("{}/{}", cx.namespace, object.spec.credentials_secret),
    })
}

fn users(object: &Hypervisor, cx: &Context) -> Vec<String> {
    let me = object.name_any();
    let held = |hypervisor: Option<String>| hypervisor.as_deref() == Some(me.as_str());
    let templates = cx.stores.all_templates();
    let containers = cx.stores.all_containers();
    let t = templates
        .iter()
        .filter(|t| held(t.status.as_ref().and_then(|s| s.hypervisor.clone())));
    let c = containers
        .iter()
        .filter(|c| held(c.status.as_ref().and_then(|s| s.hypervisor.clone())));
    t.map(|t| key_of(t).to_string())
        .chain(c.map(|c| key_of(c).to_string()))
        .collect()
}

async fn connect(object: &Hypervisor, cx: &Arc<Context>) -> Result<Arc<Cluster>, Fault> {
    let name = object.name_any();
    let secret = secret(object, cx).await?;
    let credentials = credentials(object, &secret, &cx.namespace)?;
    let guest = object.spec.guest.clone().unwrap_or_default();
    let settings = ClusterSettings {
        name: name.clone(),
        instance: object
            .spec
            .instance
            .clone()
            .unwrap_or_else(|| cx.instance.clone()),
        interval: object.spec.poll_interval().into(),
        drift: object.spec.drift_interval().into(),
        transport: guest.transport(),
        guest_proxy: guest.proxy,
    };
    let optional = |v: &Option<SecretString>| {
        v.as_ref()
            .map(|v| v.expose_secret().to_owned())
            .unwrap_or_default()
    };
    let connection = format!("{:?} {:?}", object.spec.endpoints, object.spec.tls);
    let key = hash::short(&[
        &connection,
        &format!("{settings:?}"),
        &credentials.token_id,
        credentials.token_secret.expose_secret(),
        &optional(&credentials.password),
        &optional(&credentials.root_password),
    ]);
    if let Some(cluster) = cx.fleet.get(&name).filter(|c| c.key() == key) {
        return Ok(cluster);
    }
    let config = ClientConfig {
        endpoints: object.spec.endpoints.clone(),
        trust: trust(object)?,
        credentials,
        timeouts: Timeouts::default(),
        observer: Some(Arc::<crate::telemetry::Metrics>::clone(&cx.metrics)
            as Arc<dyn proxmox_client::CallObserver>),
    };
    let client = Client::new(config).map_err(|e| {
        Fault::user(
            C::Connected,
            Reason::Unreachable,
            format!("the connection can't be set up: {e}."),
        )
    })?;
    let cluster = Cluster::start(
        settings,
        key,
        client,
        cx.wakes.clone(),
        Arc::clone(&cx.metrics),
    );
    cx.fleet.put(Arc::clone(&cluster));
    Ok(cluster)
}

/// What a Hypervisor's Secret holds; `namespace` is where that is.
pub(crate) fn credentials(
    object: &Hypervisor,
    secret: &Secret,
    namespace: &str,
) -> Result<Credentials, Fault> {
    let field = |key: &str| {
        secret
            .data
            .as_ref()
            .and_then(|d| d.get(key))
            .and_then(|b| String::from_utf8(b.0.clone()).ok())
            .map(|s| s.trim().to_owned())
    };
    let needed = |key: &'static str| {
        field(key).filter(|v| !v.is_empty()).ok_or_else(|| {
            let message = format!(
                "Secret {namespace}/{} has no {key}; it must hold tokenId and tokenSecret.",
                object.spec.credentials_secret
            );
            Fault::user(C::Authorized, Reason::SecretNotFound, message)
        })
    };
    Ok(Credentials {
        token_id: needed("tokenId")?,
        token_secret: SecretString::from(needed("tokenSecret")?),
        password: field("password").map(SecretString::from),
        root_password: field("rootPassword").map(SecretString::from),
    })
}

async fn secret(object: &Hypervisor, cx: &Context) -> Result<Secret, Fault> {
    // only the operator's own namespace: a Hypervisor must not lead to anybody's Secret
    let name = &object.spec.credentials_secret;
    let found = secrets::read(&cx.kube, &cx.namespace, name).await?;
    found.ok_or_else(|| {
        let message = format!("Secret {}/{name} (spec.credentialsSecret) does not exist; create it with tokenId and tokenSecret in the operator's namespace.", cx.namespace);
        Fault::user(C::Authorized, Reason::SecretNotFound, message)
    })
}

/// Whom a Hypervisor's connection trusts.
pub(crate) fn trust(object: &Hypervisor) -> Result<Trust, Fault> {
    let tls = object.spec.tls.clone().unwrap_or_default();
    let fingerprints = tls
        .fingerprints
        .iter()
        .map(|f| f.parse::<Fingerprint>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| {
            Fault::user(
                C::Connected,
                Reason::CertificateUntrusted,
                format!("spec.tls.fingerprints: {e}."),
            )
        })?;
    Ok(Trust {
        ca_bundle: tls.ca_bundle,
        fingerprints,
    })
}
