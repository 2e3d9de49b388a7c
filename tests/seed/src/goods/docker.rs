//! Docker's repository, whose packages hold Debian's own build of the same engine, and a registry with two images.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::repository::{Layout, Package, make as make_repository};
use super::{Key, tar, write};
use crate::root::SUITE;
use crate::shell::output;

const IMAGES: &[(&str, &str, &str)] = &[
    ("library/hello-world", "latest", "hello"),
    ("portainer/portainer-ce", "2.39.6", "portainer"),
];

pub(super) fn make(folder: &Path, key: &Key, mirror: &str) -> Result<()> {
    // Debian's packages of the engine refuse to be installed beside those of Docker's names, so they take these names.
    let debian = tempfile::tempdir()?;
    let packages = [
        (
            "docker-ce",
            "docker.io",
            "libc6, libsystemd0, adduser, iptables, tini, docker-ce-cli, containerd.io",
        ),
        ("docker-ce-cli", "docker-cli", "libc6"),
        ("containerd.io", "containerd", "libc6, runc"),
        ("docker-compose-plugin", "docker-compose", "libc6"),
        ("docker-buildx-plugin", "", ""),
    ];
    let names = packages
        .iter()
        .map(|(_, from, _)| *from)
        .filter(|from| !from.is_empty());
    let files = download(debian.path(), mirror, &names.collect::<Vec<_>>())
        .context("fetching Debian's build of Docker")?;
    let packages = packages.map(|(name, from, depends)| Package {
        renames: files.iter().find(|file| is_of(file, from)).cloned(),
        ..Package::new(name, "5:29.1.0-1~debian.13~trixie").depends(depends)
    });
    if packages
        .iter()
        .filter(|package| package.renames.is_some())
        .count()
        != files.len()
    {
        bail!("Debian's packages are not the expected ones: {files:?}");
    }
    let repository = folder.join("linux/debian");
    let layout = Layout::Suite {
        suite: SUITE,
        component: "stable",
    };
    make_repository(&repository, &layout, &packages, key)?;
    key.export(&repository.join("gpg"))?;
    let program = program()?;
    for (name, tag, command) in IMAGES {
        image(&folder.join("v2").join(name), tag, command, &program)?;
    }
    // What a client asks first: whether this is a registry.
    write(&folder.join("v2/index.html"), "{}")
}

/// Debian 13's packages by this machine's own apt, which has settings of its own for it.
fn download(folder: &Path, mirror: &str, names: &[&str]) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder.join("state/lists/partial"))?;
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let sources = format!("deb [signed-by={keys}] {mirror} {SUITE} main\n");
    write(&folder.join("sources"), sources)?;
    let place = folder.display();
    let apt = |verb: &str, names: &[&str]| {
        let mut apt = Command::new("apt-get");
        for setting in [
            format!("Dir::State={place}/state"),
            format!("Dir::Cache={place}/cache"),
            format!("Dir::Etc::sourcelist={place}/sources"),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            // The user that apt fetches as may not enter this folder.
            "APT::Sandbox::User=root".to_owned(),
        ] {
            apt.args(["-o", &setting]);
        }
        output(apt.arg("-q").arg(verb).args(names).current_dir(folder))
    };
    apt("update", &[])?;
    apt("download", names)?;
    let files = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    Ok(files
        .filter(|file| file.extension().is_some_and(|kind| kind == "deb"))
        .collect())
}

fn is_of(file: &Path, package: &str) -> bool {
    let name = file.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.split_once('_'))
        .is_some_and(|(name, _)| name == package)
}

/// What runs in the containers.
fn program() -> Result<tempfile::NamedTempFile> {
    let file = tempfile::NamedTempFile::new()?;
    let source = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/image"));
    let mut go = Command::new("go");
    go.args(["build", "-trimpath", "-ldflags=-s -w", "-o"])
        .arg(file.path())
        .arg(".")
        .current_dir(source)
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off");
    output(&mut go).context("building the program of the images")?;
    Ok(file)
}

/// An image of one layer with one program, as the files of a registry.
fn image(folder: &Path, tag: &str, command: &str, program: &tempfile::NamedTempFile) -> Result<()> {
    let content = tempfile::tempdir()?;
    let layer = content.path().join("layer");
    fs::create_dir_all(layer.join("data"))?;
    fs::copy(program.path(), layer.join(command))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(layer.join(command), mode)?;
    let archive = content.path().join("layer.tar.gz");
    tar(&layer, &archive)?;
    let packed = fs::read(&archive)?;
    let mut plain = Vec::new();
    std::io::copy(
        &mut flate2::read::GzDecoder::new(packed.as_slice()),
        &mut plain,
    )?;
    let config = serde_json::to_vec(&json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": [format!("/{command}")], "ExposedPorts": {"9443/tcp": {}}},
        "rootfs": {"type": "layers", "diff_ids": [digest(&plain)]},
    }))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": config.len(), "digest": digest(&config)},
        "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": packed.len(), "digest": digest(&packed)}],
    }))?;
    for blob in [&config, &packed] {
        write(&folder.join("blobs").join(digest(blob)), blob)?;
    }
    for reference in [tag, &digest(&manifest)] {
        write(&folder.join("manifests").join(reference), &manifest)?;
    }
    Ok(())
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}
