//! Logins and what one may do.

use serde_json::{Map, Value, json};

use super::Call;
use crate::{
    auth::access::Identity,
    reply::{Failure, Outcome, Reply},
};

/// The groups of privileges that a login tells of, with the path that each is looked up on.
const CAPABILITIES: [(&str, &str, &[&str]); 7] = [
    ("vms", "/vms", &["VM.", "Permissions.Modify"]),
    ("storage", "/storage", &["Datastore.", "Permissions.Modify"]),
    ("nodes", "/nodes", &["Sys.", "Permissions.Modify"]),
    ("dc", "/", &["Sys.Audit", "Sys.Modify", "SDN."]),
    (
        "access",
        "/access",
        &["User.Modify", "Group.Allocate", "Permissions.Modify"],
    ),
    ("sdn", "/sdn", &["SDN.", "Permissions.Modify"]),
    ("mapping", "/mapping", &["Mapping.", "Permissions.Modify"]),
];

pub(super) fn root() -> Outcome {
    let names = ["version", "cluster", "nodes", "storage", "access", "pools"];
    Ok(Reply::data(
        names.iter().map(|name| json!({"subdir": name})).collect(),
    ))
}

pub(super) fn domains() -> Outcome {
    Ok(Reply::data(json!([
        {"realm": "pam", "type": "pam", "comment": "Linux PAM standard authentication"},
        {"realm": "pve", "type": "pve", "comment": "Proxmox VE authentication server"}
    ])))
}

/// A ticket for a password, or a fresh one for one that still lives.
pub(super) fn login(call: &Call) -> Outcome {
    let name = call.text("username");
    let user = match call.given("realm") {
        Some(realm) if !name.contains('@') => format!("{name}@{realm}"),
        _ => name.to_owned(),
    };
    let password = call.text("password");
    let core = &call.core;
    let (known, second_factor) = {
        let state = core.state();
        let account = state
            .access
            .users
            .get(&user)
            .filter(|account| account.enabled);
        (
            account.is_some_and(|account| account.password.as_deref() == Some(password)),
            state.access.second_factor.contains(&user),
        )
    };
    let renewed = core.keys.verify(password).as_deref() == Some(user.as_str());
    if !known && !renewed {
        return Err(Failure::json(401, "authentication failure"));
    }
    if second_factor && !renewed {
        let challenge =
            format!("PVE:!tfa!%7B%22totp%22%3Atrue%2C%22recovery%22%3A%22unavailable%22%7D:{user}");
        return Ok(Reply::data(
            json!({"username": user, "ticket": challenge, "NeedTFA": 1}),
        ));
    }
    let who = Identity::user(&user);
    let mut capabilities = Map::new();
    for (group, path, wanted) in CAPABILITIES {
        let rights = core.state().access.rights(&who, path);
        let held = rights
            .into_keys()
            .filter(|privilege| wanted.iter().any(|start| privilege.starts_with(start)));
        capabilities.insert(
            group.to_owned(),
            Value::Object(held.map(|privilege| (privilege, json!(1))).collect()),
        );
    }
    Ok(Reply::data(
        json!({"username": user, "ticket": core.keys.issue(&user), "CSRFPreventionToken": core.keys.csrf(&user), "cap": capabilities}),
    ))
}

pub(super) fn permissions(call: &Call) -> Outcome {
    let who = match call.given("userid") {
        None => call.who.clone(),
        Some(id) => {
            let asked = match id.split_once('!') {
                Some((user, token)) => Identity {
                    user: user.to_owned(),
                    token: Some(token.to_owned()),
                },
                None => Identity::user(id),
            };
            if asked != call.who && !(call.who.token.is_none() && asked.user == call.who.user) {
                call.demand("/access", "Sys.Audit")?;
            }
            asked
        }
    };
    let state = call.core.state();
    let paths: Vec<String> = match call.given("path") {
        Some(path) => vec![path.to_owned()],
        None => state.access.known_paths().into_iter().collect(),
    };
    let mut all = Map::new();
    for path in paths {
        let rights = state.access.rights(&who, &path);
        if !rights.is_empty() {
            all.insert(
                path,
                Value::Object(
                    rights
                        .into_iter()
                        .map(|(privilege, inherited)| (privilege, json!(u8::from(inherited))))
                        .collect(),
                ),
            );
        }
    }
    Ok(Reply::data(Value::Object(all)))
}

/// Oneself, or all where one may see them.
pub(super) fn users(call: &Call) -> Outcome {
    let state = call.core.state();
    let all = state
        .access
        .may_any(&call.who, "/access/groups", &["User.Modify", "Sys.Audit"]);
    let shown = state
        .access
        .users
        .values()
        .filter(|user| all || user.id == call.who.user);
    let row = |user: &crate::config::UserShape| {
        let realm = user.id.rsplit('@').next().unwrap_or_default();
        json!({"userid": user.id, "enable": u8::from(user.enabled), "expire": 0, "realm-type": realm})
    };
    Ok(Reply::data(shown.map(row).collect()))
}
