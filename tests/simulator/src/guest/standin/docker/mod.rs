//! Docker: the daemon as a unit, the client's commands, and containers that are a name, an image and perhaps a stand-in server.
//!
//! State lies in `/var/lib/docker` of the guest's root, so that a clone has its source's images and containers.

mod run;
mod show;

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::run::{pull, run};
use self::show::{info, inspect, list, show};
use super::nvidia;
use crate::guest::boot::Guest;
use crate::guest::calls::Call;
use crate::guest::portainer::Portainer;

const STATE: &str = "/var/lib/docker/simulated.json";
const ENGINE_ID: &str = "/var/lib/docker/engine-id";
const VERSION: &str = "29.1.2";
const UNREACHABLE: &str = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n";

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    images: Vec<String>,
    volumes: Vec<String>,
    networks: Vec<String>,
    containers: Vec<Container>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Container {
    id: String,
    name: String,
    image: String,
    command: Vec<String>,
    restart: String,
    /// Outside and inside.
    ports: Vec<(u16, u16)>,
    running: bool,
    exit_code: i32,
}

/// The running daemon of a guest: what its containers serve.
#[derive(Default)]
pub(in crate::guest) struct Daemon(Mutex<Running>);

#[derive(Default)]
struct Running {
    up: bool,
    servers: Vec<(String, Portainer)>,
}

