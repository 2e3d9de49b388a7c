//! The only place that builds conditions.
//!
//! Checks of a plan leave [`Finding`]s; this module turns them into `metav1.Condition`s: `Ready` first as the summary, kstatus'
//! `Reconciling` and `Stalled` present only while true and never both, transition times in whole seconds that move with the status only.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use phoenix_crds::conditions::{ConditionType, Effect, Reason, verdict};

/// A condition's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::Display)]
pub enum Truth {
    /// As asked.
    True,
    /// Not as asked.
    False,
    /// We could not look.
    Unknown,
}

/// Whether a status says that this is so.
pub(crate) fn said_true(conditions: &[Condition], kind: ConditionType) -> bool {
    conditions
        .iter()
        .any(|c| c.type_ == kind.as_str() && c.status == <&str>::from(Truth::True))
}

/// What an unmet condition means for those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Neither works on it nor hinders: said, no more (`RestartRequired`, `Outdated`, `Paused`).
    Neutral,
    /// It is being worked on, or waited for.
    Reconciling,
    /// Somebody has to do something.
    Stalled,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The condition that it speaks for.
    pub condition: ConditionType,
    /// Whether it is met.
    pub truth: Truth,
    /// Why.
    pub reason: Reason,
    /// A sentence for a person: what, where, what to do.
    pub message: String,
    /// What that means.
    pub progress: Progress,
}

impl Finding {
    /// A condition that is met.
    pub fn met(condition: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            condition,
            truth: Truth::True,
            reason,
            message: message.into(),
            progress: Progress::Neutral,
        }
    }

    /// One that is being worked on.
    pub fn working(condition: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            condition,
            truth: Truth::False,
            reason,
            message: message.into(),
            progress: Progress::Reconciling,
        }
    }

    /// One that somebody has to do something about.
    pub fn stalled(condition: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            condition,
            truth: Truth::False,
            reason,
            message: message.into(),
            progress: Progress::Stalled,
        }
    }

    /// Something worth saying that hinders nothing.
    pub fn said(
        condition: ConditionType,
        truth: Truth,
        reason: Reason,
        message: impl Into<String>,
    ) -> Self {
        Self {
            condition,
            truth,
            reason,
            message: message.into(),
            progress: Progress::Neutral,
        }
    }

    /// It tells of something beside what was asked for.
    fn aside(&self) -> bool {
        matches!(
            self.condition,
            ConditionType::Outdated | ConditionType::Paused | ConditionType::ServiceReady
        )
    }

    fn hinders(&self) -> bool {
        self.truth != Truth::True && self.progress != Progress::Neutral
    }
}

/// The conditions of an object at `generation`.
///
/// `kept` are those of the previous status that still hold although nothing was found of them now (a look that could not be had says
/// nothing about them); they stand behind what was found, and count for the summary as they did.
pub fn conditions(
    found: &[Finding],
    kept: &[Condition],
    previous: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let builder = Builder {
        previous,
        generation,
        now,
    };
    let silent = |c: &&Condition| !found.iter().any(|f| f.condition.as_str() == c.type_);
    // found beside the plan: it stands behind what is kept of an earlier one, too, as it stood behind that
    let beside = |f: &Finding| f.condition == ConditionType::ServiceReady;
    let (last, found): (Vec<_>, Vec<_>) = found.iter().cloned().partition(beside);
    let mut findings = found.clone();
    findings.extend(kept.iter().filter(silent).filter_map(remembered));
    findings.extend(last.iter().cloned());
    let mut list = vec![builder.ready(&findings)];
    if let Some(f) = findings.iter().find(|f| f.progress == Progress::Stalled) {
        list.push(builder.condition(
            ConditionType::Stalled,
            Truth::True,
            f.reason.into(),
            &f.message,
        ));
    } else if let Some(f) = findings
        .iter()
        .find(|f| f.progress == Progress::Reconciling)
    {
        list.push(builder.condition(
            ConditionType::Reconciling,
            Truth::True,
            f.reason.into(),
            &f.message,
        ));
    }
    for f in found.iter().filter(|f| f.condition != ConditionType::Ready) {
        // the first to speak for a condition is the one that stopped there
        if !list.iter().any(|c| c.type_ == f.condition.as_str()) {
            list.push(builder.condition(f.condition, f.truth, f.reason.into(), &f.message));
        }
    }
    for c in kept.iter().filter(silent) {
        if !SUMMARY
            .map(ConditionType::as_str)
            .contains(&c.type_.as_str())
        {
            list.push(c.clone());
        }
    }
    for f in &last {
        list.push(builder.condition(f.condition, f.truth, f.reason.into(), &f.message));
    }
    list
}

/// Made of the others.
const SUMMARY: [ConditionType; 3] = [
    ConditionType::Ready,
    ConditionType::Stalled,
    ConditionType::Reconciling,
];

