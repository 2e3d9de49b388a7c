//! The console: how it opens, what travels, how it ends.

use crate::server::{Reply, Seen, Server, Socket, config};
use futures::{SinkExt, StreamExt};
use proxmox_client::{Client, ClientConfig, Console, Credentials, ErrorKind, SecretString, Trust};
use serde_json::json;
use std::{future::Future, time::Duration};
use tokio_tungstenite::tungstenite::Message;

const TICKET: &str = "PVEVNC:6B05E3EB::a+b/c==";

/// A server whose container has a console that does this once the first message has come.
async fn server<F: Future<Output = ()> + Send + 'static>(
    script: impl Fn(Socket) -> F + Clone + Send + Sync + 'static,
) -> Server {
    Server::start(move |seen| {
        if let Some(answer) = opening(seen) {
            return answer;
        }
        let script = script.clone();
        Reply::socket(move |mut socket| async move {
            let first = socket.next().await.unwrap().unwrap();
            assert_eq!(
                first.into_data(),
                format!("op@pve!op:{TICKET}\n").into_bytes()
            );
            script(socket).await;
        })
    })
    .await
}

fn opening(seen: &Seen) -> Option<Reply> {
    if seen.path.ends_with("/termproxy") {
        assert_eq!(seen.method, "POST");
        return Some(Reply::data(
            &json!({"port": "5900", "user": "op@pve!op", "ticket": TICKET, "upid": "UPID:…"}),
        ));
    }
    assert_eq!(seen.path, "/api2/json/nodes/pve1/lxc/160/vncwebsocket");
    assert_eq!(
        seen.query,
        "port=5900&vncticket=PVEVNC%3A6B05E3EB%3A%3Aa%2Bb%2Fc%3D%3D"
    );
    assert_eq!(seen.header("sec-websocket-protocol"), "binary");
    None
}

async fn say(socket: &mut Socket, bytes: &[u8]) {
    socket.send(Message::binary(bytes.to_vec())).await.unwrap();
}

async fn rest(console: &mut Console) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = console.recv().await.unwrap() {
        all.extend(bytes);
    }
    all
}

#[tokio::test]
async fn what_is_typed_is_framed_and_what_is_shown_is_not() {
    let server = server(|mut socket| async move {
        say(&mut socket, b"OK").await;
        say(&mut socket, b"\x1b[H\x1b[J").await;
        let mut got = Vec::new();
        for _ in 0..3 {
            got.extend(socket.next().await.unwrap().unwrap().into_data());
        }
        assert_eq!(got, "1:100:30:0:9:echo hé\n2".as_bytes());
        say(&mut socket, "hé\r\n".as_bytes()).await;
    })
    .await;
    let mut console = server.client().ct_console("pve1", 160).await.unwrap();
    assert_eq!(console.recv().await.unwrap().unwrap(), b"\x1b[H\x1b[J");
    console.resize(100, 30).await.unwrap();
    console.send("echo hé\n".as_bytes()).await.unwrap();
    console.ping().await.unwrap();
    assert_eq!(rest(&mut console).await, "hé\r\n".as_bytes());
    assert_eq!(console.recv().await.unwrap(), None, "the end stays the end");
    assert!(console.send(b"x").await.is_err());
    assert_eq!(
        server.seen()[1].header("authorization"),
        "PVEAPIToken=op@pve!op=s3cret"
    );
}

#[tokio::test]
async fn output_glued_to_the_ok_is_not_lost_and_an_ok_in_pieces_is_one() {
    const CASES: [&[&[u8]]; 3] = [
        &[b"OKhello"],
        &[b"O", b"", b"Khel", b"lo"],
        &[b"O", b"K", b"hello"],
    ];
    for pieces in CASES {
        let server = server(move |mut socket| async move {
            for piece in pieces {
                say(&mut socket, piece).await;
            }
        })
        .await;
        let mut console = server.client().ct_console("pve1", 160).await.unwrap();
        assert_eq!(rest(&mut console).await, b"hello");
    }
}

#[tokio::test]
async fn long_input_goes_in_frames_that_proxmox_takes() {
    let typed: Vec<u8> = (0..300_000_u32)
        .map(|n| b'a' + u8::try_from(n % 26).unwrap())
        .collect();
    let expected = typed.clone();
    let server = server(move |mut socket| {
        let expected = expected.clone();
        async move {
            say(&mut socket, b"OK").await;
            let mut got = Vec::new();
            while got.len() < expected.len() {
                let frame = socket.next().await.unwrap().unwrap().into_data();
                assert!(frame.len() <= 128 * 1024);
                let text = frame.strip_prefix(b"0:").unwrap();
                let colon = text.iter().position(|b| *b == b':').unwrap();
                let length: usize = std::str::from_utf8(&text[..colon])
                    .unwrap()
                    .parse()
                    .unwrap();
                assert_eq!(text.len() - colon - 1, length);
                got.extend_from_slice(&text[colon + 1..]);
            }
            assert!(got == expected);
            say(&mut socket, b"all of it").await;
        }
    })
    .await;
    let mut console = server.client().ct_console("pve1", 160).await.unwrap();
    console.send(&typed).await.unwrap();
    assert_eq!(rest(&mut console).await, b"all of it");
}

