//! The permission blocks of the schema, evaluated before anything else is looked at.

use std::collections::BTreeMap;

use serde_json::Value;

use super::access::{Access, Identity};
use crate::{reply::Failure, schema::Permissions};

/// Whether an identity may call a method at all.
pub(crate) fn check(
    block: Option<&Permissions>,
    access: &Access,
    who: &Identity,
    params: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    if who.is_root() {
        return Ok(());
    }
    let Some(block) = block else {
        return Err(Failure::forbidden("user != root@pam"));
    };
    if matches!(block.user.as_deref(), Some("all" | "world")) {
        return Ok(());
    }
    match &block.check {
        Some(rule) => evaluate(rule, access, who, params),
        None => Err(Failure::forbidden("user != root@pam")),
    }
}

fn evaluate(
    rule: &Value,
    access: &Access,
    who: &Identity,
    params: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let parts = rule.as_array().map(Vec::as_slice).unwrap_or_default();
    match parts.first().and_then(Value::as_str) {
        Some("and") => parts[1..]
            .iter()
            .try_for_each(|part| evaluate(part, access, who, params)),
        Some("or")
            if parts[1..]
                .iter()
                .any(|part| evaluate(part, access, who, params).is_ok()) =>
        {
            Ok(())
        }
        Some("perm") => perm(&parts[1..], access, who, params),
        Some("userid-param") if params.get("userid") == Some(&who.user) => Ok(()),
        Some("userid-group") if access.may(who, "/access/groups", "User.Modify") => Ok(()),
        Some("perm-modify")
            if access.may(
                who,
                params.get("path").map_or("/", String::as_str),
                "Permissions.Modify",
            ) =>
        {
            Ok(())
        }
        _ => Err(Failure::forbidden("")),
    }
}

fn perm(
    parts: &[Value],
    access: &Access,
    who: &Identity,
    params: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let [template, privileges, options @ ..] = parts else {
        return Err(Failure::forbidden(""));
    };
    let option = |name: &str| {
        options
            .chunks(2)
            .find(|pair| pair[0].as_str() == Some(name))
            .and_then(|pair| pair.get(1))
    };
    if option("require_param")
        .and_then(Value::as_str)
        .is_some_and(|param| !params.contains_key(param))
    {
        return Err(Failure::forbidden(""));
    }
    let path = fill(template.as_str().unwrap_or("/"), params);
    let wanted: Vec<&str> = privileges
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if option("any").is_some() {
        return if access.may_any(who, &path, &wanted) {
            Ok(())
        } else {
            Err(Failure::forbidden(&format!("{path}, {}", wanted.join("|"))))
        };
    }
    match wanted
        .iter()
        .find(|privilege| !access.may(who, &path, privilege))
    {
        Some(missing) => Err(Failure::forbidden(&format!("{path}, {missing}"))),
        None => Ok(()),
    }
}

fn fill(template: &str, params: &BTreeMap<String, String>) -> String {
    params
        .iter()
        .fold(template.to_owned(), |text, (key, value)| {
            text.replace(&format!("{{{key}}}"), value)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::HostShape, schema::SCHEMA};

    fn told(method: &str, path: &str, params: &[(&str, &str)], who: &str) -> String {
        let mut access = Access::new(&HostShape::phoenix());
        access.users.insert(
            "no@pve".into(),
            crate::config::UserShape {
                id: "no@pve".into(),
                password: None,
                enabled: true,
                tokens: Vec::new(),
            },
        );
        let found = SCHEMA.find(method, path).unwrap();
        let mut all = found.uri.clone();
        all.extend(
            params
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned())),
        );
        let who = match who.split_once('!') {
            Some((user, token)) => Identity {
                user: user.into(),
                token: Some(token.into()),
            },
            None => Identity::user(who),
        };
        check(found.method.permissions.as_ref(), &access, &who, &all)
            .map_or_else(|failure| failure.text, |()| "OK".to_owned())
    }

    #[test]
    fn refusals_read_as_recorded() {
        let operator = "phoenix@pve!operator";
        for (method, path, params, who, text) in [
            (
                "GET",
                "/nodes/pve/status",
                &[][..],
                "no@pve",
                "Permission check failed (/nodes/pve, Sys.Audit)",
            ),
            (
                "GET",
                "/nodes/pve/lxc/999/config",
                &[],
                "no@pve",
                "Permission check failed (/vms/999, VM.Audit)",
            ),
            (
                "DELETE",
                "/nodes/pve/lxc/999",
                &[],
                "no@pve",
                "Permission check failed (/vms/999, VM.Allocate)",
            ),
            (
                "POST",
                "/nodes/pve/lxc/200/clone",
                &[("newid", "201")],
                "no@pve",
                "Permission check failed (/vms/200, VM.Clone)",
            ),
            (
                "GET",
                "/nodes/pve/storage/lxc-disks/content",
                &[],
                "no@pve",
                "Permission check failed (/storage/lxc-disks, Datastore.Audit|Datastore.AllocateSpace)",
            ),
            (
                "GET",
                "/nodes/pve/hardware/pci",
                &[],
                "no@pve",
                "Permission check failed (/, Sys.Audit|Sys.Modify)",
            ),
            (
                "POST",
                "/nodes/pve/lxc/200/clone",
                &[("newid", "201")],
                operator,
                "OK",
            ),
            ("GET", "/version", &[], "no@pve", "OK"),
            ("GET", "/nodes/pve/status", &[], "root@pam", "OK"),
        ] {
            assert_eq!(
                told(method, path, params, who),
                text,
                "{method} {path} by {who}"
            );
        }
    }
}
