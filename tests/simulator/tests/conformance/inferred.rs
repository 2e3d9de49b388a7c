//! What answers give away of the moment they were given in: tasks that were under way, and what the recording's author had done by hand.

use super::recording::Exchange;

/// A call's task that others met half-way has at most so many exchanges behind it that tell of it.
const SIGHT: usize = 40;

/// The locks that a container carries while such a task works on it.
fn locks(kind: &str) -> &'static [&'static str] {
    match kind {
        "vzclone" => &["disk", "create"],
        "vzcreate" | "vzrestore" => &["create"],
        "vzsnapshot" => &["snapshot"],
        "vzdelsnapshot" => &["snapshot-delete"],
        "vzrollback" => &["rollback"],
        "vzdestroy" => &["destroyed"],
        _ => &[],
    }
}

/// The kind of the task that the first exchange begins, where those behind it met it under way.
pub(crate) fn under_way(exchanges: &[Exchange]) -> Option<String> {
    let (call, behind) = exchanges.split_first()?;
    if call.status() != 200 || call.method() == "GET" {
        return None;
    }
    let behind = &behind[..behind.len().min(SIGHT)];
    if call.below() == "/template" {
        let config = |exchange: &&Exchange| {
            exchange.below() == "/config"
                && exchange.vmid() == call.vmid()
                && exchange.status() == 200
        };
        let first = behind.iter().find(config)?;
        return first
            .data()
            .get("template")
            .is_none()
            .then(|| "vztemplate".to_owned());
    }
    let upid = call.data().as_str()?;
    let kind = upid.split(':').nth(5)?;
    let involved = [call.vmid(), call.makes()];
    let over =
        |exchange: &&Exchange| exchange.saw_the_end() && exchange.task().as_deref() == Some(upid);
    let until = behind
        .iter()
        .position(|exchange| over(&exchange))
        .unwrap_or(behind.len());
    let met = behind[..until]
        .iter()
        .enumerate()
        .any(|(number, exchange)| {
            let concerned = exchange.vmid().is_some() && involved.contains(&exchange.vmid());
            let row = exchange.row.as_ref();
            let seen = locks(kind).iter().any(|lock| {
                let refused = format!("is locked ({lock})");
                let end = end_of(exchange, &behind[number..]).unwrap_or_default();
                let shown = exchange
                    .data()
                    .get("lock")
                    .is_some_and(|known| known == lock);
                let listed = row.is_some_and(|row| row["lock"] == *lock);
                listed
                    || (concerned
                        && (shown
                            || exchange.reason().contains(&refused)
                            || end.contains(&refused)))
            });
            // A second removal that is accepted finds the first one at work.
            let twice = kind == "vzdestroy"
                && concerned
                && exchange.method() == "DELETE"
                && exchange.below().is_empty()
                && exchange.status() == 200;
            seen || twice
        });
    met.then(|| kind.to_owned())
}

/// How the task of a call ended, where that was recorded.
pub(crate) fn end_of<'a>(exchange: &Exchange, behind: &'a [Exchange]) -> Option<&'a str> {
    let upid = exchange.data().as_str()?;
    let mut polls = behind
        .iter()
        .filter(|poll| poll.task().as_deref() == Some(upid));
    polls.find_map(|poll| poll.data()["exitstatus"].as_str())
}

/// Something that somebody had done on the host before a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hand {
    /// Its lock file was held.
    Flock(u32),
    /// A process sat in that volume.
    Busy(String),
    /// The snapshot of that name was gone from the container's volumes.
    SnapshotLost(u32, String),
    /// Its init didn't react.
    Unresponsive(u32),
    /// That lock stood in its configuration.
    Lock(u32, String),
}

/// What the answer to the first exchange, or the end of its task, says of that.
pub(crate) fn by_hand(exchanges: &[Exchange]) -> Option<Hand> {
    let (call, behind) = exchanges.split_first()?;
    if call.method() == "GET" {
        return None;
    }
    let vmid = call.vmid()?;
    let text = end_of(call, behind).unwrap_or(call.reason());
    let quoted = |text: &str| text.split('\'').nth(1).map(str::to_owned);
    if text.contains("can't lock file") && text.contains("got timeout") {
        return Some(Hand::Flock(vmid));
    }
    if text.contains("dataset is busy") {
        let volume = quoted(text)?.rsplit('/').next()?.to_owned();
        return Some(Hand::Busy(volume));
    }
    if text.contains("could not find any snapshots to destroy") {
        let name = call.below().split('/').nth(2)?.to_owned();
        return Some(Hand::SnapshotLost(vmid, name));
    }
    let forced = call.field("forceStop").is_some()
        && log_of(call, behind).is_some_and(|log| log.contains("got timeout"));
    if text == "container did not stop" || forced {
        return Some(Hand::Unresponsive(vmid));
    }
    let lock = text.split("CT is locked (").nth(1)?.split(')').next()?;
    Some(Hand::Lock(vmid, lock.to_owned()))
}

/// The log of a call's task, where that was recorded.
fn log_of(call: &Exchange, behind: &[Exchange]) -> Option<String> {
    let upid = call.data().as_str()?;
    let mut logs = behind.iter().filter(|poll| {
        poll.path().ends_with("/log") && super::marks::upid(poll.path()).as_deref() == Some(upid)
    });
    logs.next().map(|log| log.data().to_string())
}
