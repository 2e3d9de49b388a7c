//! Each CEL rule of the CRDs accepts what it should and refuses what it should, with its own sentence.
//!
//! A case is a file in `rules/<rule>/`: one document is created, two are an object and what it is changed into. Here they are
//! judged by an evaluator of its own, without an API server; the same files are there for a real one, which is the judge.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kube_cel::{ErrorKind, Validator};
use phoenix_crds::rules::RULES;
use serde_json::Value;

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

fn documents(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    text.split("\n---\n")
        .map(|document| {
            serde_saphyr::from_str(document)
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        })
        .collect()
}

fn schema(kind: &str) -> Value {
    let crd = phoenix_crds::crds()
        .into_iter()
        .find(|crd| crd.spec.names.kind == kind)
        .expect("one of our kinds");
    let schema = crd.spec.versions[0]
        .schema
        .as_ref()
        .unwrap()
        .open_api_v3_schema
        .as_ref()
        .unwrap();
    serde_json::to_value(schema).unwrap()
}

/// What the rules say to a case: the sentences of those that refuse it, and the errors of the evaluator itself.
fn judge(file: &Path) -> (Vec<String>, Vec<String>) {
    let (object, old) = match &documents(file)[..] {
        [object] => (object.clone(), None),
        [old, object] => (object.clone(), Some(old.clone())),
        _ => panic!("{}: one document or two", file.display()),
    };
    let schema = schema(object["kind"].as_str().unwrap());
    let errors = match Validator::new().validate(&schema, &object, old.as_ref()) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec(),
    };
    let (refusals, troubles): (Vec<_>, Vec<_>) = errors
        .into_iter()
        .partition(|error| error.kind == ErrorKind::ValidationFailure);
    (
        refusals.into_iter().map(|error| error.message).collect(),
        troubles
            .into_iter()
            .map(|error| format!("{}: {}: {}", error.field_path, error.rule, error.message))
            .collect(),
    )
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
    for rule in RULES
        .iter()
        .filter(|rule| !ONLY_ON_A_REAL_SERVER.contains(&rule.name))
    {
        for file in names(&folder().join(rule.name))
            .into_iter()
            .filter(|file| file.starts_with("accepted"))
        {
            let (refusals, troubles) = judge(&folder().join(rule.name).join(&file));
            assert!(
                refusals.is_empty() && troubles.is_empty(),
                "{}/{file}: {refusals:#?} {troubles:#?}",
                rule.name
            );
        }
    }
}

#[test]
fn refused_objects_are_refused_by_their_rule_alone() {
    for rule in RULES
        .iter()
        .filter(|rule| !ONLY_ON_A_REAL_SERVER.contains(&rule.name))
    {
        for file in names(&folder().join(rule.name))
            .into_iter()
            .filter(|file| file.starts_with("refused"))
        {
            let (refusals, troubles) = judge(&folder().join(rule.name).join(&file));
            assert_eq!(
                refusals,
                [rule.message],
                "{}/{file}: {troubles:#?}",
                rule.name
            );
            assert!(troubles.is_empty(), "{}/{file}: {troubles:#?}", rule.name);
        }
    }
}

#[test]
fn what_is_left_to_a_real_server_can_really_not_be_judged_here() {
    for name in ONLY_ON_A_REAL_SERVER {
        let troubles: Vec<String> = names(&folder().join(name))
            .iter()
            .flat_map(|file| judge(&folder().join(name).join(file)).1)
            .collect();
        assert!(
            !troubles.is_empty(),
            "{name} can be judged here by now: take it off the list"
        );
    }
}
