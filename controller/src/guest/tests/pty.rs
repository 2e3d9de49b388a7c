//! A guest's console as Proxmox serves it: one shell session on a pty for all who come, begun by the first, ended by the shell's
//! exit, outliving every connection.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::tcgetpgrp;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::sshd::{self, Sshd};
use crate::guest::ssh::{SshKey, SshTarget};
use crate::guest::terminal::{Terminal, TerminalError};

/// The shells that are on this machine; those that aren't are said.
pub(super) fn shells() -> Vec<Vec<&'static str>> {
    [vec!["bash"], vec!["dash", "-i"], vec!["busybox", "ash"]]
        .into_iter()
        .filter(|shell| {
            let found = Command::new("sh")
                .args(["-c", "command -v \"$0\" >/dev/null", shell[0]])
                .status()
                .unwrap()
                .success();
            if !found {
                eprintln!(
                    "not tried with {0}, which is not installed (package {0})",
                    shell[0]
                );
            }
            found
        })
        .collect()
}

/// The same shells, each behind the console and behind SSH: where it makes no difference how one came in.
pub(super) fn ways() -> Vec<Vec<&'static str>> {
    let ssh = |shell: Vec<&'static str>| [vec![SSH], shell].concat();
    let by_ssh = shells().into_iter().filter(|_| sshd::is_there()).map(ssh);
    shells().into_iter().chain(by_ssh).collect()
}

/// Before a shell: it is entered over SSH.
const SSH: &str = "ssh";

/// A container with a root of its own, whose console runs `shell`.
pub(super) struct Guest {
    ssh: Option<(Sshd, SshKey)>,
    directory: tempfile::TempDir,
    shell: Vec<&'static str>,
    session: Arc<Mutex<Option<Session>>>,
}

