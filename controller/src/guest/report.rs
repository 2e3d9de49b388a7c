//! The output of the inspection as facts. Strict: a key or a value that the script cannot have printed is an error, so that a
//! change of one side without the other is noticed at once.

use std::collections::HashMap;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, STANDARD_NO_PAD as UNPADDED};
use sha2::{Digest, Sha256};

use super::facts::{GpuFact, GuestFacts, GuestState, InitState, SetupPhase, SetupState, VllmUnit};
use super::stream::{printable, tail};

/// How much of a log is kept.
const TAIL: usize = 4096;
/// How much of what a journal says of errors.
const COMPLAINTS: usize = 8192;

/// Reads what the inspection printed. The error names what is wrong with it.
pub(super) fn parse(output: &[u8], key: &str) -> Result<GuestFacts, String> {
    let text = std::str::from_utf8(output).map_err(|_| "the report is not text".to_owned())?;
    let mut report = Report::default();
    for line in text.lines() {
        let (name, value) = line
            .split_once('=')
            .ok_or_else(|| format!("no key in {line:?}"))?;
        match name {
            "gpu" => report.gpus.push(value),
            "minor" => report.minors.push(value),
            "gpu_device" => report.gpu_devices.push(value),
            _ if KEYS.contains(&name) => {
                if report.values.insert(name, value).is_some() {
                    return Err(format!("{name} stands twice"));
                }
            }
            _ => return Err(format!("unknown key {name:?}")),
        }
    }
    report.facts(key)
}

const KEYS: [&str; 29] = [
    "init",
    "default_route",
    "resolves",
    "os",
    "host_key",
    "ssh_key",
    "state",
    "personalised",
    "setup.hash",
    "setup.attempt",
    "setup.started",
    "setup.phase",
    "setup.tail",
    "vllm.unit_hash",
    "vllm.executable",
    "vllm.running_hash",
    "vllm.journal",
    "vllm.complaints",
    "vllm.show.ActiveState",
    "vllm.show.SubState",
    "vllm.show.NRestarts",
    "vllm.show.MainPID",
    "vllm.show.ExecMainCode",
    "vllm.show.ExecMainStatus",
    "vllm.show.ActiveEnterTimestamp",
    "host_driver",
    "nvidia_error",
    "docker_storage",
    "end",
];

/// The host key that an operation printed, as its fingerprint.
pub(super) fn host_key(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    let mut lines = text.lines();
    fingerprint(lines.find_map(|line| line.strip_prefix("host_key="))?)
}

/// The fingerprint of a public key in OpenSSH's format, as `ssh-keygen -l` prints it. The file is the guest's, and may hold anything.
fn fingerprint(line: &str) -> Option<String> {
    let (kind, key) = line.split_once(' ')?;
    let key = BASE64.decode(key).ok().filter(|_| kind == "ssh-ed25519")?;
    Some(format!("SHA256:{}", UNPADDED.encode(Sha256::digest(key))))
}

#[derive(Default)]
struct Report<'a> {
    values: HashMap<&'a str, &'a str>,
    gpus: Vec<&'a str>,
    minors: Vec<&'a str>,
    gpu_devices: Vec<&'a str>,
}