impl Daemon {
    fn running(&self) -> std::sync::MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(guest: &Guest) -> State {
    guest
        .files
        .read(STATE)
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

fn write(guest: &Guest, state: &State) {
    let text = serde_json::to_string(state).unwrap_or_default();
    if let Err(error) = guest.files.write(STATE, &text, 0o600) {
        tracing::warn!("guest {}: {error:#}", guest.vmid);
    }
}

/// `dockerd`: runs until it is stopped.
pub(super) async fn daemon(guest: &Arc<Guest>, call: &Call) -> i32 {
    if !guest
        .spec
        .features
        .split(',')
        .any(|feature| feature == "nesting=1")
        && guest.spec.unprivileged
    {
        call.reply.err("failed to start daemon: Devices cgroup isn't mounted\nfailed to create NAT chain DOCKER: iptables failed: permission denied (you must be root)\n").await;
        return 1;
    }
    if let Some(text) = guest.files.read(nvidia::RUNTIME)
        && serde_json::from_str::<Value>(&text).is_err()
    {
        call.reply.err("unable to configure the Docker daemon with file /etc/docker/daemon.json: invalid character in JSON\n").await;
        return 1;
    }
    if !guest.files.exists(ENGINE_ID) {
        guest
            .files
            .write(ENGINE_ID, &hex::encode(rand::random::<[u8; 16]>()), 0o600)
            .ok();
    }
    let _up = Up::new(guest.clone());
    let mut state = read(guest);
    for container in &mut state.containers {
        container.running = container.running
            && matches!(container.restart.as_str(), "always" | "unless-stopped")
            || container.restart == "always";
        if container.running {
            serve(guest, container);
        }
    }
    write(guest, &state);
    call.reply
        .err("level=info msg=\"API listen on /run/docker.sock\"\n")
        .await;
    if let Some(invocation) = call.env.get("INVOCATION_ID") {
        guest.units.notify(invocation);
    }
    std::future::pending().await
}

/// The daemon is up while this lives.
struct Up(Arc<Guest>);

impl Up {
    fn new(guest: Arc<Guest>) -> Self {
        guest.docker.running().up = true;
        Self(guest)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        *self.0.docker.running() = Running::default();
    }
}

/// Starts what a container serves, where its image is known to serve something.
fn serve(guest: &Arc<Guest>, container: &Container) {
    if !container.image.contains("portainer/portainer-") {
        return;
    }
    let Some((outside, _)) = container.ports.iter().find(|(_, inside)| *inside == 9443) else {
        return;
    };
    match Portainer::start(guest, *outside, &container.image) {
        Ok(server) => guest
            .docker
            .running()
            .servers
            .push((container.id.clone(), server)),
        Err(error) => tracing::warn!("guest {}: {error:#}", guest.vmid),
    }
}

fn silence(guest: &Guest, id: &str) {
    guest
        .docker
        .running()
        .servers
        .retain(|(container, _)| container != id);
}

/// `docker`.
pub(super) async fn client(guest: &Arc<Guest>, call: &Call) -> i32 {
    let args = call.args();
    let verb = args.first().copied().unwrap_or_default();
    match verb {
        "--version" | "-v" => {
            call.reply
                .out(&format!("Docker version {VERSION}, build 890dcca\n"))
                .await;
            return 0;
        }
        "compose" if super::packages::Installed::read(guest).has("docker-compose-plugin") => {
            if args.get(1) == Some(&"version") {
                call.reply.out("Docker Compose version v2.40.3\n").await;
                return 0;
            }
            call.reply
                .err("docker compose: only `version` is played here\n")
                .await;
            return 1;
        }
        _ => {}
    }
    // The daemon's socket takes requests from the moment at which its unit is being started.
    for _ in 0..200 {
        if guest.docker.running().up || !guest.units.is_starting("docker.service") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    if !guest.docker.running().up {
        call.reply.err(UNREACHABLE).await;
        return 1;
    }
    let (verb, rest) = match verb {
        "container" | "image" | "system" if args.len() > 1 => (args[1], &args[2..]),
        _ => (verb, &args[1.min(args.len())..]),
    };
    match verb {
        "info" => info(guest, call, rest).await,
        "version" => show(call, rest, &json!({"Server": {"Version": VERSION}, "Client": {"Version": VERSION}}), &format!("Client: Docker Engine - Community\n Version: {VERSION}\nServer: Docker Engine - Community\n Version: {VERSION}\n")).await,
        "pull" => pull(guest, call, rest).await,
        "run" | "create" => run(guest, call, rest).await,
        "ps" | "ls" => list(guest, call, rest).await,
        "images" => {
            let lines: String = read(guest).images.iter().map(|image| format!("{image}\n")).collect::<Vec<_>>().concat();
            call.reply.out(&lines).await;
            0
        }
        "inspect" => inspect(guest, call, rest).await,
        "rm" | "stop" | "start" | "restart" | "kill" => change(guest, call, verb, rest).await,
        "logs" => logs(guest, call, rest).await,
        "volume" | "network" => objects(guest, call, verb, rest).await,
        "prune" | "rmi" | "login" | "logout" | "tag" => 0,
        other => {
            call.reply.err(&format!("docker: unknown command: docker {other}\n\nRun 'docker --help' for more information\n")).await;
            1
        }
    }
}

fn find<'a>(state: &'a mut State, name: &str) -> Option<&'a mut Container> {
    state.containers.iter_mut().find(|container| {
        container.name == name || (name.len() >= 6 && container.id.starts_with(name))
    })
}

async fn change(guest: &Arc<Guest>, call: &Call, verb: &str, args: &[&str]) -> i32 {
    let force = args
        .iter()
        .any(|arg| matches!(*arg, "-f" | "--force" | "-fv"));
    let mut code = 0;
    let names: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    for name in names {
        let mut state = read(guest);
        let Some(container) = find(&mut state, name) else {
            call.reply
                .err(&format!(
                    "Error response from daemon: No such container: {name}\n"
                ))
                .await;
            code = 1;
            continue;
        };
        if verb == "rm" && container.running && !force {
            call.reply.err(&format!("Error response from daemon: cannot remove container \"{name}\": container is running: stop the container before removing or force remove\n")).await;
            code = 1;
            continue;
        }
        silence(guest, &container.id);
        container.running = matches!(verb, "start" | "restart");
        let changed = container.clone();
        if verb == "rm" {
            state
                .containers
                .retain(|container| container.id != changed.id);
        } else if changed.running {
            serve(guest, &changed);
        }
        write(guest, &state);
        call.reply.out(&format!("{name}\n")).await;
    }
    code
}

async fn logs(guest: &Guest, call: &Call, args: &[&str]) -> i32 {
    let mut state = read(guest);
    let name = args
        .iter()
        .rfind(|arg| !arg.starts_with('-'))
        .copied()
        .unwrap_or_default();
    let Some(container) = find(&mut state, name) else {
        call.reply
            .err(&format!(
                "Error response from daemon: No such container: {name}\n"
            ))
            .await;
        return 1;
    };
    if container.image.contains("portainer") {
        call.reply.err("INF github.com/portainer/portainer/api/http/server.go > starting HTTPS server | bind_address=:9443\n").await;
    }
    0
}

async fn objects(guest: &Guest, call: &Call, kind: &str, args: &[&str]) -> i32 {
    let mut state = read(guest);
    let all = if kind == "volume" {
        &mut state.volumes
    } else {
        &mut state.networks
    };
    let names: Vec<String> = args
        .iter()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .map(|name| (*name).to_owned())
        .collect();
    match args.first().copied() {
        Some("create") => {
            for name in names {
                call.reply.out(&format!("{name}\n")).await;
                if !all.contains(&name) {
                    all.push(name);
                }
            }
        }
        Some("rm" | "remove") => all.retain(|name| !names.contains(name)),
        Some("ls") => {
            let lines: String = all
                .iter()
                .map(|name| format!("local     {name}\n"))
                .collect::<Vec<_>>()
                .concat();
            call.reply
                .out(&format!("DRIVER    VOLUME NAME\n{lines}"))
                .await;
        }
        Some("inspect") => {
            if let Some(missing) = names.iter().find(|name| !all.contains(name)) {
                call.reply
                    .err(&format!(
                        "Error response from daemon: get {missing}: no such {kind}\n"
                    ))
                    .await;
                return 1;
            }
        }
        _ => return 1,
    }
    write(guest, &state);
    0
}
