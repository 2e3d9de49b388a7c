//! The connection beneath SSH: directly, or through the proxy that probes take, too.
//!
//! A handshake of its own, since an SSH server speaks first: what an HTTP library reads beyond a proxy's answer is lost to us.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// No proxy's answer to CONNECT is longer.
const LONGEST_HEAD: usize = 16 * 1024;

/// Connects, or says in words what was in the way.
pub(super) async fn dial(address: SocketAddr, proxy: Option<&str>) -> Result<TcpStream, String> {
    let stream = match proxy {
        None => TcpStream::connect(address)
            .await
            .map_err(|error| error.to_string())?,
        Some(proxy) => through(proxy, address)
            .await
            .map_err(|error| format!("through the guest proxy {proxy}: {error}"))?,
    };
    // lines are short, and each is answered
    stream
        .set_nodelay(true)
        .map_err(|error| error.to_string())?;
    Ok(stream)
}

async fn through(proxy: &str, address: SocketAddr) -> Result<TcpStream, String> {
    let (scheme, place) = proxy.split_once("://").ok_or("it is no address")?;
    let port = match scheme {
        "socks5" | "socks5h" => 1080,
        "http" => 80,
        other => {
            return Err(format!(
                "SSH goes through socks5 and http proxies, not through {other}"
            ));
        }
    };
    let place = place.trim_end_matches('/');
    let has_port = place
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let place = if has_port {
        place.to_owned()
    } else {
        format!("{place}:{port}")
    };
    let mut stream = TcpStream::connect(&place)
        .await
        .map_err(|error| format!("the proxy itself can't be reached: {error}"))?;
    let led = if scheme == "http" {
        connect(&mut stream, address).await
    } else {
        socks5(&mut stream, address).await
    };
    match led {
        Ok(Ok(())) => Ok(stream),
        Ok(Err(refusal)) => Err(refusal),
        Err(error) => Err(error.to_string()),
    }
}

/// RFC 1928, without authentication. The inner error is the proxy's refusal.
async fn socks5(stream: &mut TcpStream, address: SocketAddr) -> io::Result<Result<(), String>> {
    stream.write_all(&[5, 1, 0]).await?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await?;
    if chosen != [5, 0] {
        return Ok(Err(
            "it speaks no SOCKS5, or not without a password".to_owned()
        ));
    }
    let mut request = vec![5, 1, 0];
    match address.ip() {
        IpAddr::V4(ip) => {
            request.push(1);
            request.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            request.push(4);
            request.extend(ip.octets());
        }
    }
    request.extend(address.port().to_be_bytes());
    stream.write_all(&request).await?;
    let mut reply = [0; 4];
    stream.read_exact(&mut reply).await?;
    let bound = match reply[3] {
        1 => 4,
        4 => 16,
        _ => stream.read_u8().await?.into(),
    };
    stream.read_exact(&mut vec![0; bound + 2]).await?;
    let refusal = match reply[1] {
        0 => return Ok(Ok(())),
        2 => "its rules forbid it",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "no answer in time",
        8 => "it knows no such addresses",
        _ => "it failed",
    };
    Ok(Err(refusal.to_owned()))
}

/// HTTP's CONNECT. The inner error is the proxy's refusal.
async fn connect(stream: &mut TcpStream, address: SocketAddr) -> io::Result<Result<(), String>> {
    let request = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < LONGEST_HEAD {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let answer = head.lines().next().unwrap_or_default();
    let code = answer.split(' ').nth(1).unwrap_or_default();
    if answer.starts_with("HTTP/1.") && code.starts_with('2') {
        return Ok(Ok(()));
    }
    Ok(Err(format!("it answers {answer:?}")))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A proxy that has all its answers ready, and the server's first words with the last of them.
    async fn proxy(scheme: &str, answers: &'static [&'static [u8]]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("{scheme}://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            for answer in answers {
                assert_ne!(stream.read(&mut asked).await.unwrap(), 0);
                stream.write_all(answer).await.unwrap();
            }
            std::future::pending::<()>().await;
        });
        address
    }

    #[tokio::test]
    async fn nothing_is_lost_that_a_server_says_first() {
        let rows: [(&str, &'static [&'static [u8]]); 3] = [
            (
                "socks5",
                &[
                    b"\x05\x00",
                    b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00SSH-2.0-x",
                ],
            ),
            (
                "socks5h",
                &[b"\x05\x00", b"\x05\x00\x00\x03\x03a.b\x00\x16SSH-2.0-x"],
            ),
            ("http", &[b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\nSSH-2.0-x"]),
        ];
        for (scheme, answers) in rows {
            let proxy = proxy(scheme, answers).await;
            let address = "[fd00::150]:22".parse().unwrap();
            let mut stream = dial(address, Some(&proxy)).await.unwrap();
            let mut said = [0; 9];
            stream.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"SSH-2.0-x", "{scheme}");
        }
    }

    #[tokio::test]
    async fn what_a_proxy_refuses_is_told() {
        let rows: [(&str, &'static [&'static [u8]], &str); 4] = [
            ("socks5", &[b"\x05\xff"], "password"),
            (
                "socks5",
                &[b"\x05\x00", b"\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00"],
                "host unreachable",
            ),
            (
                "http",
                &[b"HTTP/1.1 403 Forbidden\r\n\r\n"],
                "403 Forbidden",
            ),
            ("ftp", &[], "not through ftp"),
        ];
        for (scheme, answers, told) in rows {
            let proxy = proxy(scheme, answers).await;
            let error = dial("10.0.0.150:22".parse().unwrap(), Some(&proxy))
                .await
                .unwrap_err();
            assert!(error.contains(told) && error.contains(&proxy), "{error}");
        }
    }
}
