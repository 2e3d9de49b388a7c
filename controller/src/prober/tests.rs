//! The loops against real servers.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use axum::{Router, extract::State, http::StatusCode, http::Uri};
use tokio::net::TcpListener;

use super::*;
use crate::wake::{KindName, WakeStreams};

/// A vLLM that was asked so often, and has generated more each time.
#[derive(Default)]
struct Server {
    looks: AtomicUsize,
    generated: AtomicU64,
    broken: AtomicUsize,
}

async fn answer(State(server): State<Arc<Server>>, uri: Uri) -> (StatusCode, String) {
    match uri.path() {
        "/health" if server.broken.load(Ordering::SeqCst) > 0 => {
            server.looks.fetch_add(1, Ordering::SeqCst);
            (StatusCode::SERVICE_UNAVAILABLE, String::new())
        }
        "/health" => {
            server.looks.fetch_add(1, Ordering::SeqCst);
            (StatusCode::OK, String::new())
        }
        "/v1/models" => (StatusCode::OK, r#"{"data":[{"id":"tiny"}]}"#.to_owned()),
        "/v1/completions" => (StatusCode::OK, r#"{"choices":[{}]}"#.to_owned()),
        "/metrics" => {
            let n = server.generated.fetch_add(16, Ordering::SeqCst) + 16;
            let text = format!(
                "vllm:num_requests_running{{engine=\"0\"}} 2.0\nvllm:generation_tokens_total{{engine=\"0\"}} {n}.0\n"
            );
            (StatusCode::OK, text)
        }
        _ => (StatusCode::NOT_FOUND, String::new()),
    }
}

struct World {
    server: Arc<Server>,
    metrics: Arc<Metrics>,
    prober: Arc<Prober>,
    port: u16,
    wakes: Wakes,
    streams: WakeStreams,
}

impl World {
    async fn new(at_rest: Duration) -> Self {
        let server = Arc::new(Server::default());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&server));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let metrics = Arc::new(Metrics::new());
        let pauses = Pauses {
            starting: Duration::from_millis(5),
            at_rest,
        };
        let prober = Arc::new(Prober {
            pauses,
            ..Prober::new(Arc::clone(&metrics))
        });
        let (wakes, streams) = Wakes::new();
        Self {
            server,
            metrics,
            prober,
            port,
            wakes,
            streams,
        }
    }

    fn ensure(&self, args_hash: &str) -> ProbeView {
        let spec = ProbeSpec::Vllm {
            port: self.port,
            model: "tiny".to_owned(),
            api_key: None,
            args_hash: args_hash.to_owned(),
        };
        let who = ObjectKey {
            kind: KindName::LxcContainer,
            namespace: "ai".to_owned(),
            name: "qwen".to_owned(),
        };
        self.prober
            .ensure("u", &spec, "127.0.0.1", None, &who, &self.wakes)
    }

    async fn woken(&mut self) {
        let woken = tokio::time::timeout(Duration::from_secs(30), self.streams.containers.recv());
        assert!(woken.await.expect("a wake in time").is_some());
    }

    async fn looks(&self, n: usize) {
        let seen = self.server.looks.load(Ordering::SeqCst);
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while self.server.looks.load(Ordering::SeqCst) < seen + n {
            assert!(std::time::Instant::now() < deadline, "it is looked at");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test]
async fn an_object_is_woken_by_news_only_and_figures_are_none() {
    let mut world = World::new(Duration::from_millis(5)).await;
    assert!(world.ensure("h1").unasked());
    world.woken().await;
    assert!(world.ensure("h1").healthy());
    world.looks(10).await;
    assert!(
        world.streams.containers.try_recv().is_err(),
        "ten more looks saw the same"
    );
    let text = world.metrics.encode();
    let labels = r#"{namespace="ai",name="qwen",model="tiny"}"#;
    assert!(
        text.contains(&format!("phoenix_vllm_requests_running{labels} 2\n")),
        "{text}"
    );
    assert!(
        text.contains(&format!("phoenix_vllm_generation_tokens_total{labels} ")),
        "{text}"
    );

    // it dies: that is news, and it isn't known any more how busy it is
    world.server.broken.store(1, Ordering::SeqCst);
    world.woken().await;
    assert!(!world.ensure("h1").healthy());
    assert!(!world.metrics.encode().contains("model=\"tiny\""));
    world.looks(10).await;
    assert!(world.streams.containers.try_recv().is_err());
    world.server.broken.store(0, Ordering::SeqCst);
    world.woken().await;
    assert!(world.metrics.encode().contains("model=\"tiny\""));

    world.prober.forget("u");
    assert!(!world.metrics.encode().contains("model=\"tiny\""));
}

#[tokio::test]
async fn looks_are_frequent_while_it_starts_and_rare_at_rest() {
    let mut world = World::new(Duration::from_hours(1)).await;
    world.server.broken.store(1, Ordering::SeqCst);
    world.ensure("h1");
    world.looks(10).await;
    world.woken().await;
    world.server.broken.store(0, Ordering::SeqCst);
    world.woken().await;
    let looks = world.server.looks.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.server.looks.load(Ordering::SeqCst), looks);
    // other arguments: nothing that was said before counts
    assert!(world.ensure("h2").unasked());
    world.woken().await;
    assert!(world.ensure("h2").healthy());
}
