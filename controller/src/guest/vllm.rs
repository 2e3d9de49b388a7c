//! vLLM as a systemd unit: from a model and its settings to the two files that run it.
//!
//! Pure. What is decided here: how arguments are quoted so that the engine gets them byte for byte, that secrets stand only in
//! the environment file, and what the arguments' hash covers. Not decided here: when the unit is applied or restarted.

use std::fmt::Write as _;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// The unit's name in the guest.
pub const UNIT: &str = "phoenix-vllm.service";
/// The environment file that the unit reads. 0600.
pub const ENV_FILE: &str = "/etc/phoenix/vllm.env";
/// The name under which a running engine carries the hash of its arguments in its environment.
pub const HASH_VARIABLE: &str = "PHOENIX_ARGS_HASH";

const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an object asks of vLLM, with every reference resolved.
#[derive(Debug, Clone)]
pub struct VllmInput {
    /// A model's name on Hugging Face, or a path.
    pub model: String,
    /// The name that requests use; the model's where left out.
    pub served_model_name: Option<String>,
    /// The port.
    pub port: u16,
    /// The address to listen on.
    pub host: String,
    /// Over how many GPUs the model is split.
    pub tensor_parallel_size: Option<u32>,
    /// The context's length in tokens.
    pub max_model_len: Option<u64>,
    /// The share of each GPU's memory, up to 1.
    pub gpu_memory_utilization: Option<f64>,
    /// The weights' type.
    pub dtype: Option<String>,
    /// The quantization method.
    pub quantization: Option<String>,
    /// Further arguments, passed on as they are, last.
    pub extra_args: Vec<String>,
    /// Further environment; what isn't an identifier is left out.
    pub env: Vec<(String, String)>,
    /// `HF_TOKEN`.
    pub hugging_face_token: Option<SecretString>,
    /// `VLLM_API_KEY`.
    pub api_key: Option<SecretString>,
    /// The vLLM command, an absolute path.
    pub executable: String,
}

/// The files that run vLLM.
#[derive(Debug, Clone)]
pub struct VllmFiles {
    /// The unit's text. No secrets in it.
    pub unit: String,
    /// The environment file's text.
    pub env: SecretString,
    /// A hash over everything that the engine is started with, secrets by their hash.
    pub args_hash: String,
}

/// Renders the unit and its environment.
pub fn render_vllm(input: &VllmInput) -> VllmFiles {
    let arguments = arguments(input);
    let environment = environment(input);
    let args_hash = hash(&input.executable, &arguments, &environment);
    let served = input.served_model_name.as_deref().unwrap_or(&input.model);

    let mut command = quote(&input.executable, Expansion::Specifiers);
    for argument in &arguments {
        command.push_str(" \\\n    ");
        command.push_str(&quote(argument, Expansion::All));
    }
    // Kernels are compiled at run time: by tools that stand beside vLLM (ninja) and by CUDA's compiler.
    let tools = input
        .executable
        .rsplit_once('/')
        .map_or("", |(directory, _)| directory);
    let path = quote(
        &format!("PATH={tools}:/usr/local/cuda/bin:{SYSTEM_PATH}"),
        Expansion::Specifiers,
    );
    let unit = format!(
        "# Written by Phoenix; changes are put right.\n\
         [Unit]\n\
         Description={description}\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Type=exec\n\
         Environment=HOME=/root CUDA_DEVICE_ORDER=PCI_BUS_ID {HASH_VARIABLE}={args_hash}\n\
         Environment={path}\n\
         EnvironmentFile={ENV_FILE}\n\
         WorkingDirectory=/\n\
         ExecStart={command}\n\
         # vLLM ends with exit status 0 when its engine dies.\n\
         Restart=always\n\
         RestartSec=5\n\
         KillMode=mixed\n\
         TimeoutStopSec=60\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n\
         \n\
         [X-Phoenix]\n\
         ArgsHash={args_hash}\n\
         Executable={executable}\n",
        description = one_line(&format!("vLLM, serving {served}")).replace('%', "%%"),
        executable = one_line(&input.executable),
    );
    VllmFiles {
        unit,
        env: environment_file(&environment),
        args_hash,
    }
}

fn arguments(input: &VllmInput) -> Vec<String> {
    let mut arguments = vec!["serve".to_owned(), input.model.clone()];
    let mut option = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            arguments.push(format!("--{name}={value}"));
        }
    };
    option(
        "served-model-name",
        Some(
            input
                .served_model_name
                .clone()
                .unwrap_or_else(|| input.model.clone()),
        ),
    );
    option("host", Some(input.host.clone()));
    option("port", Some(input.port.to_string()));
    option(
        "tensor-parallel-size",
        input.tensor_parallel_size.map(|n| n.to_string()),
    );
    option("max-model-len", input.max_model_len.map(|n| n.to_string()));
    option(
        "gpu-memory-utilization",
        input.gpu_memory_utilization.map(|share| share.to_string()),
    );
    option("dtype", input.dtype.clone());
    option("quantization", input.quantization.clone());
    arguments.extend(input.extra_args.iter().cloned());
    arguments
}

fn environment(input: &VllmInput) -> Vec<(String, SecretString)> {
    let named = input.env.iter().filter(|(name, _)| is_identifier(name));
    let mut environment: Vec<_> = named
        .map(|(name, value)| (name.clone(), SecretString::from(value.as_str())))
        .collect();
    let secrets = [
        ("HF_TOKEN", &input.hugging_face_token),
        ("VLLM_API_KEY", &input.api_key),
    ];
    for (name, secret) in secrets {
        if let Some(secret) = secret {
            environment.retain(|(other, _)| other != name);
            environment.push((name.to_owned(), secret.clone()));
        }
    }
    environment
}

/// The environment names that a shell and systemd both take.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn hash(executable: &str, arguments: &[String], environment: &[(String, SecretString)]) -> String {
    // Each part carries its length, so that no two different lists read alike.
    let mut digest = Sha256::new();
    let mut part = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    };
    part(executable.as_bytes());
    part(&(arguments.len() as u64).to_be_bytes());
    for argument in arguments {
        part(argument.as_bytes());
    }
    for (name, value) in environment {
        part(name.as_bytes());
        part(&Sha256::digest(value.expose_secret().as_bytes()));
    }
    let mut text = hex::encode(digest.finalize());
    text.truncate(16);
    text
}

/// What systemd expands in a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expansion {
    /// `%` and `$`: in arguments.
    All,
    /// `%` alone: in the path of the program, and in settings.
    Specifiers,
}

/// One word of `ExecStart=` or `Environment=`, so that exactly `word` comes of it.
fn quote(word: &str, expansion: Expansion) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut quoted = String::with_capacity(word.len() + 2);
    quoted.push('"');
    for c in word.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' => quoted.push_str("%%"),
            '$' if expansion == Expansion::All => quoted.push_str("$$"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_ascii_control() => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The text of an environment file: nothing in it is expanded, backslash escapes what a double-quoted shell word escapes.
fn environment_file(environment: &[(String, SecretString)]) -> SecretString {
    let mut text = String::new();
    for (name, value) in environment {
        text.push_str(name);
        text.push_str("=\"");
        // NUL can stand in no environment.
        for c in value.expose_secret().chars().filter(|c| *c != '\0') {
            if matches!(c, '"' | '\\' | '$' | '`') {
                text.push('\\');
            }
            text.push(c);
        }
        text.push_str("\"\n");
    }
    SecretString::from(text)
}

/// A value that is shown, not executed: one line, no continuation.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || c == '\\' { ' ' } else { c })
        .collect()
}
