//! Switching faults of a running simulator from a shell.

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use proxmox_simulator::{CallEffect, Fault, Mishap, TaskEffect};

/// Faults of a running simulator.
#[derive(Args)]
pub(crate) struct FaultArgs {
    /// The simulator's admin address, as `serve` printed it.
    #[arg(long, env = "PROXMOX_SIMULATOR_ADMIN")]
    admin: String,
    #[command(subcommand)]
    action: FaultAction,
}

#[derive(Subcommand)]
enum FaultAction {
    /// Calls fail.
    Call {
        /// `POST`; any where left out.
        #[arg(long)]
        method: Option<String>,
        /// The end of the path: `/lxc/900/clone`.
        #[arg(long, default_value = "")]
        path: String,
        /// How often; for ever where left out.
        #[arg(long)]
        times: Option<u32>,
        /// What happens.
        #[arg(value_enum)]
        effect: CallWord,
        /// Seconds of a delay, or the status code.
        #[arg(long)]
        value: Option<f64>,
        /// The text of a status.
        #[arg(long, default_value = "injected")]
        reason: String,
    },
    /// Tasks fail.
    Task {
        /// `vzclone`; any where left out.
        #[arg(long)]
        kind: Option<String>,
        /// The container; of a clone its source.
        #[arg(long)]
        vmid: Option<u32>,
        /// How often; for ever where left out.
        #[arg(long)]
        times: Option<u32>,
        /// What happens.
        #[arg(value_enum)]
        effect: TaskWord,
        /// Seconds by which it is slower.
        #[arg(long)]
        value: Option<f64>,
        /// The text of a failure.
        #[arg(long, default_value = "injected")]
        reason: String,
    },
    /// What waits for its victim.
    List,
    /// All faults go.
    Clear,
    #[command(flatten)]
    Mishap(Mishap),
}

#[derive(Clone, Copy, ValueEnum)]
enum CallWord {
    /// Answered later (`--value` seconds).
    Delay,
    /// Answered with a status (`--value` code, `--reason`), nothing done.
    Status,
    /// Cut before anything is done.
    ResetBefore,
    /// Done, but cut instead of an answer.
    ResetAfter,
    /// Done, but answered 596.
    TimeoutAfter,
    /// Done only `--value` seconds later; after 30 s of that the answer is 596.
    Slow,
    /// Numbers come as texts.
    TextNumbers,
}

#[derive(Clone, Copy, ValueEnum)]
enum TaskWord {
    /// Fails half-way with `--reason` and cleans up.
    Fail,
    /// Killed half-way: locks stay.
    Kill,
    /// Killed before it could tidy up: locks stay, and what it made is named.
    KillLate,
    /// Goes on for ever and is killed when it's stopped.
    Stuck,
    /// Succeeds, with `--reason` as a warning.
    Warn,
    /// Goes on for ever.
    Hang,
    /// Takes `--value` seconds longer.
    Slow,
}

/// Does it; the answer is what the simulator said.
pub(crate) async fn run(args: FaultArgs) -> Result<String> {
    let fault = match args.action {
        FaultAction::List => return ask(&args.admin, "GET", "/faults", None).await,
        FaultAction::Clear => return ask(&args.admin, "DELETE", "/faults", None).await,
        FaultAction::Mishap(mishap) => {
            let mishap = serde_json::to_value(mishap)?;
            return ask(&args.admin, "POST", "/mishaps", Some(mishap)).await;
        }
        FaultAction::Call {
            method,
            path,
            times,
            effect,
            value,
            reason,
        } => {
            let effect = match effect {
                CallWord::Delay => CallEffect::Delay {
                    seconds: value.context("a delay needs --value SECONDS")?,
                },
                CallWord::Status => CallEffect::Status {
                    code: code(value)?,
                    reason,
                },
                CallWord::ResetBefore => CallEffect::ResetBefore,
                CallWord::ResetAfter => CallEffect::ResetAfter,
                CallWord::TimeoutAfter => CallEffect::TimeoutAfter,
                CallWord::Slow => CallEffect::Slow {
                    seconds: value.context("slowness needs --value SECONDS")?,
                },
                CallWord::TextNumbers => CallEffect::TextNumbers,
            };
            Fault::Call {
                method,
                path,
                effect,
                times,
            }
        }
        FaultAction::Task {
            kind,
            vmid,
            times,
            effect,
            value,
            reason,
        } => {
            let effect = match effect {
                TaskWord::Fail => TaskEffect::Fail { text: reason },
                TaskWord::Kill => TaskEffect::Kill,
                TaskWord::KillLate => TaskEffect::KillLate,
                TaskWord::Stuck => TaskEffect::Stuck,
                TaskWord::Warn => TaskEffect::Warn { text: reason },
                TaskWord::Hang => TaskEffect::Hang,
                TaskWord::Slow => TaskEffect::Slow {
                    seconds: value.context("slowness needs --value SECONDS")?,
                },
            };
            Fault::Task {
                kind,
                vmid,
                effect,
                times,
            }
        }
    };
    let fault = serde_json::to_value(fault)?;
    ask(&args.admin, "POST", "/faults", Some(fault)).await
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be in range"
)]
fn code(value: Option<f64>) -> Result<u16> {
    match value {
        Some(code) if (100.0..1000.0).contains(&code) => Ok(code as u16),
        _ => bail!("a status needs --value CODE, 100 to 999"),
    }
}

async fn ask(admin: &str, method: &str, path: &str, body: Option<Value>) -> Result<String> {
    let address = admin
        .strip_prefix("http://")
        .unwrap_or(admin)
        .trim_end_matches('/');
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("no simulator's admin port at {address}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let body = body.map_or_else(String::new, |body| body.to_string());
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", address)
        .header("content-type", "application/json")
        .body(Full::new(bytes::Bytes::from(body)))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let text =
        String::from_utf8_lossy(&answer.into_body().collect().await?.to_bytes()).into_owned();
    if status.is_success() {
        Ok(text)
    } else {
        bail!("{status}: {text}")
    }
}
