//! The seed's objects, as manifests/phoenix has them: what is set up, on what, and how it is verified.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use regex::Regex;
use serde_json::Value;

/// One object with a setup script.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) vmid: u32,
    pub(crate) name: String,
    pub(crate) parent: Option<String>,
    pub(crate) gpus: bool,
    pub(crate) script: String,
    /// The script as it is shipped, with the keys of the real repositories.
    pub(crate) shipped: String,
    pub(crate) verify: Option<String>,
}

fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer)?.as_str().map(str::to_owned)
}

fn object(file: &str) -> Result<Value> {
    let path = folder().join(file);
    let yaml = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_saphyr::from_str(&yaml).with_context(|| format!("parsing {}", path.display()))
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../manifests/phoenix"
    ))
}

/// All of them. The fingerprints of signing keys that the scripts pin are replaced by `fingerprint`, as the scripts tell whoever
/// trusts another key; nothing else in them is changed.
pub(crate) fn load(fingerprint: &str) -> Result<Vec<Layer>> {
    let pinned = Regex::new(r"\b[0-9A-F]{40}\b")?;
    let kustomization = object("kustomization.yaml")?;
    let list = |key: &str| {
        kustomization
            .get(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let scripts = list("configMapGenerator");
    let mut layers = Vec::new();
    for file in list("resources") {
        let object = object(file.as_str().context("a resource that is no file")?)?;
        let Some(config_map) = text(&object, "/spec/setup/scriptFrom/configMapKeyRef/name") else {
            continue;
        };
        let name = text(&object, "/metadata/name").context("an object without a name")?;
        let script = scripts
            .iter()
            .find(|generator| generator.get("name").and_then(Value::as_str) == Some(&config_map))
            .and_then(|generator| {
                text(generator, "/files/0")?
                    .split_once('=')
                    .map(|(_, file)| file.to_owned())
            })
            .with_context(|| format!("no file becomes the ConfigMap {config_map}"))?;
        let shipped = fs::read_to_string(folder().join(&script))
            .with_context(|| format!("reading {script}"))?;
        layers.push(Layer {
            vmid: object
                .pointer("/spec/vmid")
                .and_then(Value::as_u64)
                .and_then(|vmid| vmid.try_into().ok())
                .with_context(|| format!("{name} has no vmid"))?,
            parent: text(&object, "/spec/source/templateRef/name"),
            gpus: object.pointer("/spec/gpus").is_some(),
            script: pinned.replace_all(&shipped, fingerprint).into_owned(),
            shipped,
            verify: text(&object, "/spec/setup/verify"),
            name,
        });
    }
    Ok(layers)
}
