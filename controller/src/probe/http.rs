//! The HTTP probe: one GET, one expected status.

use std::net::IpAddr;

use super::client::{ProbeClient, Unanswered};

/// What is asked where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTarget {
    /// HTTPS instead of HTTP.
    pub https: bool,
    /// The container's address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The path with its query, beginning with `/`.
    pub path: String,
    /// The status that means healthy.
    pub expect_status: u16,
    /// Any certificate will do.
    pub insecure_skip_verify: bool,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpProbe {
    /// The expected status.
    Healthy {
        /// Which.
        status: u16,
    },
    /// Another status.
    Unhealthy {
        /// Which.
        status: u16,
    },
    /// No answer.
    Unreachable {
        /// For a sentence: what happened instead.
        why: String,
    },
}

impl ProbeClient {
    /// Looks once.
    pub async fn http(&self, target: &HttpTarget) -> HttpProbe {
        match self.get(target).await {
            Ok(status) if status == target.expect_status => HttpProbe::Healthy { status },
            Ok(status) => HttpProbe::Unhealthy { status },
            Err(unanswered) => HttpProbe::Unreachable {
                why: unanswered.why(),
            },
        }
    }

    async fn get(&self, target: &HttpTarget) -> Result<u16, Unanswered> {
        let client = self.client(target.https && !target.insecure_skip_verify)?;
        let scheme = if target.https { "https" } else { "http" };
        let request = client.get(format!(
            "{scheme}://{}{}",
            authority(target.address, target.port),
            target.path
        ));
        Ok(self.ask(request, None).await?.status.as_u16())
    }
}

/// `10.0.0.150:8000`, `[fd00::1]:8000`.
pub(super) fn authority(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}