/// What an earlier pass found, as its condition tells; `None` for the summary and for words that we don't know.
fn remembered(condition: &Condition) -> Option<Finding> {
    let kind: ConditionType = condition.type_.parse().ok()?;
    let reason: Reason = condition.reason.parse().ok()?;
    if SUMMARY.contains(&kind) {
        return None;
    }
    let progress = match verdict(kind, reason)?.effect {
        Effect::Neutral => Progress::Neutral,
        Effect::Reconciling | Effect::ReconcilingThenStalled => Progress::Reconciling,
        Effect::Stalled => Progress::Stalled,
    };
    let truth = match condition.status.as_str() {
        "True" => Truth::True,
        "False" => Truth::False,
        _ => Truth::Unknown,
    };
    Some(Finding {
        condition: kind,
        truth,
        reason,
        message: condition.message.clone(),
        progress,
    })
}

/// What an earlier pass found of a condition.
pub(crate) fn remembered_of(conditions: &[Condition], kind: ConditionType) -> Option<Finding> {
    let said = conditions.iter().find(|c| c.type_ == kind.as_str())?;
    remembered(said)
}

struct Builder<'a> {
    previous: &'a [Condition],
    generation: Option<i64>,
    now: Timestamp,
}

impl Builder<'_> {
    fn ready(&self, findings: &[Finding]) -> Condition {
        match findings.iter().find(|f| f.hinders()) {
            Some(f) => self.condition(ConditionType::Ready, f.truth, f.reason.into(), &f.message),
            // all is as asked: the last that was met says what that is
            None => {
                match findings.iter().rev().find(|f| {
                    f.truth == Truth::True && f.progress == Progress::Neutral && !f.aside()
                }) {
                    Some(f) => self.condition(
                        ConditionType::Ready,
                        Truth::True,
                        f.reason.into(),
                        &f.message,
                    ),
                    None => self.condition(
                        ConditionType::Ready,
                        Truth::Unknown,
                        Reason::Waiting.into(),
                        "Nothing is known yet.",
                    ),
                }
            }
        }
    }

    fn condition(
        &self,
        kind: ConditionType,
        truth: Truth,
        reason: &str,
        message: &str,
    ) -> Condition {
        let type_: &str = kind.into();
        let status: &str = truth.into();
        let since = self
            .previous
            .iter()
            .find(|c| c.type_ == type_ && c.status == status)
            .map(|c| c.last_transition_time.clone());
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: sentence(message),
            observed_generation: self.generation,
            last_transition_time: since.unwrap_or_else(|| Time(whole_seconds(self.now))),
        }
    }
}

/// A message is a sentence, whoever's words it ends with: first letter upper-case (but for the name of a field), full stop.
pub fn sentence(text: &str) -> String {
    let text = text.trim();
    let mut letters = text.chars();
    let Some(first) = letters.next() else {
        return String::new();
    };
    // a field (spec.vmid), an address, or a name that is written so (vLLM)
    let name = text.split_whitespace().next().is_some_and(|word| {
        word.contains(['.', '/', ':', '=']) || word.chars().skip(1).any(char::is_uppercase)
    });
    let mut sentence = if name {
        first.to_string()
    } else {
        first.to_uppercase().to_string()
    };
    sentence.push_str(letters.as_str());
    if !sentence.ends_with(['.', '!', '?']) {
        sentence.push('.');
    }
    sentence
}

