//! What scripts do in guests: detached runs, clones, packages, units, and the shipped layers' building blocks.

use std::time::Duration;

use super::{Failure, lab, spec};

#[tokio::test]
async fn a_detached_run_outlives_its_console_and_is_seen_by_systemctl() {
    let lab = lab().await;
    lab.boot(900, "10.0.0.99", &[]).await;
    lab.ok(900, "systemd-run --unit=phoenix-setup --description='Phoenix setup' --collect --quiet --property=OOMPolicy=continue -- /bin/sh -c 'sleep 1; echo done > /root/result; exit 0'").await;
    let said = lab
        .ok(
            900,
            "systemctl is-active phoenix-setup; systemctl show -p MainPID --value phoenix-setup",
        )
        .await;
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("active"));
    assert!(lines.next().unwrap().parse::<u32>().unwrap() > 1);
    let waited = lab
        .ok(
            900,
            "while systemctl is-active -q phoenix-setup; do sleep 0.1; done; cat /root/result",
        )
        .await;
    assert_eq!(waited, "done\n");
}

#[tokio::test]
async fn a_process_set_apart_by_setsid_lives_on_and_a_halt_ends_it() {
    let lab = lab().await;
    lab.boot(900, "10.0.0.99", &[]).await;
    lab.ok(900, "setsid sh -c 'while :; do date +%s%N > /root/beat; sleep 0.05; done' </dev/null >/dev/null 2>&1 & sleep 0.2").await;
    let beat = || lab.control.read_file(900, "/root/beat").unwrap_or_default();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let first = beat();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_ne!(first, beat());
    lab.world.halt(900).await.unwrap();
    assert!(lab.control.running().is_empty());
    lab.world
        .boot(900, spec("lxc-disks:subvol-900-disk-0", "10.0.0.99", &[]))
        .await
        .unwrap();
    let kept = beat();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(kept, beat());
}

#[tokio::test]
async fn a_clone_has_its_sources_files_and_packages_and_goes_its_own_way() {
    let lab = lab().await;
    lab.boot(900, "10.0.0.99", &[]).await;
    lab.ok(900, "set -e; apt-get update; apt-get install -y --no-install-recommends jq gnupg; echo from-900 > /etc/phoenix-layer; dpkg -s gnupg | grep -q '^Status: install ok installed'").await;
    let before = lab.ok(900, "cat /etc/machine-id").await;
    lab.world
        .shutdown(900, Duration::from_secs(5))
        .await
        .unwrap();
    lab.world
        .snapshot_root(
            "lxc-disks:subvol-900-disk-0".to_owned(),
            "__base__".to_owned(),
        )
        .await
        .unwrap();
    lab.world
        .rename_root(
            "lxc-disks:subvol-900-disk-0".to_owned(),
            "lxc-disks:basevol-900-disk-0".to_owned(),
        )
        .await
        .unwrap();
    lab.world
        .clone_root(
            "lxc-disks:basevol-900-disk-0".to_owned(),
            Some("__base__".to_owned()),
            "lxc-disks:subvol-901-disk-0".to_owned(),
        )
        .await
        .unwrap();
    lab.world
        .boot(901, spec("lxc-disks:subvol-901-disk-0", "10.0.0.100", &[]))
        .await
        .unwrap();
    assert_eq!(
        lab.ok(
            901,
            "cat /etc/phoenix-layer; command -v gpg; echo more >> /etc/phoenix-layer"
        )
        .await,
        "from-900\n/usr/bin/gpg\n"
    );
    assert_eq!(lab.ok(901, "cat /etc/machine-id").await, before);
    lab.world
        .rollback_root(
            "lxc-disks:basevol-900-disk-0".to_owned(),
            "__base__".to_owned(),
        )
        .await
        .unwrap();
    lab.world
        .destroy_root("lxc-disks:basevol-900-disk-0".to_owned())
        .await
        .unwrap();
    let gone = lab
        .world
        .clone_root(
            "lxc-disks:basevol-900-disk-0".to_owned(),
            Some("__base__".to_owned()),
            "lxc-disks:subvol-902-disk-0".to_owned(),
        )
        .await;
    assert!(gone.is_err());
}

#[tokio::test]
async fn the_guest_knows_its_system_its_network_and_its_gpus() {
    let lab = lab().await;
    lab.boot(
        901,
        "10.0.0.101",
        &["/dev/nvidia1", "/dev/nvidiactl", "/dev/nvidia-uvm"],
    )
    .await;
    let said = lab.ok(901, ". /etc/os-release; echo $ID-$VERSION_ID; hostname; ip -4 route show | head -1; ip -br addr show eth0; systemctl is-system-running --wait; sed -n 's/^Device Minor:[[:space:]]*//p' /proc/driver/nvidia/gpus/*/information; [ -c /dev/nvidia1 ] && [ ! -e /dev/nvidia0 ] && echo devices").await;
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(
        lines[..3],
        [
            "ubuntu-24.04",
            "ct",
            "default via 10.0.0.1 dev eth0 proto static"
        ]
    );
    assert!(lines[3].contains("10.0.0.101/24"), "{said}");
    assert_eq!(lines[4..], ["running", "0", "1", "devices"]);
    let (said, code) = lab.sh(901, "nvidia-smi").await;
    assert_eq!(
        (code, said.contains("command not found")),
        (127, true),
        "{said}"
    );
}

