//! `wget`.

use super::{Asked, Failed, Url, get};
use crate::guest::boot::Guest;
use crate::guest::calls::Call;

pub(in crate::guest::standin) async fn wget(guest: &Guest, call: &Call) -> i32 {
    let mut output = None;
    let mut url = None;
    let mut words = call.args.iter();
    let (mut quiet, mut insecure) = (false, false);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-O" | "--output-document" | "-qO" => output = words.next().cloned(),
            "-qO-" | "-O-" => output = Some("-".to_owned()),
            "--no-check-certificate" => insecure = true,
            "-t" | "-T" | "-P" => drop(words.next()),
            _ if word.starts_with("--output-document=") => {
                output = word.split_once('=').map(|(_, path)| path.to_owned());
            }
            _ if word.starts_with('-') => quiet |= word.contains('q'),
            _ => url = Url::parse(word),
        }
    }
    quiet |= call.args.iter().any(|arg| arg.starts_with("-q"));
    let Some(url) = url else {
        call.reply
            .err("wget: missing URL\nUsage: wget [OPTION]... [URL]...\n")
            .await;
        return 1;
    };
    let asked = Asked {
        method: "GET",
        headers: &[],
        body: "",
        insecure,
    };
    match get(guest, &url, &asked).await {
        Ok(fetched) if fetched.status < 400 => {
            match output.as_deref() {
                Some("-") => call.reply.out(&fetched.body).await,
                path => drop(guest.files.write(
                    &call.path(path.unwrap_or(url.file_name())),
                    &fetched.body,
                    0o644,
                )),
            }
            0
        }
        Ok(fetched) => {
            if !quiet {
                call.reply
                    .err(&format!("ERROR {}: Not Found.\n", fetched.status))
                    .await;
            }
            8
        }
        Err(Failed(_, text)) => {
            if !quiet {
                call.reply
                    .err(&format!(
                        "failed: {text}.\nwget: unable to resolve host address '{}'\n",
                        url.host
                    ))
                    .await;
            }
            4
        }
    }
}
