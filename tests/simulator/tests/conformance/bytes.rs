//! Exchanges that were recorded as bytes: what a host does with keep-alive, odd methods, encodings, sizes, silence.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    compare,
    marks::levelled,
    recording::Exchange,
    wire::{Answer, Wire},
};

/// A host hangs up on silence after 5 s; the recording's own machine was slow.
const SILENCE: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(8));
const VERSION: &str = "GET /api2/json/version HTTP/1.1\r\nHost: x\r\n";

/// Repeats an exchange and says what differs.
pub(crate) async fn difference(wire: &Wire, token: &str, exchange: &Exchange) -> Option<String> {
    let head = format!("{VERSION}Authorization: PVEAPIToken={token}\r\n");
    if let Some(request) = &exchange.request {
        let request = whole(&request.replace("<token>", token), &exchange.title, &head);
        return single(wire, &request, exchange).await;
    }
    if exchange.response.is_some() {
        return plain(wire, exchange).await;
    }
    if let Some(then) = &exchange.responses {
        return pipelined(wire, &head, then).await;
    }
    if exchange.last_head.is_some() {
        return kept(wire, &head, exchange).await;
    }
    silent(wire, &head, exchange).await
}

/// Recordings cut long requests after some hundred bytes; what follows is told by the title.
fn whole(request: &str, title: &str, head: &str) -> String {
    let kib = title
        .split(" KiB")
        .next()
        .and_then(|text| text.rsplit(' ').next()?.parse::<usize>().ok());
    let (end, body) = request
        .split_once("\r\n\r\n")
        .map_or((None, ""), |(end, body)| (Some(end), body));
    if let Some(end) = end {
        let length: usize = end
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0);
        let filler = body.chars().last().filter(|_| body.len() > 100);
        let missing = filler.map_or(0, |_| length.saturating_sub(body.len()));
        let filled: String = filler.into_iter().cycle().take(missing).collect();
        return format!("{request}{filled}");
    }
    if let Some(kib) = kib {
        let filler: String = request
            .chars()
            .last()
            .into_iter()
            .cycle()
            .take(kib << 10)
            .collect();
        // A request line goes on with the head that all have; a header line ends it.
        let rest = if request.contains("\r\n") {
            "\r\n\r\n".to_owned()
        } else {
            format!(
                " HTTP/1.1\r\n{}\r\n",
                head.split_once("\r\n").map_or("", |(_, rest)| rest)
            )
        };
        return format!("{request}{filler}{rest}");
    }
    let lines: usize = title
        .split(' ')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let more = "X-A: a\r\n".repeat(lines);
    format!("{head}{more}\r\n")
}

async fn single(wire: &Wire, request: &str, exchange: &Exchange) -> Option<String> {
    let mut connection = wire.open().await;
    // The other side may hang up in the middle of what it refuses.
    let _ = connection.send(request.as_bytes()).await;
    let now = connection.answer().await;
    let then = exchange.response.as_deref().unwrap_or_default();
    alike(then, now.as_ref())
}

/// Compares an answer to the recorded text of one.
fn alike(then: &str, now: Option<&Answer>) -> Option<String> {
    if then.is_empty() {
        return now.map(|answer| {
            format!(
                "{} {}, recorded: hung up without an answer",
                answer.status, answer.reason
            )
        });
    }
    let Some(now) = now else {
        return Some(format!(
            "hung up without an answer, recorded {:?}",
            then.lines().next()
        ));
    };
    let mut lines = then.split("\r\n");
    let line = format!("{} {} {}", now.version, now.status, now.reason);
    let first = lines.next().unwrap_or_default();
    if first != line {
        return Some(format!("{line:?}, recorded {first:?}"));
    }
    let recorded: Vec<(&str, &str)> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": "))
        .collect();
    for name in [
        "Cache-Control",
        "Connection",
        "Pragma",
        "Server",
        "Content-Type",
        "Content-Encoding",
        "Location",
    ] {
        let then = recorded
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value);
        if then != now.header(name) {
            return Some(format!(
                "{name} is {:?}, recorded {then:?}",
                now.header(name)
            ));
        }
    }
    for name in ["Date", "Expires"] {
        let then = recorded.iter().any(|(known, _)| *known == name);
        if then != now.header(name).is_some() {
            return Some(format!(
                "{name} is {:?}, recorded: {then}",
                now.header(name)
            ));
        }
    }
    if now.header("content-encoding").is_some() {
        return None;
    }
    let (old, _) = Answer::parse(then.as_bytes())?;
    if old.body.is_null() {
        let (then, now) = (levelled(old.text.trim_end()), levelled(now.text.trim_end()));
        return (then != now).then(|| format!("{now:?}, recorded {then:?}"));
    }
    compare::first(
        &compare::level(&old.body, true),
        &compare::level(&now.body, true),
        "",
    )
}

