//! Whose session it is, and that what is ours does exactly what it is told.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::pty::{Guest, shells};
use super::{TIMING, key, operate};
use crate::guest::error::GuestError;
use crate::guest::facts::InitState;
use crate::guest::greeting::{MARK, Verdict, judge};
use crate::guest::op::GuestOp;
use crate::guest::run_in;
use crate::guest::script::Place;
use crate::guest::shell::{Company, Shell};
use crate::guest::terminal::Terminal as _;

/// What a real Proxmox VE 9.2 sent (recorded), after a new connection and one change of the window's size.
#[test]
fn recorded_greetings_are_told_apart() {
    let rows: [(&str, &[u8], Verdict); 12] = [
        ("cleared screen", b"\x1b[H\x1b[J", Verdict::Silent),
        ("half a cleared screen", b"\x1b[H\x1b", Verdict::Silent),
        (
            "new ash",
            b"\x1b[H\x1b[J\r\r\n\r\r\nBusyBox v1.35.0 (Debian 1:1.35.0-4+deb12u1+b1) built-in shell (ash)\r\r\nEnter 'help' for a list of built-in commands.\r\r\n\r\r\n/ # \x1b[6n",
            Verdict::Fresh,
        ),
        (
            "new ash, half its banner",
            b"\x1b[H\x1b[J\r\r\n\r\r\nBusyBox v1.35.0 (Debian 1:1.35.0-4+deb12u1+b1) built-in shell (ash)\r\r\n",
            Verdict::Unclear,
        ),
        ("new bash", b"\x1b[H\x1b[J\x1b[?2004hroot@dtb:/# ", Verdict::Fresh),
        ("new dash", b"\x1b[H\x1b[J# ", Verdict::Fresh),
        (
            "joined idle ash",
            b"\x1b[H\x1b[J\r/ # \x1b[J",
            Verdict::Foreign("a shell waits at its prompt, perhaps with half a command typed"),
        ),
        (
            "joined bash with half a command",
            b"\x1b[H\x1b[J\r\x1b[K\rroot@dtb:/# echo half-typed",
            Verdict::Foreign("a shell waits at its prompt, perhaps with half a command typed"),
        ),
        ("our loop", b"\x1b[H\x1b[Jphoenix-loop-1\r\r\n", Verdict::OurLoop),
        ("the echo of our loop being typed", b"trap \"W=1;echo $P-loop-1\" WINCH\r\r\n", Verdict::Unclear),
        (
            "a human's program that ends just now",
            b"\x1b[H\x1b[Jtotal 0\r\r\n\x1b[?2004hroot@dtb:/# ",
            Verdict::Foreign("a shell in use has just printed something"),
        ),
        (
            "stopped container",
            b"\x1b[H\x1b[Jlxc-attach: 160: ../src/lxc/attach.c: get_attach_context: 406 Connection refused - Failed to get init pid\r\n\x1b[999H\r\n[EOF - dtach terminating]\r\n\x1b[?25h",
            Verdict::NoShell(
                "lxc-attach: 160: ../src/lxc/attach.c: get_attach_context: 406 Connection refused - Failed to get init pid".to_owned(),
            ),
        ),
    ];
    for (name, seen, verdict) in rows {
        assert_eq!(judge(seen), verdict, "{name}");
    }
}

#[tokio::test]
async fn a_fresh_session_is_used_and_ended() {
    for shell in shells() {
        let guest = Guest::new(&shell);
        let facts = operate(&guest, &GuestOp::Inspect)
            .await
            .unwrap_or_else(|error| panic!("{shell:?}: {error}"));
        assert_eq!(facts.init, InitState::NoSystemd, "{shell:?}");
        assert!(
            facts.default_route && facts.resolves,
            "{shell:?}: {facts:?}"
        );
        assert_eq!(facts.os.as_deref(), Some("Ubuntu 24.04.3 LTS"), "{shell:?}");
        assert_eq!(facts.state, None, "{shell:?}: looking leaves no trace");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!guest.has_session(), "{shell:?}: the session is ended");
        assert!(!guest.exists("var/lib/phoenix"), "{shell:?}");
        assert!(!guest.exists("root/.bash_history"), "{shell:?}");
    }
}

