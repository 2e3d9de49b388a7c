//! Logins: when one is made, how often, and what a refused one costs.

use crate::server::{Reply, Seen, Server, config};
use proxmox_client::{Client, ClientConfig, Credentials, ErrorKind, Params, SecretString};
use serde_json::json;
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

fn with_root(server: &Server) -> Client {
    let base = config(&[server]);
    let credentials = Credentials {
        root_password: Some(SecretString::from("r00t&pass")),
        ..base.credentials.clone()
    };
    Client::new(ClientConfig {
        credentials,
        ..base
    })
    .unwrap()
}

fn login(seen: &Seen, ticket: &str) -> Reply {
    assert_eq!(
        (seen.method.as_str(), seen.body.as_str()),
        ("POST", "username=root%40pam&password=r00t%26pass")
    );
    assert!(!seen.headers.contains_key("authorization"));
    Reply::data(
        &json!({"username": "root@pam", "ticket": ticket, "CSRFPreventionToken": "6B05DE88:abc/+=", "cap": {}}),
    )
}

fn device() -> Params {
    Params::new()
        .set("dev0", "/dev/nvidia0,mode=0666")
        .digest("ab")
}

#[tokio::test]
async fn a_ticket_is_obtained_once_for_many_and_carries_cookie_and_csrf() {
    let server = Server::start(|seen| {
        if seen.path.ends_with("/access/ticket") {
            login(seen, "PVE:root@pam:6B05::a+b/c=")
        } else {
            Reply::data(&json!(null))
        }
    })
    .await;
    let client = with_root(&server);
    assert!(client.has_root());
    let params = device();
    let calls = (900..906).map(|vmid| client.ct_set_config("pve1", vmid, &params, true));
    assert!(
        futures::future::join_all(calls)
            .await
            .iter()
            .all(Result::is_ok)
    );
    client
        .ct_set_config("pve1", 1, &Params::new().set("cores", 1), false)
        .await
        .unwrap();
    let seen = server.seen();
    assert_eq!(
        seen.iter()
            .filter(|s| s.path.ends_with("/access/ticket"))
            .count(),
        1
    );
    let by_root: Vec<_> = seen
        .iter()
        .filter(|s| s.headers.contains_key("cookie"))
        .collect();
    assert_eq!(by_root.len(), 6);
    for call in by_root {
        assert_eq!(
            call.header("cookie"),
            "PVEAuthCookie=PVE%3Aroot%40pam%3A6B05%3A%3Aa%2Bb%2Fc%3D"
        );
        assert_eq!(call.header("csrfpreventiontoken"), "6B05DE88:abc/+=");
        assert!(!call.headers.contains_key("authorization"));
        assert_eq!(call.body, "dev0=%2Fdev%2Fnvidia0%2Cmode%3D0666&digest=ab");
    }
    let by_token = seen.last().unwrap();
    assert_eq!(
        (by_token.header("authorization"), by_token.header("cookie")),
        ("PVEAPIToken=op@pve!op=s3cret", "")
    );
}

#[tokio::test]
async fn a_refused_ticket_is_renewed_once() {
    static LOGINS: AtomicUsize = AtomicUsize::new(0);
    let server = Server::start(|seen| {
        if seen.path.ends_with("/access/ticket") {
            let number = LOGINS.fetch_add(1, Ordering::SeqCst);
            return login(seen, &format!("PVE:root@pam:{number}::x"));
        }
        if seen.header("cookie").contains("%3A0%3A%3A") {
            Reply::error(401, "Authentication failed!")
        } else {
            Reply::data(&json!(null))
        }
    })
    .await;
    let client = with_root(&server);
    client
        .ct_set_config("pve1", 900, &device(), true)
        .await
        .unwrap();
    client
        .ct_set_config("pve1", 900, &device(), true)
        .await
        .unwrap();
    assert_eq!(LOGINS.load(Ordering::SeqCst), 2);
    assert_eq!(server.seen().len(), 5);
}

#[tokio::test]
async fn a_ticket_that_is_always_refused_ends_in_unauthorized() {
    let server = Server::start(|seen| {
        if seen.path.ends_with("/access/ticket") {
            login(seen, "PVE:root@pam:1::x")
        } else {
            Reply::error(401, "Authentication failed!")
        }
    })
    .await;
    let error = with_root(&server)
        .ct_set_config("pve1", 900, &device(), true)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    assert_eq!(server.seen().len(), 4, "two logins and two tries, no more");
}

