//! A terminal's output as lines of text: escape sequences, carriage returns and other control characters taken out, across any
//! cut of the byte stream into pieces.

/// Where the decoder stands inside an escape sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    /// After ESC.
    Start,
    /// After ESC and an intermediate byte, such as the `(` of a character set's choice.
    Intermediate,
    /// In a control sequence, until its final byte.
    Csi,
    /// In a string (window title and the like), until BEL or ESC `\`.
    Text,
    /// In a string, after an ESC.
    Terminator,
}

/// Takes bytes in, gives complete lines out.
#[derive(Debug)]
pub(super) struct Lines {
    escape: Escape,
    line: Vec<u8>,
    complete: std::collections::VecDeque<String>,
}

/// A line of the protocol is far shorter; what is longer is cut, so that a guest can't fill the operator's memory.
const LONGEST_LINE: usize = 64 * 1024;
const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;

impl Lines {
    pub(super) fn new() -> Self {
        Self {
            escape: Escape::None,
            line: Vec::new(),
            complete: std::collections::VecDeque::new(),
        }
    }

    /// Takes the next piece of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.escape = match self.escape {
                Escape::None if byte == ESC => Escape::Start,
                Escape::None => {
                    self.plain(byte);
                    Escape::None
                }
                Escape::Start => match byte {
                    b'[' => Escape::Csi,
                    b']' | b'P' | b'X' | b'^' | b'_' => Escape::Text,
                    0x20..=0x2f => Escape::Intermediate,
                    ESC => Escape::Start,
                    _ => Escape::None,
                },
                Escape::Intermediate if (0x20..=0x2f).contains(&byte) => Escape::Intermediate,
                Escape::Csi if (0x20..=0x3f).contains(&byte) => Escape::Csi,
                Escape::Intermediate | Escape::Csi => self.after_sequence(byte),
                Escape::Text => match byte {
                    BEL => Escape::None,
                    ESC => Escape::Terminator,
                    _ => Escape::Text,
                },
                Escape::Terminator => match byte {
                    ESC => Escape::Terminator,
                    b'\\' => Escape::None,
                    _ => Escape::Text,
                },
            };
        }
    }

    /// A sequence ends with its final byte, or is broken off by a control character, which then counts.
    fn after_sequence(&mut self, byte: u8) -> Escape {
        match byte {
            ESC => return Escape::Start,
            0x00..=0x1f => self.plain(byte),
            _ => {}
        }
        Escape::None
    }

    fn plain(&mut self, byte: u8) {
        match byte {
            b'\n' => {
                let line = std::mem::take(&mut self.line);
                self.complete
                    .push_back(String::from_utf8_lossy(&line).into_owned());
            }
            b'\t' => self.line.push(b' '),
            0x00..=0x1f | 0x7f => {}
            _ if self.line.len() >= LONGEST_LINE => {}
            _ => self.line.push(byte),
        }
    }

    /// The next complete line.
    pub(super) fn next_line(&mut self) -> Option<String> {
        self.complete.pop_front()
    }

    /// What stands after the last complete line.
    pub(super) fn rest(&self) -> String {
        String::from_utf8_lossy(&self.line).into_owned()
    }
}

/// A whole text without escape sequences and control characters but for its newlines; a line that was rewritten over
/// carriage returns (a progress bar) keeps what stood there last.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let last = line
            .rsplit(|byte| *byte == b'\r')
            .find(|part| !part.is_empty())
            .unwrap_or_default();
        let mut lines = Lines::new();
        lines.push(last);
        out.push_str(&lines.rest());
    }
    out
}

/// The last whole lines of a text that fit into `limit` bytes; of a single longer line its end.
pub(super) fn tail(text: &str, limit: usize) -> &str {
    let text = text.trim_end();
    if text.len() <= limit {
        return text;
    }
    let mut start = text.len() - limit;
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let cut = &text[start..];
    match cut.split_once('\n') {
        Some((_, whole)) if !whole.is_empty() && !text[..start].ends_with('\n') => whole,
        _ => cut,
    }
}
