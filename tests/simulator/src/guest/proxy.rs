//! The way into the guests' network: SOCKS5 and HTTP proxy on one port of 127.0.0.1.
//!
//! Speaks what HTTP clients speak to proxies: SOCKS5 without authentication, `CONNECT`, and requests in absolute form. Leads to guests only.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};

use super::network::Unreached;

/// Finds what answers at an address.
pub(super) type Dial = Arc<dyn Fn(&str, u16) -> Result<DuplexStream, Unreached> + Send + Sync>;

/// Binds the proxy and serves it until the returned task is aborted.
pub(super) async fn start(dial: Dial) -> Result<(SocketAddr, tokio::task::JoinHandle<()>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context("binding the guests' proxy")?;
    let address = listener.local_addr()?;
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    let dial = dial.clone();
                    connections.spawn(async move {
                        if let Err(error) = serve(stream, &dial).await {
                            tracing::debug!("guest proxy: {error:#}");
                        }
                    });
                }
                Some(_) = connections.join_next() => {}
            }
        }
    });
    Ok((address, task))
}

async fn serve(client: TcpStream, dial: &Dial) -> Result<()> {
    client.set_nodelay(true)?;
    let mut first = [0u8; 1];
    ensure!(client.peek(&mut first).await? == 1, "closed at once");
    if first[0] == 5 {
        socks(client, dial).await
    } else {
        http(client, dial).await
    }
}

async fn socks(mut client: TcpStream, dial: &Dial) -> Result<()> {
    let _version = client.read_u8().await?;
    let mut offered = vec![0; client.read_u8().await?.into()];
    client.read_exact(&mut offered).await?;
    if !offered.contains(&0) {
        client.write_all(&[5, 0xff]).await?;
        bail!("the client wants to authenticate");
    }
    client.write_all(&[5, 0]).await?;
    let mut request = [0u8; 4];
    client.read_exact(&mut request).await?;
    let host = match request[3] {
        1 => {
            let mut octets = [0u8; 4];
            client.read_exact(&mut octets).await?;
            Ipv4Addr::from(octets).to_string()
        }
        3 => {
            let mut name = vec![0; client.read_u8().await?.into()];
            client.read_exact(&mut name).await?;
            String::from_utf8(name)?
        }
        _ => {
            client.write_all(&[5, 8, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
            bail!("address type {} is not served", request[3]);
        }
    };
    let port = client.read_u16().await?;
    if request[1] != 1 {
        client.write_all(&[5, 7, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        bail!("only CONNECT is served");
    }
    let (code, guest) = match dial(&host, port) {
        Ok(guest) => (0, Some(guest)),
        Err(Unreached::NoHost) => (4, None),
        Err(Unreached::Refused) => (5, None),
    };
    client.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    if let Some(mut guest) = guest {
        tokio::io::copy_bidirectional(&mut client, &mut guest).await?;
    }
    Ok(())
}

async fn http(mut client: TcpStream, dial: &Dial) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < 64 * 1024, "a request's head is too long");
        head.push(client.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut words = text.split_whitespace();
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let authority = target
        .strip_prefix("http://")
        .unwrap_or(target)
        .split('/')
        .next()
        .unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().context("the port is no number")?),
        None => (authority, 80),
    };
    let mut guest = match dial(host, port) {
        Ok(guest) => guest,
        Err(reason) => {
            let said = if reason == Unreached::NoHost {
                "no route to host"
            } else {
                "connection refused"
            };
            let body = format!("{host}:{port}: {said}\n");
            let answer = format!(
                "HTTP/1.1 502 Bad Gateway\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            client.write_all(answer.as_bytes()).await?;
            return Ok(());
        }
    };
    if method == "CONNECT" {
        client
            .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            .await?;
    } else {
        // Servers take the absolute form as it is (RFC 9112, 3.2.2).
        guest.write_all(&head).await?;
    }
    tokio::io::copy_bidirectional(&mut client, &mut guest).await?;
    Ok(())
}
