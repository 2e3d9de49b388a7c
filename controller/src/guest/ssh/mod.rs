//! SSH into a container: the same loop as on the console, on a channel without a terminal.
//!
//! What is decided here: that a container has one host key. The first that is presented is taken where none is recorded, and none but
//! the recorded one ever after. Whom to connect to, and with which key, is the caller's; what is said over the channel is `shell`'s.

mod dial;
mod key;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg, Disconnect, Preferred, client};

use super::error::GuestError;
use super::terminal::{Terminal, TerminalError};
use super::wire::OVER_SSH;

pub use key::{SshKey, SshKeyError};

/// From the first packet to a channel.
const OPENING: Duration = Duration::from_secs(20);
/// So long nothing may be heard before the other side is asked for a sign of life; three go unanswered at most.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// A container's SSH server, and what it and we prove who we are by.
#[derive(Debug, Clone)]
pub struct SshTarget {
    /// Where it is.
    pub address: SocketAddr,
    /// As whom to work there.
    pub user: &'static str,
    /// Our key pair.
    pub key: SshKey,
    /// The way to it: `socks5://…`, `http://…`, or directly.
    pub proxy: Option<String>,
    /// Fingerprint of its host key, where one is recorded.
    pub host_key: Option<String>,
}

impl SshTarget {
    /// The server of a container's own system: root, on port 22.
    pub fn of_container(
        address: IpAddr,
        key: SshKey,
        proxy: Option<String>,
        host_key: Option<String>,
    ) -> Self {
        Self {
            address: SocketAddr::new(address, 22),
            user: "root",
            key,
            proxy,
            host_key,
        }
    }

    fn unreached(&self, cause: impl std::fmt::Display) -> GuestError {
        GuestError::SshUnreached {
            address: self.address,
            cause: cause.to_string(),
        }
    }
}

/// A channel on which our loop runs. Dropping it closes the connection, which ends an idle loop; one that is at work ends after that.
pub struct SshLine {
    connection: client::Handle<Judge>,
    channel: Channel<client::Msg>,
    /// Fingerprint of the host key that was accepted.
    pub(super) host_key: String,
}

/// Connects and starts our loop, or has done nothing.
pub(super) async fn connect(target: &SshTarget) -> Result<SshLine, GuestError> {
    tokio::time::timeout(OPENING, open(target))
        .await
        .unwrap_or_else(|_| {
            Err(target.unreached(format!("no answer within {} s", OPENING.as_secs())))
        })
}

async fn open(target: &SshTarget) -> Result<SshLine, GuestError> {
    let stream = dial::dial(target.address, target.proxy.as_deref())
        .await
        .map_err(|cause| target.unreached(cause))?;
    let presented = Presented::default();
    let judge = Judge {
        recorded: target.host_key.clone(),
        presented: presented.clone(),
    };
    let connecting = client::connect_stream(Arc::new(config()), stream, judge).await;
    let host_key = presented.get().unwrap_or_default();
    let mut connection = match (connecting, &target.host_key) {
        (Ok(connection), _) => connection,
        (Err(russh::Error::UnknownKey), Some(recorded)) => {
            return Err(GuestError::HostKeyChanged {
                address: target.address,
                recorded: recorded.clone(),
                presented: host_key,
            });
        }
        (Err(error), _) => return Err(target.unreached(error)),
    };
    let key = PrivateKeyWithHashAlg::new(target.key.private(), None);
    let admitted = connection
        .authenticate_publickey(target.user, key)
        .await
        .map_err(|error| target.unreached(error))?;
    if !admitted.success() {
        return Err(GuestError::SshRefused {
            address: target.address,
            line: target.key.authorized_line().to_owned(),
        });
    }
    let channel = connection
        .channel_open_session()
        .await
        .map_err(|error| target.unreached(error))?;
    channel
        .exec(true, OVER_SSH)
        .await
        .map_err(|error| target.unreached(error))?;
    Ok(SshLine {
        connection,
        channel,
        host_key,
    })
}

/// One type of host key only, so that a container has one fingerprint. Every OpenSSH since 2014 and Dropbear since 2020 has it.
fn config() -> client::Config {
    client::Config {
        preferred: Preferred {
            key: vec![Algorithm::Ed25519].into(),
            ..Preferred::DEFAULT
        },
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: 3,
        nodelay: true,
        ..client::Config::default()
    }
}

/// The fingerprint that a server presented.
#[derive(Clone, Default)]
struct Presented(Arc<Mutex<Option<String>>>);

impl Presented {
    fn get(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, fingerprint: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(fingerprint);
    }
}

/// Accepts the one host key; whichever it is where none is recorded.
struct Judge {
    recorded: Option<String>,
    presented: Presented,
}

impl client::Handler for Judge {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        let fingerprint = key.public_key().fingerprint(HashAlg::Sha256).to_string();
        let accepted = self
            .recorded
            .as_ref()
            .is_none_or(|recorded| *recorded == fingerprint);
        self.presented.set(fingerprint);
        Ok(accepted)
    }
}

impl Terminal for SshLine {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), TerminalError> {
        let sent = self.channel.data_bytes(bytes.to_vec()).await;
        sent.map_err(|error| TerminalError(error.to_string()))
    }

    async fn resize(&mut self, _: u16, _: u16) -> Result<(), TerminalError> {
        Ok(())
    }

    async fn recv(&mut self) -> Result<Option<Vec<u8>>, TerminalError> {
        loop {
            match self.channel.wait().await {
                Some(ChannelMsg::Data { data }) => return Ok(Some(data.to_vec())),
                Some(ChannelMsg::Eof | ChannelMsg::Close) | None => return Ok(None),
                Some(ChannelMsg::Failure) => {
                    return Err(TerminalError("the server starts no command".to_owned()));
                }
                Some(_) => {}
            }
        }
    }
}

impl SshLine {
    /// Says good-bye; without it the server would log a reset.
    pub(super) async fn leave(&self) {
        let bye = self
            .connection
            .disconnect(Disconnect::ByApplication, "", "en");
        // a server that doesn't read any more is none to wait for
        let _ = tokio::time::timeout(Duration::from_secs(1), bye).await;
    }
}
