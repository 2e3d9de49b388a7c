//! One run of `go build`, with its progress on standard error.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How often a log, where nothing can be overwritten, gets a line.
const LOG_EVERY: Duration = Duration::from_secs(20);
/// How much of Go's output is kept to explain a failure.
const KEPT_LINES: usize = 30;

pub(super) fn build(
    name: &str,
    cost: &str,
    dir: &Path,
    args: &[String],
    output: &Path,
) -> Result<()> {
    let mut progress = Progress::new(name);
    say(&format!("building {name} from its Go sources ({cost})"));
    let mut child = command(dir, args, output).spawn().with_context(|| {
        format!("cannot start `go`, which builds {name}: install Go 1.26 or newer and see that it is on the PATH")
    })?;
    let mut kept = VecDeque::with_capacity(KEPT_LINES);
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines() {
            let line = line.context("reading the output of `go build`")?;
            progress.step(&line);
            if kept.len() == KEPT_LINES {
                kept.pop_front();
            }
            kept.push_back(line);
        }
    }
    let status = child.wait().context("waiting for `go build`")?;
    progress.clear();
    if !status.success() {
        let lines: Vec<_> = kept.into();
        bail!(
            "`go build` of {name} failed ({status}); its last lines:\n{}",
            lines.join("\n")
        );
    }
    say(&format!("built {name} in {}", progress.elapsed()));
    Ok(())
}

fn command(dir: &Path, args: &[String], output: &Path) -> Command {
    // -o must precede the package, which is the last argument.
    let (package, flags) = args
        .split_last()
        .map_or(("", args), |(last, rest)| (last.as_str(), rest));
    let mut command = Command::new("go");
    command
        .args(flags)
        .arg("-o")
        .arg(output)
        .arg(package)
        .current_dir(dir)
        // A workspace file in a parent folder and a C compiler are this machine's, not the module's.
        .env("GOWORK", "off")
        .env("CGO_ENABLED", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// One line that is overwritten on a terminal, a line now and then elsewhere.
struct Progress<'a> {
    name: &'a str,
    terminal: bool,
    started: Instant,
    last_line: Instant,
    packages: usize,
}

impl<'a> Progress<'a> {
    fn new(name: &'a str) -> Self {
        let now = Instant::now();
        Self {
            name,
            terminal: io::stderr().is_terminal(),
            started: now,
            last_line: now,
            packages: 0,
        }
    }

    fn elapsed(&self) -> String {
        let seconds = self.started.elapsed().as_secs();
        format!("{}:{:02}", seconds / 60, seconds % 60)
    }

    /// Takes one line of Go's output: a package that was compiled, a download, or an error.
    fn step(&mut self, line: &str) {
        let downloads = line.starts_with("go: ");
        self.packages += usize::from(!downloads);
        let what = line.strip_prefix("go: ").unwrap_or(line);
        let text = format!(
            "  {} {}: {} packages, {what}",
            self.elapsed(),
            self.name,
            self.packages
        );
        if self.terminal {
            let line: String = text.chars().take(78).collect();
            let _ = write!(io::stderr(), "\r{line}\x1b[K");
        } else if self.last_line.elapsed() >= LOG_EVERY {
            self.last_line = Instant::now();
            say(&text);
        }
    }

    fn clear(&self) {
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
