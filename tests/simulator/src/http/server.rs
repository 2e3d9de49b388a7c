//! Accepts connections, and takes each request through the checks of a real Proxmox VE in their order.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Request, Version, header};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    RawParams, request,
    response::{self, Answer, Format, build},
};
use crate::{
    api,
    auth::{self, access::Identity, permission},
    calls::CallRecord,
    console,
    core::Core,
    era,
    fault::CallEffect,
    reply::{Failure, Outcome},
    schema::{Found, SCHEMA, validate},
};

/// An idle connection lives that long, and so does a half-sent request.
const IDLE: Duration = Duration::from_secs(5);
/// A request with more header lines is never answered.
const HEADERS: usize = 64;
/// Nor is one with a longer line.
const HEADER_LINE: usize = 8 << 10;
/// A connection serves that many requests.
const REQUESTS: u32 = 100;
/// Refused credentials are answered that late.
const REFUSAL: Duration = Duration::from_secs(3);

/// The proxy waits that long for its daemon.
const PROXY: Duration = Duration::from_secs(30);

/// The connection is cut without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut")]
struct Cut;

/// Serves until the simulator stops.
pub(crate) async fn run(core: Arc<Core>, listener: TcpListener) {
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = core.stop.cancelled() => return,
        };
        let core = Arc::clone(&core);
        core.running.clone().spawn(async move {
            tokio::select! {
                () = connection(&core, stream) => {}
                () = core.stop.cancelled() => {}
                () = core.recycle.notified() => {}
            }
        });
    }
}

async fn connection(core: &Arc<Core>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut first = [0_u8; 1];
    match timeout(IDLE, stream.peek(&mut first)).await {
        Ok(Ok(1)) => {}
        _ => return,
    }
    // 22 begins a TLS handshake; anything else is plain HTTP, which is sent to https.
    if first[0] != 22 {
        let redirect = service_fn(|request: Request<Incoming>| async move {
            Ok::<_, Infallible>(redirect(&request))
        });
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .serve_connection(TokioIo::new(stream), redirect)
            .await;
        return;
    }
    let acceptor = TlsAcceptor::from(core.certificate.current().server);
    let Ok(Ok(stream)) = timeout(IDLE, acceptor.accept(stream)).await else {
        return;
    };
    let served = AtomicU32::new(0);
    let served = &served;
    let service = service_fn(move |request| async move { serve(core, served, request).await });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended");
    }
}

fn redirect(request: &Request<Incoming>) -> Answer {
    let (code, reason) = if matches!(request.method().as_str(), "GET" | "HEAD") {
        (301, "Moved Permanently")
    } else {
        (308, "Permanent Redirect")
    };
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("localhost");
    let mut answer = response::respond(code, reason, None, Some(reason));
    answer
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("Keep-Alive"));
    if let Ok(location) = HeaderValue::try_from(format!("https://{host}{}", request.uri())) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    answer
}

async fn serve(
    core: &Arc<Core>,
    served: &AtomicU32,
    request: Request<Incoming>,
) -> Result<Answer, Cut> {
    let at = Instant::now();
    let method = request.method().to_string();
    let path = request
        .uri()
        .path_and_query()
        .map_or_else(String::new, ToString::to_string);
    let wants_close = wants_close(&request);
    let takes_gzip = says(&request, &header::ACCEPT_ENCODING, "gzip");
    let mut seen = Seen::default();
    let result = with_faults(core, request, &mut seen).await;
    let status = result.as_ref().map_or(0, |answer| answer.status().as_u16());
    let bare = path
        .split('?')
        .next()
        .unwrap_or_default()
        .trim_start_matches("/api2/json")
        .trim_start_matches("/api2/extjs")
        .to_owned();
    let record = CallRecord {
        at,
        method,
        endpoint: seen.endpoint.unwrap_or(bare),
        path,
        who: seen.who,
        code: status,
        took: at.elapsed(),
    };
    tracing::debug!(
        method = record.method,
        path = record.path,
        who = record.who,
        status,
        "answered"
    );
    core.calls.add(record);
    let last = served.fetch_add(1, Ordering::Relaxed) + 1 >= REQUESTS;
    let result = match result {
        Ok(answer) if answer.status().as_u16() >= 400 && core.config.host.is_old() => {
            Ok(era::rewrite(answer, era::without_message).await)
        }
        other => other,
    };
    let result = match result {
        Ok(answer) if takes_gzip => Ok(response::squeeze(answer).await),
        other => other,
    };
    result.map(|mut answer| {
        if answer.status() != 101 && !answer.headers().contains_key(header::CONNECTION) {
            let kept = if last || wants_close {
                "close"
            } else {
                "Keep-Alive"
            };
            answer
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static(kept));
        }
        answer
    })
}