#[tokio::test]
async fn a_refused_login_is_remembered_and_does_not_touch_the_token() {
    let server = Server::start(|seen| {
        if seen.path.ends_with("/access/ticket") {
            Reply::error(401, "authentication failure")
        } else {
            Reply::data(&json!(null))
        }
    })
    .await;
    let client = with_root(&server);
    let params = device();
    let calls = (0..5).map(|vmid| client.ct_set_config("pve1", vmid, &params, true));
    for result in futures::future::join_all(calls).await {
        let error = result.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unauthorized);
        assert!(
            error.message.contains("root@pam") && error.message.contains("authentication failure"),
            "{error}"
        );
    }
    assert_eq!(server.seen().len(), 1, "one refusal is enough");
    client
        .ct_set_config("pve1", 1, &Params::new().set("cores", 1), false)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_second_factor_is_said_and_not_asked_for_again() {
    let server = Server::start(|seen| {
        assert!(seen.path.ends_with("/access/ticket"), "nothing else is tried: {}", seen.path);
        Reply::data(&json!({"username": "root@pam", "ticket": "PVE:!tfa!%7B%22totp%22%3Atrue%7D:6B05::x", "NeedTFA": 1, "CSRFPreventionToken": "y"}))
    })
    .await;
    let client = with_root(&server);
    for _ in 0..3 {
        assert_eq!(
            client
                .ct_set_config("pve1", 900, &device(), true)
                .await
                .unwrap_err()
                .kind,
            ErrorKind::TwoFactor
        );
    }
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_login_that_got_no_answer_is_tried_again_the_next_time() {
    let server = Server::start(|seen| match seen.number {
        1 => Reply::Cut,
        2 => login(seen, "PVE:root@pam:1::x"),
        _ => Reply::data(&json!(null)),
    })
    .await;
    let client = with_root(&server);
    assert_eq!(
        client
            .ct_set_config("pve1", 900, &device(), true)
            .await
            .unwrap_err()
            .kind,
        ErrorKind::Unreachable
    );
    client
        .ct_set_config("pve1", 900, &device(), true)
        .await
        .unwrap();
}

#[tokio::test]
async fn without_a_root_password_nothing_is_sent() {
    let server = Server::start(|_| Reply::data(&json!(null))).await;
    let client = server.client();
    assert!(!client.has_root());
    let error = client
        .ct_set_config("pve1", 900, &device(), true)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind.clone(), error.is_answer()),
        (ErrorKind::Forbidden, false)
    );
    assert!(error.message.contains("root password"), "{error}");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_refused_token_is_unauthorized() {
    let server = Server::start(|_| Reply::error(401, "Authentication failed!")).await;
    let error = server.client().version().await.unwrap_err();
    assert_eq!(
        (error.kind.clone(), error.status),
        (ErrorKind::Unauthorized, Some(401))
    );
    assert_eq!(
        error.to_string(),
        "Proxmox answered GET /version with 401: Authentication failed!"
    );
}

#[tokio::test]
async fn a_token_id_that_is_none_is_refused_at_once() {
    let server = Server::start(|_| Reply::Cut).await;
    for (id, secret) in [
        ("op@pve", "x"),
        ("op!x", "x"),
        ("op@pve!", "x"),
        ("", "x"),
        ("op@pve!op", "new\nline"),
    ] {
        let base = config(&[&server]);
        let credentials = Credentials {
            token_id: id.to_owned(),
            token_secret: SecretString::from(secret),
            ..base.credentials.clone()
        };
        let error = Client::new(ClientConfig {
            credentials,
            ..base
        })
        .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{id}");
        assert!(
            !error.to_string().contains("new"),
            "no secret in an error: {error}"
        );
    }
}

/// Lets this much time pass at once.
async fn later(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

fn logins(server: &Server) -> usize {
    server
        .seen()
        .iter()
        .filter(|s| s.path.ends_with("/access/ticket"))
        .count()
}

#[tokio::test]
async fn a_ticket_is_renewed_before_its_two_hours_are_over() {
    let server = Server::start(|seen| {
        if seen.path.ends_with("/access/ticket") {
            login(seen, "PVE:root@pam:1::x")
        } else {
            Reply::data(&json!(null))
        }
    })
    .await;
    let client = with_root(&server);
    for (minutes, expected) in [(0, 1), (90, 1), (29, 2), (90, 2), (121, 3)] {
        later(Duration::from_secs(60 * minutes)).await;
        client
            .ct_set_config("pve1", 900, &device(), true)
            .await
            .unwrap();
        assert_eq!(logins(&server), expected, "after {minutes} more minutes");
    }
}

#[tokio::test]
async fn the_pause_after_a_refusal_grows_and_a_success_ends_it() {
    let server = Server::start(
        |seen| match (seen.path.ends_with("/access/ticket"), seen.number) {
            (true, 1..=3) => Reply::error(401, "authentication failure"),
            (true, _) => login(seen, "PVE:root@pam:1::x"),
            (false, _) => Reply::data(&json!(null)),
        },
    )
    .await;
    let client = with_root(&server);
    let params = device();
    let set = || client.ct_set_config("pve1", 900, &params, true);
    for (seconds, expected) in [(0, 1), (55, 1), (10, 2), (110, 2), (15, 3), (235, 3)] {
        later(Duration::from_secs(seconds)).await;
        assert_eq!(set().await.unwrap_err().kind, ErrorKind::Unauthorized);
        assert_eq!(logins(&server), expected, "after {seconds} more seconds");
    }
    later(Duration::from_secs(10)).await;
    set().await.unwrap();
    assert_eq!(logins(&server), 4);
}
