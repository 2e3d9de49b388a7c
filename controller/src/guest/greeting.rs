//! Whose session is this? The answer stands before anything is typed.
//!
//! One console session per container is shared by everybody who opens its console, and outlives them. Typing into somebody's
//! half-written line would run it. So only two kinds of session are ours to use: one that has just begun, and one that answers a
//! change of the window's size with the mark of our own loop. The bytes that tell them apart were recorded from Proxmox VE 9:
//! - a new one: the shell's banner, if it has one, and its first prompt;
//! - a joined one: the screen is cleared, then an idle shell with a line editor redraws its line from a carriage return on;
//!   a running program, and a shell without a line editor, are silent.

use super::stream::Lines;

/// What our loop prints when the window's size changes.
pub(super) const MARK: &str = "phoenix-loop-1";
/// What our loop prints when it begins.
pub(super) const READY: &str = "phoenix-ready";

/// The verdict on what a session has shown so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing but a cleared screen.
    Silent,
    /// Something, but not yet enough to tell.
    Unclear,
    /// A session that has just begun and waits at its first prompt.
    Fresh,
    /// Our own loop, idle.
    OurLoop,
    /// Somebody's: what it looks like.
    Foreign(&'static str),
    /// The container is not running, or its shell could not be started: what was said.
    NoShell(String),
}

/// An idle shell that was there before us.
pub(super) const AT_PROMPT: &str = "a shell waits at its prompt, perhaps with half a command typed";

const CLEAR: [&[u8]; 2] = [b"\x1b[H", b"\x1b[J"];

/// Judges all that a session has shown since the connection was made.
pub(super) fn judge(seen: &[u8]) -> Verdict {
    let mut rest = seen;
    while let Some(after) = CLEAR.iter().find_map(|clear| rest.strip_prefix(*clear)) {
        rest = after;
    }
    if rest.is_empty() || CLEAR.iter().any(|clear| clear.starts_with(rest)) {
        return Verdict::Silent;
    }

    let mut stream = Lines::new();
    stream.push(rest);
    let lines: Vec<String> = std::iter::from_fn(|| stream.next_line()).collect();
    let last = stream.rest();
    if lines.iter().any(|line| line == MARK || line == READY) {
        return Verdict::OurLoop;
    }
    if lines
        .iter()
        .any(|line| line.contains("dtach terminating") || line.contains("is not running"))
    {
        return Verdict::NoShell(last_words(seen));
    }
    match rest {
        // Cut in the middle of what could be either a redrawn line or a banner.
        b"\r" | b"\r\r" => return Verdict::Unclear,
        [b'\r', next, ..] if !matches!(next, b'\r' | b'\n') => {
            return Verdict::Foreign(AT_PROMPT);
        }
        _ => {}
    }
    if last.trim_end().ends_with("login:") || last.trim_end().ends_with("assword:") {
        return Verdict::Foreign(
            "it shows a login prompt (the container's cmode is not `shell`, or an older session lives on)",
        );
    }
    if !is_prompt(&last) {
        return Verdict::Unclear;
    }
    let mut before = lines
        .iter()
        .map(|line| line.trim())
        .filter(|line| !line.is_empty());
    match before.next() {
        None if lines.is_empty() => Verdict::Fresh,
        Some(first) if first.starts_with("BusyBox v") => Verdict::Fresh,
        _ => Verdict::Foreign("a shell in use has just printed something"),
    }
}

/// Why a session that stayed `Silent` or `Unclear` is taken for somebody's.
pub(super) fn give_up(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Silent => {
            "it shows nothing: a program is running in it, or a shell without a line editor was left open"
        }
        _ => "a program is printing in it",
    }
}

/// What a session said that has ended before there was a shell.
pub(super) fn last_words(seen: &[u8]) -> String {
    let mut stream = Lines::new();
    stream.push(seen);
    stream.push(b"\n");
    std::iter::from_fn(|| stream.next_line())
        .find(|line| !line.trim().is_empty())
        .unwrap_or_else(|| "the session ended at once".to_owned())
}

/// Ends as a root shell's prompt does, whatever stands before.
fn is_prompt(line: &str) -> bool {
    let end = line.strip_suffix(' ').unwrap_or(line);
    line.len() <= 256 && end.ends_with(['#', '$', '%', '>'])
}
