//! A GPU is held from start to stop, across namespaces; who comes second waits with the holder's name. What the node lacks after a boot,
//! and a driver that the libraries inside don't fit, is said, and goes on by itself.

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use phoenix_crds::{LxcContainer, LxcStatus, LxcTemplate};
use proxmox_simulator::{AclShape, Mishap, guest::Failure};
use serde_json::{Value, json};

use crate::stage::{OS_TEMPLATE, Settings, Stage, condition};

/// A driver that the simulated NVIDIA repository has, and a later one.
const DRIVER: &str = "580.82.07";
const NEW_DRIVER: &str = "580.95.05";

/// Brings the libraries of the node's driver, as layer 901 does.
const LIBRARIES: &str = "#!/bin/bash
# phoenix: driver-step
set -eu
driver=$(sed -nE 's/^NVRM.*Module  ([0-9.]+) .*/\\1/p' /proc/driver/nvidia/version)
echo 'deb https://mirror.lan/cuda/ubuntu2404/x86_64/ /' >/etc/apt/sources.list.d/cuda.list
apt-get update
apt-get install -y libnvidia-compute-580=$driver-0ubuntu1 nvidia-utils-580=$driver-0ubuntu1
echo \"${PHOENIX_STEP:-all} $driver\" >>/etc/steps
";

fn settings() -> Settings {
    let mut settings = Settings::default();
    DRIVER.clone_into(&mut settings.simulator.host.nodes[0].driver_version);
    settings
}

fn network(host: u8) -> Value {
    json!([{"name": "eth0", "bridge": "vmbr0", "address": format!("10.0.0.{host}/24"), "gateway": "10.0.0.1"}])
}

/// A container of its own, from the OS template.
fn spec(stage: &Stage, host: u8, gpus: &Value) -> Value {
    json!({
        "hypervisorRef": {"name": stage.name}, "source": {"osTemplate": OS_TEMPLATE}, "rootfs": {"size": "4Gi"},
        "network": network(host), "gpus": gpus, "setup": {"script": LIBRARIES, "verify": "nvidia-smi -L"},
    })
}

async fn apply(api: &Api<LxcContainer>, name: &str, spec: Value) {
    let object = json!({"apiVersion": "phoenix-hypervisor.io/v1alpha1", "kind": "LxcContainer", "metadata": {"name": name}, "spec": spec});
    let params = PatchParams::apply("test").force().validation_strict();
    api.patch(name, &params, &Patch::Apply(&object))
        .await
        .expect("an accepted object");
}

async fn power(api: &Api<LxcContainer>, name: &str, state: &str) {
    let patch = Patch::Merge(json!({"spec": {"powerState": state}}));
    api.patch(name, &PatchParams::default(), &patch)
        .await
        .expect("a patch");
}

fn is(container: &LxcContainer, kind: &str, status: &str, reason: &str) -> bool {
    condition(container, kind).is_some_and(|c| c.status == status && c.reason == reason)
}

fn is_ready(container: &LxcContainer) -> bool {
    let status = container.status.as_ref();
    status.and_then(|s| s.observed_generation) == container.metadata.generation
        && condition(container, "Ready").is_some_and(|c| c.status == "True")
}

fn message(container: &LxcContainer) -> String {
    condition(container, "GpuAllocated").map_or_else(String::new, |c| c.message)
}

fn held(status: Option<&LxcStatus>) -> Vec<i64> {
    status
        .iter()
        .flat_map(|s| s.gpus.iter().map(|g| g.index))
        .collect()
}

