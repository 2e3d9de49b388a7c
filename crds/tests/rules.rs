//! Each CEL rule of the CRDs accepts what it should and refuses what it should, with its own sentence.
//!
//! A case is a file in `rules/<rule>/`: one document is created, two are an object and what it is changed into. Here they are
//! judged by an evaluator of its own, without an API server; the same files, and those in `schema/`, which only
//! the schema's own bounds refuse, are there for a real one.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, also in the functions that its cases share"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use evaluator::{Judgement, documents, judge};
use phoenix_crds::rules::{CelRule, RULES};

mod evaluator;

/// Rules that the evaluator can't run, and that only a real API server tests.
const ONLY_ON_A_REAL_SERVER: &[&str] = &[];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// The files of a rule whose names begin with `verdict`, judged.
fn judged(rule: &str, verdict: &str) -> Vec<(String, Judgement)> {
    let folder = folder().join(rule);
    let files = names(&folder)
        .into_iter()
        .filter(|file| file.starts_with(verdict));
    files
        .map(|file| {
            let judgement = match &documents(&folder.join(&file))[..] {
                [object] => judge(object, None),
                [old, object] => judge(object, Some(old)),
                _ => panic!("{rule}/{file}: one document or two"),
            };
            (format!("{rule}/{file}"), judgement)
        })
        .collect()
}

fn judged_here() -> impl Iterator<Item = &'static CelRule> {
    RULES
        .iter()
        .filter(|rule| !ONLY_ON_A_REAL_SERVER.contains(&rule.name))
}

#[test]
fn every_rule_has_objects_that_it_accepts_and_refuses() {
    let rules: BTreeSet<String> = RULES.iter().map(|rule| rule.name.to_owned()).collect();
    assert_eq!(rules.len(), RULES.len(), "two rules have the same name");
    assert_eq!(
        names(&folder()),
        rules,
        "the folders in tests/rules must be the rules' names"
    );
    for rule in &rules {
        let files = names(&folder().join(rule));
        for verdict in ["accepted", "refused"] {
            assert!(
                files.iter().any(|file| file.starts_with(verdict)),
                "{rule} has nothing {verdict}"
            );
        }
    }
}

#[test]
fn accepted_objects_are_accepted_by_all_rules() {
    for (file, judgement) in judged_here().flat_map(|rule| judged(rule.name, "accepted")) {
        assert!(
            judgement.refusals.is_empty() && judgement.troubles.is_empty(),
            "{file}: {judgement:#?}"
        );
    }
}

#[test]
fn refused_objects_are_refused_by_their_rule_alone() {
    for rule in judged_here() {
        for (file, judgement) in judged(rule.name, "refused") {
            assert!(
                judgement.refusals == [rule.message] && judgement.troubles.is_empty(),
                "{file}: {judgement:#?}"
            );
        }
    }
}

#[test]
fn what_is_left_to_a_real_server_can_really_not_be_judged_here() {
    for rule in ONLY_ON_A_REAL_SERVER {
        let troubled = judged(rule, "")
            .iter()
            .any(|(_, judgement)| !judgement.troubles.is_empty());
        assert!(
            troubled,
            "{rule} can be judged here by now: take it off the list"
        );
    }
}
