//! Setup runs: detached, once, with a result that survives everything but the container.

use std::time::Duration;

use super::pty::{Guest, shells, ways};
use super::{operate, setup};
use crate::guest::facts::SetupPhase;
use crate::guest::op::{GuestOp, SetupRun, SetupVariable};

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

fn variable(name: &str, value: &str) -> SetupVariable {
    SetupVariable {
        name: name.to_owned(),
        value: value.into(),
        masked: false,
    }
}

pub(super) fn secret(name: &str, value: &str) -> SetupVariable {
    SetupVariable {
        masked: true,
        ..variable(name, value)
    }
}

pub(super) const WAIT: GuestOp = GuestOp::AwaitSetup {
    limit: Duration::from_secs(30),
};

#[tokio::test]
async fn a_script_runs_with_its_environment_and_is_verified() {
    for shell in ways() {
        let guest = Guest::new(&shell);
        let run = SetupRun {
            verify: Some("#!/bin/sh\ntest \"$(cat $OUT)\" = done\n".to_owned()),
            env: vec![
                variable("OUT", &guest.path("out").display().to_string()),
                secret("TOKEN", "it's $HOME `x` \\ \"\nsecond\tline"),
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
    kill_run(&guest);
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

/// Whatever in the guest's file system holds the text.
fn found_in(guest: &Guest, text: &str) -> Vec<String> {
    let found = std::process::Command::new("grep")
        .args(["-rlF", "-e", text, guest.root()])
        .output()
        .unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    found.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn values_of_secrets_are_masked_while_it_runs_and_afterwards() {
    for shell in shells() {
        let guest = Guest::new(&shell);
        let stop = guest.path("stop");
        // whole, within a line, in parts of which one is a longer one's beginning, and as a shell traces it
        let script = format!(
            "#!/bin/bash\necho \"token=$TOKEN.\"\necho \"$PEM\"\necho \"$SHORT $PLAIN\"\nset -x; : \"$QUOTED\"; set +x\n\
             while [ ! -f '{}' ]; do sleep 0.1; done\nprintf %s \"again $TOKEN\"\n",
            stop.display()
        );
        let run = SetupRun {
            env: vec![
                secret("TOKEN", "s3cr/t.*[x]^$\\1&"),
                secret("PEM", "-----BEGIN\nMIIabc+/=\n-----END"),
                secret("SHORT", "MIIabc"),
                secret("QUOTED", "don't tell"),
                variable("PLAIN", "for everybody"),
            ],
            ..a_run("h1", &script)
        };
        operate(&guest, &GuestOp::StartSetup(run)).await.unwrap();
        let wait = GuestOp::AwaitSetup {
            limit: Duration::from_secs(1),
        };
        let mut state = setup(operate(&guest, &wait).await.unwrap());
        let begun = std::time::Instant::now();
        while !state.tail.contains("+ set +x") && begun.elapsed() < Duration::from_secs(20) {
            state = setup(operate(&guest, &wait).await.unwrap());
        }
        let expected = "token=***.\n***\n***\n***\n*** for everybody\n+ : '***'\n+ set +x";
        assert_eq!(state.phase, SetupPhase::Running, "{shell:?}");
        assert_eq!(state.tail, expected, "{shell:?}");
        let private = guest.path("run/phoenix-setup");
        let mode = |path: &std::path::Path| {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::metadata(path).unwrap().permissions().mode() & 0o777
        };
        assert_eq!(mode(&private), 0o700, "{shell:?}");
        assert_eq!(mode(&private.join("environment")), 0o600, "{shell:?}");
        assert_eq!(mode(&private.join("masks")), 0o600, "{shell:?}");

        std::fs::write(&stop, "").unwrap();
        let state = setup(operate(&guest, &WAIT).await.unwrap());
        assert_eq!(state.phase, SetupPhase::Verified, "{shell:?}");
        assert_eq!(state.tail, format!("{expected}\nagain ***"), "{shell:?}");
        for hidden in ["s3cr/t", "MIIabc", "don't tell"] {
            assert_eq!(found_in(&guest, hidden), [""; 0], "{shell:?}: {hidden}");
        }
        assert!(!private.exists(), "{shell:?}");
    }
}

/// Waits until the run's log has something in it.
async fn has_said_something(guest: &Guest) {
    let log = format!("var/lib/phoenix/{}/setup/log", super::key());
    let begun = std::time::Instant::now();
    while guest.read(&log).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_masked_any_more_is_not_shown() {
    let guest = Guest::new(&["bash"]);
    let run = SetupRun {
        env: vec![secret("TOKEN", "s3cret")],
        ..a_run("h1", "echo $TOKEN; sleep 60")
    };
    operate(&guest, &GuestOp::StartSetup(run)).await.unwrap();
    has_said_something(&guest).await;
    // the container was killed: what was in memory is gone
    kill_run(&guest);
    std::fs::remove_dir_all(guest.path("run/phoenix-setup")).unwrap();
    let state = setup(operate(&guest, &WAIT).await.unwrap());
    assert_eq!(state.phase, SetupPhase::Lost);
    assert!(
        state.tail.starts_with("(The log is not shown"),
        "{}",
        state.tail
    );
    // and it is not kept
    operate(
        &guest,
        &GuestOp::StartSetup(SetupRun {
            attempt: 2,
            ..a_run("h1", "true")
        }),
    )
    .await
    .unwrap();
    operate(&guest, &WAIT).await.unwrap();
    assert_eq!(found_in(&guest, "s3cret"), [""; 0]);
}

#[tokio::test]
async fn a_stop_in_order_leaves_no_secret() {
    let guest = Guest::new(&["bash"]);
    let run = SetupRun {
        env: vec![secret("TOKEN", "s3cret")],
        ..a_run("h1", "echo it is $TOKEN; exec sleep 60")
    };
    operate(&guest, &GuestOp::StartSetup(run)).await.unwrap();
    has_said_something(&guest).await;
    // as init does it: all that runs is asked to end
    let of_the_run = std::process::Command::new("pkill")
        .args(["-TERM", "-s", &claim(&guest).to_string()])
        .status()
        .unwrap();
    assert!(of_the_run.success());
    let state = setup(operate(&guest, &WAIT).await.unwrap());
    let begun = std::time::Instant::now();
    while guest.exists("run/phoenix-setup") {
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_ne!(state.phase, SetupPhase::Verified);
    assert_eq!(found_in(&guest, "s3cret"), [""; 0]);
    assert_eq!(
        guest.read(&format!("var/lib/phoenix/{}/setup/log", super::key())),
        "it is ***\n"
    );
}

#[tokio::test]
async fn no_variable_disturbs_the_run_itself() {
    let guest = Guest::new(&["bash"]);
    let names = [
        "d", "private", "limit", "code", "begun", "bounded", "line", "PATH",
    ];
    let run = SetupRun {
        env: names
            .iter()
            .map(|name| variable(name, "/nowhere"))
            .collect(),
        ..a_run("h1", "echo $d $limit $PATH")
    };
    operate(&guest, &GuestOp::StartSetup(run)).await.unwrap();
    let state = setup(operate(&guest, &WAIT).await.unwrap());
    assert_eq!(
        (state.phase, state.tail.as_str()),
        (SetupPhase::Verified, "/nowhere /nowhere /nowhere")
    );
}

/// The process of the run, which is its session's first.
fn claim(guest: &Guest) -> i32 {
    let claim = guest.read(&format!("var/lib/phoenix/{}/setup/started", super::key()));
    claim.split(' ').next().unwrap().parse().unwrap()
}

fn kill_run(guest: &Guest) {
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(-claim(guest)),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
}
