//! HTTP inside the guests' network: serving it, and asking as curl in a guest would.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

pub(super) type Answer = Response<Full<Bytes>>;

/// Serves one connection until the client leaves or `until` is cancelled, which drops it as the end of a process does.
pub(super) fn serve<F, Fut>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    until: CancellationToken,
    handle: F,
) where
    F: Fn(Request<Incoming>) -> Fut + Send + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    tokio::spawn(async move {
        let service = service_fn(move |request| {
            let answer = handle(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            _ = connection => {}
            () = until.cancelled() => {}
        }
    });
}

/// An identity that signed itself.
pub(super) struct SelfSigned {
    pub(super) certificate: CertificateDer<'static>,
    acceptor: TlsAcceptor,
}

impl SelfSigned {
    /// Always has `localhost` among its names.
    pub(super) fn new(names: &[&str]) -> Result<Self> {
        let names: Vec<String> = std::iter::once("localhost")
            .chain(names.iter().copied())
            .map(str::to_owned)
            .collect();
        let made = rcgen::generate_simple_self_signed(names).context("making a certificate")?;
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
            .map_err(|error| anyhow::anyhow!("the key: {error}"))?;
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)?;
        Ok(Self {
            certificate,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }
}

/// What a request brought back.
pub(super) struct Fetched {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Sends a request over a connection; over TLS where a certificate is given, which must be the server's.
pub(super) async fn request(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    certificate: Option<CertificateDer<'static>>,
    request: Request<Full<Bytes>>,
) -> Result<Fetched> {
    let Some(certificate) = certificate else {
        return exchange(stream, request).await;
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .with_root_certificates(roots)
    .with_no_client_auth();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("localhost")?, stream)
        .await?;
    exchange(stream, request).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Fetched> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes();
    connection.abort();
    if body.len() > 16 << 20 {
        bail!("the answer is too long");
    }
    Ok(Fetched {
        status,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}
