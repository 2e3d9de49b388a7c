//! The hierarchy as a tree with a line for each system: redrawn in place on a terminal, a line per change elsewhere.

use std::{collections::BTreeMap, fmt::Write as _, io::Write, time::Duration};

use super::systems::{System, Systems};

const WIDTH: usize = 118;

/// What was drawn last.
pub(super) struct Drawing {
    terminal: bool,
    lines: usize,
    told: BTreeMap<String, String>,
}

impl Drawing {
    pub(super) fn new(terminal: bool) -> Self {
        Self {
            terminal,
            lines: 0,
            told: BTreeMap::new(),
        }
    }

    pub(super) fn show(&mut self, systems: &Systems, elapsed: Duration) {
        if !self.terminal {
            return self.tell(systems, elapsed);
        }
        let lines = tree(systems, elapsed);
        let mut text = String::new();
        if self.lines > 0 {
            let _ = write!(text, "\x1b[{}A", self.lines);
        }
        for line in &lines {
            let _ = writeln!(text, "\x1b[2K{line}");
        }
        self.lines = lines.len();
        write(&text);
    }

    /// One line for each system whose state changed.
    fn tell(&mut self, systems: &Systems, elapsed: Duration) {
        for system in systems.all() {
            let what = format!(
                "{} {}",
                system.state(),
                if system.ready() { "Ready" } else { "" }
            );
            if self.told.get(&system.name) != Some(&what) {
                write(&format!(
                    "{:6.1} s  {}\n",
                    elapsed.as_secs_f64(),
                    line(system, 0)
                ));
                self.told.insert(system.name.clone(), what);
            }
        }
    }

    pub(super) fn finish(&mut self, systems: &Systems, elapsed: Duration, quiet: bool) {
        if !quiet && !self.terminal {
            write(&(tree(systems, elapsed).join("\n") + "\n"));
        }
    }
}

fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

fn tree(systems: &Systems, elapsed: Duration) -> Vec<String> {
    let ready = systems.all().filter(|s| s.ready()).count();
    let mut lines = vec![format!(
        "── {ready} of 6 Ready, {:.1} s",
        elapsed.as_secs_f64()
    )];
    for root in systems.children(None) {
        branch(systems, root, 0, &mut lines);
    }
    lines
}

fn branch(systems: &Systems, system: &System, depth: usize, lines: &mut Vec<String>) {
    lines.push(line(system, depth));
    for child in systems.children(Some(&system.name)) {
        branch(systems, child, depth + 1, lines);
    }
}

fn line(system: &System, depth: usize) -> String {
    let mark = if system.ready() { "✓" } else { "…" };
    let vmid = system
        .vmid
        .map_or_else(|| "   ".to_owned(), |v| v.to_string());
    let name = format!(
        "{}{}{}",
        "   ".repeat(depth),
        if depth > 0 { "└─ " } else { "" },
        system.name
    );
    let message = system
        .condition("Ready")
        .map(|(_, _, message)| message.replace('\n', " "))
        .unwrap_or_default();
    format!("{mark} {vmid}  {name:<34} {:<12} {message}", system.state())
        .chars()
        .take(WIDTH)
        .collect()
}
