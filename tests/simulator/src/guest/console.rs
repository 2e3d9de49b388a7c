//! A container's console: one session per container, shared by all who are attached, outliving them all.
//!
//! What `dtach -A … -r winch -z lxc-attach` does on a real host, as recorded from one: the first client begins the session, later ones join it and see
//! what is printed from then on; attaching and resizing set the terminal's size, of which the kernel tells the program only when it changed;
//! the program's end ends all clients. The program is a real one on a real terminal, so echo, line editing and lost over-long lines are the kernel's
//! and the shell's own. The simulated faults (a cut or slow line) sit between a client and the session.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;
use tokio::sync::mpsc;

use super::confine::{self, PATH};
use super::faults::{Direction, Faults};
use crate::guests::{ConsoleInput, ConsoleMode, ConsoleSession};

const CLEAR: &[u8] = b"\x1b[H\x1b[J";
const ENDED: &[u8] = b"\x1b[999H\r\n[EOF - dtach terminating]\r\n\x1b[?25h";
const DETACHED: &[u8] = b"\x1b[999H\r\n[detached]\r\n\x1b[?25h";
/// Ctrl-\ leaves a dtach session.
const DETACH: u8 = 0x1c;
/// The size of termproxy's own terminal, which every client brings along.
const FIRST_SIZE: (u16, u16) = (80, 20);

/// The seats by number; `None` when the session is over.
type Clients = Arc<Mutex<Option<HashMap<usize, mpsc::UnboundedSender<Vec<u8>>>>>>;

/// A running session.
pub(super) struct Session {
    clients: Clients,
    typed: mpsc::UnboundedSender<Vec<u8>>,
    terminal: Arc<AsyncFd<OwnedFd>>,
    next: AtomicUsize,
}

impl Session {
    /// Starts the console's program in the guest whose process 1 is `init`.
    pub(super) fn begin(init: u32, mode: ConsoleMode) -> Result<(Arc<Self>, Client)> {
        let (terminal, child) = spawn(init, mode)?;
        #[expect(
            deprecated,
            reason = "the replacement is unsafe code, forbidden here; an owned descriptor is what it asks for"
        )]
        let terminal = AsyncFd::new(terminal).context("watching the terminal")?;
        let terminal: Arc<AsyncFd<OwnedFd>> = Arc::new(terminal);
        let (typed, keys) = mpsc::unbounded_channel();
        let session = Arc::new(Self {
            clients: Arc::new(Mutex::new(Some(HashMap::new()))),
            typed,
            terminal: terminal.clone(),
            next: AtomicUsize::new(0),
        });
        let first = session
            .enter()
            .context("the session is over before it began")?;
        tokio::spawn(write_keys(terminal.clone(), keys));
        let clients = session.clients.clone();
        tokio::spawn(async move {
            relay(&terminal, child, &clients).await;
            for client in lock(&clients).take().unwrap_or_default().into_values() {
                client.send(ENDED.to_vec()).ok();
            }
        });
        Ok((session, first))
    }

    /// One more client; `None` when the session is over.
    pub(super) fn join(self: &Arc<Self>) -> Option<Client> {
        let client = self.enter()?;
        self.resize(FIRST_SIZE.0, FIRST_SIZE.1);
        Some(client)
    }

    fn enter(self: &Arc<Self>) -> Option<Client> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, output) = mpsc::unbounded_channel();
        sender.send(CLEAR.to_vec()).ok();
        lock(&self.clients).as_mut()?.insert(id, sender);
        Some(Client {
            id,
            session: self.clone(),
            output,
        })
    }

    fn resize(&self, cols: u16, rows: u16) {
        set_size(self.terminal.get_ref(), cols, rows);
    }
}

fn lock(
    clients: &Clients,
) -> MutexGuard<'_, Option<HashMap<usize, mpsc::UnboundedSender<Vec<u8>>>>> {
    clients.lock().unwrap_or_else(PoisonError::into_inner)
}

fn set_size(terminal: &OwnedFd, cols: u16, rows: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(terminal, size).ok();
}

fn spawn(init: u32, mode: ConsoleMode) -> Result<(OwnedFd, Child)> {
    let master =
        rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .context("opening a terminal")?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let slave = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty())
        .context("opening the terminal's other end")?;
    set_size(&master, FIRST_SIZE.0, FIRST_SIZE.1);
    rustix::io::ioctl_fionbio(&master, true)?;
    let mut command = confine::enter(init);
    command.arg(format!("PATH={PATH}")).args([
        "TERM=linux",
        "container=lxc",
        "/usr/bin/setsid",
        "--ctty",
        "/bin/bash",
    ]);
    if mode != ConsoleMode::Shell {
        command.arg("/.seam/login.sh");
    }
    let child = command
        .stdin(Stdio::from(slave.try_clone()?))
        .stdout(Stdio::from(slave.try_clone()?))
        .stderr(Stdio::from(slave))
        .spawn()
        .context("starting the console's program")?;
    Ok((master, child))
}

async fn write_keys(terminal: Arc<AsyncFd<OwnedFd>>, mut keys: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(bytes) = keys.recv().await {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let Ok(mut ready) = terminal.writable().await else {
                return;
            };
            match ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), rest)?)) {
                Ok(Ok(written)) => rest = &rest[written..],
                Ok(Err(_)) => return,
                Err(_would_block) => {}
            }
        }
    }
}

