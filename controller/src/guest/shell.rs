//! A shell session of our own over a shared terminal: scripts in, exit status and output out, each carried out exactly once.
//!
//! How: the fresh session's shell is replaced by a loop that reads lines without echo and evaluates those that are complete. A line
//! carries its length, so that a half line, or what a human types, does nothing; the connection's nonce, so that lines of an
//! earlier connection to the same loop are void; and a number, so that a repeated line is acknowledged and not repeated. Lines stay
//! far below the 4095 bytes beyond which a terminal loses them, and only a few are under way at a time. A script
//! arrives in pieces, is checked against its digest, and runs in a subshell; its output comes back as base64 between
//! two lines that carry the nonce and its length. Works in bash, dash and busybox ash.
//!
//! Not here: what the scripts do, and what their output means.

use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::error::GuestError;
use super::greeting::{AT_PROMPT, MARK, READY, Verdict, give_up, judge, last_words};
use super::stream::Lines;
use super::terminal::{Terminal, TerminalError};
use super::wire::{
    DISCARD_LINE, HELLO, IF_FRESH, Output, TAKE_OVER, decode, frame, pieces, protocol, question,
};

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// For a session to show whose it is.
    pub(super) patience: Duration,
    /// How long a prompt must stand still before it counts.
    pub(super) settle: Duration,
    /// For an acknowledgement, before the line is sent again.
    pub(super) resend: Duration,
    /// For an answer that needs no work in the guest.
    pub(super) answer: Duration,
}

impl Timing {
    /// For hosts as they are, slow ones included.
    pub(super) const PRODUCTION: Self = Self {
        patience: Duration::from_secs(10),
        settle: Duration::from_millis(100),
        resend: Duration::from_secs(4),
        answer: Duration::from_secs(20),
    };
}

/// How many lines may be unacknowledged: together less than a terminal's input buffer.
const WINDOW: usize = 3;
const STARTING: &str = "starting the operator's loop";
/// How many files a script can take along.
pub(super) const SLOTS: usize = 5;
/// Who else may be at the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Company {
    /// Anybody: only what is surely ours is used.
    Unknown,
    /// Nobody, as the caller has seen: an idle shell was left behind.
    Nobody,
}

/// A session that is ours.
pub(super) struct Shell<T> {
    terminal: T,
    lines: Lines,
    timing: Timing,
    nonce: String,
    sequence: u32,
}

impl<T: Terminal> Shell<T> {
    fn over(terminal: T, timing: Timing) -> Self {
        Self {
            terminal,
            lines: Lines::new(),
            timing,
            nonce: hex::encode(rand::random::<[u8; 6]>()),
            sequence: 0,
        }
    }

    /// Finds out whose session the terminal shows and makes it ours, or touches nothing.
    pub(super) async fn open(
        terminal: T,
        company: Company,
        timing: Timing,
    ) -> Result<Self, GuestError> {
        let mut shell = Self::enter(terminal, company, timing).await?;
        shell
            .send(DISCARD_LINE, "looking whose session it is")
            .await?;
        shell.hello().await?;
        Ok(shell)
    }

    /// The same, but the loop is left to whoever works in it, or comes to.
    pub(super) async fn enter(
        mut terminal: T,
        company: Company,
        timing: Timing,
    ) -> Result<Self, GuestError> {
        let verdict = greet(&mut terminal, timing).await?;
        let mut shell = Self::over(terminal, timing);
        match verdict {
            Verdict::Fresh => shell.take_over(&format!("{IF_FRESH}{TAKE_OVER}")).await?,
            Verdict::OurLoop => {}
            // A line editor discards what was typed by the same key as a terminal.
            Verdict::Foreign(AT_PROMPT) if company == Company::Nobody => {
                shell.take_over(&format!("\x15{TAKE_OVER}")).await?;
            }
            Verdict::Foreign(what) => {
                return Err(GuestError::ConsoleBusy {
                    what: what.to_owned(),
                });
            }
            Verdict::NoShell(cause) => return Err(GuestError::Unreached { cause }),
            Verdict::Silent | Verdict::Unclear => {
                let what = give_up(&verdict).to_owned();
                return Err(GuestError::ConsoleBusy { what });
            }
        }
        Ok(shell)
    }

