//! What is run inside a container once, to make of it what it shall be.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::reference::ConfigMapKeyRef;

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

fn default_timeout() -> Duration {
    Duration::from_mins(30)
}

fn default_retries() -> i64 {
    3
}
