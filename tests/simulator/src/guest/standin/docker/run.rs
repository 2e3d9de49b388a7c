//! `docker run` and `pull`.

use std::sync::Arc;

use super::{Container, read, serve, write};
use crate::guest::boot::Guest;
use crate::guest::calls::Call;
use crate::guest::standin::nvidia;
use crate::guest::standin::system::reaches_outside;

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

pub(super) async fn pull(guest: &Guest, call: &Call, args: &[&str]) -> i32 {
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

pub(super) async fn run(guest: &Arc<Guest>, call: &Call, args: &[&str]) -> i32 {
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
    serve(guest, &container);
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
