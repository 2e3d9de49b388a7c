//! `sshd` as a guest's unit runs it: on port 22 with the guest's own host key, root by a key of the guest's `authorized_keys`, commands in the
//! guest's own shell.
//!
//! The protocol is a library's. As with OpenSSH, a command without a terminal is not ended with its connection: it loses its input and goes on.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey, ssh_key::LineEnding};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelMsg};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::boot::Guest;
use super::calls::Call;
use super::confine::{self, PATH};

const PORT: u16 = 22;
const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key";
const AUTHORIZED: &str = "/root/.ssh/authorized_keys";

/// A new host key: the private file, the public file, and the fingerprint.
pub(crate) struct HostKey {
    pub(crate) private: String,
    pub(crate) public: String,
    pub(crate) fingerprint: String,
}

impl HostKey {
    /// Ed25519; the name ends the public file's line.
    pub(crate) fn make(name: &str) -> Result<Self> {
        let mut random = russh::keys::key::safe_rng();
        let mut key = PrivateKey::random(&mut random, Algorithm::Ed25519)?;
        key.set_comment(name);
        Ok(Self {
            private: key.to_openssh(LineEnding::LF)?.to_string(),
            public: format!("{}\n", key.public_key().to_openssh()?),
            fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
        })
    }
}

/// `sshd -D`; ends with its unit.
pub(super) async fn run(guest: &Arc<Guest>, call: &Call) -> i32 {
    let keys = guest.files.read(HOST_KEY);
    let Some(key) = keys.and_then(|text| PrivateKey::from_openssh(text).ok()) else {
        call.reply
            .err("sshd: no hostkeys available -- exiting.\n")
            .await;
        return 1;
    };
    let config = Arc::new(server::Config {
        keys: vec![key],
        auth_rejection_time: Duration::ZERO,
        inactivity_timeout: None,
        ..server::Config::default()
    });
    let host = Arc::downgrade(guest);
    let service = Arc::new(move |stream: DuplexStream| {
        let (config, host) = (Arc::clone(&config), host.clone());
        tokio::spawn(async move {
            let Some(guest) = host.upgrade() else { return };
            // a client that goes away is none of a server's errors
            if let Ok(session) = server::run_stream(
                config,
                stream,
                Visitor {
                    guest,
                    channel: None,
                },
            )
            .await
            {
                session.await.ok();
            }
        });
    });
    // The one before is on its way out where a unit is restarted.
    for _ in 0..100 {
        if let Some(_listening) = guest.ports.listen(PORT, service.clone()) {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    call.reply
        .err("error: Bind to port 22 on 0.0.0.0 failed: Address already in use.\nfatal: Cannot bind any address.\n")
        .await;
    255
}

/// One connection.
struct Visitor {
    guest: Arc<Guest>,
    channel: Option<Channel<Msg>>,
}

impl server::Handler for Visitor {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        let known = self.guest.files.read(AUTHORIZED).unwrap_or_default();
        let is_known = known
            .lines()
            .filter_map(|line| PublicKey::from_openssh(line.trim()).ok())
            .any(|known| known.key_data() == key.public_key.key_data());
        Ok(if user == "root" && is_known {
            Auth::Accept
        } else {
            Auth::reject()
        })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channel = Some(channel);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some(channel) = self.channel.take() else {
            return session.channel_failure(id);
        };
        session.channel_success(id)?;
        let (init, command) = (
            self.guest.init,
            String::from_utf8_lossy(command).into_owned(),
        );
        tokio::spawn(async move {
            if let Err(error) = execute(init, &command, channel).await {
                tracing::warn!("a command over SSH could not be run: {error:#}");
            }
        });
        Ok(())
    }
}

/// Runs a command in the guest until it ends, whatever becomes of the connection.
async fn execute(init: u32, command: &str, channel: Channel<Msg>) -> Result<()> {
    let mut child = confine::enter(init)
        .kill_on_drop(false)
        .args(["HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/bash"])
        .arg(format!("PATH={PATH}"))
        .args(["/bin/bash", "-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("entering the guest")?;
    let (mut read, write) = channel.split();
    let mut stdin = child.stdin.take();
    let input = async {
        while let Some(message) = read.wait().await {
            match (message, &mut stdin) {
                (ChannelMsg::Data { data }, Some(to)) => {
                    // what a program doesn't read is lost
                    to.write_all(&data).await.ok();
                }
                (ChannelMsg::Eof | ChannelMsg::Close, _) => break,
                _ => {}
            }
        }
        stdin = None;
        std::future::pending::<()>().await;
    };
    let mut stdout = child.stdout.take().context("no output")?;
    let mut stderr = child.stderr.take().context("no error output")?;
    let output = async {
        let (mut out, mut err) = ([0; 4096], [0; 4096]);
        let (mut out_open, mut err_open) = (true, true);
        while out_open || err_open {
            tokio::select! {
                count = stdout.read(&mut out), if out_open => match count {
                    Ok(count @ 1..) => { write.data_bytes(out[..count].to_vec()).await.ok(); }
                    _ => out_open = false,
                },
                count = stderr.read(&mut err), if err_open => match count {
                    Ok(count @ 1..) => { write.extended_data_bytes(1, err[..count].to_vec()).await.ok(); }
                    _ => err_open = false,
                },
            }
        }
    };
    tokio::select! {
        () = input => {}
        () = output => {}
    }
    let status = child.wait().await?;
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    write
        .exit_status(code.unwrap_or(255).unsigned_abs())
        .await
        .ok();
    write.eof().await.ok();
    write.close().await.ok();
    Ok(())
}
