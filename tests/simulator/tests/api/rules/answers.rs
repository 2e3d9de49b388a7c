//! How values come back.

use super::super::client::{Client, simulator};

#[tokio::test]
async fn booleans_are_one_zero_or_absent() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    let path = "/nodes/pve/lxc/100/config";
    assert!(operator.config(100).await.get("onboot").is_none());
    for (sent, kept) in [("1", 1), ("0", 0)] {
        assert_eq!(operator.put(path, &[("onboot", sent)]).await.status, 200);
        assert_eq!(operator.config(100).await["onboot"], kept, "{sent}");
    }
    for sent in ["yes", "true", "2"] {
        let answer = operator.put(path, &[("onboot", sent)]).await;
        assert_eq!(answer.status, 400, "{sent}");
        assert!(answer.body["errors"]["onboot"].is_string());
    }
    let absent = operator.get("/nodes/pve/lxc/100/status/current").await;
    assert!(absent.body["data"].get("template").is_none());
    assert!(absent.body["data"].get("lock").is_none());
}

#[tokio::test]
async fn name_servers_are_parted_by_blanks_and_tags_by_semicolons() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    let form = [("nameserver", "1.1.1.1 9.9.9.9"), ("tags", "b,a")];
    let path = "/nodes/pve/lxc/100/config";
    assert_eq!(operator.put(path, &form).await.status, 200);
    let config = operator.config(100).await;
    assert_eq!(config["nameserver"], "1.1.1.1 9.9.9.9");
    assert_eq!(config["tags"], "a;b");
}

#[tokio::test]
async fn a_stopped_container_has_no_interfaces() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    let path = "/nodes/pve/lxc/100/interfaces";
    assert_eq!(operator.get(path).await.text, r#"{"data":null}"#);
    operator
        .task("POST", "/nodes/pve/lxc/100/status/start", &[])
        .await;
    assert!(operator.get(path).await.body["data"].is_array());
}

#[tokio::test]
async fn keys_come_in_another_order_each_time() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    let path = "/nodes/pve/lxc/100/config";
    let first = operator.get(path).await;
    let mut others = Vec::new();
    for _ in 0..5 {
        others.push(operator.get(path).await);
    }
    assert!(others.iter().any(|other| other.text != first.text));
    assert!(others.iter().all(|other| other.body == first.body));
    assert!(first.text.starts_with(r#"{"data":{"#));
}
