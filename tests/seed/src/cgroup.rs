//! The control group that holds a machine: what is in it ends with it, whatever it has become.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

const NAME: &str = "phoenix-seed";

/// The group, in each hierarchy that systemd in the machine looks at.
#[derive(Debug)]
pub(crate) struct Group {
    folders: Vec<PathBuf>,
}

impl Group {
    /// Where it lies. A machine must have the unified hierarchy, by which all of a group can be ended at once.
    fn locate() -> Result<Self> {
        let top = Path::new("/sys/fs/cgroup");
        let unified = [top.join("unified"), top.to_owned()]
            .into_iter()
            .find(|folder| folder.join("cgroup.procs").exists())
            .context("no cgroup v2 hierarchy is mounted on this machine")?;
        let named = top.join("systemd");
        let mut folders = vec![unified.join(NAME)];
        if named.join("cgroup.procs").exists() {
            folders.push(named.join(NAME));
        }
        Ok(Self { folders })
    }

    /// Why there can be none on this machine, if there can't.
    pub(crate) fn obstacle() -> Option<String> {
        Self::locate().err().map(|error| error.to_string())
    }

    /// Made anew. Only one run at a time may do so on a machine: what is in the group is taken for a dead run's and ended.
    pub(crate) fn new() -> Result<Self> {
        let group = Self::locate()?;
        group.end()?;
        for folder in &group.folders {
            fs::create_dir_all(folder)
                .with_context(|| format!("making the cgroup {}", folder.display()))?;
        }
        if !group.switch().exists() {
            bail!("this kernel cannot end a cgroup at once (cgroup.kill, Linux 5.14)");
        }
        Ok(group)
    }

    fn switch(&self) -> PathBuf {
        self.folders[0].join("cgroup.kill")
    }

    /// A shell command by which a process enters the group.
    pub(crate) fn enter(&self) -> String {
        self.folders
            .iter()
            .map(|folder| format!("echo $$ >{}/cgroup.procs", folder.display()))
            .collect::<Vec<_>>()
            .join(" && ")
    }

    /// Everything in it is gone at once, as by a loss of power.
    pub(crate) fn end(&self) -> Result<()> {
        if self.switch().exists() {
            fs::write(self.switch(), "1").context("ending the processes of the cgroup")?;
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            for folder in &self.folders {
                remove(folder);
            }
            if self.folders.iter().all(|folder| !folder.exists()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("processes in {} do not end", self.folders[0].display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Innermost first; one with processes stays.
fn remove(folder: &Path) {
    let inner = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove(&entry.path());
    }
    let _ = fs::remove_dir(folder);
}
