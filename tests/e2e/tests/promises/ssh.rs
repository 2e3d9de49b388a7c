//! SSH as the other way into containers: by itself, where the console is refused, and where a human sits on it.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
};
use phoenix_crds::{Hypervisor, LxcContainer, LxcStatus, LxcTemplate};
use phoenix_lab::installation::OPERATOR_NAMESPACE;
use proxmox_client::{Client, ClientConfig, Console, Credentials, Timeouts, Trust};
use proxmox_simulator::{HostShape, SimulatorConfig};
use serde_json::{Value, json};

use crate::stage::{Settings, Stage, condition};

/// A stage whose Hypervisor has that transport from the beginning.
async fn stage(name: &str, transport: &str, simulator: Option<SimulatorConfig>) -> Stage {
    let mut settings = Settings {
        operator: false,
        ..Settings::default()
    };
    if let Some(simulator) = simulator {
        settings.simulator = simulator;
    }
    let mut stage = Stage::raise(name, settings).await;
    let patch = json!({"spec": {"guest": {"transport": transport}}});
    let params = PatchParams::default();
    let hypervisors = stage.hypervisors();
    hypervisors
        .patch(name, &params, &Patch::Merge(&patch))
        .await
        .expect("a transport");
    stage.start_operator();
    stage
}

fn setup(word: &str) -> Value {
    json!({"script": format!("#!/bin/sh\necho {word} >> /etc/words\n")})
}

fn words(stage: &Stage, vmid: u32) -> String {
    let guests = stage.simulator.guests().unwrap();
    guests.read_file(vmid, "/etc/words").unwrap_or_default()
}

fn consoles(stage: &Stage) -> usize {
    let calls = stage.simulator.calls();
    calls
        .iter()
        .filter(|c| c.path.ends_with("/termproxy"))
        .count()
}

fn secret_data(secret: &Secret) -> &BTreeMap<String, ByteString> {
    secret.data.as_ref().expect("data")
}

fn host_key(status: Option<&LxcStatus>) -> Option<String> {
    status?.ssh.as_ref()?.host_key_fingerprint.clone()
}

/// A human's console of a container; its session is everybody's as long as it is open.
async fn console(stage: &Stage, vmid: u32) -> Console {
    let token = stage.simulator.token();
    let client = Client::new(ClientConfig {
        endpoints: vec![stage.simulator.url()],
        trust: Trust {
            ca_bundle: Some(stage.simulator.ca_pem()),
            fingerprints: Vec::new(),
        },
        credentials: Credentials {
            token_id: token.id.clone(),
            token_secret: token.secret.clone().into(),
            password: None,
            root_password: None,
        },
        timeouts: Timeouts::default(),
        observer: None,
    });
    client.unwrap().ct_console("pve", vmid).await.unwrap()
}