    /// A session that is ours alone, and in which our loop is starting already.
    pub(super) async fn alone(terminal: T, timing: Timing) -> Result<Self, GuestError> {
        let mut shell = Self::over(terminal, timing);
        if !shell.ready().await? {
            return Err(GuestError::timeout(STARTING, timing.answer));
        }
        shell.hello().await?;
        Ok(shell)
    }

    async fn take_over(&mut self, line: &str) -> Result<(), GuestError> {
        self.send(line.as_bytes(), STARTING).await?;
        if self.ready().await? {
            return Ok(());
        }
        Err(GuestError::ConsoleBusy {
            what: "its shell did not let itself be replaced; it is older than this connection, or not a POSIX shell"
                .to_owned(),
        })
    }

    /// The loop says that it runs, or doesn't in time.
    async fn ready(&mut self) -> Result<bool, GuestError> {
        let deadline = Instant::now() + self.timing.answer;
        loop {
            match self.line(deadline, STARTING).await? {
                Some(line) if line == READY => return Ok(true),
                Some(_) => {}
                None => return Ok(false),
            }
        }
    }

    /// Introduces this connection to the loop. All of it may be repeated.
    async fn hello(&mut self) -> Result<(), GuestError> {
        const DURING: &str = "talking to the operator's loop";
        let greeting = format!("N={nonce};S=0;echo \"H-$N\"", nonce = self.nonce);
        let answer = format!("H-{}", self.nonce);
        for _ in 0..3 {
            let mut text = String::new();
            for body in HELLO.into_iter().chain([greeting.as_str()]) {
                text.push_str(&frame(body));
            }
            self.send(text.as_bytes(), DURING).await?;
            let deadline = Instant::now() + self.timing.resend;
            while let Some(line) = self.line(deadline, DURING).await? {
                if line == answer {
                    return Ok(());
                }
            }
            self.send(DISCARD_LINE, DURING).await?;
        }
        Err(GuestError::Timeout {
            during: DURING,
            after: self.timing.resend * 3,
        })
    }

    /// Runs a script with its files in the variables `f1` … (as base64) and returns what it printed and its status. Nothing of it
    /// runs before all has arrived unharmed.
    pub(super) async fn run(
        &mut self,
        script: &str,
        files: &[&[u8]],
        during: &'static str,
        limit: Duration,
    ) -> Result<Output, GuestError> {
        debug_assert!(files.len() <= SLOTS, "more files than slots");
        let code = BASE64.encode(script);
        let mut bodies = pieces("c", &code);
        for (index, file) in files.iter().enumerate() {
            bodies.extend(pieces(&format!("f{}", index + 1), &BASE64.encode(file)));
        }
        self.deliver(&bodies, during).await?;

        self.sequence += 1;
        let sequence = self.sequence;
        let digest = hex::encode(Sha256::digest(code.as_bytes()));
        let line = frame(&format!(
            "g {} {sequence}&&r {sequence} {digest}",
            self.nonce
        ));
        self.start(&line, sequence, during).await?;
        self.collect(sequence, during, limit).await
    }

    /// Sends lines in order, a few ahead of their acknowledgements.
    async fn deliver(&mut self, bodies: &[String], during: &'static str) -> Result<(), GuestError> {
        let first = self.sequence + 1;
        let lines: Vec<String> = (first..)
            .zip(bodies)
            .map(|(number, body)| {
                frame(&format!(
                    "g {n} {number}&&{{ {body};echo \"K{number}-$N\";}}",
                    n = self.nonce
                ))
            })
            .collect();
        let (mut sent, mut acknowledged, mut silent) = (0, 0, 0);
        while acknowledged < lines.len() {
            if sent < lines.len() && sent - acknowledged < WINDOW {
                self.send(lines[sent].as_bytes(), during).await?;
                sent += 1;
                continue;
            }
            let Some(line) = self
                .line(Instant::now() + self.timing.resend, during)
                .await?
            else {
                silent += 1;
                self.resend(&lines[acknowledged], silent, during).await?;
                sent = acknowledged + 1;
                continue;
            };
            let Some(number) = self.numbered('K', &line) else {
                continue;
            };
            let upto = number.saturating_sub(first - 1) as usize;
            if upto > acknowledged && upto <= lines.len() {
                (acknowledged, silent) = (upto, 0);
                self.sequence = number;
            }
        }
        Ok(())
    }

