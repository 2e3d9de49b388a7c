//! The connection beneath SSH: directly, or through the proxy that probes take, too.

use std::error::Error;
use std::net::SocketAddr;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::{Service, ServiceExt as _};

/// Connects, or says in words what was in the way.
pub(super) async fn dial(address: SocketAddr, proxy: Option<&str>) -> Result<TcpStream, String> {
    let Some(proxy) = proxy else {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| error.to_string())?;
        // lines are short, and each is answered
        stream
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
        return Ok(stream);
    };
    let target: Uri = format!("http://{address}")
        .parse()
        .map_err(|_| format!("{address} is no address"))?;
    let mut direct = HttpConnector::new();
    direct.enforce_http(false);
    direct.set_nodelay(true);
    let (scheme, at) = split(proxy)?;
    match scheme {
        "socks5" | "socks5h" => through(SocksV5::new(at, direct), target).await,
        "http" => through(Tunnel::new(at, direct), target).await,
        other => Err(format!(
            "SSH goes through socks5 and http proxies, not through {other}"
        )),
    }
    .map_err(|error| format!("through the guest proxy {proxy}: {error}"))
}

/// A proxy's scheme and address, with the port that the scheme stands for.
fn split(proxy: &str) -> Result<(&str, Uri), String> {
    let unusable = || format!("the guest proxy {proxy:?} is not usable");
    let (scheme, place) = proxy.split_once("://").ok_or_else(unusable)?;
    let place = place.trim_end_matches('/');
    let default = if scheme == "http" { 80 } else { 1080 };
    let uri: Uri = format!("http://{place}").parse().map_err(|_| unusable())?;
    if uri.port().is_some() {
        return Ok((scheme, uri));
    }
    let uri = format!("http://{place}:{default}")
        .parse()
        .map_err(|_| unusable())?;
    Ok((scheme, uri))
}

async fn through<S>(connector: S, target: Uri) -> Result<TcpStream, String>
where
    S: Service<Uri, Response = TokioIo<TcpStream>>,
    S::Error: Error,
{
    let connected = connector.oneshot(target).await;
    connected
        .map(TokioIo::into_inner)
        .map_err(|error| chain(&error))
}

/// An error with all that caused it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}
