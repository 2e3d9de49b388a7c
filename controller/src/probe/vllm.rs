//! The vLLM probe. Serving means three things together: `/health` is 200, `/v1/models` lists the name, and, where the model serves
//! completions, one of one token has come back since the engine started.
//!
//! What real servers do over their life decides the rest: while loading they refuse connections; a dead engine shows as 503 for
//! seconds or not at all, then as refused; `/v1/models` answers before and after the model does; only `/v1` asks for the key.

use std::net::IpAddr;

use reqwest::StatusCode;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::client::{Answer, ProbeClient, Unanswered};
use super::figures::VllmFigures;
use super::http::authority;

/// What is asked where.
#[derive(Debug, Clone)]
pub struct VllmTarget {
    /// The container's address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The name that must be served.
    pub model: String,
    /// The key that the server asks for.
    pub api_key: Option<SecretString>,
    /// The hash of the arguments that the engine should run with: with another one it's another engine.
    pub args_hash: String,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VllmProbe {
    /// It serves the model.
    Serving {
        /// All names that it serves.
        models: Vec<String>,
        /// The server's version, where it tells.
        version: Option<String>,
    },
    /// Nobody listens: it is loading, or it has ended.
    Refused,
    /// `/health` answers with something else than 200.
    Unhealthy {
        /// With what.
        status: u16,
    },
    /// It serves, but not this model. Empty: none at all.
    WrongModel {
        /// What it serves.
        served: Vec<String>,
    },
    /// It is healthy and lists the model, but no token came back: it is warming up, asleep or broken.
    NoCompletion {
        /// For a sentence: what happened instead.
        why: String,
    },
    /// It refuses the key.
    Unauthorized,
    /// There is no way there, or it gives no sensible answer.
    Unreachable {
        /// For a sentence: what happened instead.
        why: String,
    },
}

/// Watches one server over its life, so that it is asked for a completion once per engine and not at every look.
#[derive(Debug, Default)]
pub struct VllmWatch {
    /// The arguments' hash of the engine that has completed something, until it was seen away.
    completed: Option<String>,
    figures: Option<VllmFigures>,
}

impl VllmWatch {
    /// Looks once.
    pub async fn look(&mut self, client: &ProbeClient, target: &VllmTarget) -> VllmProbe {
        let done = self.completed.as_deref() == Some(target.args_hash.as_str());
        self.figures = None;
        let seen = client.vllm(target, !done, &mut self.figures).await;
        match &seen {
            VllmProbe::Serving { .. } => self.completed = Some(target.args_hash.clone()),
            // A network that broke for a moment does not restart an engine.
            VllmProbe::Unreachable { .. } => {}
            _ => self.completed = None,
        }
        seen
    }

    /// How busy the server was at the last look; `None` where it didn't say.
    pub fn figures(&self) -> Option<VllmFigures> {
        self.figures
    }
}

impl ProbeClient {
    /// Looks once; `complete`: ask for a token, too. `figures` takes what the server tells of its work.
    pub(super) async fn vllm(
        &self,
        target: &VllmTarget,
        complete: bool,
        figures: &mut Option<VllmFigures>,
    ) -> VllmProbe {
        self.stages(target, complete, figures)
            .await
            .unwrap_or_else(|seen| seen)
    }

    async fn stages(
        &self,
        target: &VllmTarget,
        complete: bool,
        figures: &mut Option<VllmFigures>,
    ) -> Result<VllmProbe, VllmProbe> {
        let health = self.get_vllm(target, "/health").await?;
        if health.status != StatusCode::OK {
            return Err(VllmProbe::Unhealthy {
                status: health.status.as_u16(),
            });
        }
        let models = self.models(target).await?;
        if !models.contains(&target.model) {
            return Err(VllmProbe::WrongModel { served: models });
        }
        *figures = self
            .get_vllm(target, "/metrics")
            .await
            .ok()
            .filter(|answer| answer.status == StatusCode::OK)
            .and_then(|answer| VllmFigures::parse(&String::from_utf8_lossy(&answer.body)));
        if figures.is_some_and(|figures| figures.asleep) {
            // all else answers as if it were awake, and a request would hang
            return Err(VllmProbe::NoCompletion {
                why: "it was put to sleep, so that requests hang; wake it by POST /wake_up"
                    .to_owned(),
            });
        }
        if complete {
            self.complete(target).await?;
        }
        let version = self
            .get_vllm(target, "/version")
            .await
            .ok()
            .and_then(|answer| parse::<Version>(&answer));
        Ok(VllmProbe::Serving {
            models,
            version: version.map(|version| version.version),
        })
    }

