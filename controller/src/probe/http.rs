//! The HTTP probe: one GET, one expected status.

use std::net::IpAddr;

use reqwest::StatusCode;
use serde::Deserialize;

use super::client::{Answer, ProbeClient, Unanswered};

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
        /// It runs, but nobody has set it up yet.
        first_run: Option<FirstRun>,
    },
    /// Another status.
    Unhealthy {
        /// Which.
        status: u16,
        /// It has given up waiting for somebody to set it up.
        first_run: Option<FirstRun>,
    },
    /// No answer.
    Unreachable {
        /// For a sentence: what happened instead.
        why: String,
    },
}

/// What a service that runs still waits for. Known of Portainer, which gives itself up when nobody comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstRun {
    /// Portainer has no administrator: whoever comes first becomes it.
    NoAdministrator,
    /// Nobody came within five minutes, so that Portainer answers nothing any more until it is restarted.
    Closed,
}

impl ProbeClient {
    /// Looks once.
    pub async fn http(&self, target: &HttpTarget) -> HttpProbe {
        let answer = match self.get(target, &target.path).await {
            Ok(answer) => answer,
            Err(unanswered) => {
                return HttpProbe::Unreachable {
                    why: unanswered.why(),
                };
            }
        };
        let status = answer.status.as_u16();
        let first_run = self.first_run(target, &answer).await;
        if status == target.expect_status {
            HttpProbe::Healthy { status, first_run }
        } else {
            HttpProbe::Unhealthy { status, first_run }
        }
    }

    /// A Portainer is known by its status, and asked for its administrator by the question that its own login page asks.
    async fn first_run(&self, target: &HttpTarget, answer: &Answer) -> Option<FirstRun> {
        if closed(answer) {
            return Some(FirstRun::Closed);
        }
        let Portainer { .. } = serde_json::from_slice(&answer.body).ok()?;
        let check = self.get(target, "/api/users/admin/check").await.ok()?;
        if closed(&check) {
            return Some(FirstRun::Closed);
        }
        (check.status == StatusCode::NOT_FOUND).then_some(FirstRun::NoAdministrator)
    }

    async fn get(&self, target: &HttpTarget, path: &str) -> Result<Answer, Unanswered> {
        let client = self.client(target.https && !target.insecure_skip_verify)?;
        let scheme = if target.https { "https" } else { "http" };
        let request = client.get(format!(
            "{scheme}://{}{}",
            authority(target.address, target.port),
            path
        ));
        self.ask(request, None).await
    }
}

/// What Portainer says of itself at `/api/system/status`.
#[derive(Deserialize)]
struct Portainer {
    #[serde(rename = "Version")]
    _version: String,
    #[serde(rename = "InstanceID")]
    _instance: String,
}

/// A Portainer that was left without an administrator redirects with these words, whatever it is asked for (since 2.13).
fn closed(answer: &Answer) -> bool {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
    }
    answer.status.is_redirection()
        && serde_json::from_slice::<Refusal>(&answer.body)
            .is_ok_and(|refusal| refusal.message == "Administrator initialization timeout")
}

/// `10.0.0.150:8000`, `[fd00::1]:8000`.
pub(super) fn authority(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}