#[tokio::test]
async fn gpus_are_seen_with_fitting_libraries_only() {
    let lab = lab().await;
    lab.boot(
        901,
        "10.0.0.101",
        &["/dev/nvidia1", "/dev/nvidiactl", "/dev/nvidia-uvm"],
    )
    .await;
    let install = "set -e; echo 'deb [signed-by=/x] https://mirror/cuda/repos/ubuntu2404/x86_64/ /' > /etc/apt/sources.list.d/cuda.list; apt-get update; v=$(apt-cache madison libnvidia-compute-580 | awk 'index($3, \"580.95.05-\") == 1 {print $3}'); apt-get install -y libnvidia-compute-580=$v nvidia-utils-580=$v; apt-mark hold libnvidia-compute-580";
    lab.ok(901, install).await;
    let row = lab.ok(901, "nvidia-smi --query-gpu=index,uuid,pci.bus_id,name,memory.total,driver_version --format=csv,noheader,nounits").await;
    assert_eq!(
        row,
        "0, GPU-5f0c9d1e-0000-4000-8000-000000000001, 00000000:02:00.0, NVIDIA RTX A6000, 49140, 580.95.05\n"
    );
    lab.control.set_driver_version("580.105.08");
    assert!(
        lab.ok(901, "cat /proc/driver/nvidia/version")
            .await
            .contains(" 580.105.08 ")
    );
    let (said, code) = lab.sh(901, "nvidia-smi").await;
    assert_eq!(
        (code, said.as_str()),
        (
            18,
            "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95\n"
        )
    );
    // what is held changes only where that is allowed, or when it is held no longer
    let other = "apt-get install -y libnvidia-compute-580=580.82.07-0ubuntu1";
    let (said, code) = lab.sh(901, other).await;
    assert!(
        code == 100 && said.contains("Held packages were changed"),
        "{said}"
    );
    lab.ok(901, &format!("{other} --allow-change-held-packages"))
        .await;
    lab.control.set_driver_version("");
    let (said, code) = lab.sh(901, "ls /proc/driver/nvidia; nvidia-smi").await;
    assert!(
        code == 9 && said.contains("couldn't communicate with the NVIDIA driver"),
        "{said}"
    );
}

#[tokio::test]
async fn services_run_restart_and_stop_as_their_files_say() {
    let lab = lab().await;
    lab.boot(950, "10.0.0.150", &[]).await;
    let unit = "cat > /etc/systemd/system/beat.service <<'EOF'\n[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=exec\nEnvironment=\"GREETING=two words\" N=5\nEnvironmentFile=/etc/beat.env\nExecStart=/bin/sh -c 'echo \"$$GREETING $SECRET ${N} %%\"; sleep 0.2; [ -e /root/last ] && sleep 100; touch /root/last; exit 0'\nRestart=always\nRestartSec=50ms\n[Install]\nWantedBy=multi-user.target\nEOF\necho \"SECRET='s p'\" > /etc/beat.env; chmod 600 /etc/beat.env; systemctl daemon-reload && systemctl enable --now beat && sleep 0.8; systemctl show -p ActiveState -p SubState -p NRestarts beat; pid=$(systemctl show -p MainPID --value beat); tr '\\0' '\\n' </proc/$pid/environ | grep -c '^SECRET=s p$'; journalctl -u beat -o cat -n 20";
    let said = lab.ok(950, unit).await;
    assert!(
        said.contains("Created symlink /etc/systemd/system/multi-user.target.wants/beat.service"),
        "{said}"
    );
    assert!(
        said.contains("NRestarts=1\nActiveState=active\nSubState=running\n1\n"),
        "{said}"
    );
    assert!(said.contains("two words s p 5 %\n"), "{said}");
    let (said, code) = lab
        .sh(
            950,
            "systemctl stop beat; systemctl is-active beat; pgrep -f 'sleep 100'",
        )
        .await;
    assert_eq!((said.as_str(), code), ("inactive\n", 1));
    let (said, code) = lab.sh(950, "printf '[Service]\\nType=exec\\nExecStart=/no/such/program\\n' > /etc/systemd/system/none.service; systemctl start none").await;
    assert!(
        code == 1 && said.contains("Job for none.service failed"),
        "{said}"
    );
    assert_eq!(
        lab.sh(950, "systemctl is-failed none; systemctl is-system-running")
            .await,
        ("failed\ndegraded\n".to_owned(), 1)
    );
    // What is enabled comes up again with the container.
    lab.world
        .shutdown(950, Duration::from_secs(10))
        .await
        .unwrap();
    lab.world
        .boot(950, spec("lxc-disks:subvol-950-disk-0", "10.0.0.150", &[]))
        .await
        .unwrap();
    assert_eq!(lab.ok(950, "systemctl is-system-running --wait >/dev/null; for _ in 1 2 3 4 5 6 7 8 9; do systemctl is-active -q beat && break; sleep 0.1; done; systemctl is-active beat").await, "active\n");
}

