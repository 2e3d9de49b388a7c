//! The carrier of a shell session: bytes in, bytes out, a window size.
//!
//! The shell logic knows no more of its transport than this. In production it is Proxmox's console; the tests drive real
//! shells on a local pty through the same trait.

use std::future::Future;

/// Why a terminal could not carry bytes any more.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TerminalError(pub String);

/// A byte stream to and from a terminal that others may share.
pub trait Terminal: Send {
    /// Types these bytes.
    fn send(&mut self, bytes: &[u8]) -> impl Future<Output = Result<(), TerminalError>> + Send;
    /// Changes the window's size, which the programs behind it notice.
    fn resize(
        &mut self,
        cols: u16,
        rows: u16,
    ) -> impl Future<Output = Result<(), TerminalError>> + Send;
    /// The next bytes that arrive; `None` when the session has ended. Dropping the future before it is ready loses nothing.
    fn recv(&mut self) -> impl Future<Output = Result<Option<Vec<u8>>, TerminalError>> + Send;
}

impl Terminal for proxmox_client::Console {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), TerminalError> {
        Self::send(self, bytes)
            .await
            .map_err(|error| TerminalError(error.to_string()))
    }

    async fn resize(&mut self, cols: u16, rows: u16) -> Result<(), TerminalError> {
        Self::resize(self, cols, rows)
            .await
            .map_err(|error| TerminalError(error.to_string()))
    }

    async fn recv(&mut self) -> Result<Option<Vec<u8>>, TerminalError> {
        Self::recv(self)
            .await
            .map_err(|error| TerminalError(error.to_string()))
    }
}
