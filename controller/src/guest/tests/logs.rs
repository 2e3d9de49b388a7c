//! A setup's log read beside whoever works in the container.

use std::time::Duration;

use super::pty::{Guest, Pty, shells};
use super::setup::{WAIT, a_run, secret};
use super::{TIMING, key, operate, setup};
use crate::guest::error::GuestError;
use crate::guest::facts::SetupPhase;
use crate::guest::log::{LogPiece, LogReader, Which};
use crate::guest::op::{GuestOp, SetupRun};
use crate::guest::shell::{Company, Shell};
use crate::guest::terminal::Terminal as _;

async fn try_reader(guest: &Guest) -> Result<LogReader<Pty>, GuestError> {
    let shell = Shell::enter(guest.attach(), Company::Unknown, TIMING).await?;
    Ok(LogReader::over(shell, guest.root(), &key()))
}

async fn reader(guest: &Guest) -> LogReader<Pty> {
    try_reader(guest).await.unwrap()
}

/// All pieces up to what is there now.
async fn all(reader: &mut LogReader<Pty>, which: Which) -> (LogPiece, String) {
    let mut bytes = Vec::new();
    loop {
        let piece = reader
            .read(which, bytes.len())
            .await
            .unwrap()
            .expect("a run");
        if piece.bytes.is_empty() {
            return (piece, String::from_utf8(bytes).unwrap());
        }
        bytes.extend(&piece.bytes);
    }
}

#[tokio::test]
async fn a_log_is_read_whole_while_the_operator_waits_for_its_end() {
    for shell in shells() {
        let guest = Guest::new(&shell);
        let stop = guest.path("stop");
        let script = format!(
            "echo begins with $TOKEN\nwhile [ ! -f '{}' ]; do sleep 0.1; done\necho ends\nprintf %s $TOKEN",
            stop.display()
        );
        let run = SetupRun {
            env: vec![secret("TOKEN", "s3cret")],
            ..a_run("h1", &script)
        };
        operate(&guest, &GuestOp::StartSetup(run)).await.unwrap();
        let reads = async {
            // two that come to a new session at once each take it for the other's
            while !guest.runs_our_loop() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let mut reader = reader(&guest).await;
            let mut seen = all(&mut reader, Which::Last).await;
            while seen.1.is_empty() {
                seen = all(&mut reader, Which::Last).await;
            }
            assert_eq!(
                (seen.0.attempt, seen.0.phase),
                (1, SetupPhase::Running),
                "{shell:?}"
            );
            assert_eq!(seen.1, "begins with ***\n", "{shell:?}");
            std::fs::write(&stop, "").unwrap();
            // the operator may end the session when it has seen the end
            loop {
                match reader.read(Which::Last, seen.1.len()).await {
                    Ok(Some(piece)) if !piece.phase.is_running() => return reader.close().await,
                    Ok(_) | Err(GuestError::Lost { .. }) if guest.has_session() => {}
                    _ => return,
                }
            }
        };
        let (waited, ()) = tokio::join!(operate(&guest, &WAIT), reads);
        let state = setup(waited.unwrap_or_else(|error| panic!("{shell:?}: {error}")));
        assert_eq!(state.phase, SetupPhase::Verified, "{shell:?}");

        let mut reader = reader(&guest).await;
        let (piece, text) = all(&mut reader, Which::Last).await;
        assert_eq!(piece.phase, SetupPhase::Verified, "{shell:?}");
        assert_eq!(text, "begins with ***\nends\n***", "{shell:?}");
        reader.close().await;
        assert!(
            !guest.has_session(),
            "{shell:?}: it made the session and ended it"
        );
    }
}

