//! `nvidia-smi`, NVIDIA's installer and container tools: a guest sees the GPUs whose devices it was given, if its libraries fit the host's driver.

use crate::config::Gpu;
use crate::guest::boot::Guest;
use crate::guest::calls::Call;
use std::fmt::Write as _;

use super::packages::{self, DRIVER};

/// Why NVML can't be used in a guest: what `nvidia-smi` says, and its exit status.
pub(super) struct NoGpu {
    pub(super) text: String,
    code: i32,
}

/// The GPUs that a program in the guest finds, in its own numbering.
pub(in crate::guest) fn visible(guest: &Guest) -> Result<Vec<Gpu>, NoGpu> {
    let host = guest.shared.host();
    let has = |device: &str| guest.spec.devices.iter().any(|given| given.path == device);
    if host.driver_version.is_empty() || !has("/dev/nvidiactl") {
        let text = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.\n\n";
        return Err(NoGpu {
            text: text.to_owned(),
            code: 9,
        });
    }
    let Some(library) = guest.files.read(DRIVER) else {
        let text = "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure that the NVIDIA Display Driver is properly installed and present in your system.\nPlease also try adding directory that contains libnvidia-ml.so to your system PATH.\n";
        return Err(NoGpu {
            text: text.to_owned(),
            code: 12,
        });
    };
    if library.trim() != host.driver_version {
        let short: Vec<_> = library.trim().split('.').take(2).collect();
        return Err(NoGpu {
            text: format!(
                "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: {}\n",
                short.join(".")
            ),
            code: 18,
        });
    }
    let gpus: Vec<_> = host
        .gpus
        .into_iter()
        .filter(|gpu| has(&format!("/dev/nvidia{}", gpu.index)))
        .collect();
    if gpus.is_empty() {
        Err(NoGpu {
            text: "No devices were found\n".to_owned(),
            code: 6,
        })
    } else {
        Ok(gpus)
    }
}

/// Whether CUDA can be used: beyond NVML it needs the unified-memory device.
pub(in crate::guest) fn cuda_devices(guest: &Guest) -> usize {
    let unified = guest
        .spec
        .devices
        .iter()
        .any(|given| given.path == "/dev/nvidia-uvm");
    visible(guest).map_or(0, |gpus| if unified { gpus.len() } else { 0 })
}

/// `nvidia-smi`.
pub(super) async fn smi(guest: &Guest, call: &Call) -> i32 {
    let gpus = match visible(guest) {
        Ok(gpus) => gpus,
        Err(no) => {
            call.reply.out(&no.text).await;
            return no.code;
        }
    };
    let driver = guest.shared.host().driver_version;
    let option = |name: &str| {
        call.args.iter().enumerate().find_map(|(index, arg)| {
            arg.strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('='))
                .map(str::to_owned)
                .or_else(|| {
                    (arg == name)
                        .then(|| call.args.get(index + 1).cloned())
                        .flatten()
                })
        })
    };
    if call
        .args
        .iter()
        .any(|arg| arg == "-L" || arg == "--list-gpus")
    {
        let text: String = gpus
            .iter()
            .enumerate()
            .map(|(index, gpu)| format!("GPU {index}: {} (UUID: {})\n", gpu.name, gpu.uuid))
            .collect::<Vec<_>>()
            .concat();
        call.reply.out(&text).await;
        return 0;
    }
    if let Some(query) = option("--query-gpu") {
        let format = option("--format").unwrap_or_default();
        let has = |word: &str| format.split(',').any(|part| part.trim() == word);
        let only = option("-i").or_else(|| option("--id"));
        return table(
            call,
            &gpus,
            &driver,
            &query,
            has("noheader"),
            has("nounits"),
            only.as_deref(),
        )
        .await;
    }
    let mut text = format!(
        "+-----------------------------------------------------------------------------------------+\n| NVIDIA-SMI {driver:<22} Driver Version: {driver:<14} CUDA Version: 13.0     |\n|-----------------------------------------+------------------------+----------------------+\n"
    );
    for (index, gpu) in gpus.iter().enumerate() {
        write!(text,
            "| {index:>3}  {:<30}  On  | {} Off |                  Off |\n| 30%   34C    P8             21W /  300W | {:>6}MiB / {:>6}MiB |      0%      Default |\n",
            gpu.name,
            bus_id(gpu),
            1,
            gpu.memory_mib
        ).ok();
    }
    text += "+-----------------------------------------+------------------------+----------------------+\n";
    call.reply.out(&text).await;
    0
}

fn bus_id(gpu: &Gpu) -> String {
    let (domain, rest) = gpu
        .pci_address
        .split_once(':')
        .unwrap_or(("0000", &gpu.pci_address));
    format!("{domain:0>8}:{}", rest.to_uppercase())
}

