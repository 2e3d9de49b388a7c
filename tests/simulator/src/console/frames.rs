//! What clients of a console send: `0:LENGTH:BYTES` is typed, `1:COLS:ROWS:` resizes, `2` keeps alive. A stream of bytes, however it is cut.

use crate::guests::ConsoleInput;

/// Longest header of a frame; what is longer is none.
const LONGEST_HEADER: usize = 16;

/// Puts frames together.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    pending: Vec<u8>,
}

impl Frames {
    /// Takes bytes; the answer is what they complete. What is malformed is skipped.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Vec<ConsoleInput> {
        self.pending.extend_from_slice(bytes);
        let mut inputs = Vec::new();
        loop {
            match next(&self.pending) {
                Next::Frame(input, used) => {
                    inputs.extend(input);
                    self.pending.drain(..used);
                }
                Next::Incomplete => return inputs,
                Next::Malformed => {
                    self.pending.clear();
                    return inputs;
                }
            }
        }
    }
}

enum Next {
    Frame(Option<ConsoleInput>, usize),
    Incomplete,
    Malformed,
}

fn next(bytes: &[u8]) -> Next {
    match bytes {
        [] | [b'0' | b'1'] => Next::Incomplete,
        [b'2', ..] => Next::Frame(None, 1),
        [b'0', b':', rest @ ..] => match number(rest) {
            Some((length, used)) if rest.len() >= used + length => Next::Frame(
                Some(ConsoleInput::Data(rest[used..used + length].to_vec())),
                2 + used + length,
            ),
            Some(_) => Next::Incomplete,
            None => unfinished(rest),
        },
        [b'1', b':', rest @ ..] => {
            let Some((cols, first)) = number(rest) else {
                return unfinished(rest);
            };
            let Some((rows, second)) = number(&rest[first..]) else {
                return unfinished(&rest[first..]);
            };
            match (u16::try_from(cols), u16::try_from(rows)) {
                (Ok(cols), Ok(rows)) => Next::Frame(
                    Some(ConsoleInput::Resize { cols, rows }),
                    2 + first + second,
                ),
                _ => Next::Malformed,
            }
        }
        _ => Next::Malformed,
    }
}

/// Digits up to a colon, and how many bytes they took with it.
fn number(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = bytes.iter().position(|byte| *byte == b':')?;
    let number = std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()?;
    Some((number, end + 1))
}

fn unfinished(bytes: &[u8]) -> Next {
    if bytes.len() < LONGEST_HEADER && bytes.iter().all(u8::is_ascii_digit) {
        Next::Incomplete
    } else {
        Next::Malformed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let sent = b"0:5:ls -l1:80:24:20:3:\xc3\xa4\n";
        let expected = vec![
            ConsoleInput::Data(b"ls -l".to_vec()),
            ConsoleInput::Resize { cols: 80, rows: 24 },
            ConsoleInput::Data("ä\n".as_bytes().to_vec()),
        ];
        for cut in 0..sent.len() {
            let mut frames = Frames::default();
            let mut got = frames.take(&sent[..cut]);
            got.extend(frames.take(&sent[cut..]));
            assert_eq!(got, expected, "cut at {cut}");
        }
    }

    #[test]
    fn malformed_messages_are_ignored() {
        let mut frames = Frames::default();
        assert_eq!(frames.take(b"hello"), []);
        assert_eq!(frames.take(b"0:x:y"), []);
        assert_eq!(frames.take(b"0:1:a"), [ConsoleInput::Data(b"a".to_vec())]);
    }
}
