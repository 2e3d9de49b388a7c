//! Which calls are repeated, which are not, and which endpoint is asked.

use crate::server::{Reply, Server, config};
use proxmox_client::{CallObserver, Client, ErrorKind, Params, Timeouts};
use serde_json::json;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::net::TcpListener;

const UPID: &str = "UPID:pve1:00000525:0000FB6A:6B05DEC6:vzstart:100:op@pve!op:";

#[tokio::test]
async fn a_read_is_sent_once_more_when_its_connection_breaks() {
    for broken in [|| Reply::Cut, || Reply::Half] {
        let server = Server::start(move |seen| {
            if seen.number == 1 {
                broken()
            } else {
                Reply::data(&json!({"version": "9.2.11", "release": "9.2"}))
            }
        })
        .await;
        assert_eq!(server.client().version().await.unwrap().version, "9.2.11");
        assert_eq!(server.seen().len(), 2);
    }
}

#[tokio::test]
async fn a_read_is_not_sent_a_third_time() {
    let server = Server::start(|_| Reply::Cut).await;
    assert_eq!(
        server.client().version().await.unwrap_err().kind,
        ErrorKind::Unreachable
    );
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_write_without_an_answer_is_unknown_and_never_repeated() {
    for broken in [|| Reply::Cut, || Reply::Half] {
        let lost = Server::start(move |_| broken()).await;
        let other = Server::start(|_| Reply::data(&json!(UPID))).await;
        let client = Client::new(config(&[&lost, &other])).unwrap();
        let error = client.ct_start("pve1", 100).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unknown, "{error}");
        assert_eq!((lost.seen().len(), other.seen().len()), (1, 0));
    }
}

#[tokio::test]
async fn a_write_that_takes_too_long_is_unknown_and_a_read_unreachable() {
    let server = Server::start(|_| Reply::Silence).await;
    let mut config = config(&[&server]);
    config.timeouts.call = Duration::from_millis(300);
    let client = Client::new(config).unwrap();
    assert_eq!(
        client.ct_stop("pve1", 100).await.unwrap_err().kind,
        ErrorKind::Unknown
    );
    assert_eq!(
        client.version().await.unwrap_err().kind,
        ErrorKind::Unreachable
    );
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over_and_remembered() {
    // Bound and never accepted from is not dead: a port that nobody listens on is.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = format!("https://{}", listener.local_addr().unwrap());
    drop(listener);
    let server = Server::start(|_| Reply::data(&json!(UPID))).await;
    let calls = Arc::new(Calls::default());
    let mut config = config(&[&server]);
    config.endpoints.insert(0, dead);
    config.observer = Some(Arc::clone(&calls) as Arc<dyn CallObserver>);
    let client = Client::new(config).unwrap();
    // A write too: nothing of it was sent.
    client.ct_start("pve1", 100).await.unwrap();
    client.ct_start("pve1", 101).await.unwrap();
    assert_eq!(server.seen().len(), 2);
    let codes: Vec<u16> = calls
        .0
        .lock()
        .unwrap()
        .iter()
        .map(|(_, _, code)| *code)
        .collect();
    assert_eq!(codes, [0, 200, 200], "the dead one was asked once");
}

#[tokio::test]
async fn with_no_endpoint_alive_all_are_asked_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let idle = Server::start(|_| Reply::data(&json!({}))).await;
    let mut config = config(&[&idle]);
    config.endpoints = vec![format!("https://{address}")];
    drop(listener);
    let client = Client::new(config).unwrap();
    let error = client.version().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.message.contains(&address.to_string()), "{error}");
    assert_eq!(
        client.version().await.unwrap_err().kind,
        ErrorKind::Unreachable
    );
}

#[derive(Default)]
struct Calls(Mutex<Vec<(&'static str, &'static str, u16)>>);

impl CallObserver for Calls {
    fn call(&self, endpoint_template: &'static str, method: &'static str, code: u16, seconds: f64) {
        assert!(seconds >= 0.0);
        self.0
            .lock()
            .unwrap()
            .push((endpoint_template, method, code));
    }
}