/// Whether the client is done after this request: older ones always are.
fn wants_close(request: &Request<Incoming>) -> bool {
    request.version() < Version::HTTP_11 || says(request, &header::CONNECTION, "close")
}

/// Whether a header has that word in it.
fn says(request: &Request<Incoming>, name: &header::HeaderName, word: &str) -> bool {
    let value = request.headers().get(name);
    value
        .and_then(|value| value.to_str().ok())
        .is_some_and(|text| text.to_ascii_lowercase().contains(word))
}

/// Whether a request's head is one that is never answered.
fn too_much(headers: &HeaderMap) -> bool {
    headers.len() > HEADERS
        || headers
            .iter()
            .any(|(name, value)| name.as_str().len() + value.len() > HEADER_LINE)
}

/// What the call log needs to know.
#[derive(Default)]
struct Seen {
    endpoint: Option<String>,
    who: String,
}

async fn with_faults(
    core: &Arc<Core>,
    request: Request<Incoming>,
    seen: &mut Seen,
) -> Result<Answer, Cut> {
    let effect = core
        .faults
        .strike_call(request.method().as_str(), request.uri().path());
    if let Some(delay) = effect.as_ref().and_then(CallEffect::delay) {
        sleep(delay).await;
    }
    match &effect {
        Some(CallEffect::ResetBefore) => return Err(Cut),
        Some(CallEffect::Status { code, reason }) => {
            return Ok(build(&Err(response::injected(*code, reason)), Format::Json));
        }
        _ => {}
    }
    let slow = match &effect {
        Some(CallEffect::Slow { seconds }) => Some(Duration::from_secs_f64(seconds.max(0.0))),
        _ => None,
    };
    let answer = process(core, request, seen, slow).await;
    match effect {
        Some(CallEffect::TextNumbers) => Ok(era::rewrite(answer?, era::numbers_as_texts).await),
        Some(CallEffect::ResetAfter) => Err(Cut),
        Some(CallEffect::TimeoutAfter) => Ok(build(
            &Err(Failure::empty(596, "Connection timed out")),
            Format::Json,
        )),
        _ => answer,
    }
}

async fn process(
    core: &Arc<Core>,
    mut request: Request<Incoming>,
    seen: &mut Seen,
    slow: Option<Duration>,
) -> Result<Answer, Cut> {
    if request.headers().contains_key(header::EXPECT) || too_much(request.headers()) {
        sleep(IDLE).await;
        return Err(Cut);
    }
    let (format, path) = match head(&request) {
        Ok(head) => head,
        Err(failure) => return Ok(build(&Err(failure), Format::Json)),
    };
    let method = request.method().to_string();
    let found = SCHEMA.find(&method, &path);
    seen.endpoint = found.as_ref().map(|found| found.template.to_owned());
    let open = found
        .as_ref()
        .and_then(|found| found.method.permissions.as_ref())
        .is_some_and(|block| block.user.as_deref() == Some("world"));
    let who = match auth::identify(core, request.headers(), &method) {
        Ok(who) => Some(who),
        Err(_) if open => None,
        Err(failure) => {
            sleep(core.config.timing.wait(REFUSAL)).await;
            return Ok(build(&Err(failure), Format::Json));
        }
    };
    seen.who = who.as_ref().map(Identity::id).unwrap_or_default();
    if let Err(failure) = request::check_body_head(&method, request.headers()) {
        return Ok(build(&Err(failure), format));
    }
    let upgrade = found
        .as_ref()
        .is_some_and(|found| found.template.ends_with("/vncwebsocket"))
        .then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let Ok(Ok(body)) = timeout(IDLE, body.collect()).await else {
        return Err(Cut);
    };
    let sent = match request::parameters(parts.uri.query(), &parts.headers, &body.to_bytes()) {
        Ok(sent) => sent,
        Err(failure) => return Ok(build(&Err(failure), format)),
    };
    let Some(found) = found else {
        return Ok(build(
            &Err(Failure::not_implemented(&method, &path)),
            format,
        ));
    };
    let call = match prepare(core, &found, sent, who) {
        Ok(call) => call,
        Err(failure) => return Ok(build(&Err(failure), format)),
    };
    if let Some(upgrade) = upgrade {
        return match console::websocket::accept(&call, &parts.headers, upgrade) {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(Cut),
            Err(failure) => {
                sleep(core.config.timing.wait(REFUSAL)).await;
                Ok(build(&Err(failure), format))
            }
        };
    }
    let late = found.template == "/access/ticket";
    let outcome = carry_out(core, &found, call, slow).await;
    if late && outcome.as_ref().is_err_and(|failure| failure.status == 401) {
        sleep(core.config.timing.wait(REFUSAL)).await;
    }
    Ok(build(&outcome, format))
}

