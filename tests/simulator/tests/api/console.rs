//! Consoles, from `termproxy` to a real shell behind it.

use std::{sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use proxmox_simulator::{Simulator, SimulatorConfig, guest::GuestSettings};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use super::client::{Client, simulator};

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(crate) async fn connect(
    simulator: &Simulator,
    vmid: u32,
    proxy: &Value,
    ticket: &str,
) -> tungstenite::Result<Socket> {
    let operator = Client::operator(simulator);
    connect_as(simulator, &operator, vmid, proxy, ticket).await
}

pub(crate) async fn connect_as(
    simulator: &Simulator,
    client: &Client,
    vmid: u32,
    proxy: &Value,
    ticket: &str,
) -> tungstenite::Result<Socket> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(simulator.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let escaped = ticket
        .bytes()
        .fold(String::new(), |text, byte| format!("{text}%{byte:02X}"));
    let port = proxy["port"].as_str().unwrap();
    let url = format!(
        "wss://127.0.0.1:{}/api2/json/nodes/pve/lxc/{vmid}/vncwebsocket?port={port}&vncticket={escaped}",
        simulator.port()
    );
    let mut request = url.into_client_request().unwrap();
    for (name, value) in client.headers() {
        let name: tungstenite::http::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", "binary".parse().unwrap());
    let (socket, _) =
        connect_async_tls_with_config(request, None, false, Some(Connector::Rustls(Arc::new(tls))))
            .await?;
    Ok(socket)
}

pub(crate) async fn say(socket: &mut Socket, text: &str) {
    socket.send(Message::Text(text.into())).await.unwrap();
}

/// Reads until the text is seen, or the server ends.
pub(crate) async fn hear(socket: &mut Socket, wanted: &str) -> Option<String> {
    let mut seen = String::new();
    while !seen.contains(wanted) {
        match timeout(Duration::from_secs(20), socket.next()).await.ok()? {
            Some(Ok(Message::Binary(bytes))) => seen.push_str(&String::from_utf8_lossy(&bytes)),
            Some(Ok(_)) => {}
            _ => return None,
        }
    }
    Some(seen)
}

#[tokio::test]
async fn a_console_leads_to_a_real_shell() {
    let config = SimulatorConfig {
        guests: Some(GuestSettings::default()),
        ..SimulatorConfig::default()
    };
    let simulator = Simulator::start(config).await.unwrap();
    let operator = Client::operator(&simulator);
    assert_eq!(operator.create(160, &[("cmode", "shell")]).await, "OK");
    assert_eq!(
        operator
            .task("POST", "/nodes/pve/lxc/160/status/start", &[])
            .await,
        "OK"
    );
    let proxy = operator
        .post("/nodes/pve/lxc/160/termproxy", &[])
        .await
        .body["data"]
        .clone();
    assert_eq!(
        (&proxy["user"], &proxy["port"]),
        (&"phoenix@pve!operator".into(), &"5900".into())
    );
    let ticket = proxy["ticket"].as_str().unwrap();
    let mut socket = connect(&simulator, 160, &proxy, ticket).await.unwrap();
    say(&mut socket, &format!("phoenix@pve!operator:{ticket}\n")).await;
    assert!(hear(&mut socket, "OK").await.unwrap().starts_with("OK"));
    let typed = "echo answer=$((6*7))\n";
    say(&mut socket, &format!("0:{}:{typed}", typed.len())).await;
    hear(&mut socket, "answer=42").await.unwrap();
    drop(socket);
    assert_eq!(operator.follow(proxy["upid"].as_str().unwrap()).await, "OK");
    assert_eq!(
        operator
            .task("POST", "/nodes/pve/lxc/160/status/stop", &[])
            .await,
        "OK"
    );
    simulator.stop().await;
}

#[tokio::test]
async fn tickets_are_looked_at_twice() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(160, &[("cmode", "shell")]).await;
    let missing = operator.post("/nodes/pve/lxc/999/termproxy", &[]).await;
    assert_eq!(
        missing.reason,
        "Configuration file 'nodes/pve/lxc/999.conf' does not exist"
    );
    let proxy = operator
        .post("/nodes/pve/lxc/160/termproxy", &[])
        .await
        .body["data"]
        .clone();
    let ticket = proxy["ticket"].as_str().unwrap();
    let refused = connect(&simulator, 160, &proxy, "PVEVNC:00000000::x")
        .await
        .unwrap_err();
    let tungstenite::Error::Http(answer) = refused else {
        panic!("{refused}")
    };
    assert_eq!(answer.status(), 401);
    let foreign = connect(&simulator, 161, &proxy, ticket).await.unwrap_err();
    assert!(
        matches!(foreign, tungstenite::Error::Http(answer) if answer.status() == 401),
        "a ticket is for one container"
    );
    let second = operator
        .post("/nodes/pve/lxc/160/termproxy", &[])
        .await
        .body["data"]
        .clone();
    assert_eq!(second["port"], "5901", "each proxy has a port of its own");
    let mut socket = connect(&simulator, 160, &proxy, ticket).await.unwrap();
    say(&mut socket, "phoenix@pve!operator:wrong\n").await;
    assert_eq!(
        hear(&mut socket, "OK").await,
        None,
        "the connection just ends"
    );
    let exit = operator.follow(proxy["upid"].as_str().unwrap()).await;
    assert!(
        exit.starts_with("command '/usr/bin/termproxy 5900 --path /vms/160 ")
            && exit.ends_with("-z lxc-attach --clear-env -n 160' failed: exit code 1"),
        "{exit}"
    );
    let mut late = connect(&simulator, 160, &proxy, ticket).await.unwrap();
    assert_eq!(
        hear(&mut late, "OK").await,
        None,
        "let in, but nobody is there any more"
    );
}