impl Report<'_> {
    fn facts(&self, key: &str) -> Result<GuestFacts, String> {
        if !self.has("end") {
            return Err("the report has no end".to_owned());
        }
        let (gpus, complaint) = self.gpus()?;
        let nvidia_error = match self.text("nvidia_error")? {
            Some(error) => Some(error.trim().to_owned()),
            None => complaint,
        };
        Ok(GuestFacts {
            init: init(self.values.get("init").ok_or("no init")?),
            default_route: self.has("default_route"),
            resolves: self.has("resolves"),
            host_key: self
                .values
                .get("host_key")
                .and_then(|line| fingerprint(line)),
            ssh_key: self.values.get("ssh_key").map(|is| *is == "1"),
            state: self.has("state").then(|| self.state(key)).transpose()?,
            vllm: self
                .has("vllm.unit_hash")
                .then(|| self.vllm())
                .transpose()?,
            gpus,
            gpu_devices: self
                .gpu_devices
                .iter()
                .filter_map(|minor| minor.parse().ok())
                .collect(),
            nvidia_error,
            host_driver: self
                .text("host_driver")?
                .and_then(|text| driver_version(&text)),
            os: self
                .text("os")?
                .map(|os| os.trim().trim_matches(['"', '\'']).to_owned())
                .filter(|os| !os.is_empty()),
            docker_storage: self
                .text("docker_storage")?
                .map(|driver| driver.trim().to_owned())
                .filter(|driver| !driver.is_empty()),
        })
    }

    fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    fn number<N: FromStr>(&self, name: &str) -> Result<Option<N>, String> {
        let Some(value) = self.values.get(name) else {
            return Ok(None);
        };
        value
            .trim()
            .parse()
            .map(Some)
            .map_err(|_| format!("{name} is no number: {value:?}"))
    }

    /// Free text: it travels as base64.
    fn text(&self, name: &str) -> Result<Option<String>, String> {
        let Some(value) = self.values.get(name) else {
            return Ok(None);
        };
        let bytes = BASE64
            .decode(value)
            .map_err(|_| format!("{name} is not base64"))?;
        Ok(Some(printable(&bytes)))
    }

    fn state(&self, key: &str) -> Result<GuestState, String> {
        let setup = self.has("setup.phase").then(|| self.setup()).transpose()?;
        Ok(GuestState {
            key: key.to_owned(),
            personalised: self.has("personalised"),
            setup,
        })
    }

    fn setup(&self) -> Result<SetupState, String> {
        let required = |name: &str| self.values.get(name).ok_or_else(|| format!("no {name}"));
        let (phase, finished_at) = phase(required("setup.phase")?)?;
        Ok(SetupState {
            hash: (*required("setup.hash")?).to_owned(),
            attempt: self.number("setup.attempt")?.ok_or("no setup.attempt")?,
            started_at: self.number("setup.started")?.ok_or("no setup.started")?,
            phase,
            finished_at,
            tail: tail(&self.text("setup.tail")?.unwrap_or_default(), TAIL).to_owned(),
        })
    }

    fn vllm(&self) -> Result<VllmUnit, String> {
        let shown = |name: &str| {
            self.values
                .get(name)
                .copied()
                .unwrap_or_default()
                .to_owned()
        };
        let active = shown("vllm.show.ActiveState");
        let running_hash = shown("vllm.running_hash");
        Ok(VllmUnit {
            args_hash: if running_hash.is_empty() {
                shown("vllm.unit_hash")
            } else {
                running_hash
            },
            sub: shown("vllm.show.SubState"),
            restarts: self.number("vllm.show.NRestarts")?.unwrap_or(0),
            exit_status: self.exit_status()?,
            since: if active == "active" {
                self.since()
            } else {
                None
            },
            executable_found: self.has("vllm.executable"),
            journal_tail: tail(&self.text("vllm.journal")?.unwrap_or_default(), TAIL).to_owned(),
            complaints: tail(
                &self.text("vllm.complaints")?.unwrap_or_default(),
                COMPLAINTS,
            )
            .to_owned(),
            active,
        })
    }

    /// systemd tells how the main process ended (0 not at all, 1 by itself, else by a signal) and with what.
    fn exit_status(&self) -> Result<Option<i32>, String> {
        let status: i32 = self.number("vllm.show.ExecMainStatus")?.unwrap_or(0);
        Ok(match self.number::<i32>("vllm.show.ExecMainCode")? {
            None | Some(0) => None,
            Some(1) => Some(status),
            Some(_) => Some(128 + status),
        })
    }

    /// `@1732474075`; older versions of systemd write a date, which isn't worth a calendar.
    fn since(&self) -> Option<i64> {
        self.values
            .get("vllm.show.ActiveEnterTimestamp")?
            .strip_prefix('@')?
            .parse()
            .ok()
    }

    /// The cards, and what `nvidia-smi` printed instead of one.
    fn gpus(&self) -> Result<(Vec<GpuFact>, Option<String>), String> {
        let mut minors = HashMap::new();
        for line in &self.minors {
            let (address, minor) = line
                .split_once(' ')
                .ok_or_else(|| format!("no minor in {line:?}"))?;
            if let Ok(minor) = minor.trim().parse::<u32>() {
                minors.insert(pci_address(address), minor);
            }
        }
        let (mut gpus, mut complaint) = (Vec::new(), None);
        for line in &self.gpus {
            match gpu(line) {
                Some(mut gpu) => {
                    gpu.minor = minors.get(&gpu.pci_address).copied();
                    gpus.push(gpu);
                }
                None if line.trim().is_empty() => {}
                None => complaint = complaint.or_else(|| Some((*line).trim().to_owned())),
            }
        }
        Ok((gpus, complaint))
    }
}

