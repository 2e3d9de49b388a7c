//! Commands of the base system that look at the machine rather than at files: network, names, keys, locales.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::guest::boot::Guest;
use crate::guest::calls::Call;
use crate::guest::network;
use crate::guest::ssh::{self, HostKey};

/// Plays one of them.
pub(super) async fn run(guest: &Arc<Guest>, call: &Call) -> i32 {
    let args = call.args();
    match call.name() {
        "ip" => ip(guest, call).await,
        "hostname" => hostname(guest, call).await,
        "hostnamectl" => {
            if let ["set-hostname" | "hostname", name] = args[..] {
                guest
                    .files
                    .write("/etc/hostname", &format!("{name}\n"), 0o644)
                    .ok();
            } else {
                call.reply
                    .out(&format!(
                        " Static hostname: {}\n  Virtualization: lxc\n",
                        guest.spec.hostname
                    ))
                    .await;
            }
            0
        }
        "getent" => getent(guest, call).await,
        "ping" => ping(guest, call).await,
        "dhclient" => {
            let leases = "/var/lib/dhcp/dhclient.leases";
            guest.files.append(leases, "lease {\n}\n").ok();
            0
        }
        "ssh-keygen" => ssh_keygen(guest, call).await,
        "sshd" => ssh::run(guest, call).await,
        "systemd-detect-virt" => {
            call.reply.out("lxc\n").await;
            0
        }
        "systemd-machine-id-setup" => {
            if guest
                .files
                .read("/etc/machine-id")
                .is_none_or(|id| id.trim().is_empty())
            {
                guest
                    .files
                    .write(
                        "/etc/machine-id",
                        &format!("{}\n", hex::encode(rand::random::<[u8; 16]>())),
                        0o444,
                    )
                    .ok();
            }
            0
        }
        "systemd-analyze" => {
            call.reply
                .out("Startup finished in 412ms (userspace)\n")
                .await;
            0
        }
        "systemd-notify" => {
            if let Some(invocation) = call.env.get("INVOCATION_ID") {
                guest.units.notify(invocation);
            }
            0
        }
        "logger" => {
            let text = args
                .iter()
                .filter(|arg| !arg.starts_with('-'))
                .copied()
                .collect::<Vec<_>>()
                .join(" ");
            guest.units.journal.write("", "root", 0, &text);
            0
        }
        "service" | "invoke-rc.d" => {
            let [unit, verb] = args[..] else { return 1 };
            let again = Call {
                program: "/usr/bin/systemctl".to_owned(),
                args: vec![verb.to_owned(), unit.to_owned()],
                env: call.env.clone(),
                cwd: call.cwd.clone(),
                stdin: String::new(),
                reply: call.reply.clone(),
            };
            crate::guest::systemd::run(guest, &again).await
        }
        "locale-gen" => {
            call.reply
                .out("Generating locales (this might take a while)...\nGeneration complete.\n")
                .await;
            0
        }
        "locale" => {
            call.reply
                .out(if args.first() == Some(&"-a") {
                    "C\nC.utf8\nPOSIX\n"
                } else {
                    "LANG=C.UTF-8\n"
                })
                .await;
            0
        }
        "update-locale" => {
            let lines: String = args
                .iter()
                .map(|assignment| format!("{assignment}\n"))
                .collect::<Vec<_>>()
                .concat();
            guest.files.write("/etc/default/locale", &lines, 0o644).ok();
            0
        }
        "groupadd" | "useradd" | "usermod" => accounts(guest, call).await,
        "ldconfig" => ldconfig(guest, call).await,
        "modprobe" => {
            let module = args
                .iter()
                .find(|arg| !arg.starts_with('-'))
                .copied()
                .unwrap_or_default();
            call.reply.err(&format!("modprobe: FATAL: Module {module} not found in directory /lib/modules/6.17.2-1-pve\n")).await;
            1
        }
        "sysctl" => {
            if args.iter().any(|arg| arg.contains('=')) {
                call.reply.err("sysctl: permission denied on key\n").await;
                return 1;
            }
            0
        }
        "update-ca-certificates" => {
            call.reply
                .out("Updating certificates in /etc/ssl/certs...\n0 added, 0 removed; done.\n")
                .await;
            0
        }
        // Nothing to see, nothing to do, and no failure either.
        "resolvectl"
        | "networkctl"
        | "timedatectl"
        | "localectl"
        | "loginctl"
        | "systemd-tmpfiles"
        | "systemd-cat"
        | "swapoff"
        | "swapon"
        | "lsmod"
        | "update-alternatives"
        | "debconf-set-selections"
        | "deb-systemd-helper"
        | "dmesg" => 0,
        other => {
            call.reply
                .err(&format!(
                    "{other}: this stand-in does not know what to do\n"
                ))
                .await;
            125
        }
    }
}

