//! Probes against real sockets: servers that answer as recorded ones do, proxies, certificates.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::client::Patience;
use super::{HttpProbe, HttpTarget, ProbeClient, VllmProbe, VllmTarget, VllmWatch};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
// As a real server (vLLM 0.32.0) answered, but for the machine's paths.
const MODELS: &str = r#"{"object":"list","data":[{"id":"tiny","object":"model","created":1795545742,"owned_by":"vllm","root":"/models/tinyqwen","parent":null,"max_model_len":512,"permission":[]}]}"#;
const COMPLETION: &str = r#"{"id":"cmpl-a1fcd11c18ef6e68","object":"text_completion","created":1795545743,"model":"tiny","choices":[{"index":0,"text":"m","logprobs":null,"finish_reason":"length","stop_reason":null}],"usage":{"prompt_tokens":1,"total_tokens":2,"completion_tokens":1}}"#;
const DEAD_ENGINE: &str = r#"{"error":{"message":"EngineCore encountered an issue. See stack trace (above) for the root cause.","type":"InternalServerError","param":null,"code":500}}"#;

const AWAKE: &str = "vllm:num_requests_running{engine=\"0\",model_name=\"tiny\"} 1.0\nvllm:engine_sleep_state{engine=\"0\",model_name=\"tiny\",sleep_state=\"awake\"} 1.0\n";
const ASLEEP: &str = "vllm:num_requests_running{engine=\"0\",model_name=\"tiny\"} 0.0\nvllm:engine_sleep_state{engine=\"0\",model_name=\"tiny\",sleep_state=\"awake\"} 0.0\n";

/// A server whose answers are set by the test, and that counts completions.
#[derive(Clone)]
struct Vllm(Arc<Mutex<Answers>>);

