//! What is fetched or built once and used by every later run: folders in the user's cache, the one in which the lab keeps its programs.
//!
//! A folder is named by a hash of all that goes into it. It is whole when its mark is there, which is written last; one build at a time, by a file lock.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// Overrides the folder, as for the lab.
const FOLDER_VARIABLE: &str = "PHOENIX_LAB_CACHE";
const MARK: &str = "complete";
/// What nobody has used for so long belongs to a checkout that has moved on.
const UNUSED_AFTER: Duration = Duration::from_hours(30 * 24);

/// A name for what these parts yield.
pub(crate) fn key(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in [std::env::consts::OS, std::env::consts::ARCH]
        .map(str::as_bytes)
        .iter()
        .chain(parts)
    {
        // Lengths keep two different sequences of parts from being the same sequence of bytes.
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hex::encode(&hash.finalize()[..12])
}

/// The folder of that name and key; `fill` fills it where it is not whole.
pub(crate) fn folder(
    name: &str,
    key: &str,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    folder_in(&of_user()?, name, key, fill)
}

fn of_user() -> Result<PathBuf> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable(FOLDER_VARIABLE)
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("phoenix-hypervisor")))
        .or_else(|| Some(variable("HOME")?.join(".cache").join("phoenix-hypervisor")))
        .with_context(|| {
            format!("there is no home folder to keep clients in: set {FOLDER_VARIABLE} to a folder")
        })
}

fn folder_in(
    cache: &Path,
    name: &str,
    key: &str,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let path = cache.join(format!("{name}-{key}"));
    if is_whole(&path) {
        return Ok(path);
    }
    fs::create_dir_all(cache)
        .with_context(|| format!("creating the cache folder {}", cache.display()))?;
    let _lock = lock(cache, name)?;
    // Whoever held the lock may have filled the very same.
    if is_whole(&path) {
        return Ok(path);
    }
    remove_unused(cache, name);
    fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
    fill(&path)?;
    // Without this a loss of power could leave the mark on files that are empty.
    rustix::fs::syncfs(File::open(&path).context("opening the cache")?)
        .context("writing to disk")?;
    File::create(path.join(MARK)).context("marking the cache")?;
    Ok(path)
}

/// Whether a folder is whole; marks it as used.
fn is_whole(path: &Path) -> bool {
    let Ok(mark) = File::open(path.join(MARK)) else {
        return false;
    };
    // On a read-only cache this fails, which only makes the folder look older than it is.
    let _ = mark.set_modified(SystemTime::now());
    true
}

fn lock(cache: &Path, name: &str) -> Result<File> {
    let path = cache.join(format!("{name}.lock"));
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    if file.try_lock().is_err() {
        let _ = writeln!(
            io::stderr(),
            "waiting for another build of {name} to finish"
        );
        file.lock()
            .with_context(|| format!("locking {}", path.display()))?;
    }
    Ok(file)
}

/// Removes what is old and what builds that failed or were killed have left; the lock is held, so nobody works on it.
fn remove_unused(cache: &Path, name: &str) {
    let Ok(entries) = fs::read_dir(cache) else {
        return;
    };
    for entry in entries.flatten() {
        let file_name = entry.file_name();
        let ours = file_name
            .to_str()
            .and_then(|file| file.strip_prefix(name)?.strip_prefix('-'))
            .is_some();
        let age = fs::metadata(entry.path().join(MARK))
            .and_then(|mark| mark.modified())
            .ok()
            .map(|time| time.elapsed().unwrap_or_default());
        if ours && age.is_none_or(|age| age > UNUSED_AFTER) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[test]
fn a_folder_is_filled_once_and_a_failure_leaves_none_that_counts() {
    let cache = tempfile::tempdir().unwrap();
    let failed = folder_in(cache.path(), "tool", "k", |path| {
        fs::write(path.join("half"), "")?;
        anyhow::bail!("no registry")
    });
    assert_eq!(failed.unwrap_err().to_string(), "no registry");

    let filled = folder_in(cache.path(), "tool", "k", |path| {
        assert!(!path.join("half").exists(), "what failed is gone");
        Ok(fs::write(path.join("whole"), "")?)
    });
    let again = folder_in(cache.path(), "tool", "k", |_| panic!("filled twice"));
    assert_eq!(filled.unwrap(), again.unwrap());

    let old = File::open(cache.path().join("tool-k").join(MARK)).unwrap();
    old.set_modified(SystemTime::now() - UNUSED_AFTER - Duration::from_mins(1))
        .unwrap();
    folder_in(cache.path(), "tool", "new", |_| Ok(())).unwrap();
    assert!(
        !cache.path().join("tool-k").exists(),
        "nobody used it any more"
    );
    assert_ne!(
        key(&[b"ab", b"c"]),
        key(&[b"a", b"bc"]),
        "each part counts for itself"
    );
}
