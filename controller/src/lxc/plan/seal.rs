//! A template's end: cleaned, stopped, its revision marked, converted or snapshot. Nothing of it is undone by the operator.

use std::time::Duration;

use phoenix_crds::conditions::{ConditionType as C, Reason};

use super::{
    Decision, Draft, ON_WAKE, View,
    config::write_mark,
    guest::{advice, unavailable},
};
use crate::{
    condition::{Finding, Truth},
    engine::Verdict,
    lxc::{
        desired::{Role, Source, Strategy},
        mark::Mark,
        observe::{Observed, StorageKind},
        step::{GuestStep, Site, Step},
    },
};

/// The conversion answers with null and works on; its end shows in the config only.
const CONVERSION_RECHECK: Duration = Duration::from_millis(250);

/// How a template's seal shows in Proxmox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seal {
    /// Converted, to be cloned by `zfs clone` and the like.
    Linked,
    /// An ordinary container with a snapshot, cloned in full from that.
    Snapshot,
    /// Converted for want of snapshots, cloned in full.
    Converted,
    /// Left stopped: the storage can neither snapshot nor convert.
    Stopped,
}

impl Seal {
    /// The one that the spec and the storage lead to.
    pub(crate) fn choose(asked: Strategy, storage: StorageKind) -> Self {
        match (asked, storage) {
            (Strategy::Linked | Strategy::Auto, StorageKind::Clones) => Self::Linked,
            (Strategy::Full, StorageKind::Clones) => Self::Snapshot,
            // asked for what the storage can't do: refused by the check below
            (Strategy::Linked, _) => Self::Linked,
            (_, StorageKind::Plain) => Self::Converted,
            (_, StorageKind::Thick) => Self::Stopped,
        }
    }

    /// As status shows it.
    pub(crate) fn strategy(self) -> Strategy {
        if self == Self::Linked {
            Strategy::Linked
        } else {
            Strategy::Full
        }
    }
}

/// Whether a container carries the seal already. Where the storage can neither snapshot nor convert, the mark of its revision is all of it.
pub(crate) fn sealed(observed: &Observed, name: &str, asked: Strategy) -> Option<Seal> {
    let (seen, mark) = (observed.seen()?, observed.mark()?);
    mark.revision.as_ref()?;
    if seen.config.is_template() {
        return Some(Seal::Linked);
    }
    let by_name = observed.snapshots.iter().any(|s| s == name);
    let by_mark =
        || observed.storage.map(|storage| Seal::choose(asked, storage)) == Some(Seal::Stopped);
    if by_name {
        Some(Seal::Snapshot)
    } else {
        by_mark().then_some(Seal::Stopped)
    }
}

/// It is sealed: then it is left alone for good, whatever the spec says now.
pub(super) fn already(view: &View<'_>, draft: &mut Draft) -> Decision {
    let Role::Template { snapshot, strategy } = &view.present.role else {
        return None;
    };
    let mark = view.mark()?;
    let by = sealed(view.observed, snapshot, *strategy)?;
    draft.met(C::ConfigInSync, Reason::InSync, "");
    draft.met(C::SetupComplete, Reason::Succeeded, advice(view));
    if by == Seal::Stopped && view.seen()?.running() {
        // somebody started it: a copy of it would be one of a running system
        return stop(view, draft, view.site()?);
    }
    draft.met(
        C::Sealed,
        Reason::Sealed,
        format!("Sealed as {snapshot}; children may clone it."),
    );
    let built = mark.revision.as_deref().unwrap_or_default();
    if built != view.present.revision {
        let message = format!(
            "It was built at revision {built}; what the spec (with its source and script) asks for now is {}. A sealed template is never \
             changed: make a new object for the new revision, or delete this one once nothing is cloned from it.",
            view.present.revision
        );
        let reason = if parent_changed(view).is_some() {
            Reason::ParentChanged
        } else {
            Reason::SpecChanged
        };
        draft.found(Finding::said(C::Outdated, Truth::True, reason, message));
    }
    Some(Verdict::Done {
        recheck: view.observed.drift,
    })
}

/// The source was built anew since this was made from it: both revisions.
fn parent_changed<'a>(view: &View<'a>) -> Option<(&'a str, &'a str)> {
    let Source::Template(source) = &view.present.source else {
        return None;
    };
    let built = view.present.built_from.as_deref()?;
    (built != source.revision).then_some((built, source.revision.as_str()))
}

