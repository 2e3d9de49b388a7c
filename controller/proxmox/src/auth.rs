//! Who asks: the API token, or a login ticket where Proxmox takes none from a token.
//!
//! Tickets are obtained when first needed, renewed before they end and once more when one is refused, by one caller at a
//! time. A refused login is remembered: Proxmox is not asked again before a pause that grows, so that a wrong password
//! doesn't lock an account.

use crate::{
    Credentials, Error, ErrorKind,
    call::{As, Call, escape},
    transport::{Answer, Transport},
    wire,
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::time::Duration;
use tokio::{sync::Mutex, time::Instant};

const CSRF: HeaderName = HeaderName::from_static("csrfpreventiontoken");
const ROOT: &str = "root@pam";
/// Proxmox's tickets live for two hours.
const RENEW_AFTER: Duration = Duration::from_mins(100);
/// The pause after the first refused login; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_mins(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(15);

pub(crate) struct Auth {
    token: HeaderMap,
    root: Option<Login>,
    owner: Option<Login>,
}

/// A user, its password and what came of it.
struct Login {
    user: String,
    password: SecretString,
    state: Mutex<LoginState>,
}

#[derive(Default)]
struct LoginState {
    ticket: Option<Ticket>,
    refusal: Option<Refusal>,
}

#[derive(Clone)]
struct Ticket {
    /// Tells one ticket from the one that replaces it.
    number: u64,
    obtained: Instant,
    read: HeaderMap,
    write: HeaderMap,
}

struct Refusal {
    error: Error,
    until: Instant,
    pause: Duration,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LoginAnswer {
    #[serde(deserialize_with = "wire::text_or_empty")]
    ticket: String,
    #[serde(
        rename = "CSRFPreventionToken",
        deserialize_with = "wire::text_or_empty"
    )]
    csrf: String,
    #[serde(rename = "NeedTFA", deserialize_with = "wire::flag")]
    need_tfa: bool,
}

impl Auth {
    pub(crate) fn new(credentials: Credentials) -> Result<Self, Error> {
        let unusable = |message: &str| Error::local(ErrorKind::Invalid, "", "", message);
        let Credentials {
            token_id,
            token_secret,
            password,
            root_password,
        } = credentials;
        let (user, name) = token_id
            .trim()
            .split_once('!')
            .ok_or_else(|| unusable("the token's id has to be USER@REALM!NAME"))?;
        if name.is_empty() || !user.contains('@') {
            return Err(unusable("the token's id has to be USER@REALM!NAME"));
        }
        let value = format!(
            "PVEAPIToken={user}!{name}={}",
            token_secret.expose_secret().trim()
        );
        let value = secret_value(&value).ok_or_else(|| {
            unusable("the token's id or secret holds characters that no header may hold")
        })?;
        let token = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
        // The password of the token's own user is root's where that user is root.
        let password = password.or_else(|| root_password.clone().filter(|_| user == ROOT));
        let login = |user: &str, password: SecretString| Login {
            user: user.to_owned(),
            password,
            state: Mutex::default(),
        };
        Ok(Self {
            token,
            root: root_password.map(|password| login(ROOT, password)),
            owner: password.map(|password| login(user, password)),
        })
    }

    pub(crate) fn has_root(&self) -> bool {
        self.root.is_some()
    }

    pub(crate) fn has_owner(&self) -> bool {
        self.owner.is_some()
    }

    /// Sends a call on behalf of whom it names.
    pub(crate) async fn send(&self, transport: &Transport, call: &Call) -> Result<Answer, Error> {
        let Some(login) = self.login_of(call)? else {
            return transport.send(call, &self.token).await;
        };
        let ticket = login.ticket(transport, None).await?;
        match transport.send(call, ticket.headers(call)).await {
            // A ticket can end before its time, when Proxmox changes its key or the host its clock. A refused call was not
            // carried out, so it may be sent again.
            Err(error) if error.status == Some(401) => {
                let ticket = login.ticket(transport, Some(ticket.number)).await?;
                transport.send(call, ticket.headers(call)).await
            }
            answer => answer,
        }
    }

    /// The headers for something that is no call of the transport: the console's websocket.
    pub(crate) async fn headers(
        &self,
        transport: &Transport,
        call: &Call,
    ) -> Result<HeaderMap, Error> {
        match self.login_of(call)? {
            None => Ok(self.token.clone()),
            Some(login) => Ok(login.ticket(transport, None).await?.headers(call).clone()),
        }
    }

