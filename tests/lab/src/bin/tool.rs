//! Runs a program of the lab's by hand, built first where needed: `tool helm lint charts/phoenix`, `tool kubectl …`,
//! or `tool cluster` for a control plane that stays until Ctrl-C.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use phoenix_lab::{ControlPlane, gotool};
use tokio::signal::unix::{SignalKind, signal};

/// Runs the lab's programs by hand.
#[derive(Debug, Parser)]
#[command(version)]
enum Tool {
    /// Helm, with its own arguments.
    #[command(disable_help_flag = true)]
    Helm {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// kubectl, with its own arguments and the KUBECONFIG of the environment.
    #[command(disable_help_flag = true)]
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Builds all of the programs and prints where they are.
    Build,
    /// Starts a control plane, prints how to use it and ends it on Ctrl-C.
    Cluster,
}

fn main() -> Result<()> {
    match Tool::parse() {
        Tool::Helm { args } => become_program(&gotool::HELM, &[], &args),
        Tool::Kubectl { args } => become_program(&gotool::CONTROL_PLANE, &["kubectl"], &args),
        Tool::Build => {
            for tool in [&gotool::CONTROL_PLANE, &gotool::HELM] {
                print(&tool.path_blocking()?.display().to_string())?;
            }
            Ok(())
        }
        Tool::Cluster => tokio::runtime::Runtime::new()
            .context("starting the async runtime")?
            .block_on(cluster()),
    }
}

/// Replaces this process, so that signals and the exit status are the program's own.
fn become_program(tool: &gotool::GoTool, first: &[&str], args: &[String]) -> Result<()> {
    let path = tool.path_blocking()?;
    let error = Command::new(&path).args(first).args(args).exec();
    bail!("cannot run {}: {error}", path.display());
}

async fn cluster() -> Result<()> {
    let control_plane = ControlPlane::start().await?;
    // Before anything is printed: who reads it may interrupt this process at once.
    let mut interrupted = signal(SignalKind::interrupt()).context("listening for Ctrl-C")?;
    print(&format!(
        "export KUBECONFIG={}\nexport PATH={}:$PATH\n# the control plane at {} ends with Ctrl-C",
        control_plane.kubeconfig_path().display(),
        control_plane
            .kubectl()
            .program()
            .parent()
            .unwrap_or(control_plane.state_dir())
            .display(),
        control_plane.url(),
    ))?;
    interrupted.recv().await;
    Ok(())
}

fn print(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").context("writing to standard output")
}
