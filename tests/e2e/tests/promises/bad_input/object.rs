//! Bad input in a template's or a container's own spec.

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use phoenix_crds::{
    LxcContainer, LxcTemplate,
    conditions::{ConditionType as C, Reason},
};
use phoenix_lab::installation::OPERATOR_NAMESPACE;
use serde_json::json;

use super::{changes, network, told, told_in_the_end};
use crate::{
    documented::says,
    stage::{Settings, Stage},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_template_is_waited_for() {
    let stage = Stage::raise("unknown-template", Settings::default()).await;
    stage
        .container("orphan", "missing", json!({"network": network(31)}))
        .await;
    let sentence =
        told::<LxcContainer>(&stage, "orphan", C::SourceReady, Reason::TemplateNotFound).await;
    says(
        &sentence,
        &[
            "LxcTemplate unknown-template/missing",
            "spec.source.templateRef",
            "does not exist",
            "Create it",
            "goes on by itself",
        ],
    );
    assert_eq!(
        (
            changes(&stage.simulator),
            stage.simulator.containers().len()
        ),
        (vec![], 0)
    );

    stage.template("missing", json!({})).await;
    let orphan: LxcContainer = stage.ready("orphan").await;
    assert_eq!(
        orphan.status.unwrap().source.unwrap().template.as_deref(),
        Some("missing")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_setup_script_stalls_with_its_last_words_until_it_is_corrected() {
    let stage = Stage::raise("failing-setup", Settings::default()).await;
    let script = |end: &str| {
        let script = format!("#!/bin/sh\necho fetching the packages\n{end}\n");
        json!({"vmid": 900, "network": network(31), "setup": {"retries": 1, "script": script}})
    };
    stage
        .template(
            "layer",
            script("echo 'E: no such mirror: deb.example' >&2\nexit 7"),
        )
        .await;

    let sentence =
        told_in_the_end::<LxcTemplate>(&stage, "layer", C::SetupComplete, Reason::Failed).await;
    says(
        &sentence,
        &[
            "attempt 2 of 2",
            "exit code 7",
            "E: no such mirror: deb.example",
            "status.setup",
            "correct the script",
        ],
    );
    let layer: LxcTemplate = stage.api().get("layer").await.unwrap();
    let setup = layer.status.unwrap().setup.unwrap();
    assert_eq!((setup.attempt, setup.exit_code), (Some(2), Some(7)));
    says(
        &setup.last_lines.unwrap(),
        &["fetching the packages\n", "E: no such mirror: deb.example"],
    );
    let container = &stage.simulator.containers()[&900];
    assert!(
        container.running && !container.template && container.snapshots.is_empty(),
        "it is left for a person to look into: {container:?}"
    );

    stage
        .template("layer", script("echo done > /etc/layer"))
        .await;
    let layer: LxcTemplate = stage.ready("layer").await;
    let setup = layer.status.unwrap().setup.unwrap();
    assert_eq!((setup.attempt, setup.exit_code), (Some(1), Some(0)));
    assert!(stage.simulator.containers()[&900].template);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gpus_without_root_credentials_ask_for_the_line_to_run() {
    let stage = Stage::raise(
        "no-root",
        Settings {
            root: false,
            ..Settings::default()
        },
    )
    .await;
    stage
        .template(
            "by-hand",
            json!({"vmid": 900, "network": network(31), "gpus": {"indices": [0, 1]}}),
        )
        .await;
    stage
        .template(
            "by-secret",
            json!({"vmid": 901, "network": network(32), "gpus": {"indices": [1]}}),
        )
        .await;
    let by_hand =
        told::<LxcTemplate>(&stage, "by-hand", C::ConfigInSync, Reason::RootRequired).await;
    let by_secret =
        told::<LxcTemplate>(&stage, "by-secret", C::ConfigInSync, Reason::RootRequired).await;
    says(
        &by_hand,
        &[
            "root@pam",
            "`pct set 900 --dev0 /dev/nvidia0,mode=0666 --dev1 /dev/nvidia1,mode=0666",
            "on node pve",
            "rootPassword",
        ],
    );
    says(
        &by_secret,
        &["`pct set 901 --dev0 /dev/nvidia1,mode=0666 --dev1 /dev/nvidiactl,mode=0666"],
    );
    for container in stage.simulator.containers().values() {
        assert!(
            !container.running && !container.config.keys().any(|k| k.starts_with("dev")),
            "{container:?}"
        );
    }
    let refused: Vec<_> = stage
        .simulator
        .calls()
        .into_iter()
        .filter(|c| c.method != "GET" && c.code == 403 || c.endpoint == "/access/ticket")
        .collect();
    assert!(
        refused.is_empty(),
        "what can't be allowed is not tried: {refused:?}"
    );

    // somebody runs the very line on the host
    let line = by_hand
        .split('`')
        .find(|part| part.starts_with("pct set "))
        .expect("a line to run");
    let words: Vec<&str> = line.split(' ').skip(3).collect();
    for pair in words.chunks(2) {
        stage
            .simulator
            .edit_config(900, pair[0].trim_start_matches("--"), Some(pair[1]))
            .unwrap();
    }
    stage.ready::<LxcTemplate>("by-hand").await;
    assert_eq!(
        told::<LxcTemplate>(&stage, "by-secret", C::ConfigInSync, Reason::RootRequired).await,
        by_secret
    );

    // or the password is given
    let password = json!({"stringData": {"rootPassword": stage.simulator.root_password()}});
    let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), OPERATOR_NAMESPACE);
    secrets
        .patch(
            &stage.name,
            &PatchParams::default(),
            &Patch::Merge(password),
        )
        .await
        .unwrap();
    stage.ready::<LxcTemplate>("by-secret").await;
}
