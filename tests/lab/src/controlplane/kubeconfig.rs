//! Kubeconfig files: what the lab's clients, kubectl and the operator find a cluster by.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kube::config::{
    AuthInfo, Cluster, Config, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster,
    NamedContext,
};

use super::credentials::write_secret;

/// The one name that a lab's kubeconfig uses for its cluster and its context.
const NAME: &str = "phoenix-lab";

/// Where an API server is and how it proves to be the one.
pub(super) fn cluster(url: &str, ca_pem: &str) -> Cluster {
    Cluster {
        server: Some(url.to_owned()),
        certificate_authority_data: Some(BASE64_STANDARD.encode(ca_pem)),
        ..Cluster::default()
    }
}

/// A kubeconfig of one cluster and one user with a bearer token.
pub(super) fn with_token(
    cluster: Cluster,
    user: &str,
    token: &str,
    namespace: Option<&str>,
) -> Kubeconfig {
    Kubeconfig {
        api_version: Some("v1".to_owned()),
        kind: Some("Config".to_owned()),
        current_context: Some(NAME.to_owned()),
        clusters: vec![NamedCluster {
            name: NAME.to_owned(),
            cluster: Some(cluster),
            ..NamedCluster::default()
        }],
        auth_infos: vec![NamedAuthInfo {
            name: user.to_owned(),
            auth_info: Some(AuthInfo {
                token: Some(token.to_owned().into()),
                ..AuthInfo::default()
            }),
            ..NamedAuthInfo::default()
        }],
        contexts: vec![NamedContext {
            name: NAME.to_owned(),
            context: Some(Context {
                cluster: NAME.to_owned(),
                user: Some(user.to_owned()),
                namespace: namespace.map(str::to_owned),
                ..Context::default()
            }),
            ..NamedContext::default()
        }],
        ..Kubeconfig::default()
    }
}

pub(super) fn write(kubeconfig: &Kubeconfig, path: &Path) -> Result<()> {
    let text = serde_saphyr::to_string(kubeconfig).context("writing a kubeconfig as YAML")?;
    write_secret(path, &text)
}

/// The cluster that a kubeconfig's current context names.
pub(super) fn current_cluster(kubeconfig: &Kubeconfig) -> Result<Cluster> {
    let context = kubeconfig
        .current_context
        .as_deref()
        .context("the kubeconfig has no current context")?;
    let cluster = kubeconfig
        .contexts
        .iter()
        .find(|entry| entry.name == context)
        .and_then(|entry| entry.context.as_ref())
        .map(|context| &context.cluster)
        .with_context(|| format!("the kubeconfig has no context {context}"))?;
    kubeconfig
        .clusters
        .iter()
        .find(|entry| entry.name == *cluster)
        .and_then(|entry| entry.cluster.clone())
        .with_context(|| format!("the kubeconfig has no cluster {cluster}"))
}

/// How a client connects, with the server's certificate checked in any case.
pub(super) async fn config(kubeconfig: Kubeconfig) -> Result<Config> {
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .context("the kubeconfig is not usable")?;
    ensure!(
        !config.accept_invalid_certs,
        "the kubeconfig switches the check of the server's certificate off"
    );
    Ok(config)
}
