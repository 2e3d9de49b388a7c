//! What is run inside a container once, to make of it what it shall be.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::reference::{ConfigMapKeyRef, SecretKeyRef};

/// A script that is run as root inside the container, once per content.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Setup {
    /// The script itself. Its first line may name the interpreter; without one it is run by `/bin/sh`. Either this or
    /// `scriptFrom`. By a line `# phoenix: driver-step` it offers to bring the NVIDIA libraries to the version of the node's driver, and do
    /// no more, when run with `PHOENIX_STEP=driver`: that is done once per version, in all containers made from it that don't fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 262_144))]
    pub script: Option<String>,

    /// Where the script is kept. Either this or `script`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script_from: Option<ScriptSource>,

    /// Environment variables of the script and of `verify`. A value that changes is a changed setup: a container runs it again, a
    /// sealed template is Outdated. Values of Secrets are masked in the log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<SetupEnv>,

    /// A shell command or script that must exit with 0 after the script before the container counts as set up. Left out:
    /// the script's own exit status decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65_536))]
    pub verify: Option<String>,

    /// How long one attempt may take, such as `45m`. Default: `30m`.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,

    /// How often a failed attempt is repeated before the object is Stalled, 0 to 100. Default: 3.
    #[serde(default = "default_retries")]
    #[schemars(range(min = 0, max = 100))]
    pub retries: i64,
}

/// Where a setup script is kept.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ScriptSource {
    /// The key of a ConfigMap that holds the script.
    pub config_map_key_ref: ConfigMapKeyRef,
}

/// One environment variable: a name, and exactly one of `value`, `configMapKeyRef` and `secretKeyRef`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SetupEnv {
    /// Name of the variable. Unique in the list.
    #[schemars(
        length(min = 1, max = 255),
        regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$")
    )]
    pub name: String,

    /// Its value, for everybody to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32_768))]
    pub value: Option<String>,

    /// The key of a ConfigMap that holds the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<ConfigMapKeyRef>,

    /// The key of a Secret that holds the value. It is never shown, and only a keyed hash of it enters the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
}

fn default_timeout() -> Duration {
    Duration::from_mins(30)
}

fn default_retries() -> i64 {
    3
}
