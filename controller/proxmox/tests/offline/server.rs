//! A TLS server that answers as it is told to, byte for byte: the reason phrase included, which Proxmox says so much in.

use proxmox_client::{
    Client, ClientConfig, Credentials, Fingerprint, SecretString, Timeouts, Trust,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
    server::TlsStream,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

pub(crate) type Socket = WebSocketStream<TlsStream<TcpStream>>;
type Script = Box<dyn FnOnce(Socket) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What came in.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
    /// Counted from 1 over the life of the server.
    pub(crate) number: usize,
    /// Which connection it came on, counted from 1.
    pub(crate) connection: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map(String::as_str)
            .unwrap_or_default()
    }
}

/// What goes out.
pub(crate) enum Reply {
    /// An answer; the connection stays open.
    Answer {
        status: u16,
        reason: String,
        body: String,
    },
    /// The connection ends without an answer.
    Cut,
    /// The head of an answer and half of its body, then the end.
    Half,
    /// No answer, ever.
    Silence,
    /// A websocket.
    Socket(Script),
}

impl Reply {
    pub(crate) fn data(data: &Value) -> Self {
        Self::Answer {
            status: 200,
            reason: "OK".to_owned(),
            body: json!({ "data": data }).to_string(),
        }
    }

    pub(crate) fn error(status: u16, reason: &str) -> Self {
        Self::Answer {
            status,
            reason: reason.to_owned(),
            body: String::new(),
        }
    }

    pub(crate) fn socket<F: Future<Output = ()> + Send + 'static>(
        script: impl FnOnce(Socket) -> F + Send + 'static,
    ) -> Self {
        Self::Socket(Box::new(move |socket| Box::pin(script(socket))))
    }
}

pub(crate) struct Server {
    pub(crate) endpoint: String,
    pub(crate) ca_pem: String,
    pub(crate) fingerprint: Fingerprint,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A certificate authority and a certificate that it made for 127.0.0.1.
struct Identity {
    ca_pem: String,
    fingerprint: Fingerprint,
    tls: ServerConfig,
}

fn identity() -> Identity {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    Identity {
        ca_pem: ca_certificate.pem(),
        fingerprint: Fingerprint::of(leaf.der()),
        tls,
    }
}

impl Server {
    pub(crate) async fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, answer)
    }

    pub(crate) fn on(
        listener: TcpListener,
        answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let identity = identity();
        let endpoint = format!("https://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let acceptor = TlsAcceptor::from(Arc::new(identity.tls));
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        let connections = AtomicUsize::new(0);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = connections.fetch_add(1, Ordering::SeqCst) + 1;
                let (acceptor, log, answer) =
                    (acceptor.clone(), Arc::clone(&log), Arc::clone(&answer));
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, connection, &log, answer.as_ref()).await;
                    }
                });
            }
        });
        Self {
            endpoint,
            ca_pem: identity.ca_pem,
            fingerprint: identity.fingerprint,
            seen,
            task,
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// A client that trusts this server, with a token and short patience.
    pub(crate) fn client(&self) -> Client {
        Client::new(config(&[self])).unwrap()
    }
}

/// What a client needs to talk to these servers, which it trusts by pin.
pub(crate) fn config(servers: &[&Server]) -> ClientConfig {
    ClientConfig {
        endpoints: servers.iter().map(|s| s.endpoint.clone()).collect(),
        trust: Trust {
            ca_bundle: None,
            fingerprints: servers.iter().map(|s| s.fingerprint.clone()).collect(),
        },
        credentials: Credentials {
            token_id: "op@pve!op".to_owned(),
            token_secret: SecretString::from("s3cret"),
            password: None,
            root_password: None,
        },
        timeouts: Timeouts {
            connect: Duration::from_secs(2),
            call: Duration::from_secs(5),
            ..Timeouts::default()
        },
        observer: None,
    }
}

async fn serve(
    mut stream: TlsStream<TcpStream>,
    connection: usize,
    log: &Mutex<Vec<Seen>>,
    answer: &(dyn Fn(&Seen) -> Reply + Send + Sync),
) {
    while let Some(mut seen) = read_request(&mut stream).await {
        seen.connection = connection;
        {
            let mut log = log.lock().unwrap();
            seen.number = log.len() + 1;
            log.push(seen.clone());
        }
        match answer(&seen) {
            Reply::Answer {
                status,
                reason,
                body,
            } => {
                let head = format!(
                    "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                if stream.write_all((head + &body).as_bytes()).await.is_err() {
                    return;
                }
            }
            Reply::Cut => return,
            Reply::Half => {
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"data\":")
                    .await;
                let _ = stream.flush().await;
                return;
            }
            Reply::Silence => std::future::pending().await,
            Reply::Socket(script) => {
                let accept = derive_accept_key(seen.header("sec-websocket-key").as_bytes());
                let head = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: binary\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                return script(WebSocketStream::from_raw_socket(stream, Role::Server, None).await)
                    .await;
            }
        }
    }
}

async fn read_request(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let mut request = lines.next()?.split(' ');
    let (method, target) = (request.next()?.to_owned(), request.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(k, v)| (k.to_lowercase(), v.to_owned()))
        .collect();
    let length = headers
        .get("content-length")
        .map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: String::from_utf8(body).ok()?,
        number: 0,
        connection: 0,
    })
}
