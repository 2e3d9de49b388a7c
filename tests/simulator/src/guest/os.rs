//! What the two operating systems that templates bring look like in a fresh root.

/// An operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Os {
    Ubuntu2404,
    Debian13,
}

impl Os {
    /// By the name of the template's archive.
    pub(super) fn of_template(template: &str) -> Self {
        let file = template.rsplit('/').next().unwrap_or(template);
        if file.contains("debian") {
            Self::Debian13
        } else {
            Self::Ubuntu2404
        }
    }

    fn release(self) -> &'static str {
        match self {
            Self::Ubuntu2404 => {
                "PRETTY_NAME=\"Ubuntu 24.04 LTS\"\nNAME=\"Ubuntu\"\nVERSION_ID=\"24.04\"\nVERSION=\"24.04 LTS (Noble Numbat)\"\n\
                 VERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\nUBUNTU_CODENAME=noble\n"
            }
            Self::Debian13 => {
                "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"13\"\nVERSION=\"13 (trixie)\"\n\
                 VERSION_CODENAME=trixie\nDEBIAN_VERSION_FULL=13.0\nID=debian\n"
            }
        }
    }

    fn sources(self) -> (&'static str, &'static str) {
        match self {
            Self::Ubuntu2404 => (
                "etc/apt/sources.list",
                "deb http://mirror.lan/ubuntu noble main restricted universe multiverse\n\
                 deb http://mirror.lan/ubuntu noble-updates main restricted universe multiverse\n\
                 deb http://mirror.lan/ubuntu noble-security main restricted universe multiverse\n",
            ),
            Self::Debian13 => (
                "etc/apt/sources.list",
                "deb http://mirror.lan/debian trixie main contrib\n\
                 deb http://mirror.lan/debian trixie-updates main contrib\n\
                 deb http://mirror.lan/debian-security trixie-security main contrib\n",
            ),
        }
    }

    /// Packages that the template brings, of those that scripts ask for.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Ubuntu2404 => &[
                "apt",
                "base-files",
                "bash",
                "ca-certificates",
                "coreutils",
                "curl",
                "dpkg",
                "iproute2",
                "libc6",
                "openssh-server",
                "python3",
                "systemd",
                "util-linux",
            ],
            Self::Debian13 => &[
                "apt",
                "base-files",
                "bash",
                "coreutils",
                "dpkg",
                "iproute2",
                "libc6",
                "openssh-server",
                "systemd",
                "util-linux",
            ],
        }
    }

    /// Commands that come with the template's packages and are stand-ins.
    fn own_commands(self) -> &'static [&'static str] {
        match self {
            Self::Ubuntu2404 => &["curl", "python3"],
            Self::Debian13 => &[],
        }
    }

    /// Path and text of the files in a fresh root, relative to it.
    pub(super) fn files(self) -> Vec<(String, String)> {
        let (release, (sources_path, sources)) = (self.release(), self.sources());
        let motd = match self {
            Self::Ubuntu2404 => "Ubuntu 24.04 LTS \\n \\l\n\n",
            Self::Debian13 => "Debian GNU/Linux 13 \\n \\l\n\n",
        };
        let fixed = [
            ("etc/os-release", release),
            ("etc/issue", motd),
            (sources_path, sources),
            (
                "etc/passwd",
                "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
            ),
            (
                "etc/group",
                "root:x:0:\ndaemon:x:1:\nadm:x:4:\nsudo:x:27:\nvideo:x:44:\nrender:x:104:\nnogroup:x:65534:\n",
            ),
            ("etc/shadow", "root:*:20000:0:99999:7:::\n"),
            (
                "etc/nsswitch.conf",
                "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
            ),
            (
                "etc/bash.bashrc",
                "[ -z \"$PS1\" ] && return\nshopt -s checkwinsize\nPS1='\\u@\\h:\\w\\$ '\n",
            ),
            ("etc/machine-id", ""),
            (
                "usr/local/lib/systemd/system/ssh.service",
                "[Unit]\nDescription=OpenBSD Secure Shell server\n[Service]\nExecStart=/usr/sbin/sshd -D\n[Install]\nWantedBy=multi-user.target\n",
            ),
            ("var/lib/dpkg/arch", "amd64\n"),
        ];
        let mut files: Vec<_> = fixed
            .map(|(path, text)| (path.to_owned(), text.to_owned()))
            .into();
        let version = "0";
        let installed: String = self
            .packages()
            .iter()
            .map(|name| format!("{name} {version}\n"))
            .collect::<Vec<_>>()
            .concat();
        files.push(("var/lib/dpkg/simulated".to_owned(), installed));
        files
    }

    /// All stand-in commands of a fresh root.
    pub(super) fn stand_ins(self) -> impl Iterator<Item = &'static str> {
        STAND_INS.iter().chain(self.own_commands()).copied()
    }
}

