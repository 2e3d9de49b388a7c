//! HTTP on the wire, by hand: the comparison needs the very status line, and to send what no client library would.

use std::{fmt::Write, sync::Arc, time::Duration};

use proxmox_simulator::Simulator;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Longer than anything that a host takes to answer or to hang up.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer as it came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    /// `HTTP/1.1`.
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) text: String,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        all.find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Reads a head and, where it says how long its body is, the body.
    pub(crate) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
        let mut first = lines.next()?.splitn(3, ' ');
        let mut answer = Self {
            version: first.next()?.to_owned(),
            status: first.next()?.parse().ok()?,
            reason: first.next().unwrap_or_default().to_owned(),
            ..Self::default()
        };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            answer
                .headers
                .push((name.to_owned(), value.trim().to_owned()));
        }
        let length = answer
            .header("content-length")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let body = bytes.get(end..end + length)?;
        answer.text = String::from_utf8_lossy(body).into_owned();
        answer.body = serde_json::from_str(&answer.text).unwrap_or(Value::Null);
        Some((answer, end + length))
    }
}

/// A connection to a simulator.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    /// What has come and isn't used yet.
    pending: Vec<u8>,
}

/// Where connections lead to.
#[derive(Clone)]
pub(crate) struct Wire {
    connector: TlsConnector,
    port: u16,
}

impl Wire {
    pub(crate) fn new(simulator: &Simulator) -> Self {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(simulator.ca_pem().as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            connector: TlsConnector::from(Arc::new(config)),
            port: simulator.port(),
        }
    }

    pub(crate) async fn plain(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    pub(crate) async fn open(&self) -> Connection {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = self.connector.connect(name, self.plain().await).await;
        Connection {
            stream: stream.unwrap(),
            pending: Vec::new(),
        }
    }
}

impl Connection {
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The next answer; none where the other side hangs up without one.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        loop {
            if let Some((answer, used)) = Answer::parse(&self.pending) {
                self.pending.drain(..used);
                return Some(answer);
            }
            let mut some = vec![0_u8; 16 << 10];
            let read = timeout(PATIENCE, self.stream.read(&mut some)).await;
            match read.expect("the simulator neither answers nor hangs up") {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.pending.extend_from_slice(&some[..count]),
            }
        }
    }
}

/// A request with a form or another body.
pub(crate) fn request(
    method: &str,
    path: &str,
    headers: &[(String, String)],
    body: Option<&str>,
) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: pve1:8006\r\n");
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    if let Some(body) = body {
        let _ = write!(text, "Content-Length: {}\r\n", body.len());
    }
    text.push_str("\r\n");
    text.push_str(body.unwrap_or_default());
    text.into_bytes()
}

/// A short message of a WebSocket's client; the mask is all zeros.
pub(crate) fn frame(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    let mut out = vec![0x82, 0xfe];
    out.extend(length.to_be_bytes());
    out.extend([0; 4]);
    out.extend(bytes);
    out
}

/// A form as browsers encode it.
pub(crate) fn encoded(pairs: &[(String, String)]) -> String {
    let encode = |text: &str| -> String {
        let byte = |byte: u8| {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        };
        text.bytes().map(byte).collect()
    };
    let all: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{}={}", encode(key), encode(value)))
        .collect();
    all.join("&")
}
