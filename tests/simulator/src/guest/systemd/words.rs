//! How systemd reads command lines and environment files: quotes, escapes, specifiers, variables.

use std::collections::HashMap;
use std::str::Chars;

/// Splits a line into words; `None` where a quote is left open or an escape is wrong.
pub(super) fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (_, '\\') => {
                let escaped = unescape(&mut chars)?;
                word.get_or_insert_default().push(escaped);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return None;
    }
    words.extend(word);
    Some(words)
}

fn unescape(chars: &mut Chars<'_>) -> Option<char> {
    let number = |chars: &mut Chars<'_>, count: usize, radix| {
        let digits: String = chars.by_ref().take(count).collect();
        u32::from_str_radix(&digits, radix)
            .ok()
            .and_then(char::from_u32)
    };
    Some(match chars.next()? {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        's' => ' ',
        'x' => number(chars, 2, 16)?,
        'u' => number(chars, 4, 16)?,
        'U' => number(chars, 8, 16)?,
        first @ '0'..='7' => {
            let rest: String = chars.by_ref().take(2).collect();
            char::from_u32(u32::from_str_radix(&format!("{first}{rest}"), 8).ok()?)?
        }
        c @ ('\\' | '"' | '\'') => c,
        _ => return None,
    })
}

/// Replaces `%` specifiers.
pub(super) fn specifiers(text: &str, unit: &str, hostname: &str) -> String {
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    let instance = stem.split_once('@').map_or("", |(_, instance)| instance);
    let prefix = stem.split_once('@').map_or(stem, |(prefix, _)| prefix);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('%') | None => out.push('%'),
            Some('n') => out.push_str(unit),
            Some('N') => out.push_str(stem),
            Some('p') => out.push_str(prefix),
            Some('i' | 'I') => out.push_str(instance),
            Some('H' | 'l') => out.push_str(hostname),
            Some('h') => out.push_str("/root"),
            Some('u') => out.push_str("root"),
            Some('t') => out.push_str("/run"),
            Some('S') => out.push_str("/var/lib"),
            Some('C') => out.push_str("/var/cache"),
            Some('L') => out.push_str("/var/log"),
            Some('E') => out.push_str("/etc"),
            Some('T') => out.push_str("/tmp"),
            Some('V') => out.push_str("/var/tmp"),
            Some(other) => out.extend(['%', other]),
        }
    }
    out
}

/// Replaces variables in a command's words: `${NAME}` anywhere within a word, `$NAME` as a word of its own split at whitespace, `$$` a dollar.
pub(super) fn variables(words: &[String], values: &HashMap<String, String>) -> Vec<String> {
    let mut out = Vec::new();
    for word in words {
        if let Some(name) = word.strip_prefix('$')
            && !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            out.extend(
                values
                    .get(name)
                    .map(String::as_str)
                    .unwrap_or_default()
                    .split_whitespace()
                    .map(str::to_owned),
            );
        } else {
            out.push(within(word, values));
        }
    }
    out
}

fn within(word: &str, values: &HashMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
        {
            out.push_str(values.get(name).map(String::as_str).unwrap_or_default());
            rest = after;
        } else {
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            if end == 0 {
                out.push('$');
            } else {
                out.push_str(
                    values
                        .get(&rest[..end])
                        .map(String::as_str)
                        .unwrap_or_default(),
                );
            }
            rest = &rest[end..];
        }
    }
    out + rest
}

/// The assignments in an `EnvironmentFile=`: quotes may span lines, a backslash escapes outside single quotes.
pub(super) fn environment_file(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        match chars.peek() {
            None => return found,
            Some('#' | ';') => {
                for _ in chars.by_ref().take_while(|c| *c != '\n') {}
                continue;
            }
            Some(_) => {}
        }
        let mut name = String::new();
        let mut assigned = false;
        for c in chars.by_ref() {
            match c {
                '=' => {
                    assigned = true;
                    break;
                }
                '\n' => break,
                c => name.push(c),
            }
        }
        if !assigned {
            continue;
        }
        let mut value = String::new();
        let mut quote = None;
        let mut trailing = 0;
        while let Some(c) = chars.next() {
            match (quote, c) {
                (Some(open), c) if c == open => {
                    quote = None;
                    trailing = 0;
                }
                (None, '"' | '\'') => quote = Some(c),
                (None, '\n') => break,
                (Some('\''), c) => value.push(c),
                (Some(_), '\\') => match chars.next() {
                    Some('\n') | None => {}
                    Some(c @ ('"' | '\\' | '`' | '$')) => value.push(c),
                    Some(c) => value.extend(['\\', c]),
                },
                (None, '\\') => {
                    value.extend(chars.next().filter(|c| *c != '\n'));
                    trailing = 0;
                }
                (None, c) if c.is_whitespace() => {
                    if !value.is_empty() {
                        value.push(c);
                        trailing += c.len_utf8();
                    }
                }
                (_, c) => {
                    value.push(c);
                    trailing = 0;
                }
            }
        }
        value.truncate(value.len() - trailing);
        let name = name.trim().to_owned();
        if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            found.push((name, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn lines_split_as_systemd_splits_them() {
        let table: [(&str, Option<&[&str]>); 6] = [
            ("/bin/a one  two", Some(&["/bin/a", "one", "two"])),
            (
                r#"/bin/a "one two" 'three "x"'"#,
                Some(&["/bin/a", "one two", "three \"x\""]),
            ),
            (r#"a \"b\" \x41\s\t"#, Some(&["a", "\"b\"", "A \t"])),
            ("a ''", Some(&["a", ""])),
            ("a 'open", None),
            (r"a \q", None),
        ];
        for (line, wanted) in table {
            assert_eq!(split(line), wanted.map(strings), "{line}");
        }
    }

    #[test]
    fn variables_and_specifiers() {
        let values = HashMap::from([("A".to_owned(), "x y".to_owned())]);
        assert_eq!(
            variables(
                &strings(&["$A", "${A}", "p$$q", "a-${A}-b", "$NONE"]),
                &values
            ),
            strings(&["x", "y", "x y", "p$q", "a-x y-b"])
        );
        assert_eq!(
            specifiers("100%% of %n on %H", "v@1.service", "host"),
            "100% of v@1.service on host"
        );
    }

    #[test]
    fn environment_files() {
        let text = "# c\nA=1\nB=\"two words\"  \nC='si$ngle\\'\nD=\"q\\\"\\$x\\n\"\nE=trailing  \nF=\"a\nb\"\nnot an assignment\nG=\n";
        let wanted = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "si$ngle\\"),
            ("D", "q\"$x\\n"),
            ("E", "trailing"),
            ("F", "a\nb"),
            ("G", ""),
        ];
        assert_eq!(
            environment_file(text),
            wanted.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}
