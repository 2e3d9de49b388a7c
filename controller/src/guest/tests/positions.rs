//! The console of a simulated Proxmox VE, cut at every class of position that a setup's start goes through: one run of the script each
//! time, and the right result.

use std::time::Duration;

use proxmox_simulator::guest::{Direction, GuestControl};
use proxmox_simulator::{CallEffect, Fault, Mishap, Simulator};

use super::setup;
use super::setup::{a_run, secret};
use super::simulated::Lab;
use crate::guest::GuestError;
use crate::guest::facts::SetupPhase;
use crate::guest::op::{GuestOp, SetupRun};

/// How the cut is made.
enum Cut {
    /// A call of the API breaks.
    Call(&'static str, &'static str, CallEffect),
    /// The console's proxy dies before it lets its client in.
    Unaccepted,
    /// After so many bytes, both ways together.
    After(usize),
    /// In what is typed: that many bytes beyond the first place of these.
    Typed(&'static str, usize),
    /// In what is shown: that many bytes beyond the beginning of these.
    Shown(&'static str, usize),
    /// In what is shown: that many bytes beyond the beginning of the n-th line that answers a script by this letter.
    Answer(char, usize, usize),
}

/// From before the ticket is asked for to the look that ends the operation.
const POSITIONS: [(&str, Cut); 27] = [
    (
        "before auth: the console is not asked for",
        Cut::Call("POST", "/termproxy", CallEffect::ResetBefore),
    ),
    (
        "before auth: the ticket is lost",
        Cut::Call("POST", "/termproxy", CallEffect::ResetAfter),
    ),
    (
        "before auth: the websocket does not come about",
        Cut::Call("GET", "/vncwebsocket", CallEffect::ResetBefore),
    ),
    ("in auth: the ticket is not answered", Cut::Unaccepted),
    ("after auth: nothing is shown yet", Cut::After(0)),
    ("after auth: within the cleared screen", Cut::After(4)),
    (
        "after auth: the prompt has been seen, nothing is typed",
        Cut::Typed("unset HISTFILE", 0),
    ),
    (
        "mid-command: within the line that makes our loop",
        Cut::Typed("exec sh -c", 40),
    ),
    (
        "mid-command: that line lacks its end",
        Cut::Typed("fi;done'", 8),
    ),
    (
        "mid-command: our loop has begun, unseen",
        Cut::Shown("phoenix-ready", 0),
    ),
    (
        "mid-command: within the words of greeting",
        Cut::Typed("g(){", 30),
    ),
    ("mid-command: greeted, unheard", Cut::Shown("\nH-", 1)),
    (
        "mid-command: within the first piece of the script",
        Cut::Typed("c=${c}", 100),
    ),
    ("mid-command: between two pieces", Cut::Shown("\nK2-", 1)),
    (
        "mid-command: within the setup's own script",
        Cut::Typed("f2=${f2}", 12),
    ),
    (
        "mid-command: within its environment",
        Cut::Typed("f4=${f4}", 12),
    ),
    (
        "mid-command: all but the line that starts it",
        Cut::Typed("&&r ", 0),
    ),
    ("mid-command: within that line", Cut::Typed("&&r ", 20)),
    (
        "mid-command: that line lacks its end",
        Cut::Typed("&&r ", 70),
    ),
    ("mid-output: it runs, unheard", Cut::Answer('B', 1, 0)),
    ("mid-output: it is heard to run", Cut::Answer('B', 1, 30)),
    ("before exit status", Cut::Answer('E', 1, 0)),
    ("within exit status", Cut::Answer('E', 1, 9)),
    ("after exit status", Cut::Answer('E', 1, 30)),
    (
        "mid-output: of the look that follows",
        Cut::Answer('B', 2, 200),
    ),
    ("before exit status: of that look", Cut::Answer('E', 2, 0)),
    (
        "after all: before the end of the session",
        Cut::Typed("\nexit", 1),
    ),
];

impl Cut {
    async fn set(&self, simulator: &Simulator, guests: &GuestControl) {
        match self {
            Self::Call(method, path, effect) => {
                simulator.inject(Fault::call(method, path, effect.clone()));
            }
            Self::Unaccepted => dead(simulator, true).await,
            Self::After(bytes) => guests.cut_consoles_after(Some(*bytes)),
            Self::Typed(words, beyond) => {
                let (words, beyond) = (*words, *beyond);
                guests.cut_console_at(Direction::Typed, move |typed| {
                    reached(typed, find(typed, words)?, beyond)
                });
            }
            Self::Shown(words, beyond) => {
                let (words, beyond) = (*words, *beyond);
                guests.cut_console_at(Direction::Shown, move |shown| {
                    reached(shown, find(shown, words)?, beyond)
                });
            }
            Self::Answer(letter, nth, beyond) => {
                let (letter, nth, beyond) = (*letter, *nth, *beyond);
                guests.cut_console_at(Direction::Shown, move |shown| {
                    reached(shown, answer(shown, letter, nth)?, beyond)
                });
            }
        }
    }

    async fn heal(&self, simulator: &Simulator, guests: &GuestControl) {
        match self {
            Self::Unaccepted => dead(simulator, false).await,
            Self::After(_) => guests.cut_consoles_after(None),
            _ => {}
        }
    }
}

async fn dead(simulator: &Simulator, dead: bool) {
    simulator
        .suffer(Mishap::DeadConsoles { dead })
        .await
        .unwrap();
}

fn find(gone: &[u8], words: &str) -> Option<usize> {
    gone.windows(words.len())
        .position(|at| at == words.as_bytes())
}

/// The place, once all up to it has gone.
fn reached(gone: &[u8], begin: usize, beyond: usize) -> Option<usize> {
    (gone.len() > begin + beyond).then_some(begin + beyond)
}

/// Where the n-th line begins that is this letter with a number: base64 has no dash.
fn answer(shown: &[u8], letter: char, nth: usize) -> Option<usize> {
    let text = String::from_utf8_lossy(shown);
    let begins = |line: &str| {
        line.strip_prefix(letter)
            .and_then(|rest| rest.split_once('-'))
            .is_some_and(|(number, _)| {
                !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
            })
    };
    let lines = text
        .match_indices('\n')
        .filter(|(at, _)| begins(&text[at + 1..]));
    lines.map(|(at, _)| at + 1).nth(nth - 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_at_any_position_leaves_one_run_and_its_result() {
    let lab = Lab::start().await;
    let guests = lab.simulator.guests().unwrap();
    let mut expected = Vec::new();
    for (number, (position, cut)) in POSITIONS.iter().enumerate() {
        let op = GuestOp::StartSetup(SetupRun {
            env: vec![secret("NUMBER", &number.to_string())],
            ..a_run(
                &format!("h{number}"),
                "echo $NUMBER >> /root/count; echo said",
            )
        });
        cut.set(&lab.simulator, guests).await;
        match lab.visit(&op).await {
            Ok(_) => {}
            Err(error) => assert!(
                matches!(
                    error,
                    GuestError::Lost { .. }
                        | GuestError::Unreached { .. }
                        // an end before the ticket is answered looks like a host that grants tokens no console
                        | GuestError::ConsoleRefused { .. }
                ),
                "{position}: {error}"
            ),
        }
        assert!(
            !guests.waits_to_cut_console(),
            "{position}: it was not reached"
        );
        cut.heal(&lab.simulator, guests).await;
        // a shell left at its prompt is taken over only when surely nobody is at it
        let mut again = lab.visit(&op).await;
        if matches!(again, Err(GuestError::ConsoleBusy { .. })) {
            again = lab.visit(&op).await;
        }
        again.unwrap_or_else(|error| panic!("{position}: {error}"));
        let wait = GuestOp::AwaitSetup {
            limit: Duration::from_secs(30),
        };
        let facts = lab.visit(&wait).await;
        let state = setup(facts.unwrap_or_else(|error| panic!("{position}: {error}")));
        assert_eq!(state.hash, format!("h{number}"), "{position}");
        assert_eq!(
            (&state.phase, state.tail.as_str()),
            (&SetupPhase::Verified, "said"),
            "{position}"
        );
        expected.push(number.to_string());
        let ran = guests.read_file(950, "/root/count").unwrap_or_default();
        assert_eq!(ran.lines().collect::<Vec<_>>(), expected, "{position}");
    }
    lab.simulator.stop().await;
}
