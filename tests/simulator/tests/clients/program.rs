//! The clients' programs: what they need, how they come to be there, how they are run.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::kept;

/// Nothing that a client does takes long; what takes this long hangs.
const PATIENCE: Duration = Duration::from_mins(2);
/// How much of a failed command's output explains the failure.
const KEPT_LINES: usize = 30;

/// A client that is ready to run.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

/// This machine can't run a client, through no fault of the repository's.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Lacking(String);

/// The program; none where the machine lacks something, which continuous integration must not.
pub(crate) fn or_skipped(program: Result<Program>) -> Option<Program> {
    match program {
        Ok(program) => Some(program),
        Err(error)
            if error.is::<Lacking>() && std::env::var_os("CI").is_none_or(|ci| ci != "true") =>
        {
            // Unlike eprintln! this is seen of a test that passes, too.
            let _ = writeln!(io::stderr(), "skipped: {error:#}");
            None
        }
        Err(error) => panic!("{error:#}"),
    }
}

impl Program {
    /// The script that uses `proxmoxer`, in an environment with the packages that its requirements name.
    pub(crate) fn python() -> Result<Self> {
        let folder = clients().join("python");
        let requirements = folder.join("requirements.txt");
        let pinned = fs::read(&requirements).context("reading the requirements")?;
        // An environment belongs to the interpreter that made it.
        let interpreter = output(
            Command::new("python3").args(["-c", "import sys; print(sys.version, sys.base_prefix)"]),
        )
        .context("the client proxmoxer needs Python 3.10 or newer as `python3` on the PATH")?;
        let key = kept::key(&[&pinned, interpreter.as_bytes()]);
        let kept = kept::folder("client-python", &key, |environment| {
            let _ = writeln!(
                io::stderr(),
                "installing proxmoxer into an environment of its own (once)"
            );
            output(Command::new("python3").args(["-m", "venv"]).arg(environment))
                .context("cannot make a Python environment: Debian has what it needs in the package python3-venv")?;
            output(
                Command::new(environment.join("bin/python"))
                    .args([
                        "-m",
                        "pip",
                        "install",
                        "--quiet",
                        "--no-input",
                        "--disable-pip-version-check",
                    ])
                    .args([
                        "--retries",
                        "1",
                        "--no-deps",
                        "--only-binary",
                        ":all:",
                        "--require-hashes",
                    ])
                    .arg("--requirement")
                    .arg(&requirements),
            )
            .context("cannot install proxmoxer from the Python package registry")?;
            Ok(())
        })?;
        Ok(Self {
            path: kept.join("bin/python"),
            // -I: neither the user's own packages nor the environment's variables have a say.
            arguments: ["-I".into(), folder.join("container.py").into()].to_vec(),
        })
    }

    /// The program that uses `go-proxmox`.
    pub(crate) fn go() -> Result<Self> {
        let folder = clients().join("go");
        let mut names: Vec<_> = fs::read_dir(&folder)
            .context("reading the Go module")?
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<_>>()?;
        names.sort();
        let mut parts = Vec::new();
        for name in &names {
            parts.push(
                name.file_name()
                    .unwrap_or_default()
                    .as_encoded_bytes()
                    .to_vec(),
            );
            parts.push(fs::read(name)?);
        }
        let parts: Vec<_> = parts.iter().map(Vec::as_slice).collect();
        let kept = kept::folder("client-go", &kept::key(&parts), |target| {
            let _ = writeln!(io::stderr(), "building the client on go-proxmox (once)");
            output(go(&folder).args(["mod", "download"]))
                .context("the client go-proxmox needs Go 1.26 or newer as `go` on the PATH, and the Go module registry")?;
            // What doesn't compile is our fault: that is an error everywhere.
            let built = go(&folder)
                .args([
                    "build",
                    "-trimpath",
                    "-mod=readonly",
                    "-buildvcs=false",
                    "-o",
                ])
                .args([target.join("container").as_os_str(), OsStr::new(".")])
                .output()
                .context("starting go")?;
            if !built.status.success() {
                bail!("the Go client doesn't build:\n{}", last_lines(&built));
            }
            Ok(())
        })?;
        Ok(Self {
            path: kept.join("container"),
            arguments: Vec::new(),
        })
    }

    /// Runs it with nothing in its environment but this; what it prints.
    pub(crate) async fn run(&self, verb: &str, environment: &[(&str, String)]) -> Value {
        let home = tempfile::tempdir().unwrap();
        let child = tokio::process::Command::new(&self.path)
            .args(&self.arguments)
            .arg(verb)
            .current_dir(home.path())
            .env_clear()
            .env("HOME", home.path())
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let ended = tokio::time::timeout(PATIENCE, child)
            .await
            .unwrap_or_else(|_| panic!("{verb} doesn't end"))
            .unwrap();
        assert!(
            ended.status.success(),
            "{verb} failed:\n{}",
            last_lines(&ended)
        );
        serde_json::from_slice(&ended.stdout).unwrap()
    }
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

fn go(folder: &Path) -> Command {
    let mut command = Command::new("go");
    // A workspace file in a parent folder and a C compiler are this machine's, not the module's.
    command
        .current_dir(folder)
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "0");
    command
}

/// What a command prints; [`Lacking`] where it can't be started or fails.
fn output(command: &mut Command) -> Result<String> {
    let ended = command.stdin(Stdio::null()).output().map_err(|error| {
        Lacking(format!(
            "cannot start {}: {error}",
            command.get_program().display()
        ))
    })?;
    if !ended.status.success() {
        return Err(Lacking(last_lines(&ended)).into());
    }
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}

fn last_lines(ended: &std::process::Output) -> String {
    let all = [&ended.stdout[..], &ended.stderr[..]].concat();
    let text = String::from_utf8_lossy(&all);
    let lines: Vec<_> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(KEPT_LINES)..].join("\n")
}
