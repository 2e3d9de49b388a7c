//! The six systems come up from the manifests as they are shipped, cost nothing at rest, and go away again.

use std::{collections::BTreeMap, time::Duration};

use kube::{
    Api,
    api::{DynamicObject, ListParams},
    core::ApiResource,
};
use phoenix_crds::{LxcContainer, LxcTemplate};

use crate::stage::{Settings, Stage, file};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_six_systems_come_up_rest_and_go() {
    // alone, so that hypervisorRef may be left out, as the manifests do
    let mut stage = Stage::raise(
        "phoenix",
        Settings {
            alone: true,
            ..Settings::default()
        },
    )
    .await;
    stage
        .simulator
        .create_foreign(990, "somebody-elses")
        .await
        .unwrap();
    let manifests = file("manifests/phoenix");
    let manifests = manifests.to_str().unwrap();
    stage.kubectl(&["apply", "-k", manifests]).await;
    for name in [
        "base-template",
        "base-template-gpu",
        "base-template-docker",
        "base-template-vllm",
    ] {
        stage.ready::<LxcTemplate>(name).await;
    }
    stage.ready::<LxcContainer>("portainer").await;
    stage
        .kubectl(&[
            "wait",
            "--for=condition=Ready",
            "lxccontainer/vllm-qwen3-coder",
            "--timeout=120s",
        ])
        .await;

    columns(&stage).await;
    origins(&stage);
    rest(&stage).await;
    restart(&mut stage).await;
    serves(&stage).await;

    stage
        .kubectl(&["delete", "-k", manifests, "--timeout=120s"])
        .await;
    assert_eq!(
        stage
            .simulator
            .containers()
            .keys()
            .copied()
            .collect::<Vec<_>>(),
        [990],
        "all but the foreign one are gone"
    );
    assert_eq!(stage.simulator.problems(), Vec::<String>::new());
}

async fn columns(stage: &Stage) {
    let rows = |table: &str| -> Vec<Vec<String>> {
        table
            .lines()
            .map(|l| l.split_whitespace().map(str::to_owned).collect())
            .collect()
    };
    let templates = rows(&stage.kubectl(&["get", "lxctemplates"]).await);
    assert_eq!(
        templates[0],
        [
            "NAME", "VMID", "NODE", "SOURCE", "SNAPSHOT", "STRATEGY", "REVISION", "READY", "AGE"
        ]
    );
    assert_eq!(
        templates[1][..6],
        [
            "base-template",
            "900",
            "pve",
            "ubuntu-24.04",
            "base-snapshot",
            "Linked"
        ]
    );
    assert_eq!(
        (templates[1][6].len(), templates[1][7].as_str()),
        (10, "True")
    );
    let containers = rows(&stage.kubectl(&["get", "lxccontainers"]).await);
    assert_eq!(
        containers[0],
        [
            "NAME", "VMID", "NODE", "SOURCE", "STATE", "GPUS", "VLLM", "READY", "AGE"
        ]
    );
    assert_eq!(
        containers[1][..5],
        ["portainer", "910", "pve", "base-template-docker", "Running"]
    );
    assert_eq!(
        containers[2][..9],
        [
            "vllm-qwen3-coder",
            "950",
            "pve",
            "base-template-vllm",
            "Running",
            "0,1",
            "qwen3-coder",
            "(8000)",
            "True"
        ]
    );
    let hypervisors = rows(&stage.kubectl(&["get", "hypervisors", &stage.name]).await);
    assert_eq!(
        hypervisors[0],
        [
            "NAME",
            "VERSION",
            "NODES",
            "GPUS",
            "CONTAINERS",
            "READY",
            "AGE"
        ]
    );
    assert_eq!(hypervisors[1][1..6], ["9.2.11", "1/1", "2/2", "6", "True"]);
    let hypervisor = stage
        .hypervisors()
        .get(&stage.name)
        .await
        .unwrap()
        .status
        .unwrap();
    let cards: Vec<_> = hypervisor
        .gpus
        .iter()
        .map(|g| (g.index, g.pci_address.as_deref(), g.held_by.as_slice()))
        .collect();
    let holder = [format!("LxcContainer {}/vllm-qwen3-coder", stage.name)];
    assert_eq!(
        cards,
        [
            (0, Some("0000:01:00.0"), &holder[..]),
            (1, Some("0000:41:00.0"), &holder[..])
        ]
    );
    assert_eq!(hypervisor.missing_privileges, Vec::<String>::new());
    let explained = stage.kubectl(&["explain", "lxccontainer.spec.vllm"]).await;
    assert!(
        explained.contains("tensorParallelSize") && explained.contains("DESCRIPTION:"),
        "{explained}"
    );
}