/// Folders of a fresh root.
pub(super) const FOLDERS: &[&str] = &[
    ".host",
    ".seam",
    "boot",
    "dev",
    "etc/apt/apt.conf.d",
    "etc/apt/keyrings",
    "etc/apt/preferences.d",
    "etc/apt/sources.list.d",
    "etc/apt/trusted.gpg.d",
    "etc/default",
    "etc/profile.d",
    "etc/ssh",
    "etc/ssl/certs",
    "etc/ssl/private",
    "etc/systemd/system/multi-user.target.wants",
    "home",
    "media",
    "mnt",
    "opt",
    "proc",
    "root",
    "run",
    "srv",
    "sys",
    "tmp",
    "usr/bin",
    "usr/lib",
    "usr/local/bin",
    "usr/local/lib/systemd/system",
    "usr/local/sbin",
    "usr/local/share",
    "usr/sbin",
    "usr/share/keyrings",
    "usr/src",
    "var/cache/apt/archives",
    "var/lib/apt/lists",
    "var/lib/dpkg",
    "var/lib/systemd",
    "var/log/journal",
    "var/spool",
    "var/tmp",
];

/// Programs of the machine that may run for real in a guest: they look at files, text and processes, and at nothing else.
pub(super) const HOST_TOOLS: &[&str] = &[
    "[",
    "arch",
    "awk",
    "b2sum",
    "base32",
    "base64",
    "basename",
    "bash",
    "bunzip2",
    "busybox",
    "bzip2",
    "cat",
    "chgrp",
    "chmod",
    "chown",
    "cksum",
    "clear",
    "cmp",
    "comm",
    "cp",
    "csplit",
    "cut",
    "dash",
    "date",
    "dd",
    "df",
    "diff",
    "dir",
    "dircolors",
    "dirname",
    "du",
    "echo",
    "egrep",
    "env",
    "expand",
    "expr",
    "factor",
    "false",
    "fgrep",
    "find",
    "flock",
    "fmt",
    "fold",
    "free",
    "getopt",
    "grep",
    "groups",
    "gunzip",
    "gzip",
    "head",
    "hostid",
    "id",
    "infocmp",
    "install",
    "ionice",
    "join",
    "kill",
    "link",
    "ln",
    "logname",
    "ls",
    "lsns",
    "mawk",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mknod",
    "mktemp",
    "more",
    "mount",
    "mountpoint",
    "mv",
    "namei",
    "nice",
    "nl",
    "nohup",
    "nproc",
    "numfmt",
    "od",
    "paste",
    "pathchk",
    "pgrep",
    "pkill",
    "pr",
    "printenv",
    "printf",
    "prlimit",
    "ps",
    "ptx",
    "pwd",
    "readlink",
    "realpath",
    "renice",
    "reset",
    "rev",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "setsid",
    "sh",
    "sha1sum",
    "sha224sum",
    "sha256sum",
    "sha384sum",
    "sha512sum",
    "shred",
    "shuf",
    "sleep",
    "sort",
    "split",
    "stat",
    "stdbuf",
    "stty",
    "sum",
    "sync",
    "tac",
    "tail",
    "tar",
    "tee",
    "test",
    "timeout",
    "tload",
    "top",
    "touch",
    "tput",
    "tr",
    "true",
    "truncate",
    "tset",
    "tsort",
    "tty",
    "umount",
    "uname",
    "unexpand",
    "uniq",
    "unlink",
    "unshare",
    "unxz",
    "unzstd",
    "uptime",
    "users",
    "vdir",
    "vmstat",
    "w",
    "watch",
    "wc",
    "whereis",
    "which",
    "who",
    "whoami",
    "xargs",
    "xz",
    "xzcat",
    "yes",
    "zcat",
    "zstd",
];

/// Commands that every root has and that are played by the simulator.
const STAND_INS: &[&str] = &[
    "apt",
    "apt-cache",
    "apt-get",
    "apt-key",
    "apt-mark",
    "deb-systemd-helper",
    "debconf-set-selections",
    "dhclient",
    "dmesg",
    "dpkg",
    "dpkg-query",
    "dpkg-reconfigure",
    "getent",
    "groupadd",
    "halt",
    "hostname",
    "hostnamectl",
    "invoke-rc.d",
    "ip",
    "journalctl",
    "ldconfig",
    "locale-gen",
    "locale",
    "localectl",
    "logger",
    "loginctl",
    "lsmod",
    "modprobe",
    "networkctl",
    "ping",
    "poweroff",
    "reboot",
    "resolvectl",
    "service",
    "shutdown",
    "ssh-keygen",
    "sshd",
    "swapoff",
    "swapon",
    "sysctl",
    "systemctl",
    "systemd-analyze",
    "systemd-cat",
    "systemd-detect-virt",
    "systemd-machine-id-setup",
    "systemd-notify",
    "systemd-run",
    "systemd-tmpfiles",
    "timedatectl",
    "update-alternatives",
    "update-ca-certificates",
    "update-locale",
    "useradd",
    "usermod",
];

/// Whether a command lives in sbin.
pub(super) fn is_administrative(name: &str) -> bool {
    matches!(
        name,
        "dhclient"
            | "dpkg-reconfigure"
            | "groupadd"
            | "halt"
            | "invoke-rc.d"
            | "ip"
            | "ldconfig"
            | "locale-gen"
            | "lsmod"
            | "modprobe"
            | "poweroff"
            | "reboot"
            | "service"
            | "shutdown"
            | "sshd"
            | "swapoff"
            | "swapon"
            | "sysctl"
            | "update-ca-certificates"
            | "update-locale"
            | "useradd"
            | "usermod"
    )
}