/// Waits until the human sees something; false when the session ends before.
async fn see(console: &mut Console, wanted: &str) -> bool {
    let mut seen = String::new();
    while !seen.contains(wanted) {
        let bytes = tokio::time::timeout(crate::stage::PATIENCE, console.recv()).await;
        let Some(bytes) = bytes.expect("what is waited for").unwrap() else {
            return false;
        };
        seen.push_str(&String::from_utf8_lossy(&bytes));
    }
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ssh_alone_brings_a_hierarchy_up_and_knows_each_container_by_its_key() {
    let stage = stage("ssh-alone", "Ssh", None).await;
    let (net_base, net_top) = (
        json!([{"name": "eth0", "address": "10.0.0.200/24"}]),
        json!([{"name": "eth0", "address": "10.0.0.150/24"}]),
    );
    let base = json!({"vmid": 900, "setup": setup("base"), "network": net_base});
    stage.template("base", base).await;
    let top = json!({"vmid": 901, "setup": setup("top"), "network": net_top});
    stage.container("top", "base", top).await;
    let top = stage.ready::<LxcContainer>("top").await;
    assert_eq!(words(&stage, 901), "base\ntop\n");
    assert_eq!(consoles(&stage), 0);

    // whoever looks into the operator's namespace sees what the Secret is
    let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), OPERATOR_NAMESPACE);
    let secret = secrets.get("phoenix-ssh-ssh-alone").await.unwrap();
    let labels = secret.meta().labels.clone().unwrap_or_default();
    assert_eq!(labels["phoenix-hypervisor.io/hypervisor"], "ssh-alone");
    let owner = &secret.owner_references()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.name.as_str()),
        ("Hypervisor", "ssh-alone")
    );
    let public = String::from_utf8(secret_data(&secret)["ssh-publickey"].0.clone()).unwrap();
    let guests = stage.simulator.guests().unwrap();
    let authorized = guests.read_file(901, "/root/.ssh/authorized_keys").unwrap();
    assert_eq!(authorized.matches(public.trim()).count(), 1, "{authorized}");

    // a broken one is told, and neither replaced nor in the way of what needs none
    let private = |bytes: &[u8]| {
        let data = json!({"data": {"ssh-privatekey": ByteString(bytes.to_vec())}});
        let secrets = secrets.clone();
        async move {
            let params = PatchParams::default();
            let patch = Patch::Merge(&data);
            secrets
                .patch("phoenix-ssh-ssh-alone", &params, &patch)
                .await
                .unwrap();
        }
    };
    let key_is = |reason: &'static str| {
        move |o: &Hypervisor| {
            let conditions = o.status.iter().flat_map(|s| &s.conditions);
            let mut ready = conditions.filter(|c| c.type_ == "SshKeyReady");
            ready.any(|c| c.reason == reason)
        }
    };
    let before = secret_data(&secret)["ssh-privatekey"].0.clone();
    private(b"nonsense").await;
    let told = stage
        .until(
            stage.hypervisors(),
            "ssh-alone",
            "a broken key",
            key_is("Invalid"),
        )
        .await;
    let conditions = told.status.unwrap().conditions;
    assert!(
        conditions[0]
            .message
            .contains("phoenix-system/phoenix-ssh-ssh-alone"),
        "{}",
        conditions[0].message
    );
    let kept = secrets.get("phoenix-ssh-ssh-alone").await.unwrap();
    assert_eq!(secret_data(&kept)["ssh-privatekey"].0, b"nonsense");
    private(&before).await;
    stage
        .until(
            stage.hypervisors(),
            "ssh-alone",
            "its key",
            key_is("Created"),
        )
        .await;

    // the clone has a key of its own, and it is the recorded one
    let recorded = host_key(top.status.as_ref()).expect("a recorded host key");
    let base = stage.ready::<LxcTemplate>("base").await;
    assert_ne!(host_key(base.status.as_ref()).as_ref(), Some(&recorded));

    // keys made anew behind the operator's back are not accepted, and it says what to do
    let mut human = console(&stage, 901).await;
    let anew = "while grep -aqs 'ALONE[=]1' /proc/[0-9]*/cmdline; do sleep 0.1; done; rm -f /etc/ssh/ssh_host_*; ssh-keygen -A; systemctl restart ssh; echo re''newed; exit\n";
    assert!(see(&mut human, "# ").await);
    human.send(anew.as_bytes()).await.unwrap();
    assert!(see(&mut human, "renewed").await);
    drop(human);
    let patch = json!({"spec": {"setup": setup("again")}});
    let containers = stage.api::<LxcContainer>();
    let params = PatchParams::default();
    containers
        .patch("top", &params, &Patch::Merge(&patch))
        .await
        .unwrap();
    let refused = |o: &LxcContainer| {
        condition(o, "SetupComplete")
            .is_some_and(|c| c.message.contains(&recorded) && c.message.contains("status.ssh"))
    };
    stage
        .until(
            stage.api::<LxcContainer>(),
            "top",
            "a refused host key",
            refused,
        )
        .await;
    assert_eq!(words(&stage, 901), "base\ntop\n", "nothing was done there");
    let patch = json!({"status": {"ssh": null}});
    containers
        .patch_status("top", &params, &Patch::Merge(&patch))
        .await
        .unwrap();
    let renewed = |o: &LxcContainer| {
        let ready = condition(o, "Ready").is_some_and(|c| c.status == "True");
        ready && host_key(o.status.as_ref()).is_some_and(|key| key != recorded)
    };
    stage
        .until(
            stage.api::<LxcContainer>(),
            "top",
            "the new host key",
            renewed,
        )
        .await;
    assert_eq!(words(&stage, 901), "base\ntop\nagain\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_human_on_the_console_keeps_the_operator_out_of_it_and_not_out_of_the_container() {
    let stage = stage("ssh-human", "Auto", None).await;
    stage
        .template("base", json!({"vmid": 900, "setup": setup("base")}))
        .await;
    let top = json!({"vmid": 901, "setup": setup("top"), "network": [{"name": "eth0", "address": "10.0.0.150/24"}]});
    stage.container("top", "base", top).await;
    let top = stage.ready::<LxcContainer>("top").await;
    assert!(consoles(&stage) > 0, "the console comes first");
    assert!(
        host_key(top.status.as_ref()).is_some(),
        "read over the console"
    );

    // the operator's own session is over a moment after its last word
    let mut human = console(&stage, 901).await;
    let begun = tokio::time::Instant::now();
    loop {
        assert!(
            begun.elapsed() < crate::stage::PATIENCE,
            "no shell for a human"
        );
        let looked =
            tokio::time::timeout(std::time::Duration::from_secs(1), see(&mut human, "# ")).await;
        if looked == Ok(true) {
            break;
        }
        human = console(&stage, 901).await;
    }
    human.send(b"rm -rf /etc/half-typed").await.unwrap();
    assert!(see(&mut human, "half-typed").await);
    let patch = json!({"spec": {"setup": setup("meanwhile")}});
    let containers = stage.api::<LxcContainer>();
    containers
        .patch("top", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    let done = |_: &LxcContainer| words(&stage, 901) == "base\ntop\nmeanwhile\n";
    stage
        .until(
            stage.api::<LxcContainer>(),
            "top",
            "the changed setup",
            done,
        )
        .await;
    stage.ready::<LxcContainer>("top").await;
    human.send(b"\x15echo un''touched\n").await.unwrap();
    assert!(see(&mut human, "untouched").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_gives_tokens_no_console_is_entered_over_ssh() {
    let simulator = SimulatorConfig {
        host: HostShape::phoenix_8_4(),
        ..Settings::default().simulator
    };
    let stage = stage("ssh-refused", "Auto", Some(simulator)).await;
    let net = json!([{"name": "eth0", "address": "10.0.0.200/24"}]);
    stage
        .template(
            "base",
            json!({"vmid": 900, "setup": setup("base"), "network": net}),
        )
        .await;
    stage.ready::<LxcTemplate>("base").await;
    // what can't be entered by either way names both
    stage
        .template(
            "closed",
            json!({"vmid": 902, "setup": setup("closed"), "network": null}),
        )
        .await;
    let named = |o: &LxcTemplate| {
        condition(o, "SetupComplete")
            .is_some_and(|c| c.message.contains("console") && c.message.contains("SSH"))
    };
    stage
        .until(
            stage.api::<LxcTemplate>(),
            "closed",
            "both ways named",
            named,
        )
        .await;
}
