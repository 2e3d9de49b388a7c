//! What is particular to SSH, against a real sshd on loopback: who is let in by whom, proxies, cut connections, loops side by side.

use std::time::{Duration, Instant};

use futures::StreamExt as _;

use super::pty::{Guest, ways};
use super::setup::a_run;
use super::sshd::{self, Sshd};
use super::{TIMING, key, setup};
use crate::guest::facts::{GuestFacts, SetupPhase};
use crate::guest::op::GuestOp;
use crate::guest::script::Place;
use crate::guest::shell::Shell;
use crate::guest::ssh::{SshKey, SshLine, SshTarget, connect};
use crate::guest::terminal::{Terminal, TerminalError};
use crate::guest::{GuestError, work};
use crate::probe::tests::socks;

/// One operation on a new connection.
pub(super) async fn operate(
    target: &SshTarget,
    guest: &Guest,
    op: &GuestOp,
) -> Result<GuestFacts, GuestError> {
    operate_over(connect(target).await?, guest, op).await
}

async fn operate_over(
    line: impl Terminal,
    guest: &Guest,
    op: &GuestOp,
) -> Result<GuestFacts, GuestError> {
    let mut shell = Shell::alone(line, TIMING).await?;
    let key = key();
    let line = guest
        .ssh()
        .map(|target| target.key.authorized_line().to_owned());
    let place = Place {
        root: guest.root(),
        key: &key,
        ssh_key: line.as_deref(),
    };
    let facts = work(&mut shell, place, op).await;
    drop(shell.close().await);
    facts
}

fn guest() -> Option<(Guest, SshTarget)> {
    sshd::is_there().then(|| {
        let guest = Guest::new(&["ssh", "bash"]);
        let target = guest.ssh().unwrap();
        (guest, target)
    })
}

/// A connection that breaks after so many bytes.
struct Cut {
    line: SshLine,
    sendable: usize,
    receivable: usize,
}

impl Terminal for Cut {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), TerminalError> {
        let part = &bytes[..self.sendable.min(bytes.len())];
        self.sendable -= part.len();
        self.line.send(part).await?;
        if part.len() == bytes.len() {
            Ok(())
        } else {
            Err(TerminalError("connection reset".to_owned()))
        }
    }

    async fn resize(&mut self, cols: u16, rows: u16) -> Result<(), TerminalError> {
        self.line.resize(cols, rows).await
    }

    async fn recv(&mut self) -> Result<Option<Vec<u8>>, TerminalError> {
        if self.receivable == 0 {
            return Err(TerminalError("connection reset".to_owned()));
        }
        let mut bytes = self.line.recv().await?;
        if let Some(bytes) = &mut bytes {
            bytes.truncate(self.receivable);
            self.receivable -= bytes.len();
        }
        Ok(bytes)
    }
}