#[tokio::test]
async fn calls_are_reported_by_template_and_sent_as_proxmox_wants_them() {
    let server = Server::start(|_| Reply::data(&json!(UPID))).await;
    let calls = Arc::new(Calls::default());
    let mut config = config(&[&server]);
    config.observer = Some(Arc::clone(&calls) as Arc<dyn CallObserver>);
    let client = Client::new(config).unwrap();
    let params = Params::new()
        .set("newid", 901)
        .set("hostname", "a b&c")
        .flag("full", false);
    client.ct_clone("pve1", 900, &params).await.unwrap();
    client.ct_delete("pve/1", 901, true).await.unwrap();
    client.ct_start("pve1", 900).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].path, "/api2/json/nodes/pve1/lxc/900/clone");
    assert_eq!(
        (seen[0].body.as_str(), seen[0].header("content-type")),
        (
            "newid=901&hostname=a+b%26c&full=0",
            "application/x-www-form-urlencoded"
        )
    );
    assert_eq!(
        seen[0].header("authorization"),
        "PVEAPIToken=op@pve!op=s3cret"
    );
    assert_eq!(
        (seen[1].path.as_str(), seen[1].query.as_str()),
        ("/api2/json/nodes/pve%2F1/lxc/901", "purge=1")
    );
    assert!(
        seen[1].body.is_empty() && !seen[1].headers.contains_key("content-length"),
        "Proxmox refuses a body on DELETE"
    );
    assert!(
        !seen[0].headers.contains_key("transfer-encoding")
            && !seen[0].headers.contains_key("accept-encoding")
    );
    assert!(
        seen.iter().all(|s| s.connection == 1),
        "one connection serves them all"
    );
    let calls = calls.0.lock().unwrap();
    assert_eq!(calls[0], ("/nodes/{node}/lxc/{vmid}/clone", "POST", 200));
    assert_eq!(calls[1], ("/nodes/{node}/lxc/{vmid}", "DELETE", 200));
}

#[tokio::test]
async fn a_connection_idle_for_longer_than_proxmox_keeps_it_is_not_used_again() {
    assert!(Timeouts::default().idle < Duration::from_secs(5));
    let server = Server::start(|_| Reply::data(&json!({"version": "9.2.11"}))).await;
    let mut config = config(&[&server]);
    config.timeouts.idle = Duration::from_millis(50);
    let client = Client::new(config).unwrap();
    client.version().await.unwrap();
    client.version().await.unwrap();
    tokio::time::sleep(Duration::from_millis(90)).await;
    client.version().await.unwrap();
    let connections: Vec<usize> = server.seen().iter().map(|s| s.connection).collect();
    assert_eq!(connections, [1, 1, 2]);
}

#[tokio::test]
async fn no_more_than_the_allowed_number_of_calls_is_in_flight() {
    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let server = Server::start(|_| {
        MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(20));
        NOW.fetch_sub(1, Ordering::SeqCst);
        Reply::data(&json!({"version": "9"}))
    })
    .await;
    let mut config = config(&[&server]);
    config.timeouts.calls_per_endpoint = 1;
    let client = Client::new(config).unwrap();
    let began = Instant::now();
    let calls = (0..5).map(|_| client.version());
    assert!(
        futures::future::join_all(calls)
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert!(began.elapsed() >= Duration::from_millis(100));
    assert_eq!(MOST.load(Ordering::SeqCst), 1);
    assert!(
        server.seen().iter().all(|s| s.connection == 1),
        "one at a time needs one connection"
    );
}

#[tokio::test]
async fn redirects_and_foreign_answers_are_errors() {
    let server = Server::start(|seen| match seen.number {
        1 => Reply::error(301, "Moved Permanently"),
        2 => Reply::Answer {
            status: 200,
            reason: "OK".into(),
            body: "<html>".into(),
        },
        _ => Reply::data(&json!("no list")),
    })
    .await;
    let client = server.client();
    let moved = client.version().await.unwrap_err();
    assert_eq!((moved.kind, moved.status), (ErrorKind::Other, Some(301)));
    let foreign = client.version().await.unwrap_err();
    assert_eq!(
        (foreign.kind.clone(), foreign.status),
        (ErrorKind::Other, Some(200))
    );
    assert!(
        foreign
            .to_string()
            .contains("not one of the Proxmox VE API"),
        "{foreign}"
    );
    assert_eq!(client.nodes().await.unwrap_err().kind, ErrorKind::Other);
}

#[tokio::test]
async fn endpoints_that_cannot_be_used_are_refused_at_once() {
    let server = Server::start(|_| Reply::Cut).await;
    for endpoint in [
        "http://pve1:8006",
        "https://pve1:8006/api2/json",
        "https://user:pw@pve1",
        "https://",
        "",
        "ftp://x",
    ] {
        let mut config = config(&[&server]);
        config.endpoints = vec![endpoint.to_owned()];
        let error = Client::new(config).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{endpoint}");
    }
    let mut none = config(&[&server]);
    none.endpoints.clear();
    assert_eq!(
        Client::new(none).unwrap_err().to_string(),
        "no endpoint is given"
    );
    for (endpoint, base) in [
        ("pve1", "https://pve1:8006"),
        ("https://pve1/", "https://pve1:8006"),
        ("https://[::1]:443", "https://[::1]:443"),
        ("10.0.0.1:8007", "https://10.0.0.1:8007"),
    ] {
        let mut config = config(&[&server]);
        config.endpoints = vec![endpoint.to_owned()];
        assert!(
            format!("{:?}", Client::new(config).unwrap()).contains(base),
            "{endpoint}"
        );
    }
}
