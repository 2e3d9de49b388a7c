//! The control plane is a real one, and nothing of it outlives its owner.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use phoenix_lab::ControlPlane;

const WIDGET: &str = "
apiVersion: lab.test/v1
kind: Widget
metadata: {name: first, namespace: default}
spec: {size: 3}
";

fn widgets(control_plane: &ControlPlane) -> Result<Api<DynamicObject>> {
    let kind = GroupVersionKind::gvk("lab.test", "v1", "Widget");
    let resource = ApiResource::from_gvk(&kind);
    Ok(Api::default_namespaced_with(
        control_plane.client()?,
        &resource,
    ))
}

/// The processes that run in a folder, or did when it still existed.
fn processes_in(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    let works_there = |process: &PathBuf| {
        std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir))
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("cmdline").exists())
        .filter(works_there)
        .collect()
}

/// Another process that has a control plane, and where that one keeps its state.
fn owner_process() -> Result<(Child, PathBuf)> {
    let mut owner = Command::new(env!("CARGO_BIN_EXE_tool"))
        .arg("cluster")
        .env_remove(phoenix_lab::controlplane::KUBECONFIG_VARIABLE)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(owner.stdout.take().context("no output")?).lines();
    let line = lines.next().context("the owner said nothing")??;
    // All of what it prints, so that it is not about to write to a closed pipe.
    lines.nth(1).context("the owner said little")??;
    let kubeconfig = line
        .strip_prefix("export KUBECONFIG=")
        .context("no kubeconfig in its first line")?;
    let state = Path::new(kubeconfig)
        .parent()
        .context("no folder")?
        .to_owned();
    anyhow::ensure!(
        processes_in(&state).len() == 3,
        "not three processes in {}",
        state.display()
    );
    Ok((owner, state))
}

#[tokio::test]
async fn a_crd_is_served_to_client_and_kubectl_and_no_process_survives() -> Result<()> {
    let control_plane = ControlPlane::start_own().await?;
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crds");
    control_plane.apply_crds(&crds).await?;
    let kubectl = control_plane.kubectl();
    kubectl.run_with_input(["apply", "-f", "-"], WIDGET).await?;

    let listed = widgets(&control_plane)?
        .list(&ListParams::default())
        .await?;
    let sizes: Vec<_> = listed
        .items
        .iter()
        .map(|widget| &widget.data["spec"]["size"])
        .collect();
    assert_eq!(sizes, [3]);
    let names = kubectl.run(["get", "widgets", "-o", "name"]).await?;
    assert_eq!(names.trim(), "widget.lab.test/first");

    let too_large = kubectl
        .run_with_input(["apply", "-f", "-"], &WIDGET.replace("size: 3", "size: 30"))
        .await;
    let message = too_large.unwrap_err().to_string();
    assert!(message.contains("size is below 10"), "{message}");

    control_plane.check()?;
    let names: Vec<_> = control_plane
        .process_ids()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["etcd", "kube-apiserver", "kube-controller-manager"]);
    let state = control_plane.state_dir().to_owned();
    assert_eq!(processes_in(&state).len(), 3);
    drop(control_plane);
    assert_eq!(processes_in(&state), Vec::<PathBuf>::new());
    assert!(!state.exists());
    Ok(())
}

#[tokio::test]
async fn a_service_account_may_do_what_rbac_lets_it_do() -> Result<()> {
    let control_plane = ControlPlane::start_own().await?;
    let admin = control_plane.kubectl();
    admin.run(["create", "serviceaccount", "reader"]).await?;
    admin
        .run([
            "create",
            "role",
            "reader",
            "--verb=get,list",
            "--resource=secrets",
        ])
        .await?;
    admin
        .run([
            "create",
            "rolebinding",
            "reader",
            "--role=reader",
            "--serviceaccount=default:reader",
        ])
        .await?;
    let reader = admin.with_kubeconfig(
        control_plane
            .service_account_kubeconfig("default", "reader")
            .await?,
    );

    let user = reader
        .run([
            "auth",
            "whoami",
            "-o",
            "jsonpath={.status.userInfo.username}",
        ])
        .await?;
    assert_eq!(user, "system:serviceaccount:default:reader");
    reader.run(["get", "secrets"]).await?;
    let refused = reader
        .run(["get", "configmaps"])
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("Forbidden"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn an_existing_cluster_is_used_and_left_as_it_was() -> Result<()> {
    let cluster = ControlPlane::start_own().await?;
    let guest = ControlPlane::connect(cluster.kubeconfig_path()).await?;
    assert_eq!(guest.url(), cluster.url());
    assert_eq!(guest.process_ids(), []);
    let account = guest
        .service_account_kubeconfig("kube-system", "default")
        .await?;
    let whoami = [
        "auth",
        "whoami",
        "-o",
        "jsonpath={.status.userInfo.username}",
    ];
    let user = guest.kubectl().with_kubeconfig(account).run(whoami).await?;
    assert_eq!(user, "system:serviceaccount:kube-system:default");

    let files = guest.state_dir().to_owned();
    drop(guest);
    assert!(!files.exists());
    cluster.check()?;
    cluster.kubectl().run(["get", "namespaces"]).await?;
    Ok(())
}

#[test]
fn an_interrupted_owner_ends_its_control_plane() -> Result<()> {
    let (mut owner, state) = owner_process()?;
    kill(Pid::from_raw(i32::try_from(owner.id())?), Signal::SIGINT)?;
    assert!(owner.wait()?.success());
    assert_eq!(processes_in(&state), Vec::<PathBuf>::new());
    assert!(!state.exists());
    Ok(())
}

#[test]
fn a_killed_owner_takes_its_control_plane_along() -> Result<()> {
    let (mut owner, state) = owner_process()?;
    kill(Pid::from_raw(i32::try_from(owner.id())?), Signal::SIGKILL)?;
    owner.wait()?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !processes_in(&state).is_empty() || state.exists() {
        assert!(
            Instant::now() < deadline,
            "left: {:?} in {}",
            processes_in(&state),
            state.display()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
