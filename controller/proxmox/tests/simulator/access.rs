//! Who is let in, who is trusted, and what needs root.

use crate::host::{NODE, client, client_with_root, config, create, simulator};
use proxmox_client::{Client, ErrorKind, Fingerprint, Params, SecretString, Trust};

#[tokio::test]
async fn the_operators_token_is_let_in_and_a_wrong_one_is_not() {
    let host = simulator().await;
    let version = client(&host).version().await.unwrap();
    assert_eq!(
        (version.version.as_str(), version.release.as_str()),
        ("9.2.11", "9.2")
    );
    let mut wrong = config(&host);
    wrong.credentials.token_secret = SecretString::from("00000000-0000-0000-0000-000000000000");
    let error = Client::new(wrong).unwrap().version().await.unwrap_err();
    assert_eq!(
        (error.kind.clone(), &*error.reason),
        (ErrorKind::Unauthorized, "Authentication failed!")
    );
    let token = host.token().id;
    let allowed = client(&host);
    host.revoke_token(&token);
    assert_eq!(
        allowed.version().await.unwrap_err().kind,
        ErrorKind::Unauthorized
    );
}

#[tokio::test]
async fn ca_and_pin_are_trusted_and_a_reinstalled_host_is_not() {
    let host = simulator().await;
    let mut by_ca = config(&host);
    by_ca.trust = Trust {
        ca_bundle: Some(host.ca_pem()),
        fingerprints: vec![],
    };
    Client::new(by_ca.clone()).unwrap().version().await.unwrap();
    let pinned: Fingerprint = host.fingerprint().parse().unwrap();
    let mut wrong = config(&host);
    wrong.trust.fingerprints = vec![[1; 32].into()];
    let error = Client::new(wrong).unwrap().version().await.unwrap_err();
    assert_eq!(
        error.kind,
        ErrorKind::Untrusted {
            presented: pinned.clone()
        }
    );

    host.replace_certificate().unwrap();
    let presented: Fingerprint = host.fingerprint().parse().unwrap();
    assert_ne!(presented, pinned);
    for trust in [
        by_ca.trust.clone(),
        Trust {
            ca_bundle: None,
            fingerprints: vec![pinned],
        },
    ] {
        let client = Client::new(proxmox_client::ClientConfig {
            trust,
            ..by_ca.clone()
        })
        .unwrap();
        let error = client.version().await.unwrap_err();
        assert_eq!(
            error.kind,
            ErrorKind::Untrusted {
                presented: presented.clone()
            },
            "{error}"
        );
    }
}

#[tokio::test]
async fn devices_take_roots_ticket() {
    let host = simulator().await;
    let client = client_with_root(&host);
    create(&client, 900).await;
    let devices = Params::new()
        .set("dev0", "/dev/nvidia0,mode=0666")
        .set("dev1", "/dev/nvidiactl,mode=0666");
    let refused = client
        .ct_set_config(NODE, 900, &devices, false)
        .await
        .unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Forbidden);
    assert!(refused.message.contains("root@pam"), "{refused}");

    client
        .ct_set_config(NODE, 900, &devices, true)
        .await
        .unwrap();
    let config = client.ct_config(NODE, 900).await.unwrap();
    assert_eq!(config.devices()[&0].get("path"), Some("/dev/nvidia0"));
    assert_eq!(config.devices()[&1].get("mode"), Some("0666"));

    // The ticket's end is noticed and mended within the call.
    host.expire_tickets();
    client
        .ct_set_config(NODE, 900, &Params::new().delete("dev1"), true)
        .await
        .unwrap();
    assert_eq!(
        client.ct_config(NODE, 900).await.unwrap().devices().len(),
        1
    );
    let logins: usize = host
        .call_counts()
        .iter()
        .filter(|((_, path, _), _)| path.ends_with("/access/ticket"))
        .map(|(_, n)| n)
        .sum();
    assert_eq!(logins, 2);

    let missing = client
        .ct_set_config(NODE, 900, &Params::new().set("dev1", "/dev/nvidia7"), true)
        .await
        .unwrap_err();
    assert_eq!(
        (missing.kind.clone(), missing.message.as_str()),
        (ErrorKind::Invalid, "Device /dev/nvidia7 does not exist")
    );
}

#[tokio::test]
async fn who_may_look_at_the_whole_sees_the_cards_on_the_bus() {
    let host = simulator().await;
    let refused = client(&host).pci_devices(NODE).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Forbidden);
    let mut shape = proxmox_simulator::SimulatorConfig::default();
    shape.host.acl.push(proxmox_simulator::AclShape {
        path: "/".to_owned(),
        who: "phoenix@pve".to_owned(),
        privileges: vec!["Sys.Audit".to_owned()],
        propagate: false,
    });
    let host = proxmox_simulator::Simulator::start(shape).await.unwrap();
    let devices = client(&host).pci_devices(NODE).await.unwrap();
    let gpus: Vec<&str> = devices
        .iter()
        .filter(|d| d.is_nvidia_gpu())
        .map(|d| d.id.as_str())
        .collect();
    assert_eq!(gpus, ["0000:01:00.0", "0000:41:00.0"]);
    assert!(devices.len() > gpus.len());
}

#[tokio::test]
async fn a_wrong_root_password_and_a_second_factor_are_said_and_not_hammered() {
    let host = simulator().await;
    let operator = client(&host);
    create(&operator, 900).await;
    let device = Params::new().set("dev0", "/dev/nvidia0");
    let mut wrong = config(&host);
    wrong.credentials.root_password = Some(SecretString::from("wrong"));
    let mut asked = config(&host);
    asked.credentials.root_password = Some(SecretString::from(host.root_password()));
    host.set_second_factor("root@pam", true);
    for (config, kind) in [
        (wrong, ErrorKind::Unauthorized),
        (asked, ErrorKind::TwoFactor),
    ] {
        let client = Client::new(config).unwrap();
        host.clear_calls();
        for _ in 0..4 {
            assert_eq!(
                client
                    .ct_set_config(NODE, 900, &device, true)
                    .await
                    .unwrap_err()
                    .kind,
                kind
            );
        }
        assert_eq!(host.calls().len(), 1, "{kind:?}: one login, no more");
        client.ct_config(NODE, 900).await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_privilege_is_forbidden_and_the_vmid_still_known_as_taken() {
    let host = simulator().await;
    let client = client(&host);
    create(&client, 900).await;
    assert!(
        client
            .permissions()
            .await
            .unwrap()
            .allows("/vms/900", "VM.Audit")
    );
    assert!(
        client
            .permissions_on("/vms/900")
            .await
            .unwrap()
            .contains("VM.Audit")
    );
    host.revoke_privilege("/vms", "VM.Audit");
    assert!(
        !client
            .permissions()
            .await
            .unwrap()
            .allows("/vms/900", "VM.Audit")
    );
    assert_eq!(
        client.ct_config(NODE, 900).await.unwrap_err().kind,
        ErrorKind::Forbidden
    );
    assert!(
        client
            .cluster_resources()
            .await
            .unwrap()
            .iter()
            .all(|r| r.vmid != Some(900))
    );
    assert!(!client.vmid_is_free(900).await.unwrap());
    assert!(client.vmid_is_free(901).await.unwrap());
}
