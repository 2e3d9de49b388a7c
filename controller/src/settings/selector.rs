//! Reads a label selector as kubectl's `-l` takes it, since kube has the type but no parser for its text.
//!
//! The apiserver would refuse a wrong one only once the watch runs, over and over; here it ends the process with a sentence.

use std::collections::BTreeSet;

use kube::core::{Expression, Selector};

/// Reads a comma-separated list of requirements: `key`, `!key`, `key=value`, `key==value`, `key!=value`,
/// `key in (a, b)`, `key notin (a, b)`. All of them have to hold. The error is a sentence for the user.
pub(super) fn parse(text: &str) -> Result<Selector, String> {
    requirements(text)?
        .into_iter()
        .map(|requirement| expression(requirement.trim()))
        .collect()
}

/// Splits at the commas that stand outside of parentheses.
fn requirements(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' if !inside => inside = true,
            ')' if inside => inside = false,
            '(' | ')' => return Err(format!("the parentheses in {text:?} do not match")),
            ',' if !inside => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(format!("the parentheses in {text:?} do not match"));
    }
    parts.push(&text[start..]);
    Ok(parts)
}

fn expression(text: &str) -> Result<Expression, String> {
    if let Some(list) = text.strip_suffix(')') {
        return among(text, list);
    }
    if let Some((key, value)) = text.split_once("!=") {
        return Ok(Expression::NotEqual(label(key)?, value_of(value)?));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Expression::Equal(label(key)?, value_of(value)?));
    }
    match text.strip_prefix('!') {
        Some(key) => Ok(Expression::DoesNotExist(label(key)?)),
        None => Ok(Expression::Exists(label(text)?)),
    }
}

/// `key in (a, b` or `key notin (a, b`, its closing parenthesis cut off.
fn among(whole: &str, text: &str) -> Result<Expression, String> {
    let unclear = || format!("{whole:?} is neither `key in (a, b)` nor `key notin (a, b)`");
    let (head, list) = text.split_once('(').ok_or_else(unclear)?;
    let mut words = head.split_whitespace();
    let (Some(key), Some(operator), None) = (words.next(), words.next(), words.next()) else {
        return Err(unclear());
    };
    let key = label(key)?;
    let values = list
        .split(',')
        .map(value_of)
        .collect::<Result<BTreeSet<_>, _>>()?;
    match operator {
        "in" => Ok(Expression::In(key, values)),
        "notin" => Ok(Expression::NotIn(key, values)),
        _ => Err(unclear()),
    }
}

/// A label's key: a name, optionally after a DNS prefix and a slash.
fn label(key: &str) -> Result<String, String> {
    let key = key.trim();
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefix_fits = prefix.is_none_or(|prefix| {
        prefix.len() <= 253
            && prefix.split('.').all(|part| {
                word(part, 63) && part.bytes().all(|b| !b.is_ascii_uppercase() && b != b'_')
            })
    });
    if prefix_fits && word(name, 63) {
        Ok(key.to_owned())
    } else {
        Err(format!("{key:?} is no key of a label"))
    }
}

/// A label's value, which may be empty.
fn value_of(value: &str) -> Result<String, String> {
    let value = value.trim();
    if value.is_empty() || word(value, 63) {
        Ok(value.to_owned())
    } else {
        Err(format!("{value:?} is no value of a label"))
    }
}

/// Letters, digits, and `-_.` between them.
fn word(text: &str, max: usize) -> bool {
    let edge = |letter: Option<char>| letter.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= max
        && edge(text.chars().next())
        && edge(text.chars().next_back())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