/// A setup whose first connection is cut, and which is then repeated until it works.
async fn cut_and_repeat(shell: Vec<&'static str>, sendable: usize, receivable: usize) {
    let place = format!("{shell:?}, cut after {sendable} bytes sent or {receivable} received");
    let guest = Guest::new(&shell);
    let target = guest.ssh().unwrap();
    let op = GuestOp::StartSetup(a_run(
        "h1",
        &format!("echo ran >> '{}'", guest.path("count").display()),
    ));
    let line = connect(&target).await.unwrap();
    match operate_over(
        Cut {
            line,
            sendable,
            receivable,
        },
        &guest,
        &op,
    )
    .await
    {
        Ok(_) => {}
        Err(error) => assert!(matches!(error, GuestError::Lost { .. }), "{place}: {error}"),
    }
    let begun = Instant::now();
    // what was cut off may still be at work, and says so by its lock
    while let Err(error) = operate(&target, &guest, &op).await {
        assert!(
            matches!(error, GuestError::Locked { .. }),
            "{place}: {error}"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{place}: {error}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let wait = GuestOp::AwaitSetup {
        limit: Duration::from_secs(30),
    };
    let state = setup(operate(&target, &guest, &wait).await.unwrap());
    assert_eq!(state.phase, SetupPhase::Verified, "{place}");
    assert_eq!(guest.read("count"), "ran\n", "{place}");
}

#[tokio::test]
async fn a_cut_at_any_place_never_runs_a_setup_twice() {
    let everything = usize::MAX;
    // from inside the introduction to inside the inspection that ends the operation
    let sent = [0, 300, 700, 2000, 5000, 7303, 10_500, 14_000].map(|bytes| (bytes, everything));
    let received = [0, 8, 20, 100, 300, 450, 600, 900].map(|bytes| (everything, bytes));
    for shell in ways().into_iter().filter(|way| way[0] == "ssh") {
        let cuts = futures::stream::iter(sent.into_iter().chain(received));
        cuts.for_each_concurrent(4, |(sent, received)| {
            cut_and_repeat(shell.clone(), sent, received)
        })
        .await;
    }
}

#[tokio::test]
async fn one_host_key_is_accepted_and_another_is_told_with_both() {
    let Some(guest) = sshd::is_there().then(|| Guest::new(&["bash"])) else {
        return;
    };
    let key = SshKey::generate("test").unwrap();
    let mut sshd = Sshd::start(&guest, &key).unwrap();
    let first = connect(&sshd.target(&key)).await.unwrap();
    assert_eq!(first.host_key, sshd.host_key());
    let recorded = Some(first.host_key.clone());
    let pinned = SshTarget {
        host_key: recorded.clone(),
        ..sshd.target(&key)
    };
    operate(&pinned, &guest, &GuestOp::Inspect).await.unwrap();

    sshd.another_machine(&guest);
    let pinned = SshTarget {
        host_key: recorded,
        ..sshd.target(&key)
    };
    let op = GuestOp::StartSetup(a_run("h1", "true"));
    let error = operate(&pinned, &guest, &op).await.unwrap_err();
    assert!(error.is_host_key_changed(), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(&first.host_key) && text.contains(&sshd.host_key()),
        "{text}"
    );
    assert!(text.contains("status.ssh"), "{text}");
    assert!(!guest.exists("var/lib/phoenix"), "nothing was done there");
}

#[tokio::test]
async fn who_does_not_let_us_in_is_told_with_the_line_that_is_missing() {
    let Some((guest, target)) = guest() else {
        return;
    };
    let stranger = SshTarget {
        key: SshKey::generate("another").unwrap(),
        ..target
    };
    let error = operate(&stranger, &guest, &GuestOp::Inspect)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, GuestError::SshRefused { line, .. } if line == stranger.key.authorized_line()),
        "{error}"
    );
    assert!(
        error.to_string().contains("/root/.ssh/authorized_keys"),
        "{error}"
    );
}

#[tokio::test]
async fn a_container_without_a_server_is_told_so() {
    let Some((guest, target)) = guest() else {
        return;
    };
    drop(guest);
    let error = connect(&target).await.map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("refused") && error.contains(&target.address.to_string()),
        "{error}"
    );
    // something that speaks, but not SSH
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let error = connect(&SshTarget { address, ..target })
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(matches!(error, GuestError::SshUnreached { .. }), "{error}");
}

#[tokio::test]
async fn the_guest_proxy_leads_to_the_server_and_says_why_not() {
    let Some((guest, target)) = guest() else {
        return;
    };
    let (proxy, asked) = socks(&[5, 0], target.address.port()).await;
    let inside = SshTarget {
        address: "10.0.0.150:22".parse().unwrap(),
        proxy: Some(proxy.clone()),
        ..target
    };
    let error = operate(&inside, &guest, &GuestOp::Inspect)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&proxy) && error.to_lowercase().contains("refused"),
        "{error}"
    );
    operate(&inside, &guest, &GuestOp::Inspect).await.unwrap();
    assert!(asked.lock().unwrap().iter().all(|to| *to == inside.address));
    let https = SshTarget {
        proxy: Some("https://127.0.0.1:1".to_owned()),
        ..inside
    };
    let error = operate(&https, &guest, &GuestOp::Inspect)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("not through https"), "{error}");
}

