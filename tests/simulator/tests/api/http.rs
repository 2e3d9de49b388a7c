//! HTTP as Proxmox VE's own server speaks it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proxmox_simulator::Simulator;
use rustls::{
    ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer, pki_types::pem::PemObject,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::client::{Client, simulator};

async fn connect(simulator: &Simulator) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(simulator.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", simulator.port()))
        .await
        .unwrap();
    TlsConnector::from(Arc::new(tls))
        .connect("localhost".try_into().unwrap(), stream)
        .await
        .unwrap()
}

/// Sends raw bytes and reads until the server is silent for a moment or closes; whether it closed.
async fn exchange(stream: &mut TlsStream<TcpStream>, request: &str) -> (String, bool) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match tokio::time::timeout(Duration::from_millis(300), stream.read(&mut buffer)).await {
            Err(_) => return (String::from_utf8(got).unwrap(), false),
            Ok(Ok(0) | Err(_)) => return (String::from_utf8(got).unwrap(), true),
            Ok(Ok(count)) => got.extend_from_slice(&buffer[..count]),
        }
    }
}

fn head(simulator: &Simulator, line: &str) -> String {
    let token = simulator.token();
    format!(
        "{line} HTTP/1.1\r\nHost: x\r\nAuthorization: PVEAPIToken={}={}\r\n",
        token.id, token.secret
    )
}

#[tokio::test]
async fn status_lines_carry_proxmoxs_words() {
    let simulator = simulator().await;
    for (line, more, status, closed) in [
        ("GET /api2/json/version", "\r\n", "HTTP/1.1 200 OK", false),
        (
            "GET /api2/json/nosuch",
            "\r\n",
            "HTTP/1.1 501 Method 'GET /nosuch' not implemented",
            true,
        ),
        (
            "PUT /api2/json/version",
            "\r\n",
            "HTTP/1.1 501 Method 'PUT /version' not implemented",
            true,
        ),
        (
            "PATCH /api2/json/version",
            "\r\n",
            "HTTP/1.1 501 method 'PATCH' not available",
            true,
        ),
        (
            "HEAD /api2/json/version",
            "\r\n",
            "HTTP/1.1 501 method 'HEAD' not available",
            true,
        ),
        (
            "GET /nosuch",
            "\r\n",
            "HTTP/1.1 500 no such file '/nosuch'",
            true,
        ),
        (
            "GET /api2/foo/version",
            "\r\n",
            "HTTP/1.1 501 no formatter for uri /version, foo",
            true,
        ),
        (
            "PUT /api2/json/nodes/pve/lxc/999/config",
            "Transfer-Encoding: chunked\r\n\r\n7\r\ncores=2\r\n0\r\n\r\n",
            "HTTP/1.1 501 chunked transfer encoding not supported",
            true,
        ),
        (
            "DELETE /api2/json/nodes/pve/lxc/999",
            "Content-Length: 7\r\n\r\npurge=1",
            "HTTP/1.1 501 Unexpected content for method 'DELETE'",
            true,
        ),
        (
            "PUT /api2/json/nodes/pve/lxc/999/config",
            "Content-Length: 614400\r\n\r\n",
            "HTTP/1.1 501 for data too large",
            true,
        ),
        (
            "POST /api2/json/nodes/pve/lxc",
            "Content-Type: text/plain\r\nContent-Length: 1\r\n\r\nx",
            "HTTP/1.1 506 upload 'Content-Type 'text/plain' not implemented",
            true,
        ),
        (
            "GET /api2/json/nodes/nosuch/lxc",
            "\r\n",
            "HTTP/1.1 500 hostname lookup 'nosuch' failed - failed to get address info for: nosuch: Name or service not known",
            true,
        ),
    ] {
        let mut stream = connect(&simulator).await;
        let (answer, over) =
            exchange(&mut stream, &format!("{}{more}", head(&simulator, line))).await;
        assert_eq!(answer.lines().next(), Some(status), "{line}");
        assert_eq!(over, closed, "{line}: a connection is closed from 400 on");
    }
}

#[tokio::test]
async fn a_connection_serves_a_hundred_requests() {
    let simulator = simulator().await;
    let mut stream = connect(&simulator).await;
    let request = format!("{}\r\n", head(&simulator, "GET /api2/json/version"));
    let mut served = 0;
    let mut text = String::new();
    let mut buffer = [0; 4096];
    for _ in 0..100 {
        stream.write_all(request.as_bytes()).await.unwrap();
        let count = stream.read(&mut buffer).await.unwrap();
        text = String::from_utf8_lossy(&buffer[..count]).into_owned();
        served += usize::from(text.starts_with("HTTP/1.1 200 OK"));
    }
    assert_eq!(served, 100);
    assert!(text.to_lowercase().contains("connection: close"), "{text}");
    assert!(
        matches!(stream.read(&mut buffer).await, Ok(0) | Err(_)),
        "then the server closes"
    );
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_five_seconds() {
    let simulator = simulator().await;
    let mut stream = connect(&simulator).await;
    let (answer, over) = exchange(
        &mut stream,
        &format!("{}\r\n", head(&simulator, "GET /api2/json/version")),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200") && !over);
    let begun = Instant::now();
    let mut buffer = [0; 16];
    let end = tokio::time::timeout(Duration::from_secs(8), stream.read(&mut buffer))
        .await
        .expect("it is closed in time");
    assert!(matches!(end, Ok(0) | Err(_)));
    assert!(
        begun.elapsed() > Duration::from_secs(4),
        "not before: {:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn plain_http_is_sent_to_https() {
    let simulator = simulator().await;
    let mut stream = TcpStream::connect(("127.0.0.1", simulator.port()))
        .await
        .unwrap();
    stream
        .write_all(b"GET /api2/json/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 301 Moved Permanently"), "{text}");
    assert!(text.contains("https://x/api2/json/version"), "{text}");
}

#[tokio::test]
async fn extjs_answers_200_with_the_code_inside() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    let answer = operator.get("/api2/extjs/nodes/pve/lxc/999/config").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        (&answer.body["success"], &answer.body["status"]),
        (&0.into(), &500.into())
    );
    assert_eq!(operator.get("/api2/extjs/version").await.body["success"], 1);
}

#[tokio::test]
async fn the_pinned_certificate_can_change() {
    let simulator = simulator().await;
    let before = simulator.fingerprint();
    assert_eq!(before.len(), 95);
    let operator = Client::operator(&simulator);
    let told = operator.get("/nodes/pve/certificates/info").await;
    assert_eq!(told.body["data"][1]["fingerprint"], before.as_str());
    simulator.replace_certificate().unwrap();
    assert_ne!(simulator.fingerprint(), before);
    assert!(Client::operator(&simulator).get("/version").await.status == 200);
}

#[tokio::test]
async fn calls_are_counted_by_endpoint() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    for _ in 0..3 {
        operator.get("/cluster/resources").await;
    }
    operator.get("/nodes/pve/lxc/999/config").await;
    let counts = simulator.call_counts();
    assert_eq!(
        counts[&("GET".to_owned(), "/cluster/resources".to_owned(), 200)],
        3
    );
    assert_eq!(
        counts[&(
            "GET".to_owned(),
            "/nodes/{node}/lxc/{vmid}/config".to_owned(),
            500
        )],
        1
    );
    assert!(
        simulator
            .calls()
            .iter()
            .all(|call| call.who == "phoenix@pve!operator")
    );
    simulator.clear_calls();
    assert!(simulator.calls().is_empty());
}