async fn ip(guest: &Guest, call: &Call) -> i32 {
    let args = call.args();
    let words: Vec<_> = args
        .iter()
        .filter(|arg| !arg.starts_with('-'))
        .copied()
        .collect();
    let six = args.contains(&"-6");
    let brief = args.iter().any(|arg| matches!(*arg, "-br" | "-brief"));
    let text = match words.first().copied().unwrap_or_default() {
        object if "route".starts_with(object) && object.starts_with('r') => {
            if words.get(1) == Some(&"get") {
                let Some((net, interface)) = default_route(guest) else {
                    call.reply.err("RTNETLINK answers: Network is unreachable\n").await;
                    return 2;
                };
                format!("{} via {net} dev {interface} src {} uid 0\n    cache\n", words.get(2).unwrap_or(&"1.1.1.1"), first_address(guest).unwrap_or_default())
            } else if six {
                String::new()
            } else {
                let only_default = words.contains(&"default");
                routes(guest).lines().filter(|line| !only_default || line.starts_with("default")).map(|line| format!("{line}\n")).collect::<Vec<_>>().concat()
            }
        }
        object if "address".starts_with(object) && object.starts_with('a') => addresses(guest, brief, words.iter().rev().find(|word| guest.interfaces.iter().any(|interface| interface.name == **word)).copied()),
        object if "link".starts_with(object) && object.starts_with('l') => guest
            .interfaces
            .iter()
            .enumerate()
            .map(|(index, interface)| format!("{}: {}@if{}: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP mode DEFAULT group default qlen 1000\n    link/ether {} brd ff:ff:ff:ff:ff:ff link-netnsid 0\n", index + 2, interface.name, index + 10, interface.hwaddr.to_lowercase()))
            .collect::<Vec<_>>().concat(),
        other => {
            call.reply.err(&format!("Object \"{other}\" is unknown, try \"ip help\".\n")).await;
            return 1;
        }
    };
    call.reply.out(&text).await;
    0
}

/// Gateway and interface of the default route.
pub(super) fn default_route(guest: &Guest) -> Option<(String, String)> {
    guest.spec.nets.iter().find_map(|net| {
        let gateway = net
            .gateway
            .clone()
            .or_else(|| (net.ip.as_deref() == Some("dhcp")).then(|| "10.0.0.1".to_owned()))?;
        Some((gateway, net.name.clone()))
    })
}

fn first_address(guest: &Guest) -> Option<String> {
    guest
        .interfaces
        .iter()
        .find_map(|interface| interface.cidr.as_deref().and_then(network::address))
        .map(|address| address.to_string())
}

fn routes(guest: &Guest) -> String {
    let mut text = String::new();
    if let Some((gateway, interface)) = default_route(guest) {
        writeln!(text, "default via {gateway} dev {interface} proto static").ok();
    }
    for interface in &guest.interfaces {
        if let Some(cidr) = &interface.cidr
            && let (Some(network), Some(address)) = (network::network(cidr), network::address(cidr))
        {
            writeln!(
                text,
                "{network} dev {} proto kernel scope link src {address}",
                interface.name
            )
            .ok();
        }
    }
    text
}

