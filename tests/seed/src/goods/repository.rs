//! Package repositories: real .deb files, an index of them, and a signed release.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::{Key, write};
use crate::shell::run;

/// A package in the making.
#[derive(Debug, Clone, Default)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) depends: String,
    /// Path and text of each file; one that begins with `#!` may be run.
    pub(super) files: Vec<(String, String)>,
    /// Another package, whose files and scripts this one brings under its own name.
    pub(super) renames: Option<PathBuf>,
}

impl Package {
    pub(super) fn new(name: &str, version: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            ..Self::default()
        }
    }

    pub(super) fn depends(mut self, on: &str) -> Self {
        on.clone_into(&mut self.depends);
        self
    }

    pub(super) fn file(mut self, path: &str, text: &str) -> Self {
        self.files.push((path.to_owned(), text.to_owned()));
        self
    }

    fn control(&self) -> String {
        let mut control = format!(
            "Package: {}\nVersion: {}\nArchitecture: amd64\nMaintainer: The edge <edge@localhost>\nDescription: stands in for the package of this name\n",
            self.name, self.version
        );
        if !self.depends.is_empty() {
            let _ = writeln!(control, "Depends: {}", self.depends);
        }
        control
    }

    fn build(&self, file: &Path) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let root = folder.path();
        if let Some(other) = &self.renames {
            let arguments = [
                "--raw-extract".as_ref(),
                other.as_os_str(),
                root.as_os_str(),
            ];
            run("dpkg-deb", arguments)?;
        }
        write(&root.join("DEBIAN/control"), self.control())?;
        for (path, text) in &self.files {
            let path = root.join(path);
            write(&path, text)?;
            if text.starts_with("#!") {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            }
        }
        fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
        let arguments = [
            "--root-owner-group".as_ref(),
            "-Znone".as_ref(),
            "--build".as_ref(),
            root.as_os_str(),
            file.as_os_str(),
        ];
        run("dpkg-deb", arguments).map(drop)
    }
}

/// Where a repository keeps its index: beside the packages (`/`), or under a suite and a component.
pub(super) enum Layout<'a> {
    Flat,
    Suite { suite: &'a str, component: &'a str },
}

/// Writes a repository's packages, index and signed release into its folder.
pub(super) fn make(
    folder: &Path,
    layout: &Layout<'_>,
    packages: &[Package],
    key: &Key,
) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut index = String::new();
    for package in packages {
        // apt escapes in an address what a version may have besides letters, digits and dots.
        let version = package.version.replace([':', '~'], "-");
        let name = format!("{}_{version}_amd64.deb", package.name);
        let file = folder.join(&name);
        package
            .build(&file)
            .with_context(|| format!("building {name}"))?;
        let bytes = fs::read(&file)?;
        let _ = writeln!(
            index,
            "{}Filename: {}{name}\nSize: {}\nSHA256: {}\n",
            package.control(),
            if matches!(layout, Layout::Flat) {
                "./"
            } else {
                ""
            },
            bytes.len(),
            hex::encode(Sha256::digest(&bytes))
        );
    }
    let (release, place, about) = match layout {
        Layout::Flat => (folder.to_owned(), "Packages".to_owned(), String::new()),
        Layout::Suite { suite, component } => (
            folder.join("dists").join(suite),
            format!("{component}/binary-amd64/Packages"),
            format!(
                "Suite: {suite}\nCodename: {suite}\nArchitectures: amd64\nComponents: {component}\n"
            ),
        ),
    };
    write(&release.join(&place), &index)?;
    let now = httpdate::fmt_http_date(std::time::SystemTime::now()).replace("GMT", "UTC");
    let unsigned = tempfile::NamedTempFile::new()?;
    write(
        unsigned.path(),
        format!(
            "Origin: edge\n{about}Date: {now}\nSHA256:\n {} {} {place}\n",
            hex::encode(Sha256::digest(&index)),
            index.len()
        ),
    )?;
    key.sign(unsigned.path(), &release.join("InRelease"))
}
