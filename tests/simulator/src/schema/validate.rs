//! Checks parameters against the schema, in the order and with the texts of a real Proxmox VE.

use std::{
    collections::BTreeMap,
    sync::{LazyLock, Mutex, PoisonError},
};

use regex::Regex;

use super::{Format, Property, format, lookup};
use crate::http::{RawParams, RawValue};

/// What is wrong, by parameter.
type Errors = BTreeMap<String, String>;

const MISSING: &str = "property is missing and it is not optional";
const UNKNOWN: &str =
    "property is not defined in schema and the schema does not allow additional properties";

/// Checks all parameters of a call.
pub(crate) fn validate(
    properties: &BTreeMap<String, Property>,
    params: &RawParams,
) -> BTreeMap<String, String> {
    let mut errors = Errors::new();
    for (key, value) in params {
        match lookup(properties, key) {
            None => add(&mut errors, key, UNKNOWN),
            Some(property) => {
                check(key, property, value, &mut errors);
                if let Some(required) = property
                    .requires
                    .as_deref()
                    .filter(|required| !params.contains_key(*required))
                {
                    add(
                        &mut errors,
                        required,
                        &format!("missing property required by '{key}'"),
                    );
                }
            }
        }
    }
    for (key, property) in properties {
        if !property.optional && !key.ends_with("[n]") && !params.contains_key(key) {
            add(&mut errors, key, MISSING);
        }
    }
    errors
}

fn add(errors: &mut Errors, key: &str, text: &str) {
    errors
        .entry(key.to_owned())
        .and_modify(|known| {
            known.push_str("\\n");
            known.push_str(text);
        })
        .or_insert_with(|| text.to_owned());
}

fn check(key: &str, property: &Property, value: &RawValue, errors: &mut Errors) {
    let kind = property.kind.as_deref().unwrap_or("string");
    let text = match value {
        RawValue::One(text) => text,
        RawValue::Many(_) if kind == "array" => return,
        // Repeated keys of a list are joined; of anything else they are a type error.
        RawValue::Many(items) => match &property.format {
            Some(Format::Name(name)) if name.ends_with("-list") => &items.join(","),
            _ => {
                return add(
                    errors,
                    key,
                    &format!("type check ('{kind}') failed - got ARRAY"),
                );
            }
        },
    };
    if let Some(problem) = problem(key, kind, property, text) {
        add(errors, key, &problem);
    }
}

fn problem(key: &str, kind: &str, property: &Property, text: &str) -> Option<String> {
    let fits = match kind {
        "integer" => is_integer(text),
        "number" => is_number(text),
        "boolean" => matches!(text, "0" | "1"),
        _ => true,
    };
    if !fits {
        return Some(format!("type check ('{kind}') failed - got '{text}'"));
    }
    let wrong_format = match &property.format {
        Some(Format::Name(name)) => format::check(name, text).err(),
        Some(Format::Keys(keys)) => property_string(key, keys, text).err(),
        None => None,
    };
    if let Some(wrong) = wrong_format {
        return Some(format!("invalid format - {wrong}"));
    }
    if property
        .pattern
        .as_deref()
        .is_some_and(|pattern| !matches(pattern, text))
    {
        return Some("value does not match the regex pattern".to_owned());
    }
    let length = text.chars().count();
    if let Some(longest) = property.max_length.filter(|longest| length > *longest) {
        return Some(format!("value may only be {longest} characters long"));
    }
    if let Some(shortest) = property.min_length.filter(|shortest| length < *shortest) {
        return Some(format!("value must be at least {shortest} characters long"));
    }
    if is_number(text)
        && let Ok(number) = text.parse::<f64>()
    {
        if let Some(most) = property.maximum.filter(|most| number > *most) {
            return Some(format!("value must have a maximum value of {most}"));
        }
        if let Some(least) = property.minimum.filter(|least| number < *least) {
            return Some(format!("value must have a minimum value of {least}"));
        }
    }
    let choices = property.choices.as_ref()?;
    (!choices.iter().any(|choice| choice == text)).then(|| {
        format!(
            "value '{text}' does not have a value in the enumeration '{}'",
            choices.join(", ")
        )
    })
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_number(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte))
        && text.parse::<f64>().is_ok()
}

/// Perl's patterns, as this regex engine takes them.
fn matches(pattern: &str, text: &str) -> bool {
    static KNOWN: LazyLock<Mutex<BTreeMap<String, Option<Regex>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let regex = known.entry(pattern.to_owned()).or_insert_with(|| {
        Regex::new(&format!(
            "^(?:{})$",
            pattern.replace("(?^:", "(?:").replace("\\0", "\\x00")
        ))
        .ok()
    });
    regex.as_ref().is_none_or(|regex| regex.is_match(text))
}

/// Reads a property string (`name=eth0,bridge=vmbr0`) and checks each key; the error is the text after `invalid format - `.
fn property_string(
    name: &str,
    keys: &BTreeMap<String, Property>,
    text: &str,
) -> Result<BTreeMap<String, String>, String> {
    let default_key = keys
        .iter()
        .find(|(_, property)| property.default_key)
        .map(|(key, _)| key.as_str());
    let mut values = BTreeMap::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (key, value) = match part.split_once('=') {
            Some(("", _) | (_, "")) => {
                return Err("missing key in comma-separated list property\n".to_owned());
            }
            Some((key, value)) => (key, value),
            None => match default_key {
                Some(key) => (key, part),
                None => {
                    return Err(
                        "value without key, but schema does not define a default key\n".to_owned(),
                    );
                }
            },
        };
        if values
            .insert(key.to_owned(), boolean(keys.get(key), value))
            .is_some()
        {
            return Err(format!(
                "duplicate key in comma-separated list property: {key}\n"
            ));
        }
    }
    let mut errors = Errors::new();
    for (key, value) in &values {
        match keys.get(key) {
            None => add(&mut errors, key, UNKNOWN),
            Some(property) => {
                if let Some(problem) = problem(
                    key,
                    property.kind.as_deref().unwrap_or("string"),
                    property,
                    value,
                ) {
                    add(&mut errors, key, &problem);
                }
            }
        }
    }
    for (key, property) in keys {
        if !property.optional && !values.contains_key(key) {
            add(&mut errors, key, MISSING);
        }
    }
    if errors.is_empty() {
        return Ok(values);
    }
    Err(errors
        .into_iter()
        .fold("format error\n".to_owned(), |text, (key, problem)| {
            format!("{text}{name}.{key}: {problem}\n")
        }))
}

