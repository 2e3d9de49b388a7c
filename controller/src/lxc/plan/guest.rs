//! What is done inside once: the boot waited for, a clone made a machine of its own, the setup run and verified.

use std::time::Duration;

use phoenix_crds::conditions::{ConditionType as C, Reason};
use proxmox_client::CtConfig;

use super::{Decision, Draft, ON_WAKE, View, config::write_mark};
use crate::{
    engine::Verdict,
    guest::{GuestFacts, SetupPhase, SetupState},
    lxc::{
        desired::{Role, Setup, Source},
        mark::Mark,
        step::{GuestStep, Step},
    },
};

/// A container that has not got init and a way out after so long has a fault that a person should see.
const BOOT_PATIENCE: u64 = 300;
/// Docker's last resort.
const VFS: &str = "Done, but Docker stores images with vfs, which keeps a full copy for each layer: slow, and the disk fills. overlay2 needs \
                   OpenZFS 2.2 or newer on the node; with an older one set features.nesting, keyctl and fuse, install fuse-overlayfs, and build anew.";
/// Facts older than this are asked for again before something is decided on them.
const FRESH: Duration = Duration::from_secs(20);

/// The setup is done, and the mark says so.
pub(super) fn set_up(view: &View<'_>, draft: &mut Draft) -> Decision {
    let (mark, seen, site) = (view.mark()?, view.seen()?, view.site()?);
    if mark.setup.as_deref() == Some(view.present.setup_mark.as_str()) {
        draft.met(C::SetupComplete, Reason::Succeeded, advice(view));
        return None;
    }
    if let Role::Container { running: false, .. } = view.present.role {
        // asked to be stopped: what has to be done inside waits until it shall run
        return None;
    }
    if !view.present.enters_guest() {
        return grow(view, draft, mark);
    }
    if !seen.running() {
        return super::serve::start(view, draft, &site);
    }
    if let Some(decision) = inside(view, draft) {
        return Some(decision);
    }
    grow(view, draft, mark)
}

/// What the setup left that somebody should know, though nothing waits for it. A guest that can't be asked any more, such as a sealed
/// template's, is what it was.
pub(super) fn advice(view: &View<'_>) -> String {
    let reported = &view.observed.reported.advice;
    match view.observed.guest.known() {
        None => reported.clone(),
        Some(facts) => match facts.docker_storage.as_deref() {
            Some("vfs") => VFS.to_owned(),
            // a Docker that doesn't answer just now still has what it had
            None if reported == VFS => reported.clone(),
            _ => String::new(),
        },
    }
}

fn grow(view: &View<'_>, draft: &mut Draft, mark: &Mark) -> Decision {
    let (seen, site) = (view.seen()?, view.site()?);
    let grown = Mark {
        setup: Some(view.present.setup_mark.clone()),
        ..mark.clone()
    };
    draft.step(
        C::SetupComplete,
        Reason::Running,
        write_mark(seen, &site, &grown, "the mark that the setup is done"),
    )
}

/// Everything inside, one operation after the other; `None` when all is done.
fn inside(view: &View<'_>, draft: &mut Draft) -> Decision {
    if let Some(decision) = unavailable(view, draft, C::SetupComplete, Reason::Waiting) {
        return Some(decision);
    }
    let network = has_way_out(&view.seen()?.config);
    let Some(facts) = view.observed.guest.known().filter(|f| f.booted(network)) else {
        return boot(view, draft);
    };
    let state = facts.state.as_ref();
    if matches!(view.present.source, Source::Template(_)) && !state.is_some_and(|s| s.personalised)
    {
        return guest(view, draft, Reason::Running, GuestStep::Personalise);
    }
    if view.observed.ssh_key.is_some() && facts.ssh_key == Some(false) {
        return guest(view, draft, Reason::Running, GuestStep::Authorize);
    }
    if let Some(decision) = super::gpu::driver_before_setup(view, draft) {
        return Some(decision);
    }
    let setup = view.present.setup.as_ref()?;
    match state
        .and_then(|s| s.setup.as_ref())
        .filter(|run| run.hash == setup.hash)
    {
        None => guest(
            view,
            draft,
            Reason::Running,
            GuestStep::StartSetup { attempt: 1 },
        ),
        Some(run) => judge(view, draft, setup, run),
    }
}

/// The guest can't be entered just now: an operation is under way, the console is a human's, or the last try failed.
pub(super) fn unavailable(
    view: &View<'_>,
    draft: &mut Draft,
    condition: C,
    reason: Reason,
) -> Decision {
    let guest = &view.observed.guest;
    if let Some(busy) = guest.busy {
        let message = match running_setup(view) {
            Some(run) => progress(run),
            None => format!("In the guest: {busy}."),
        };
        let reason = if condition == C::SetupComplete && running_setup(view).is_some() {
            Reason::Running
        } else {
            reason
        };
        return draft.wait(condition, reason, message, ON_WAKE);
    }
    let trouble = guest.trouble.as_ref()?;
    let left = trouble.pause_left()?;
    if let Some(console) = &guest.console_busy {
        return draft.wait(condition, Reason::ConsoleBusy, console.clone(), left);
    }
    let message = format!(
        "{} in the guest failed (attempt {}): {}",
        trouble.what, trouble.count, trouble.message
    );
    draft.wait(condition, reason, message, left)
}

