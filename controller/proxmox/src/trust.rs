//! Whom the client trusts: a CA, pinned certificates or the system's roots. There is no way to trust everybody.
//!
//! A pin names the SHA-256 of the certificate that a node shows; the handshake's signature is checked in any case, so
//! that the peer has to own the key. Where a certificate is refused its fingerprint travels with the error, ready to be
//! compared and pinned.

use crate::{Error, ErrorKind};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use sha2::{Digest, Sha256};
use std::{error::Error as StdError, fmt, io, str::FromStr, sync::Arc};

/// SHA-256 of a certificate.
// Boxed to keep errors, which carry one, small.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(Box<[u8; 32]>);

impl Fingerprint {
    /// The fingerprint of a certificate in DER form.
    pub fn of(certificate: &[u8]) -> Self {
        Self(Box::new(Sha256::digest(certificate).into()))
    }

    /// The fingerprints of the certificates in a PEM text.
    pub fn of_pem(text: &str) -> Result<Vec<Self>, Error> {
        Ok(certificates(text)?
            .iter()
            .map(|der| Self::of(der))
            .collect())
    }
}

impl From<[u8; 32]> for Fingerprint {
    fn from(bytes: [u8; 32]) -> Self {
        Self(Box::new(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02X}", if i == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no SHA-256 fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256 fingerprint of 32 bytes in hexadecimal: {0:?}")]
pub struct ParseFingerprintError(String);

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseFingerprintError(text.to_owned());
        let digits = match text.trim() {
            colons if colons.contains(':') => {
                if colons.split(':').any(|pair| pair.len() != 2) {
                    return Err(bad());
                }
                colons.replace(':', "")
            }
            plain => plain.to_owned(),
        };
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| bad())?;
        Ok(bytes.into())
    }
}

/// What vouches for a server. Where both are given either suffices; where neither is, the system's roots do.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Certificate authorities, PEM.
    pub ca_bundle: Option<String>,
    /// Certificates that are trusted as they are.
    pub fingerprints: Vec<Fingerprint>,
}

impl Trust {
    /// One TLS configuration for HTTP and websocket alike. It offers HTTP/1.1 only: Proxmox speaks nothing else.
    pub(crate) fn tls(&self) -> Result<ClientConfig, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Verifier {
            pins: self.fingerprints.clone(),
            roots: self.roots(&provider)?,
            provider: Arc::clone(&provider),
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| unusable(format!("TLS cannot be set up: {e}")))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn roots(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ServerCertVerifier>>, Error> {
        if let Some(bundle) = &self.ca_bundle {
            let mut store = RootCertStore::empty();
            for certificate in certificates(bundle)? {
                store.add(certificate).map_err(|e| {
                    unusable(format!(
                        "the CA bundle holds a certificate that cannot be used: {e}"
                    ))
                })?;
            }
            let verifier =
                WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
                    .build();
            return Ok(Some(verifier.map_err(|e| {
                unusable(format!("the CA bundle cannot be used: {e}"))
            })?));
        }
        if !self.fingerprints.is_empty() {
            return Ok(None);
        }
        let verifier = rustls_platform_verifier::Verifier::new(Arc::clone(provider));
        Ok(Some(Arc::new(verifier.map_err(|e| {
            unusable(format!(
                "the system's root certificates cannot be used: {e}"
            ))
        })?)))
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(unusable(
            "the CA bundle holds no certificate in PEM form".to_owned(),
        )),
        Err(e) => Err(unusable(format!("the CA bundle is no valid PEM: {e}"))),
    }
}

fn unusable(message: String) -> Error {
    Error::local(ErrorKind::Invalid, "", "", message)
}

#[derive(Debug)]
struct Verifier {
    pins: Vec<Fingerprint>,
    roots: Option<Arc<dyn ServerCertVerifier>>,
    provider: Arc<CryptoProvider>,
}

/// Goes through rustls, reqwest and tungstenite inside their errors and comes out in [`refused_certificate`].
#[derive(Clone, Debug, thiserror::Error)]
#[error("{why}")]
pub(crate) struct RefusedCertificate {
    pub(crate) presented: Fingerprint,
    why: String,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let presented = Fingerprint::of(leaf);
        if self.pins.contains(&presented) {
            return Ok(ServerCertVerified::assertion());
        }
        let why = match &self.roots {
            None => "it is none of the pinned ones".to_owned(),
            Some(roots) => match roots.verify_server_cert(leaf, intermediates, name, ocsp, now) {
                Ok(verified) => return Ok(verified),
                Err(rustls::Error::InvalidCertificate(why)) => why.to_string(),
                Err(other) => other.to_string(),
            },
        };
        let refused = RefusedCertificate { presented, why };
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(
            OtherError(Arc::new(refused)),
        )))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Finds a refused certificate behind an error of whatever library the handshake ran in.
pub(crate) fn refused_certificate<'a>(
    error: &'a (dyn StdError + 'static),
) -> Option<&'a RefusedCertificate> {
    if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))) =
        error.downcast_ref()
    {
        let inner: &'a (dyn StdError + 'static) = inner.as_ref();
        return inner.downcast_ref();
    }
    // An io::Error hides the error that it wraps from `source`.
    let wrapped = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    wrapped
        .and_then(|inner| refused_certificate(inner))
        .or_else(|| refused_certificate(error.source()?))
}

impl RefusedCertificate {
    pub(crate) fn into_error(self, method: &'static str, endpoint: &'static str) -> Error {
        let message = format!(
            "the certificate shown is not trusted: {}; its SHA-256 fingerprint is {}",
            self.why, self.presented
        );
        Error::local(
            ErrorKind::Untrusted {
                presented: self.presented,
            },
            method,
            endpoint,
            message,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Fingerprint, Trust};
    use crate::ErrorKind;

    const TEXT: &str = "F4:FD:25:70:E8:1F:6E:1D:F9:EC:58:BD:B0:4B:EE:82:7F:DB:EF:C3:63:7E:75:67:C9:EA:E4:E3:89:5B:FE:94";

    #[test]
    fn a_fingerprint_is_read_in_any_case_and_with_or_without_colons() {
        for text in [
            TEXT.to_owned(),
            TEXT.to_lowercase(),
            TEXT.replace(':', ""),
            format!(" {TEXT}\n"),
        ] {
            assert_eq!(text.parse::<Fingerprint>().unwrap().to_string(), TEXT);
        }
        for text in [
            "",
            "AB:CD",
            &TEXT[..94],
            &TEXT.replace('F', "G"),
            &TEXT.replacen("F4:FD", "F4F:D", 1),
        ] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_bundle_without_certificates_is_refused() {
        for bundle in [
            "",
            "garbage",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let trust = Trust {
                ca_bundle: Some(bundle.to_owned()),
                fingerprints: Vec::new(),
            };
            assert_eq!(
                trust.tls().unwrap_err().kind,
                ErrorKind::Invalid,
                "{bundle:?}"
            );
        }
    }
}
