//! The server over real sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Pages, Server};
use crate::telemetry::Metrics;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The whole answer, head and body.
async fn get(address: SocketAddr, path: &str) -> String {
    let mut connection = TcpStream::connect(address).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    connection
        .write_all(request.as_bytes())
        .await
        .expect("sends");
    let mut answer = String::new();
    timeout(
        Duration::from_secs(5),
        connection.read_to_string(&mut answer),
    )
    .await
    .expect("answers")
    .expect("text");
    answer
}

fn pages(ready: &Arc<AtomicBool>) -> Pages {
    let metrics = Arc::new(Metrics::new());
    let ready = ready.clone();
    Pages {
        metrics: Arc::new(move || metrics.encode()),
        healthy: Arc::new(|| Ok(())),
        ready: Arc::new(move || {
            ready
                .load(Ordering::Relaxed)
                .then_some(())
                .ok_or_else(|| "CRD lxccontainers is not installed".to_owned())
        }),
    }
}

#[tokio::test]
async fn each_address_serves_its_paths() {
    let ready = Arc::new(AtomicBool::new(false));
    let server = Server::bind(ANY, ANY).await.expect("binds");
    let (metrics, health) = (server.metrics_addr(), server.health_addr());
    assert_ne!(metrics, health);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(server.run(pages(&ready), shutdown.clone()));

    let answer = get(metrics, "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{answer}"
    );
    assert!(answer.contains("phoenix_leader 0\n"), "{answer}");
    assert!(get(metrics, "/healthz").await.starts_with("HTTP/1.1 404"));

    assert!(get(health, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get(health, "/metrics").await.starts_with("HTTP/1.1 404"));
    let answer = get(health, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.ends_with("CRD lxccontainers is not installed\n"),
        "{answer}"
    );
    ready.store(true, Ordering::Relaxed);
    assert!(get(health, "/readyz").await.starts_with("HTTP/1.1 200"));

    shutdown.cancel();
    timeout(Duration::from_secs(1), running)
        .await
        .expect("ends at once when nobody waits")
        .expect("no panic")
        .expect("no error");
    assert!(TcpStream::connect(health).await.is_err(), "closed");
}

#[tokio::test]
async fn one_address_can_serve_all() {
    // The kernel names a free port; another process could take it before we do, hence several tries.
    for _ in 0..20 {
        let free = tokio::net::TcpListener::bind(ANY)
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let Ok(server) = Server::bind(free, free).await else {
            continue;
        };
        assert_eq!(server.metrics_addr(), server.health_addr());
        let shutdown = CancellationToken::new();
        let running =
            tokio::spawn(server.run(pages(&Arc::new(AtomicBool::new(true))), shutdown.clone()));
        for path in ["/metrics", "/healthz", "/readyz"] {
            assert!(get(free, path).await.starts_with("HTTP/1.1 200"), "{path}");
        }
        shutdown.cancel();
        running.await.unwrap().unwrap();
        return;
    }
    panic!("no free port in twenty tries");
}

#[tokio::test]
async fn a_silent_client_does_not_hold_up_the_end() {
    let server = Server::bind(ANY, ANY).await.expect("binds");
    let address = server.health_addr();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(server.run(pages(&Arc::default()), shutdown.clone()));
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(b"GET /healthz HT").await.unwrap();
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    shutdown.cancel();
    timeout(super::DRAIN + Duration::from_secs(2), running)
        .await
        .expect("ends")
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = tokio::net::TcpListener::bind(ANY).await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = Server::bind(ANY, address).await.expect_err("taken");
    assert_eq!(
        error.to_string(),
        format!("cannot listen on {address} for health")
    );
}