/// Property strings take the words for yes and no too.
fn boolean(property: Option<&Property>, value: &str) -> String {
    let is_boolean = property.and_then(|property| property.kind.as_deref()) == Some("boolean");
    match value.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" if is_boolean => "1".to_owned(),
        "0" | "off" | "no" | "false" if is_boolean => "0".to_owned(),
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::SCHEMA;

    fn errors(method: &str, path: &str, params: &[(&str, &str)]) -> Vec<(String, String)> {
        let found = SCHEMA.find(method, path).unwrap();
        let mut raw: RawParams = params
            .iter()
            .map(|(key, value)| ((*key).to_owned(), RawValue::One((*value).to_owned())))
            .collect();
        raw.extend(
            found
                .uri
                .into_iter()
                .map(|(key, value)| (key, RawValue::One(value))),
        );
        validate(&found.method.parameters.properties, &raw)
            .into_iter()
            .collect()
    }

    #[test]
    fn several_wrong_parameters_are_told_at_once_as_recorded() {
        let told = errors(
            "POST",
            "/nodes/pve/lxc",
            &[
                ("vmid", "998"),
                ("ostemplate", "local:vztmpl/x"),
                ("memory", "3"),
                ("cores", "many"),
                ("hostname", "bad_name!"),
                ("rootfs", "xx"),
                ("net0", "foo=bar"),
                ("nosuch", "1"),
            ],
        );
        let expected = [
            ("cores", "type check ('integer') failed - got 'many'"),
            (
                "hostname",
                "invalid format - value does not look like a valid DNS name\n",
            ),
            ("memory", "value must have a minimum value of 16"),
            (
                "net0",
                "invalid format - format error\nnet0.foo: property is not defined in schema and the schema does not allow additional properties\nnet0.name: property is missing and it is not optional\n",
            ),
            (
                "nosuch",
                "property is not defined in schema and the schema does not allow additional properties",
            ),
        ];
        assert_eq!(
            told,
            expected.map(|(key, text)| (key.to_owned(), text.to_owned()))
        );
    }

    #[test]
    fn single_mistakes_answer_as_recorded() {
        for (method, path, key, value, expected) in [
            (
                "PUT",
                "/nodes/pve/lxc/100/config",
                "dev0",
                "/etc/passwd",
                "invalid format - format error\ndev0.path: invalid format - /etc/passwd is not a valid device path\n\n",
            ),
            (
                "PUT",
                "/nodes/pve/lxc/100/config",
                "dev0",
                "/dev/fuse,mode=999",
                "invalid format - format error\ndev0.mode: value does not match the regex pattern\n",
            ),
            (
                "PUT",
                "/nodes/pve/lxc/100/config",
                "mp0",
                "lxc-disks:1",
                "invalid format - format error\nmp0.mp: property is missing and it is not optional\n",
            ),
            (
                "PUT",
                "/nodes/pve/lxc/100/config",
                "cmode",
                "foo",
                "value 'foo' does not have a value in the enumeration 'shell, console, tty'",
            ),
            (
                "PUT",
                "/nodes/pve/lxc/100/config",
                "dev256",
                "/dev/null",
                UNKNOWN,
            ),
            (
                "PUT",
                "/nodes/pve/lxc/100/config",
                "lxc.apparmor.profile",
                "unconfined",
                UNKNOWN,
            ),
            (
                "POST",
                "/nodes/pve/lxc/100/snapshot",
                "snapname",
                "1 bad",
                "invalid format - invalid configuration ID '1 bad'\n",
            ),
            (
                "GET",
                "/cluster/resources",
                "type",
                "lxc",
                "value 'lxc' does not have a value in the enumeration 'vm, storage, node, sdn'",
            ),
            (
                "GET",
                "/cluster/nextid",
                "vmid",
                "5",
                "invalid format - value does not look like a valid VM ID\n",
            ),
        ] {
            let told = errors(method, path, &[(key, value)]);
            assert_eq!(
                told,
                [(key.to_owned(), expected.to_owned())],
                "{method} {path} {key}={value}"
            );
        }
        assert_eq!(
            errors(
                "POST",
                "/nodes/pve/lxc/100/snapshot",
                &[("snapname", &"a".repeat(41))]
            )[0]
            .1,
            "value may only be 40 characters long"
        );
        assert_eq!(
            errors(
                "PUT",
                "/nodes/pve/lxc/100/resize",
                &[("disk", "rootfs"), ("size", "big")]
            )[0]
            .1,
            "value does not match the regex pattern"
        );
    }

    #[test]
    fn what_is_right_passes() {
        assert_eq!(
            errors(
                "PUT",
                "/nodes/pve/lxc/100/config",
                &[
                    (
                        "net0",
                        "name=eth0,bridge=vmbr0,ip=10.0.0.200/24,gw=10.0.0.1"
                    ),
                    ("features", "nesting=1"),
                    ("dev0", "/dev/nvidia0,mode=0666"),
                    ("description", "a\nb")
                ]
            ),
            []
        );
    }
}
