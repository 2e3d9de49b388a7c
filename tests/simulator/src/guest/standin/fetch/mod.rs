//! curl, wget and gpg: the guests' own servers for real, the world outside from a short list of known things.

mod curl;
mod gpg;
mod wget;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;

use super::system::reaches_outside;
use crate::guest::boot::Guest;
use crate::guest::network::Unreached;
use crate::guest::web::{self, Fetched};

pub(super) use curl::curl;
pub(super) use gpg::gpg;
pub(super) use wget::wget;

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
    let kind = file.rsplit_once('.').map_or("", |(_, kind)| kind);
    let body = match file {
        "3bf863cc.pub" => key("EB693B3035CD5710E231E123A4B469963BF863CC"),
        "8793F200.pub" => key("02182E60104FCDC26EAE1B8597A5D4CB8793F200"),
        "gpg" if url.host.contains("docker") => key("9DC858229FC7DD38854AE2D88D81803C0EBFCD88"),
        "gpgkey" => key("C95B321B61E88C1809C4F759DDCAE044F796ECB0"),
        _ if ["asc", "gpg", "key"].contains(&kind) => key(&"0".repeat(40)),
        _ if kind == "deb" => "!<arch>\n".to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;

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
