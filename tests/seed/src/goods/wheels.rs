//! A package index with vLLM and what it stands on, `torch`, as far as the layer and its verification use them.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{many_files, write};

const TORCH: &str = r#"
class cuda:
    @staticmethod
    def is_available():
        import os, subprocess
        seen = subprocess.run(["nvidia-smi", "-L"], stdout=subprocess.DEVNULL)
        return seen.returncode == 0 and os.path.exists("/dev/nvidia-uvm")
"#;
const VLLM: &str = r#"
def main():
    import sys, torch
    from torch.parts import whole
    print("0.32.0" if whole() and "--version" in sys.argv else "this stand-in only tells its version")
"#;

pub(super) fn make(folder: &Path) -> Result<()> {
    let mut torch = vec![("torch/__init__.py".to_owned(), TORCH.to_owned())];
    torch.extend(many_files().map(|(file, text)| (format!("torch/{file}"), text)));
    let count = torch.len() - 1;
    torch.push((
        "torch/parts.py".to_owned(),
        format!("import os\n\ndef whole():\n    return len([f for f in os.listdir(os.path.dirname(__file__)) if f.startswith('part-')]) == {count}\n"),
    ));
    wheel(folder, "torch", "2.13.0", "", torch, "")?;
    let vllm = vec![("vllm/__init__.py".to_owned(), VLLM.to_owned())];
    wheel(
        folder,
        "vllm",
        "0.32.0",
        "Requires-Dist: torch==2.13.0\n",
        vllm,
        "[console_scripts]\nvllm = vllm:main\n",
    )
}

fn wheel(
    folder: &Path,
    name: &str,
    version: &str,
    requires: &str,
    mut files: Vec<(String, String)>,
    entry_points: &str,
) -> Result<()> {
    let info = format!("{name}-{version}.dist-info");
    let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}");
    files.push((format!("{info}/METADATA"), metadata));
    files.push((
        format!("{info}/WHEEL"),
        "Wheel-Version: 1.0\nGenerator: edge\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            .to_owned(),
    ));
    if !entry_points.is_empty() {
        files.push((format!("{info}/entry_points.txt"), entry_points.to_owned()));
    }
    let mut record = String::new();
    for (path, _) in &files {
        let _ = writeln!(record, "{path},,");
    }
    let _ = writeln!(record, "{info}/RECORD,,");
    files.push((format!("{info}/RECORD"), record));

    let file = format!("{name}-{version}-py3-none-any.whl");
    let archive = zip(&files).context("too large for a zip archive")?;
    let page =
        format!("<!DOCTYPE html><html><body><a href=\"/wheels/{file}\">{file}</a></body></html>\n");
    write(&folder.join("wheels").join(&file), archive)?;
    write(&folder.join("simple").join(name).join("index.html"), page)
}

/// A zip archive whose files are stored as they are.
fn zip(files: &[(String, String)]) -> Option<Vec<u8>> {
    let mut archive = Vec::new();
    let mut directory = Vec::new();
    let number = |value: usize| u32::try_from(value).ok().map(u32::to_le_bytes);
    for (path, text) in files {
        let mut sum = flate2::Crc::new();
        sum.update(text.as_bytes());
        let mut common = vec![20, 0, 0, 0, 0, 0];
        // Midnight of the first day that a zip archive knows.
        common.extend([0, 0, 0x21, 0]);
        common.extend(sum.sum().to_le_bytes());
        common.extend(number(text.len())?);
        common.extend(number(text.len())?);
        common.extend(u16::try_from(path.len()).ok()?.to_le_bytes());
        common.extend([0, 0]);
        let offset = number(archive.len())?;
        archive.extend(b"PK\x03\x04");
        archive.extend(&common);
        archive.extend(path.as_bytes());
        archive.extend(text.as_bytes());
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(common);
        // No comment, the first disk, no attributes.
        directory.extend([0; 10]);
        directory.extend(offset);
        directory.extend(path.as_bytes());
    }
    let count = u16::try_from(files.len()).ok()?.to_le_bytes();
    let (start, size) = (number(archive.len())?, number(directory.len())?);
    archive.extend(directory);
    archive.extend(b"PK\x05\x06\0\0\0\0");
    archive.extend(count);
    archive.extend(count);
    archive.extend(size);
    archive.extend(start);
    archive.extend([0, 0]);
    Some(archive)
}
