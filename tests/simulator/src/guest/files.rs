//! Reading and writing a running guest's files from outside, as the stand-in commands do.
//!
//! A guest's links may point anywhere; every path is resolved by the kernel inside the guest's root (`openat2` with `RESOLVE_IN_ROOT`), so that
//! nothing outside can be reached through them.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, Mode, OFlags, RawDir, ResolveFlags, mkdirat, openat2, symlinkat, unlinkat,
};

/// More than any file a stand-in has to look at.
const LIMIT: u64 = 4 << 20;

/// The root of a running guest, with its mounts.
#[derive(Clone)]
pub(super) struct Files(Arc<OwnedFd>);

impl Files {
    /// Opens the root of the guest whose process 1 is `init`.
    pub(super) fn of(init: u32) -> Result<Self> {
        let path = format!("/proc/{init}/root");
        let root = rustix::fs::open(
            &path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .with_context(|| format!("opening {path}"))?;
        Ok(Self(Arc::new(root)))
    }

    fn open(&self, path: &str, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        // A guest's pipe must not make us wait; and the kernel refuses flags that mean nothing to O_PATH.
        let patience = if flags.contains(OFlags::PATH) {
            OFlags::empty()
        } else {
            OFlags::NONBLOCK
        };
        openat2(
            &*self.0,
            path,
            flags | OFlags::CLOEXEC | patience,
            mode,
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.open(path, OFlags::PATH, Mode::empty()).is_ok()
    }

    pub(super) fn read(&self, path: &str) -> Option<String> {
        let file = File::from(self.open(path, OFlags::RDONLY, Mode::empty()).ok()?);
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(LIMIT).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The names in a folder, sorted; none where it isn't there.
    pub(super) fn list(&self, path: &str) -> Vec<String> {
        let Ok(folder) = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) else {
            return Vec::new();
        };
        let mut names = Vec::new();
        let mut buffer = Vec::with_capacity(8192);
        let mut entries = RawDir::new(folder, buffer.spare_capacity_mut());
        while let Some(Ok(entry)) = entries.next() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        names
    }

    /// Makes a folder and those above it.
    pub(super) fn make_folder(&self, path: &str) -> Result<()> {
        let mut so_far = PathBuf::from("/");
        for part in Path::new(path).components() {
            if let Component::Normal(name) = part {
                let parent = self.open(
                    &so_far.to_string_lossy(),
                    OFlags::PATH | OFlags::DIRECTORY,
                    Mode::empty(),
                )?;
                match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => so_far.push(name),
                    Err(error) => return Err(error).with_context(|| format!("mkdir {path}")),
                }
            }
        }
        Ok(())
    }

    pub(super) fn write(&self, path: &str, text: &str, mode: u32) -> Result<()> {
        self.put(path, text, mode, OFlags::TRUNC)
    }

    pub(super) fn append(&self, path: &str, text: &str) -> Result<()> {
        self.put(path, text, 0o644, OFlags::APPEND)
    }

    fn put(&self, path: &str, text: &str, mode: u32, how: OFlags) -> Result<()> {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.make_folder(folder)?;
        }
        let file = self
            .open(
                path,
                OFlags::WRONLY | OFlags::CREATE | how,
                Mode::from_raw_mode(mode),
            )
            .with_context(|| format!("writing {path}"))?;
        Ok(File::from(file).write_all(text.as_bytes())?)
    }

    /// Makes or replaces a link.
    pub(super) fn link(&self, path: &str, target: &str) -> Result<()> {
        let (folder, name) = path
            .rsplit_once('/')
            .context("a link needs an absolute path")?;
        self.make_folder(folder)?;
        let folder = self.open(
            if folder.is_empty() { "/" } else { folder },
            OFlags::PATH | OFlags::DIRECTORY,
            Mode::empty(),
        )?;
        unlinkat(&folder, name, AtFlags::empty()).ok();
        symlinkat(target, &folder, name).with_context(|| format!("linking {path}"))
    }

    /// Removes a file or link; true when there was one.
    pub(super) fn remove(&self, path: &str) -> bool {
        let Some((folder, name)) = path.rsplit_once('/') else {
            return false;
        };
        self.open(
            if folder.is_empty() { "/" } else { folder },
            OFlags::PATH | OFlags::DIRECTORY,
            Mode::empty(),
        )
        .is_ok_and(|folder| unlinkat(&folder, name, AtFlags::empty()).is_ok())
    }
}
