//! NVIDIA's driver libraries and CUDA as packages, its installer, and the container toolkit.

use std::path::Path;

use anyhow::Result;

use super::repository::{Layout, Package, make as make_repository};
use super::{ARCHIVED_DRIVER, DRIVER, Key, NEWER_DRIVER, many_files, write};

const LIBRARY: &str = "usr/lib/x86_64-linux-gnu/nvidia/version";

/// What `nvidia-smi` says of the two GPUs, and how it fails, as recorded from real ones.
const SMI: &str = r#"#!/bin/sh
library=$(cat /usr/lib/x86_64-linux-gnu/nvidia/version)
host=$(sed -nE 's/^NVRM version:.*[[:space:]]([0-9]{3}\.[0-9.]+)[[:space:]].*/\1/p' /proc/driver/nvidia/version 2>/dev/null)
if [ -z "$host" ] || [ ! -e /dev/nvidiactl ]; then
  echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running."
  exit 9
fi
if [ "$library" != "$host" ]; then
  echo "Failed to initialize NVML: Driver/library version mismatch"
  echo "NVML library version: ${library%.*}"
  exit 18
fi
shown=0
for device in /dev/nvidia[0-9]; do
  [ -e "$device" ] || continue
  uuid="GPU-5f0c9d1e-0000-4000-8000-00000000000$shown"
  case "$*" in
    *-L*) echo "GPU $shown: NVIDIA RTX A6000 (UUID: $uuid)" ;;
    *--query-gpu=driver_version*) echo "$library" ;;
    *--query-gpu=uuid,pci.bus_id,memory.total,driver_version,name*) echo "$uuid, 00000000:0$((shown + 1)):00.0, 49140, $library, NVIDIA RTX A6000" ;;
    *) echo "this stand-in does not know: $*"; exit 2 ;;
  esac
  shown=$((shown + 1))
done
[ $shown -gt 0 ] || { echo "No devices were found"; exit 6; }
"#;

/// NVIDIA's container toolkit, for the two things that are asked of it.
const CTK: &str = r#"#!/bin/sh
set -eu
case "$*" in
  "runtime configure --runtime=docker")
    [ -s /etc/docker/daemon.json ] || echo '{}' >/etc/docker/daemon.json
    jq '.runtimes.nvidia = {"args": [], "path": "nvidia-container-runtime"}' /etc/docker/daemon.json >/etc/docker/daemon.json.new
    mv /etc/docker/daemon.json.new /etc/docker/daemon.json ;;
  "config --set nvidia-container-cli.no-cgroups=true --in-place")
    sed -i 's/^#*no-cgroups = .*/no-cgroups = true/' /etc/nvidia-container-runtime/config.toml ;;
  *) echo "this stand-in does not know: $*" >&2; exit 2 ;;
esac
"#;

pub(super) fn make(folder: &Path, key: &Key) -> Result<()> {
    let cuda = folder.join("compute/cuda/repos/debian13/x86_64");
    let mut packages: Vec<Package> = [DRIVER, NEWER_DRIVER]
        .into_iter()
        .flat_map(driver)
        .collect();
    for name in ["cuda-libraries-13-0", "cuda-minimal-build-13-0"] {
        let mut package = Package::new(name, "13.0.2-1");
        package.files = many_files()
            .map(|(file, text)| (format!("usr/local/cuda-13.0/{name}/{file}"), text))
            .collect();
        packages.push(package);
    }
    make_repository(&cuda, &Layout::Flat, &packages, key)?;
    key.export(&cuda.join("8793F200.pub"))?;

    let toolkit = folder.join("libnvidia-container");
    let package = Package::new("nvidia-container-toolkit", "1.18.0-1")
        .file("usr/bin/nvidia-ctk", CTK)
        .file(
            "usr/bin/nvidia-container-runtime",
            "#!/bin/sh\nexec runc \"$@\"\n",
        )
        .file(
            "etc/nvidia-container-runtime/config.toml",
            "[nvidia-container-cli]\n#no-cgroups = false\n",
        );
    make_repository(
        &toolkit.join("stable/deb/amd64"),
        &Layout::Flat,
        &[package],
        key,
    )?;
    key.export(&toolkit.join("gpgkey"))?;

    let name = format!("NVIDIA-Linux-x86_64-{ARCHIVED_DRIVER}.run");
    write(
        &folder
            .join("XFree86/Linux-x86_64")
            .join(ARCHIVED_DRIVER)
            .join(name),
        installer(),
    )
}

/// The driver's libraries as five packages of one version, as the repository for Debian 13 has them.
fn driver(version: &str) -> Vec<Package> {
    let full = format!("{version}-1");
    let together = format!("libnvidia-ml1 (= {full})");
    vec![
        Package::new("libnvidia-ml1", &full).file(LIBRARY, &format!("{version}\n")),
        Package::new("libcuda1", &full).depends(&together),
        Package::new("libnvidia-ptxjitcompiler1", &full),
        Package::new("libnvidia-nvvm4", &full),
        Package::new("nvidia-smi", &full)
            .depends(&together)
            .file("usr/bin/nvidia-smi", SMI),
    ]
}

/// A self-extracting archive that insists, as NVIDIA's does, on a place to unpack, and says what it was not told.
fn installer() -> String {
    format!(
        "#!/bin/sh
set -eu
case \" $* \" in *' --silent '*) ;; *) echo 'this installer would ask questions' >&2; exit 1 ;; esac
case \" $* \" in *' --no-kernel-modules '*) ;; *) echo 'this installer would build a module' >&2; exit 1 ;; esac
while [ $# -gt 0 ]; do
  if [ \"$1\" = --tmpdir ]; then cd \"$2\"; fi
  shift
done
command -v modprobe >/dev/null || {{ echo 'modprobe is missing' >&2; exit 1; }}
echo unpacked >payload
mkdir -p /{}
echo {ARCHIVED_DRIVER} >/{LIBRARY}
cat >/usr/bin/nvidia-smi <<'SMI'
{SMI}SMI
chmod 0755 /usr/bin/nvidia-smi
exit 0
{}",
        LIBRARY.trim_end_matches("/version"),
        "# the payload\n".repeat(20_000)
    )
}
