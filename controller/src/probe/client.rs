//! How probes travel: directly or through a proxy, with or without a certificate that is trusted, never redirected.

use std::error::Error as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::{Client, ClientBuilder, Proxy, RequestBuilder, StatusCode};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// The proxy's address cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the guest proxy {address:?} is not usable: {reason}")]
pub struct ProxyInvalid {
    address: String,
    reason: String,
}

/// Makes probes for the containers of one hypervisor. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ProbeClient {
    /// For plain HTTP, and for HTTPS whose certificate doesn't matter.
    open: Client,
    /// For HTTPS whose certificate must be trusted by this system. Made when first needed: an image without any roots
    /// can still probe the rest.
    trusting: Arc<OnceLock<Result<Client, String>>>,
    proxy: Option<Proxy>,
    /// An HTTP proxy answers in the target's place when it cannot reach it.
    proxy_answers: bool,
    pub(super) patience: Patience,
}

/// How long a probe waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a whole answer.
    pub(super) answer: Duration,
    /// For the first token of a new engine, which may compile for a while.
    pub(super) first_token: Duration,
}

/// For a connection.
const CONNECT: Duration = Duration::from_secs(4);
const PATIENCE: Patience = Patience {
    answer: Duration::from_secs(8),
    first_token: Duration::from_mins(1),
};

impl ProbeClient {
    /// `proxy`: `socks5://…` or `http://…`, as in `Hypervisor.spec.guest.proxy`.
    pub fn new(proxy: Option<&str>) -> Result<Self, ProxyInvalid> {
        let invalid = |reason: String| ProxyInvalid {
            address: proxy.unwrap_or_default().to_owned(),
            reason,
        };
        let way = proxy
            .map(Proxy::all)
            .transpose()
            .map_err(|error| invalid(why(&error)))?;
        let provider = Arc::new(ring::default_provider());
        let tls = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        let open = builder(tls, way.as_ref())
            .build()
            .map_err(|error| invalid(why(&error)))?;
        let proxy_answers = proxy.is_some_and(|address| address.starts_with("http"));
        Ok(Self {
            open,
            trusting: Arc::default(),
            proxy: way,
            proxy_answers,
            patience: PATIENCE,
        })
    }

    /// The client for a target: `trusted` asks for a certificate that this system trusts.
    pub(super) fn client(&self, trusted: bool) -> Result<&Client, Unanswered> {
        if !trusted {
            return Ok(&self.open);
        }
        let made = self.trusting.get_or_init(|| {
            let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .and_then(ClientConfigExt::with_system_roots)
                .map_err(|error| format!("no system certificates to trust: {error}"))?;
            builder(tls, self.proxy.as_ref())
                .build()
                .map_err(|error| why(&error))
        });
        made.as_ref()
            .map_err(|reason| Unanswered::Unreachable(reason.clone()))
    }

    /// Sends a request and reads the answer.
    pub(super) async fn ask(
        &self,
        request: RequestBuilder,
        patience: Option<Duration>,
    ) -> Result<Answer, Unanswered> {
        let answered = async {
            let mut response = request.send().await?;
            let status = response.status();
            let mut body = Vec::new();
            while body.len() < LONGEST_BODY
                && let Some(chunk) = response.chunk().await?
            {
                body.extend_from_slice(&chunk);
            }
            Ok::<_, reqwest::Error>(Answer { status, body })
        };
        let patience = patience.unwrap_or(self.patience.answer);
        let answer = match tokio::time::timeout(patience, answered).await {
            Err(_) => return Err(Unanswered::Slow(patience)),
            Ok(Err(error)) => return Err(unanswered(&error, self.proxy.is_some())),
            Ok(Ok(answer)) => answer,
        };
        if self.proxy_answers
            && matches!(
                answer.status,
                StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT
            )
        {
            let said = String::from_utf8_lossy(&answer.body)
                .trim()
                .chars()
                .take(200)
                .collect::<String>();
            if said.contains("refused") {
                return Err(Unanswered::Refused);
            }
            return Err(Unanswered::Unreachable(format!(
                "the guest proxy answers {}: {said}",
                answer.status.as_u16()
            )));
        }
        Ok(answer)
    }
}

/// A list of models is a few KB, vLLM's metrics are 60; nothing that a probe asks for is longer than this.
const LONGEST_BODY: usize = 256 * 1024;

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
}

/// Why nothing came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// The machine is there and nobody listens.
    Refused,
    /// A connection was made, or could be, and no answer came in time.
    Slow(Duration),
    /// There is no way there, or it broke.
    Unreachable(String),
}

impl Unanswered {
    pub(super) fn why(&self) -> String {
        match self {
            Self::Refused => "the connection was refused".to_owned(),
            Self::Slow(patience) => format!("no answer within {} s", patience.as_secs()),
            Self::Unreachable(why) => why.clone(),
        }
    }
}

/// With a proxy, a connection that could not be made is the proxy's; that the target refuses one, the proxy says in words.
fn unanswered(error: &reqwest::Error, proxied: bool) -> Unanswered {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    let (mut connected, mut refused) = (true, false);
    while let Some(this) = cause {
        let kind = this
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind);
        let said = this.to_string().to_lowercase();
        connected &= kind != Some(std::io::ErrorKind::ConnectionRefused)
            && !said.contains("underlying connection");
        refused |= said.contains("connection refused");
        cause = this.source();
    }
    match (connected, refused, proxied) {
        (false, _, true) => {
            Unanswered::Unreachable("the guest proxy itself can't be reached".to_owned())
        }
        (false, ..) | (true, true, _) => Unanswered::Refused,
        (true, false, _) => Unanswered::Unreachable(why(error)),
    }
}

/// The innermost cause: the outer ones only say that a request failed.
fn why(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    if error.source().is_none() && error.is_timeout() {
        return "no connection in time".to_owned();
    }
    innermost.to_string()
}

fn builder(tls: ClientConfig, proxy: Option<&Proxy>) -> ClientBuilder {
    let builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        // Each look makes a connection of its own: a kept one would hide that nobody listens any more.
        .pool_max_idle_per_host(0)
        .user_agent(concat!("phoenix/", env!("CARGO_PKG_VERSION")));
    match proxy {
        Some(proxy) => builder.proxy(proxy.clone()),
        None => builder.no_proxy(),
    }
}

/// Only to keep the chain of builders readable.
trait ClientConfigExt {
    fn with_system_roots(self) -> Result<ClientConfig, rustls::Error>;
}

impl ClientConfigExt for rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    fn with_system_roots(self) -> Result<ClientConfig, rustls::Error> {
        Ok(self.with_platform_verifier()?.with_no_client_auth())
    }
}

/// Takes any certificate. For `insecureSkipVerify`: nothing secret is sent there, and what comes back is a status code.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