#[tokio::test]
async fn commands_fail_when_told_to_and_heal() {
    let lab = lab().await;
    lab.boot(900, "10.0.0.99", &[]).await;
    let failure = Failure {
        stderr: "E: Could not get lock /var/lib/apt/lists/lock\n".to_owned(),
        code: 100,
        times: Some(1),
    };
    lab.control.fail(Some(900), "apt-get", failure);
    let (said, code) = lab.sh(900, "apt-get update").await;
    assert!(code == 100 && said.contains("Could not get lock"), "{said}");
    lab.ok(900, "apt-get update").await;
    let (said, code) = lab.sh(900, "apt-get install -y no-such-package").await;
    assert!(
        code == 100 && said.contains("E: Unable to locate package no-such-package"),
        "{said}"
    );
}

#[tokio::test]
async fn a_script_cannot_reach_the_machine() {
    let lab = lab().await;
    lab.boot(900, "10.0.0.99", &[]).await;
    for (attempt, wanted) in [
        ("touch /.host/usr/intruder", "Read-only file system"),
        ("touch /usr/lib/intruder", "Read-only file system"),
        ("mount -o remount,bind,rw /.host/usr", "permission denied"),
        ("umount /.host/usr", "not mounted"),
        (
            "unshare -Urm mount -o remount,bind,rw /.host/usr",
            "permission denied",
        ),
        ("ls /.old", "No such file or directory"),
        ("ls /work", "No such file or directory"),
        ("kill -0 $(($$ + 100000))", "No such process"),
        ("echo 1 > /proc/sys/kernel/sysrq", "/proc/sys/kernel/sysrq"),
        ("touch /.seam/call.sh", "Read-only file system"),
    ] {
        let (said, code) = lab.sh(900, attempt).await;
        assert!(code != 0 && said.contains(wanted), "{attempt}: {said}");
    }
    assert!(!std::path::Path::new("/usr/intruder").exists());
    assert!(!std::path::Path::new("/usr/lib/intruder").exists());
    let processes: usize = lab
        .ok(900, "ps -e -o pid= | wc -l")
        .await
        .trim()
        .parse()
        .unwrap();
    assert!(processes < 15, "{processes} processes are seen");
    // A link that a script leaves leads nowhere outside when the simulator follows it.
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(outside.path(), "secret").unwrap();
    lab.ok(
        900,
        &format!("ln -s {} /root/way-out", outside.path().display()),
    )
    .await;
    assert_eq!(lab.control.read_file(900, "/root/way-out"), None);
}

#[tokio::test]
async fn a_guest_that_powers_itself_off_says_so() {
    let mut lab = lab().await;
    lab.boot(900, "10.0.0.99", &[]).await;
    let terminal = lab.attach(900).await;
    terminal.send("poweroff\n").await;
    let event = tokio::time::timeout(Duration::from_secs(5), lab.events.recv())
        .await
        .unwrap();
    assert_eq!(
        event,
        Some(crate::guests::GuestEvent::PoweredOff { vmid: 900 })
    );
    assert!(lab.control.running().is_empty());
}

#[tokio::test]
async fn docker_needs_nesting_and_says_so() {
    let lab = lab().await;
    lab.world
        .create_root(
            "lxc-disks:subvol-902-disk-0".to_owned(),
            super::UBUNTU.to_owned(),
        )
        .await
        .unwrap();
    let mut without = spec("lxc-disks:subvol-902-disk-0", "10.0.0.102", &[]);
    without.features = String::new();
    lab.world.boot(902, without).await.unwrap();
    lab.ok(902, "echo 'deb https://mirror/docker x stable' > /etc/apt/sources.list.d/docker.list; apt-get update -qq; apt-get install -qq -y docker-ce docker-ce-cli").await;
    let (said, code) = lab.sh(902, "systemctl restart docker; docker info").await;
    assert!(
        code == 1
            && said.contains("Job for docker.service failed")
            && said.contains("Cannot connect to the Docker daemon"),
        "{said}"
    );
    let journal = lab.control.journal(902, "docker").join("\n");
    assert!(journal.contains("failed to start daemon"), "{journal}");
}
