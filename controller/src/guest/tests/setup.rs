//! Setup runs: detached, once, with a result that survives everything but the container.

use std::time::Duration;

use secrecy::SecretString;

use super::pty::{Guest, ways};
use super::{operate, setup};
use crate::guest::facts::SetupPhase;
use crate::guest::op::{GuestOp, SetupRun};

pub(super) fn a_run(hash: &str, script: &str) -> SetupRun {
    SetupRun {
        hash: hash.to_owned(),
        attempt: 1,
        script: script.to_owned(),
        verify: None,
        env: Vec::new(),
        timeout: Duration::from_secs(60),
    }
}

const WAIT: GuestOp = GuestOp::AwaitSetup {
    limit: Duration::from_secs(30),
};

#[tokio::test]
async fn a_script_runs_with_its_environment_and_is_verified() {
    for shell in ways() {
        let guest = Guest::new(&shell);
        let run = SetupRun {
            verify: Some("#!/bin/sh\ntest \"$(cat $OUT)\" = done\n".to_owned()),
            env: vec![
                (
                    "OUT".to_owned(),
                    guest.path("out").display().to_string().into(),
                ),
                (
                    "TOKEN".to_owned(),
                    SecretString::from("it's $HOME `x` \\ \"\nsecond\tline"),
                ),
            ],
            ..a_run(
                "h1",
                "#!/usr/bin/env bash\nset -euo pipefail\nprintf '\\033[1mworking\\033[0m\\r\\n'; printf %s \"$TOKEN\" > $OUT.token; echo done > $OUT\n",
            )
        };
        operate(&guest, &GuestOp::StartSetup(run))
            .await
            .unwrap_or_else(|error| panic!("{shell:?}: {error}"));
        let state = setup(operate(&guest, &WAIT).await.unwrap());
        assert_eq!(state.phase, SetupPhase::Verified, "{shell:?}: {state:?}");
        assert_eq!(
            (state.hash.as_str(), state.attempt, state.tail.as_str()),
            ("h1", 1, "working"),
            "{shell:?}"
        );
        assert!(state.finished_at.unwrap() >= state.started_at, "{shell:?}");
        assert_eq!(
            guest.read("out.token"),
            "it's $HOME `x` \\ \"\nsecond\tline",
            "{shell:?}"
        );
        let left = std::process::Command::new("grep")
            .args(["-rlF", "second\tline", guest.root()])
            .output()
            .unwrap();
        let left = String::from_utf8(left.stdout).unwrap();
        assert_eq!(
            left.trim(),
            guest.path("out.token").display().to_string(),
            "{shell:?}: no secret is left behind"
        );
    }
}

#[tokio::test]
async fn each_way_to_fail_is_told_from_the_others() {
    let guest = Guest::new(&["bash"]);
    let rows = [
        (
            "fails",
            "echo before; echo why >&2; exit 3",
            None,
            60,
            SetupPhase::Exited { code: 3 },
        ),
        (
            "own 124",
            "exit 124",
            None,
            60,
            SetupPhase::Exited { code: 124 },
        ),
        (
            "killed",
            "kill -9 $$",
            None,
            60,
            SetupPhase::Exited { code: 137 },
        ),
        ("too long", "sleep 30", None, 1, SetupPhase::TimedOut),
        (
            "unverified",
            "true",
            Some("echo not there; exit 2"),
            60,
            SetupPhase::VerifyFailed { code: 2 },
        ),
        (
            "slow verify",
            "true",
            Some("sleep 30"),
            1,
            SetupPhase::VerifyFailed { code: 124 },
        ),
        (
            "no shebang, no newline",
            "exit 0",
            None,
            60,
            SetupPhase::Verified,
        ),
    ];
    for (name, script, verify, limit, phase) in rows {
        let run = SetupRun {
            verify: verify.map(str::to_owned),
            timeout: Duration::from_secs(limit),
            ..a_run(name, script)
        };
        operate(&guest, &GuestOp::StartSetup(run)).await.unwrap();
        let state = setup(operate(&guest, &WAIT).await.unwrap());
        assert_eq!((state.hash.as_str(), state.phase), (name, phase), "{name}");
        if name == "fails" {
            assert_eq!(state.tail, "before\nwhy");
        }
    }
}