    async fn models(&self, target: &VllmTarget) -> Result<Vec<String>, VllmProbe> {
        let answer = self.get_vllm(target, "/v1/models").await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(VllmProbe::Unauthorized);
            }
            status => {
                return Err(VllmProbe::Unreachable {
                    why: format!("/v1/models answers {}", status.as_u16()),
                });
            }
        }
        let list: Models = parse(&answer).ok_or_else(|| VllmProbe::Unreachable {
            why: "/v1/models answers with something that is no list of models".to_owned(),
        })?;
        Ok(list.data.into_iter().map(|model| model.id).collect())
    }

    /// One token. A model that serves no completions (embeddings, ranking) says so by 404 or 400, and that will do.
    async fn complete(&self, target: &VllmTarget) -> Result<(), VllmProbe> {
        let failed = |why: String| VllmProbe::NoCompletion { why };
        let question = serde_json::json!({ "model": target.model, "prompt": "1", "max_tokens": 1, "temperature": 0 });
        let request = self
            .request(target, reqwest::Method::POST, "/v1/completions")
            .map_err(|e| failed(e.why()))?;
        let answer = match self
            .ask(request.json(&question), Some(self.patience.first_token))
            .await
        {
            Err(Unanswered::Refused) => return Err(VllmProbe::Refused),
            Err(unanswered) => {
                return Err(failed(format!("a completion got {}", unanswered.why())));
            }
            Ok(answer) => answer,
        };
        match answer.status {
            StatusCode::OK
                if parse::<Completion>(&answer)
                    .is_some_and(|completion| !completion.choices.is_empty()) =>
            {
                Ok(())
            }
            StatusCode::OK => Err(failed("a completion came back without a choice".to_owned())),
            StatusCode::NOT_FOUND
            | StatusCode::BAD_REQUEST
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED => Ok(()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(VllmProbe::Unauthorized),
            status => Err(failed(format!(
                "a completion was answered with {}{}",
                status.as_u16(),
                said(&answer)
            ))),
        }
    }

    async fn get_vllm(&self, target: &VllmTarget, path: &str) -> Result<Answer, VllmProbe> {
        let asked = async {
            self.ask(self.request(target, reqwest::Method::GET, path)?, None)
                .await
        };
        asked.await.map_err(|unanswered| match unanswered {
            Unanswered::Refused => VllmProbe::Refused,
            other => VllmProbe::Unreachable { why: other.why() },
        })
    }

    fn request(
        &self,
        target: &VllmTarget,
        method: reqwest::Method,
        path: &str,
    ) -> Result<reqwest::RequestBuilder, Unanswered> {
        let url = format!("http://{}{path}", authority(target.address, target.port));
        let request = self.client(false)?.request(method, url);
        Ok(match &target.api_key {
            Some(key) if path.starts_with("/v1/") => request.bearer_auth(key.expose_secret()),
            _ => request,
        })
    }
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Failure {
    error: FailureText,
}

#[derive(Deserialize)]
struct FailureText {
    message: String,
}

fn parse<T: for<'de> Deserialize<'de>>(answer: &Answer) -> Option<T> {
    serde_json::from_slice(&answer.body).ok()
}

/// vLLM's own words for an error, shortened.
fn said(answer: &Answer) -> String {
    parse::<Failure>(answer)
        .map(|failure| {
            format!(
                ": {}",
                failure.error.message.chars().take(200).collect::<String>()
            )
        })
        .unwrap_or_default()
}
