//! A machine's console as Proxmox serves it with `cmode: shell`: a root shell on a terminal of its own.

use std::os::fd::OwnedFd;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use phoenix_controller::guest::{Terminal, TerminalError};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};

/// The environment that `lxc-attach --clear-env` leaves to a shell.
const ENVIRONMENT: [&str; 3] = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "TERM=linux",
    "container=lxc",
];

/// One session. It ends with the connection: what ours leaves running must not depend on it.
#[derive(Debug)]
pub(crate) struct Console {
    terminal: AsyncFd<OwnedFd>,
    _shell: Child,
}

impl Console {
    /// A new session in the machine whose process 1 is `leader`.
    pub(crate) fn open(leader: u32) -> Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).context("opening a terminal")?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        let name = rustix::pty::ptsname(&master, Vec::new())?;
        let flags =
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let slave = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty())
            .context("opening the terminal's other end")?;
        rustix::io::ioctl_fionbio(&master, true)?;
        let shell = Command::new("nsenter")
            .args(["--target", &leader.to_string(), "--all", "--", "env", "-i"])
            .args(ENVIRONMENT)
            .args(["setsid", "--ctty", "/bin/bash"])
            .stdin(Stdio::from(slave.try_clone()?))
            .stdout(Stdio::from(slave.try_clone()?))
            .stderr(Stdio::from(slave))
            .kill_on_drop(true)
            .spawn()
            .context("starting the console's shell")?;
        #[expect(
            deprecated,
            reason = "the replacement is unsafe code, forbidden here; an owned descriptor is what it asks for"
        )]
        let terminal = AsyncFd::new(master).context("watching the terminal")?;
        Ok(Self {
            terminal,
            _shell: shell,
        })
    }
}

fn broken(error: impl std::fmt::Display) -> TerminalError {
    TerminalError(error.to_string())
}

impl Terminal for Console {
    async fn send(&mut self, mut bytes: &[u8]) -> Result<(), TerminalError> {
        while !bytes.is_empty() {
            let mut ready = self.terminal.writable().await.map_err(broken)?;
            match ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                Ok(written) => bytes = &bytes[written.map_err(broken)?..],
                Err(_would_block) => {}
            }
        }
        Ok(())
    }

    async fn resize(&mut self, cols: u16, rows: u16) -> Result<(), TerminalError> {
        let size = Winsize {
            ws_row: rows,
            ws_col: cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(self.terminal.get_ref(), size).map_err(broken)
    }

    async fn recv(&mut self) -> Result<Option<Vec<u8>>, TerminalError> {
        let mut buffer = [0; 4096];
        loop {
            let mut ready = self.terminal.readable().await.map_err(broken)?;
            match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut buffer)?)) {
                // Without anybody on its other end a terminal cannot be read.
                Ok(Ok(0) | Err(_)) => return Ok(None),
                Ok(Ok(count)) => return Ok(Some(buffer[..count].to_vec())),
                Err(_would_block) => {}
            }
        }
    }
}
