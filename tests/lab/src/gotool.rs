//! Programs that exist only in Go, built when they are first needed: the control plane and Helm.
//!
//! Decides where a build is kept and when it is good: under the user's cache folder, named by a hash of the module's
//! files and of the build's arguments, so that every checkout with the same files shares one build and a changed file means
//! a new one. An entry appears by a rename of a complete, synced file and is therefore either absent or whole. One
//! build at a time per program, by a file lock. Leaves out what the programs do.

mod build;
mod cache;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
pub use cache::Cache;

/// A Go module of this repository and the one program that is built from it.
#[derive(Debug)]
pub struct GoTool {
    name: &'static str,
    /// The module's folder, from the folder `tests`.
    module: &'static str,
    package: &'static str,
    /// The module in go.mod whose version the program reports as its own.
    versioned_by: &'static str,
    stamps: &'static [(&'static str, VersionPart)],
    /// What to tell someone who waits for the first build.
    cost: &'static str,
}

/// The part of a version that a program's variable holds.
#[derive(Debug, Clone, Copy)]
enum VersionPart {
    Whole,
    Major,
    Minor,
}

/// etcd, kube-apiserver, kube-controller-manager and kubectl in one binary.
pub static CONTROL_PLANE: GoTool = GoTool {
    name: "controlplane",
    module: "controlplane",
    package: ".",
    versioned_by: "k8s.io/kubernetes",
    stamps: &[
        (
            "k8s.io/component-base/version.gitVersion",
            VersionPart::Whole,
        ),
        ("k8s.io/component-base/version.gitMajor", VersionPart::Major),
        ("k8s.io/component-base/version.gitMinor", VersionPart::Minor),
    ],
    cost: "once, about 5 minutes on 2 cores",
};

/// The Helm command line.
pub static HELM: GoTool = GoTool {
    name: "helm",
    module: "tools/helm",
    package: "helm.sh/helm/v4/cmd/helm",
    versioned_by: "helm.sh/helm/v4",
    stamps: &[(
        "helm.sh/helm/v4/internal/version.version",
        VersionPart::Whole,
    )],
    cost: "once, about 4 minutes on 2 cores",
};

impl GoTool {
    /// The path of the program, which is built first where this has not been done yet.
    pub async fn path(&'static self) -> Result<PathBuf> {
        tokio::task::spawn_blocking(|| self.path_blocking())
            .await
            .context("the build was interrupted")?
    }

    /// [`GoTool::path`] for a caller without an async runtime.
    pub fn path_blocking(&self) -> Result<PathBuf> {
        let dir = self.dir();
        let args = self.build_args(&dir)?;
        let key = cache::key(&dir, &args)
            .with_context(|| format!("reading the Go module in {}", dir.display()))?;
        let cache = cache::Cache::of_user()?;
        cache.entry(self.name, &key, |target| {
            build::build(self.name, self.cost, &dir, &args, target)
        })
    }

    fn dir(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(self.module)
    }

    /// All arguments of `go` but the output's name.
    fn build_args(&self, dir: &Path) -> Result<Vec<String>> {
        let go_mod = dir.join("go.mod");
        let text = std::fs::read_to_string(&go_mod)
            .with_context(|| format!("reading {}", go_mod.display()))?;
        let version = required_version(&text, self.versioned_by).with_context(|| {
            format!(
                "{} is not required by {}",
                self.versioned_by,
                go_mod.display()
            )
        })?;
        let ldflags = self
            .stamps
            .iter()
            .fold("-s -w".to_owned(), |flags, (variable, part)| {
                format!("{flags} -X {variable}={}", part.of(version))
            });
        Ok([
            "build",
            "-v",
            "-trimpath",
            "-mod=readonly",
            "-buildvcs=false",
            "-ldflags",
        ]
        .map(str::to_owned)
        .into_iter()
        .chain([ldflags, self.package.to_owned()])
        .collect())
    }
}

impl VersionPart {
    fn of(self, version: &str) -> &str {
        let mut numbers = version.trim_start_matches('v').split('.');
        match self {
            Self::Whole => version,
            Self::Major => numbers.next().unwrap_or_default(),
            Self::Minor => numbers.nth(1).unwrap_or_default(),
        }
    }
}

/// The version that a go.mod requires of a module. A `replace` line names a module too, but not as its first word
/// followed by a version.
fn required_version<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let mut words = line
            .trim()
            .trim_start_matches("require ")
            .split_whitespace();
        let found = words.next()? == module;
        words
            .next()
            .filter(|version| found && version.starts_with('v'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_comes_from_the_requirement_not_from_a_replacement() {
        let text = "module m\nreplace (\n\ta.b/c => a.b/c v0.1.0\n)\nrequire (\n\ta.b/c/d v7.0.0\n\ta.b/c v1.36.3 // indirect\n)\n";
        assert_eq!(required_version(text, "a.b/c"), Some("v1.36.3"));
        assert_eq!(
            required_version("require x.y/z v2.0.1", "x.y/z"),
            Some("v2.0.1")
        );
        assert_eq!(required_version(text, "a.b/x"), None);
    }

    #[test]
    fn both_modules_of_the_repository_yield_their_arguments() {
        for (tool, stamp) in [
            (&CONTROL_PLANE, "version.gitMinor="),
            (&HELM, "internal/version.version=v4."),
        ] {
            let args = tool.build_args(&tool.dir()).unwrap();
            assert!(args.iter().any(|arg| arg.contains(stamp)), "{args:?}");
        }
    }
}
