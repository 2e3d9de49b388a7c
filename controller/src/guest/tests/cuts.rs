//! Connections that break at any place: nothing happens twice, and repeating leads to the end.

use std::time::Duration;

use futures::StreamExt as _;

use super::pty::{Guest, Pty, shells};
use super::setup::a_run;
use super::{operate, operate_over, setup};
use crate::guest::error::GuestError;
use crate::guest::facts::SetupPhase;
use crate::guest::op::GuestOp;
use crate::guest::terminal::Terminal as _;

/// Repeats until it works. A session that a cut left to nobody is ended as its message says.
async fn until_done(guest: &Guest, op: &GuestOp, place: &str) {
    let mut last = String::new();
    for _ in 0..4 {
        match operate(guest, op).await {
            Ok(_) => return,
            Err(GuestError::ConsoleBusy { what }) => {
                last = what;
                let mut human = guest.attach();
                // The interrupt alone may end it.
                let _ = human.send(b"\x03\n").await;
                human.look().await;
                let _ = human.send(b"exit\n").await;
                human.look().await;
            }
            Err(error) => last = error.to_string(),
        }
    }
    panic!("{place}: {last}");
}

/// A setup whose first connection is cut, and which is then repeated.
async fn cut_and_repeat(shell: Vec<&'static str>, place: String, cut: impl FnOnce(Pty) -> Pty) {
    let guest = Guest::new(&shell);
    let script = format!("echo ran >> '{}'", guest.path("count").display());
    let op = GuestOp::StartSetup(a_run("h1", &script));
    match operate_over(cut(guest.attach()), &guest, &op).await {
        Ok(_) => {}
        Err(error) => assert!(matches!(error, GuestError::Lost { .. }), "{place}: {error}"),
    }
    until_done(&guest, &op, &place).await;
    let wait = GuestOp::AwaitSetup {
        limit: Duration::from_secs(20),
    };
    let state = setup(operate(&guest, &wait).await.unwrap());
    assert_eq!(state.phase, SetupPhase::Verified, "{place}");
    assert_eq!(guest.read("count"), "ran\n", "{place}");
}

/// From inside the first line that is typed to inside the inspection that ends the operation.
const SENT: [usize; 12] = [
    0, 20, 330, 700, 1300, 2000, 2900, 5000, 7303, 10_500, 12_000, 14_000,
];

#[tokio::test]
async fn a_cut_while_sending_never_runs_a_setup_twice() {
    for (index, shell) in shells().into_iter().enumerate() {
        let cuts = futures::stream::iter(SENT.map(|bytes| bytes + 7 * index));
        cuts.for_each_concurrent(4, |bytes| {
            let place = format!("{shell:?}, cut after {bytes} bytes sent");
            cut_and_repeat(shell.clone(), place, move |pty| {
                pty.breaks_after_sending(bytes)
            })
        })
        .await;
    }
}

/// From before the greeting to inside the inspection's output.
const RECEIVED: [usize; 8] = [0, 8, 60, 450, 560, 700, 900, 1100];

#[tokio::test]
async fn a_cut_while_receiving_never_runs_a_setup_twice() {
    for shell in shells() {
        let cuts = futures::stream::iter(RECEIVED);
        cuts.for_each_concurrent(4, |bytes| {
            let place = format!("{shell:?}, cut after {bytes} bytes received");
            cut_and_repeat(shell.clone(), place, move |pty| {
                pty.breaks_after_receiving(bytes)
            })
        })
        .await;
    }
}
