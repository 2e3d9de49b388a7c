//! What else happens on a terminal: odd prompts, lines that are too long, keys that others press, bytes that change on their way, and a
//! container that goes down in the middle of it.

use std::time::Duration;

use super::pty::{Guest, Pty, shells};
use super::setup::{WAIT, a_run};
use super::simulated::Lab;
use super::{TIMING, operate, operate_over, setup};
use crate::guest::error::GuestError;
use crate::guest::facts::SetupPhase;
use crate::guest::op::{GuestOp, SetupRun};
use crate::guest::shell::{Company, Shell};
use crate::guest::terminal::{Terminal, TerminalError};

#[tokio::test]
async fn a_prompt_may_look_as_it_likes_if_it_ends_like_one() {
    let prompts = [
        r"PS1='\[\e[01;32m\]\u@\h\[\e[00m\]:\[\e[01;34m\]\w\[\e[00m\]\$ '",
        r"PS1='\[\e]0;\u@\h: \w\a\]ct> '",
        "PS1='% '",
        "PS1='#'; PROMPT_COMMAND=true",
    ];
    for prompt in prompts {
        let guest = Guest::new(&["bash"]);
        guest.write("root/.bashrc", &format!("{prompt}\n"));
        let facts = operate(&guest, &GuestOp::Inspect).await;
        facts.unwrap_or_else(|error| panic!("{prompt}: {error}"));
    }
    // what could be anything is nothing to type at
    let guest = Guest::new(&["bash"]);
    guest.write("root/.bashrc", "PS1='Your name, please: '\n");
    let error = operate(&guest, &GuestOp::Inspect).await.unwrap_err();
    assert!(matches!(error, GuestError::ConsoleBusy { .. }), "{error}");
}

#[tokio::test]
async fn a_line_beyond_the_terminals_limit_does_nothing_and_blocks_nobody() {
    for shell in shells() {
        let guest = Guest::new(&shell);
        let touched = guest.path("touched");
        let mut ours = Shell::open(guest.attach(), Company::Unknown, TIMING)
            .await
            .unwrap();
        let body = format!("touch '{}';: {}", touched.display(), "x".repeat(5000));
        let mut other = guest.attach();
        let line = format!("x {} {body}\n", body.len());
        other.send(line.as_bytes()).await.unwrap();
        let output = ours
            .run("echo still", &[], "testing", Duration::from_secs(5))
            .await
            .unwrap_or_else(|error| panic!("{shell:?}: {error}"));
        assert_eq!(output.bytes, b"still\n", "{shell:?}");
        assert!(!touched.exists(), "{shell:?}");
        ours.close().await;
    }
}

