//! Whom the client trusts, and what it says of those whom it doesn't.

use crate::server::{Reply, Server, config};
use proxmox_client::{Client, ClientConfig, ErrorKind, Fingerprint, Params, Trust};
use serde_json::json;

async fn server() -> Server {
    Server::start(|_| Reply::data(&json!({"version": "9.2.11"}))).await
}

fn with(server: &Server, trust: Trust) -> Client {
    Client::new(ClientConfig {
        trust,
        ..config(&[server])
    })
    .unwrap()
}

#[tokio::test]
async fn a_ca_or_a_pin_suffices_and_either_of_both() {
    let server = server().await;
    let wrong: Fingerprint = [7; 32].into();
    for trust in [
        Trust {
            ca_bundle: Some(server.ca_pem.clone()),
            fingerprints: vec![],
        },
        Trust {
            ca_bundle: None,
            fingerprints: vec![server.fingerprint.clone()],
        },
        Trust {
            ca_bundle: None,
            fingerprints: vec![
                wrong.clone(),
                server
                    .fingerprint
                    .to_string()
                    .to_lowercase()
                    .parse()
                    .unwrap(),
            ],
        },
        Trust {
            ca_bundle: Some(server.ca_pem.clone()),
            fingerprints: vec![wrong],
        },
    ] {
        assert_eq!(
            with(&server, trust).version().await.unwrap().version,
            "9.2.11"
        );
    }
}

#[tokio::test]
async fn an_untrusted_certificate_is_named_by_its_fingerprint_in_every_mode() {
    let (server, other) = (server().await, self::server().await);
    for trust in [
        Trust {
            ca_bundle: Some(other.ca_pem.clone()),
            fingerprints: vec![],
        },
        Trust {
            ca_bundle: None,
            fingerprints: vec![other.fingerprint.clone()],
        },
        Trust {
            ca_bundle: Some(other.ca_pem.clone()),
            fingerprints: vec![other.fingerprint.clone()],
        },
        // The system's roots know nothing of it.
        Trust::default(),
    ] {
        let client = with(&server, trust);
        let read = client.version().await.unwrap_err();
        let write = client
            .ct_set_config("pve1", 1, &Params::new().set("cores", 1), false)
            .await
            .unwrap_err();
        for error in [read, write] {
            assert_eq!(
                error.kind,
                ErrorKind::Untrusted {
                    presented: server.fingerprint.clone()
                },
                "{error}"
            );
            assert!(
                error.to_string().contains(&server.fingerprint.to_string()),
                "{error}"
            );
        }
    }
    assert!(server.seen().is_empty(), "nothing was sent to a stranger");
}

#[tokio::test]
async fn the_fingerprint_of_a_pem_is_the_one_that_is_pinned() {
    let server = server().await;
    let ca = Fingerprint::of_pem(&server.ca_pem).unwrap();
    assert_eq!(ca.len(), 1);
    assert_ne!(ca[0], server.fingerprint);
    assert!(Fingerprint::of_pem("no certificate").is_err());
}

#[tokio::test]
async fn a_trusted_endpoint_is_used_where_another_is_not_and_the_certificate_is_told_where_none_is()
{
    let (stranger, friend) = (server().await, server().await);
    let mut both = config(&[&stranger, &friend]);
    both.trust.fingerprints = vec![friend.fingerprint.clone()];
    Client::new(both).unwrap().version().await.unwrap();
    assert_eq!((stranger.seen().len(), friend.seen().len()), (0, 1));
    let mut neither = config(&[&stranger]);
    neither.trust.fingerprints = vec![friend.fingerprint.clone()];
    neither.endpoints.push("https://127.0.0.1:1".to_owned());
    let error = Client::new(neither).unwrap().version().await.unwrap_err();
    assert_eq!(
        error.kind,
        ErrorKind::Untrusted {
            presented: stranger.fingerprint.clone()
        }
    );
}