#[tokio::test]
async fn every_kind_of_ending_is_an_ending() {
    for closing in [true, false] {
        let server = server(move |mut socket| async move {
            say(&mut socket, b"OKbye").await;
            if closing {
                socket.close(None).await.unwrap();
            }
        })
        .await;
        let mut console = server.client().ct_console("pve1", 160).await.unwrap();
        assert_eq!(rest(&mut console).await, b"bye");
    }
}

#[tokio::test]
async fn an_old_host_that_takes_no_token_is_named_and_a_password_helps() {
    let answer = |seen: &Seen| match seen.path.rsplit('/').next().unwrap() {
        "ticket" => Reply::data(&json!({"ticket": "PVE:op@pve:1::x", "CSRFPreventionToken": "c"})),
        "termproxy" => {
            let user = if seen.headers.contains_key("cookie") {
                "op@pve"
            } else {
                "op@pve!op"
            };
            Reply::data(&json!({"port": 5900, "user": user, "ticket": TICKET}))
        }
        _ => Reply::socket(|mut socket: Socket| async move {
            let first = socket.next().await.unwrap().unwrap().into_data();
            if first == format!("op@pve:{TICKET}\n").into_bytes() {
                say(&mut socket, b"OK# ").await;
            }
        }),
    };
    let server = Server::start(answer).await;
    let error = server.client().ct_console("pve1", 160).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    assert!(error.message.contains("password"), "{error}");

    let base = config(&[&server]);
    let credentials = Credentials {
        password: Some(SecretString::from("pw")),
        ..base.credentials.clone()
    };
    let client = Client::new(ClientConfig {
        credentials,
        ..base
    })
    .unwrap();
    for _ in 0..2 {
        let mut console = client.ct_console("pve1", 160).await.unwrap();
        assert_eq!(console.recv().await.unwrap().unwrap(), b"# ");
    }
    let by_token = server
        .seen()
        .iter()
        .filter(|s| s.path.ends_with("termproxy") && s.headers.contains_key("authorization"))
        .count();
    assert_eq!(
        by_token, 2,
        "once for each client: what the host takes is remembered"
    );
}

#[tokio::test]
async fn refusals_keep_their_class() {
    let server = Server::start(|seen| {
        opening(seen)
            .unwrap_or_else(|| Reply::error(401, "permission denied - invalid PVEVNC ticket"))
    })
    .await;
    assert_eq!(
        server
            .client()
            .ct_console("pve1", 160)
            .await
            .unwrap_err()
            .kind,
        ErrorKind::Unauthorized
    );
    let server =
        Server::start(|_| Reply::error(403, "Permission check failed (/vms/160, VM.Console)"))
            .await;
    assert_eq!(
        server
            .client()
            .ct_console("pve1", 160)
            .await
            .unwrap_err()
            .kind,
        ErrorKind::Forbidden
    );
}

#[tokio::test]
async fn the_websocket_goes_to_the_endpoint_that_made_the_ticket_and_trusts_like_the_rest() {
    let dead = "https://127.0.0.1:1".to_owned();
    let server = server(|mut socket| async move { say(&mut socket, b"OK").await }).await;
    let mut config = config(&[&server]);
    config.endpoints.insert(0, dead);
    config.trust = Trust {
        ca_bundle: Some(server.ca_pem.clone()),
        fingerprints: vec![],
    };
    let mut console = Client::new(config)
        .unwrap()
        .ct_console("pve1", 160)
        .await
        .unwrap();
    assert_eq!(console.recv().await.unwrap(), None);
}

#[tokio::test]
async fn an_idle_console_is_kept_alive_and_a_silent_one_given_up() {
    let server = server(|mut socket| async move {
        say(&mut socket, b"OK").await;
        let mut got = Vec::new();
        while got.len() < 2 {
            got.push(socket.next().await.unwrap().unwrap());
        }
        assert!(
            got[0].is_ping() && got[1] == Message::binary(b"2".to_vec()),
            "{got:?}"
        );
        say(&mut socket, b"alive").await;
        // From here on it neither reads nor answers.
        std::future::pending::<()>().await;
    })
    .await;
    let mut console = server.client().ct_console("pve1", 160).await.unwrap();
    later(Duration::from_secs(21)).await;
    assert_eq!(console.recv().await.unwrap().unwrap(), b"alive");
    // The server has read the pings, so that its side answers the first one; then nothing.
    let quiet = async |console: &mut Console| {
        tokio::time::timeout(Duration::from_millis(50), console.recv()).await
    };
    assert!(quiet(&mut console).await.is_err());
    for _ in 0..3 {
        later(Duration::from_secs(21)).await;
        assert!(
            quiet(&mut console).await.is_err(),
            "a ping without an answer is no end yet"
        );
    }
    later(Duration::from_secs(21)).await;
    let error = console.recv().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    assert_eq!(console.recv().await.unwrap(), None);
}

#[tokio::test]
async fn a_console_that_nobody_listened_to_for_long_is_not_taken_for_dead() {
    let server = server(|mut socket| async move {
        say(&mut socket, b"OKearly").await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_binary() {
                say(&mut socket, b"late").await;
            }
        }
    })
    .await;
    let mut console = server.client().ct_console("pve1", 160).await.unwrap();
    later(Duration::from_secs(600)).await;
    assert_eq!(console.recv().await.unwrap().unwrap(), b"early");
    console.send(b"x").await.unwrap();
    assert_eq!(console.recv().await.unwrap().unwrap(), b"late");
}

async fn later(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}