    /// Sends the line that starts a script until the loop says that it began.
    async fn start(
        &mut self,
        line: &str,
        sequence: u32,
        during: &'static str,
    ) -> Result<(), GuestError> {
        self.send(line.as_bytes(), during).await?;
        let mut silent = 0;
        loop {
            match self
                .line(Instant::now() + self.timing.resend, during)
                .await?
            {
                Some(answer) if self.numbered('B', &answer) == Some(sequence) => return Ok(()),
                Some(answer) if self.numbered('K', &answer) == Some(sequence) => {
                    return Err(protocol(
                        during,
                        "the script ran, but its output did not arrive",
                    ));
                }
                Some(_) => {}
                None => {
                    silent += 1;
                    self.resend(line, silent, during).await?;
                }
            }
        }
    }

    async fn resend(
        &mut self,
        line: &str,
        silent: u32,
        during: &'static str,
    ) -> Result<(), GuestError> {
        if silent > 4 {
            return Err(GuestError::Timeout {
                during,
                after: self.timing.resend * silent,
            });
        }
        self.send(DISCARD_LINE, during).await?;
        self.send(line.as_bytes(), during).await
    }

    /// Reads a script's output up to the line that ends it.
    async fn collect(
        &mut self,
        sequence: u32,
        during: &'static str,
        limit: Duration,
    ) -> Result<Output, GuestError> {
        let limit = limit + self.timing.answer;
        let deadline = Instant::now() + limit;
        let mut encoded = String::new();
        loop {
            let Some(line) = self.line(deadline, during).await? else {
                return Err(GuestError::Timeout {
                    during,
                    after: limit,
                });
            };
            if let Some((head, length)) = line.split_once(' ')
                && self.numbered('E', head) == Some(sequence)
            {
                let length: usize = length
                    .trim()
                    .parse()
                    .map_err(|_| protocol(during, "no length at the end"))?;
                return decode(encoded.trim_end_matches('\n'), length, during);
            }
            if line != MARK
                && line
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
            {
                let _ = writeln!(encoded, "{line}");
            }
        }
    }

    /// The number in an answer of that kind to this connection.
    fn numbered(&self, kind: char, line: &str) -> Option<u32> {
        let (number, nonce) = line.strip_prefix(kind)?.split_once('-')?;
        (nonce == self.nonce).then(|| number.parse().ok())?
    }

    /// Has the loop evaluate a command that changes nothing, whoever it works for meanwhile, and returns what that printed. It may be
    /// evaluated more than once.
    pub(super) async fn ask(
        &mut self,
        command: &str,
        during: &'static str,
        patience: Duration,
    ) -> Result<Vec<u8>, GuestError> {
        let deadline = Instant::now() + patience;
        loop {
            self.sequence += 1;
            let tag = format!("@{}.{}", self.nonce, self.sequence);
            // a wait in the guest gives way when the window's size changes
            let cols = 120 + (self.sequence % 64) as u16;
            self.terminal
                .resize(cols, 50)
                .await
                .map_err(|error| lost(during, &error))?;
            self.send(question(command, &tag).as_bytes(), during)
                .await?;
            if let Some(bytes) = self.answer(&tag, deadline, during).await? {
                return Ok(bytes);
            }
            if Instant::now() >= deadline {
                return Err(GuestError::timeout(during, patience));
            }
        }
    }

    /// The answer to a question, or `None` where it is time to ask again.
    async fn answer(
        &mut self,
        tag: &str,
        deadline: Instant,
        during: &'static str,
    ) -> Result<Option<Vec<u8>>, GuestError> {
        let mut encoded = String::new();
        while let Some(line) = self
            .line(deadline.min(Instant::now() + self.timing.resend), during)
            .await?
        {
            let Some(said) = line.strip_prefix(tag) else {
                continue;
            };
            if let Some(length) = said.strip_prefix(". ") {
                let whole = length.trim().parse() == Ok(encoded.trim_end().len());
                let joined: String = encoded.lines().collect();
                return Ok(BASE64.decode(joined).ok().filter(|_| whole));
            }
            encoded.push_str(said.trim());
            encoded.push('\n');
        }
        Ok(None)
    }