fn runs(stage: &Stage, container: &LxcContainer) -> bool {
    let vmid = container.status.as_ref().and_then(|s| s.vmid);
    let containers = stage.simulator.containers();
    vmid.and_then(|v| containers.get(&u32::try_from(v).ok()?).map(|c| c.running))
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_namespaces_that_want_one_gpu_have_it_one_after_the_other() {
    let stage = Stage::raise("gpu-conflict", settings()).await;
    let (here, there) = (stage.api::<LxcContainer>(), stage.second_namespace().await);
    let exclusive = json!({"indices": [0], "sharing": "Exclusive"});
    apply(&here, "first", spec(&stage, 61, &exclusive)).await;
    let first = stage.until(here.clone(), "first", "Ready", is_ready).await;
    let gpu = first.status.unwrap().gpus.remove(0);
    assert_eq!(
        (
            gpu.index,
            gpu.sharing.as_deref(),
            gpu.driver_version.as_deref()
        ),
        (0, Some("Exclusive"), Some(DRIVER))
    );
    assert!(gpu.uuid.is_some_and(|uuid| uuid.starts_with("GPU-")));

    apply(&there, "second", spec(&stage, 62, &exclusive)).await;
    let waits = |c: &LxcContainer| is(c, "GpuAllocated", "False", "Conflict");
    let second = stage
        .until(there.clone(), "second", "Conflict", waits)
        .await;
    let holder = "LxcContainer gpu-conflict/first";
    let told = message(&second);
    assert!(
        told.contains(&format!(
            "On node pve, GPU 0 is held by {holder} (Exclusive)"
        )) && told.contains("spec.powerState: Stopped"),
        "{told}"
    );
    assert!(!runs(&stage, &second));
    let map = |h: &phoenix_crds::Hypervisor| {
        let gpus = h.status.as_ref().map(|s| s.gpus.clone());
        gpus.unwrap_or_default()
            .iter()
            .map(|g| {
                (
                    g.index,
                    g.sharing.clone().unwrap_or_default(),
                    g.held_by.join("+"),
                )
            })
            .collect::<Vec<_>>()
    };
    let one = [(0, "Exclusive".to_owned(), holder.to_owned())];
    stage
        .until(stage.hypervisors(), &stage.name, "one holder", |h| {
            map(h) == one
        })
        .await;

    power(&here, "first", "Stopped").await;
    let second = stage
        .until(there.clone(), "second", "Ready", is_ready)
        .await;
    assert_eq!(held(second.status.as_ref()), [0]);
    let first = stage.until(here.clone(), "first", "Ready", is_ready).await;
    assert_eq!(
        held(first.status.as_ref()),
        [0; 0],
        "what is stopped holds none"
    );
    // and the other way round, by a deletion
    power(&here, "first", "Running").await;
    let first = stage.until(here.clone(), "first", "Conflict", waits).await;
    assert!(
        message(&first).contains("held by LxcContainer gpu-conflict-second/second"),
        "{}",
        message(&first)
    );
    assert!(!runs(&stage, &first));
    there
        .delete("second", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    stage.until(here, "first", "Ready", is_ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_count_takes_what_is_free_and_no_two_take_the_same() {
    let mut settings = settings();
    settings.simulator.host.acl.push(AclShape {
        path: "/".to_owned(),
        who: "phoenix@pve".to_owned(),
        privileges: vec!["Sys.Audit".to_owned()],
        propagate: false,
    });
    let mut stage = Stage::raise("gpu-count", settings).await;
    let api = stage.api::<LxcContainer>();
    // what no container has is known from the PCI bus
    let shows = |text: &'static str| {
        move |h: &phoenix_crds::Hypervisor| {
            let display = h.status.as_ref().and_then(|s| s.display.as_ref());
            display.and_then(|d| d.gpus.as_deref()) == Some(text)
        }
    };
    let hypervisor = stage
        .until(stage.hypervisors(), &stage.name, "0/2", shows("0/2"))
        .await;
    let addresses = |h: phoenix_crds::Hypervisor| {
        let gpus = h.status.unwrap_or_default().gpus;
        let address = |g: phoenix_crds::hypervisor::HostGpuStatus| g.pci_address;
        gpus.into_iter().filter_map(address).collect::<Vec<_>>()
    };
    assert_eq!(addresses(hypervisor), ["0000:01:00.0", "0000:41:00.0"]);

    let count = json!({"count": 1, "sharing": "Exclusive"});
    let names = ["a", "b", "c", "d"];
    let all = names
        .iter()
        .zip(71..)
        .map(|(name, host)| apply(&api, name, spec(&stage, host, &count)));
    futures::future::join_all(all).await;
    let settled = |c: &LxcContainer| is_ready(c) || is(c, "GpuAllocated", "False", "NoFreeGpu");
    let (mut ready, mut waiting, mut taken) = (Vec::new(), Vec::new(), Vec::new());
    for name in names {
        let container = stage
            .until(api.clone(), name, "Ready or NoFreeGpu", settled)
            .await;
        if is_ready(&container) {
            taken.extend(held(container.status.as_ref()));
            ready.push(name);
        } else {
            assert!(!runs(&stage, &container), "{name}");
            assert_eq!(held(container.status.as_ref()), [0; 0]);
            let told = message(&container);
            assert!(
                told.contains("asks for 1, and 0 of the 2 GPUs of node pve can be had")
                    && told.contains("held by LxcContainer gpu-count/"),
                "{told}"
            );
            waiting.push(name);
        }
    }
    taken.sort_unstable();
    assert_eq!(
        (ready.len(), taken.as_slice()),
        (2, &[0, 1][..]),
        "{ready:?} {waiting:?}"
    );
    stage
        .until(stage.hypervisors(), &stage.name, "2/2", shows("2/2"))
        .await;
    // who holds what is known to the next operator
    stage.kill_operator().await;
    stage.start_operator();
    // one that lets go is followed by one that waited, on that very GPU
    let freed = api.get(ready[0]).await.unwrap();
    let gpu = held(freed.status.as_ref());
    stage.delete::<LxcContainer>(ready[0]).await;
    let [one, two] = [waiting[0], waiting[1]]
        .map(|name| Box::pin(stage.until(api.clone(), name, "Ready", is_ready)));
    let (next, _) = futures::future::select(one, two).await.factor_first();
    assert_eq!(held(next.status.as_ref()), gpu);
    let column = stage
        .kubectl(&["get", "lxccontainer", &next.metadata.name.unwrap()])
        .await;
    assert!(column.contains(&format!(" {} ", gpu[0])), "{column}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_of_the_node_without_device_files_and_with_another_driver_is_survived() {
    // a boot that follows a start so closely shows in no poll
    let polling = ("1s", "3s");
    let settings = Settings {
        polling,
        ..settings()
    };
    let stage = Stage::raise("gpu-boot", settings).await;
    let suffer = async |mishap| stage.simulator.suffer(mishap).await.unwrap();
    suffer(Mishap::NvidiaDevices { present: false }).await;
    let gpus = json!({"indices": [0]});
    let setup = json!({"script": LIBRARIES, "verify": "nvidia-smi -L"});
    stage
        .template(
            "gpu",
            json!({"vmid": 900, "network": network(81), "gpus": gpus, "setup": setup}),
        )
        .await;
    stage
        .container(
            "top",
            "gpu",
            json!({"vmid": 901, "network": network(82), "gpus": gpus}),
        )
        .await;
    // without its device files no container can be given a card
    let missing = stage
        .reason::<LxcTemplate>("gpu", "GpuAllocated", "HostDeviceMissing")
        .await
        .message;
    assert!(missing.contains("pve has no /dev/nvidia"), "{missing}");
    suffer(Mishap::NvidiaDevices { present: true }).await;
    let template: LxcTemplate = stage.ready("gpu").await;
    assert_eq!(
        held(template.status.as_ref()),
        [0; 0],
        "a sealed template holds none"
    );
    stage.ready::<LxcContainer>("top").await;

    let reboot = || Mishap::RebootNode {
        node: "pve".to_owned(),
        seconds: 0.2,
    };
    suffer(Mishap::NvidiaDevices { present: false }).await;
    suffer(reboot()).await;
    let missing = stage
        .reason::<LxcContainer>("top", "GpuAllocated", "HostDeviceMissing")
        .await
        .message;
    for part in [
        "pve has no /dev/nvidia",
        "container 901",
        "`nvidia-modprobe -u -c=0`",
    ] {
        assert!(
            missing.to_lowercase().contains(&part.to_lowercase()),
            "{missing}"
        );
    }
    suffer(Mishap::NvidiaDevices { present: true }).await;
    let top: LxcContainer = stage.ready("top").await;
    assert_eq!(held(top.status.as_ref()), [0]);

    // the node comes up with another driver, and what could bring its libraries fails at first
    let guests = stage.simulator.guests().unwrap();
    let failure = Failure {
        stderr: "E: no way".to_owned(),
        code: 100,
        times: None,
    };
    guests.fail(Some(901), "apt-get", failure);
    suffer(Mishap::NvidiaDriver {
        version: NEW_DRIVER.to_owned(),
    })
    .await;
    suffer(reboot()).await;
    let told = |c: &LxcContainer| {
        is(c, "GpuAllocated", "False", "DriverMismatch") && message(c).contains("exit code 100")
    };
    let top = stage
        .until(stage.api::<LxcContainer>(), "top", "DriverMismatch", told)
        .await;
    for part in [
        "580.82",
        NEW_DRIVER,
        "node pve",
        "driver step of LxcTemplate gpu-boot/gpu",
    ] {
        assert!(message(&top).contains(part), "{part}: {}", message(&top));
    }
    guests.heal(Some(901), "apt-get");
    let top: LxcContainer = stage.ready("top").await;
    let gpus = top.status.unwrap().gpus;
    assert_eq!(gpus[0].driver_version.as_deref(), Some(NEW_DRIVER));
    let steps = guests.read_file(901, "/etc/steps").unwrap();
    assert_eq!(steps, format!("all {DRIVER}\ndriver {NEW_DRIVER}\n"));
}