async fn plain(wire: &Wire, exchange: &Exchange) -> Option<String> {
    let mut stream = wire.plain().await;
    let sent = stream.write_all(format!("{VERSION}\r\n").as_bytes()).await;
    sent.unwrap();
    let mut bytes = Vec::new();
    let mut some = vec![0_u8; 4096];
    let now = loop {
        if let Some((answer, _)) = Answer::parse(&bytes) {
            break Some(answer);
        }
        match timeout(SILENCE.1, stream.read(&mut some)).await {
            Ok(Ok(count)) if count > 0 => bytes.extend_from_slice(&some[..count]),
            _ => break None,
        }
    };
    alike(
        exchange.response.as_deref().unwrap_or_default(),
        now.as_ref(),
    )
}

async fn pipelined(wire: &Wire, head: &str, then: &[String]) -> Option<String> {
    let mut connection = wire.open().await;
    let all = format!("{head}\r\n").repeat(then.len());
    connection.send(all.as_bytes()).await.unwrap();
    for (number, then) in then.iter().enumerate() {
        let first = then.lines().next().unwrap_or_default();
        let now = connection.answer().await;
        let now = now.map(|now| format!("{} {} {}", now.version, now.status, now.reason));
        if now.as_deref() != Some(first) {
            return Some(format!("answer {number} is {now:?}, recorded {first:?}"));
        }
    }
    None
}

async fn kept(wire: &Wire, head: &str, exchange: &Exchange) -> Option<String> {
    let mut connection = wire.open().await;
    let then = exchange.count.unwrap_or_default();
    let mut count = 0;
    let mut last = None;
    while connection
        .send(format!("{head}\r\n").as_bytes())
        .await
        .is_ok()
    {
        let Some(answer) = connection.answer().await else {
            break;
        };
        count += 1;
        let close = answer.header("connection") == Some("close");
        last = Some(answer);
        if close || count > then {
            break;
        }
    }
    if count != then {
        return Some(format!("{count} requests were served, recorded {then}"));
    }
    let head = exchange.last_head.as_deref().unwrap_or_default();
    let mut last = last?;
    last.body = serde_json::Value::Null;
    let shown = alike(&format!("{head}\r\n\r\n"), Some(&last));
    shown.filter(|text| !text.contains("recorded \"\""))
}

async fn silent(wire: &Wire, head: &str, exchange: &Exchange) -> Option<String> {
    let mut connection = wire.open().await;
    let sent = if exchange.title.contains("half a header") {
        head[..head.len() / 2].to_owned()
    } else if exchange.title.contains("half a body") {
        let head = head.replacen(
            "GET /api2/json/version",
            "PUT /api2/json/nodes/pve1/lxc/999/config",
            1,
        );
        format!(
            "{head}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\ncores=2"
        )
    } else {
        format!("{head}\r\n")
    };
    connection.send(sent.as_bytes()).await.unwrap();
    if exchange.title.starts_with("idle") && connection.answer().await.is_none() {
        return Some("the request before the silence isn't answered".to_owned());
    }
    let began = Instant::now();
    let answer = connection.answer().await;
    if let Some(answer) = answer {
        return Some(format!(
            "{} {}, recorded: hung up",
            answer.status, answer.reason
        ));
    }
    let took = began.elapsed();
    (took < SILENCE.0 || took > SILENCE.1)
        .then(|| format!("hung up after {took:?}, recorded about 5 s"))
}
