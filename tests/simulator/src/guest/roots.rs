//! The disks of guests: a folder for each volume and each snapshot.
//!
//! A root holds everything that a guest may write; the machine's programs come in as links to `/.host`, where the guest has them read-only.
//! Stand-ins are links to the script of the seam. Decides what a fresh Ubuntu or Debian root contains, and copies, renames and removes roots.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::os::{self, Os};
use super::ssh::HostKey;
use crate::guests::RootFile;

/// Where a root has the seam, and what stand-ins are links to.
pub(super) const STAND_IN: &str = "/.seam/call.sh";

/// All roots of a world, below one folder.
#[derive(Debug, Clone)]
pub(super) struct Roots {
    folder: PathBuf,
}

impl Roots {
    pub(super) fn new(folder: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// The folder of a volume, or of `volume@snapshot`.
    pub(super) fn path(&self, volume: &str) -> PathBuf {
        let name: String = volume
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || "-_.@".contains(c) {
                    c
                } else {
                    '+'
                }
            })
            .collect();
        self.folder.join(format!("v-{name}"))
    }

    pub(super) async fn create(&self, volume: &str, template: &str) -> Result<()> {
        let path = self.fresh(volume)?;
        let os = Os::of_template(template);
        tokio::task::spawn_blocking(move || furnish(&path, os)).await?
    }

    /// Writes files into a volume, with the folders above them.
    pub(super) fn write(&self, volume: &str, files: &[RootFile]) -> Result<()> {
        let root = self.path(volume);
        for file in files {
            let path = root.join(file.path);
            if let Some(folder) = path.parent().filter(|folder| !folder.is_dir()) {
                std::fs::create_dir_all(folder)?;
                std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
            }
            std::fs::write(&path, &file.text)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(file.mode))?;
        }
        Ok(())
    }

    pub(super) async fn copy(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.path(from), self.fresh(to)?);
        if !from.is_dir() {
            bail!("there is no guest root {}", from.display());
        }
        let done = Command::new("cp")
            .args(["-a", "--reflink=auto", "--"])
            .args([&from, &to])
            .output()
            .await
            .context("running cp")?;
        if !done.status.success() {
            bail!(
                "copying a guest root failed: {}",
                String::from_utf8_lossy(&done.stderr).trim()
            );
        }
        Ok(())
    }

    fn fresh(&self, volume: &str) -> Result<PathBuf> {
        let path = self.path(volume);
        if path.exists() {
            bail!("the guest root {volume} is there already");
        }
        Ok(path)
    }

    /// Renames a volume with its snapshots.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<()> {
        std::fs::rename(self.path(from), self.path(to))
            .with_context(|| format!("renaming the guest root {from}"))?;
        for snapshot in self.snapshots(from)? {
            std::fs::rename(
                self.path(&format!("{from}@{snapshot}")),
                self.path(&format!("{to}@{snapshot}")),
            )?;
        }
        Ok(())
    }

    /// Removes a volume with its snapshots, or one snapshot. One that isn't there is no error.
    pub(super) async fn remove(&self, volume: &str) -> Result<()> {
        let mut doomed = vec![self.path(volume)];
        for snapshot in self.snapshots(volume)? {
            doomed.push(self.path(&format!("{volume}@{snapshot}")));
        }
        tokio::task::spawn_blocking(move || {
            for path in doomed.iter().filter(|path| path.exists()) {
                std::fs::remove_dir_all(path)
                    .with_context(|| format!("removing {}", path.display()))?;
            }
            Ok(())
        })
        .await?
    }

    /// Puts a volume back to one of its snapshots.
    pub(super) async fn roll_back(&self, volume: &str, snapshot: &str) -> Result<()> {
        let (live, doomed) = (self.path(volume), self.path(&format!("{volume}.replaced")));
        std::fs::rename(&live, &doomed)
            .with_context(|| format!("putting the guest root {volume} aside"))?;
        self.copy(&format!("{volume}@{snapshot}"), volume).await?;
        Ok(tokio::task::spawn_blocking(move || std::fs::remove_dir_all(doomed)).await??)
    }

    fn snapshots(&self, volume: &str) -> Result<Vec<String>> {
        let path = self.path(&format!("{volume}@"));
        let prefix = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let names = std::fs::read_dir(&self.folder)?.filter_map(Result::ok);
        Ok(names
            .filter_map(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .strip_prefix(&prefix)
                    .map(str::to_owned)
            })
            .collect())
    }
}

/// Fills a new root.
fn furnish(root: &Path, os: Os) -> Result<()> {
    for folder in os::FOLDERS {
        std::fs::create_dir_all(root.join(folder))?;
    }
    for private in ["root", "etc/ssl/private"] {
        std::fs::set_permissions(root.join(private), std::fs::Permissions::from_mode(0o700))?;
    }
    std::fs::set_permissions(
        root.join("var/tmp"),
        std::fs::Permissions::from_mode(0o1777),
    )?;
    for (link, target) in [("bin", "usr/bin"), ("sbin", "usr/sbin")] {
        symlink(target, root.join(link))?;
    }
    for name in ["lib", "lib32", "lib64", "libx32"] {
        let host = Path::new("/").join(name);
        if let Ok(target) = std::fs::read_link(&host) {
            symlink(target, root.join(name))?;
        } else if host.is_dir() {
            std::fs::create_dir(root.join(name))?;
        }
    }
    for folder in [
        "share/terminfo",
        "share/zoneinfo",
        "share/i18n",
        "share/locale",
        "share/awk",
    ] {
        if Path::new("/usr").join(folder).is_dir() {
            symlink(
                Path::new("/.host/usr").join(folder),
                root.join("usr").join(folder),
            )?;
        }
    }
    for name in os::HOST_TOOLS {
        link_host_tool(root, name)?;
    }
    for name in os.stand_ins() {
        place_stand_in(root, name)?;
    }
    for (path, text) in os.files() {
        let path = root.join(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, text)?;
    }
    let key = HostKey::make("root@template")?;
    std::fs::write(root.join("etc/ssh/ssh_host_ed25519_key"), key.private)?;
    std::fs::write(root.join("etc/ssh/ssh_host_ed25519_key.pub"), key.public)?;
    if let Ok(cache) = std::fs::read("/etc/ld.so.cache") {
        std::fs::write(root.join("etc/ld.so.cache"), cache)?;
    }
    Ok(())
}

/// Links a program of the machine into the root, where the machine has it.
fn link_host_tool(root: &Path, name: &str) -> Result<()> {
    for folder in ["/usr/bin", "/usr/sbin", "/bin", "/sbin"] {
        let Ok(program) = Path::new(folder).join(name).canonicalize() else {
            continue;
        };
        let target = if let Ok(below_usr) = program.strip_prefix("/usr") {
            Path::new("/.host/usr").join(below_usr)
        } else {
            program
        };
        let place = if folder.ends_with("sbin") {
            "usr/sbin"
        } else {
            "usr/bin"
        };
        return Ok(symlink(target, root.join(place).join(name))?);
    }
    Ok(())
}

fn place_stand_in(root: &Path, name: &str) -> Result<()> {
    let place = if os::is_administrative(name) {
        "usr/sbin"
    } else {
        "usr/bin"
    };
    let path = root.join(place).join(name);
    std::fs::remove_file(&path).ok();
    Ok(symlink(STAND_IN, path)?)
}
