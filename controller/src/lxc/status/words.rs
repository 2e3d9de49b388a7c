//! The words and strings that columns print.

use phoenix_crds::{
    LxcStatus,
    conditions::{ConditionType as C, Reason},
    status::{LxcDisplay, State},
};

use crate::{
    lxc::{
        desired::{Desired, Goal, Role},
        observe::Observed,
    },
    prober::ProbeSpec,
};

/// One word for a column.
pub(super) fn state(
    deleting: bool,
    status: &LxcStatus,
    previous: &LxcStatus,
    observed: Option<&Observed>,
) -> State {
    let truth = |kind: C| status.conditions.iter().find(|c| c.type_ == kind.as_str());
    if deleting {
        return State::Deleting;
    }
    if truth(C::Stalled).is_some() {
        return State::Failed;
    }
    let unmet = |kind: C| truth(kind).is_some_and(|c| c.status != "True");
    if unmet(C::HypervisorReady) {
        return previous
            .state
            .filter(|s| *s != State::Failed)
            .unwrap_or(State::Pending);
    }
    // on its way to be stopped it still runs
    if truth(C::PowerInSync).is_some_and(|c| c.reason == Reason::Stopping.as_str()) {
        return State::Running;
    }
    let words = [
        (C::SourceReady, State::Pending),
        (C::Created, State::Creating),
        (C::PowerInSync, State::Starting),
        (C::SetupComplete, State::SettingUp),
        (C::Sealed, State::Sealing),
    ];
    // one that is locked for a backup was created long ago
    let made = observed.and_then(Observed::mark).is_some_and(|m| m.created);
    if let Some((_, word)) = words
        .iter()
        .find(|(kind, _)| unmet(*kind) && !(made && *kind == C::Created))
    {
        return *word;
    }
    if truth(C::ConfigInSync)
        .is_some_and(|c| c.status != "True" && c.reason != Reason::RestartRequired.as_str())
    {
        return State::Configuring;
    }
    if truth(C::Sealed).is_some() {
        return State::Sealed;
    }
    match observed.and_then(Observed::seen) {
        Some(seen) if seen.running() => State::Running,
        // it waits for its GPUs
        Some(_) if unmet(C::GpuAllocated) => State::Pending,
        Some(_) => State::Stopped,
        None => previous.state.unwrap_or(State::Pending),
    }
}

/// The strings that columns print.
pub(super) fn display(status: &LxcStatus, desired: Option<&Desired>) -> LxcDisplay {
    let source = status
        .source
        .as_ref()
        .and_then(|s| s.template.clone())
        .map(|t| short_source(&t));
    let gpus: Vec<String> = status.gpus.iter().map(|g| g.index.to_string()).collect();
    let vllm = desired.and_then(|d| match &d.goal {
        Goal::Present(p) => match &p.role {
            Role::Container {
                probe: Some(ProbeSpec::Vllm { port, model, .. }),
                ..
            } => Some(format!("{model} ({port})")),
            _ => None,
        },
        Goal::Absent(_) => None,
    });
    let before = status.display.as_ref();
    LxcDisplay {
        source: source.or_else(|| before.and_then(|d| d.source.clone())),
        gpus: (!gpus.is_empty()).then(|| gpus.join(",")),
        vllm: vllm.or_else(|| before.and_then(|d| d.vllm.clone())),
    }
}

/// `local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst` is `ubuntu-24.04`; a template's name is itself.
fn short_source(source: &str) -> String {
    let Some((_, file)) = source.rsplit_once('/') else {
        return source.to_owned();
    };
    let stem = file.split('_').next().unwrap_or(file);
    for variant in ["-standard", "-default", "-turnkey"] {
        if let Some(name) = stem.strip_suffix(variant) {
            return name.to_owned();
        }
    }
    stem.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_shown_as_people_call_it() {
        let rows = [
            (
                "local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst",
                "ubuntu-24.04",
            ),
            (
                "local:vztmpl/alpine-3.22-default_20250617_amd64.tar.xz",
                "alpine-3.22",
            ),
            ("base-template", "base-template"),
        ];
        for (source, shown) in rows {
            assert_eq!(short_source(source), shown);
        }
    }
}
