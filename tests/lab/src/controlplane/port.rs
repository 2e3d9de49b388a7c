//! The API server's port, chosen by the kernel and kept from everybody else.

use anyhow::{Context as _, Result};
use tokio::net::TcpSocket;

/// A port that stays ours from before the API server binds it until after it has ended: both bind with
/// `SO_REUSEPORT`, which the kernel allows to one user's sockets and to nobody else's.
#[derive(Debug)]
pub(super) struct ReservedPort {
    pub(super) number: u16,
    _socket: TcpSocket,
}

impl ReservedPort {
    pub(super) fn on_loopback() -> Result<Self> {
        let bound = || {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseport(true)?;
            socket.bind(([127, 0, 0, 1], 0).into())?;
            Ok::<_, std::io::Error>(Self {
                number: socket.local_addr()?.port(),
                _socket: socket,
            })
        };
        bound().context("reserving a port for the API server")
    }
}