struct Answers {
    health: u16,
    models: &'static str,
    completion: (u16, &'static str),
    hangs: bool,
    metrics: &'static str,
    key: Option<&'static str>,
    completions: usize,
}

impl Vllm {
    async fn start() -> (Self, u16) {
        let answers = Answers {
            health: 200,
            models: MODELS,
            completion: (200, COMPLETION),
            hangs: false,
            metrics: AWAKE,
            key: None,
            completions: 0,
        };
        let vllm = Self(Arc::new(Mutex::new(answers)));
        let listener = TcpListener::bind((HERE, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(answer).with_state(vllm.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (vllm, port)
    }

    fn set(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut self.0.lock().unwrap());
    }

    fn completions(&self) -> usize {
        self.0.lock().unwrap().completions
    }
}

async fn answer(State(vllm): State<Vllm>, uri: Uri, headers: HeaderMap) -> Response {
    let (status, body, hangs) = {
        let mut answers = vllm.0.lock().unwrap();
        let given = headers
            .get("authorization")
            .map(|value| value.to_str().unwrap().to_owned());
        let unauthorized = answers
            .key
            .is_some_and(|key| given != Some(format!("Bearer {key}")));
        match uri.path() {
            path if path.starts_with("/v1/") && unauthorized => {
                (401, r#"{"error":"Unauthorized"}"#, false)
            }
            "/health" => (answers.health, "", false),
            "/version" => (200, r#"{"version":"0.32.0"}"#, false),
            "/v1/models" => (200, answers.models, false),
            "/metrics" => (200, answers.metrics, false),
            "/v1/completions" => {
                answers.completions += 1;
                (answers.completion.0, answers.completion.1, answers.hangs)
            }
            _ => (404, r#"{"detail":"Not Found"}"#, false),
        }
    };
    if hangs {
        std::future::pending::<()>().await;
    }
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

fn client(proxy: Option<&str>) -> ProbeClient {
    let mut client = ProbeClient::new(proxy).unwrap();
    client.patience = Patience {
        answer: Duration::from_secs(5),
        first_token: Duration::from_millis(400),
    };
    client
}

fn target(port: u16) -> VllmTarget {
    VllmTarget {
        address: HERE,
        port,
        model: "tiny".to_owned(),
        api_key: None,
        args_hash: "h1".to_owned(),
    }
}

fn serving() -> VllmProbe {
    VllmProbe::Serving {
        models: vec!["tiny".to_owned()],
        version: Some("0.32.0".to_owned()),
    }
}

/// A port that nobody listens on.
async fn closed_port() -> u16 {
    TcpListener::bind((HERE, 0))
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[tokio::test]
async fn each_stage_of_a_server_has_its_answer() {
    let (vllm, port) = Vllm::start().await;
    let client = client(None);
    let probe = async || client.vllm(&target(port), true, &mut None).await;
    assert_eq!(probe().await, serving());
    vllm.set(|a| a.health = 503);
    assert_eq!(probe().await, VllmProbe::Unhealthy { status: 503 });
    vllm.set(|a| (a.health, a.models) = (200, r#"{"object":"list","data":[]}"#));
    assert_eq!(
        probe().await,
        VllmProbe::WrongModel { served: Vec::new() },
        "an empty list is not serving"
    );
    vllm.set(|a| a.models = r#"{"object":"list","data":[{"id":"other"},{"id":"lora"}]}"#);
    assert_eq!(
        probe().await,
        VllmProbe::WrongModel {
            served: vec!["other".to_owned(), "lora".to_owned()]
        }
    );
    vllm.set(|a| a.models = "<html>");
    assert!(matches!(probe().await, VllmProbe::Unreachable { .. }));
    vllm.set(|a| (a.models, a.completion) = (MODELS, (500, DEAD_ENGINE)));
    let dead = probe().await;
    assert!(
        matches!(&dead, VllmProbe::NoCompletion { why } if why.contains("EngineCore encountered")),
        "{dead:?}"
    );
    vllm.set(|a| a.hangs = true);
    let asleep = probe().await;
    assert!(
        matches!(&asleep, VllmProbe::NoCompletion { why } if why.contains("no answer within")),
        "{asleep:?}"
    );
    vllm.set(|a| (a.hangs, a.completion) = (false, (404, r#"{"detail":"Not Found"}"#)));
    assert_eq!(
        probe().await,
        serving(),
        "a model for embeddings completes nothing"
    );
    assert_eq!(
        client
            .vllm(&target(closed_port().await), true, &mut None)
            .await,
        VllmProbe::Refused
    );
}

#[tokio::test]
async fn the_key_is_for_the_api_alone() {
    let (vllm, port) = Vllm::start().await;
    vllm.set(|a| a.key = Some("EXAMPLE-KEY"));
    let client = client(None);
    assert_eq!(
        client.vllm(&target(port), true, &mut None).await,
        VllmProbe::Unauthorized
    );
    let with = |key: &str| VllmTarget {
        api_key: Some(SecretString::from(key)),
        ..target(port)
    };
    assert_eq!(
        client.vllm(&with("wrong"), true, &mut None).await,
        VllmProbe::Unauthorized
    );
    assert_eq!(
        client.vllm(&with("EXAMPLE-KEY"), true, &mut None).await,
        serving()
    );
    assert!(!format!("{:?}", with("EXAMPLE-KEY")).contains("EXAMPLE-KEY"));
}

#[tokio::test]
async fn an_engine_is_asked_for_one_completion() {
    let (vllm, port) = Vllm::start().await;
    let (client, mut watch) = (client(None), VllmWatch::default());
    for _ in 0..3 {
        assert_eq!(watch.look(&client, &target(port)).await, serving());
    }
    assert_eq!(vllm.completions(), 1);
    let elsewhere = VllmTarget {
        address: "127.0.0.2".parse().unwrap(),
        ..target(port)
    };
    vllm.set(|a| a.health = 503);
    watch.look(&client, &target(port)).await;
    vllm.set(|a| a.health = 200);
    watch.look(&client, &target(port)).await;
    assert_eq!(vllm.completions(), 2, "a new engine");
    watch
        .look(
            &client,
            &VllmTarget {
                args_hash: "h2".to_owned(),
                ..target(port)
            },
        )
        .await;
    assert_eq!(vllm.completions(), 3, "other arguments");
    assert_eq!(watch.look(&client, &elsewhere).await, VllmProbe::Refused);
    watch
        .look(
            &client,
            &VllmTarget {
                args_hash: "h2".to_owned(),
                ..target(port)
            },
        )
        .await;
    assert_eq!(vllm.completions(), 4, "it was seen away");
}

/// A SOCKS5 proxy that answers each request with the next code, and leads to `to` on success.
pub(crate) async fn socks(codes: &[u8], to: u16) -> (String, Arc<Mutex<Vec<SocketAddr>>>) {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let address = format!("socks5://{}", listener.local_addr().unwrap());
    let (mut codes, asked) = (
        VecDeque::from(codes.to_vec()),
        Arc::new(Mutex::new(Vec::new())),
    );
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut greeting = [0; 2];
            stream.read_exact(&mut greeting).await.unwrap();
            let mut methods = vec![0; greeting[1].into()];
            stream.read_exact(&mut methods).await.unwrap();
            stream.write_all(&[5, 0]).await.unwrap();
            let mut request = [0; 10];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(&request[..4], &[5, 1, 0, 1], "CONNECT by IPv4 address");
            let address = Ipv4Addr::new(request[4], request[5], request[6], request[7]);
            seen.lock()
                .unwrap()
                .push((address, u16::from_be_bytes([request[8], request[9]])).into());
            let code = codes.pop_front().unwrap_or(0);
            stream
                .write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0])
                .await
                .unwrap();
            if code == 0 {
                tokio::spawn(async move {
                    let mut guest = TcpStream::connect((HERE, to)).await.unwrap();
                    tokio::io::copy_bidirectional(&mut stream, &mut guest).await
                });
            }
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_socks_proxy_leads_to_the_container_and_says_why_not() {
    let (_vllm, port) = Vllm::start().await;
    let (address, asked) = socks(&[5, 4], port).await;
    let client = client(Some(&address));
    let inside = VllmTarget {
        address: "10.0.0.150".parse().unwrap(),
        port: 8000,
        ..target(port)
    };
    assert_eq!(
        client.vllm(&inside, true, &mut None).await,
        VllmProbe::Refused
    );
    let nowhere = client.vllm(&inside, true, &mut None).await;
    assert!(
        matches!(&nowhere, VllmProbe::Unreachable { why } if why.contains("unreachable")),
        "{nowhere:?}"
    );
    assert_eq!(client.vllm(&inside, true, &mut None).await, serving());
    assert!(
        asked
            .lock()
            .unwrap()
            .iter()
            .all(|to| *to == "10.0.0.150:8000".parse().unwrap())
    );
    let broken =
        ProbeClient::new(Some(&format!("socks5://127.0.0.1:{}", closed_port().await))).unwrap();
    let seen = broken.vllm(&inside, true, &mut None).await;
    assert!(
        matches!(&seen, VllmProbe::Unreachable { why } if why.contains("guest proxy itself")),
        "{seen:?}"
    );
}

#[tokio::test]
async fn an_http_proxys_own_answers_are_not_the_containers() {
    for (body, refused) in [
        ("10.0.0.150:8000: connection refused\n", true),
        ("10.0.0.150:8000: no route to host\n", false),
    ] {
        let listener = TcpListener::bind((HERE, 0)).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 4096];
                let count = stream.read(&mut head).await.unwrap();
                assert!(head[..count].starts_with(b"GET http://10.0.0.150:8000/health"));
                let answer = format!(
                    "HTTP/1.1 502 Bad Gateway\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let inside = VllmTarget {
            address: "10.0.0.150".parse().unwrap(),
            ..target(8000)
        };
        let seen = client(Some(&address)).vllm(&inside, true, &mut None).await;
        match seen {
            VllmProbe::Refused => assert!(refused),
            VllmProbe::Unreachable { why } => {
                assert!(!refused && why.contains("no route to host"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// An HTTPS server with a certificate that nobody trusts; answers 200 to the path `/api/system/status` and else redirects.
async fn portainer() -> u16 {
    let made = rcgen::generate_simple_self_signed(vec!["portainer".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![made.cert.der().clone()], key)
    .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut head = vec![0; 4096];
                let count = stream.read(&mut head).await.unwrap_or(0);
                let answer: &[u8] = if head[..count].starts_with(b"GET /api/system/status ") {
                    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
                } else {
                    b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /api/system/status\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                };
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    port
}

#[tokio::test]
async fn an_http_probe_expects_one_status_and_follows_nothing() {
    let port = portainer().await;
    let target = HttpTarget {
        https: true,
        address: HERE,
        port,
        path: "/api/system/status".to_owned(),
        expect_status: 200,
        insecure_skip_verify: true,
    };
    let client = client(None);
    assert_eq!(
        client.http(&target).await,
        HttpProbe::Healthy {
            status: 200,
            first_run: None
        }
    );
    let moved = HttpTarget {
        path: "/".to_owned(),
        ..target.clone()
    };
    assert_eq!(
        client.http(&moved).await,
        HttpProbe::Unhealthy {
            status: 307,
            first_run: None
        }
    );
    assert_eq!(
        client
            .http(&HttpTarget {
                expect_status: 307,
                ..moved
            })
            .await,
        HttpProbe::Healthy {
            status: 307,
            first_run: None
        }
    );
    let strict = client
        .http(&HttpTarget {
            insecure_skip_verify: false,
            ..target.clone()
        })
        .await;
    assert!(
        matches!(&strict, HttpProbe::Unreachable { why } if why.contains("certificate")),
        "{strict:?}"
    );
    let closed = client
        .http(&HttpTarget {
            port: closed_port().await,
            ..target.clone()
        })
        .await;
    assert_eq!(
        closed,
        HttpProbe::Unreachable {
            why: "the connection was refused".to_owned()
        }
    );
    let plain = client
        .http(&HttpTarget {
            https: false,
            ..target
        })
        .await;
    assert!(
        matches!(plain, HttpProbe::Unreachable { .. }),
        "TLS is not HTTP: {plain:?}"
    );
}

#[tokio::test]
async fn a_server_that_says_nothing_does_not_hold_a_probe() {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut client = client(None);
    client.patience.answer = Duration::from_millis(200);
    let seen = client.vllm(&target(port), false, &mut None).await;
    assert!(
        matches!(&seen, VllmProbe::Unreachable { why } if why.contains("no answer within")),
        "{seen:?}"
    );
}

#[test]
fn a_proxy_that_is_none_is_refused() {
    let error = ProbeClient::new(Some("not a proxy"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("not a proxy"), "{error}");
}

mod states;