    fn login_of(&self, call: &Call) -> Result<Option<&Login>, Error> {
        let (login, missing) = match call.by {
            As::Token => return Ok(None),
            As::Root => (
                &self.root,
                "only root@pam itself may do this, and no root password is given",
            ),
            As::Owner => (
                &self.owner,
                "this takes a login, and no password of the token's own user is given",
            ),
        };
        login
            .as_ref()
            .map(Some)
            .ok_or_else(|| call.fail(ErrorKind::Forbidden, missing))
    }
}

impl Login {
    /// A ticket that is good for a while, other than the one of the number given. Callers queue up here: the first one
    /// logs in, the others find what it got.
    async fn ticket(&self, transport: &Transport, refused: Option<u64>) -> Result<Ticket, Error> {
        let mut state = self.state.lock().await;
        let number = state.ticket.as_ref().map_or(0, |t| t.number);
        if let Some(ticket) = &state.ticket
            && ticket.obtained.elapsed() < RENEW_AFTER
            && refused != Some(ticket.number)
        {
            return Ok(ticket.clone());
        }
        if let Some(refusal) = &state.refusal
            && Instant::now() < refusal.until
        {
            return Err(refusal.error.clone());
        }
        state.ticket = None;
        match self.log_in(transport, number + 1).await {
            Ok(ticket) => {
                *state = LoginState {
                    ticket: Some(ticket.clone()),
                    refusal: None,
                };
                Ok(ticket)
            }
            Err(error) => {
                if matches!(
                    error.kind,
                    ErrorKind::Unauthorized | ErrorKind::TwoFactor | ErrorKind::Forbidden
                ) {
                    let pause = state
                        .refusal
                        .as_ref()
                        .map_or(FIRST_PAUSE, |r| (r.pause * 2).min(LONGEST_PAUSE));
                    tracing::warn!(user = self.user, pause_s = pause.as_secs(), error = %error, "Proxmox refused a login");
                    state.refusal = Some(Refusal {
                        error: error.clone(),
                        until: Instant::now() + pause,
                        pause,
                    });
                }
                Err(error)
            }
        }
    }

    async fn log_in(&self, transport: &Transport, number: u64) -> Result<Ticket, Error> {
        let mut call = Call::post("/access/ticket", "/access/ticket");
        call.form = vec![
            ("username".to_owned(), self.user.clone()),
            (
                "password".to_owned(),
                self.password.expose_secret().to_owned(),
            ),
        ];
        let obtained = Instant::now();
        let data = transport
            .send(&call, &HeaderMap::new())
            .await
            .map_err(|mut error| {
                if error.kind == ErrorKind::Unauthorized {
                    error.message =
                        format!("the login as {} was refused: {}", self.user, error.message);
                }
                // Nothing changes by a login: a lost answer leaves no doubt about any container.
                if error.kind == ErrorKind::Unknown {
                    error.kind = ErrorKind::Unreachable;
                }
                error
            })?;
        let answer = LoginAnswer::deserialize(data.data)
            .map_err(|_| call.fail(ErrorKind::Other, "the login's answer cannot be read"))?;
        if answer.need_tfa || answer.ticket.starts_with("PVE:!tfa!") {
            let message = format!(
                "the login as {} asks for a second factor, which an operator cannot give",
                self.user
            );
            return Err(call.fail(ErrorKind::TwoFactor, message));
        }
        let cookie = secret_value(&format!("PVEAuthCookie={}", escape(&answer.ticket)))
            .filter(|_| !answer.ticket.is_empty());
        let csrf = secret_value(&answer.csrf);
        let (Some(cookie), Some(csrf)) = (cookie, csrf) else {
            return Err(call.fail(ErrorKind::Other, "the login's answer holds no ticket"));
        };
        let read = HeaderMap::from_iter([(header::COOKIE, cookie)]);
        let mut write = read.clone();
        write.insert(CSRF, csrf);
        Ok(Ticket {
            number,
            obtained,
            read,
            write,
        })
    }
}

impl Ticket {
    fn headers(&self, call: &Call) -> &HeaderMap {
        if call.is_read() {
            &self.read
        } else {
            &self.write
        }
    }
}

/// A header's value that no `Debug` shows.
fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
