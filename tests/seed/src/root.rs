//! Debian root file systems: one made by debootstrap and kept, copies of it, and what in them has changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use phoenix_lab::gotool::Cache;
use sha2::{Digest as _, Sha256};

use crate::shell::{output, run};

/// Debian 13, the one of the two systems that the scripts are written for whose packages are at hand on Debian.
pub(crate) const SUITE: &str = "trixie";
/// What an OS template of Proxmox has beyond the least that Debian can be, as far as it matters here.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,openssh-server";

/// What a second run of a script may touch: logs, state of the operator and of systemd, and what Docker and
/// a running system keep for themselves (the engine's content is compared by its own commands).
const NOT_COMPARED: &[&str] = &[
    "dev",
    "proc",
    "run",
    "sys",
    "tmp",
    "var/cache",
    "var/lib/containerd",
    "var/lib/docker",
    "var/lib/phoenix",
    "var/lib/systemd",
    "var/log",
];
const NOT_COMPARED_FILES: &[&str] = &["var/lib/dpkg/status-old", "var/lib/dpkg/diversions-old"];

/// The mirror that this machine's own apt is set up with.
pub(crate) fn mirror() -> Result<String> {
    let said = run(
        "apt-get",
        [
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
        ],
    )?;
    let uri = said
        .lines()
        .map(str::trim)
        .find(|uri| uri.starts_with("http://") && !uri.contains("security"))
        .context("apt has no http source on this machine")?;
    Ok(uri.trim_end_matches('/').to_owned())
}

/// The archive of the root that everything begins with, made where it isn't kept yet.
pub(crate) fn archive(mirror: &str) -> Result<PathBuf> {
    let key = hex::encode(&Sha256::digest(format!("{SUITE} {PACKAGES}"))[..12]);
    Cache::of_user()?.entry("seed-root", &key, |path| {
        let folder = tempfile::tempdir_in("/var/tmp").context("making a folder for the root")?;
        let root = folder.path().join("root");
        run(
            "debootstrap",
            [
                "--variant=minbase",
                &format!("--include={PACKAGES}"),
                SUITE,
                &root.display().to_string(),
                mirror,
            ],
        )?;
        let tarred = run(
            "tar",
            [
                "--numeric-owner".as_ref(),
                "-C".as_ref(),
                root.as_os_str(),
                "-cf".as_ref(),
                path.as_os_str(),
                ".".as_ref(),
            ],
        );
        tarred.map(drop)
    })
}

/// A root that is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Root {
    folder: tempfile::TempDir,
}

impl Root {
    fn empty() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("phoenix-seed-")
            .tempdir_in("/var/tmp")
            .context("making a folder for a root")?;
        fs::create_dir(folder.path().join("root"))?;
        Ok(Self { folder })
    }

    /// As the OS template brings it.
    pub(crate) fn unpack(archive: &Path, mirror: &str, authority: &str) -> Result<Self> {
        let root = Self::empty()?;
        run(
            "tar",
            [
                "--numeric-owner".as_ref(),
                "-C".as_ref(),
                root.path("").as_os_str(),
                "-xf".as_ref(),
                archive.as_os_str(),
            ],
        )?;
        root.write(
            "etc/apt/sources.list",
            &format!("deb {mirror} {SUITE} main contrib\n"),
        )?;
        root.write("etc/resolv.conf", "nameserver 127.0.0.1\n")?;
        // As an organisation's own authority is added: the package ca-certificates takes it up when it is installed.
        root.write("usr/local/share/ca-certificates/edge.crt", authority)?;
        Ok(root)
    }

    /// A clone, as Proxmox makes one of a template: everything in it, the owner's marks included.
    pub(crate) fn clone_of(source: &Self) -> Result<Self> {
        let root = Self::empty()?;
        run(
            "cp",
            [
                "-a".as_ref(),
                "--reflink=auto".as_ref(),
                "-T".as_ref(),
                source.path("").as_os_str(),
                root.path("").as_os_str(),
            ],
        )?;
        Ok(root)
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        let root = self.folder.path().join("root");
        if path.is_empty() {
            root
        } else {
            root.join(path)
        }
    }

    pub(crate) fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.path(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// A file's text; empty where there is none.
    pub(crate) fn read(&self, path: &str) -> String {
        fs::read(self.path(path)).map_or_else(
            |_| String::new(),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// Every file with its kind, mode, owner, target and content.
    pub(crate) fn content(&self) -> Result<BTreeMap<String, String>> {
        let mut find = vec![".".to_owned(), "-xdev".to_owned()];
        for left_out in NOT_COMPARED {
            find.extend(["-path", &format!("./{left_out}/*"), "-prune", "-o"].map(str::to_owned));
        }
        let list = |action: &[&str]| -> Result<String> {
            output(
                Command::new("find")
                    .args(&find)
                    .args(action)
                    .current_dir(self.path("")),
            )
        };
        let mut content = BTreeMap::new();
        for line in list(&["-printf", "%P\t%y %m %U:%G %l\n"])?.lines() {
            if let Some((path, facts)) = line.split_once('\t') {
                content.insert(path.to_owned(), facts.to_owned());
            }
        }
        for line in list(&["-type", "f", "-exec", "sha256sum", "{}", "+"])?.lines() {
            if let Some((sum, path)) = line.split_once("  ./") {
                content.entry(path.to_owned()).or_default().push_str(sum);
            }
        }
        for left_out in NOT_COMPARED_FILES {
            content.remove(*left_out);
        }
        Ok(content)
    }
}

/// What is new, gone or other, one line each.
pub(crate) fn differences(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut lines: Vec<String> = before
        .iter()
        .filter_map(|(path, was)| match after.get(path) {
            None => Some(format!("{path} is gone")),
            Some(is) if is != was => Some(format!("{path}: {was} became {is}")),
            Some(_) => None,
        })
        .collect();
    lines.extend(
        after
            .keys()
            .filter(|path| !before.contains_key(*path))
            .map(|path| format!("{path} is new")),
    );
    lines
}
