//! Docker: the daemon as a unit, the client's commands, and containers that are a name, an image and perhaps a stand-in server.
//!
//! State lies in `/var/lib/docker` of the guest's root, so that a clone has its source's images and containers.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::nvidia;
use super::system::reaches_outside;
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
            serve(guest, container).await;
        }
    }
    write(guest, &state);
    call.reply
        .err("level=info msg=\"API listen on /run/docker.sock\"\n")
        .await;
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
async fn serve(guest: &Arc<Guest>, container: &Container) {
    if !container.image.contains("portainer/portainer-") {
        return;
    }
    let Some((outside, _)) = container.ports.iter().find(|(_, inside)| *inside == 9443) else {
        return;
    };
    match Portainer::start(guest, *outside, &container.image).await {
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
    // A start job returns when systemd says so; the daemon itself may need a moment more.
    for _ in 0..100 {
        if guest.docker.running().up || !guest.units.is_active("docker.service") {
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
            let lines: String = read(guest).images.iter().map(|image| format!("{image}\n")).collect();
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

async fn info(guest: &Guest, call: &Call, args: &[&str]) -> i32 {
    let state = read(guest);
    let config: Value = guest
        .files
        .read(nvidia::RUNTIME)
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let mut runtimes = json!({"runc": {"path": "runc"}});
    if let (Some(all), Some(more)) = (runtimes.as_object_mut(), config["runtimes"].as_object()) {
        all.extend(more.clone());
    }
    let id = guest.files.read(ENGINE_ID).unwrap_or_default();
    let names: Vec<_> = runtimes
        .as_object()
        .map(|all| all.keys().cloned().collect())
        .unwrap_or_default();
    let facts = json!({"ID": id, "Driver": "overlay2", "ServerVersion": VERSION, "Containers": state.containers.len(), "Images": state.images.len(),
        "Runtimes": runtimes, "DefaultRuntime": config["default-runtime"].as_str().unwrap_or("runc"), "CgroupVersion": "2", "CgroupDriver": "systemd", "DockerRootDir": "/var/lib/docker"});
    let text = format!(
        "Client: Docker Engine - Community\n Version:    {VERSION}\n\nServer:\n Containers: {}\n Images: {}\n Server Version: {VERSION}\n Storage Driver: overlay2\n Cgroup Driver: systemd\n Cgroup Version: 2\n Runtimes: {}\n ID: {id}\n Docker Root Dir: /var/lib/docker\n",
        state.containers.len(),
        state.images.len(),
        names.join(" ")
    );
    show(call, args, &facts, &text).await
}

/// Prints a value by `--format`, or the text for people.
async fn show(call: &Call, args: &[&str], value: &Value, text: &str) -> i32 {
    match format_of(args) {
        None => call.reply.out(text).await,
        Some(format) => match render(&format, value) {
            Some(line) => call.reply.out(&format!("{line}\n")).await,
            None => {
                call.reply
                    .err(&format!(
                        "template parsing error: template: {format}: not played here\n"
                    ))
                    .await;
                return 64;
            }
        },
    }
    0
}

fn format_of(args: &[&str]) -> Option<String> {
    args.iter().enumerate().find_map(|(index, arg)| match *arg {
        "-f" | "--format" => args.get(index + 1).map(|format| (*format).to_owned()),
        _ => arg.strip_prefix("--format=").map(str::to_owned),
    })
}

/// The part of Go's templates that is common on command lines: `{{.A.B}}` and `{{json .A}}`.
fn render(format: &str, value: &Value) -> Option<String> {
    if format == "json" {
        return Some(value.to_string());
    }
    let mut out = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once("{{") {
        let (inner, after) = after.split_once("}}")?;
        out.push_str(before);
        let inner = inner.trim();
        let (as_json, path) = inner
            .strip_prefix("json")
            .map_or((false, inner), |path| (true, path.trim()));
        let found = path
            .strip_prefix('.')?
            .split('.')
            .filter(|part| !part.is_empty())
            .try_fold(value, |value, part| value.get(part))?;
        match found {
            Value::String(text) if !as_json => out.push_str(text),
            other => out.push_str(&other.to_string()),
        }
        rest = after;
    }
    Some(out + rest)
}

async fn fetch(guest: &Guest, call: &Call, image: &str) -> bool {
    let mut state = read(guest);
    let tagged = if image
        .rsplit('/')
        .next()
        .is_some_and(|last| last.contains(':'))
    {
        image.to_owned()
    } else {
        format!("{image}:latest")
    };
    if state.images.contains(&tagged) {
        return true;
    }
    if !reaches_outside(guest) {
        call.reply.err("docker: Error response from daemon: Get \"https://registry/v2/\": dial tcp: lookup registry: Temporary failure in name resolution\n").await;
        return false;
    }
    if image.contains("no-such-") {
        call.reply.err(&format!("docker: Error response from daemon: pull access denied for {image}, repository does not exist or may require 'docker login'\n")).await;
        return false;
    }
    tokio::time::sleep(guest.shared.faults.timing().download).await;
    state.images.push(tagged);
    write(guest, &state);
    true
}

async fn pull(guest: &Guest, call: &Call, args: &[&str]) -> i32 {
    let Some(image) = args.iter().find(|arg| !arg.starts_with('-')) else {
        return 1;
    };
    if !fetch(guest, call, image).await {
        return 1;
    }
    call.reply
        .out(&format!(
            "Status: Downloaded newer image for {image}\n{image}\n"
        ))
        .await;
    0
}

async fn run(guest: &Arc<Guest>, call: &Call, args: &[&str]) -> i32 {
    let mut container = Container {
        id: hex::encode(rand::random::<[u8; 32]>()),
        restart: "no".to_owned(),
        ..Container::default()
    };
    let (mut detached, mut remove, mut gpus) = (false, false, false);
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if !word.starts_with('-') {
            (*word).clone_into(&mut container.image);
            container.command = words.by_ref().map(|word| (*word).to_owned()).collect();
            break;
        }
        let (name, attached) = word
            .split_once('=')
            .map_or((*word, None), |(name, value)| (name, Some(value)));
        let mut value = || {
            attached
                .or_else(|| words.next().copied())
                .unwrap_or_default()
                .to_owned()
        };
        match name {
            "-d" | "--detach" => detached = true,
            "--rm" => remove = true,
            "-i" | "-t" | "-it" | "--init" | "--privileged" | "--read-only" | "-q" | "--quiet" => {}
            "--name" => container.name = value(),
            "--restart" => container.restart = value(),
            "-p" | "--publish" => {
                let spec = value();
                let mut numbers = spec
                    .split('/')
                    .next()
                    .unwrap_or_default()
                    .rsplit(':')
                    .filter_map(|number| number.parse().ok());
                if let Some(inside) = numbers.next() {
                    container
                        .ports
                        .push((numbers.next().unwrap_or(inside), inside));
                }
            }
            "--gpus" => {
                gpus = true;
                drop(value());
            }
            "--runtime" => gpus |= value() == "nvidia",
            "-v" | "--volume" | "-e" | "--env" | "--network" | "--net" | "--mount" | "-h"
            | "--hostname" | "-u" | "--user" | "-w" | "--workdir" | "--entrypoint" | "--ipc"
            | "--shm-size" | "-m" | "--memory" | "--label" | "-l" | "--pull" | "--log-driver"
            | "--log-opt" | "--security-opt" | "--cap-add" | "--ulimit" => drop(value()),
            other => {
                call.reply.err(&format!("unknown flag: {other}\n\nUsage:  docker run [OPTIONS] IMAGE [COMMAND] [ARG...]\n")).await;
                return 125;
            }
        }
    }
    if container.image.is_empty() {
        call.reply
            .err("docker: 'docker run' requires at least 1 argument\n")
            .await;
        return 1;
    }
    if container.name.is_empty() {
        container.name = format!("quiet_{}", &container.id[..6]);
    }
    let taken = read(guest)
        .containers
        .into_iter()
        .find(|known| known.name == container.name);
    if let Some(taken) = taken {
        call.reply.err(&format!("docker: Error response from daemon: Conflict. The container name \"/{}\" is already in use by container \"{}\". You have to remove (or rename) that container to be able to reuse that name.\n", container.name, taken.id)).await;
        return 125;
    }
    if !fetch(guest, call, &container.image).await {
        return 125;
    }
    if gpus && let Some(refusal) = gpu_refusal(guest) {
        call.reply.err(&refusal).await;
        return 125;
    }
    tokio::time::sleep(guest.shared.faults.timing().container_start).await;
    if !detached {
        let code = foreground(guest, call, &container).await;
        if !remove {
            container.exit_code = code;
            let mut state = read(guest);
            state.containers.push(container);
            write(guest, &state);
        }
        return code;
    }
    container.running = true;
    serve(guest, &container).await;
    call.reply.out(&format!("{}\n", container.id)).await;
    let mut state = read(guest);
    state.containers.push(container);
    write(guest, &state);
    0
}

fn gpu_refusal(guest: &Guest) -> Option<String> {
    let configured = guest
        .files
        .read(nvidia::RUNTIME)
        .is_some_and(|text| text.contains("nvidia"));
    if !configured {
        return Some("docker: Error response from daemon: could not select device driver \"\" with capabilities: [[gpu]]\n".to_owned());
    }
    let no = nvidia::visible(guest).err()?;
    Some(format!(
        "docker: Error response from daemon: failed to create task for container: nvidia-container-cli: initialization error: nvml error: {}\n",
        no.text.lines().next().unwrap_or_default()
    ))
}

async fn foreground(guest: &Guest, call: &Call, container: &Container) -> i32 {
    if container.image.starts_with("hello-world") {
        call.reply.out("\nHello from Docker!\nThis message shows that your installation appears to be working correctly.\n\n").await;
        return 0;
    }
    match container.command.first().map(String::as_str) {
        Some("nvidia-smi") => {
            let again = Call {
                program: "/usr/bin/nvidia-smi".to_owned(),
                args: container.command[1..].to_vec(),
                env: call.env.clone(),
                cwd: "/".to_owned(),
                stdin: String::new(),
                reply: call.reply.clone(),
            };
            nvidia::smi(guest, &again).await
        }
        Some("echo") => {
            call.reply
                .out(&format!("{}\n", container.command[1..].join(" ")))
                .await;
            0
        }
        Some("true") | None => 0,
        Some("false") => 1,
        Some(other) => {
            call.reply.err(&format!("docker: Error response from daemon: failed to create task for container: exec: \"{other}\": executable file not found in $PATH\n")).await;
            127
        }
    }
}

fn describe(container: &Container) -> Value {
    let status = if container.running {
        "running"
    } else {
        "exited"
    };
    json!({"Id": container.id, "ID": &container.id[..12], "Name": format!("/{}", container.name), "Names": container.name, "Image": container.image, "Status": if container.running { "Up 1 second".to_owned() } else { format!("Exited ({})", container.exit_code) },
        "State": {"Status": status, "Running": container.running, "ExitCode": container.exit_code, "Health": {"Status": "none"}}, "Config": {"Image": container.image},
        "HostConfig": {"RestartPolicy": {"Name": container.restart}}, "RestartCount": 0})
}

async fn list(guest: &Guest, call: &Call, args: &[&str]) -> i32 {
    let has = |flags: &[&str]| args.iter().any(|arg| flags.contains(arg));
    let all = has(&["-a", "--all", "-aq", "-qa"]);
    let name = args
        .iter()
        .enumerate()
        .find_map(|(index, arg)| {
            arg.strip_prefix("--filter=").or_else(|| {
                matches!(*arg, "-f" | "--filter")
                    .then(|| args.get(index + 1).copied())
                    .flatten()
            })
        })
        .and_then(|filter| filter.strip_prefix("name="));
    // In `ps`, `-f` filters; only the long option formats.
    let format = args.iter().enumerate().find_map(|(index, arg)| {
        arg.strip_prefix("--format=").or_else(|| {
            (*arg == "--format")
                .then(|| args.get(index + 1).copied())
                .flatten()
        })
    });
    let mut text = String::new();
    if format.is_none() && !has(&["-q", "--quiet", "-aq", "-qa"]) {
        text += "CONTAINER ID   IMAGE   COMMAND   CREATED   STATUS   PORTS   NAMES\n";
    }
    for container in read(guest).containers.iter().filter(|container| {
        (all || container.running)
            && name.is_none_or(|name| container.name.contains(name.trim_matches(['^', '$', '/'])))
    }) {
        let ports: Vec<_> = container
            .ports
            .iter()
            .map(|(outside, inside)| format!("0.0.0.0:{outside}->{inside}/tcp"))
            .collect();
        let mut facts = describe(container);
        facts["State"] = json!(if container.running {
            "running"
        } else {
            "exited"
        });
        facts["Ports"] = json!(ports.join(", "));
        text += &match format {
            Some(format) => format!("{}\n", render(format, &facts).unwrap_or_default()),
            None if has(&["-q", "--quiet", "-aq", "-qa"]) => format!("{}\n", &container.id[..12]),
            None => format!(
                "{}   {}   \"{}\"   1 second ago   {}   {}   {}\n",
                &container.id[..12],
                container.image,
                container.command.join(" "),
                facts["Status"].as_str().unwrap_or_default(),
                ports.join(", "),
                container.name
            ),
        };
    }
    call.reply.out(&text).await;
    0
}

fn find<'a>(state: &'a mut State, name: &str) -> Option<&'a mut Container> {
    state.containers.iter_mut().find(|container| {
        container.name == name || (name.len() >= 6 && container.id.starts_with(name))
    })
}

async fn inspect(guest: &Guest, call: &Call, args: &[&str]) -> i32 {
    let format = format_of(args);
    let mut state = read(guest);
    let mut code = 0;
    let names: Vec<_> = args
        .iter()
        .filter(|arg| !arg.starts_with('-') && Some(**arg) != format.as_deref())
        .collect();
    for name in names {
        match find(&mut state, name) {
            Some(container) => {
                let facts = describe(container);
                code = show(call, args, &facts, &format!("{:#}\n", json!([facts]))).await;
            }
            None => {
                call.reply
                    .err(&format!("Error: No such object: {name}\n"))
                    .await;
                code = 1;
            }
        }
    }
    code
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
            serve(guest, &changed).await;
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
                .collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let value = json!({"Driver": "overlay2", "State": {"Running": true}});
        assert_eq!(render("{{.Driver}}", &value).as_deref(), Some("overlay2"));
        assert_eq!(
            render("a {{.State.Running}} {{json .Driver}}", &value).as_deref(),
            Some("a true \"overlay2\"")
        );
        assert_eq!(render("{{.None}}", &value), None);
    }
}
