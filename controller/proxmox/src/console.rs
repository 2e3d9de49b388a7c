//! The console of a container: Proxmox's termproxy behind a websocket, as a stream of terminal bytes.
//!
//! Opening one takes three steps, all on one endpoint since the ticket is good only there: a termproxy is started, the
//! websocket is joined to it, and the first message names user and ticket. What the terminal shows is not looked at here,
//! and what is typed is not made up here.

use crate::{
    Error, ErrorKind,
    call::{As, Call},
    client::{Inner, unreadable},
    endpoints::container::path,
    envelope::chain,
    transport::Socket,
    wire,
};
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use std::{sync::atomic::Ordering, time::Duration};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::{self, Message};

const TERMPROXY: &str = "/nodes/{node}/lxc/{vmid}/termproxy";
const WEBSOCKET: &str = "/nodes/{node}/lxc/{vmid}/vncwebsocket";
/// termproxy waits ten seconds for its client and ten for the first message.
const OPENING: Duration = Duration::from_secs(20);
const KEEPALIVE: Duration = Duration::from_secs(20);
/// So many pings without a word in return, and the other side is taken for dead.
const PATIENCE: u32 = 3;
/// termproxy's own ping.
const PING: &[u8] = b"2";
/// Proxmox drops a connection over a frame of more than 128 KiB.
const INPUT_CHUNK: usize = 32 * 1024;

