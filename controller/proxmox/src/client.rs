//! The client: what it is made of, and the three ways in which endpoints use it.

use crate::{
    Console, Error, ErrorKind, Trust, Upid, auth::Auth, call::Call, console, transport::Transport,
};
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use std::{fmt, sync::Arc, sync::atomic::AtomicBool, time::Duration};

/// Everything that a client needs to know.
#[derive(Clone)]
pub struct ClientConfig {
    /// `https://HOST:PORT`, one or several members of one cluster, asked in turn. Port 8006 where none is given.
    pub endpoints: Vec<String>,
    /// What vouches for the endpoints.
    pub trust: Trust,
    /// Who asks.
    pub credentials: Credentials,
    /// How long to wait, and how many calls at once.
    pub timeouts: Timeouts,
    /// Who is told of each call.
    pub observer: Option<Arc<dyn CallObserver>>,
}

/// An API token, and passwords for what a token may not do.
#[derive(Clone)]
pub struct Credentials {
    /// `USER@REALM!NAME`.
    pub token_id: String,
    /// The token's secret.
    pub token_secret: SecretString,
    /// The password of the token's own user, for the console of hosts that grant none to a token.
    pub password: Option<SecretString>,
    /// The password of root@pam, for configuration that Proxmox grants to nobody else.
    pub root_password: Option<SecretString>,
}

/// How long to wait, and how many calls at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For a whole call. More than the 30 s after which Proxmox's own proxy gives up.
    pub call: Duration,
    /// For how long an unused connection is kept. Proxmox closes one after 5 s, and one reused at that moment breaks.
    pub idle: Duration,
    /// Calls in flight to one endpoint: Proxmox has three workers a node.
    pub calls_per_endpoint: usize,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            call: Duration::from_secs(45),
            idle: Duration::from_secs(4),
            calls_per_endpoint: 4,
        }
    }
}

/// Is told of each call, for metrics.
pub trait CallObserver: Send + Sync {
    /// A call to an endpoint ended with this HTTP status, or 0 where no answer came.
    fn call(&self, endpoint_template: &'static str, method: &'static str, code: u16, seconds: f64);
}

/// A connection to one Proxmox VE host or cluster. Cheap to clone; clones share connections, limits and tickets.
#[derive(Clone)]
pub struct Client(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) transport: Transport,
    pub(crate) auth: Auth,
    /// Whether this host was seen to refuse its console to a token.
    pub(crate) console_by_login: AtomicBool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.0.transport.base(0))
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a client; nothing is sent yet. Fails with [`ErrorKind::Invalid`] where the configuration cannot be used.
    pub fn new(config: ClientConfig) -> Result<Self, Error> {
        let ClientConfig {
            endpoints,
            trust,
            credentials,
            timeouts,
            observer,
        } = config;
        let transport = Transport::new(&endpoints, trust.tls()?, timeouts, observer)?;
        let auth = Auth::new(credentials)?;
        Ok(Self(Arc::new(Inner {
            transport,
            auth,
            console_by_login: AtomicBool::new(false),
        })))
    }

    /// Whether a root password was given.
    pub fn has_root(&self) -> bool {
        self.0.auth.has_root()
    }

    /// Opens the container's console. What runs in it, and who else sees it, is the container's `cmode` and Proxmox's to
    /// say.
    pub async fn ct_console(&self, node: &str, vmid: u32) -> Result<Console, Error> {
        console::open(&self.0, node, vmid).await
    }

    /// Sends a call and reads what it yields.
    pub(crate) async fn fetch<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        let answer = self.0.auth.send(&self.0.transport, &call).await?;
        serde_json::from_value(answer.data).map_err(|e| unreadable(&call, &e))
    }

    /// Sends a call that starts a task.
    pub(crate) async fn submit(&self, call: Call) -> Result<Upid, Error> {
        let answer = self.0.auth.send(&self.0.transport, &call).await?;
        let text = answer.data.as_str().unwrap_or_default();
        // The task was started all the same.
        text.parse().map_err(|e| {
            answered(call.fail(ErrorKind::Unknown, format!("the answer names no task: {e}")))
        })
    }

    /// Sends a call that yields nothing.
    pub(crate) async fn execute(&self, call: Call) -> Result<(), Error> {
        self.0.auth.send(&self.0.transport, &call).await.map(|_| ())
    }
}

pub(crate) fn unreadable(call: &Call, error: &serde_json::Error) -> Error {
    answered(call.fail(
        ErrorKind::Other,
        format!("the answer cannot be read: {error}"),
    ))
}

fn answered(mut error: Error) -> Error {
    error.status = Some(200);
    error
}