#[tokio::test]
async fn output_and_status_come_back_as_they_are() {
    for shell in shells() {
        let guest = Guest::new(&shell);
        let mut ours = Shell::open(guest.attach(), Company::Unknown, TIMING)
            .await
            .unwrap();
        let mut run = async |script: &str| {
            ours.run(script, &[], "testing", Duration::from_secs(5))
                .await
                .unwrap()
        };
        let plain = run("echo hello; exit 7").await;
        assert_eq!(
            (plain.exit, plain.bytes.as_slice()),
            (7, &b"hello\n"[..]),
            "{shell:?}"
        );
        let odd = run(r"printf '\033[31mred\033[0m\r\n=5\nno newline\377'; false").await;
        assert_eq!(
            (odd.exit, odd.bytes.as_slice()),
            (1, &b"\x1b[31mred\x1b[0m\r\n=5\nno newline\xff"[..]),
            "{shell:?}"
        );
        let mark = run(&format!("echo {MARK}; echo E1-x 5; echo exit")).await;
        assert_eq!(
            mark.bytes,
            format!("{MARK}\nE1-x 5\nexit\n").into_bytes(),
            "{shell:?}"
        );
        assert_ne!(
            run("if then").await.exit,
            0,
            "{shell:?}: a syntax error ends the script alone"
        );
        let long = run("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done").await;
        assert_eq!(long.bytes.split(|b| *b == b'\n').count(), 3001, "{shell:?}");
        let input = run("cat; read -r x; echo \"<$x>\"").await;
        assert_eq!(
            input.bytes, b"<>\n",
            "{shell:?}: scripts don't read our lines"
        );
        ours.close().await;
    }
}

#[tokio::test]
async fn files_arrive_unharmed() {
    let bytes: Vec<u8> = (0..40_000u32)
        .map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap())
        .collect();
    for shell in shells() {
        let guest = Guest::new(&shell);
        let target = guest.path("file");
        let mut ours = Shell::open(guest.attach(), Company::Unknown, TIMING)
            .await
            .unwrap();
        let script = format!(
            "printf %s \"$f2\" | base64 -d > '{}'; printf %s \"$f1\" | base64 -d",
            target.display()
        );
        let files: [&[u8]; 2] = [b"first", &bytes];
        let output = ours
            .run(&script, &files, "testing", Duration::from_secs(10))
            .await
            .unwrap();
        assert_eq!(output.bytes, b"first", "{shell:?}");
        assert_eq!(std::fs::read(target).unwrap(), bytes, "{shell:?}");
        ours.close().await;
    }
}

#[tokio::test]
async fn nothing_is_typed_into_a_humans_shell() {
    let guest = Guest::new(&["bash"]);
    let mut human = guest.attach();
    human.look().await;
    human.send(b"echo half-").await.unwrap();
    human.look().await;
    let error = operate(&guest, &GuestOp::Inspect).await.unwrap_err();
    assert!(
        matches!(&error, GuestError::ConsoleBusy { what } if what.contains("prompt")),
        "{error}"
    );
    assert!(error.to_string().contains("type `exit`"), "{error}");
    human.look().await;
    human.send(b"typed\n").await.unwrap();
    let seen = human.look().await;
    assert!(
        seen.contains("\nhalf-typed\r\n") || seen.contains("\rhalf-typed\r\n"),
        "the human's line is as he typed it: {seen:?}"
    );
    human.send(b"exit\n").await.unwrap();
    human.look().await;
    operate(&guest, &GuestOp::Inspect)
        .await
        .expect("after the human's exit the console is free");
}