/// An open console. Dropping it closes the connection; what runs in the container's session goes on.
pub struct Console {
    socket: Socket,
    /// What came with the `OK`.
    early: Vec<u8>,
    keepalive: Interval,
    /// Pings since something was heard.
    unanswered: u32,
    ended: bool,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Proxy {
    #[serde(deserialize_with = "wire::text_or_empty")]
    port: String,
    #[serde(deserialize_with = "wire::text_or_empty")]
    ticket: String,
    #[serde(deserialize_with = "wire::text_or_empty")]
    user: String,
}

/// How an attempt to open ended.
enum Opening {
    Open(Box<Console>),
    /// The connection ended before the ticket was accepted.
    NotAccepted,
}

pub(crate) async fn open(client: &Inner, node: &str, vmid: u32) -> Result<Console, Error> {
    if !client.console_by_login.load(Ordering::Relaxed) {
        if let Opening::Open(console) = open_as(client, node, vmid, As::Token).await? {
            return Ok(*console);
        }
        if !client.auth.has_owner() {
            let message = "Proxmox closed the console before it accepted the API token's ticket; hosts before pve-container 6.1.3 \
                grant a console only to a login: the password of the token's own user is needed";
            return Err(Error::local(
                ErrorKind::Unauthorized,
                "GET",
                WEBSOCKET,
                message,
            ));
        }
    }
    match open_as(client, node, vmid, As::Owner).await? {
        Opening::Open(console) => {
            client.console_by_login.store(true, Ordering::Relaxed);
            Ok(*console)
        }
        Opening::NotAccepted => {
            client.console_by_login.store(false, Ordering::Relaxed);
            Err(Error::local(
                ErrorKind::Unauthorized,
                "GET",
                WEBSOCKET,
                "Proxmox closed the console before it accepted the ticket",
            ))
        }
    }
}

async fn open_as(client: &Inner, node: &str, vmid: u32, by: As) -> Result<Opening, Error> {
    let start = Call::post(TERMPROXY, path(node, vmid, "/termproxy")).by(by);
    let answer = client.auth.send(&client.transport, &start).await?;
    let proxy = Proxy::deserialize(answer.data).map_err(|e| unreadable(&start, &e))?;
    let join = Call::get(WEBSOCKET, path(node, vmid, "/vncwebsocket")).by(by);
    let join = join
        .query("port", proxy.port)
        .query("vncticket", proxy.ticket.as_str());
    let headers = client.auth.headers(&client.transport, &join).await?;
    // Boxed: the handshake's state is large, and every future that opens a console would be.
    let joining = Box::pin(client.transport.upgrade(answer.endpoint, &join, &headers));
    let opening = async {
        let mut socket = joining.await?;
        let first = format!("{}:{}\n", proxy.user, proxy.ticket);
        if socket
            .send(Message::binary(first.into_bytes()))
            .await
            .is_err()
        {
            return Ok(Opening::NotAccepted);
        }
        accepted(socket, &join).await
    };
    timeout(OPENING, opening)
        .await
        .unwrap_or_else(|_| Err(join.fail(ErrorKind::Busy, "the console did not open in time")))
}

/// Waits for the `OK`, which may come in pieces or with the terminal's first bytes.
async fn accepted(mut socket: Socket, join: &Call) -> Result<Opening, Error> {
    let mut seen = Vec::new();
    while seen.len() < 2 {
        match socket.next().await {
            Some(Ok(Message::Binary(bytes))) => seen.extend_from_slice(&bytes),
            Some(Ok(Message::Text(text))) => seen.extend_from_slice(text.as_bytes()),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(Opening::NotAccepted),
        }
    }
    if !seen.starts_with(b"OK") {
        return Err(join.fail(
            ErrorKind::Other,
            "the console began with something other than OK",
        ));
    }
    let early = seen.split_off(2);
    let mut keepalive = interval_at(Instant::now() + KEEPALIVE, KEEPALIVE);
    keepalive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Ok(Opening::Open(Box::new(Console {
        socket,
        early,
        keepalive,
        unanswered: 0,
        ended: false,
    })))
}

impl Console {
    /// Types these bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for chunk in bytes.chunks(INPUT_CHUNK) {
            let mut frame = format!("0:{}:", chunk.len()).into_bytes();
            frame.extend_from_slice(chunk);
            self.write(Message::binary(frame)).await?;
        }
        Ok(())
    }

    /// Tells the terminal's size.
    pub async fn resize(&mut self, cols: u16, rows: u16) -> Result<(), Error> {
        self.write(Message::binary(format!("1:{cols}:{rows}:").into_bytes()))
            .await
    }

    /// Tells termproxy that somebody is there. The connection itself is kept alive by [`Console::recv`].
    pub async fn ping(&mut self) -> Result<(), Error> {
        self.write(Message::binary(PING)).await
    }

    /// What the terminal shows next; `None` when the session or the connection ended. May be dropped and called again
    /// without loss.
    pub async fn recv(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if !self.early.is_empty() {
            return Ok(Some(std::mem::take(&mut self.early)));
        }
        while !self.ended {
            tokio::select! {
                biased;
                message = self.socket.next() => {
                    self.unanswered = 0;
                    match message {
                        Some(Ok(Message::Binary(bytes))) if !bytes.is_empty() => return Ok(Some(bytes.to_vec())),
                        Some(Ok(Message::Text(text))) if !text.is_empty() => return Ok(Some(text.as_bytes().to_vec())),
                        Some(Ok(Message::Close(_))) | None => self.ended = true,
                        Some(Ok(_)) => {}
                        Some(Err(error)) => self.end(&error)?,
                    }
                }
                _ = self.keepalive.tick() => {
                    if self.unanswered == PATIENCE {
                        self.ended = true;
                        return Err(lost("nothing was heard from it, not even an answer to a ping"));
                    }
                    self.unanswered += 1;
                    // pveproxy answers the one, termproxy counts the other as a sign of life.
                    for sign in [Message::Ping(tungstenite::Bytes::new()), Message::binary(PING)] {
                        if let Err(error) = self.socket.send(sign).await {
                            self.end(&error)?;
                            break;
                        }
                    }
                }
            }
        }
        Ok(None)
    }

    async fn write(&mut self, message: Message) -> Result<(), Error> {
        if self.ended {
            return Err(lost("it has ended"));
        }
        // What arrived before the connection broke can still be read.
        let sent = self.socket.send(message).await;
        sent.map_err(|error| lost(&chain(&error)))
    }

    /// Proxmox never closes a websocket: the end of a session is the end of the connection.
    fn end(&mut self, error: &tungstenite::Error) -> Result<(), Error> {
        use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        self.ended = true;
        match error {
            tungstenite::Error::ConnectionClosed
            | tungstenite::Error::AlreadyClosed
            | tungstenite::Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            ) => Ok(()),
            tungstenite::Error::Io(io)
                if matches!(
                    io.kind(),
                    UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe
                ) =>
            {
                Ok(())
            }
            other => Err(lost(&chain(other))),
        }
    }
}

fn lost(why: &str) -> Error {
    Error::local(
        ErrorKind::Unreachable,
        "GET",
        WEBSOCKET,
        format!("the console is gone: {why}"),
    )
}
