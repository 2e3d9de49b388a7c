//! The console against what a real host was recorded to do.

use std::time::Duration;

use super::{Lab, Terminal, lab};
use crate::guests::ConsoleMode;

const LOOP: &str = " exec sh -c 'stty -echo; trap \"echo mark-$$\" WINCH; echo ready; while :; do if read -r l; then eval \"$l\"; fi; done'\n";
const QUIET: Duration = Duration::from_millis(250);

async fn booted() -> Lab {
    let lab = lab().await;
    lab.boot(150, "10.0.0.150", &[]).await;
    lab
}

#[tokio::test]
async fn a_new_session_greets_with_a_prompt_and_a_joined_one_is_silent() {
    let lab = booted().await;
    let mut a = lab.attach(150).await;
    assert_eq!(a.until("# ").await, "\x1b[H\x1b[J\x1b[?2004hroot@ct:/# ");
    a.send("echo $PATH $TERM $container-$HOME-$USER\n").await;
    let answer = a.until("root@ct:/# ").await;
    assert!(
        answer.contains("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin linux lxc-"),
        "{answer:?}"
    );
    let mut b = lab.attach(150).await;
    assert_eq!(b.within(QUIET).await, "\x1b[H\x1b[J");
    b.resize(101, 31).await;
    let redrawn = b.until("root@ct:/# ").await;
    assert!(redrawn.starts_with('\r'), "{redrawn:?}");
}

#[tokio::test]
async fn our_loop_answers_a_resize_with_its_mark_and_survives_its_clients() {
    let lab = booted().await;
    let mut a = lab.attach(150).await;
    a.until("# ").await;
    a.send(LOOP).await;
    assert!(a.until("ready\r\r\n").await.contains("exec sh"));
    a.send("echo hello; echo rc=$?\n").await;
    assert_eq!(a.until("rc=0\r\r\n").await, "hello\r\r\nrc=0\r\r\n");
    drop(a);
    let mut b = lab.attach(150).await;
    assert_eq!(b.until("\x1b[J").await, "\x1b[H\x1b[J");
    b.resize(101, 31).await;
    assert!(b.until("\r\r\n").await.starts_with("mark-"));
    b.resize(102, 31).await;
    b.until("mark-").await;
    b.until("\r\r\n").await;
    b.send("false; echo rc=$?\n").await;
    assert_eq!(b.until("\r\r\n").await, "rc=1\r\r\n");
    b.send("sleep 1; echo done-sleep\n").await;
    drop(b);
    let mut c = lab.attach(150).await;
    c.until("\x1b[J").await;
    c.resize(80, 24).await;
    // A busy loop answers after its command.
    let answer = c.until("done-sleep\r\r\n").await;
    assert!(answer.contains("mark-"), "{answer:?}");
    c.send("exit 0\n").await;
    assert_eq!(
        c.until("\x1b[?25h").await,
        "\x1b[999H\r\n[EOF - dtach terminating]\r\n\x1b[?25h"
    );
    assert!(c.ended().await);
    let mut d = lab.attach(150).await;
    assert!(d.until("# ").await.contains("root@ct"));
}

#[tokio::test]
async fn an_over_long_line_is_lost_whole() {
    let lab = booted().await;
    let mut a = lab.attach(150).await;
    a.until("# ").await;
    a.send(LOOP).await;
    a.until("ready\r\r\n").await;
    a.send(&format!("v={}\n", "x".repeat(5012))).await;
    assert_eq!(a.within(QUIET).await, "");
    a.send("\n").await;
    a.send("echo length ${#v}\n").await;
    assert!(!a.until("\r\r\n").await.contains("length 5012"));
}

#[tokio::test]
async fn a_stopped_container_and_a_tty_without_a_shell() {
    let lab = booted().await;
    let mut shell = lab.attach(999).await;
    let said = shell.until("\x1b[?25h").await;
    assert!(
        said.contains(
            "lxc-attach: 999: ../src/lxc/attach.c: get_attach_context: 406 Connection refused"
        ),
        "{said:?}"
    );
    assert!(shell.ended().await);
    let mut tty = Terminal::new(lab.world.attach(150, ConsoleMode::Tty).await.unwrap());
    tty.until("ct login: ").await;
    tty.send("root\n").await;
    tty.until("Password: ").await;
    tty.send("wrong\n").await;
    tty.until("Login incorrect").await;
}

#[tokio::test]
async fn a_halt_ends_the_console_and_a_cut_line_does_not() {
    let lab = booted().await;
    lab.control.cut_consoles_after(Some(60));
    let mut cut = lab.attach(150).await;
    cut.until("# ").await;
    cut.send("KEPT=yes; echo a-line-that-is-long-enough-to-be-cut\n")
        .await;
    assert!(cut.ended().await);
    lab.control.cut_consoles_after(None);
    let mut next = lab.attach(150).await;
    next.until("\x1b[J").await;
    next.send("\x15\x03\necho kept=$KEPT.\n").await;
    next.until("kept=").await;
    lab.world.halt(150).await.unwrap();
    next.until("[EOF - dtach terminating]").await;
    assert!(next.ended().await);
}
