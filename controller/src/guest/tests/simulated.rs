//! The whole way, from Proxmox's API to the guest and back: consoles of a simulated Proxmox VE with confined guests behind them.

use std::time::{Duration, Instant};

use proxmox_client::{Client, ClientConfig, Credentials, Params, TaskState, Timeouts, Trust, Upid};
use proxmox_simulator::guest::GuestSettings;
use proxmox_simulator::{Simulator, SimulatorConfig};

use super::{key, setup};
use crate::guest::facts::SetupPhase;
use crate::guest::op::{GuestOp, SetupRun};
use crate::guest::vllm::{VllmInput, render_vllm};
use crate::guest::{Access, GuestError, GuestFacts, Session};
use crate::probe::{ProbeClient, VllmProbe, VllmTarget, VllmWatch};

pub(super) struct Lab {
    pub(super) simulator: Simulator,
    client: Client,
}

impl Lab {
    /// A host with container 950 running, a GPU passed to it.
    pub(super) async fn start() -> Self {
        let config = SimulatorConfig {
            guests: Some(GuestSettings::default()),
            ..SimulatorConfig::default()
        };
        let simulator = Simulator::start(config).await.unwrap();
        let token = simulator.token();
        let client = Client::new(ClientConfig {
            endpoints: vec![simulator.url()],
            trust: Trust {
                ca_bundle: Some(simulator.ca_pem()),
                fingerprints: Vec::new(),
            },
            credentials: Credentials {
                token_id: token.id.clone(),
                token_secret: token.secret.clone().into(),
                password: None,
                root_password: Some(simulator.root_password().into()),
            },
            timeouts: Timeouts::default(),
            observer: None,
        });
        let lab = Self {
            simulator,
            client: client.unwrap(),
        };
        let container = Params::new()
            .set("vmid", 950)
            .set(
                "ostemplate",
                "local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst",
            )
            .set("storage", "lxc-disks")
            .set("hostname", "vllm")
            .set("cmode", "shell")
            .set("features", "nesting=1")
            .set("unprivileged", 1)
            .set("nameserver", "10.0.0.1")
            .set(
                "net0",
                "name=eth0,bridge=vmbr0,ip=10.0.0.150/24,gw=10.0.0.1",
            );
        lab.done(lab.client.create_ct("pve", &container).await.unwrap())
            .await;
        let devices = Params::new()
            .set("dev0", "/dev/nvidia0,mode=0666")
            .set("dev1", "/dev/nvidiactl,mode=0666")
            .set("dev2", "/dev/nvidia-uvm,mode=0666");
        lab.client
            .ct_set_config("pve", 950, &devices, true)
            .await
            .unwrap();
        lab.boot().await;
        lab
    }

    pub(super) async fn boot(&self) {
        self.done(self.client.ct_start("pve", 950).await.unwrap())
            .await;
    }

    pub(super) async fn stop(&self) {
        self.done(self.client.ct_stop("pve", 950).await.unwrap())
            .await;
    }

    async fn done(&self, task: Upid) {
        loop {
            match self.client.task_status(&task).await.unwrap() {
                TaskState::Running => tokio::time::sleep(Duration::from_millis(20)).await,
                TaskState::Ok | TaskState::Warnings(_) => return,
                other => panic!("{task}: {other:?}"),
            }
        }
    }

    async fn session(&self) -> Result<Session, GuestError> {
        Session::open(&self.client, "pve", &key(), &Access::CONSOLE).await
    }

    /// One operation on a connection of its own.
    pub(super) async fn visit(&self, op: &GuestOp) -> Result<GuestFacts, GuestError> {
        let mut session = self.session().await?;
        let outcome = session.run(op).await;
        session.close().await;
        outcome
    }
}

fn a_run(hash: &str, script: &str) -> SetupRun {
    super::setup::a_run(hash, script)
}

