//! Who asks, and whether he may: tokens, tickets, the permission blocks of the schema.

pub(crate) mod access;
pub(crate) mod permission;
pub(crate) mod ticket;

use http::{HeaderMap, header};

use crate::{core::Core, model::now, reply::Failure, schema::percent_decode};
use access::Identity;

const NO_TICKET: &str = "No ticket";
const FAILED: &str = "Authentication failed!";

/// Finds out who asks. Tickets win over tokens; a changing call with a ticket needs the CSRF token as well.
pub(crate) fn identify(
    core: &Core,
    headers: &HeaderMap,
    method: &str,
) -> Result<Identity, Failure> {
    if let Some(ticket) = cookie(headers) {
        let user = core
            .keys
            .verify(&ticket)
            .filter(|user| enabled(core, user))
            .ok_or_else(|| Failure::unauthorized(FAILED))?;
        if method != "GET" {
            let token = headers
                .get("CSRFPreventionToken")
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            if !core.keys.verify_csrf(&user, token) {
                return Err(Failure::unauthorized(
                    "Permission denied - invalid csrf token",
                ));
            }
        }
        return Ok(Identity::user(&user));
    }
    let token =
        authorization(headers, "PVEAPIToken").ok_or_else(|| Failure::unauthorized(NO_TICKET))?;
    by_token(core, &token).ok_or_else(|| Failure::unauthorized(FAILED))
}

/// The ticket in the cookie, or in an Authorization header that reads like one.
fn cookie(headers: &HeaderMap) -> Option<String> {
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let found = cookies.flat_map(|text| text.split(';')).find_map(|part| {
        part.trim()
            .strip_prefix("PVEAuthCookie=")
            .map(percent_decode)
    });
    found.or_else(|| authorization(headers, "PVEAuthCookie"))
}

/// `KEY=VALUE` or `KEY VALUE`, up to a semicolon.
fn authorization(headers: &HeaderMap, key: &str) -> Option<String> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let rest = text.strip_prefix(key)?.strip_prefix(['=', ' '])?;
    Some(percent_decode(rest.split(';').next().unwrap_or_default()))
}

fn by_token(core: &Core, text: &str) -> Option<Identity> {
    let (id, secret) = text.split_once('=')?;
    let (user, token) = id.split_once('!')?;
    let state = core.state();
    let owner = state.access.users.get(user).filter(|owner| owner.enabled)?;
    let known = owner.tokens.iter().find(|known| known.id == token)?;
    let alive = known.expire == 0 || known.expire > now();
    (alive && known.secret == secret).then(|| Identity {
        user: user.to_owned(),
        token: Some(token.to_owned()),
    })
}

fn enabled(core: &Core, user: &str) -> bool {
    core.state()
        .access
        .users
        .get(user)
        .is_some_and(|known| known.enabled)
}