/// Kubernetes stores whole seconds; anything finer would differ from what is read back.
pub fn whole_seconds(t: Timestamp) -> Timestamp {
    Timestamp::from_second(t.as_second()).unwrap_or(t)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn types(list: &[Condition]) -> Vec<(String, String, String)> {
        list.iter()
            .map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone()))
            .collect()
    }

    fn row(type_: &str, status: &str, reason: &str) -> (String, String, String) {
        (type_.into(), status.into(), reason.into())
    }

    #[test]
    fn ready_is_the_first_that_is_not_met() {
        let findings = [
            Finding::met(ConditionType::HypervisorReady, Reason::Connected, ""),
            Finding::working(ConditionType::Created, Reason::Cloning, "cloning"),
            Finding::working(ConditionType::SetupComplete, Reason::Waiting, "later"),
        ];
        let list = conditions(&findings, &[], &[], Some(3), at(10));
        assert_eq!(list[0].message, "Cloning.");
        assert_eq!(
            types(&list),
            [
                row("Ready", "False", "Cloning"),
                row("Reconciling", "True", "Cloning"),
                row("HypervisorReady", "True", "Connected"),
                row("Created", "False", "Cloning"),
                row("SetupComplete", "False", "Waiting"),
            ]
        );
        assert!(list.iter().all(|c| c.observed_generation == Some(3)));
    }

    #[test]
    fn where_nothing_new_was_found_all_stays_as_it_was() {
        let found = [
            Finding::met(ConditionType::PowerInSync, Reason::Running, "Running."),
            Finding::met(ConditionType::VllmReady, Reason::Serving, "Serves."),
        ];
        let before = conditions(&found, &[], &[], Some(1), at(1));
        assert_eq!(conditions(&[], &before, &before, Some(1), at(9)), before);
        // one part found again, the other not asked yet
        assert_eq!(
            conditions(&found[..1], &before, &before, Some(1), at(9)),
            before
        );
        // what is found beside the plan in every pass keeps its place
        let beside = Finding::met(ConditionType::ServiceReady, Reason::InSync, "Led to.");
        let all = [&found[..], std::slice::from_ref(&beside)].concat();
        let before = conditions(&all, &[], &[], Some(1), at(1));
        assert_eq!(
            conditions(&[beside], &before, &before, Some(1), at(9)),
            before
        );
        let stalled = [Finding::stalled(
            ConditionType::SetupComplete,
            Reason::Failed,
            "Exit 3.",
        )];
        let before = conditions(&stalled, &[], &[], Some(1), at(1));
        assert_eq!(
            types(&conditions(&[], &before, &before, Some(1), at(9)))[0],
            row("Ready", "False", "Failed")
        );
    }

    #[test]
    fn every_message_is_a_sentence() {
        let rows = [
            ("", ""),
            ("the token lacks privileges", "The token lacks privileges."),
            (
                "spec.vmid 7 is outside of the range",
                "spec.vmid 7 is outside of the range.",
            ),
            (
                "https://pve:8006 presented a certificate.\n",
                "https://pve:8006 presented a certificate.",
            ),
            ("Is it there?", "Is it there?"),
            ("vLLM is loading", "vLLM is loading."),
        ];
        for (text, said) in rows {
            assert_eq!(sentence(text), said);
        }
    }

    #[test]
    fn stalled_excludes_reconciling_and_neutral_lowers_nothing() {
        let findings = [
            Finding::said(
                ConditionType::Outdated,
                Truth::True,
                Reason::SpecChanged,
                "rebuild",
            ),
            Finding::said(
                ConditionType::ConfigInSync,
                Truth::False,
                Reason::RestartRequired,
                "restart",
            ),
        ];
        assert_eq!(
            types(&conditions(&findings, &[], &[], None, at(1)))[0],
            row("Ready", "Unknown", "Waiting")
        );
        let met = Finding::met(ConditionType::PowerInSync, Reason::Running, "runs");
        let list = conditions(&[&findings[..], &[met]].concat(), &[], &[], None, at(1));
        assert_eq!(types(&list)[0], row("Ready", "True", "Running"));
        let findings = [
            Finding::working(ConditionType::Created, Reason::Creating, ""),
            Finding::stalled(ConditionType::SetupComplete, Reason::Failed, "exit 3"),
        ];
        let list = types(&conditions(&findings, &[], &[], None, at(1)));
        assert!(
            list.contains(&row("Stalled", "True", "Failed"))
                && !list.iter().any(|c| c.0 == "Reconciling")
        );
    }

    #[test]
    fn a_transition_time_moves_with_the_status_only() {
        let first = conditions(
            &[Finding::working(
                ConditionType::Created,
                Reason::Creating,
                "a",
            )],
            &[],
            &[],
            Some(1),
            at(100),
        );
        let second = conditions(
            &[Finding::working(ConditionType::Created, Reason::Busy, "b")],
            &[],
            &first,
            Some(2),
            at(200),
        );
        let third = conditions(
            &[Finding::met(ConditionType::Created, Reason::Created, "")],
            &[],
            &second,
            Some(2),
            at(300),
        );
        let time = |l: &[Condition]| {
            l.iter()
                .find(|c| c.type_ == "Created")
                .unwrap()
                .last_transition_time
                .0
                .as_second()
        };
        assert_eq!((time(&first), time(&second), time(&third)), (100, 100, 300));
    }

    #[test]
    fn what_could_not_be_looked_at_is_kept_but_never_the_summary() {
        let before = conditions(
            &[Finding::met(ConditionType::Created, Reason::Created, "")],
            &[],
            &[],
            Some(1),
            at(1),
        );
        let lost = Finding {
            truth: Truth::Unknown,
            ..Finding::working(
                ConditionType::HypervisorReady,
                Reason::Unreachable,
                "refused",
            )
        };
        let list = conditions(&[lost], &before, &before, Some(1), at(9));
        assert_eq!(
            types(&list),
            [
                row("Ready", "Unknown", "Unreachable"),
                row("Reconciling", "True", "Unreachable"),
                row("HypervisorReady", "Unknown", "Unreachable"),
                row("Created", "True", "Created"),
            ]
        );
    }
}
