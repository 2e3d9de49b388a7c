//! The network's edge: where a machine's packets would leave for the world, all names lead to this process.
//!
//! Debian's mirror and the installer `pip` are passed through, as by a proxy. What can't be had here, NVIDIA's, Docker's and vLLM's
//! files, is served from a folder that [`goods`](crate::goods) fills, under the very paths that the scripts ask for. Nothing else
//! is answered, and what else was asked for is kept. It listens inside the machine's own network namespace, on loopback:
//! the scripts, apt, curl, pip and Docker run with their own settings.
//!
//! It also makes the trouble of networks: a transfer that stops half-way and stays open, or is cut there.

mod authority;
mod names;
mod upstream;

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use authority::Authority;
use upstream::Upstream;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What becomes of the next transfer of a file.
enum Trouble {
    /// Half of it is sent, then nothing more; the sender is told.
    Stall(oneshot::Sender<()>),
    /// Half of it is sent, then the connection ends.
    Cut,
}

/// The edge, for one machine after the other.
pub(crate) struct Edge {
    shared: Arc<Shared>,
}

struct Shared {
    goods: PathBuf,
    upstream: Upstream,
    authority: Arc<Authority>,
    modified: SystemTime,
    trouble: Mutex<Vec<(&'static str, Trouble)>>,
    unknown: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Listening(Vec<AbortHandle>);

impl Drop for Listening {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Edge {
    /// Serves the files of `goods` and keeps what passes through in `kept`.
    pub(crate) fn new(goods: PathBuf, kept: PathBuf, mirror: &str) -> Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared {
                goods,
                upstream: Upstream::new(kept, mirror)?,
                authority: Arc::new(Authority::new()?),
                modified: SystemTime::now(),
                trouble: Mutex::default(),
                unknown: Mutex::default(),
            }),
        })
    }

    /// The certificate by which its own are trusted.
    pub(crate) fn authority(&self) -> &str {
        self.shared.authority.pem()
    }

    /// The next transfer of a file with this in its path stops half-way; resolves when it has.
    pub(crate) fn stall(&self, path: &'static str) -> oneshot::Receiver<()> {
        let (sender, stalled) = oneshot::channel();
        lock(&self.shared.trouble).push((path, Trouble::Stall(sender)));
        stalled
    }

    /// The next transfer of a file with this in its path is cut half-way.
    pub(crate) fn cut(&self, path: &'static str) {
        lock(&self.shared.trouble).push((path, Trouble::Cut));
    }

    /// The trouble that nobody has run into yet.
    pub(crate) fn trouble_left(&self) -> Vec<&'static str> {
        lock(&self.shared.trouble)
            .drain(..)
            .map(|(path, _)| path)
            .collect()
    }

    /// What was asked for and isn't here, since the last call.
    pub(crate) fn unknown(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.shared.unknown))
    }

    /// Listens in the network namespace of the machine whose process 1 is `leader`.
    pub(crate) fn listen_in(&self, leader: u32) -> Result<Listening> {
        // A thread of its own, since it is the thread that moves; the sockets stay where they were made.
        let (names, plain, secure) = std::thread::spawn(move || sockets(leader))
            .join()
            .map_err(|_| anyhow!("the thread that opens sockets panicked"))?
            .context("listening in the machine's network")?;
        let names = tokio::net::UdpSocket::from_std(names)?;
        let plain = tokio::net::TcpListener::from_std(plain)?;
        let secure = tokio::net::TcpListener::from_std(secure)?;
        let acceptor = TlsAcceptor::from(self.shared.authority.server()?);
        let tasks = [
            tokio::spawn(names::serve(names)),
            tokio::spawn(accept(plain, None, self.shared.clone())),
            tokio::spawn(accept(secure, Some(acceptor), self.shared.clone())),
        ];
        Ok(Listening(
            tasks
                .iter()
                .map(tokio::task::JoinHandle::abort_handle)
                .collect(),
        ))
    }
}

fn sockets(leader: u32) -> Result<(UdpSocket, TcpListener, TcpListener)> {
    let namespace = fs::File::open(format!("/proc/{leader}/ns/net"))?;
    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
    let names = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53))?;
    let plain = TcpListener::bind((Ipv4Addr::LOCALHOST, 80))?;
    let secure = TcpListener::bind((Ipv4Addr::LOCALHOST, 443))?;
    names.set_nonblocking(true)?;
    plain.set_nonblocking(true)?;
    secure.set_nonblocking(true)?;
    Ok((names, plain, secure))
}

