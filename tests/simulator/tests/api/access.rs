//! Who may do what, and with which words he is told that he may not.

use std::time::Instant;

use proxmox_simulator::{AclShape, Credentials, HostShape, Simulator, SimulatorConfig};

use super::client::{Client, simulator};

async fn recorded() -> Simulator {
    Simulator::start(SimulatorConfig {
        host: HostShape::recorded(),
        ..SimulatorConfig::default()
    })
    .await
    .unwrap()
}

fn holder(simulator: &Simulator, id: &str) -> Client {
    let mut client = Client::token(simulator, &simulator.token_of(id).unwrap());
    "pve1".clone_into(&mut client.node);
    client
}

#[tokio::test]
async fn refused_credentials_are_told_as_recorded() {
    let simulator = recorded().await;
    let root = simulator.token_of("root@pam!op").unwrap();
    let value = |text: &str| text.replace("SECRET", &root.secret);
    for (header, expected) in [
        ("PVEAPIToken=root@pam!op=SECRET", "OK"),
        ("PVEAPIToken root@pam!op=SECRET", "OK"),
        (
            "PVEAPIToken=root@pam!op=00000000-0000-0000-0000-000000000000",
            "Authentication failed!",
        ),
        (
            "PVEAPIToken=root@pam!nosuch=SECRET",
            "Authentication failed!",
        ),
        ("PVEAPIToken=nobody@pve!x=SECRET", "Authentication failed!"),
        ("PVEAPIToken=root@pam!op", "Authentication failed!"),
        ("PVEAPIToken=root@pam!op:SECRET", "Authentication failed!"),
        ("PVEAPIToken=root!op=SECRET", "Authentication failed!"),
        ("Bearer root@pam!op=SECRET", "No ticket"),
        ("pveapitoken=root@pam!op=SECRET", "No ticket"),
    ] {
        let answer = Client::anonymous(&simulator)
            .with_header("Authorization", &value(header))
            .get("/version")
            .await;
        assert_eq!(answer.reason, expected, "{header}");
        if expected != "OK" {
            assert_eq!(
                (answer.status, answer.text.as_str()),
                (401, ""),
                "a 401 has no body"
            );
        }
    }
    for id in ["root@pam!expired", "off@pve!op"] {
        assert_eq!(
            holder(&simulator, id).get("/version").await.reason,
            "Authentication failed!",
            "{id}"
        );
    }
    assert_eq!(
        Client::anonymous(&simulator).get("/version").await.reason,
        "No ticket"
    );
    let cookie = Client::anonymous(&simulator)
        .with_header("Cookie", "PVEAuthCookie=PVE:root@pam:6B05DE88::nonsense");
    assert_eq!(
        cookie.get("/version").await.reason,
        "Authentication failed!"
    );
}

#[tokio::test]
async fn a_refusal_comes_late() {
    let simulator = simulator().await;
    let begun = Instant::now();
    assert_eq!(
        Client::anonymous(&simulator).get("/version").await.status,
        401
    );
    assert!(
        begun.elapsed().as_millis() >= 30,
        "three seconds, at a hundredth"
    );
}

