//! The network between the operator and Proxmox, in the test's hand: an address that nobody answers at, then one that leads there, then
//! one whose connections break.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpSocket, TcpStream},
    sync::Notify,
};

/// An address on the way to a simulator. The port is ours from the beginning, so that nobody else can answer there meanwhile.
pub(crate) struct Link {
    address: SocketAddr,
    socket: Option<TcpSocket>,
    cut: Arc<AtomicBool>,
    snap: Arc<Notify>,
}

impl Link {
    /// Nobody listens there: the kernel refuses connections.
    pub(crate) fn refusing() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let address = socket.local_addr().expect("its address");
        Self {
            address,
            socket: Some(socket),
            cut: Arc::default(),
            snap: Arc::default(),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// From now on connections lead to that port.
    pub(crate) fn lead_to(&mut self, port: u16) {
        let listener = self
            .socket
            .take()
            .expect("not leading anywhere yet")
            .listen(64)
            .expect("a listening socket");
        let (cut, snap) = (Arc::clone(&self.cut), Arc::clone(&self.snap));
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                if cut.load(Ordering::Relaxed) {
                    continue;
                }
                let snap = Arc::clone(&snap);
                tokio::spawn(async move {
                    let snapped = snap.notified();
                    let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        () = snapped => {}
                    }
                });
            }
        });
    }

    /// Open connections end, and new ones are closed at once.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
        self.snap.notify_waiters();
    }

    /// Connections lead there again.
    pub(crate) fn mend(&self) {
        self.cut.store(false, Ordering::Relaxed);
    }
}
