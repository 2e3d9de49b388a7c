//! Rights that are asked for by what a key's value names, and rights that shrink.

use proxmox_simulator::{HostShape, Mishap, Simulator, SimulatorConfig};

use super::super::client::{Client, simulator};

#[tokio::test]
async fn a_network_needs_the_right_to_its_old_and_its_new_bridge() {
    let mut host = HostShape::phoenix();
    host.nodes[0].bridges.push("vmbr1".to_owned());
    let simulator = Simulator::start(SimulatorConfig {
        host,
        ..SimulatorConfig::default()
    })
    .await
    .unwrap();
    let operator = Client::operator(&simulator);
    let root = Client::login(&simulator, "root@pam").await;
    operator.create(100, &[]).await;
    let path = "/nodes/pve/lxc/100/config";
    let refused = "Permission check failed (/sdn/zones/localnetwork/vmbr1, SDN.Use)";
    let onto = [("net0", "name=eth0,bridge=vmbr1")];
    assert_eq!(
        operator.put(path, &onto).await.reason,
        refused,
        "the new one"
    );
    assert_eq!(root.put(path, &onto).await.status, 200);
    let back = [("net0", "name=eth0,bridge=vmbr0")];
    assert_eq!(
        operator.put(path, &back).await.reason,
        refused,
        "the old one"
    );
    let gone = [("delete", "net0")];
    assert_eq!(operator.put(path, &gone).await.reason, refused);
}

#[tokio::test]
async fn only_root_changes_features_and_others_may_nest_unprivileged_ones() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    let root = Client::login(&simulator, "root@pam").await;
    operator.create(100, &[]).await;
    let path = "/nodes/pve/lxc/100/config";
    let put = |value: &'static str| {
        let operator = operator.clone();
        async move { operator.put(path, &[("features", value)]).await }
    };
    assert_eq!(put("nesting=1").await.status, 200);
    let refused = "Permission check failed (changing feature flags (except nesting) is only allowed for root@pam)";
    assert_eq!(put("nesting=1,keyctl=1").await.reason, refused);
    let keyctl = [("features", "keyctl=1,nesting=1")];
    assert_eq!(root.put(path, &keyctl).await.status, 200);
    assert_eq!(put("keyctl=1").await.status, 200, "nesting goes, too");
    assert_eq!(put("nesting=1").await.reason, refused, "keyctl stays");
    assert_eq!(root.create(101, &[("unprivileged", "0")]).await, "OK");
    let privileged = operator
        .put("/nodes/pve/lxc/101/config", &[("features", "nesting=1")])
        .await;
    assert_eq!(privileged.status, 403, "{}", privileged.reason);
}

#[tokio::test]
async fn a_template_needs_a_right_to_its_storage() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    for privilege in ["Datastore.AllocateSpace", "Datastore.Audit"] {
        simulator.revoke_privilege("/storage/local", privilege);
    }
    let form = [
        ("vmid", "100"),
        (
            "ostemplate",
            "local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst",
        ),
        ("rootfs", "lxc-disks:8"),
    ];
    assert_eq!(
        operator.post("/nodes/pve/lxc", &form).await.reason,
        "Permission check failed (/storage/local, Datastore.AllocateSpace|Datastore.Audit)"
    );
}

#[tokio::test]
async fn what_rights_were_lost_looks_like_a_deletion_but_for_the_id() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    let listed = |operator: Client| async move {
        let rows = operator.get("/cluster/resources?type=vm").await.body["data"].clone();
        let all = operator.get("/nodes/pve/lxc").await.body["data"].clone();
        (
            rows.as_array().unwrap().len(),
            all.as_array().unwrap().len(),
        )
    };
    assert_eq!(listed(operator.clone()).await, (1, 1));
    simulator
        .suffer(Mishap::RevokePrivilege {
            path: "/vms".to_owned(),
            privilege: "VM.Audit".to_owned(),
        })
        .await
        .unwrap();
    assert_eq!(listed(operator.clone()).await, (0, 0));
    assert_eq!(
        operator.get("/nodes/pve/lxc/100/config").await.reason,
        "Permission check failed (/vms/100, VM.Audit)"
    );
    let taken = operator.get("/cluster/nextid?vmid=100").await;
    assert_eq!(
        (taken.status, &taken.body["errors"]["vmid"]),
        (400, &"VM 100 already exists".into())
    );
    assert_eq!(
        operator.get("/cluster/nextid?vmid=101").await.body["data"],
        "101"
    );
}

#[tokio::test]
async fn a_token_whose_time_is_over_is_refused_late() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    assert_eq!(operator.get("/version").await.status, 200);
    let id = simulator.token().id;
    simulator.suffer(Mishap::ExpireToken { id }).await.unwrap();
    let begun = std::time::Instant::now();
    let answer = operator.get("/version").await;
    assert_eq!(
        (answer.status, answer.reason.as_str(), answer.text.as_str()),
        (401, "Authentication failed!", "")
    );
    assert!(begun.elapsed().as_millis() >= 30);
    let nobody = Mishap::ExpireToken {
        id: "nobody@pve!x".to_owned(),
    };
    assert!(simulator.suffer(nobody).await.is_err());
}

#[tokio::test]
async fn tags_and_space_have_rights_of_their_own() {
    let simulator = simulator().await;
    let operator = Client::operator(&simulator);
    operator.create(100, &[]).await;
    let path = "/nodes/pve/lxc/100/config";
    let volume = [("mp0", "lxc-disks:1,mp=/data")];
    simulator.revoke_privilege("/storage/lxc-disks", "Datastore.AllocateSpace");
    assert_eq!(
        operator.put(path, &volume).await.reason,
        "Permission check failed (/storage/lxc-disks, Datastore.AllocateSpace)"
    );
    let clone = [("newid", "101"), ("full", "1")];
    assert_eq!(
        operator
            .post("/nodes/pve/lxc/100/clone", &clone)
            .await
            .reason,
        "Permission check failed (/storage/lxc-disks, Datastore.AllocateSpace)"
    );
    simulator.revoke_privilege("/vms", "VM.Config.Options");
    assert_eq!(
        operator.put(path, &[("tags", "x")]).await.reason,
        "Permission check failed (/vms/100, VM.Config.Options)"
    );
}