fn addresses(guest: &Guest, brief: bool, only: Option<&str>) -> String {
    let mut text = String::new();
    if only.is_none() {
        text += if brief {
            "lo               UNKNOWN        127.0.0.1/8 ::1/128\n"
        } else {
            "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN group default qlen 1000\n    inet 127.0.0.1/8 scope host lo\n"
        };
    }
    for (index, interface) in guest
        .interfaces
        .iter()
        .enumerate()
        .filter(|(_, interface)| only.is_none_or(|only| only == interface.name))
    {
        let (name, mac) = (&interface.name, interface.hwaddr.to_lowercase());
        if brief {
            writeln!(
                text,
                "{:<16} UP             {}",
                format!("{name}@if{}", index + 10),
                interface.cidr.as_deref().unwrap_or_default()
            )
            .ok();
            continue;
        }
        write!(text,
            "{}: {name}@if{}: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP group default qlen 1000\n    link/ether {mac} brd ff:ff:ff:ff:ff:ff link-netnsid 0\n",
            index + 2,
            index + 10
        ).ok();
        if let Some(cidr) = &interface.cidr {
            write!(text,
                "    inet {cidr} scope global {name}\n       valid_lft forever preferred_lft forever\n"
            ).ok();
        }
    }
    text
}

async fn hostname(guest: &Guest, call: &Call) -> i32 {
    let text = match call.args.first().map(String::as_str) {
        Some("-I" | "--all-ip-addresses" | "-i" | "--ip-address") => guest
            .interfaces
            .iter()
            .filter_map(|interface| interface.cidr.as_deref().and_then(network::address))
            .map(|address| format!("{address} "))
            .collect::<Vec<_>>()
            .concat(),
        Some("-d" | "--domain") => guest.spec.searchdomain.clone().unwrap_or_default(),
        Some("-f" | "--fqdn") => guest.spec.searchdomain.as_ref().map_or_else(
            || guest.spec.hostname.clone(),
            |domain| format!("{}.{domain}", guest.spec.hostname),
        ),
        _ => guest.spec.hostname.clone(),
    };
    call.reply.out(&format!("{text}\n")).await;
    0
}

/// Whether names of the world outside resolve: a route and a name server are all it takes.
pub(super) fn reaches_outside(guest: &Guest) -> bool {
    let resolver = guest.files.read("/etc/resolv.conf").unwrap_or_default();
    default_route(guest).is_some()
        && resolver
            .lines()
            .any(|line| line.trim_start().starts_with("nameserver"))
}

async fn getent(guest: &Guest, call: &Call) -> i32 {
    let args = call.args();
    let (Some(database), keys) = (args.first(), &args[1.min(args.len())..]) else {
        return 1;
    };
    let mut code = 0;
    match *database {
        "hosts" | "ahosts" | "ahostsv4" => {
            for key in keys {
                let known = guest.files.read("/etc/hosts").unwrap_or_default();
                let local = known
                    .lines()
                    .find(|line| line.split_whitespace().any(|word| word == *key))
                    .and_then(|line| line.split_whitespace().next());
                match local {
                    Some(address) => call.reply.out(&format!("{address:<15} {key}\n")).await,
                    None if key.parse::<std::net::IpAddr>().is_ok() => {
                        call.reply.out(&format!("{key:<15} {key}\n")).await;
                    }
                    None if key.contains('.')
                        && reaches_outside(guest)
                        && !key.ends_with(".invalid") =>
                    {
                        call.reply.out(&format!("203.0.113.7     {key}\n")).await;
                    }
                    None => code = 2,
                }
            }
        }
        "passwd" | "group" | "shadow" => {
            let text = guest
                .files
                .read(&format!("/etc/{database}"))
                .unwrap_or_default();
            let lines: Vec<_> = text
                .lines()
                .filter(|line| {
                    keys.is_empty()
                        || keys.iter().any(|key| {
                            line.split(':').next() == Some(key)
                                || line.split(':').nth(2) == Some(key)
                        })
                })
                .collect();
            code = if lines.is_empty() { 2 } else { 0 };
            call.reply
                .out(
                    &lines
                        .iter()
                        .map(|line| format!("{line}\n"))
                        .collect::<Vec<_>>()
                        .concat(),
                )
                .await;
        }
        _ => return 1,
    }
    code
}