/// How long until a run that failed is tried again; `None` when it is time.
pub(super) fn pause_left(view: &View<'_>, run: &SetupState) -> Option<Duration> {
    let age = view.observed.guest.age().unwrap_or_default();
    let pause = Duration::from_secs(2u64.saturating_pow(run.attempt).min(120));
    pause.checked_sub(age).filter(|left| !left.is_zero())
}

fn running_setup<'a>(view: &View<'a>) -> Option<&'a SetupState> {
    let hash = &view.present.setup.as_ref()?.hash;
    let run = view
        .observed
        .guest
        .known()?
        .state
        .as_ref()?
        .setup
        .as_ref()?;
    (run.hash == *hash && run.phase.is_running()).then_some(run)
}

fn progress(run: &SetupState) -> String {
    let last = last_line(&run.tail).unwrap_or_default();
    let doing = if run.phase == SetupPhase::Verifying {
        "Verifying the setup"
    } else {
        "The setup script is running"
    };
    if last.is_empty() {
        format!("{doing} (attempt {}).", run.attempt)
    } else {
        format!("{doing} (attempt {}): {}", run.attempt, clip(last))
    }
}

/// The last line that says something.
pub(super) fn last_line(text: &str) -> Option<&str> {
    text.lines().rev().find(|l| !l.trim().is_empty())
}

/// What fits a condition's message.
pub(super) fn clip(line: &str) -> String {
    line.trim().chars().take(160).collect()
}

fn boot(view: &View<'_>, draft: &mut Draft) -> Decision {
    let up = view.seen()?.status.uptime.unwrap_or_default();
    let network = has_way_out(&view.seen()?.config);
    if let (true, Some(facts)) = (up > BOOT_PATIENCE, view.observed.guest.known()) {
        let message = format!("The container has run for {up} s, but {}.", lacking(facts));
        draft.stalled(C::SetupComplete, Reason::Waiting, message);
        // it is looked at again all the same: a network comes back
        let age = view.observed.guest.age().unwrap_or_default();
        return Some(match FRESH.checked_sub(age) {
            Some(left) => Verdict::Wait {
                until: left.max(Duration::from_secs(1)),
            },
            None => Verdict::Do(Step::Guest {
                site: view.site()?,
                step: GuestStep::AwaitBoot { network },
            }),
        });
    }
    guest(
        view,
        draft,
        Reason::Waiting,
        GuestStep::AwaitBoot { network },
    )
}

/// Some interface has a gateway or asks for one; without that a default route would be waited for in vain.
fn has_way_out(config: &CtConfig) -> bool {
    let asks = |value: Option<&str>| matches!(value, Some("dhcp" | "auto"));
    config.nets().values().any(|n| {
        n.get("gw").is_some() || n.get("gw6").is_some() || asks(n.get("ip")) || asks(n.get("ip6"))
    })
}

fn lacking(facts: &GuestFacts) -> String {
    if !facts.init.is_up() {
        format!(
            "its init is not up ({:?}); look at `systemctl list-jobs` inside",
            facts.init
        )
    } else if !facts.default_route {
        "it has no default route; check spec.network's gateway, or the DHCP server".to_owned()
    } else {
        "it has no name server; check spec.dns, or the DHCP server".to_owned()
    }
}

fn guest(view: &View<'_>, draft: &mut Draft, reason: Reason, step: GuestStep) -> Decision {
    let site = view.site()?;
    draft.step(C::SetupComplete, reason, Step::Guest { site, step })
}

fn judge(view: &View<'_>, draft: &mut Draft, setup: &Setup, run: &SetupState) -> Decision {
    let how = match &run.phase {
        SetupPhase::Verified => return None,
        SetupPhase::Running | SetupPhase::Verifying => {
            draft.working(C::SetupComplete, Reason::Running, progress(run));
            return Some(Verdict::Do(Step::Guest {
                site: view.site()?,
                step: GuestStep::AwaitSetup,
            }));
        }
        SetupPhase::Exited { code } => format!("the setup script ended with exit code {code}"),
        SetupPhase::TimedOut => format!(
            "the setup script was ended after {} s",
            setup.timeout.as_secs()
        ),
        SetupPhase::VerifyFailed { code } => {
            format!("the setup script ended well, but its verification ended with exit code {code}")
        }
        SetupPhase::Lost => {
            "the setup run was lost (the container was stopped meanwhile, or somebody ended it)"
                .to_owned()
        }
    };
    let reason = if run.phase == SetupPhase::TimedOut {
        Reason::TimedOut
    } else {
        Reason::Failed
    };
    let last = last_line(&run.tail).map(clip).unwrap_or_default();
    let message = format!(
        "In attempt {} of {}, {how}; it last said: {last:?}.",
        run.attempt,
        setup.retries + 1
    );
    if run.attempt > setup.retries {
        let message = format!(
            "{message} Its last lines are in status.setup; correct the script and it runs again."
        );
        return draft.blocked(C::SetupComplete, reason, message);
    }
    match pause_left(view, run) {
        Some(left) => draft.wait(C::SetupComplete, reason, message, left),
        None => {
            draft.working(C::SetupComplete, reason, message);
            Some(Verdict::Do(Step::Guest {
                site: view.site()?,
                step: GuestStep::StartSetup {
                    attempt: run.attempt + 1,
                },
            }))
        }
    }
}