#[tokio::test]
async fn a_shell_that_nobody_is_at_is_taken_over_with_its_half_typed_line_gone() {
    for shell in shells().into_iter().filter(|shell| shell[0] != "dash") {
        let guest = Guest::new(&shell);
        let touched = guest.path("touched");
        let mut human = guest.attach();
        human.look().await;
        human
            .send(format!("touch {};", touched.display()).as_bytes())
            .await
            .unwrap();
        human.look().await;
        drop(human);
        let key = key();
        let place = Place {
            root: guest.root(),
            key: &key,
            ssh_key: None,
        };
        let busy = run_in(
            guest.attach(),
            place,
            &GuestOp::Inspect,
            Company::Unknown,
            TIMING,
        )
        .await;
        assert!(
            matches!(busy, Err(GuestError::ConsoleBusy { .. })),
            "{shell:?}"
        );
        let facts = run_in(
            guest.attach(),
            place,
            &GuestOp::Inspect,
            Company::Nobody,
            TIMING,
        )
        .await;
        facts.unwrap_or_else(|error| panic!("{shell:?}: {error}"));
        assert!(!touched.exists(), "{shell:?}");
    }
}

#[tokio::test]
async fn a_program_is_left_alone_even_where_nobody_is_at_it() {
    let guest = Guest::new(&["bash"]);
    let mut human = guest.attach();
    human.look().await;
    human.send(b"cat > /dev/null\n").await.unwrap();
    human.look().await;
    drop(human);
    let key = key();
    let place = Place {
        root: guest.root(),
        key: &key,
        ssh_key: None,
    };
    let busy = run_in(
        guest.attach(),
        place,
        &GuestOp::Inspect,
        Company::Nobody,
        TIMING,
    )
    .await;
    assert!(
        matches!(busy, Err(GuestError::ConsoleBusy { .. })),
        "{busy:?}"
    );
}

#[tokio::test]
async fn a_running_program_is_left_alone() {
    let tried = shells().into_iter().map(async |shell| {
        let guest = Guest::new(&shell);
        let mut human = guest.attach();
        human.look().await;
        human.send(b"cat > /dev/null\n").await.unwrap();
        human.look().await;
        let error = operate(&guest, &GuestOp::Inspect).await.unwrap_err();
        assert!(
            matches!(error, GuestError::ConsoleBusy { .. }),
            "{shell:?}: {error}"
        );
    });
    futures::future::join_all(tried).await;
}

#[tokio::test]
async fn a_loop_that_was_left_behind_is_taken_up() {
    for shell in shells() {
        let guest = Guest::new(&shell);
        let left = Shell::open(guest.attach(), Company::Unknown, TIMING)
            .await
            .unwrap();
        drop(left);
        assert!(guest.has_session());
        operate(&guest, &GuestOp::Inspect)
            .await
            .unwrap_or_else(|error| panic!("{shell:?}: {error}"));
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!guest.has_session(), "{shell:?}");
    }
}

