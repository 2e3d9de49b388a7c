//! A Hypervisor that can't be worked with: its token, its address, its certificate.

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use phoenix_crds::{
    Hypervisor, LxcTemplate,
    conditions::{ConditionType as C, Reason},
    status::State,
};
use phoenix_lab::installation::OPERATOR_NAMESPACE;
use serde_json::json;

use super::{changes, has, hypervisor_ready, hypervisor_told, patch_hypervisor, told};
use crate::{
    documented::says,
    link::Link,
    stage::{Settings, Stage},
};

/// The operator comes when the Hypervisor is as wrong as it shall be.
async fn before_the_operator(name: &str) -> Stage {
    Stage::raise(
        name,
        Settings {
            operator: false,
            ..Settings::without_guests()
        },
    )
    .await
}

/// A template that has to wait for the Hypervisor; what it says meanwhile.
async fn waiting(stage: &Stage) -> String {
    stage.template("waiting", json!({"vmid": 900})).await;
    let sentence =
        told::<LxcTemplate>(stage, "waiting", C::HypervisorReady, Reason::Unreachable).await;
    says(
        &sentence,
        &[
            &format!("Hypervisor {}", stage.name),
            &format!("`kubectl describe hypervisor {}`", stage.name),
        ],
    );
    assert_eq!(
        (
            changes(&stage.simulator),
            stage.simulator.containers().len()
        ),
        (vec![], 0)
    );
    sentence
}

