//! Whether an object tells of a problem as the API's table of conditions promises.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use phoenix_crds::conditions::{ConditionType as C, Effect, Reason, verdict};

/// Asserts that `conditions` say of the whole object what the table says of this reason: the condition's status, `Ready` lowered by it,
/// and kstatus' `Stalled` or `Reconciling`, never both. Yields the sentence.
///
/// `exhausted`: the attempts are used up, for what the table calls reconciling first and stalled then.
pub(crate) fn documented(
    conditions: &[Condition],
    kind: C,
    reason: Reason,
    exhausted: bool,
) -> String {
    let row = verdict(kind, reason)
        .unwrap_or_else(|| panic!("{kind} {reason} is not in the API's table"));
    let of = |kind: C| conditions.iter().find(|c| c.type_ == kind.as_str());
    let found = of(kind).unwrap_or_else(|| panic!("no {kind} in {conditions:#?}"));
    assert_eq!(
        (found.reason.as_str(), found.status.as_str()),
        (reason.as_str(), row.status.into()),
        "{conditions:#?}"
    );
    let stalled = match row.effect {
        Effect::Stalled => Some(true),
        Effect::Reconciling => Some(false),
        Effect::ReconcilingThenStalled => Some(exhausted),
        Effect::Neutral => None,
    };
    let (present, absent) = match stalled {
        Some(true) => (Some(C::Stalled), vec![C::Reconciling]),
        Some(false) => (Some(C::Reconciling), vec![C::Stalled]),
        None => (None, vec![C::Reconciling, C::Stalled]),
    };
    if let Some(present) = present {
        let summary = of(present).unwrap_or_else(|| panic!("no {present} in {conditions:#?}"));
        assert_eq!(
            (summary.status.as_str(), &summary.reason, &summary.message),
            ("True", &found.reason, &found.message)
        );
    }
    assert!(
        absent.into_iter().all(|kind| of(kind).is_none()),
        "{conditions:#?}"
    );
    let ready = conditions
        .first()
        .filter(|c| c.type_ == C::Ready.as_str())
        .unwrap_or_else(|| panic!("Ready is not first in {conditions:#?}"));
    if row.lowers_ready {
        assert_eq!(
            (ready.status.as_str(), &ready.reason, &ready.message),
            (row.status.into(), &found.reason, &found.message)
        );
    }
    let sentence = found.message.clone();
    let first = sentence.split(' ').next().unwrap_or_default();
    // a field or an address is spelt as it is
    let begins = first.contains(['.', '/']) || first.starts_with(|c: char| !c.is_lowercase());
    assert!(
        begins && sentence.ends_with('.'),
        "no sentence: {sentence:?}"
    );
    sentence
}

/// Asserts that a sentence says all of this.
pub(crate) fn says(sentence: &str, all: &[&str]) {
    for part in all {
        assert!(
            sentence.contains(part),
            "{sentence:?} does not say {part:?}"
        );
    }
}