async fn accept(listener: tokio::net::TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, shared) = (tls.clone(), shared.clone());
        tokio::spawn(async move {
            let secure = tls.is_some();
            let service = hyper::service::service_fn(move |request| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(shared.answer(secure, &request).await) }
            });
            let http = hyper::server::conn::http1::Builder::new();
            match tls {
                None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        drop(http.serve_connection(TokioIo::new(stream), service).await);
                    }
                }
            }
        });
    }
}

impl Shared {
    async fn answer(&self, secure: bool, request: &Request<Incoming>) -> Response<Body> {
        let host = request
            .headers()
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .or(request.uri().host())
            .unwrap_or_default();
        let path = request.uri().path();
        let found = match self.good(path) {
            Some(found) => Ok(Some(found)),
            None => self.upstream.fetch(secure, host, path).await,
        };
        match found {
            Ok(Some((kind, bytes))) => self.transfer(request, &kind, &bytes),
            Ok(None) => {
                lock(&self.unknown).push(format!("{host}{path}"));
                plain(StatusCode::NOT_FOUND, String::new())
            }
            Err(error) => plain(StatusCode::BAD_GATEWAY, format!("{error:#}\n")),
        }
    }

    /// A file of ours, with its content type.
    fn good(&self, path: &str) -> Option<(String, Bytes)> {
        let clean = path.trim_start_matches('/');
        if clean.split('/').any(|part| part == "..") {
            return None;
        }
        let mut file = self.goods.join(clean);
        if file.is_dir() {
            file = file.join("index.html");
        }
        let kind = if path.contains("/manifests/") {
            "application/vnd.docker.distribution.manifest.v2+json"
        } else if file
            .extension()
            .is_some_and(|extension| extension == "html")
        {
            "text/html"
        } else {
            "application/octet-stream"
        };
        Some((kind.to_owned(), fs::read(file).ok()?.into()))
    }

    fn transfer(&self, request: &Request<Incoming>, kind: &str, bytes: &Bytes) -> Response<Body> {
        let modified = httpdate::fmt_http_date(self.modified);
        let has = |name: header::HeaderName, wanted: &str| {
            request
                .headers()
                .get(name)
                .is_some_and(|value| value == wanted)
        };
        let mut response = Response::builder()
            .header(header::CONTENT_TYPE, kind)
            .header(header::LAST_MODIFIED, &modified)
            .header(header::ACCEPT_RANGES, "bytes");
        if has(header::IF_MODIFIED_SINCE, &modified) {
            return built(response.status(StatusCode::NOT_MODIFIED), empty());
        }
        let size = bytes.len();
        // apt goes on where a transfer ended, if the file is still the same.
        let start = request
            .headers()
            .get(header::RANGE)
            .and_then(|range| {
                range
                    .to_str()
                    .ok()?
                    .strip_prefix("bytes=")?
                    .strip_suffix('-')?
                    .parse()
                    .ok()
            })
            .filter(|start: &usize| *start > 0 && *start < size)
            .filter(|_| {
                !request.headers().contains_key(header::IF_RANGE)
                    || has(header::IF_RANGE, &modified)
            });
        let rest = bytes.slice(start.unwrap_or_default()..);
        if let Some(start) = start {
            response = response.status(StatusCode::PARTIAL_CONTENT).header(
                header::CONTENT_RANGE,
                format!("bytes {start}-{}/{size}", size - 1),
            );
        }
        response = response.header(header::CONTENT_LENGTH, rest.len());
        let body = if request.method() == http::Method::HEAD {
            empty()
        } else {
            self.body(request.uri().path(), rest)
        };
        built(response, body)
    }

    fn body(&self, path: &str, bytes: Bytes) -> Body {
        let trouble = {
            let mut all = lock(&self.trouble);
            let found = all.iter().position(|(part, _)| path.contains(part));
            found.map(|index| all.remove(index).1)
        };
        let Some(trouble) = trouble else {
            return Full::new(bytes)
                .map_err(|never| match never {})
                .boxed_unsync();
        };
        let half = bytes.slice(..bytes.len() / 2);
        let end = stream::once(async move {
            match trouble {
                Trouble::Cut => Err(io::Error::other("cut by the test")),
                Trouble::Stall(stalled) => {
                    let _ = stalled.send(());
                    std::future::pending().await
                }
            }
        });
        StreamBody::new(stream::iter([Ok(Frame::data(half))]).chain(end)).boxed_unsync()
    }
}

fn empty() -> Body {
    Full::default()
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let body = Full::from(text)
        .map_err(|never| match never {})
        .boxed_unsync();
    built(Response::builder().status(status), body)
}

fn built(builder: http::response::Builder, body: Body) -> Response<Body> {
    builder.body(body).unwrap_or_else(|_| {
        let mut failed = Response::new(empty());
        *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        failed
    })
}
