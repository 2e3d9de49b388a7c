//! `curl`.

use std::collections::VecDeque;

use super::{Asked, Failed, Url, get};
use crate::guest::boot::Guest;
use crate::guest::calls::{self, Call};

#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
struct Options {
    url: Option<String>,
    output: Option<String>,
    remote_name: bool,
    fail: bool,
    silent: bool,
    show_error: bool,
    insecure: bool,
    head: bool,
    method: Option<String>,
    data: Option<String>,
    headers: Vec<(String, String)>,
    write_out: Option<String>,
    unknown: Option<String>,
}

/// curl's short options that take a value.
const WITH_VALUE: &str = "oHXdwmuArTF";

fn curl_options(args: &[String]) -> Options {
    let mut found = Options::default();
    let mut words: VecDeque<String> = args.iter().cloned().collect();
    while let Some(word) = words.pop_front() {
        if word.len() > 2 && word.starts_with('-') && !word.starts_with("--") {
            // A bundle: take the first option off it; the rest is its value or the next options.
            let (first, rest) = word.split_at(2);
            let takes_value = WITH_VALUE.contains(&first[1..]);
            words.push_front(if takes_value {
                rest.to_owned()
            } else {
                format!("-{rest}")
            });
            words.push_front(first.to_owned());
            continue;
        }
        let (name, attached) = calls::option(&word);
        let mut value = || {
            attached
                .clone()
                .or_else(|| words.pop_front())
                .unwrap_or_default()
        };
        match name {
            "-o" | "--output" => found.output = Some(value()),
            "-O" | "--remote-name" => found.remote_name = true,
            "-f" | "--fail" | "--fail-with-body" => found.fail = true,
            "-s" | "--silent" => found.silent = true,
            "-S" | "--show-error" => found.show_error = true,
            "-k" | "--insecure" => found.insecure = true,
            "-I" | "--head" => found.head = true,
            "-X" | "--request" => found.method = Some(value()),
            "-d" | "--data" | "--data-raw" | "--data-binary" | "--json" => {
                found.data = Some(value());
            }
            "-H" | "--header" => {
                let header = value();
                found.headers.extend(
                    header
                        .split_once(':')
                        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())),
                );
            }
            "-w" | "--write-out" => found.write_out = Some(value()),
            "-m" | "--max-time" | "--connect-timeout" | "--retry" | "--retry-delay"
            | "--retry-max-time" | "-A" | "--user-agent" | "-u" | "--user" | "--cacert"
            | "--proto" | "-r" | "--range" => {
                drop(value());
            }
            "-L"
            | "--location"
            | "-g"
            | "--globoff"
            | "-4"
            | "-6"
            | "--retry-connrefused"
            | "--retry-all-errors"
            | "--compressed"
            | "--tlsv1.2"
            | "-v"
            | "--verbose"
            | "--no-progress-meter"
            | "-#"
            | "--create-dirs" => {}
            other if other.starts_with('-') => found.unknown = Some(other.to_owned()),
            _ => found.url = Some(word),
        }
    }
    found
}

/// `curl`.
pub(in crate::guest::standin) async fn curl(guest: &Guest, call: &Call) -> i32 {
    if call
        .args
        .iter()
        .any(|arg| arg == "--version" || arg == "-V")
    {
        call.reply
            .out("curl 8.5.0 (x86_64-pc-linux-gnu) libcurl/8.5.0\n")
            .await;
        return 0;
    }
    let options = curl_options(&call.args);
    if let Some(unknown) = &options.unknown {
        call.reply
            .err(&format!(
                "curl: option {unknown}: is unknown\ncurl: try 'curl --help' for more information\n"
            ))
            .await;
        return 2;
    }
    let Some(url) = options.url.as_deref().and_then(Url::parse) else {
        call.reply
            .err("curl: (3) URL rejected: Malformed input to a URL function\n")
            .await;
        return 3;
    };
    let loud = !options.silent || options.show_error;
    let method = options.method.clone().unwrap_or_else(|| {
        if options.head {
            "HEAD"
        } else if options.data.is_some() {
            "POST"
        } else {
            "GET"
        }
        .to_owned()
    });
    let asked = Asked {
        method: &method,
        headers: &options.headers,
        body: options.data.as_deref().unwrap_or_default(),
        insecure: options.insecure,
    };
    let fetched = match get(guest, &url, &asked).await {
        Ok(fetched) => fetched,
        Err(Failed(code, text)) => {
            write_out(call, &options, 0).await;
            if loud {
                call.reply.err(&format!("curl: ({code}) {text}\n")).await;
            }
            return code;
        }
    };
    if options.fail && fetched.status >= 400 {
        write_out(call, &options, fetched.status).await;
        if loud {
            call.reply
                .err(&format!(
                    "curl: (22) The requested URL returned error: {}\n",
                    fetched.status
                ))
                .await;
        }
        return 22;
    }
    let output = options
        .output
        .clone()
        .or_else(|| options.remote_name.then(|| url.file_name().to_owned()));
    match output.as_deref() {
        _ if options.head => {
            call.reply
                .out(&format!("HTTP/1.1 {}\r\n\r\n", fetched.status))
                .await;
        }
        Some("/dev/null") => {}
        Some("-") | None => call.reply.out(&fetched.body).await,
        Some(path) => {
            if guest
                .files
                .write(&call.path(path), &fetched.body, 0o644)
                .is_err()
            {
                call.reply
                    .err("curl: (23) client returned ERROR on writing data\n")
                    .await;
                return 23;
            }
        }
    }
    write_out(call, &options, fetched.status).await;
    0
}

async fn write_out(call: &Call, options: &Options, status: u16) {
    if let Some(format) = &options.write_out {
        call.reply
            .out(
                &format
                    .replace("%{http_code}", &format!("{status:03}"))
                    .replace("%{response_code}", &format!("{status:03}"))
                    .replace("\\n", "\n"),
            )
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundled_options_are_taken_apart() {
        let words: Vec<_> = [
            "-fsSLo",
            "/tmp/x",
            "-H",
            "A: b",
            "--max-time=5",
            "https://h/p",
        ]
        .map(str::to_owned)
        .into();
        let options = curl_options(&words);
        assert!(options.fail && options.silent && options.show_error && options.unknown.is_none());
        assert_eq!(
            (options.output.as_deref(), options.url.as_deref()),
            (Some("/tmp/x"), Some("https://h/p"))
        );
        assert_eq!(options.headers, [("A".to_owned(), "b".to_owned())]);
    }
}
