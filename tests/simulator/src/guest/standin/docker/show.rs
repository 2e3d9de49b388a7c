//! What Docker says of itself and its containers: `info`, `ps`, `inspect`, with `--format`.

use serde_json::{Value, json};

use super::{Container, ENGINE_ID, VERSION, find, read};
use crate::guest::boot::Guest;
use crate::guest::calls::Call;
use crate::guest::standin::nvidia;

pub(super) async fn info(guest: &Guest, call: &Call, args: &[&str]) -> i32 {
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
    let driver = guest.shared.faults.docker_storage();
    let id = guest.files.read(ENGINE_ID).unwrap_or_default();
    let names: Vec<_> = runtimes
        .as_object()
        .map(|all| all.keys().cloned().collect())
        .unwrap_or_default();
    let facts = json!({"ID": id, "Driver": driver, "ServerVersion": VERSION, "Containers": state.containers.len(), "Images": state.images.len(),
        "Runtimes": runtimes, "DefaultRuntime": config["default-runtime"].as_str().unwrap_or("runc"), "CgroupVersion": "2", "CgroupDriver": "systemd", "DockerRootDir": "/var/lib/docker"});
    let text = format!(
        "Client: Docker Engine - Community\n Version:    {VERSION}\n\nServer:\n Containers: {}\n Images: {}\n Server Version: {VERSION}\n Storage Driver: {driver}\n Cgroup Driver: systemd\n Cgroup Version: 2\n Runtimes: {}\n ID: {id}\n Docker Root Dir: /var/lib/docker\n",
        state.containers.len(),
        state.images.len(),
        names.join(" ")
    );
    show(call, args, &facts, &text).await
}

/// Prints a value by `--format`, or the text for people.
pub(super) async fn show(call: &Call, args: &[&str], value: &Value, text: &str) -> i32 {
    match format_of(args) {
        None => call.reply.out(text).await,
        Some(format) => {
            if let Some(line) = render(&format, value) {
                call.reply.out(&format!("{line}\n")).await;
            } else {
                call.reply
                    .err(&format!(
                        "template parsing error: template: {format}: not played here\n"
                    ))
                    .await;
                return 64;
            }
        }
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

pub(super) async fn list(guest: &Guest, call: &Call, args: &[&str]) -> i32 {
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
        let row = match format {
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
        text.push_str(&row);
    }
    call.reply.out(&text).await;
    0
}

pub(super) async fn inspect(guest: &Guest, call: &Call, args: &[&str]) -> i32 {
    let format = format_of(args);
    let mut state = read(guest);
    let mut code = 0;
    let names: Vec<_> = args
        .iter()
        .filter(|arg| !arg.starts_with('-') && Some(**arg) != format.as_deref())
        .collect();
    for name in names {
        if let Some(container) = find(&mut state, name) {
            let facts = describe(container);
            code = show(call, args, &facts, &format!("{:#}\n", json!([facts]))).await;
        } else {
            call.reply
                .err(&format!("Error: No such object: {name}\n"))
                .await;
            code = 1;
        }
    }
    code
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
