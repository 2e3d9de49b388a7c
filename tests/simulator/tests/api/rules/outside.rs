//! The command line reaches what the typed handle reaches.

use std::process::Command;

use proxmox_simulator::{CallEffect, Fault, Mishap, Simulator, TaskEffect};

use super::super::client::{Client, simulator};

async fn fault(simulator: &Simulator, words: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxmox-simulator"));
    command
        .args(["fault", "--admin", &simulator.admin_url()])
        .args(words);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[tokio::test]
async fn the_command_line_switches_faults() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(900, &[]).await;
    operator.seal(900).await;
    let words = ["task", "--kind", "vzclone", "--times", "1", "kill-late"];
    assert!(fault(&simulator, &words).await.0);
    let (done, listed) = fault(&simulator, &["list"]).await;
    assert!(done && listed.contains("kill_late"), "{listed}");
    let clone = [("newid", "901")];
    assert_eq!(
        operator
            .task("POST", "/nodes/pve/lxc/900/clone", &clone)
            .await,
        "unexpected status"
    );
    for (words, lock) in [
        (&["unlock", "900"][..], None),
        (&["lock", "900", "backup"], Some("backup")),
    ] {
        assert!(fault(&simulator, words).await.0);
        assert_eq!(simulator.containers()[&900].lock.as_deref(), lock);
    }
    assert!(fault(&simulator, &["ha", "900", "true"]).await.0);
    let (done, told) = fault(&simulator, &["move", "900", "nowhere"]).await;
    assert!(!done && told.contains("there is no node nowhere"), "{told}");
    let words = ["call", "--path", "/version", "--value", "595", "status"];
    assert!(fault(&simulator, &words).await.0);
    assert_eq!(operator.get("/version").await.status, 595);
    assert!(fault(&simulator, &["clear"]).await.0);
    assert_eq!(operator.get("/version").await.status, 200);
}

#[tokio::test]
async fn the_command_line_knows_every_fault() {
    let simulator = simulator().await;
    let (_, help) = fault(&simulator, &["--help"]).await;
    for word in [
        "lock",
        "unlock",
        "hold-flock",
        "edit",
        "remove",
        "make",
        "move",
        "power-off",
        "ignore-shutdown",
        "type",
        "ha",
        "node-online",
        "reboot-node",
        "quorum",
        "storage-full",
        "storage-online",
        "storage-hung",
        "volume-busy",
        "device",
        "nvidia-driver",
        "nvidia-devices",
        "statistics-hang",
        "age-statistics",
        "expire-tickets",
        "second-factor",
        "revoke-token",
        "expire-token",
        "revoke-privilege",
        "replace-certificate",
        "rotate-tasks",
        "recycle-workers",
        "dead-consoles",
        "lose-consoles",
    ] {
        let known = help
            .lines()
            .any(|line| line.trim_start().starts_with(&format!("{word} ")));
        assert!(known, "{word} isn't in\n{help}");
    }
    let (_, calls) = fault(&simulator, &["call", "--help"]).await;
    for word in [
        "delay",
        "status",
        "reset-before",
        "reset-after",
        "timeout-after",
        "slow",
        "text-numbers",
    ] {
        assert!(calls.contains(word), "{word}");
    }
    let (_, tasks) = fault(&simulator, &["task", "--help"]).await;
    for word in ["fail", "kill", "kill-late", "stuck", "warn", "hang", "slow"] {
        assert!(tasks.contains(word), "{word}");
    }
}

#[test]
fn what_goes_over_the_wire_reads_back() {
    let reboot = Mishap::RebootNode {
        node: "pve".to_owned(),
        seconds: 60.0,
    };
    let text = serde_json::to_string(&reboot).unwrap();
    assert_eq!(text, r#"{"reboot_node":{"node":"pve","seconds":60.0}}"#);
    assert_eq!(serde_json::from_str::<Mishap>(&text).unwrap(), reboot);
    let unit = serde_json::to_string(&Mishap::RotateTasks).unwrap();
    assert_eq!(
        serde_json::from_str::<Mishap>(&unit).unwrap(),
        Mishap::RotateTasks
    );
    for fault in [
        Fault::call("PUT", "/config", CallEffect::Slow { seconds: 1.0 }),
        Fault::task("vzclone", TaskEffect::Stuck),
    ] {
        let text = serde_json::to_string(&fault).unwrap();
        assert_eq!(serde_json::from_str::<Fault>(&text).unwrap(), fault);
    }
}
