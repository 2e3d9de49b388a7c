//! A Kubernetes control plane for as long as a value lives: etcd, kube-apiserver and kube-controller-manager as released.
//!
//! Decides how they are set up: RBAC on, an administrator and nobody else, everything on 127.0.0.1 or on
//! sockets in a folder that only the owner can enter, state that is thrown away. Where `PHOENIX_LAB_KUBECONFIG` names a
//! kubeconfig, that cluster is used instead and nothing is started. Leaves out nodes: no pod ever runs here, the operator
//! runs beside it as a process.

mod arguments;
mod credentials;
mod kubeconfig;
mod port;
mod processes;
mod readiness;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::{Cluster, Config, Kubeconfig};
use kube::{Api, Client};
use tempfile::TempDir;
use tokio::time::Instant;

use self::credentials::Credentials;
use self::port::ReservedPort;
use self::processes::Processes;
use self::readiness::{controls, serves, wait_for};
use crate::gotool;
use crate::kubectl::Kubectl;

/// Names a kubeconfig whose cluster is used instead of a new one.
pub const KUBECONFIG_VARIABLE: &str = "PHOENIX_LAB_KUBECONFIG";

/// Ready in three seconds on an idle machine; a busy one gets its time.
const READY_WITHIN: Duration = Duration::from_secs(180);
/// Longer than any run of the lab, so that the operator's token need not be renewed.
const ACCOUNT_TOKEN_SECONDS: i64 = 7 * 24 * 3600;

/// A Kubernetes API to work with.
///
/// Dropping it ends its processes and removes its files. Where it is never dropped, as in a `static`, the end of this process
/// does the same, whatever the end is.
pub struct ControlPlane {
    url: String,
    kubeconfig_path: PathBuf,
    cluster: Cluster,
    config: Config,
    kubectl: Kubectl,
    // Dropped in this order: first those who write to the folder, then the folder.
    own: Option<Own>,
    dir: TempDir,
}

/// What exists only where the control plane is our own.
#[derive(Debug)]
struct Own {
    processes: Mutex<Processes>,
    _port: ReservedPort,
}

impl ControlPlane {
    /// Starts a control plane and waits until it serves, or connects to the cluster that `PHOENIX_LAB_KUBECONFIG` names.
    ///
    /// The first call on a machine builds the programs, which takes minutes; the progress is shown on standard error.
    pub async fn start() -> Result<Self> {
        match std::env::var_os(KUBECONFIG_VARIABLE).filter(|path| !path.is_empty()) {
            Some(path) => Self::connect(Path::new(&path)).await,
            None => Self::start_own().await,
        }
    }

    /// Uses a cluster that exists.
    pub async fn connect(kubeconfig_path: &Path) -> Result<Self> {
        let kubeconfig = Kubeconfig::read_from(kubeconfig_path)
            .with_context(|| format!("reading the kubeconfig {}", kubeconfig_path.display()))?;
        let cluster = kubeconfig::current_cluster(&kubeconfig)?;
        let url = cluster
            .server
            .clone()
            .context("the kubeconfig's cluster has no server")?;
        let dir = temp_dir()?;
        let kubeconfig_path =
            std::path::absolute(kubeconfig_path).context("finding the current folder")?;
        let kubectl = kubectl(
            &gotool::CONTROL_PLANE.path().await?,
            dir.path(),
            &kubeconfig_path,
        )?;
        let config = kubeconfig::config(kubeconfig).await?;
        let version = new_client(&config)?
            .apiserver_version()
            .await
            .with_context(|| format!("asking the cluster at {url} for its version"))?;
        tracing::info!(
            url,
            version = version.git_version,
            "using an existing cluster"
        );
        Ok(Self {
            url,
            kubeconfig_path,
            cluster,
            config,
            kubectl,
            own: None,
            dir,
        })
    }