async fn table(
    call: &Call,
    gpus: &[Gpu],
    driver: &str,
    query: &str,
    no_header: bool,
    no_units: bool,
    only: Option<&str>,
) -> i32 {
    let fields: Vec<_> = query.split(',').map(str::trim).collect();
    let mebibytes = |amount: u64| {
        if no_units {
            amount.to_string()
        } else {
            format!("{amount} MiB")
        }
    };
    let value = |index: usize, gpu: &Gpu, field: &str| {
        Some(match field {
            "index" => index.to_string(),
            "uuid" | "gpu_uuid" => gpu.uuid.clone(),
            "pci.bus_id" | "gpu_bus_id" => bus_id(gpu),
            "name" | "gpu_name" => gpu.name.clone(),
            "count" => gpus.len().to_string(),
            "memory.total" => mebibytes(gpu.memory_mib),
            "memory.used" => mebibytes(1),
            "memory.free" => mebibytes(gpu.memory_mib - 1),
            "driver_version" => driver.to_owned(),
            "compute_cap" => "8.6".to_owned(),
            "temperature.gpu" => "34".to_owned(),
            "utilization.gpu" => {
                if no_units {
                    "0".to_owned()
                } else {
                    "0 %".to_owned()
                }
            }
            _ => return None,
        })
    };
    let mut text = String::new();
    if !no_header {
        let header = |field: &&str| {
            if field.starts_with("memory.") && !no_units {
                format!("{field} [MiB]")
            } else {
                (*field).to_owned()
            }
        };
        writeln!(
            text,
            "{}",
            fields.iter().map(header).collect::<Vec<_>>().join(", ")
        )
        .ok();
    }
    for (index, gpu) in gpus.iter().enumerate() {
        if only.is_some_and(|only| {
            only != index.to_string()
                && only != gpu.uuid
                && !only.eq_ignore_ascii_case(&bus_id(gpu))
        }) {
            continue;
        }
        let mut row = Vec::new();
        for field in &fields {
            let Some(value) = value(index, gpu, field) else {
                call.reply
                    .out(&format!(
                        "Field \"{field}\" is not a valid field to query.\n\n"
                    ))
                    .await;
                return 2;
            };
            row.push(value);
        }
        writeln!(text, "{}", row.join(", ")).ok();
    }
    call.reply.out(&text).await;
    0
}

/// NVIDIA's `.run` archive, which `fetch` hands out as a script that calls this.
pub(super) async fn installer(guest: &Guest, call: &Call) -> i32 {
    let Some(version) = call.args.first() else {
        return 1;
    };
    tokio::time::sleep(guest.shared.faults.timing().package_install).await;
    if !call
        .args
        .iter()
        .any(|arg| arg == "--no-kernel-modules" || arg == "--no-kernel-module")
    {
        call.reply.err("ERROR: Unable to find the kernel source tree for the currently running kernel.\nERROR: Installation has failed.  Please see the file '/var/log/nvidia-installer.log' for details.\n").await;
        return 1;
    }
    packages::install_driver(guest, version, true);
    call.reply.out(&format!("Verifying archive integrity... OK\nUncompressing NVIDIA Accelerated Graphics Driver for Linux-x86_64 {version}\n")).await;
    0
}

/// Where `nvidia-ctk` has left that Docker may run containers with GPUs.
pub(super) const RUNTIME: &str = "/etc/docker/daemon.json";

/// `nvidia-ctk`.
pub(super) async fn toolkit(guest: &Guest, call: &Call) -> i32 {
    let args = call.args();
    match args[..] {
        ["runtime", "configure", ..] => {
            let text = guest
                .files
                .read(RUNTIME)
                .filter(|text| !text.trim().is_empty())
                .unwrap_or_else(|| "{}".to_owned());
            let Ok(mut config) = serde_json::from_str::<serde_json::Value>(&text) else {
                call.reply
                    .err(&format!(
                        "ERRO[0000] unable to load config: invalid JSON in {RUNTIME}\n"
                    ))
                    .await;
                return 1;
            };
            config["runtimes"]["nvidia"] =
                serde_json::json!({"args": [], "path": "nvidia-container-runtime"});
            guest
                .files
                .write(RUNTIME, &format!("{config:#}\n"), 0o644)
                .ok();
            call.reply.err("INFO[0000] Wrote updated config to /etc/docker/daemon.json\nINFO[0000] It is recommended that docker daemon be restarted.\n").await;
            0
        }
        ["config", ..] => {
            let file = "/etc/nvidia-container-runtime/config.toml";
            let mut text = guest.files.read(file).unwrap_or_default();
            for setting in args
                .iter()
                .filter(|arg| arg.contains('=') && !arg.starts_with("--"))
                .chain(args.iter().filter(|arg| arg.starts_with("--set=")))
            {
                let (key, value) = setting
                    .trim_start_matches("--set=")
                    .split_once('=')
                    .unwrap_or((setting, ""));
                text = set_in_toml(&text, key, value);
            }
            guest.files.write(file, &text, 0o644).ok();
            0
        }
        ["--version" | "-v", ..] => {
            call.reply
                .out("NVIDIA Container Toolkit CLI version 1.18.0\n")
                .await;
            0
        }
        ["cdi", ..] => 0,
        _ => {
            call.reply.err("nvidia-ctk: unknown command\n").await;
            1
        }
    }
}

/// Sets `section.key` in a TOML text of plain sections.
fn set_in_toml(text: &str, path: &str, value: &str) -> String {
    let (section, key) = path.rsplit_once('.').unwrap_or(("", path));
    let header = format!("[{section}]");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let start = match lines.iter().position(|line| *line == header) {
        Some(at) => at + 1,
        None if section.is_empty() => 0,
        None => {
            lines.push(header);
            lines.len()
        }
    };
    let end = lines[start..]
        .iter()
        .position(|line| line.starts_with('['))
        .map_or(lines.len(), |at| start + at);
    let line = format!("{key} = {value}");
    let known = (start..end).find(|at| lines[*at].split('=').next().map(str::trim) == Some(key));
    match known {
        Some(at) => lines[at] = line,
        None => lines.insert(end, line),
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_land_in_their_section_once() {
        let once = set_in_toml("[a]\nx = 1\n[b]\ny = 2\n", "a.z", "true");
        assert_eq!(once, "[a]\nx = 1\nz = true\n[b]\ny = 2\n");
        assert_eq!(
            set_in_toml(&once, "a.z", "false"),
            "[a]\nx = 1\nz = false\n[b]\ny = 2\n"
        );
        assert_eq!(set_in_toml("", "c.k", "1"), "[c]\nk = 1\n");
    }
}