fn init(said: &str) -> InitState {
    match said {
        "initializing" | "starting" => InitState::Starting,
        "running" => InitState::Running,
        "degraded" => InitState::Degraded,
        "stopping" => InitState::Stopping,
        "none" => InitState::NoSystemd,
        other => InitState::Other(other.to_owned()),
    }
}

/// The phase, and when it ended if it has.
pub(super) fn phase(line: &str) -> Result<(SetupPhase, Option<i64>), String> {
    let wrong = || format!("no such phase: {line:?}");
    let words: Vec<&str> = line.split_whitespace().collect();
    let time = |word: &str| word.parse::<i64>().map(Some).map_err(|_| wrong());
    let code = |word: &str| word.parse::<i32>().map_err(|_| wrong());
    Ok(match words[..] {
        ["running"] => (SetupPhase::Running, None),
        ["verifying"] => (SetupPhase::Verifying, None),
        ["lost"] => (SetupPhase::Lost, None),
        ["exited", exit, at] => (SetupPhase::Exited { code: code(exit)? }, time(at)?),
        ["timeout", at] => (SetupPhase::TimedOut, time(at)?),
        ["unverified", exit, at] => (SetupPhase::VerifyFailed { code: code(exit)? }, time(at)?),
        ["verified", at] => (SetupPhase::Verified, time(at)?),
        _ => return Err(wrong()),
    })
}

/// A line of `--query-gpu=uuid,pci.bus_id,memory.total,driver_version,name`.
fn gpu(line: &str) -> Option<GpuFact> {
    let fields: Vec<&str> = line.splitn(5, ',').map(str::trim).collect();
    let [uuid, address, memory, driver, name] = fields[..] else {
        return None;
    };
    Some(GpuFact {
        minor: None,
        uuid: uuid.starts_with("GPU-").then(|| uuid.to_owned())?,
        pci_address: pci_address(address),
        name: name.to_owned(),
        memory_mib: memory.parse().ok()?,
        driver_version: driver.to_owned(),
    })
}

/// nvidia-smi writes a domain of eight digits in capitals, the kernel one of four in small letters.
fn pci_address(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    match text.split_once(':') {
        Some((domain, rest)) if domain.len() > 4 => {
            let digits = domain.trim_start_matches('0');
            format!("{digits:0>4}:{rest}")
        }
        _ => text,
    }
}

/// The version in `/proc/driver/nvidia/version`: the first word that looks like one (`550.90.07`).
fn driver_version(text: &str) -> Option<String> {
    let is_version = |word: &&str| {
        let parts: Vec<&str> = word.split('.').collect();
        parts.len() >= 2
            && parts[0].len() >= 3
            && parts
                .iter()
                .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    };
    text.split_whitespace().find(is_version).map(str::to_owned)
}
