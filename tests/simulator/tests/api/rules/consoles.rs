//! Consoles that nobody comes to, that others type into, and that don't let anybody in.

use std::time::{Duration, Instant};

use proxmox_simulator::{HostShape, Mishap, Simulator, SimulatorConfig, guest::GuestSettings};
use serde_json::Value;

use super::super::{
    client::{Client, simulator},
    console::{connect, connect_as, hear, say},
};

async fn proxy(operator: &Client, vmid: u32) -> Value {
    operator
        .post(&format!("/nodes/pve/lxc/{vmid}/termproxy"), &[])
        .await
        .body["data"]
        .clone()
}

#[tokio::test]
async fn a_console_that_nobody_comes_to_ends_after_ten_seconds() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(160, &[]).await;
    let begun = Instant::now();
    let proxy = proxy(&operator, 160).await;
    let upid = proxy["upid"].as_str().unwrap();
    let exit = loop {
        let status = operator
            .get(&format!("/nodes/pve/tasks/{upid}/status"))
            .await;
        if let Some(exit) = status.body["data"]["exitstatus"].as_str() {
            break exit.to_owned();
        }
        assert!(begun.elapsed() < Duration::from_secs(15));
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(begun.elapsed() > Duration::from_secs(9));
    assert!(exit.ends_with("failed: exit code 1"), "{exit}");
    let ticket = proxy["ticket"].as_str().unwrap();
    let mut late = connect(&simulator, 160, &proxy, ticket).await.unwrap();
    assert_eq!(hear(&mut late, "OK").await, None);
}

#[tokio::test]
async fn what_somebody_types_is_seen_by_all() {
    let simulator = Simulator::start(SimulatorConfig {
        guests: Some(GuestSettings::default()),
        ..SimulatorConfig::default()
    })
    .await
    .unwrap();
    let operator = Client::operator(&simulator);
    operator.create(160, &[("cmode", "shell")]).await;
    operator
        .task("POST", "/nodes/pve/lxc/160/status/start", &[])
        .await;
    let proxy = proxy(&operator, 160).await;
    let ticket = proxy["ticket"].as_str().unwrap();
    let mut socket = connect(&simulator, 160, &proxy, ticket).await.unwrap();
    say(&mut socket, &format!("phoenix@pve!operator:{ticket}\n")).await;
    hear(&mut socket, "OK").await.unwrap();
    let typed = Mishap::Type {
        vmid: 160,
        text: "echo human=$((6*7))".to_owned(),
    };
    simulator.suffer(typed).await.unwrap();
    hear(&mut socket, "human=42").await.unwrap();
    drop(socket);
    simulator.stop().await;
}

#[tokio::test]
async fn dead_consoles_and_those_of_another_node_end_without_a_word() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(160, &[]).await;
    for (mishap, heals) in [
        (Mishap::DeadConsoles { dead: true }, true),
        (Mishap::LoseConsoles, false),
    ] {
        let proxy = proxy(&operator, 160).await;
        simulator.suffer(mishap).await.unwrap();
        let ticket = proxy["ticket"].as_str().unwrap();
        let mut socket = connect(&simulator, 160, &proxy, ticket).await.unwrap();
        // A connection that is over already takes no word any more.
        let greeting = format!("phoenix@pve!operator:{ticket}\n");
        let said = futures::SinkExt::send(
            &mut socket,
            tokio_tungstenite::tungstenite::Message::Text(greeting.into()),
        );
        let _ = said.await;
        assert_eq!(hear(&mut socket, "OK").await, None);
        if heals {
            let healed = Mishap::DeadConsoles { dead: false };
            simulator.suffer(healed).await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_old_host_has_consoles_for_logins_only() {
    let simulator = Simulator::start(SimulatorConfig {
        host: HostShape::phoenix_8_4(),
        ..SimulatorConfig::default()
    })
    .await
    .unwrap();
    let operator = Client::operator(&simulator);
    operator.create(160, &[]).await;
    let proxy = proxy(&operator, 160).await;
    let ticket = proxy["ticket"].as_str().unwrap();
    let mut socket = connect(&simulator, 160, &proxy, ticket).await.unwrap();
    say(&mut socket, &format!("phoenix@pve!operator:{ticket}\n")).await;
    assert_eq!(hear(&mut socket, "OK").await, None, "a token gets none");
    let exit = operator.follow(proxy["upid"].as_str().unwrap()).await;
    assert!(exit.ends_with("failed: exit code 1"), "{exit}");
    let login = Client::login(&simulator, "phoenix@pve").await;
    let proxy = self::proxy(&login, 160).await;
    let ticket = proxy["ticket"].as_str().unwrap();
    let mut socket = connect_as(&simulator, &login, 160, &proxy, ticket)
        .await
        .unwrap();
    say(&mut socket, &format!("phoenix@pve:{ticket}\n")).await;
    assert!(hear(&mut socket, "OK").await.is_some(), "a login gets one");
}