async fn give_token(stage: &Stage, secret: &str) {
    let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), OPERATOR_NAMESPACE);
    let change = Patch::Merge(json!({"stringData": {"tokenSecret": secret}}));
    secrets
        .patch(&stage.name, &PatchParams::default(), &change)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_is_told_and_taken_when_it_is_right() {
    let mut stage = before_the_operator("wrong-token").await;
    give_token(&stage, "00000000-0000-4000-8000-000000000000").await;
    stage.start_operator();

    let sentence = hypervisor_told(&stage, C::Authorized, Reason::TokenInvalid).await;
    says(
        &sentence,
        &[
            "Secret phoenix-system/wrong-token",
            "401",
            "tokenId",
            "tokenSecret",
            "expired",
        ],
    );
    let connected = stage
        .hypervisors()
        .get(&stage.name)
        .await
        .unwrap()
        .status
        .unwrap()
        .conditions;
    assert!(
        has(&connected, C::Connected, Reason::Connected),
        "who refuses us is there: {connected:#?}"
    );
    assert!(
        !sentence.contains("00000000-0000"),
        "a secret is never repeated: {sentence}"
    );
    says(&waiting(&stage).await, &["API token"]);
    assert!(
        stage.simulator.calls().iter().all(|c| c.code == 401),
        "{:?}",
        stage.simulator.call_counts()
    );

    give_token(&stage, &stage.simulator.token().secret).await;
    stage.ready::<LxcTemplate>("waiting").await;
    hypervisor_ready(&stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_secret_is_asked_for_and_taken_when_it_comes() {
    let mut stage = before_the_operator("no-secret").await;
    let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), OPERATOR_NAMESPACE);
    secrets
        .delete(&stage.name, &DeleteParams::default())
        .await
        .unwrap();
    stage.start_operator();

    let sentence = hypervisor_told(&stage, C::Authorized, Reason::SecretNotFound).await;
    let needed = [
        "Secret phoenix-system/no-secret",
        "spec.credentialsSecret",
        "does not exist",
    ];
    says(&sentence, &needed);
    says(
        &sentence,
        &["tokenId", "tokenSecret", "operator's namespace"],
    );
    says(&waiting(&stage).await, &["not connected yet"]);

    // one that is not complete says what it lacks
    let mut data = json!({"tokenId": stage.simulator.token().id});
    let mut secret = json!({"metadata": {"name": stage.name}, "stringData": data});
    let create = serde_json::from_value(secret.clone()).unwrap();
    secrets
        .create(&PostParams::default(), &create)
        .await
        .unwrap();
    let lacks = |h: &Hypervisor| {
        let status = h.status.as_ref();
        status.is_some_and(|s| {
            s.conditions
                .iter()
                .any(|c| c.message.contains("no tokenSecret"))
        })
    };
    stage
        .until(stage.hypervisors(), &stage.name, "what it lacks", lacks)
        .await;
    hypervisor_told(&stage, C::Authorized, Reason::SecretNotFound).await;

    data["tokenSecret"] = json!(stage.simulator.token().secret);
    secret["stringData"] = data;
    secrets
        .patch(&stage.name, &PatchParams::default(), &Patch::Merge(&secret))
        .await
        .unwrap();
    stage.ready::<LxcTemplate>("waiting").await;
    hypervisor_ready(&stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_proxmox_is_waited_for_and_takes_nothing_along_when_it_goes() {
    let mut stage = before_the_operator("unreachable").await;
    let mut link = Link::refusing();
    patch_hypervisor(&stage, json!({"spec": {"endpoints": [link.url()]}})).await;
    stage.start_operator();

    let sentence = hypervisor_told(&stage, C::Connected, Reason::Unreachable).await;
    says(
        &sentence,
        &[&link.url(), "refused", "Check address, port and network"],
    );
    says(&waiting(&stage).await, &["does not answer", "refused"]);

    link.lead_to(stage.simulator.port());
    stage.ready::<LxcTemplate>("waiting").await;
    hypervisor_ready(&stage).await;

    // gone again: what was known still stands, and deleting does not mean forgetting
    link.cut();
    hypervisor_told(&stage, C::Connected, Reason::Unreachable).await;
    told::<LxcTemplate>(&stage, "waiting", C::HypervisorReady, Reason::Unreachable).await;
    let kept = stage
        .reason::<LxcTemplate>("waiting", "Sealed", "Sealed")
        .await;
    assert_eq!(kept.status, "True");
    stage.simulator.clear_calls();
    stage
        .api::<LxcTemplate>()
        .delete("waiting", &DeleteParams::default())
        .await
        .unwrap();
    let deleting = |t: &LxcTemplate| {
        t.status
            .as_ref()
            .is_some_and(|s| s.state == Some(State::Deleting))
    };
    stage
        .until(stage.api::<LxcTemplate>(), "waiting", "Deleting", deleting)
        .await;
    told::<LxcTemplate>(&stage, "waiting", C::HypervisorReady, Reason::Unreachable).await;
    assert!(stage.simulator.containers().contains_key(&900) && stage.simulator.calls().is_empty());

    link.mend();
    stage.gone::<LxcTemplate>("waiting").await;
    assert!(stage.simulator.containers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_untrusted_certificate_shows_its_fingerprint_to_be_pinned() {
    let mut stage = before_the_operator("untrusted").await;
    patch_hypervisor(&stage, json!({"spec": {"tls": null}})).await;
    stage.start_operator();

    let sentence = hypervisor_told(&stage, C::Connected, Reason::CertificateUntrusted).await;
    says(
        &sentence,
        &[
            &stage.simulator.url(),
            "not trusted",
            "`pvenode cert info`",
            "spec.tls.fingerprints",
            "spec.tls.caBundle",
        ],
    );
    says(&waiting(&stage).await, &["certificate"]);
    assert!(
        stage.simulator.calls().is_empty(),
        "no token goes to somebody unknown: {:?}",
        stage.simulator.call_counts()
    );

    let is_fingerprint = |word: &&str| {
        word.len() == 95
            && word
                .split(':')
                .all(|byte| byte.len() == 2 && u8::from_str_radix(byte, 16).is_ok())
    };
    let shown = sentence
        .split([' ', ',', '.'])
        .find(is_fingerprint)
        .unwrap_or_else(|| panic!("no fingerprint in {sentence:?}"));
    patch_hypervisor(&stage, json!({"spec": {"tls": {"fingerprints": [shown]}}})).await;
    stage.ready::<LxcTemplate>("waiting").await;
    hypervisor_ready(&stage).await;
    assert_eq!(shown, stage.simulator.fingerprint());
}