#[tokio::test]
async fn the_same_run_is_never_repeated_and_the_next_attempt_is() {
    let guest = Guest::new(&["bash"]);
    let run = a_run(
        "h1",
        &format!("echo ran >> '{}'", guest.path("count").display()),
    );
    for _ in 0..3 {
        operate(&guest, &GuestOp::StartSetup(run.clone()))
            .await
            .unwrap();
        operate(&guest, &WAIT).await.unwrap();
    }
    assert_eq!(guest.read("count"), "ran\n");
    operate(&guest, &GuestOp::StartSetup(SetupRun { attempt: 2, ..run }))
        .await
        .unwrap();
    assert_eq!(setup(operate(&guest, &WAIT).await.unwrap()).attempt, 2);
    assert_eq!(guest.read("count"), "ran\nran\n");
}

#[tokio::test]
async fn a_run_under_way_is_left_alone_and_the_wait_keeps_its_limit() {
    let guest = Guest::new(&["bash"]);
    let stop = guest.path("stop");
    let script = format!("while [ ! -f '{}' ]; do sleep 0.1; done", stop.display());
    operate(&guest, &GuestOp::StartSetup(a_run("h1", &script)))
        .await
        .unwrap();
    let other = operate(&guest, &GuestOp::StartSetup(a_run("h2", "exit 9")))
        .await
        .unwrap();
    let state = setup(other);
    assert_eq!(
        (state.hash.as_str(), state.phase),
        ("h1", SetupPhase::Running)
    );
    let state = setup(
        operate(
            &guest,
            &GuestOp::AwaitSetup {
                limit: Duration::from_secs(1),
            },
        )
        .await
        .unwrap(),
    );
    assert_eq!(
        (state.phase, state.finished_at),
        (SetupPhase::Running, None)
    );
    std::fs::write(stop, "").unwrap();
    assert_eq!(
        setup(operate(&guest, &WAIT).await.unwrap()).phase,
        SetupPhase::Verified
    );
}

#[tokio::test]
async fn a_run_that_was_killed_is_lost_and_not_taken_for_running() {
    let guest = Guest::new(&["bash"]);
    operate(&guest, &GuestOp::StartSetup(a_run("h1", "sleep 60")))
        .await
        .unwrap();
    let claim = guest.read(&format!("var/lib/phoenix/{}/setup/started", super::key()));
    let pid: i32 = claim.split(' ').next().unwrap().parse().unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(-pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    let state = setup(operate(&guest, &WAIT).await.unwrap());
    assert_eq!((state.phase, state.finished_at), (SetupPhase::Lost, None));
    // The next attempt begins from scratch.
    operate(
        &guest,
        &GuestOp::StartSetup(SetupRun {
            attempt: 2,
            ..a_run("h1", "true")
        }),
    )
    .await
    .unwrap();
    assert_eq!(
        setup(operate(&guest, &WAIT).await.unwrap()).phase,
        SetupPhase::Verified
    );
}

#[tokio::test]
async fn systemd_runs_it_where_there_is_one() {
    let guest = Guest::new(&["bash"]);
    guest.command("systemctl", "echo running");
    guest.command(
        "systemd-run",
        "echo \"$*\" > $ROOT/asked; while [ \"$1\" != -- ]; do shift; done; shift; setsid \"$@\" &",
    );
    operate(&guest, &GuestOp::StartSetup(a_run("h1", "true")))
        .await
        .unwrap();
    assert_eq!(
        setup(operate(&guest, &WAIT).await.unwrap()).phase,
        SetupPhase::Verified
    );
    assert!(
        guest.read("asked").contains("--unit=phoenix-setup"),
        "{}",
        guest.read("asked")
    );
    guest.command(
        "systemd-run",
        "echo 'Failed to start transient service unit: no bus'; exit 1",
    );
    let error = operate(&guest, &GuestOp::StartSetup(a_run("h2", "true")))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no bus"), "{error}");
}

#[tokio::test]
async fn a_long_log_keeps_its_last_lines() {
    let guest = Guest::new(&["bash"]);
    let script = "i=0; while [ $i -lt 2000 ]; do echo \"line number $i\"; i=$((i+1)); done; printf '10%%\\r 50%%\\r100%%\\n'; exit 1";
    operate(&guest, &GuestOp::StartSetup(a_run("h1", script)))
        .await
        .unwrap();
    let state = setup(operate(&guest, &WAIT).await.unwrap());
    assert!(
        state.tail.len() <= 4096 && state.tail.len() > 3900,
        "{}",
        state.tail.len()
    );
    assert!(
        state.tail.ends_with("line number 1999\n100%"),
        "{}",
        state.tail
    );
    assert!(
        state.tail.starts_with("line number 1"),
        "whole lines: {}",
        &state.tail[..40]
    );
}
