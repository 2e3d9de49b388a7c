//! The secrets of one control plane, made anew for each: a certificate authority, the API server's certificate,
//! the key that signs service accounts' tokens, and the bearer tokens of the two users it starts with.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

pub(super) const CA_FILE: &str = "ca.crt";
pub(super) const SERVING_CERT_FILE: &str = "apiserver.crt";
pub(super) const SERVING_KEY_FILE: &str = "apiserver.key";
pub(super) const ACCOUNT_KEY_FILE: &str = "service-account.key";
/// The public half, by which tokens are checked.
pub(super) const ACCOUNT_PUBLIC_KEY_FILE: &str = "service-account.pub";
pub(super) const TOKENS_FILE: &str = "tokens.csv";

pub(super) struct Credentials {
    pub(super) ca_pem: String,
    pub(super) admin_token: String,
    pub(super) controller_manager_token: String,
}

impl Credentials {
    /// Makes them and writes those files that the API server reads.
    pub(super) fn create(dir: &Path) -> Result<Self> {
        let credentials = Self {
            ca_pem: certificates(dir).context("making the control plane's certificates")?,
            admin_token: token(),
            controller_manager_token: token(),
        };
        let account_key = KeyPair::generate().context("making the service accounts' key")?;
        write_secret(&dir.join(ACCOUNT_KEY_FILE), &account_key.serialize_pem())?;
        let public_key = dir.join(ACCOUNT_PUBLIC_KEY_FILE);
        fs::write(&public_key, account_key.public_key_pem())
            .with_context(|| format!("writing {}", public_key.display()))?;
        // token, user name, UID, groups
        let tokens = format!(
            "{},admin,admin,system:masters\n{},system:kube-controller-manager,kube-controller-manager,\n",
            credentials.admin_token, credentials.controller_manager_token,
        );
        write_secret(&dir.join(TOKENS_FILE), &tokens)?;
        Ok(credentials)
    }
}

fn certificates(dir: &Path) -> Result<String> {
    let mut authority = CertificateParams::default();
    authority
        .distinguished_name
        .push(DnType::CommonName, "phoenix-lab");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let authority_key = KeyPair::generate()?;
    let ca_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);

    let names = [
        "127.0.0.1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
    ];
    let mut serving = CertificateParams::new(names.map(str::to_owned))?;
    serving
        .distinguished_name
        .push(DnType::CommonName, "kube-apiserver");
    serving.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let serving_key = KeyPair::generate()?;
    let serving_cert = serving.signed_by(&serving_key, &issuer)?;

    fs::write(dir.join(CA_FILE), &ca_pem)?;
    fs::write(dir.join(SERVING_CERT_FILE), serving_cert.pem())?;
    write_secret(&dir.join(SERVING_KEY_FILE), &serving_key.serialize_pem())?;
    Ok(ca_pem)
}

/// 256 random bits as text.
fn token() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

/// Writes a file that only its owner can read, from the moment it exists.
pub(super) fn write_secret(path: &Path, text: &str) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}
