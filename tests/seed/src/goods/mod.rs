//! What can't be had where the tests run, made on the spot: NVIDIA's and Docker's package repositories, NVIDIA's installer, vLLM's
//! wheel and the registry's images. They are small, but real packages, wheels and images, signed where the scripts verify.

mod docker;
mod nvidia;
mod repository;
mod wheels;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::shell::{output, run};

/// The driver of the host as the tests begin.
pub(crate) const DRIVER: &str = "580.95.05";
/// A later one, which the repository has as well.
pub(crate) const NEWER_DRIVER: &str = "580.105.08";
/// A released one that no repository has: there is only NVIDIA's installer.
pub(crate) const ARCHIVED_DRIVER: &str = "580.82.07";

/// The key that signs all repositories here.
pub(crate) struct Key {
    home: tempfile::TempDir,
    pub(crate) fingerprint: String,
}

impl Key {
    fn new() -> Result<Self> {
        let home = tempfile::tempdir().context("making a folder for a key")?;
        let mut key = Self {
            home,
            fingerprint: String::new(),
        };
        let parameters = [
            "--passphrase",
            "",
            "--quick-gen-key",
            "The edge <edge@localhost>",
            "rsa3072",
            "sign",
            "never",
        ];
        output(key.gpg().args(parameters))?;
        let listed = output(key.gpg().args(["--with-colons", "--list-keys"]))?;
        let found = listed
            .lines()
            .find_map(|line| line.strip_prefix("fpr:")?.split(':').nth(8))
            .context("gpg shows no fingerprint")?;
        found.clone_into(&mut key.fingerprint);
        Ok(key)
    }

    fn gpg(&self) -> Command {
        let mut command = Command::new("gpg");
        command
            .arg("--homedir")
            .arg(self.home.path())
            .args(["--batch", "--yes", "--quiet"]);
        command
    }

    fn export(&self, file: &Path) -> Result<()> {
        write(file, "")?;
        output(
            self.gpg()
                .args(["--armor", "--export", "--output"])
                .arg(file),
        )
        .map(drop)
    }

    fn sign(&self, release: &Path, signed: &Path) -> Result<()> {
        output(
            self.gpg()
                .args(["--clear-sign", "--output"])
                .arg(signed)
                .arg(release),
        )
        .map(drop)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // The agent that gpg started would outlive the folder.
        let mut command = Command::new("gpgconf");
        let _ = output(
            command
                .arg("--homedir")
                .arg(self.home.path())
                .args(["--kill", "all"]),
        );
    }
}

/// Fills the folder from which the edge serves.
pub(crate) fn make(folder: &Path, mirror: &str) -> Result<Key> {
    let key = Key::new().context("making the key that signs packages")?;
    nvidia::make(folder, &key).context("making NVIDIA's files")?;
    docker::make(folder, &key, mirror).context("making Docker's files")?;
    wheels::make(folder).context("making Python's packages")?;
    Ok(key)
}

fn write(file: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(file, content).with_context(|| format!("writing {}", file.display()))
}

/// So many files that unpacking them takes long enough to be interrupted.
fn many_files() -> impl Iterator<Item = (String, String)> {
    (0..4000).map(|number| (format!("part-{number:04}"), format!("{number}\n")))
}

fn tar(folder: &Path, archive: &Path) -> Result<()> {
    let arguments = [
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mtime=@0",
        "-C",
    ];
    let arguments = arguments.map(std::ffi::OsStr::new).into_iter();
    run(
        "tar",
        arguments.chain([
            folder.as_os_str(),
            "-czf".as_ref(),
            archive.as_os_str(),
            ".".as_ref(),
        ]),
    )
    .map(drop)
}
