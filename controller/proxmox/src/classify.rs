//! What Proxmox means by an answer. It says 500 to most things, so the text decides; status alone only where the text is
//! empty or the status says enough. Every text here was recorded from a real Proxmox VE 9.2 or read in its code.

use crate::ErrorKind;
use std::collections::BTreeMap;

/// One way of recognising a text: all of these pieces occur in it.
struct Rule(&'static [&'static str], ErrorKind);

/// The first rule that fits holds: a lock is named before what it kept from happening.
const RULES: &[Rule] = &[
    Rule(&["CT is locked ("], ErrorKind::Locked),
    Rule(&["VM is locked ("], ErrorKind::Locked),
    Rule(
        &["Configuration file '", "' does not exist"],
        ErrorKind::NotFound,
    ),
    Rule(&["detected modified configuration"], ErrorKind::Modified),
    Rule(&["no quorum"], ErrorKind::NoQuorum),
    Rule(&["protection mode enabled"], ErrorKind::Protected),
    Rule(&["already exists on node"], ErrorKind::Exists),
    Rule(&["snapshot name '", "' already used"], ErrorKind::Exists),
    Rule(&["out of space"], ErrorKind::StorageFull),
    Rule(&["No space left on device"], ErrorKind::StorageFull),
    Rule(&["Disk quota exceeded"], ErrorKind::StorageFull),
    Rule(&["insufficient free space"], ErrorKind::StorageFull),
    Rule(&["rsync", "exit code 11"], ErrorKind::StorageFull),
    Rule(&["still in use by linked clones"], ErrorKind::InUse),
    Rule(&["is not most recent snapshot"], ErrorKind::InUse),
    Rule(&["has dependent clones"], ErrorKind::InUse),
    Rule(&["used in HA resources"], ErrorKind::InUse),
    Rule(&["There is a replication job"], ErrorKind::InUse),
    Rule(&["got timeout"], ErrorKind::Busy),
    Rule(&["got lock request timeout"], ErrorKind::Busy),
    Rule(&["locked command timed out"], ErrorKind::Busy),
    Rule(&["Failed to obtain guest migration lock"], ErrorKind::Busy),
    Rule(&["Timeout while waiting for port"], ErrorKind::Busy),
    Rule(&["dataset is busy"], ErrorKind::Busy),
    Rule(&["unexpected status"], ErrorKind::Unknown),
    Rule(
        &["unable to get last line from task log"],
        ErrorKind::Unknown,
    ),
    Rule(&["interrupted by signal"], ErrorKind::Unknown),
    Rule(&["Permission check failed"], ErrorKind::Forbidden),
    Rule(&["Only root can"], ErrorKind::Forbidden),
    Rule(&["only allowed for root@pam"], ErrorKind::Forbidden),
    Rule(&["already running"], ErrorKind::AlreadyRunning),
    Rule(&["CT is running"], ErrorKind::AlreadyRunning),
    Rule(&["container is running"], ErrorKind::AlreadyRunning),
    Rule(&["running container"], ErrorKind::AlreadyRunning),
    Rule(
        &["disk is already at specified size"],
        ErrorKind::AlreadyDone,
    ),
    Rule(
        &["you can't convert a template to a template"],
        ErrorKind::AlreadyDone,
    ),
    Rule(&["shrink disk size"], ErrorKind::Invalid),
    Rule(&["feature", "is not available"], ErrorKind::Invalid),
    Rule(&["not allowed for linked clones"], ErrorKind::Invalid),
    Rule(&["because CT contains snapshots"], ErrorKind::Invalid),
    Rule(&["you can't "], ErrorKind::Invalid),
    Rule(&["no options specified"], ErrorKind::Invalid),
    Rule(&["unable to delete required option"], ErrorKind::Invalid),
    Rule(&["read-only option"], ErrorKind::Invalid),
    Rule(&["reserved name"], ErrorKind::Invalid),
    Rule(&["unable to parse"], ErrorKind::Invalid),
    Rule(&["format error"], ErrorKind::Invalid),
    Rule(
        &["not available or configured on storage"],
        ErrorKind::Invalid,
    ),
    Rule(
        &["does not support container directories"],
        ErrorKind::Invalid,
    ),
    Rule(&["storage '", "' is disabled"], ErrorKind::Invalid),
    Rule(&["is not available on node"], ErrorKind::Invalid),
    Rule(&["content type needs to be"], ErrorKind::Invalid),
    Rule(&["unable to clone mountpoint"], ErrorKind::Invalid),
    Rule(&["bigger than bridge MTU"], ErrorKind::Invalid),
    Rule(&["is not a device"], ErrorKind::Invalid),
    Rule(&["does not exist"], ErrorKind::Invalid),
    Rule(&["no such cluster node"], ErrorKind::Invalid),
    Rule(&["hostname lookup '"], ErrorKind::Invalid),
    Rule(&["no such OS type"], ErrorKind::Invalid),
    Rule(&["unable to detect OS distribution"], ErrorKind::Invalid),
];

/// Puts an answer into its class.
pub(crate) fn classify(
    method: &str,
    status: u16,
    message: &str,
    errors: &BTreeMap<String, String>,
) -> ErrorKind {
    match status {
        401 => ErrorKind::Unauthorized,
        403 => ErrorKind::Forbidden,
        400 => by_parameters(errors),
        595 => ErrorKind::NodeOffline,
        // The proxy gave up waiting. A read says nothing then; a write may still be carried out.
        596..=599 if method == "GET" => ErrorKind::Busy,
        596..=599 => ErrorKind::Unknown,
        // 501 and 506 are said to paths and bodies that this client should not send: nobody's parameters are to blame.
        501..=594 => ErrorKind::Other,
        _ => by_text(message),
    }
}

/// A refused parameter, unless one of the texts tells of something that passes or that somebody else holds: hot-plugging is
/// reported as a refused parameter too.
fn by_parameters(errors: &BTreeMap<String, String>) -> ErrorKind {
    if errors
        .get("vmid")
        .is_some_and(|text| text.contains("already exists"))
    {
        return ErrorKind::Exists;
    }
    let told = errors.values().map(|text| by_text(text));
    told.into_iter()
        .find(|kind| !matches!(kind, ErrorKind::Other | ErrorKind::Invalid))
        .unwrap_or(ErrorKind::Invalid)
}

/// Puts the exit status of a failed task into its class.
pub fn classify_task_exit(exit: &str) -> ErrorKind {
    by_text(exit)
}

fn by_text(text: &str) -> ErrorKind {
    if let Some(Rule(_, kind)) = RULES
        .iter()
        .find(|Rule(pieces, _)| pieces.iter().all(|piece| text.contains(piece)))
    {
        return kind.clone();
    }
    let guest = ["CT ", "VM "].iter().any(|prefix| text.starts_with(prefix));
    if guest && text.ends_with(" not running") {
        ErrorKind::NotRunning
    } else {
        ErrorKind::Other
    }
}

/// The lock that a text names.
pub(crate) fn lock_name(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once(" is locked (")?;
    rest.split_once(')').map(|(name, _)| name)
}
