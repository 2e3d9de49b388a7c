//! A vLLM server inside a container, described instead of scripted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::reference::SecretSource;

/// Where the template that brings vLLM installs it.
pub const DEFAULT_EXECUTABLE: &str = "/opt/vllm/bin/vllm";

/// A vLLM server: the operator writes its systemd unit, starts it, restarts it when this changes, and reports it ready
/// when the model answers. A new model needs neither a script nor a new container.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Vllm {
    /// The model to serve: a Hugging Face repository such as `Qwen/Qwen3-Coder-30B-A3B-Instruct`, or a path inside the container.
    #[schemars(
        length(min = 1, max = 512),
        regex(pattern = r"^[A-Za-z0-9/][A-Za-z0-9._/@:+-]*$")
    )]
    pub model: String,

    /// The name under which clients ask for the model. Default: `model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[A-Za-z0-9/][A-Za-z0-9._/@:+-]*$")
    )]
    pub served_model_name: Option<String>,

    /// TCP port of the OpenAI-compatible API, 1 to 65535. Default: 8000.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i64,

    /// Address that the server listens on. Default: `0.0.0.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9.:_-]+$"))]
    pub host: Option<String>,

    /// Number of GPUs that one copy of the model is spread over, 1 to 64. Default: as many as `gpus` asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub tensor_parallel_size: Option<i64>,

    /// Longest context in tokens. Default: the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub max_model_len: Option<i64>,

    /// Part of each GPU's memory that vLLM may use, above 0 and up to 1. Default: vLLM's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.01, max = 1.0))]
    pub gpu_memory_utilization: Option<f64>,

    /// Data type of the weights, such as `bfloat16`. Default: `auto`, the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9_]+$"))]
    pub dtype: Option<String>,

    /// How the weights are quantized, such as `awq` or `fp8`. Default: what the model says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9_-]+$"))]
    pub quantization: Option<String>,

    /// Further arguments of `vllm serve`, one per item, such as `--max-model-len=32768`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), inner(length(min = 1, max = 4096)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub extra_args: Vec<String>,

    /// Environment variables of the server. Secrets don't belong here: see `huggingFaceToken` and `apiKey`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,

    /// Token for models that Hugging Face gives to signed-in users only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hugging_face_token: Option<SecretSource>,

    /// Key that clients of the API must present. Left out: the API is open to whoever reaches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<SecretSource>,

    /// Path of the `vllm` program inside the container. Default: `/opt/vllm/bin/vllm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 1024), regex(pattern = r"^/[!-~]+$"))]
    pub executable: Option<String>,

    /// How long a start, with the model's download, may take before the object is Stalled. The server is left to go on even
    /// then: slow is not failed. Default: `60m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_timeout: Option<Duration>,
}

impl Vllm {
    /// The name that clients ask for.
    pub fn served_model_name(&self) -> &str {
        self.served_model_name.as_deref().unwrap_or(&self.model)
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        u16::try_from(self.port).unwrap_or(8000)
    }

    /// The address that the server listens on.
    pub fn host(&self) -> &str {
        self.host.as_deref().unwrap_or("0.0.0.0")
    }

    /// The program's path.
    pub fn executable(&self) -> &str {
        self.executable.as_deref().unwrap_or(DEFAULT_EXECUTABLE)
    }

    /// How long a start may take.
    pub fn startup_timeout(&self) -> Duration {
        self.startup_timeout.unwrap_or(Duration::from_mins(60))
    }
}

/// One environment variable.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Name of the variable. Unique in the list.
    #[schemars(
        length(min = 1, max = 255),
        regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$")
    )]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 32_768))]
    pub value: String,
}

fn default_port() -> i64 {
    8000
}
