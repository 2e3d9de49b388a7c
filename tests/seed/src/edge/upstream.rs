//! What is passed through, and kept for the rest of this run: one run sees one state of the mirror, and fetches a file once.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::header;
use sha2::{Digest as _, Sha256};

pub(super) struct Upstream {
    client: reqwest::Client,
    kept: PathBuf,
    mirror: String,
}

impl Upstream {
    pub(super) fn new(kept: PathBuf, mirror: &str) -> Result<Self> {
        // Where it is installed already it is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .build()
            .context("building the client for what is passed through")?;
        Ok(Self {
            client,
            kept,
            mirror: mirror.to_owned(),
        })
    }

    /// The file with its content type; `None` for what isn't passed through and for what isn't there.
    pub(super) async fn fetch(
        &self,
        secure: bool,
        host: &str,
        path: &str,
    ) -> Result<Option<(String, Bytes)>> {
        let scheme = if secure { "https" } else { "http" };
        let url = format!("{scheme}://{host}{path}");
        let is_pip = secure && (path == "/simple/pip/" || path.contains("/pip-"));
        if !is_pip && !url.starts_with(&format!("{}/", self.mirror)) {
            return Ok(None);
        }
        let kept = self.kept.join(hex::encode(&Sha256::digest(&url)[..12]));
        if let (Ok(bytes), Ok(kind)) = (
            fs::read(&kept),
            fs::read_to_string(kept.with_extension("type")),
        ) {
            return Ok(Some((kind, bytes.into())));
        }
        let response = self
            .client
            .get(&url)
            .send()
            .await
            .context("asking upstream")?;
        if matches!(response.status().as_u16(), 404 | 410) {
            return Ok(None);
        }
        let response = response.error_for_status()?;
        let kind = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or("application/octet-stream")
            .to_owned();
        let bytes = response.bytes().await.context("fetching from upstream")?;
        // Whole or not at all: another request may look for it meanwhile.
        let whole = tempfile::NamedTempFile::new_in(&self.kept)?;
        fs::write(whole.path(), &bytes)?;
        fs::write(kept.with_extension("type"), &kind)?;
        whole.persist(&kept)?;
        Ok(Some((kind, bytes)))
    }
}
