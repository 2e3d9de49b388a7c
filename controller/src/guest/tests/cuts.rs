//! Connections that break at any place: nothing happens twice, and repeating leads to the end.

use super::pty::{Guest, shells};
use super::setup::a_run;
use super::{operate, operate_over, setup};
use crate::guest::error::GuestError;
use crate::guest::facts::SetupPhase;
use crate::guest::op::GuestOp;
use crate::guest::terminal::Terminal as _;
use std::time::Duration;

/// Repeats until it works. A session that a cut left to nobody is ended as its message says.
async fn until_done(guest: &Guest, op: &GuestOp, place: &str) {
    let mut last = String::new();
    for _ in 0..4 {
        match operate(guest, op).await {
            Ok(_) => return,
            Err(GuestError::ConsoleBusy { what }) => {
                eprintln!("{place}: {what}");
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

#[tokio::test]
async fn a_cut_while_sending_never_runs_a_setup_twice() {
    for (index, shell) in shells().into_iter().enumerate() {
        // From inside the first line that is typed to inside the inspection that ends the operation.
        for bytes in [
            0, 20, 330, 360, 700, 1300, 2000, 2900, 5000, 7303, 9000, 10_500, 12_000, 14_000,
            17_000,
        ] {
            let bytes = bytes + 7 * index;
            let place = format!("{shell:?}, cut after {bytes} bytes sent");
            let guest = Guest::new(&shell);
            let script = format!("echo ran >> '{}'", guest.path("count").display());
            let op = GuestOp::StartSetup(a_run("h1", &script));
            match operate_over(guest.attach().breaks_after_sending(bytes), &guest, &op).await {
                Ok(_) => {}
                Err(error) => assert!(matches!(error, GuestError::Lost { .. }), "{place}: {error}"),
            }
            until_done(&guest, &op, &place).await;
            let state = setup(
                operate(
                    &guest,
                    &GuestOp::AwaitSetup {
                        limit: Duration::from_secs(20),
                    },
                )
                .await
                .unwrap(),
            );
            assert_eq!(state.phase, SetupPhase::Verified, "{place}");
            assert_eq!(guest.read("count"), "ran\n", "{place}");
        }
    }
}

#[tokio::test]
async fn a_cut_while_receiving_never_runs_a_setup_twice() {
    for shell in shells() {
        for bytes in [0, 8, 60, 450, 560, 620, 700, 800, 900, 1100] {
            let place = format!("{shell:?}, cut after {bytes} bytes received");
            let guest = Guest::new(&shell);
            let script = format!("echo ran >> '{}'", guest.path("count").display());
            let op = GuestOp::StartSetup(a_run("h1", &script));
            match operate_over(guest.attach().breaks_after_receiving(bytes), &guest, &op).await {
                Ok(_) => {}
                Err(error) => assert!(matches!(error, GuestError::Lost { .. }), "{place}: {error}"),
            }
            until_done(&guest, &op, &place).await;
            let state = setup(
                operate(
                    &guest,
                    &GuestOp::AwaitSetup {
                        limit: Duration::from_secs(20),
                    },
                )
                .await
                .unwrap(),
            );
            assert_eq!(state.phase, SetupPhase::Verified, "{place}");
            assert_eq!(guest.read("count"), "ran\n", "{place}");
        }
    }
}
