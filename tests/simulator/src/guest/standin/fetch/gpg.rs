//! `gpg`, for the keys that are handed out here.

use super::KEY_MARK;
use crate::guest::boot::Guest;
use crate::guest::calls::Call;

/// `gpg`: shows and converts the keys that are handed out here.
pub(in crate::guest::standin) async fn gpg(guest: &Guest, call: &Call) -> i32 {
    let has = |flag: &str| call.args.iter().any(|arg| arg == flag);
    if has("--version") {
        call.reply.out("gpg (GnuPG) 2.4.4\n").await;
        return 0;
    }
    let output = call.args.iter().enumerate().find_map(|(index, arg)| {
        if matches!(arg.as_str(), "-o" | "--output") {
            call.args.get(index + 1)
        } else {
            None
        }
    });
    let input = call
        .args
        .iter()
        .rev()
        .find(|arg| !arg.starts_with('-') && Some(*arg) != output && arg.as_str() != "-");
    let text = match input {
        Some(path) => {
            if let Some(text) = guest.files.read(&call.path(path)) {
                text
            } else {
                call.reply
                    .err(&format!(
                        "gpg: can't open '{path}': No such file or directory\n"
                    ))
                    .await;
                return 2;
            }
        }
        None => call.stdin.clone(),
    };
    let Some(fingerprint) = text.lines().find_map(|line| line.strip_prefix(KEY_MARK)) else {
        call.reply.err("gpg: no valid OpenPGP data found.\n").await;
        return 2;
    };
    if has("--dearmor") {
        match output {
            Some(path) if guest.files.exists(&call.path(path)) && !has("--yes") => {
                call.reply
                    .err(&format!("gpg: dearmoring failed: File exists ({path})\n"))
                    .await;
                return 2;
            }
            Some(path) => drop(guest.files.write(&call.path(path), &text, 0o644)),
            None => call.reply.out(&text).await,
        }
        return 0;
    }
    let id = &fingerprint[fingerprint.len().saturating_sub(16)..];
    if has("--with-colons") {
        call.reply.out(&format!("pub:-:4096:1:{id}:1487788586:::-:::scESC::::::23::0:\nfpr:::::::::{fingerprint}:\nuid:-::::1487792064::0::Repository key::::::::::0:\nsub:-:4096:1:0000000000000000:1487788586::::::s::::::23:\nfpr:::::::::{}:\n", "F".repeat(40))).await;
    } else {
        call.reply
            .out(&format!(
                "pub   rsa4096 2017-02-22 [SCEA]\n      {fingerprint}\n"
            ))
            .await;
    }
    0
}
