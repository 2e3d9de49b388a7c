//! The scripts of manifests/phoenix, as they are shipped, one layer on the other.

use std::time::Duration;

use super::{Lab, UBUNTU, lab, spec};

const GPUS: &[&str] = &[
    "/dev/nvidia0",
    "/dev/nvidia1",
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
    "/dev/nvidia-uvm-tools",
];
const DEBIAN: &str = "debian-13-standard_13.1-2_amd64.tar.zst";

fn script(number: &str) -> Option<String> {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../manifests/phoenix/scripts"
    );
    let mut files = std::fs::read_dir(folder)
        .ok()?
        .filter_map(Result::ok)
        .map(|entry| entry.path());
    let file = files.find(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(number))
    })?;
    std::fs::read_to_string(file).ok()
}

/// Clones one layer's disk, boots it and runs the script of the next, twice: the second time shows that it may be repeated.
async fn layer(lab: &Lab, from: u32, vmid: u32, devices: &[&str], number: &str) {
    let volume = |vmid: u32| format!("lxc-disks:subvol-{vmid}-disk-0");
    if from != vmid {
        lab.world
            .clone_root(volume(from), None, volume(vmid))
            .await
            .unwrap();
    }
    lab.world
        .boot(
            vmid,
            spec(&volume(vmid), &format!("10.0.0.{}", vmid - 800), devices),
        )
        .await
        .unwrap();
    let script = script(number).expect("the repository has this layer's script");
    for _ in 0..2 {
        let (said, code) = lab.sh(vmid, &script).await;
        assert_eq!(code, 0, "layer {number}: {said}");
    }
}

async fn all_layers(template: &str) {
    let lab = lab().await;
    lab.world
        .create_root(
            "lxc-disks:subvol-900-disk-0".to_owned(),
            template.to_owned(),
        )
        .await
        .unwrap();
    layer(&lab, 900, 900, &[], "900").await;
    lab.world
        .shutdown(900, Duration::from_secs(10))
        .await
        .unwrap();
    layer(&lab, 900, 901, GPUS, "901").await;
    layer(&lab, 900, 902, &[], "902").await;
    lab.world
        .shutdown(901, Duration::from_secs(10))
        .await
        .unwrap();
    lab.world
        .shutdown(902, Duration::from_secs(10))
        .await
        .unwrap();
    layer(&lab, 901, 920, GPUS, "920").await;
    layer(&lab, 902, 910, &[], "910").await;
    assert!(lab.ok(920, "nvidia-smi -L").await.contains("GPU 1: "));
    assert_eq!(
        lab.ok(920, "/opt/vllm/bin/vllm --version").await,
        "0.32.0\n"
    );
    new_driver(&lab).await;
}

/// The host gets other drivers, one that apt has and one that it hasn't: the step that layer 901 offers brings the libraries in a clone of
/// a clone to each, and touches nothing else.
async fn new_driver(lab: &Lab) {
    let script = script("901").expect("the repository has this layer's script");
    assert!(script.lines().any(|line| line == "# phoenix: driver-step"));
    for version in ["580.82.07", "580.105.08", "580.95.05"] {
        lab.control.set_driver_version(version);
        let (said, code) = lab.sh(920, "nvidia-smi").await;
        assert!(code == 18 && said.contains("version mismatch"), "{said}");
        let step = format!("export PHOENIX_STEP=driver\n{script}");
        let (said, code) = lab.sh(920, &step).await;
        assert_eq!(code, 0, "{said}");
        assert!(!said.contains("CUDA"), "{said}");
        let now = lab.ok(
            920,
            "nvidia-smi --query-gpu=driver_version --format=csv,noheader",
        );
        assert_eq!(now.await, format!("{version}\n{version}\n"));
    }
}

#[tokio::test]
async fn all_layers_are_built_on_ubuntu() {
    all_layers(UBUNTU).await;
}

#[tokio::test]
async fn all_layers_are_built_on_debian() {
    all_layers(DEBIAN).await;
}