#[tokio::test]
async fn an_http_proxy_leads_to_the_server_too() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let Some((guest, target)) = guest() else {
        return;
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let to = target.address;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            assert!(
                head.starts_with(b"CONNECT 10.0.0.150:22 "),
                "{}",
                String::from_utf8_lossy(&head)
            );
            stream
                .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                .await
                .unwrap();
            let mut server = tokio::net::TcpStream::connect(to).await.unwrap();
            tokio::spawn(
                async move { tokio::io::copy_bidirectional(&mut stream, &mut server).await },
            );
        }
    });
    let inside = SshTarget {
        address: "10.0.0.150:22".parse().unwrap(),
        proxy: Some(proxy),
        ..target
    };
    operate(&inside, &guest, &GuestOp::Inspect).await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_keeps_nobody_out_and_a_script_at_work_does() {
    let Some((guest, target)) = guest() else {
        return;
    };
    let key = key();
    let place = Place {
        root: guest.root(),
        key: &key,
        ssh_key: None,
    };
    let mut idle = Shell::alone(connect(&target).await.unwrap(), TIMING)
        .await
        .unwrap();
    work(&mut idle, place, &GuestOp::Personalise).await.unwrap();
    operate(&target, &guest, &GuestOp::CleanForSeal)
        .await
        .unwrap();

    // a script that takes the lock and waits
    guest.command(
        "ssh-keygen",
        "touch $ROOT/at-work; while [ ! -f $ROOT/go ]; do sleep 0.05; done",
    );
    let busy = work(&mut idle, place, &GuestOp::Personalise);
    let other = async {
        while !guest.exists("at-work") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let error = operate(&target, &guest, &GuestOp::CleanForSeal)
            .await
            .unwrap_err();
        assert!(matches!(error, GuestError::Locked { .. }), "{error}");
        guest.write("go", "");
    };
    let (done, ()) = tokio::join!(busy, other);
    done.unwrap();

    // our loop ends with its connection, closed or not
    let loop_pid: i32 = {
        let output = idle
            .run("echo $$", &[], "asking", Duration::from_secs(10))
            .await
            .unwrap();
        String::from_utf8(output.bytes)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    };
    assert!(std::path::Path::new(&format!("/proc/{loop_pid}")).exists());
    drop(idle);
    let begun = Instant::now();
    while std::path::Path::new(&format!("/proc/{loop_pid}")).exists() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "the loop outlives its connection"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn our_key_is_let_in_and_other_installations_keys_go() {
    for way in ways() {
        let guest = Guest::new(&way);
        let ours = SshKey::generate("home@here").unwrap();
        let key = key();
        let kept = "# --- BEGIN PVE ---\nssh-ed25519 AAAAadmin me@laptop\n";
        let theirs = "ssh-ed25519 AAAAtheirs phoenix-hypervisor:home@elsewhere\n";
        guest.write("root/.ssh/authorized_keys", &format!("{kept}{theirs}"));
        guest.command("sshd", "exit 0");
        let enter = async |line: Option<&str>, op: GuestOp| {
            let place = Place {
                root: guest.root(),
                key: &key,
                ssh_key: line,
            };
            match guest.ssh() {
                Some(target) => {
                    let mut shell = Shell::alone(connect(&target).await.unwrap(), TIMING)
                        .await
                        .unwrap();
                    work(&mut shell, place, &op).await.unwrap()
                }
                None => crate::guest::run_in(
                    guest.attach(),
                    place,
                    &op,
                    crate::guest::shell::Company::Unknown,
                    TIMING,
                )
                .await
                .unwrap(),
            }
        };
        let line = Some(ours.authorized_line());
        assert_eq!(
            enter(line, GuestOp::Inspect).await.ssh_key,
            Some(false),
            "{way:?}"
        );
        assert_eq!(
            enter(line, GuestOp::Personalise).await.ssh_key,
            Some(true),
            "{way:?}"
        );
        let expected = format!("{kept}{}\n", ours.authorized_line());
        assert_eq!(guest.read("root/.ssh/authorized_keys"), expected, "{way:?}");
        enter(line, GuestOp::CleanForSeal).await;
        assert_eq!(
            guest.read("root/.ssh/authorized_keys"),
            expected,
            "{way:?}: clones are to know it"
        );
        // where SSH is not used none of an operator's stays
        enter(None, GuestOp::Authorize).await;
        assert_eq!(guest.read("root/.ssh/authorized_keys"), kept, "{way:?}");
    }
}