const INSTALL: &str = "#!/usr/bin/env bash
set -euo pipefail
echo 'deb https://mirror.lan/cuda/ubuntu2404/x86_64/ /' >/etc/apt/sources.list.d/cuda.list
apt-get update
apt-get install -y python3-venv libnvidia-compute-580=580.95.05-0ubuntu1 nvidia-utils-580=580.95.05-0ubuntu1
python3 -m venv /opt/vllm
/opt/vllm/bin/pip install vllm
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_comes_from_its_first_boot_to_serving_a_model() {
    let lab = Lab::start().await;
    let guests = lab.simulator.guests().unwrap();
    // One that the repository has.
    guests.set_driver_version("580.95.05");
    let mut session = lab.session().await.unwrap();
    let facts = session
        .run(&GuestOp::AwaitBoot {
            network: true,
            limit: Duration::from_secs(30),
        })
        .await
        .unwrap();
    assert!(facts.booted(true), "{facts:?}");
    let before = guests.read_file(950, "/etc/ssh/ssh_host_ed25519_key");
    assert!(
        session
            .run(&GuestOp::Personalise)
            .await
            .unwrap()
            .state
            .unwrap()
            .personalised
    );
    assert_ne!(
        guests.read_file(950, "/etc/ssh/ssh_host_ed25519_key"),
        before
    );

    let run = SetupRun {
        verify: Some("#!/bin/sh\n/opt/vllm/bin/vllm --version".to_owned()),
        ..a_run("h1", INSTALL)
    };
    session.run(&GuestOp::StartSetup(run)).await.unwrap();
    let facts = session
        .run(&GuestOp::AwaitSetup {
            limit: Duration::from_secs(60),
        })
        .await
        .unwrap();
    let gpus: Vec<_> = facts
        .gpus
        .iter()
        .map(|gpu| (gpu.minor, gpu.pci_address.as_str(), gpu.memory_mib))
        .collect();
    assert_eq!(gpus, [(Some(0), "0000:01:00.0", 49140)], "{facts:?}");
    assert_eq!(
        facts.host_driver.as_deref(),
        Some(facts.gpus[0].driver_version.as_str())
    );
    let state = setup(facts);
    assert_eq!(state.phase, SetupPhase::Verified, "{state:?}");

    session.close().await;

    let unit = render_vllm(&VllmInput {
        model: "Qwen/Qwen3-Coder-30B-A3B-Instruct".to_owned(),
        served_model_name: Some("qwen3-coder".to_owned()),
        port: 8000,
        host: "0.0.0.0".to_owned(),
        tensor_parallel_size: Some(1),
        max_model_len: Some(32768),
        gpu_memory_utilization: Some(0.9),
        dtype: None,
        quantization: Some("fp8".to_owned()),
        extra_args: Vec::new(),
        env: vec![("ODD".to_owned(), "a \"b\" $c".to_owned())],
        hugging_face_token: Some("hf_EXAMPLE".into()),
        api_key: Some("EXAMPLE-KEY".into()),
        executable: "/opt/vllm/bin/vllm".to_owned(),
    });
    let target = VllmTarget {
        address: "10.0.0.150".parse().unwrap(),
        port: 8000,
        model: "qwen3-coder".to_owned(),
        api_key: Some("EXAMPLE-KEY".into()),
        args_hash: unit.args_hash.clone(),
    };
    let probe = ProbeClient::new(lab.simulator.guest_proxy_url().as_deref()).unwrap();
    let mut watch = VllmWatch::default();
    assert_eq!(
        watch.look(&probe, &target).await,
        VllmProbe::Refused,
        "nothing is there yet"
    );
    let vllm = lab
        .visit(&GuestOp::ApplyVllm { unit: unit.clone() })
        .await
        .unwrap()
        .vllm
        .unwrap();
    assert!(
        vllm.executable_found && vllm.args_hash == unit.args_hash,
        "{vllm:?}"
    );
    serving(&mut watch, &probe, &target).await;
    let vllm = lab
        .visit(&GuestOp::ApplyVllm { unit: unit.clone() })
        .await
        .unwrap()
        .vllm
        .unwrap();
    assert_eq!(
        (vllm.active.as_str(), vllm.restarts, vllm.args_hash.as_str()),
        ("active", 0, unit.args_hash.as_str())
    );
    assert!(vllm.since.is_some(), "{vllm:?}");

    assert_eq!(guests.kill_engine(950), 1);
    let begun = Instant::now();
    while matches!(watch.look(&probe, &target).await, VllmProbe::Serving { .. }) {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "a dead engine is noticed"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    serving(&mut watch, &probe, &target).await;

    lab.visit(&GuestOp::RemoveVllm).await.unwrap();
    assert_eq!(watch.look(&probe, &target).await, VllmProbe::Refused);
    let facts = lab.visit(&GuestOp::CleanForSeal).await.unwrap();
    assert_eq!((facts.state, facts.vllm), (None, None));
    assert_eq!(guests.read_file(950, "/etc/phoenix/vllm.env"), None);
    lab.simulator.stop().await;
}

async fn serving(watch: &mut VllmWatch, probe: &ProbeClient, target: &VllmTarget) {
    let begun = Instant::now();
    loop {
        let seen = watch.look(probe, target).await;
        if let VllmProbe::Serving { models, .. } = &seen {
            assert_eq!(models, &["qwen3-coder".to_owned()]);
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{seen:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consoles_that_break_anywhere_neither_run_a_setup_twice_nor_shut_us_out() {
    let lab = Lab::start().await;
    let guests = lab.simulator.guests().unwrap();
    let mut expected = Vec::new();
    // 5: inside the cleared screen, before anything was typed.
    for bytes in [5, 100, 450, 1000, 2500, 6000, 9000, 11_000, 13_000] {
        let op = GuestOp::StartSetup(a_run(
            &format!("cut{bytes}"),
            &format!("echo {bytes} >> /root/count"),
        ));
        guests.cut_consoles_after(Some(bytes));
        let cut = lab.visit(&op).await;
        assert!(
            matches!(
                cut,
                Ok(_) | Err(GuestError::Lost { .. } | GuestError::Unreached { .. })
            ),
            "{bytes}: {cut:?}"
        );
        guests.cut_consoles_after(None);
        lab.visit(&op)
            .await
            .unwrap_or_else(|error| panic!("after {bytes} bytes: {error}"));
        let facts = lab
            .visit(&GuestOp::AwaitSetup {
                limit: Duration::from_secs(20),
            })
            .await
            .unwrap();
        assert_eq!(setup(facts).phase, SetupPhase::Verified, "{bytes}");
        expected.push(bytes.to_string());
    }
    let ran = guests.read_file(950, "/root/count").unwrap_or_default();
    assert_eq!(ran.lines().collect::<Vec<_>>(), expected);
    lab.simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_does_not_run_has_no_console() {
    let lab = Lab::start().await;
    lab.stop().await;
    let error = lab.visit(&GuestOp::Inspect).await.unwrap_err();
    assert!(
        matches!(&error, GuestError::Unreached { cause } if cause.contains("Failed to get init pid")),
        "{error}"
    );
    lab.simulator.stop().await;
}
