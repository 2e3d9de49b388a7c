//! What every use of the lab needs in a cluster: the operator's rights as the chart gives them, a Hypervisor that leads to a simulator,
//! and its Secret. The operator itself runs beside the cluster, since a control plane without nodes runs no pods.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use phoenix_crds::Hypervisor;
use proxmox_simulator::Simulator;
use serde_json::json;

use crate::ControlPlane;

/// Namespace and service account of `manifests/install`.
pub const OPERATOR_NAMESPACE: &str = "phoenix-system";
const OPERATOR_ACCOUNT: &str = "phoenix";

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Applies `manifests/install` and yields a kubeconfig by which a process has the rights of the chart's service account, and no other.
///
/// # Errors
/// kubectl's.
pub async fn install_operator(plane: &ControlPlane) -> Result<PathBuf> {
    let install = repository().join("manifests/install");
    let install = install
        .to_str()
        .context("the repository lies in a folder whose name is no text")?;
    plane
        .kubectl()
        .run(["apply", "--server-side", "--force-conflicts", "-k", install])
        .await
        .context("installing the operator's rights")?;
    let crds = phoenix_crds::crds()
        .into_iter()
        .map(|crd| format!("crd/{}", crd.name_any()));
    let wait = ["wait", "--for=condition=Established", "--timeout=60s"]
        .map(str::to_owned)
        .into_iter()
        .chain(crds);
    plane
        .kubectl()
        .run(wait)
        .await
        .context("waiting for the CRDs")?;
    plane
        .service_account_kubeconfig(OPERATOR_NAMESPACE, OPERATOR_ACCOUNT)
        .await
}

/// How the operator is to reach a simulator.
#[derive(Debug, Clone)]
pub struct Access {
    /// Name of the `Hypervisor`, of its Secret, and the value of its label `lab`.
    pub name: String,
    /// Whether the root password is given, too.
    pub root: bool,
    /// Whether the password of the token's own user is: a host before pve-container 6.1.3 gives a console to a login only.
    pub password: bool,
    /// `spec.polling`, in Go's notation.
    pub polling: (&'static str, &'static str),
}

/// The Secret and the `Hypervisor` for a simulator, as a user would write them.
///
/// # Panics
/// Never: what is decoded is written here.
#[expect(clippy::expect_used, reason = "what is decoded is written here")]
pub fn hypervisor_for(simulator: &Simulator, access: &Access) -> (Secret, Hypervisor) {
    let name = &access.name;
    let token = simulator.token();
    let mut data = json!({"tokenId": token.id, "tokenSecret": token.secret});
    if access.password {
        let user = token.id.split('!').next().unwrap_or_default();
        data["password"] = json!(simulator.password_of(user).unwrap_or_default());
    }
    if access.root {
        data["rootPassword"] = json!(simulator.root_password());
    }
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": OPERATOR_NAMESPACE}, "stringData": data});
    let mut hypervisor = json!({
        "apiVersion": "phoenix-hypervisor.io/v1alpha1", "kind": "Hypervisor", "metadata": {"name": name, "labels": {"lab": name}},
        "spec": {
            "endpoints": [simulator.url()],
            "tls": {"caBundle": simulator.ca_pem()},
            "credentialsSecret": name,
            "defaults": {"node": "pve", "storage": "lxc-disks", "bridge": "vmbr0", "gateway": "10.0.0.1", "nameservers": ["10.0.0.1"]},
            "vmidRange": {"start": 900, "end": 999},
            "polling": {"interval": access.polling.0, "drift": access.polling.1},
        }
    });
    if let Some(proxy) = simulator.guest_proxy_url() {
        hypervisor["spec"]["guest"] = json!({"proxy": proxy});
    }
    let typed = "it is written above in the form of its type";
    (
        serde_json::from_value(secret).expect(typed),
        serde_json::from_value(hypervisor).expect(typed),
    )
}

/// Applies both.
///
/// # Errors
/// The API server's.
pub async fn apply_hypervisor(
    plane: &ControlPlane,
    secret: &Secret,
    hypervisor: &Hypervisor,
) -> Result<()> {
    let client = plane.client()?;
    let params = PatchParams::apply("lab").force();
    let name = hypervisor.metadata.name.as_deref().unwrap_or_default();
    Api::<Secret>::namespaced(client.clone(), OPERATOR_NAMESPACE)
        .patch(name, &params, &Patch::Apply(secret))
        .await
        .context("applying the Secret")?;
    Api::<Hypervisor>::all(client)
        .patch(name, &params, &Patch::Apply(hypervisor))
        .await
        .context("applying the Hypervisor")?;
    Ok(())
}

/// Makes a namespace.
///
/// # Errors
/// The API server's.
pub async fn make_namespace(plane: &ControlPlane, name: &str) -> Result<()> {
    let namespace: Namespace = serde_json::from_value(
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
    )?;
    Api::<Namespace>::all(plane.client()?)
        .patch(
            name,
            &PatchParams::apply("lab").force(),
            &Patch::Apply(&namespace),
        )
        .await?;
    Ok(())
}
