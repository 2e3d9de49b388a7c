//! `phoenix crds`: the definitions of the kinds as YAML, to stdout or as one file each.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

const AFTER_HELP: &str = "\
Examples:
  phoenix crds | kubectl apply --server-side -f -
          Install or upgrade the kinds; do so before upgrading the operator
  phoenix crds --dir crds
          Write one file for each kind, as they are kept in the repository";

#[derive(clap::Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// Write a file for each kind into this folder instead, made if it is missing
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.dir {
        Some(dir) => write_files(dir),
        None => print(&mut io::stdout().lock()),
    }
}

fn print(out: &mut impl Write) -> anyhow::Result<()> {
    let written = phoenix_crds::crds().iter().try_for_each(|crd| {
        let text = phoenix_crds::to_yaml(crd).map_err(io::Error::other)?;
        write!(out, "---\n{text}")
    });
    match written.and_then(|()| out.flush()) {
        // Whoever reads has seen enough, as in `phoenix crds | head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("cannot print the CRDs"),
    }
}

fn write_files(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    for crd in phoenix_crds::crds() {
        let file = dir.join(format!("{}.yaml", crd.spec.names.plural));
        let text = phoenix_crds::to_yaml(&crd)
            .with_context(|| format!("cannot print the CRD {}", crd.spec.names.kind))?;
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind, Write};

    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

    use super::{print, write_files};

    #[test]
    fn what_is_printed_is_all_kinds_as_one_stream() {
        let mut out = Vec::new();
        print(&mut out).expect("prints");
        let text = String::from_utf8(out).expect("text");
        let printed: Vec<CustomResourceDefinition> = format!("\n{text}")
            .split("\n---\n")
            .filter(|document| !document.is_empty())
            .map(|document| serde_saphyr::from_str(document).expect("a CRD"))
            .collect();
        assert_eq!(printed, phoenix_crds::crds());
        assert!(printed.len() >= 3);
    }

    #[test]
    fn files_hold_one_kind_each() {
        let root = tempfile::tempdir().expect("a folder");
        let dir = root.path().join("made/on the way");
        write_files(&dir).expect("writes");
        for crd in phoenix_crds::crds() {
            let file = dir.join(format!("{}.yaml", crd.spec.names.plural));
            let text = std::fs::read_to_string(file).expect("a file of that name");
            let written: CustomResourceDefinition = serde_saphyr::from_str(&text).expect("a CRD");
            assert_eq!(written, crd);
        }
        assert!(write_files(&dir).is_ok(), "written over");
        let blocked = dir.join("lxccontainers.yaml/below");
        let error = write_files(&blocked).expect_err("a file is in the way");
        assert!(
            error.to_string().contains("lxccontainers.yaml"),
            "{error:#}"
        );
    }

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_error() {
        assert!(print(&mut Broken(ErrorKind::BrokenPipe)).is_ok());
        assert!(print(&mut Broken(ErrorKind::StorageFull)).is_err());
    }
}