#[tokio::test]
async fn tickets_need_their_csrf_token_and_expire() {
    let simulator = simulator().await;
    let root = Client::login(&simulator, "root@pam").await;
    assert_eq!(root.get("/version").await.status, 200);
    assert_eq!(root.create(100, &[]).await, "OK");
    let answer = Client::anonymous(&simulator)
        .post(
            "/access/ticket",
            &[("username", "root@pam"), ("password", "wrong")],
        )
        .await;
    assert_eq!(
        (answer.status, answer.text.as_str()),
        (401, r#"{"data":null,"message":"authentication failure\n"}"#)
    );
    let ticket = Client::anonymous(&simulator)
        .post(
            "/access/ticket",
            &[
                ("username", "root@pam"),
                ("password", &simulator.root_password()),
            ],
        )
        .await
        .body["data"]["ticket"]
        .as_str()
        .unwrap()
        .to_owned();
    let bare =
        Client::anonymous(&simulator).with_header("Cookie", &format!("PVEAuthCookie={ticket}"));
    assert_eq!(
        bare.post("/nodes/pve/lxc/100/status/start", &[])
            .await
            .reason,
        "Permission denied - invalid csrf token"
    );
    let renewed = Client::anonymous(&simulator)
        .post(
            "/access/ticket",
            &[("username", "root@pam"), ("password", &ticket)],
        )
        .await;
    assert_eq!(
        renewed.status, 200,
        "a live ticket is as good as the password"
    );
    simulator.expire_tickets();
    assert_eq!(root.get("/version").await.reason, "Authentication failed!");
    simulator.set_second_factor("root@pam", true);
    let challenged = Client::anonymous(&simulator)
        .post(
            "/access/ticket",
            &[
                ("username", "root@pam"),
                ("password", &simulator.root_password()),
            ],
        )
        .await;
    assert_eq!(challenged.body["data"]["NeedTFA"], 1);
    let operator = Client::operator(&simulator);
    let closed = operator
        .post(
            "/access/ticket",
            &[("username", "root@pam"), ("password", "x")],
        )
        .await;
    assert_eq!(closed.status, 403);
    assert!(closed.reason.starts_with("Permission check failed (URI '/access/ticket' not available with API token, need proper ticket."), "{}", closed.reason);
}

#[tokio::test]
async fn a_root_token_is_not_root() {
    let simulator = recorded().await;
    let token = holder(&simulator, "root@pam!op");
    token
        .task(
            "POST",
            "/nodes/pve1/lxc",
            &[
                ("vmid", "150"),
                (
                    "ostemplate",
                    "local:vztmpl/debian-13-mini_13.0-1_amd64.tar.zst",
                ),
                ("rootfs", "lxc-disks:1"),
            ],
        )
        .await;
    let ticket = Client::login(&simulator, "root@pam").await;
    for (key, value, reason) in [
        (
            "dev0",
            "/dev/fuse",
            "configuring device passthrough is only allowed for root@pam",
        ),
        (
            "features",
            "keyctl=1",
            "changing feature flags (except nesting) is only allowed for root@pam",
        ),
        (
            "mp0",
            "/srv/bind,mp=/bind",
            "mount point type bind is only allowed for root@pam",
        ),
        (
            "hookscript",
            "local:snippets/h.pl",
            "changing the hookscript is only allowed for root@pam",
        ),
    ] {
        let answer = token
            .put("/nodes/pve1/lxc/150/config", &[(key, value)])
            .await;
        assert_eq!(
            (answer.status, answer.reason),
            (403, format!("Permission check failed ({reason})"))
        );
        let answer = ticket
            .put("/nodes/pve1/lxc/150/config", &[(key, value)])
            .await;
        assert_ne!(answer.status, 403, "{key}");
    }
    let skip = token
        .post("/nodes/pve1/lxc/150/status/start", &[("skiplock", "1")])
        .await;
    assert_eq!(
        skip.body["errors"]["skiplock"],
        "Only root may use this option."
    );
    assert_eq!(token.delete("/nodes/pve1/lxc/150").await.status, 200);
}

#[tokio::test]
async fn rights_come_before_parameters_and_existence() {
    let simulator = recorded().await;
    let nobody = holder(&simulator, "no@pve!op");
    for (method, path, reason) in [
        (
            "GET",
            "/nodes/pve1/lxc/999/config",
            "Permission check failed (/vms/999, VM.Audit)",
        ),
        (
            "DELETE",
            "/nodes/pve1/lxc/999?nosuch=1",
            "Permission check failed (/vms/999, VM.Allocate)",
        ),
        (
            "GET",
            "/nodes/nosuch/status",
            "Permission check failed (/nodes/nosuch, Sys.Audit)",
        ),
    ] {
        assert_eq!(nobody.call(method, path, &[]).await.reason, reason);
    }
    let create = nobody
        .post(
            "/nodes/pve1/lxc",
            &[
                ("vmid", "999"),
                (
                    "ostemplate",
                    "local:vztmpl/debian-13-mini_13.0-1_amd64.tar.zst",
                ),
            ],
        )
        .await;
    assert_eq!(
        (create.status, create.reason.as_str()),
        (403, "Permission check failed")
    );
    // What one may not see isn't there.
    assert_eq!(
        nobody.get("/nodes/pve1/lxc").await.body["data"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
    let rows = nobody.get("/cluster/resources").await.body["data"].clone();
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert!(
        rows[0].get("maxmem").is_none(),
        "no figures without Sys.Audit"
    );
    let limited = holder(&simulator, "op@pve!op");
    let foreign = limited
        .post(
            "/nodes/pve1/lxc",
            &[
                ("vmid", "102"),
                (
                    "ostemplate",
                    "local:vztmpl/debian-13-mini_13.0-1_amd64.tar.zst",
                ),
                ("rootfs", "tank2:2"),
            ],
        )
        .await;
    assert_eq!(
        foreign.reason,
        "Permission check failed (/storage/tank2, Datastore.AllocateSpace)"
    );
    let privileged = limited
        .post(
            "/nodes/pve1/lxc",
            &[
                ("vmid", "102"),
                (
                    "ostemplate",
                    "local:vztmpl/debian-13-mini_13.0-1_amd64.tar.zst",
                ),
                ("unprivileged", "0"),
            ],
        )
        .await;
    assert_eq!(privileged.reason, "Permission check failed (/, Sys.Modify)");
}

#[tokio::test]
async fn a_token_limited_to_a_pool_sees_its_container_late() {
    let mut host = HostShape::phoenix();
    host.pools.push("k8s".to_owned());
    let mut guests: Vec<String> = host
        .acl
        .iter()
        .find(|line| line.path == "/vms")
        .unwrap()
        .privileges
        .clone();
    guests.push("Pool.Audit".to_owned());
    host.acl.retain(|line| line.path != "/vms");
    host.acl.push(AclShape {
        path: "/pool/k8s".to_owned(),
        who: "phoenix@pve".to_owned(),
        privileges: guests,
        propagate: true,
    });
    let simulator = Simulator::start(SimulatorConfig {
        host,
        ..SimulatorConfig::default()
    })
    .await
    .unwrap();
    let operator = Client::operator(&simulator);
    let form = |more: &[(&'static str, &'static str)]| {
        let mut form = vec![
            ("vmid", "105"),
            (
                "ostemplate",
                "local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst",
            ),
            ("rootfs", "lxc-disks:8"),
        ];
        form.extend(more);
        form
    };
    assert_eq!(
        operator.post("/nodes/pve/lxc", &form(&[])).await.reason,
        "Permission check failed"
    );
    let tagged = operator
        .post(
            "/nodes/pve/lxc",
            &form(&[("pool", "k8s"), ("tags", "phoenix")]),
        )
        .await;
    assert_eq!(
        tagged.reason, "Permission check failed (/vms/105, VM.Config.Options)",
        "the tag check looks past the pool"
    );
    assert_eq!(
        operator
            .task("POST", "/nodes/pve/lxc", &form(&[("pool", "k8s")]))
            .await,
        "OK"
    );
    assert_eq!(
        operator
            .put("/nodes/pve/lxc/105/config", &[("tags", "phoenix")])
            .await
            .status,
        200
    );
    let row = operator.get("/cluster/resources?type=vm").await.body["data"][0].clone();
    assert_eq!((&row["vmid"], &row["pool"]), (&105.into(), &"k8s".into()));
}

#[tokio::test]
async fn tasks_are_shown_to_their_owners() {
    let simulator = recorded().await;
    let op = holder(&simulator, "op@pve!op");
    let answer = op
        .post(
            "/nodes/pve1/lxc",
            &[
                ("vmid", "100"),
                (
                    "ostemplate",
                    "local:vztmpl/debian-13-mini_13.0-1_amd64.tar.zst",
                ),
                ("rootfs", "lxc-disks:1"),
            ],
        )
        .await;
    let upid = answer.body["data"].as_str().unwrap().to_owned();
    op.follow(&upid).await;
    let nobody = holder(&simulator, "no@pve!op");
    assert_eq!(
        nobody
            .get(&format!("/nodes/pve1/tasks/{upid}/status"))
            .await
            .reason,
        "Permission check failed (/nodes/pve1, Sys.Audit)"
    );
    assert_eq!(
        op.get("/cluster/tasks").await.text,
        r#"{"data":[]}"#,
        "a token without Sys.Audit on / has no cluster tasks, not even its own"
    );
    assert_eq!(op.get("/nodes/pve1/tasks").await.body["total"], 1);
    for (path, error) in [
        ("UPID:foo", "unable to parse worker upid"),
        (
            "UPID:pve1:0000AAAA:0000BBBB:65000000:vzcreate:999:op@pve!op:",
            "no such task",
        ),
    ] {
        assert_eq!(
            op.get(&format!("/nodes/pve1/tasks/{path}/status"))
                .await
                .body["errors"]["upid"],
            error
        );
    }
}

#[tokio::test]
async fn revoked_rights_act_at_the_next_call() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    simulator.revoke_privilege("/vms", "VM.Audit");
    assert_eq!(
        operator.get("/cluster/resources?type=vm").await.text,
        r#"{"data":[]}"#,
        "it vanishes without a word"
    );
    assert_eq!(
        operator.get("/cluster/nextid?vmid=100").await.body["errors"]["vmid"],
        "VM 100 already exists"
    );
    simulator.revoke_token(&simulator.token().id);
    assert_eq!(operator.get("/version").await.status, 401);
    let unknown = Credentials {
        id: "phoenix@pve!operator".to_owned(),
        secret: "x".to_owned(),
    };
    assert_eq!(
        Client::token(&simulator, &unknown)
            .get("/version")
            .await
            .status,
        401
    );
}
