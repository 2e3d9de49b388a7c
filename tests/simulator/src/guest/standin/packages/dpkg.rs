//! `dpkg` and `dpkg-query`.

use std::sync::Arc;

use super::apt::install;
use super::{Installed, matches_pattern};
use crate::guest::boot::Guest;
use crate::guest::calls::Call;

/// `dpkg` and `dpkg-query`.
pub(in crate::guest::standin) async fn dpkg(guest: &Arc<Guest>, call: &Call) -> i32 {
    let installed = Installed::read(guest);
    let words: Vec<_> = call
        .args
        .iter()
        .filter(|arg| !arg.starts_with('-'))
        .map(String::as_str)
        .collect();
    let has = |flags: &[&str]| call.args.iter().any(|arg| flags.contains(&arg.as_str()));
    if has(&["--print-architecture"]) {
        call.reply.out("amd64\n").await;
        return 0;
    }
    if has(&["--configure", "--audit", "-C", "--add-architecture"]) {
        return 0;
    }
    if has(&["-i", "--install"]) {
        let files: Vec<_> = words.iter().map(|word| call.path(word)).collect();
        for file in &files {
            if !guest.files.exists(file) {
                call.reply
                    .err(&format!(
                        "dpkg: error: cannot access archive '{file}': No such file or directory\n"
                    ))
                    .await;
                return 2;
            }
        }
        let names: Vec<_> = files.iter().map(String::as_str).collect();
        return install(guest, call, &names, false).await;
    }
    let format = call
        .args
        .iter()
        .enumerate()
        .find_map(|(index, arg)| match arg.as_str() {
            "-f" | "--showformat" => call.args.get(index + 1).cloned(),
            _ => arg
                .strip_prefix("-f=")
                .or_else(|| arg.strip_prefix("--showformat="))
                .or_else(|| arg.strip_prefix("-f"))
                .map(str::to_owned),
        });
    let names: Vec<_> = words
        .into_iter()
        .filter(|word| Some(*word) != format.as_deref())
        .collect();
    let mut code = 0;
    let found: Vec<_> = installed
        .0
        .iter()
        .filter(|(name, _)| {
            names.is_empty() || names.iter().any(|wanted| matches_pattern(name, wanted))
        })
        .collect();
    for (name, (version, held)) in found {
        let status = format!("{} ok installed", if *held { "hold" } else { "install" });
        let text = if has(&["-s", "--status"]) {
            format!(
                "Package: {name}\nStatus: {status}\nArchitecture: amd64\nVersion: {version}\n\n"
            )
        } else if let Some(format) = &format {
            format
                .replace("${Package}", name)
                .replace("${binary:Package}", name)
                .replace("${Version}", version)
                .replace("${Status}", &status)
                .replace("${db:Status-Status}", "installed")
                .replace("${db:Status-Abbrev}", "ii ")
                .replace("\\n", "\n")
                .replace("\\t", "\t")
        } else if has(&["-W", "--show"]) {
            format!("{name}\t{version}\n")
        } else {
            format!(
                "{}i  {name:<30} {version:<20} amd64\n",
                if *held { "h" } else { "i" }
            )
        };
        call.reply.out(&text).await;
    }
    let missing: Vec<_> = names
        .iter()
        .filter(|wanted| !installed.0.keys().any(|name| matches_pattern(name, wanted)))
        .collect();
    for name in missing {
        call.reply.err(&if has(&["-s", "--status"]) { format!("dpkg-query: package '{name}' is not installed and no information is available\n") } else { format!("dpkg-query: no packages found matching {name}\n") }).await;
        code = 1;
    }
    code
}
