//! A simulated host and a client of it.

use proxmox_client::{
    Client, ClientConfig, Credentials, Error, Params, SecretString, TaskState, Timeouts, Trust,
    Upid,
};
use proxmox_simulator::{AclShape, HostShape, Simulator, SimulatorConfig};
use std::time::{Duration, Instant};

pub(crate) const NODE: &str = "pve";
pub(crate) const ARCHIVE: &str = "local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst";
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn simulator() -> Simulator {
    Simulator::start(SimulatorConfig::default()).await.unwrap()
}

/// A host whose operator is told of the cluster's state, too: that takes an auditor of the whole.
pub(crate) async fn audited() -> Simulator {
    let mut host = HostShape::phoenix();
    let line = |who: &str| AclShape {
        path: "/".to_owned(),
        who: who.to_owned(),
        privileges: vec!["Sys.Audit".to_owned()],
        propagate: false,
    };
    host.acl
        .extend(["phoenix@pve", "phoenix@pve!operator"].map(line));
    let config = SimulatorConfig {
        host,
        ..SimulatorConfig::default()
    };
    Simulator::start(config).await.unwrap()
}

/// What a client of this host needs, with the operator's token and a pin.
pub(crate) fn config(host: &Simulator) -> ClientConfig {
    let token = host.token();
    ClientConfig {
        endpoints: vec![host.url()],
        trust: Trust {
            ca_bundle: None,
            fingerprints: vec![host.fingerprint().parse().unwrap()],
        },
        credentials: Credentials {
            token_id: token.id,
            token_secret: SecretString::from(token.secret),
            password: None,
            root_password: None,
        },
        timeouts: Timeouts::default(),
        observer: None,
    }
}

pub(crate) fn client(host: &Simulator) -> Client {
    Client::new(config(host)).unwrap()
}

pub(crate) fn client_with_root(host: &Simulator) -> Client {
    let mut config = config(host);
    config.credentials.root_password = Some(SecretString::from(host.root_password()));
    Client::new(config).unwrap()
}

/// Waits for a task's end; the client itself never does.
pub(crate) async fn ended(client: &Client, upid: &Upid) -> TaskState {
    let begun = Instant::now();
    loop {
        match client.task_status(upid).await.unwrap() {
            TaskState::Running if begun.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            state => return state,
        }
    }
}

/// Waits for a task that has to end well.
pub(crate) async fn done(client: &Client, upid: Result<Upid, Error>) {
    let upid = upid.unwrap();
    let state = ended(client, &upid).await;
    assert!(
        state.succeeded(),
        "{upid}: {state:?}: {:?}",
        client.task_log(&upid, 20).await
    );
}

/// A container of 4 GiB, stopped.
pub(crate) async fn create(client: &Client, vmid: u32) {
    let params = Params::new()
        .set("vmid", vmid)
        .set("ostemplate", ARCHIVE)
        .set("hostname", format!("ct{vmid}"))
        .set("rootfs", "lxc-disks:4")
        .set("memory", 256)
        .set("cores", 1)
        .set("net0", "name=eth0,bridge=vmbr0,ip=dhcp")
        .set("cmode", "shell")
        .set("description", "phoenix: v1")
        .flag("unprivileged", true)
        .set("features", "nesting=1");
    done(client, client.create_ct(NODE, &params).await).await;
}