/// Method, encoding and formatter; the answer is the path below it.
fn head(request: &Request<Incoming>) -> Result<(Format, String), Failure> {
    let method = request.method().as_str();
    if !matches!(method, "GET" | "POST" | "PUT" | "DELETE") {
        return Err(Failure::empty(
            501,
            format!("method '{method}' not available"),
        ));
    }
    request::check_encoding(request.headers())?;
    let path = request.uri().path();
    let Some(rest) = path.strip_prefix("/api2/") else {
        return Err(Failure::plain(500, format!("no such file '{path}'\n")));
    };
    let (format, below) = match rest.split_once('/') {
        Some((format, below)) => (format, format!("/{below}")),
        None => (rest, "/".to_owned()),
    };
    match format {
        "json" => Ok((Format::Json, below)),
        "extjs" => Ok((Format::ExtJs, below)),
        other => Err(Failure::plain(
            501,
            format!("no formatter for uri {below}, {other}"),
        )),
    }
}

/// From permissions to validated parameters.
fn prepare(
    core: &Arc<Core>,
    found: &Found<'static>,
    sent: RawParams,
    who: Option<Identity>,
) -> Result<api::Call, Failure> {
    let params = request::merge(&found.uri, sent)?;
    let texts = params
        .iter()
        .map(|(key, value)| (key.clone(), value.text()))
        .collect();
    if let Some(who) = &who {
        if who.token.is_some() && !found.method.allowtoken {
            return Err(Failure::forbidden(&format!(
                "URI '{}' not available with API token, need proper ticket.\n",
                found.template
            )));
        }
        permission::check(
            found.method.permissions.as_ref(),
            &core.state().access,
            who,
            &texts,
        )?;
    }
    let node = target(core, found)?;
    let mut errors = validate(&found.method.parameters.properties, &params);
    if core.config.host.is_old() {
        errors.extend(era::unknown(found.template, &params));
    }
    if !errors.is_empty() {
        return Err(Failure::parameters(errors));
    }
    let who = who.unwrap_or_else(|| Identity::user(""));
    Ok(api::Call {
        core: Arc::clone(core),
        who,
        node,
        params: texts,
    })
}

/// The node that the call is for, where it can be reached.
fn target(core: &Core, found: &Found<'static>) -> Result<String, Failure> {
    let contacted = core.contacted_node();
    let Some(name) = found.uri.get("node").filter(|name| *name != "localhost") else {
        return Ok(contacted.to_owned());
    };
    if found.method.proxyto.is_none() {
        return Ok(name.clone());
    }
    match core.state().nodes.get(name) {
        None => Err(Failure::die(format!(
            "hostname lookup '{name}' failed - failed to get address info for: {name}: Name or service not known"
        ))),
        Some(node) if !node.online => Err(Failure::empty(595, "No route to host")),
        Some(_) => Ok(name.clone()),
    }
}

/// Protected methods need one of the daemon's three workers. The work goes on when the client goes away, or when the proxy gives up.
async fn carry_out(
    core: &Arc<Core>,
    found: &Found<'static>,
    call: api::Call,
    slow: Option<Duration>,
) -> Outcome {
    let daemon = Arc::clone(core);
    let (template, name, protected) = (found.template, found.name, found.method.protected);
    let mut work = core.running.spawn(async move {
        let _worker = if protected {
            daemon.workers.acquire().await.ok()
        } else {
            None
        };
        sleep(slow.unwrap_or_default()).await;
        api::dispatch(template, name, call).await
    });
    let done = match slow {
        None => work.await,
        Some(_) => match timeout(core.config.timing.wait(PROXY), &mut work).await {
            Ok(done) => done,
            Err(_) => return Err(Failure::empty(596, "Connection timed out")),
        },
    };
    match done {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::error!(%error, endpoint = found.template, "a handler panicked");
            Err(Failure::die("the simulator's handler panicked"))
        }
    }
}