/// A container says so, too; it goes on doing its job.
pub(super) fn outdated(view: &View<'_>, draft: &mut Draft) -> Decision {
    if let (Role::Container { .. }, Some((built, is))) = (&view.present.role, parent_changed(view))
    {
        let message = format!(
            "It was cloned from revision {built} of its template, which is at {is} now. To take that over, delete this object and apply it again."
        );
        draft.found(Finding::said(
            C::Outdated,
            Truth::True,
            Reason::ParentChanged,
            message,
        ));
    }
    None
}

/// Everything is in it: seal it.
pub(super) fn seal(view: &View<'_>, draft: &mut Draft) -> Decision {
    let Role::Template { snapshot, strategy } = &view.present.role else {
        return None;
    };
    let (seen, mark, site) = (view.seen()?, view.mark()?, view.site()?);
    let way = Seal::choose(
        *strategy,
        view.observed.storage.unwrap_or(StorageKind::Clones),
    );
    if let Some(refusal) = impossible(view, way, snapshot) {
        let (reason, message) = refusal;
        return draft.blocked(C::Sealed, reason, message);
    }
    if seen.running() {
        return stop(view, draft, site);
    }
    if mark.revision.as_deref() != Some(view.present.revision.as_str()) {
        let grown = Mark {
            revision: Some(view.present.revision.clone()),
            ..mark.clone()
        };
        return draft.step(
            C::Sealed,
            Reason::Snapshotting,
            write_mark(seen, &site, &grown, "the mark of its revision"),
        );
    }
    if let Some(failure) = view.failure_of(&["vzsnapshot", "vztemplate"]) {
        let message = format!(
            "Sealing failed (attempt {}): {}",
            failure.count, failure.message
        );
        if let Some(wait) = draft.pause(failure, C::Sealed, Reason::Snapshotting, message) {
            return Some(wait);
        }
    }
    match way {
        Seal::Snapshot => draft.step(
            C::Sealed,
            Reason::Snapshotting,
            Step::Snapshot {
                site,
                name: snapshot.clone(),
            },
        ),
        Seal::Linked | Seal::Converted if view.observed.converting => draft.wait(
            C::Sealed,
            Reason::Snapshotting,
            "Proxmox is converting the container into a template.",
            CONVERSION_RECHECK,
        ),
        Seal::Linked | Seal::Converted => {
            draft.step(C::Sealed, Reason::Snapshotting, Step::Convert { site })
        }
        // its mark was the seal
        Seal::Stopped => None,
    }
}

fn impossible(view: &View<'_>, way: Seal, name: &str) -> Option<(Reason, String)> {
    let foreign: Vec<&str> = view
        .observed
        .snapshots
        .iter()
        .map(String::as_str)
        .filter(|s| *s != name)
        .collect();
    if way == Seal::Linked
        && view
            .observed
            .storage
            .is_some_and(|s| s != StorageKind::Clones)
    {
        let message = "spec.snapshot.strategy is Linked, but its storage can't make linked clones; use Auto or Full.".to_owned();
        return Some((Reason::Invalid, message));
    }
    if matches!(way, Seal::Linked | Seal::Converted) && !foreign.is_empty() {
        let message = format!(
            "container {} has snapshots ({}) and Proxmox converts none that has; delete them (an automatic snapshot tool made them?).",
            view.target.vmid.unwrap_or_default(),
            foreign.join(", ")
        );
        return Some((Reason::HasSnapshots, message));
    }
    None
}

fn stop(view: &View<'_>, draft: &mut Draft, site: Site) -> Decision {
    if view.present.enters_guest() {
        if let Some(decision) = unavailable(view, draft, C::Sealed, Reason::Stopping) {
            return Some(decision);
        }
        match view.observed.guest.known() {
            None => {
                return draft.step(
                    C::Sealed,
                    Reason::Stopping,
                    Step::Guest {
                        site,
                        step: GuestStep::Inspect,
                    },
                );
            }
            Some(facts) if facts.state.is_some() => {
                return draft.step(
                    C::Sealed,
                    Reason::Stopping,
                    Step::Guest {
                        site,
                        step: GuestStep::Clean,
                    },
                );
            }
            Some(_) => {}
        }
    }
    if let Some(failure) = view.failure_of(&["vzshutdown", "vzstop"]) {
        let message = format!(
            "Stopping it failed (attempt {}): {}",
            failure.count, failure.message
        );
        if let Some(wait) = draft.pause(failure, C::Sealed, Reason::Stopping, message) {
            return Some(wait);
        }
    }
    let timeout = view.present.shutdown_timeout.min(ON_WAKE * 120);
    draft.step(
        C::Sealed,
        Reason::Stopping,
        Step::Shutdown {
            site,
            timeout,
            force: true,
        },
    )
}
