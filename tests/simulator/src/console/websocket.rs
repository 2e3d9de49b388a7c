//! A console's client on its WebSocket.

use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use super::frames::Frames;
use crate::{
    api::Call,
    guests::ConsoleSession,
    http::response::{Answer, respond},
    reply::Failure,
};

const CHUNK: usize = 4096;

/// A client that has come.
pub(crate) struct Client {
    socket: WebSocketStream<TokioIo<Upgraded>>,
    /// What came with the first line, behind it.
    rest: Vec<u8>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// Lets a client in: nothing is answered where it offers no subprotocol, as a real Proxmox VE does.
pub(crate) fn accept(
    call: &Call,
    headers: &HeaderMap,
    upgrade: OnUpgrade,
) -> Result<Option<Answer>, Failure> {
    let port = call.text("port").parse::<u16>().unwrap_or(0);
    if !call.core.keys.verify_console(
        call.text("vncticket"),
        &call.who.id(),
        &format!("/vms/{}", call.vmid()),
        port,
    ) {
        return Err(Failure::json(
            401,
            "permission denied - invalid PVEVNC ticket",
        ));
    }
    let (Some(key), Some(protocol)) = (
        headers.get(header::SEC_WEBSOCKET_KEY),
        headers.get(header::SEC_WEBSOCKET_PROTOCOL),
    ) else {
        return Ok(None);
    };
    let mut answer = respond(101, "Switching Protocols", None, None);
    let out = answer.headers_mut();
    out.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    out.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        out.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    out.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol.clone());
    let waiting = call.core.consoles.take(port);
    let running = call.core.running.clone();
    running.spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        // Where no proxy waits any more the connection just ends.
        if let Some(waiting) = waiting {
            let _ = waiting.send(Client {
                socket,
                rest: Vec::new(),
            });
        }
    });
    Ok(Some(answer))
}

impl Client {
    async fn bytes(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.socket.next().await?.ok()? {
                Message::Binary(bytes) => return Some(bytes.to_vec()),
                Message::Text(text) => return Some(text.as_bytes().to_vec()),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// The first line, however it is cut.
    pub(crate) async fn first_line(&mut self) -> Option<String> {
        let mut seen = Vec::new();
        loop {
            if let Some(end) = seen.iter().position(|byte| *byte == b'\n') {
                self.rest = seen.split_off(end + 1);
                seen.pop();
                return String::from_utf8(seen).ok();
            }
            if seen.len() > CHUNK {
                return None;
            }
            seen.extend(self.bytes().await?);
        }
    }

    pub(crate) async fn send(&mut self, bytes: Vec<u8>) -> Result<(), ()> {
        self.socket
            .send(Message::Binary(bytes.into()))
            .await
            .map_err(|_| ())
    }

    /// Carries bytes between the client and a session until one of them ends.
    pub(crate) async fn carry(mut self, session: ConsoleSession) {
        let ConsoleSession { input, mut output } = session;
        let mut frames = Frames::default();
        let first = std::mem::take(&mut self.rest);
        // What is typed at a program that has ended is lost; what it said last is not.
        for typed in frames.take(&first) {
            input.send(typed).await.ok();
        }
        loop {
            tokio::select! {
                printed = output.recv() => {
                    let Some(printed) = printed else { return };
                    for chunk in printed.chunks(CHUNK) {
                        if self.send(chunk.to_vec()).await.is_err() {
                            return;
                        }
                    }
                }
                sent = self.bytes() => {
                    let Some(sent) = sent else { return };
                    for typed in frames.take(&sent) {
                        input.send(typed).await.ok();
                    }
                }
            }
        }
    }
}
