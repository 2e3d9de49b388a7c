//! A real sshd on loopback, whose commands run in a guest's root with the guest's own shell.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::pty::Guest;
use crate::guest::ssh::{SshKey, SshTarget};

/// Whether there is one. Without it the tests of SSH show nothing, which only a developer's machine may let pass.
pub(super) fn is_there() -> bool {
    program().is_some()
}

fn program() -> Option<PathBuf> {
    let found = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists());
    if found.is_none() {
        let lacking = "sshd is not installed: install the package openssh-server (a system service of it is not needed)";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{lacking}");
        eprintln!("left out: {lacking}");
    }
    found
}

/// The server. Dropping it ends it and what it started.
pub(super) struct Sshd {
    folder: tempfile::TempDir,
    program: PathBuf,
    pub(super) address: SocketAddr,
    daemon: Child,
}

impl Sshd {
    /// Starts one that lets `key` in; `None` where there is no sshd.
    pub(super) fn start(guest: &Guest, key: &SshKey) -> Option<Self> {
        let program = program()?;
        let folder = tempfile::tempdir().unwrap();
        // sshd insists on it where it runs as root
        if nix::unistd::geteuid().is_root() {
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        std::fs::write(
            folder.path().join("authorized"),
            format!("{}\n", key.authorized_line()),
        )
        .unwrap();
        // What the login shell would be: the guest's shell and commands, whatever this machine's accounts have.
        let path = format!(
            "{}:{}",
            guest.path("bin").display(),
            std::env::var("PATH").unwrap()
        );
        let command = guest.path("ssh-command");
        let shell = guest.shell();
        std::fs::write(
            &command,
            format!(
                "#!/bin/sh\nexport PATH='{path}' HOME='{}'\nexec {shell} -c \"$SSH_ORIGINAL_COMMAND\"\n",
                guest.path("root").display()
            ),
        )
        .unwrap();
        host_key(folder.path());
        let (address, daemon) = spawn(&program, folder.path(), &command);
        Some(Self {
            folder,
            program,
            address,
            daemon,
        })
    }

    /// The fingerprint of its host key, as ssh-keygen tells it.
    pub(super) fn host_key(&self) -> String {
        let said = Command::new("ssh-keygen")
            .arg("-lf")
            .arg(self.folder.path().join("host.pub"))
            .output()
            .unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        said.split(' ').nth(1).unwrap().to_owned()
    }

    /// Another host key at the same place, as of another machine.
    pub(super) fn another_machine(&mut self, guest: &Guest) {
        self.end();
        host_key(self.folder.path());
        (self.address, self.daemon) = spawn(
            &self.program,
            self.folder.path(),
            &guest.path("ssh-command"),
        );
    }

    /// As whom to connect, and to where.
    pub(super) fn target(&self, key: &SshKey) -> SshTarget {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
            .unwrap()
            .unwrap();
        SshTarget {
            address: self.address,
            user: user.name.leak(),
            key: key.clone(),
            proxy: None,
            host_key: None,
        }
    }

    fn end(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.end();
    }
}

fn host_key(folder: &Path) {
    let key = folder.join("host");
    let _ = std::fs::remove_file(&key);
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status()
        .unwrap();
    assert!(made.success());
}

fn spawn(program: &Path, folder: &Path, command: &Path) -> (SocketAddr, Child) {
    // a port that was free a moment ago may be taken by now
    for _ in 0..20 {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let place = folder.display();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {}\nHostKey {place}/host\nAuthorizedKeysFile {place}/authorized\nPidFile none\nUsePAM no\n\
             StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             MaxStartups 100\nForceCommand /bin/sh {}\n",
            address.port(),
            command.display()
        );
        std::fs::write(folder.join("config"), config).unwrap();
        let mut daemon = Command::new(program)
            .args(["-D", "-e", "-f"])
            .arg(folder.join("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while daemon.try_wait().unwrap().is_none() {
            if TcpStream::connect(address).is_ok() {
                return (address, daemon);
            }
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "sshd does not listen"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    panic!(
        "sshd does not start: {}",
        std::fs::read_to_string(folder.join("log")).unwrap_or_default()
    );
}
