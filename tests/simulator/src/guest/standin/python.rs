//! python3, pip and uv: virtual environments that hold commands, and packages that are names and versions.

use crate::guest::boot::Guest;
use crate::guest::calls::Call;
use crate::guest::roots::STAND_IN;
use std::fmt::Write as _;

use super::packages::Installed;
use super::system::reaches_outside;

/// The version that the recordings of vLLM's answers were made with.
pub(in crate::guest) const VLLM: &str = "0.32.0";
const PYTHON: &str = "3.12.3";

/// The folder of the environment that a program in its `bin` belongs to.
fn home(program: &str) -> &str {
    program
        .rsplit_once("/bin/")
        .map_or("/usr/local", |(home, _)| {
            if home == "/usr" { "/usr/local" } else { home }
        })
}

fn packages_file(home: &str) -> String {
    format!("{home}/lib/simulated-packages")
}

/// A Python package's version in an environment.
pub(in crate::guest) fn version(guest: &Guest, home: &str, package: &str) -> Option<String> {
    let text = guest.files.read(&packages_file(home))?;
    text.lines().rev().find_map(|line| {
        line.strip_prefix(package)?
            .strip_prefix("==")
            .map(str::to_owned)
    })
}

/// `python3` and `python`.
pub(super) async fn python(guest: &Guest, call: &Call) -> i32 {
    let args = call.args();
    match args[..] {
        ["--version" | "-V", ..] => {
            call.reply.out(&format!("Python {PYTHON}\n")).await;
            0
        }
        ["-m", "venv", ..] => {
            let Some(folder) = args[2..].iter().rfind(|arg| !arg.starts_with('-')) else {
                return 2;
            };
            if !Installed::read(guest).has("python3-venv") && home(&call.program) == "/usr/local" {
                call.reply.out("The virtual environment was not created successfully because ensurepip is not\navailable.  On Debian/Ubuntu systems, you need to install the python3-venv\npackage using the following command.\n\n    apt install python3.12-venv\n").await;
                return 1;
            }
            make_environment(guest, &call.path(folder));
            0
        }
        ["-m", "pip", ..] => pip(guest, call, &args[2..]).await,
        ["-m", "ensurepip", ..] => 0,
        ["-c", code, ..] => inline(guest, call, code).await,
        _ => {
            call.reply
                .err("python3: only -m venv, -m pip, -c and --version are played here\n")
                .await;
            1
        }
    }
}

fn make_environment(guest: &Guest, folder: &str) {
    for name in ["python", "python3", "pip", "pip3"] {
        guest
            .files
            .link(&format!("{folder}/bin/{name}"), STAND_IN)
            .ok();
    }
    guest
        .files
        .write(
            &format!("{folder}/bin/activate"),
            &format!(
                "VIRTUAL_ENV={folder}\nPATH=\"$VIRTUAL_ENV/bin:$PATH\"\nexport VIRTUAL_ENV PATH\n"
            ),
            0o644,
        )
        .ok();
    guest
        .files
        .write(
            &format!("{folder}/pyvenv.cfg"),
            &format!("home = /usr/bin\nversion = {PYTHON}\n"),
            0o644,
        )
        .ok();
}

/// The few one-liners by which scripts look whether something is there.
async fn inline(guest: &Guest, call: &Call, code: &str) -> i32 {
    let imported: Vec<_> = code
        .split([';', '\n'])
        .filter_map(|part| part.trim().strip_prefix("import "))
        .flat_map(|names| names.split(','))
        .map(str::trim)
        .collect();
    let built_in = [
        "sys",
        "os",
        "json",
        "ssl",
        "venv",
        "ensurepip",
        "platform",
        "importlib.metadata",
    ];
    for module in &imported {
        let package = module.split('.').next().unwrap_or(module);
        if !built_in.contains(module) && version(guest, home(&call.program), package).is_none() {
            call.reply.err(&format!("Traceback (most recent call last):\n  File \"<string>\", line 1, in <module>\nModuleNotFoundError: No module named '{package}'\n")).await;
            return 1;
        }
    }
    if let Some(module) = imported
        .iter()
        .find(|module| code.contains(&format!("{module}.__version__")))
    {
        call.reply
            .out(&format!(
                "{}\n",
                version(guest, home(&call.program), module).unwrap_or_default()
            ))
            .await;
    } else if code.contains("torch.cuda.is_available()") && code.contains("sys.exit") {
        if super::nvidia::cuda_devices(guest) > 0 {
            return 0;
        }
        let said = code.split('"').nth(1).unwrap_or_default();
        call.reply.err(&format!("{said}\n")).await;
        return 1;
    } else if code.contains("torch.cuda.is_available()") {
        call.reply
            .out(if super::nvidia::cuda_devices(guest) > 0 {
                "True\n"
            } else {
                "False\n"
            })
            .await;
    } else if code.contains("torch.cuda.device_count()") {
        call.reply
            .out(&format!("{}\n", super::nvidia::cuda_devices(guest)))
            .await;
    } else if code.contains("print") {
        call.reply
            .err("python3 -c: this code is not played here\n")
            .await;
        return 1;
    }
    0
}