    /// Ends a session that was only asked, unless somebody works in it: then the loop knows that one's nonce.
    pub(super) async fn leave(mut self) {
        let left = format!("@{}.left", self.nonce);
        let line = frame(&format!("[ -z \"$N\" ]&&exit;echo {left}"));
        if self.terminal.send(line.as_bytes()).await.is_err() {
            return;
        }
        let deadline = Instant::now() + Duration::from_secs(3);
        while let Ok(Some(line)) = self.line(deadline, "leaving").await
            && line != left
        {}
    }

    /// Ends the session, so that the next connection finds a new one. Nothing depends on it.
    pub(super) async fn close(mut self) -> T {
        if self.terminal.send(b"\x15\nexit\n").await.is_ok() {
            let deadline = Instant::now() + Duration::from_secs(3);
            while let Ok(Ok(Some(_))) = timeout_at(deadline, self.terminal.recv()).await {}
        }
        self.terminal
    }

    async fn send(&mut self, bytes: &[u8], during: &'static str) -> Result<(), GuestError> {
        self.terminal
            .send(bytes)
            .await
            .map_err(|error| lost(during, &error))
    }

    /// The next line, or `None` when there was none before the deadline.
    async fn line(
        &mut self,
        deadline: Instant,
        during: &'static str,
    ) -> Result<Option<String>, GuestError> {
        loop {
            if let Some(line) = self.lines.next_line() {
                return Ok(Some(line));
            }
            match timeout_at(deadline, self.terminal.recv()).await {
                Err(_) => return Ok(None),
                Ok(Ok(Some(bytes))) => self.lines.push(&bytes),
                Ok(Ok(None)) => {
                    return Err(GuestError::Lost {
                        during,
                        cause: "the session has ended".to_owned(),
                    });
                }
                Ok(Err(error)) => return Err(lost(during, &error)),
            }
        }
    }
}

/// Watches a session until it is clear whose it is, at most for the patience. Meanwhile the window's size changes now and then: a
/// shell that was just starting may have missed the first change, and one to the same size isn't noticed at all.
async fn greet<T: Terminal>(terminal: &mut T, timing: Timing) -> Result<Verdict, GuestError> {
    const DURING: &str = "looking whose session it is";
    let end = Instant::now() + timing.patience;
    let mut cols = 160 + rand::random::<u16>() % 64;
    let mut nudge = Instant::now();
    let mut seen = Vec::new();
    loop {
        let verdict = judge(&seen);
        let now = Instant::now();
        let deadline = match verdict {
            Verdict::Silent | Verdict::Unclear if now >= end => return Ok(verdict),
            Verdict::Silent | Verdict::Unclear => {
                if now >= nudge {
                    cols += 1;
                    // A session that has ended already may have left word why, yet to be read.
                    if let Err(error) = terminal.resize(cols, 50).await {
                        debug!(%error, "the window's size could not be changed");
                    }
                    nudge = now + timing.patience / 5;
                }
                nudge.min(end)
            }
            Verdict::Fresh => now + timing.settle,
            _ => return Ok(verdict),
        };
        match timeout_at(deadline, terminal.recv()).await {
            Err(_) if verdict == Verdict::Fresh => return Ok(verdict),
            Err(_) => {}
            Ok(Ok(Some(bytes))) => seen.extend_from_slice(&bytes),
            Ok(Ok(None)) => {
                let cause = last_words(&seen);
                return Err(GuestError::Unreached { cause });
            }
            Ok(Err(error)) => return Err(lost(DURING, &error)),
        }
        // A program that prints for ever must not fill our memory; whose it is stands at the beginning.
        seen.truncate(16 * 1024);
    }
}

fn lost(during: &'static str, error: &TerminalError) -> GuestError {
    GuestError::Lost {
        during,
        cause: error.to_string(),
    }
}