#[tokio::test]
async fn a_connection_that_was_overtaken_does_nothing_more() {
    let guest = Guest::new(&["bash"]);
    let mut first = Shell::open(guest.attach(), Company::Unknown, TIMING)
        .await
        .unwrap();
    let mut second = Shell::open(guest.attach(), Company::Unknown, TIMING)
        .await
        .unwrap();
    let touched = guest.path("touched");
    let script = format!("echo x >> '{}'", touched.display());
    let error = first
        .run(&script, &[], "testing", Duration::from_secs(1))
        .await
        .unwrap_err();
    assert!(matches!(error, GuestError::Timeout { .. }), "{error}");
    assert!(!touched.exists());
    second
        .run(&script, &[], "testing", Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!(std::fs::read_to_string(&touched).unwrap(), "x\n");
    second.close().await;
}

#[tokio::test]
async fn what_a_human_types_into_our_loop_does_nothing_and_exit_ends_it() {
    let guest = Guest::new(&["bash"]);
    let touched = guest.path("touched");
    let left = Shell::open(guest.attach(), Company::Unknown, TIMING)
        .await
        .unwrap();
    drop(left);
    let mut human = guest.attach();
    assert!(human.look().await.contains(MARK));
    human
        .send(format!("touch {}\n", touched.display()).as_bytes())
        .await
        .unwrap();
    human.look().await;
    assert!(!touched.exists());
    human.send(b"exit\n").await.unwrap();
    assert!(human.look().await.contains("dtach terminating"));
}

#[tokio::test]
async fn a_wait_that_was_left_behind_gives_way() {
    let guest = Guest::new(&["bash"]);
    guest.write("etc/resolv.conf", "");
    let op = GuestOp::AwaitBoot {
        network: true,
        limit: Duration::from_secs(60),
    };
    let waiting = operate(&guest, &op);
    assert!(
        tokio::time::timeout(Duration::from_millis(1500), waiting)
            .await
            .is_err(),
        "it waits"
    );
    let begun = Instant::now();
    let facts = operate(&guest, &GuestOp::Inspect).await.unwrap();
    assert!(!facts.resolves);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn the_boot_is_awaited_and_the_limit_kept() {
    let guest = Guest::new(&["bash"]);
    guest.write("etc/resolv.conf", "");
    let op = GuestOp::AwaitBoot {
        network: true,
        limit: Duration::from_secs(2),
    };
    let begun = Instant::now();
    assert!(!operate(&guest, &op).await.unwrap().booted(true));
    assert!(begun.elapsed() >= Duration::from_secs(2));
    let op = GuestOp::AwaitBoot {
        network: true,
        limit: Duration::from_secs(60),
    };
    let (facts, ()) = tokio::join!(operate(&guest, &op), async {
        tokio::time::sleep(Duration::from_millis(900)).await;
        guest.write("etc/resolv.conf", "nameserver 10.0.0.1\n");
    });
    assert!(facts.unwrap().booted(true));
}

#[tokio::test]
async fn systemds_boot_is_awaited() {
    let guest = Guest::new(&["bash"]);
    guest.write("state", "starting");
    guest.command("systemctl", "cat $ROOT/state");
    let facts = operate(&guest, &GuestOp::Inspect).await.unwrap();
    assert_eq!(
        (facts.init.clone(), facts.booted(true)),
        (InitState::Starting, false)
    );
    guest.write("state", "degraded");
    let facts = operate(
        &guest,
        &GuestOp::AwaitBoot {
            network: true,
            limit: Duration::from_secs(5),
        },
    )
    .await
    .unwrap();
    assert_eq!(
        (facts.init.clone(), facts.booted(true)),
        (InitState::Degraded, true)
    );
}

#[tokio::test]
async fn a_lock_of_a_living_process_is_respected_and_a_dead_ones_is_not() {
    let guest = Guest::new(&["bash"]);
    let myself = std::fs::read_to_string("/proc/self/stat").unwrap();
    let start = myself
        .rsplit_once(") ")
        .unwrap()
        .1
        .split(' ')
        .nth(19)
        .unwrap();
    guest.write(
        "run/phoenix.lock",
        &format!("{} {start}\n", std::process::id()),
    );
    let error = operate(&guest, &GuestOp::Personalise).await.unwrap_err();
    assert!(
        matches!(&error, GuestError::Locked { holder } if holder.contains(&std::process::id().to_string())),
        "{error}"
    );
    assert!(!guest.exists("var/lib/phoenix"));
    guest.write(
        "run/phoenix.lock",
        &format!("{} {}\n", std::process::id(), "1"),
    );
    operate(&guest, &GuestOp::Personalise)
        .await
        .expect("the number was used again by another process");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// However the stream is cut into pieces, the lines are the same.
    #[test]
    fn lines_do_not_depend_on_the_cuts(bytes in proptest::collection::vec(prop_oneof![
        4 => any::<u8>(), 2 => Just(b'\n'), 2 => Just(0x1b), 1 => Just(b'['), 1 => Just(b'm'), 3 => b'a'..=b'z'
    ], 0..200), cut in 0usize..200) {
        use crate::guest::stream::Lines;
        let gather = |parts: &[&[u8]]| {
            let mut lines = Lines::new();
            for part in parts {
                lines.push(part);
            }
            let mut all: Vec<String> = std::iter::from_fn(|| lines.next_line()).collect();
            all.push(lines.rest());
            all
        };
        let (head, tail) = bytes.split_at(cut.min(bytes.len()));
        let whole = gather(&[&bytes]);
        prop_assert_eq!(&whole, &gather(&[head, tail]));
        prop_assert!(whole.iter().all(|line| !line.contains(|c: char| c.is_ascii_control())));
    }

    /// Whatever a console shows, it is judged, and cut short it is never taken for more than it is.
    #[test]
    fn any_greeting_is_judged(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = judge(&bytes);
    }
}
