//! The documented API, as data: which paths exist, which parameters they take, who may call them.
//!
//! `schema.json` is the published API description reduced to what can be checked (see [`reduce`]); `schema-extra.json` holds the few paths
//! an LXC client needs that the stored description lacks. Nothing here knows what a call does.

mod format;
pub mod reduce;
mod validate;

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;
use serde_json::Value;

pub(crate) use format::{MountSpec, parse_size, print_size};
pub(crate) use validate::validate;

/// The schema that this simulator serves.
pub(crate) static SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::load);

/// One method of one path.
#[derive(Debug, Deserialize)]
pub(crate) struct Method {
    #[serde(default)]
    pub(crate) allowtoken: bool,
    #[serde(default)]
    pub(crate) protected: bool,
    #[serde(default)]
    pub(crate) proxyto: Option<String>,
    #[serde(default)]
    pub(crate) permissions: Option<Permissions>,
    #[serde(default)]
    pub(crate) parameters: Parameters,
}

/// Who may call a method, before its code looks closer.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Permissions {
    #[serde(default)]
    pub(crate) user: Option<String>,
    #[serde(default)]
    pub(crate) check: Option<Value>,
}

/// The parameters of a method.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Parameters {
    #[serde(default)]
    pub(crate) properties: BTreeMap<String, Property>,
}

/// One parameter, or one key of a property string.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Property {
    #[serde(default, rename = "type")]
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) optional: bool,
    #[serde(default, rename = "enum")]
    pub(crate) choices: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) minimum: Option<f64>,
    #[serde(default)]
    pub(crate) maximum: Option<f64>,
    #[serde(default, rename = "minLength")]
    pub(crate) min_length: Option<usize>,
    #[serde(default, rename = "maxLength")]
    pub(crate) max_length: Option<usize>,
    #[serde(default)]
    pub(crate) pattern: Option<String>,
    #[serde(default)]
    pub(crate) format: Option<Format>,
    #[serde(default)]
    pub(crate) requires: Option<String>,
    #[serde(default)]
    pub(crate) default_key: bool,
}

/// A named format, or the keys of a property string.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Format {
    Name(String),
    Keys(BTreeMap<String, Property>),
}

/// A path of the API and its methods.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) template: String,
    segments: Vec<String>,
    methods: BTreeMap<String, Method>,
}

/// What a request's path led to.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) template: &'a str,
    /// `GET`.
    pub(crate) name: &'a str,
    pub(crate) method: &'a Method,
    pub(crate) uri: BTreeMap<String, String>,
}

/// All routes.
#[derive(Debug)]
pub(crate) struct Schema {
    routes: Vec<Route>,
}

impl Schema {
    #[expect(
        clippy::expect_used,
        reason = "both files are compiled in, and a test reads them"
    )]
    fn load() -> Self {
        let mut routes = Vec::new();
        for text in [
            include_str!("../../schema.json"),
            include_str!("../../schema-extra.json"),
        ] {
            let paths: BTreeMap<String, BTreeMap<String, Method>> =
                serde_json::from_str(text).expect("the committed schema is well-formed");
            for (template, methods) in paths {
                let segments = template.split('/').skip(1).map(str::to_owned).collect();
                routes.push(Route {
                    template,
                    segments,
                    methods,
                });
            }
        }
        Self { routes }
    }

    /// Finds the method behind a path (without `/api2/json`, percent-encoding still in place).
    pub(crate) fn find(&self, method: &str, path: &str) -> Option<Found<'_>> {
        let wanted: Vec<String> = path
            .trim_matches('/')
            .split('/')
            .map(percent_decode)
            .collect();
        self.routes
            .iter()
            .filter(|route| route.segments.len() == wanted.len())
            .find_map(|route| {
                let mut uri = BTreeMap::new();
                for (segment, value) in route.segments.iter().zip(&wanted) {
                    if let Some(name) = segment
                        .strip_prefix('{')
                        .and_then(|rest| rest.strip_suffix('}'))
                    {
                        uri.insert(name.to_owned(), value.clone());
                    } else if segment != value {
                        return None;
                    }
                }
                let (name, method) = route.methods.get_key_value(method)?;
                Some(Found {
                    template: &route.template,
                    name,
                    method,
                    uri,
                })
            })
    }

    /// The keys of a container's configuration, with their types.
    #[expect(
        clippy::expect_used,
        reason = "the committed schema has this path; a test looks it up"
    )]
    pub(crate) fn container_keys(&self) -> &BTreeMap<String, Property> {
        let found = self
            .find("PUT", "/nodes/n/lxc/100/config")
            .expect("PUT config is in the schema");
        &found.method.parameters.properties
    }

    /// All path templates with their methods.
    #[cfg(test)]
    pub(crate) fn templates(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = &str>)> {
        self.routes.iter().map(|route| {
            (
                route.template.as_str(),
                route.methods.keys().map(String::as_str),
            )
        })
    }
}

/// The property behind a key, where `net3` is found under `net[n]`.
pub(crate) fn lookup<'a>(
    properties: &'a BTreeMap<String, Property>,
    key: &str,
) -> Option<&'a Property> {
    if let Some(property) = properties.get(key) {
        return (!key.ends_with("[n]")).then_some(property);
    }
    let stem = key.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &key[stem.len()..];
    let number: u32 = digits.parse().ok()?;
    let limit = if stem == "net" { 32 } else { 256 };
    if number >= limit || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    properties.get(&format!("{stem}[n]"))
}

/// Decodes `%41`, leaving what is no escape as it stands (as Proxmox does).
pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if let Some(byte) = escaped(&bytes[at..]) {
            out.push(byte);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The byte behind an escape at the beginning.
fn escaped(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else {
        return None;
    };
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    Some(digit(*high)? << 4 | digit(*low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_methods() {
        let found = SCHEMA
            .find("GET", "/nodes/pve/tasks/UPID%3Apve%3A1%3A/status")
            .unwrap();
        assert_eq!(found.template, "/nodes/{node}/tasks/{upid}/status");
        assert_eq!(found.uri["upid"], "UPID:pve:1:");
        assert!(SCHEMA.find("PUT", "/version").is_none());
        assert!(SCHEMA.find("GET", "/nosuch").is_none());
        assert!(SCHEMA.find("GET", "/nodes/pve/network").is_some());
        assert!(SCHEMA.templates().count() > 60);
    }

    #[test]
    fn numbered_keys_have_limits() {
        let keys = SCHEMA.container_keys();
        assert!(lookup(keys, "net31").is_some());
        assert!(lookup(keys, "net32").is_none());
        assert!(lookup(keys, "dev255").is_some());
        assert!(lookup(keys, "dev256").is_none());
        assert!(lookup(keys, "net[n]").is_none());
        assert!(lookup(keys, "dev01").is_none());
    }

    #[test]
    fn broken_escapes_stay() {
        assert_eq!(percent_decode("99%zz"), "99%zz");
        assert_eq!(percent_decode("a%2Fb%3a%"), "a/b:%");
    }
}
