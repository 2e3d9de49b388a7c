//! Which test covers which rule and which fault: `table.md`. A row without a test, or with one that isn't there, fails.

use std::{collections::BTreeSet, path::Path};

/// How many rules and faults there are, and how many rows they have together: a row that goes is missed.
const RULES: u32 = 17;
const FAULTS: u32 = 25;
const ROWS: usize = 93;
const TABLE: &str = include_str!("table.md");

/// What a real Proxmox VE enforces, or what befalls it.
struct Row<'a> {
    number: u32,
    says: &'a str,
    /// `tests/api/access::a_refusal_comes_late`: file below the package, and the test's name.
    tests: Vec<(&'a str, &'a str)>,
}

/// The rows below a heading.
fn rows<'a>(text: &'a str, heading: &str) -> Vec<Row<'a>> {
    let lines = text
        .lines()
        .skip_while(|line| line.strip_prefix("## ") != Some(heading))
        .skip(1)
        .take_while(|line| !line.starts_with("## "));
    let row = |line: &'a str| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let tests = cells.get(2).map_or("", |tests| *tests).split(", ");
        Row {
            // What can't be read is no row's number.
            number: cells[0].parse().unwrap_or(0),
            says: cells.get(1).copied().unwrap_or_default(),
            tests: tests
                .map(|test| test.split_once("::").unwrap_or(("?", test)))
                .collect(),
        }
    };
    let head = 2;
    lines
        .filter(|line| line.starts_with('|'))
        .skip(head)
        .map(row)
        .collect()
}

/// The tests in a file: functions under an attribute that makes them one, and none that is ignored.
fn tests_in(file: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{file}.rs"));
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let mut found = BTreeSet::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if line.starts_with("#[ignore") {
            is_test = false;
        } else if let Some((_, rest)) = line.split_once("fn ") {
            if is_test && let Some((name, _)) = rest.split_once('(') {
                found.insert(name.to_owned());
            }
            is_test = false;
        }
    }
    found
}

/// What is wrong with a table, in words.
fn problems(table: &[Row<'_>], count: u32) -> Vec<String> {
    let mut found = Vec::new();
    let numbers: BTreeSet<u32> = table.iter().map(|row| row.number).collect();
    if numbers != (1..=count).collect() {
        found.push(format!("there are {numbers:?}, not 1 to {count}"));
    }
    for row in table {
        let (number, says) = (row.number, row.says);
        for (file, name) in &row.tests {
            if !tests_in(file).contains(*name) {
                found.push(format!("{number}, {says}: {file} has no test {name}"));
            }
        }
    }
    found
}

#[test]
fn every_rule_has_a_test() {
    assert_eq!(problems(&rows(TABLE, "Rules"), RULES), Vec::<String>::new());
}

#[test]
fn every_fault_has_a_test() {
    assert_eq!(
        problems(&rows(TABLE, "Faults"), FAULTS),
        Vec::<String>::new()
    );
}

#[test]
fn no_row_is_lost() {
    let count = rows(TABLE, "Rules").len() + rows(TABLE, "Faults").len();
    assert!(count >= ROWS, "{count} rows, {ROWS} were there");
}

#[test]
fn what_is_missing_is_told() {
    let access = "tests/api/access";
    assert!(tests_in(access).contains("a_refusal_comes_late"));
    assert!(!tests_in(access).contains("recorded"), "no test");
    let text = "## Rules\n| rule | what | tests |\n| --- | --- | --- |\n| 1 | x | tests/api/access::nosuch |\n| 2 | y | none |\n\
        | 3 | z | tests/api/nosuch::a |\n## Faults\n| 4 | not this | none |\n";
    assert_eq!(
        problems(&rows(text, "Rules"), 4),
        [
            "there are {1, 2, 3}, not 1 to 4",
            "1, x: tests/api/access has no test nosuch",
            "2, y: ? has no test none",
            "3, z: tests/api/nosuch has no test a",
        ]
    );
}