async fn ping(guest: &Guest, call: &Call) -> i32 {
    let host = call
        .args()
        .into_iter()
        .rfind(|arg| !arg.starts_with('-'))
        .unwrap_or_default()
        .to_owned();
    if !reaches_outside(guest) {
        call.reply
            .err(&format!(
                "ping: {host}: Temporary failure in name resolution\n"
            ))
            .await;
        return 2;
    }
    call.reply.out(&format!("PING {host} 56(84) bytes of data.\n64 bytes from {host}: icmp_seq=1 ttl=57 time=4.12 ms\n\n--- {host} ping statistics ---\n1 packets transmitted, 1 received, 0% packet loss, time 0ms\n")).await;
    0
}

async fn ssh_keygen(guest: &Guest, call: &Call) -> i32 {
    if !call.args.iter().any(|arg| arg == "-A") {
        call.reply.err("ssh-keygen: only -A is played here\n").await;
        return 1;
    }
    let mut made = Vec::new();
    for kind in ["rsa", "ecdsa", "ed25519"] {
        let path = format!("/etc/ssh/ssh_host_{kind}_key");
        if guest.files.exists(&path) {
            continue;
        }
        let name = format!("root@{}", guest.spec.hostname);
        let (private, public) = match HostKey::make(&name) {
            // the one that is used is a real one
            Ok(key) if kind == "ed25519" => (key.private, key.public),
            _ => {
                let material = hex::encode(rand::random::<[u8; 32]>());
                let private = format!(
                    "-----BEGIN OPENSSH PRIVATE KEY-----\n{material}\n-----END OPENSSH PRIVATE KEY-----\n"
                );
                (private, format!("ssh-{kind} AAAA{material} {name}\n"))
            }
        };
        guest.files.write(&path, &private, 0o600).ok();
        guest
            .files
            .write(&format!("{path}.pub"), &public, 0o644)
            .ok();
        made.push(kind.to_uppercase());
    }
    if !made.is_empty() {
        call.reply
            .out(&format!(
                "ssh-keygen: generating new host keys: {} \n",
                made.join(" ")
            ))
            .await;
    }
    0
}

async fn accounts(guest: &Guest, call: &Call) -> i32 {
    let args = call.args();
    let Some(name) = args.last() else { return 2 };
    let file = if call.name() == "groupadd" {
        "/etc/group"
    } else {
        "/etc/passwd"
    };
    let text = guest.files.read(file).unwrap_or_default();
    let there = text
        .lines()
        .any(|line| line.split(':').next() == Some(name));
    if call.name() == "usermod" {
        if !there {
            call.reply
                .err(&format!("usermod: user '{name}' does not exist\n"))
                .await;
            return 6;
        }
        return 0;
    }
    if there {
        let what = if file == "/etc/group" {
            "group"
        } else {
            "user"
        };
        call.reply
            .err(&format!(
                "{}: {what} '{name}' already exists\n",
                call.name()
            ))
            .await;
        return 9;
    }
    let id = 990 - text.lines().count();
    let line = if file == "/etc/group" {
        format!("{name}:x:{id}:\n")
    } else {
        format!("{name}:x:{id}:{id}::/home/{name}:/bin/bash\n")
    };
    guest.files.append(file, &line).ok();
    0
}

/// The libraries that packages have brought, as far as scripts look for them.
async fn ldconfig(guest: &Guest, call: &Call) -> i32 {
    if !call.args.iter().any(|arg| arg == "-p") {
        return 0;
    }
    let mut libraries = vec!["libc.so.6".to_owned()];
    libraries.extend(guest.files.list("/usr/local/lib/simulated"));
    let lines: String = libraries
        .iter()
        .map(|name| format!("\t{name} (libc6,x86-64) => /lib/x86_64-linux-gnu/{name}\n"))
        .collect::<Vec<_>>()
        .concat();
    call.reply
        .out(&format!(
            "{} libs found in cache `/etc/ld.so.cache'\n{lines}",
            libraries.len()
        ))
        .await;
    0
}