struct Session {
    master: File,
    tty: PathBuf,
    child: Child,
    clients: Vec<UnboundedSender<Vec<u8>>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Guest {
    pub(super) fn new(shell: &[&'static str]) -> Self {
        let (by_ssh, shell) = match shell {
            [SSH, shell @ ..] => (true, shell),
            shell => (false, shell),
        };
        let mut guest = Self {
            ssh: None,
            directory: tempfile::tempdir().unwrap(),
            shell: shell.to_vec(),
            session: Arc::default(),
        };
        for folder in ["bin", "run", "root", "etc/ssh", "var/lib", "proc/net"] {
            std::fs::create_dir_all(guest.path(folder)).unwrap();
        }
        guest.write(
            "etc/os-release",
            "NAME=Ubuntu\nPRETTY_NAME=\"Ubuntu 24.04.3 LTS\"\n",
        );
        guest.write("etc/resolv.conf", "# by hand\nnameserver 10.0.0.1\n");
        guest.command("ip", "echo 'default via 10.0.0.1 dev eth0'");
        // Neither this machine's systemd nor its driver may answer for the guest.
        guest.command("systemctl", "echo offline; exit 1");
        guest.command("journalctl", "exit 1");
        guest.command("nvidia-smi", "echo 'No devices were found'; exit 6");
        if by_ssh {
            let key = SshKey::generate("test").unwrap();
            guest.ssh = Sshd::start(&guest, &key).map(|sshd| (sshd, key));
            assert!(guest.ssh.is_some(), "sshd");
        }
        guest
    }

    pub(super) fn root(&self) -> &str {
        self.directory.path().to_str().unwrap()
    }

    /// The program that is its shell, with what makes it one.
    pub(super) fn shell(&self) -> String {
        let words = self.shell.iter().filter(|word| **word != "-i");
        words.copied().collect::<Vec<_>>().join(" ")
    }

    /// Where to enter it, where that is by SSH.
    pub(super) fn ssh(&self) -> Option<SshTarget> {
        self.ssh.as_ref().map(|(sshd, key)| sshd.target(key))
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(super) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// A command of the guest that stands before this machine's.
    pub(super) fn command(&self, name: &str, body: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path("bin").join(name);
        let root = self.root();
        std::fs::write(&path, format!("#!/bin/sh\nROOT='{root}'\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A new connection to the console.
    pub(super) fn attach(&self) -> Pty {
        let (sender, receiver) = unbounded_channel();
        sender.send(b"\x1b[H\x1b[J".to_vec()).unwrap();
        let mut slot = self.session.lock().unwrap();
        match slot.as_mut() {
            Some(session) => {
                session.clients.push(sender);
                let foreground = tcgetpgrp(&session.master).unwrap();
                let _ = killpg(foreground, Signal::SIGWINCH);
            }
            None => *slot = Some(self.begin(sender)),
        }
        Pty {
            session: Arc::clone(&self.session),
            receiver,
            sendable: None,
            receivable: None,
        }
    }

    /// A session is there, in whatever state.
    pub(super) fn has_session(&self) -> bool {
        self.session.lock().unwrap().is_some()
    }

    /// The session's shell has been replaced by our loop.
    pub(super) fn runs_our_loop(&self) -> bool {
        let session = self.session.lock().unwrap();
        session.as_ref().is_some_and(|session| {
            let command = std::fs::read(format!("/proc/{}/cmdline", session.child.id()));
            String::from_utf8_lossy(&command.unwrap_or_default()).contains("phoenix")
        })
    }

    fn begin(&self, client: UnboundedSender<Vec<u8>>) -> Session {
        // Closed on exec, or the children of other tests would keep this terminal alive.
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let tty = PathBuf::from(ptsname_r(&master).unwrap());
        let slave = File::options()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NOCTTY.bits())
            .open(&tty)
            .unwrap();
        let stdio = || Stdio::from(slave.try_clone().unwrap());
        let path = format!(
            "{}:{}",
            self.path("bin").display(),
            std::env::var("PATH").unwrap()
        );
        let child = Command::new("setsid")
            .arg("--ctty")
            .args(&self.shell)
            .env_clear()
            .envs([
                ("PATH", path.as_str()),
                ("TERM", "linux"),
                ("container", "lxc"),
            ])
            .env("HOME", self.path("root"))
            .current_dir("/")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        let master = File::from(OwnedFd::from(master));
        let mut reader = master.try_clone().unwrap();
        let shared = Arc::clone(&self.session);
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if let Some(session) = shared.lock().unwrap().as_mut() {
                    session
                        .clients
                        .retain(|client| client.send(buffer[..count].to_vec()).is_ok());
                }
            }
            if let Some(session) = shared.lock().unwrap().take() {
                for client in &session.clients {
                    let _ = client
                        .send(b"\x1b[999H\r\n[EOF - dtach terminating]\r\n\x1b[?25h".to_vec());
                }
            }
        });
        Session {
            master,
            tty,
            child,
            clients: vec![client],
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Ends the reading thread too: with the shell gone nobody holds the slave.
        self.session.lock().unwrap().take();
    }
}

/// One connection, which can be made to break after so many bytes.
pub(super) struct Pty {
    session: Arc<Mutex<Option<Session>>>,
    receiver: UnboundedReceiver<Vec<u8>>,
    sendable: Option<usize>,
    receivable: Option<usize>,
}

impl Pty {
    /// Breaks after so many bytes were sent; the rest of the message is lost.
    pub(super) fn breaks_after_sending(mut self, bytes: usize) -> Self {
        self.sendable = Some(bytes);
        self
    }

    /// Breaks after so many bytes have arrived.
    pub(super) fn breaks_after_receiving(mut self, bytes: usize) -> Self {
        self.receivable = Some(bytes);
        self
    }

    /// What arrives until it is quiet for a moment.
    pub(super) async fn look(&mut self) -> String {
        let mut seen = Vec::new();
        while let Ok(Some(bytes)) =
            tokio::time::timeout(std::time::Duration::from_millis(700), self.receiver.recv()).await
        {
            seen.extend(bytes);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }
}

fn broken() -> TerminalError {
    TerminalError("connection reset".to_owned())
}

impl Terminal for Pty {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), TerminalError> {
        let whole = self.sendable.is_none_or(|left| left >= bytes.len());
        let bytes = &bytes[..self.sendable.unwrap_or(usize::MAX).min(bytes.len())];
        self.sendable = self.sendable.map(|left| left - bytes.len());
        let mut writer = {
            let session = self.session.lock().unwrap();
            session
                .as_ref()
                .ok_or_else(broken)?
                .master
                .try_clone()
                .unwrap()
        };
        writer
            .write_all(bytes)
            .map_err(|error| TerminalError(error.to_string()))?;
        if whole { Ok(()) } else { Err(broken()) }
    }

    async fn resize(&mut self, cols: u16, rows: u16) -> Result<(), TerminalError> {
        let tty = self
            .session
            .lock()
            .unwrap()
            .as_ref()
            .map(|session| session.tty.clone())
            .ok_or_else(broken)?;
        let size = ["cols", &cols.to_string(), "rows", &rows.to_string()];
        let status = Command::new("stty")
            .arg("-F")
            .arg(&tty)
            .args(size)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        if status.success() {
            Ok(())
        } else {
            Err(broken())
        }
    }

    async fn recv(&mut self) -> Result<Option<Vec<u8>>, TerminalError> {
        if self.receivable == Some(0) {
            return Err(broken());
        }
        let Some(mut bytes) = self.receiver.recv().await else {
            return Ok(None);
        };
        if let Some(left) = self.receivable.as_mut() {
            bytes.truncate(*left);
            *left -= bytes.len();
        }
        Ok(Some(bytes))
    }
}
