//! curl, wget and gpg: the guests' own servers for real, the world outside from a short list of known things.

use std::collections::VecDeque;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;

use super::system::reaches_outside;
use crate::guest::boot::Guest;
use crate::guest::calls::Call;
use crate::guest::network::Unreached;
use crate::guest::web::{self, Fetched};

/// Why nothing was fetched: curl's exit status and text.
struct Failed(i32, String);

struct Url {
    secure: bool,
    host: String,
    port: u16,
    path: String,
}

impl Url {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let secure = match scheme {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let (authority, path) = rest
            .split_once('/')
            .map_or((rest, "/".to_owned()), |(authority, path)| {
                (authority, format!("/{path}"))
            });
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, if secure { 443 } else { 80 }),
        };
        (!host.is_empty()).then(|| Self {
            secure,
            host: host.to_owned(),
            port,
            path,
        })
    }

    fn file_name(&self) -> &str {
        self.path
            .split('?')
            .next()
            .unwrap_or_default()
            .rsplit('/')
            .next()
            .unwrap_or_default()
    }
}

#[derive(Default)]
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
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
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
                found.data = Some(value())
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
pub(super) async fn curl(guest: &Guest, call: &Call) -> i32 {
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
                .await
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

/// `wget`.
pub(super) async fn wget(guest: &Guest, call: &Call) -> i32 {
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
                output = word.split_once('=').map(|(_, path)| path.to_owned())
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

struct Asked<'a> {
    method: &'a str,
    headers: &'a [(String, String)],
    body: &'a str,
    insecure: bool,
}

async fn get(guest: &Guest, url: &Url, asked: &Asked<'_>) -> Result<Fetched, Failed> {
    let here = matches!(url.host.as_str(), "localhost" | "127.0.0.1" | "[::1]")
        || guest.answers_to(&url.host);
    let connected = if here {
        guest.ports.connect(url.port)
    } else {
        guest.shared.dial(&url.host, url.port)
    };
    match connected {
        Ok(stream) => return ask(guest, url, asked, stream).await,
        Err(Unreached::Refused) => {
            return Err(Failed(
                7,
                format!(
                    "Failed to connect to {} port {} after 0 ms: Couldn't connect to server",
                    url.host, url.port
                ),
            ));
        }
        Err(Unreached::NoHost) => {}
    }
    if url
        .host
        .parse::<std::net::Ipv4Addr>()
        .is_ok_and(|address| address.is_private())
    {
        return Err(Failed(
            7,
            format!(
                "Failed to connect to {} port {} after 3062 ms: No route to host",
                url.host, url.port
            ),
        ));
    }
    if !reaches_outside(guest) || url.host.ends_with(".invalid") {
        return Err(Failed(6, format!("Could not resolve host: {}", url.host)));
    }
    tokio::time::sleep(guest.shared.faults.timing().download).await;
    Ok(known(url))
}

async fn ask(
    guest: &Guest,
    url: &Url,
    asked: &Asked<'_>,
    stream: tokio::io::DuplexStream,
) -> Result<Fetched, Failed> {
    let certificate = match (
        url.secure,
        guest.shared.certificate(&url.host, url.port, guest),
    ) {
        (false, _) => None,
        (true, None) => {
            return Err(Failed(
                35,
                "OpenSSL/3.0.13: error:0A00010B:SSL routines::wrong version number".to_owned(),
            ));
        }
        (true, Some(_)) if !asked.insecure => {
            return Err(Failed(
                60,
                "SSL certificate problem: self-signed certificate".to_owned(),
            ));
        }
        (true, certificate) => certificate,
    };
    let mut request = Request::builder()
        .method(asked.method)
        .uri(&url.path)
        .header("host", format!("{}:{}", url.host, url.port));
    for (name, value) in asked.headers {
        request = request.header(name, value);
    }
    let request = request
        .body(Full::new(Bytes::copy_from_slice(asked.body.as_bytes())))
        .map_err(|error| Failed(3, error.to_string()))?;
    web::request(stream, certificate, request)
        .await
        .map_err(|_| Failed(52, "Empty reply from server".to_owned()))
}

/// The world outside: repositories' keys and the driver's installer; everything else is not found.
fn known(url: &Url) -> Fetched {
    let key = |fingerprint: &str| {
        format!(
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n{KEY_MARK}{fingerprint}\n-----END PGP PUBLIC KEY BLOCK-----\n"
        )
    };
    let file = url.file_name();
    let body = match file {
        "3bf863cc.pub" => key("EB693B3035CD5710E231E123A4B469963BF863CC"),
        "8793F200.pub" => key("02182E60104FCDC26EAE1B8597A5D4CB8793F200"),
        "gpg" if url.host.contains("docker") => key("9DC858229FC7DD38854AE2D88D81803C0EBFCD88"),
        "gpgkey" => key("C95B321B61E88C1809C4F759DDCAE044F796ECB0"),
        _ if file.ends_with(".asc") || file.ends_with(".gpg") || file.ends_with(".key") => {
            key(&"0".repeat(40))
        }
        _ if file.ends_with(".deb") => "!<arch>\n".to_owned(),
        "nvidia-container-toolkit.list" => {
            "deb https://mirror.lan/libnvidia-container/stable/deb/$(ARCH) /\n".to_owned()
        }
        _ => match file
            .strip_prefix("NVIDIA-Linux-x86_64-")
            .and_then(|rest| rest.strip_suffix(".run"))
        {
            Some(version) => format!("#!/bin/sh\nexec /.seam/nvidia-installer {version} \"$@\"\n"),
            None if url.path == "/" => "<!doctype html>\n".to_owned(),
            None => {
                return Fetched {
                    status: 404,
                    body: "404 page not found\n".to_owned(),
                };
            }
        },
    };
    Fetched { status: 200, body }
}

const KEY_MARK: &str = "fingerprint ";

/// `gpg`: shows and converts the keys that are handed out here.
pub(super) async fn gpg(guest: &Guest, call: &Call) -> i32 {
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
        Some(path) => match guest.files.read(&call.path(path)) {
            Some(text) => text,
            None => {
                call.reply
                    .err(&format!(
                        "gpg: can't open '{path}': No such file or directory\n"
                    ))
                    .await;
                return 2;
            }
        },
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

    #[test]
    fn urls() {
        let url = Url::parse("https://127.0.0.1:9443/api/system/status").unwrap();
        assert_eq!(
            (url.secure, url.host.as_str(), url.port, url.path.as_str()),
            (true, "127.0.0.1", 9443, "/api/system/status")
        );
        assert_eq!(Url::parse("localhost").unwrap().port, 80);
        assert!(Url::parse("ftp://x/").is_none());
    }
}
