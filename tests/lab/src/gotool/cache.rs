//! The folder of finished builds: what names an entry, how it comes into being, when it goes.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// Overrides the folder, for machines whose home folder is not kept.
const FOLDER_VARIABLE: &str = "PHOENIX_LAB_CACHE";
/// Builds that nobody has used for so long belong to a checkout that has moved on.
const UNUSED_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// The folder in which what takes long to make is kept for the next run, under a name that says what it was made from.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
}

/// A name for what a module's files and a build's arguments yield on this kind of machine.
pub(super) fn key(dir: &Path, args: &[String]) -> io::Result<String> {
    let mut files = Vec::new();
    list(dir, &mut files)?;
    files.sort();
    let mut hash = Sha256::new();
    let mut feed = |bytes: &[u8]| {
        // Lengths keep two different sequences of parts from being the same sequence of bytes.
        hash.update(bytes.len().to_le_bytes());
        hash.update(bytes);
    };
    for part in [std::env::consts::OS, std::env::consts::ARCH]
        .into_iter()
        .chain(args.iter().map(String::as_str))
    {
        feed(part.as_bytes());
    }
    for file in &files {
        let name = file.strip_prefix(dir).unwrap_or(file);
        feed(name.as_os_str().as_encoded_bytes());
        feed(&fs::read(file)?);
    }
    Ok(hex::encode(&hash.finalize()[..12]))
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            list(&path, files)?;
        } else if entry.file_name().to_str().is_some_and(is_source) {
            files.push(path);
        }
    }
    Ok(())
}

/// Whether a file has a part in what is built.
fn is_source(name: &str) -> bool {
    let code = name.strip_suffix(".go");
    ["go.mod", "go.sum"].contains(&name) || code.is_some_and(|stem| !stem.ends_with("_test"))
}

impl Cache {
    /// The user's.
    pub fn of_user() -> Result<Self> {
        let variable = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let folder = variable(FOLDER_VARIABLE)
            .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("phoenix-hypervisor")))
            .or_else(|| Some(variable("HOME")?.join(".cache").join("phoenix-hypervisor")))
            .with_context(|| {
                format!(
                    "there is no home folder to keep builds in: set {FOLDER_VARIABLE} to a folder"
                )
            })?;
        Ok(Self { folder })
    }

    /// The entry's path; `build` writes it to the path that it is given where it does not exist.
    pub fn entry(
        &self,
        name: &str,
        key: &str,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let path = self.folder.join(format!("{name}-{key}"));
        if touch(&path) {
            return Ok(path);
        }
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("creating the cache folder {}", self.folder.display()))?;
        let _lock = self.lock(name)?;
        // Whoever held the lock may have built the very same.
        if touch(&path) {
            return Ok(path);
        }
        self.remove_unused(name);
        let unfinished = tempfile::Builder::new()
            .prefix(&format!("{name}-unfinished-"))
            .tempfile_in(&self.folder)
            .context("creating a file in the cache folder")?
            .into_temp_path();
        build(&unfinished)?;
        // Without this a loss of power could leave the new name on an empty file.
        File::open(&unfinished)
            .and_then(|file| file.sync_all())
            .context("writing the build to disk")?;
        unfinished
            .persist(&path)
            .with_context(|| format!("moving the build to {}", path.display()))?;
        Ok(path)
    }

    fn lock(&self, name: &str) -> Result<File> {
        let path = self.folder.join(format!("{name}.lock"));
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

    /// Removes old builds of a program, and what builds that were killed have left.
    fn remove_unused(&self, name: &str) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        for entry in entries.flatten() {
            let file_name = entry.file_name();
            let Some(rest) = file_name
                .to_str()
                .and_then(|file| file.strip_prefix(name)?.strip_prefix('-'))
            else {
                continue;
            };
            let age = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .ok()
                .and_then(|time| time.elapsed().ok())
                .unwrap_or_default();
            // The lock is held: an unfinished build is nobody's.
            if rest.starts_with("unfinished-") || age > UNUSED_AFTER {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Marks an entry as used; false where it does not exist.
fn touch(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    // On a read-only or foreign cache the mark fails, which only makes the entry look older than it is.
    let _ = file.set_modified(SystemTime::now());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn the_key_follows_sources_and_arguments_and_nothing_else() {
        let files = [("go.mod", "module m"), ("main.go", "package main")];
        let plain = key(module(&files).path(), &[]).unwrap();
        assert_eq!(key(module(&files).path(), &[]).unwrap(), plain);
        let beside = [("NOTES.md", "x"), ("main_test.go", "package main")];
        let with_more = module(&[&files[..], &beside].concat());
        assert_eq!(key(with_more.path(), &[]).unwrap(), plain);

        let edited = module(&[files[0], ("main.go", "package main ")]);
        assert_ne!(key(edited.path(), &[]).unwrap(), plain);
        let renamed = module(&[files[0], ("other.go", "package main")]);
        assert_ne!(key(renamed.path(), &[]).unwrap(), plain);
        assert_ne!(
            key(module(&files).path(), &["-race".into()]).unwrap(),
            plain
        );
    }

    #[test]
    fn an_entry_is_built_once_and_a_failed_build_leaves_none() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache {
            folder: dir.path().join("new"),
        };
        let failed = cache.entry("tool", "k", |path| {
            fs::write(path, "half").unwrap();
            anyhow::bail!("the compiler said no")
        });
        assert_eq!(failed.unwrap_err().to_string(), "the compiler said no");

        let built = cache
            .entry("tool", "k", |path| Ok(fs::write(path, "whole")?))
            .unwrap();
        assert_eq!(fs::read_to_string(&built).unwrap(), "whole");
        let again = cache.entry("tool", "k", |_| panic!("built twice")).unwrap();
        assert_eq!(again, built);
        let names: Vec<_> = fs::read_dir(&cache.folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names.len(), 2, "the entry and the lock: {names:?}");
    }

    #[test]
    fn what_a_killed_build_left_and_what_nobody_uses_goes_with_the_next_build() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache {
            folder: dir.path().to_owned(),
        };
        let old = SystemTime::now() - UNUSED_AFTER - Duration::from_secs(60);
        for (name, modified) in [
            ("tool-unfinished-x", SystemTime::now()),
            ("tool-old", old),
            ("tool-recent", SystemTime::now()),
            ("tools-other", old),
        ] {
            File::create(dir.path().join(name))
                .unwrap()
                .set_modified(modified)
                .unwrap();
        }
        cache
            .entry("tool", "new", |path| Ok(fs::write(path, "x")?))
            .unwrap();
        let left = |name: &str| dir.path().join(name).exists();
        assert!(!left("tool-unfinished-x") && !left("tool-old"));
        assert!(left("tool-recent") && left("tools-other") && left("tool-new"));
    }
}
