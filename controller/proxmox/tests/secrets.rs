//! Whatever the log level, no secret is logged: neither by this client nor by the libraries beneath it.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by a panic"
)]

#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "offline/server.rs"]
mod server;

use futures::{SinkExt, StreamExt};
use proxmox_client::{Client, ClientConfig, Credentials, Params, SecretString};
use serde_json::json;
use server::{Reply, Server, config};
use std::{
    io,
    sync::{Arc, Mutex},
};
use tokio_tungstenite::tungstenite::Message;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_is_logged_at_the_finest_level() {
    let log = Log::default();
    let writer = log.clone();
    // Takes in what libraries write through the older `log` interface too.
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();

    let server = Server::start(|seen| match seen.path.rsplit('/').next().unwrap() {
        "ticket" if seen.body.contains("root%40pam") => Reply::data(
            &json!({"ticket": "PVE:root@pam:1::TICKETSECRET", "CSRFPreventionToken": "CSRFSECRET"}),
        ),
        "ticket" => Reply::error(401, "authentication failure"),
        "termproxy" => Reply::data(
            &json!({"port": 5900, "user": "op@pve!op", "ticket": "PVEVNC:1::VNCSECRET"}),
        ),
        "vncwebsocket" if seen.path.contains("/lxc/2/") => {
            Reply::socket(|socket| async move { drop(socket) })
        }
        "vncwebsocket" => Reply::socket(|mut socket| async move {
            socket.next().await.unwrap().unwrap();
            socket.send(Message::binary(b"OK".to_vec())).await.unwrap();
            let typed = socket.next().await.unwrap().unwrap();
            socket.send(typed).await.unwrap();
        }),
        "start" => Reply::Cut,
        _ => Reply::data(&json!(null)),
    })
    .await;
    let base = config(&[&server]);
    let credentials = Credentials {
        token_secret: SecretString::from("TOKENSECRET"),
        password: Some(SecretString::from("OWNSECRET")),
        root_password: Some(SecretString::from("ROOTSECRET")),
        ..base.credentials.clone()
    };
    let client = Client::new(ClientConfig {
        credentials,
        ..base
    })
    .unwrap();
    let params = Params::new().set("dev0", "/dev/nvidia0");
    client
        .ct_set_config("pve1", 1, &params, true)
        .await
        .unwrap();
    let mut console = client.ct_console("pve1", 1).await.unwrap();
    console.send(b"export TOKEN=TYPEDSECRET\n").await.unwrap();
    let echo = console.recv().await.unwrap().unwrap();
    assert!(String::from_utf8(echo).unwrap().contains("TYPEDSECRET"));
    let failures = [
        client.ct_console("pve1", 2).await.unwrap_err().to_string(),
        client.ct_start("pve1", 1).await.unwrap_err().to_string(),
        format!("{client:?}"),
    ];

    let mut told = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        told.contains("/nodes/{node}/lxc/{vmid}/config"),
        "the log was taken: {told}"
    );
    told.extend(failures);
    for secret in [
        "TOKENSECRET",
        "OWNSECRET",
        "ROOTSECRET",
        "TICKETSECRET",
        "CSRFSECRET",
        "VNCSECRET",
        "TYPEDSECRET",
    ] {
        let line = told.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
        assert!(
            !told.contains(&format!("{:?}", secret.as_bytes()).replace(['[', ']'], "")),
            "{secret} as bytes"
        );
    }
}