/// As recorded from a real one: each layer's dataset is a clone of its parent's `@__base__`.
fn origins(stage: &Stage) {
    let zfs = stage.simulator.zfs_list();
    let origin: BTreeMap<&str, &str> = zfs
        .lines()
        .filter_map(|l| l.split_once(char::is_whitespace))
        .map(|(name, rest)| (name, rest.split_whitespace().next().unwrap_or("")))
        .collect();
    let expected = [
        ("tank/basevol-900-disk-0", "-"),
        (
            "tank/basevol-901-disk-0",
            "tank/basevol-900-disk-0@__base__",
        ),
        (
            "tank/basevol-902-disk-0",
            "tank/basevol-900-disk-0@__base__",
        ),
        (
            "tank/basevol-920-disk-0",
            "tank/basevol-901-disk-0@__base__",
        ),
        ("tank/subvol-950-disk-0", "tank/basevol-920-disk-0@__base__"),
        ("tank/subvol-910-disk-0", "tank/basevol-902-disk-0@__base__"),
    ];
    for (dataset, from) in expected {
        assert_eq!(origin.get(dataset), Some(&from), "{dataset} in\n{zfs}");
    }
}

/// At rest: not one write to Kubernetes, one call to Proxmox per polling interval.
async fn rest(stage: &Stage) {
    // what was under way when the last became Ready comes to its end first
    settle(stage).await;
    let before = versions(stage).await;
    stage.simulator.clear_calls();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while stage.polls() < 5 {
        assert!(std::time::Instant::now() < deadline, "the fleet is polled");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let calls = stage.simulator.calls();
    let others: Vec<String> = calls
        .iter()
        .filter(|c| !c.path.ends_with("/cluster/resources"))
        .map(|c| format!("{} {}", c.method, c.path))
        .collect();
    assert_eq!(others, Vec::<String>::new(), "nothing but the one poll");
    assert_eq!(versions(stage).await, before, "no write at rest");
}

/// Another operator takes over what is at rest: it looks, and neither writes nor changes nor enters anything.
async fn restart(stage: &mut Stage) {
    let before = versions(stage).await;
    stage.simulator.clear_calls();
    stage.kill_operator().await;
    stage.start_operator();
    let looked = |vmid: u32| {
        let config = format!("/lxc/{vmid}/config");
        stage
            .simulator
            .calls()
            .iter()
            .any(|c| c.path.contains(&config))
    };
    stage
        .eventually("a look at each container", || {
            [900, 901, 902, 920, 910, 950].into_iter().all(looked)
        })
        .await;
    settle_quietly(stage).await;
    let changes: Vec<String> = stage
        .simulator
        .calls()
        .iter()
        .filter(|c| c.method != "GET")
        .map(|c| format!("{} {}", c.method, c.path))
        .collect();
    assert_eq!(changes, Vec::<String>::new());
    assert_eq!(
        versions(stage).await,
        before,
        "no write by an operator that found all as it was"
    );
}

/// Until two polls were made since the last other call.
async fn settle_quietly(stage: &Stage) {
    stage
        .eventually("two polls and nothing else", || {
            let calls = stage.simulator.calls();
            calls.len() > 4
                && calls
                    .iter()
                    .rev()
                    .take(2)
                    .all(|c| c.path.ends_with("/cluster/resources"))
        })
        .await;
}

/// Until nothing but polls was called for two intervals.
async fn settle(stage: &Stage) {
    for _ in 0..30 {
        stage.simulator.clear_calls();
        tokio::time::sleep(Duration::from_secs(2)).await;
        if stage
            .simulator
            .calls()
            .iter()
            .all(|c| c.path.ends_with("/cluster/resources"))
        {
            return;
        }
    }
}

async fn versions(stage: &Stage) -> BTreeMap<String, Option<String>> {
    let mut versions = BTreeMap::new();
    for resource in [
        ApiResource::erase::<LxcTemplate>(&()),
        ApiResource::erase::<LxcContainer>(&()),
    ] {
        let api: Api<DynamicObject> =
            Api::namespaced_with(stage.client.clone(), &stage.name, &resource);
        for object in api.list(&ListParams::default()).await.unwrap() {
            versions.insert(
                object.metadata.name.unwrap_or_default(),
                object.metadata.resource_version,
            );
        }
    }
    let hypervisor = stage.hypervisors().get(&stage.name).await.unwrap();
    versions.insert(
        "the hypervisor".to_owned(),
        hypervisor.metadata.resource_version,
    );
    versions
}

/// Ready is true: the model answers behind the address that the status tells.
async fn serves(stage: &Stage) {
    let vllm: LxcContainer = stage.ready("vllm-qwen3-coder").await;
    let status = vllm.status.unwrap().vllm.unwrap();
    assert_eq!(
        (status.endpoint.as_deref(), status.models),
        (
            Some("http://10.0.0.150:8000/v1"),
            vec!["qwen3-coder".to_owned()]
        )
    );
    let unit = stage
        .simulator
        .guests()
        .unwrap()
        .read_file(950, "/etc/systemd/system/phoenix-vllm.service")
        .unwrap();
    assert!(
        unit.contains("Restart=always") && unit.contains("--tensor-parallel-size"),
        "{unit}"
    );
}