/// Carries the program's output to the clients until it ends.
async fn relay(terminal: &AsyncFd<OwnedFd>, mut child: Child, clients: &Clients) {
    let mut over: Option<tokio::time::Instant> = None;
    loop {
        let chunk = tokio::select! {
            chunk = read(terminal) => chunk,
            _ = child.wait(), if over.is_none() => { over = Some(tokio::time::Instant::now()); continue; }
            // What it said last is still in the terminal; descendants that keep the terminal open don't keep the session.
            () = tokio::time::sleep(Duration::from_millis(20)), if over.is_some() => return,
        };
        let Some(chunk) = chunk else { break };
        if over.is_some_and(|at| at.elapsed() > Duration::from_millis(500)) {
            return;
        }
        // termproxy's own terminal turns the newline of the shell's terminal, `\r\n` by then, once more.
        let mut shown = Vec::with_capacity(chunk.len() + 8);
        for byte in chunk {
            if byte == b'\n' {
                shown.push(b'\r');
            }
            shown.push(byte);
        }
        if let Some(seats) = lock(clients).as_mut() {
            seats.retain(|_, client| client.send(shown.clone()).is_ok());
        }
    }
    if over.is_none() {
        child.wait().await.ok();
    }
}

async fn read(terminal: &AsyncFd<OwnedFd>) -> Option<Vec<u8>> {
    let mut buffer = [0u8; 4096];
    loop {
        let mut ready = terminal.readable().await.ok()?;
        match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut buffer)?)) {
            Ok(Ok(0) | Err(_)) => return None,
            Ok(Ok(count)) => return Some(buffer[..count].to_vec()),
            Err(_would_block) => {}
        }
    }
}

/// A client's seat in a session; dropping it leaves the session running.
pub(super) struct Client {
    id: usize,
    session: Arc<Session>,
    output: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(seats) = lock(&self.session.clients).as_mut() {
            seats.remove(&self.id);
        }
    }
}

/// Connects a seat with the outside, through the faults that are set.
pub(super) fn connect(mut client: Client, faults: Arc<Faults>) -> ConsoleSession {
    let (input, mut from_client) = mpsc::channel(64);
    let (to_client, output) = mpsc::channel::<Vec<u8>>(256);
    tokio::spawn(async move {
        let mut passed = 0;
        let (mut all_typed, mut all_shown) = (Vec::new(), Vec::new());
        loop {
            tokio::select! {
                // What a client sent before it left still counts.
                biased;
                sent = from_client.recv() => match sent {
                    Some(ConsoleInput::Data(bytes)) => {
                        let leaves = bytes.iter().position(|byte| *byte == DETACH);
                        let typed = &bytes[..leaves.unwrap_or(bytes.len())];
                        let cut = faults.console_cut(passed, typed.len()).or_else(|| {
                            all_typed.extend_from_slice(typed);
                            faults.console_cut_at(Direction::Typed, &all_typed, typed.len())
                        });
                        passed += typed.len();
                        client.session.typed.send(typed[..cut.unwrap_or(typed.len())].to_vec()).ok();
                        if cut.is_some() {
                            break;
                        }
                        if leaves.is_some() {
                            to_client.send(DETACHED.to_vec()).await.ok();
                            break;
                        }
                    }
                    Some(ConsoleInput::Resize { cols, rows }) => client.session.resize(cols, rows),
                    None => break,
                },
                chunk = client.output.recv() => {
                    let Some(mut chunk) = chunk else { break };
                    if let Some(delay) = faults.console_delay() {
                        tokio::time::sleep(delay).await;
                    }
                    let cut = faults.console_cut(passed, chunk.len()).or_else(|| {
                        all_shown.extend_from_slice(&chunk);
                        faults.console_cut_at(Direction::Shown, &all_shown, chunk.len())
                    });
                    passed += chunk.len();
                    chunk.truncate(cut.unwrap_or(chunk.len()));
                    if to_client.send(chunk).await.is_err() || cut.is_some() {
                        break;
                    }
                }
                () = to_client.closed() => break,
            }
        }
    });
    ConsoleSession { input, output }
}

/// The console of a container that doesn't run: the program complains and is gone.
pub(super) fn refused(vmid: u32, mode: ConsoleMode) -> ConsoleSession {
    let complaint = match mode {
        ConsoleMode::Shell => format!(
            "lxc-attach: {vmid}: ../src/lxc/attach.c: get_attach_context: 406 Connection refused - Failed to get init pid\r\n\
             lxc-attach: {vmid}: ../src/lxc/attach.c: lxc_attach: 1470 Connection refused - Failed to get attach context\r\n"
        ),
        ConsoleMode::Tty | ConsoleMode::Console => {
            format!(
                "lxc-console: {vmid}: ../src/lxc/tools/lxc_console.c: lxc_console_main: 130 {vmid} is not running\r\n"
            )
        }
    };
    let (input, mut typed) = mpsc::channel(1);
    // what is typed meanwhile goes nowhere, and cuts nothing of what is said short
    tokio::spawn(async move { while typed.recv().await.is_some() {} });
    let (to_client, output) = mpsc::channel(4);
    for part in [CLEAR.to_vec(), complaint.into_bytes(), ENDED.to_vec()] {
        to_client.try_send(part).ok();
    }
    ConsoleSession { input, output }
}