#[tokio::test]
async fn keys_that_others_press_meanwhile_neither_run_nor_spoil_anything() {
    for shell in shells() {
        let guest = Guest::new(&shell);
        let (count, touched) = (guest.path("count"), guest.path("touched"));
        let mut ours = Shell::open(guest.attach(), Company::Unknown, TIMING)
            .await
            .unwrap();
        let mut human = guest.attach();
        let keys = [
            format!("touch {}\n", touched.display()),
            "half a li".to_owned(),
            "\x1b[A\x1b[B\t\t".to_owned(),
            "\r\n\r\n".to_owned(),
            "x 3 abc\n".to_owned(),
            "$(reboot); `reboot`\n".to_owned(),
            "\x15".to_owned(),
            "ls\n".to_owned(),
        ];
        for (number, typed) in keys.iter().enumerate() {
            let script = format!("echo {number} >> '{}'; echo said {number}", count.display());
            let run = ours.run(&script, &[], "testing", Duration::from_secs(5));
            let types = async {
                for key in typed.as_bytes() {
                    human.send(&[*key]).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let (output, ()) = tokio::join!(run, types);
            let output = output.unwrap_or_else(|error| panic!("{shell:?}, {typed:?}: {error}"));
            assert_eq!(
                output.bytes,
                format!("said {number}\n").into_bytes(),
                "{shell:?}"
            );
        }
        let expected: Vec<String> = (0..keys.len()).map(|n| n.to_string()).collect();
        let ran = guest.read("count");
        assert_eq!(
            ran.lines().collect::<Vec<_>>(),
            expected,
            "{shell:?}: each once"
        );
        assert!(!touched.exists(), "{shell:?}");
        ours.close().await;
    }
}

/// A line on which one byte becomes another, as long as before.
struct Damaged {
    pty: Pty,
    /// What stands before the byte.
    after: &'static str,
    done: bool,
}

impl Terminal for Damaged {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), TerminalError> {
        let mut bytes = bytes.to_vec();
        let place = bytes
            .windows(self.after.len())
            .position(|at| at == self.after.as_bytes());
        if let Some(begin) = place.filter(|_| !self.done) {
            let byte = &mut bytes[begin + self.after.len()];
            *byte = if *byte == b'A' { b'B' } else { b'A' };
            self.done = true;
        }
        self.pty.send(&bytes).await
    }

    async fn resize(&mut self, cols: u16, rows: u16) -> Result<(), TerminalError> {
        self.pty.resize(cols, rows).await
    }

    async fn recv(&mut self) -> Result<Option<Vec<u8>>, TerminalError> {
        self.pty.recv().await
    }
}

#[tokio::test]
async fn what_arrives_damaged_is_not_used() {
    for shell in shells() {
        for (after, said) in [
            ("c=${c}", "the script arrived damaged"),
            ("f1=${f1}", "runner arrived damaged"),
            ("f2=${f2}", "script arrived damaged"),
        ] {
            let guest = Guest::new(&shell);
            let script = format!("echo ran >> '{}'", guest.path("count").display());
            let op = GuestOp::StartSetup(a_run("h1", &script));
            let line = Damaged {
                pty: guest.attach(),
                after,
                done: false,
            };
            let error = operate_over(line, &guest, &op).await.unwrap_err();
            assert!(error.to_string().contains(said), "{shell:?}: {error}");
            assert!(!guest.exists("count"), "{shell:?}, {after}");
            operate(&guest, &op).await.unwrap();
            operate(&guest, &WAIT).await.unwrap();
            assert_eq!(guest.read("count"), "ran\n", "{shell:?}, {after}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_stops_half_way_loses_its_run_and_says_so() {
    let lab = Lab::start().await;
    let guests = lab.simulator.guests().unwrap();
    let run = a_run(
        "h1",
        "echo begun >> /root/count; [ -e /root/again ] || sleep 600; echo ended >> /root/count",
    );
    let first = GuestOp::StartSetup(run.clone());
    lab.visit(&first).await.unwrap();
    let follow = GuestOp::AwaitSetup {
        limit: Duration::from_secs(60),
    };
    let (followed, ()) = tokio::join!(lab.visit(&follow), async {
        while guests.read_file(950, "/root/count").is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        lab.stop().await;
    });
    let error = followed.unwrap_err();
    assert!(
        matches!(
            error,
            GuestError::Lost { .. } | GuestError::Unreached { .. }
        ),
        "{error}"
    );
    lab.boot().await;
    // the same attempt is never run again, and is not taken for one that runs or ended well
    let state = setup(lab.visit(&first).await.unwrap());
    assert_eq!((state.attempt, state.phase), (1, SetupPhase::Lost));
    assert!(guests.write_file(950, "/root/again", ""));
    let second = GuestOp::StartSetup(SetupRun { attempt: 2, ..run });
    lab.visit(&second).await.unwrap();
    let state = setup(lab.visit(&follow).await.unwrap());
    assert_eq!((state.attempt, state.phase), (2, SetupPhase::Verified));
    assert_eq!(
        guests.read_file(950, "/root/count").as_deref(),
        Some("begun\nbegun\nended\n")
    );
    lab.simulator.stop().await;
}