/// `pip` and `pip3`.
pub(super) async fn pip(guest: &Guest, call: &Call, args: &[&str]) -> i32 {
    let home = home(&call.program).to_owned();
    match args.first().copied() {
        Some("--version" | "-V") => {
            call.reply
                .out(&format!(
                    "pip 25.3 from {home}/lib/python3.12/site-packages/pip (python 3.12)\n"
                ))
                .await;
            0
        }
        Some("install") => install(guest, call, &home, &args[1..]).await,
        Some("show") => {
            let Some(name) = args.get(1) else { return 1 };
            let Some(version) = version(guest, &home, name) else {
                call.reply
                    .err(&format!("WARNING: Package(s) not found: {name}\n"))
                    .await;
                return 1;
            };
            call.reply
                .out(&format!("Name: {name}\nVersion: {version}\n"))
                .await;
            0
        }
        Some("list" | "freeze") => {
            call.reply
                .out(&guest.files.read(&packages_file(&home)).unwrap_or_default())
                .await;
            0
        }
        Some("cache" | "check" | "config") => 0,
        other => {
            call.reply
                .err(&format!(
                    "ERROR: unknown command \"{}\"\n",
                    other.unwrap_or_default()
                ))
                .await;
            1
        }
    }
}

/// `uv`.
pub(super) async fn uv(guest: &Guest, call: &Call) -> i32 {
    let args = call.args();
    match args[..] {
        ["--version", ..] => {
            call.reply.out("uv 0.9.9\n").await;
            0
        }
        ["venv", ..] => {
            let folder = args[1..]
                .iter()
                .rfind(|arg| !arg.starts_with('-'))
                .copied()
                .unwrap_or(".venv");
            make_environment(guest, &call.path(folder));
            0
        }
        ["pip", "install", ..] => {
            let chosen = args.iter().enumerate().find_map(|(index, arg)| {
                arg.strip_prefix("--python=").or_else(|| {
                    matches!(*arg, "--python" | "-p")
                        .then(|| args.get(index + 1).copied())
                        .flatten()
                })
            });
            let home = match (chosen, call.env.get("VIRTUAL_ENV")) {
                (Some(python), _) => home(python).to_owned(),
                (None, Some(active)) => active.clone(),
                (None, None) => home(&call.program).to_owned(),
            };
            install(guest, call, &home, &args[2..]).await
        }
        _ => {
            call.reply.err("error: unrecognized subcommand\n").await;
            2
        }
    }
}

async fn install(guest: &Guest, call: &Call, home: &str, args: &[&str]) -> i32 {
    let mut wanted = Vec::new();
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match *word {
            "-r" | "-c" | "-i" | "-f" | "--index-url" | "--extra-index-url" | "--find-links"
            | "--constraint" | "--requirement" | "--python" | "-p" | "--torch-backend" => {
                words.next();
            }
            word if word.starts_with('-') => {}
            word => wanted.push(word),
        }
    }
    if !reaches_outside(guest) {
        let first = wanted.first().copied().unwrap_or_default();
        call.reply.err(&format!("ERROR: Could not find a version that satisfies the requirement {first} (from versions: none)\nERROR: No matching distribution found for {first}\n")).await;
        return 1;
    }
    let mut lines = String::new();
    for word in &wanted {
        let (name, exact) = word.split_once("==").unwrap_or((word, ""));
        let name = name.split(['[', '>', '<', '~', '!']).next().unwrap_or(name);
        if name.starts_with("no-such-") {
            call.reply.err(&format!("ERROR: Could not find a version that satisfies the requirement {word} (from versions: none)\nERROR: No matching distribution found for {word}\n")).await;
            return 1;
        }
        let version = match (exact, name) {
            ("", "vllm") => VLLM,
            ("", _) => "1.0.0",
            (exact, _) => exact,
        };
        writeln!(lines, "{name}=={version}").ok();
        match name {
            "vllm" => {
                guest.files.link(&format!("{home}/bin/vllm"), STAND_IN).ok();
                lines += "torch==2.11.0\ntransformers==5.19.0\nhuggingface_hub==1.16.0\n";
                guest.files.link(&format!("{home}/bin/hf"), STAND_IN).ok();
            }
            "uv" => drop(guest.files.link(&format!("{home}/bin/uv"), STAND_IN)),
            "huggingface_hub" | "huggingface-hub" => {
                drop(guest.files.link(&format!("{home}/bin/hf"), STAND_IN));
            }
            _ => {}
        }
    }
    if wanted
        .iter()
        .any(|word| *word != "pip" && *word != "setuptools" && *word != "wheel")
    {
        tokio::time::sleep(guest.shared.faults.timing().pip_install).await;
    }
    guest.files.append(&packages_file(home), &lines).ok();
    if !args.iter().any(|arg| matches!(*arg, "-q" | "--quiet")) {
        call.reply
            .out(&format!(
                "Collecting {}\nSuccessfully installed {}\n",
                wanted.join(" "),
                lines
                    .lines()
                    .map(|line| line.replace("==", "-"))
                    .collect::<Vec<_>>()
                    .join(" ")
            ))
            .await;
    }
    0
}
