//! Nothing outlives the simulator, not even where it is killed.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::lab;

const CHILD: &str = "PROXMOX_SIMULATOR_SURVIVAL_CHILD";
/// In no other command line of this machine.
const MARK: &str = "31415926";

/// The victim: boots a guest with processes of all kinds and waits. Only runs as the other test's child.
#[tokio::test]
async fn child_that_is_killed() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let lab = lab().await;
    lab.boot(900, "10.0.0.99", &[]).await;
    lab.ok(900, &format!("setsid sleep {MARK} </dev/null >/dev/null 2>&1 & systemd-run --unit=a --quiet sleep {MARK}; systemctl is-active a; sleep 0.2")).await;
    let terminal = lab.attach(900).await;
    terminal.send(&format!("sleep {MARK}\n")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    println!("the guest is up");
    std::future::pending::<()>().await;
}

fn marked() -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines =
        processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| line.contains(MARK) && !line.contains("MARK"))
        .count()
}

#[test]
fn no_process_survives_a_killed_simulator() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "guest::tests::survival::child_that_is_killed",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap().contains("the guest is up")),
        "the child never came up"
    );
    assert!(marked() >= 3, "{}", marked());
    child.kill().unwrap();
    child.wait().unwrap();
    let over = Instant::now() + Duration::from_secs(5);
    while marked() > 0 {
        assert!(Instant::now() < over, "{} processes survived", marked());
        std::thread::sleep(Duration::from_millis(20));
    }
}