    /// Starts a control plane, whatever the environment says.
    pub async fn start_own() -> Result<Self> {
        let binary = gotool::CONTROL_PLANE.path().await?;
        let began = Instant::now();
        let dir = temp_dir()?;
        let state = dir.path();
        let credentials = Credentials::create(state)?;
        let port = ReservedPort::on_loopback()?;
        let url = format!("https://127.0.0.1:{}", port.number);
        let cluster = kubeconfig::cluster(&url, &credentials.ca_pem);

        let kubeconfig_path = state.join("kubeconfig");
        let admin =
            kubeconfig::with_token(cluster.clone(), "admin", &credentials.admin_token, None);
        kubeconfig::write(&admin, &kubeconfig_path)?;
        let user = "system:kube-controller-manager";
        let token = &credentials.controller_manager_token;
        kubeconfig::write(
            &kubeconfig::with_token(cluster.clone(), user, token, None),
            &state.join(arguments::CONTROLLER_MANAGER_KUBECONFIG),
        )?;

        let kubectl = kubectl(&binary, state, &kubeconfig_path)?;
        let config = kubeconfig::config(admin).await?;
        let client = new_client(&config)?;
        let mut processes = Processes::new(binary, state.to_owned());
        processes.start("etcd", &arguments::etcd())?;
        processes.start("kube-apiserver", &arguments::apiserver(port.number))?;
        wait_for(
            &mut processes,
            "kube-apiserver",
            began + READY_WITHIN,
            || serves(&client),
        )
        .await?;
        // Not earlier: it gives up on an API server that does not answer.
        processes.start("kube-controller-manager", &arguments::controller_manager())?;
        wait_for(
            &mut processes,
            "kube-controller-manager",
            began + READY_WITHIN,
            || controls(&client),
        )
        .await?;
        tracing::info!(
            url,
            seconds = began.elapsed().as_secs_f32(),
            "the control plane is up"
        );
        Ok(Self {
            url,
            kubeconfig_path,
            cluster,
            config,
            kubectl,
            own: Some(Own {
                processes: Mutex::new(processes),
                _port: port,
            }),
            dir,
        })
    }

    /// The API server's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig_path
    }

    /// A folder for files that are to go with the control plane.
    pub fn state_dir(&self) -> &Path {
        self.dir.path()
    }

    /// A new client with the administrator's rights. It belongs to the async runtime that the call is made in, which is why
    /// there is not one for all: tests that share a control plane have a runtime each.
    pub fn client(&self) -> Result<Client> {
        new_client(&self.config)
    }

    /// kubectl with the administrator's rights.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// The processes started for it, by name; none where the cluster existed.
    pub fn process_ids(&self) -> Vec<(&'static str, u32)> {
        self.own.as_ref().map_or_else(Vec::new, |own| {
            let processes = own.processes.lock().unwrap_or_else(PoisonError::into_inner);
            processes.ids().collect()
        })
    }

    /// An error that quotes its log, once one of the processes has ended.
    pub fn check(&self) -> Result<()> {
        self.own.as_ref().map_or(Ok(()), |own| {
            own.processes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .check()
        })
    }

    /// Applies the CRDs that lie in a folder as YAML files and waits until the API server serves them.
    pub async fn apply_crds(&self, dir: &Path) -> Result<()> {
        let dir = dir
            .to_str()
            .context("the CRDs' folder has a name that is no text")?;
        let apply = ["apply", "--server-side", "--force-conflicts", "-f", dir];
        self.kubectl.run(apply).await.context("applying the CRDs")?;
        let wait = [
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "-f",
            dir,
        ];
        self.kubectl
            .run(wait)
            .await
            .context("waiting for the CRDs")?;
        Ok(())
    }

    /// Writes a kubeconfig by which a process is that service account, with its rights and no other.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                expiration_seconds: Some(ACCOUNT_TOKEN_SECONDS),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let token = Api::<ServiceAccount>::namespaced(self.client()?, namespace)
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| {
                format!("asking for a token of the service account {namespace}/{name}")
            })?
            .status
            .and_then(|status| status.token)
            .context("the API server gave no token")?;
        let path = self
            .state_dir()
            .join(format!("{namespace}.{name}.kubeconfig"));
        let kubeconfig =
            kubeconfig::with_token(self.cluster.clone(), name, &token, Some(namespace));
        kubeconfig::write(&kubeconfig, &path)?;
        Ok(path)
    }
}

fn new_client(config: &Config) -> Result<Client> {
    Client::try_from(config.clone()).context("making a Kubernetes client")
}

fn temp_dir() -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix("phoenix-lab-")
        // Whoever reaches etcd's socket is past all access control.
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir()
        .context("creating a temporary folder")
}

/// kubectl is the control plane's binary under another name.
fn kubectl(binary: &Path, dir: &Path, kubeconfig: &Path) -> Result<Kubectl> {
    let bin = dir.join("bin");
    let link = bin.join("kubectl");
    std::fs::create_dir(&bin)
        .and_then(|()| std::os::unix::fs::symlink(binary, &link))
        .with_context(|| format!("creating {}", link.display()))?;
    Ok(Kubectl::new(
        link,
        kubeconfig.to_owned(),
        dir.join("kubectl-cache"),
    ))
}