#[tokio::test]
async fn a_long_log_comes_in_pieces_and_whole() {
    for shell in shells() {
        let guest = Guest::new(&shell);
        let mut reader = reader(&guest).await;
        assert_eq!(
            reader.read(Which::Last, 0).await.unwrap(),
            None,
            "{shell:?}: no run yet"
        );
        reader.close().await;
        let script = "i=0; while [ $i -lt 20000 ]; do echo \"line number $i\"; i=$((i+1)); done; printf '\\377\\000no newline'; exit 3";
        operate(&guest, &GuestOp::StartSetup(a_run("h1", script)))
            .await
            .unwrap();
        operate(&guest, &WAIT).await.unwrap();
        let written =
            std::fs::read(guest.path(&format!("var/lib/phoenix/{}/setup/log", key()))).unwrap();
        let mut reader = self::reader(&guest).await;
        let mut bytes = Vec::new();
        while let Some(piece) = reader.read(Which::Last, bytes.len()).await.unwrap() {
            assert_eq!(piece.phase, SetupPhase::Exited { code: 3 }, "{shell:?}");
            if piece.bytes.is_empty() {
                break;
            }
            bytes.extend(piece.bytes);
        }
        assert!(
            bytes.len() > 300_000 && bytes == written,
            "{shell:?}: {}",
            bytes.len()
        );
        reader.close().await;
    }
}

#[tokio::test]
async fn the_log_of_the_attempt_before_is_kept() {
    let guest = Guest::new(&["bash"]);
    let first = a_run("h1", "echo why it failed; exit 7");
    for run in [
        first.clone(),
        SetupRun {
            attempt: 2,
            ..first
        },
    ] {
        operate(&guest, &GuestOp::StartSetup(run)).await.unwrap();
        operate(&guest, &WAIT).await.unwrap();
    }
    let mut reader = reader(&guest).await;
    let (piece, text) = all(&mut reader, Which::Previous).await;
    assert_eq!(
        (piece.attempt, piece.phase),
        (1, SetupPhase::Exited { code: 7 })
    );
    assert_eq!(text, "why it failed\n");
    let (piece, _) = all(&mut reader, Which::Last).await;
    assert_eq!(piece.attempt, 2);
    reader.close().await;
}

#[tokio::test]
async fn a_reader_gives_way_to_the_operator_and_to_a_human() {
    let guest = Guest::new(&["bash"]);
    operate(&guest, &GuestOp::StartSetup(a_run("h1", "echo said")))
        .await
        .unwrap();
    operate(&guest, &WAIT).await.unwrap();
    let mut first = reader(&guest).await;
    assert_eq!(all(&mut first, Which::Last).await.1, "said\n");
    // the operator takes over the reader's loop, and ends it when it has done its work
    operate(&guest, &GuestOp::Inspect).await.unwrap();
    let error = first.read(Which::Last, 0).await.unwrap_err();
    assert!(matches!(error, GuestError::Lost { .. }), "{error}");

    let mut human = guest.attach();
    human.look().await;
    human.send(b"echo half-").await.unwrap();
    human.look().await;
    let refused = try_reader(&guest).await;
    assert!(matches!(
        refused.map(drop),
        Err(GuestError::ConsoleBusy { .. })
    ));
    human.send(b"typed\n").await.unwrap();
    let seen = human.look().await;
    assert!(seen.contains("half-typed\r\n"), "{seen:?}");
}

#[tokio::test]
async fn a_reader_that_leaves_does_not_end_the_operators_session() {
    let guest = Guest::new(&["bash"]);
    let stop = guest.path("stop");
    let script = format!("while [ ! -f '{}' ]; do sleep 0.1; done", stop.display());
    operate(&guest, &GuestOp::StartSetup(a_run("h1", &script)))
        .await
        .unwrap();
    // it made the loop, and the operator came later
    let mut reader = reader(&guest).await;
    reader.read(Which::Last, 0).await.unwrap();
    let (waited, ()) = tokio::join!(operate(&guest, &WAIT), async {
        let patience = Duration::from_secs(20);
        let nobody = b"\n".as_slice();
        while reader
            .shell
            .ask("echo $N", "testing", patience)
            .await
            .unwrap()
            == nobody
        {}
        std::fs::write(&stop, "").unwrap();
        reader.close().await;
    });
    assert_eq!(setup(waited.unwrap()).phase, SetupPhase::Verified);
}
