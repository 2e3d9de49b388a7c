//! The named formats of parameters, each with the text that a real Proxmox VE answers when a value does not have it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use regex::Regex;

#[expect(
    clippy::expect_used,
    reason = "the patterns are constants of this file and covered by its tests"
)]
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant pattern")
}

macro_rules! patterns {
    ($($name:ident = $text:literal;)*) => { $(static $name: LazyLock<Regex> = LazyLock::new(|| pattern($text));)* };
}

patterns! {
    VMID = r"^[1-9][0-9]{2,8}$";
    NODE = r"^[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?$";
    DNS = r"^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?\.)*[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?$";
    CONFIG_ID = r"(?i)^[a-z][a-z0-9_-]+$";
    STORAGE = r"(?i)^[a-z][a-z0-9_.-]*[a-z0-9]$";
    POOL = r"^[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+){0,2}$";
    MAC = r"(?i)^[a-f0-9][02468ace](?::[a-f0-9]{2}){5}$";
    SIZE = r"^(\d+(?:\.\d+)?)([KMGT])?$";
    TAG = r"(?i)^[a-z0-9_][a-z0-9_+.-]*$";
    VOLUME_ID = r"(?i)^[a-z][a-z0-9_.-]*[a-z0-9]:\S+$";
    TIMEZONE = r"^[A-Za-z0-9_+/-]+$";
    STARTUP = r"^(?:(?:order=)?\d+|up=\d+|down=\d+)$";
    USER = r"^[^\s:/]+@[A-Za-z][A-Za-z0-9._-]+$";
}

/// Checks a value against a format's name; the error is the text after `invalid format - `.
pub(super) fn check(format: &str, value: &str) -> Result<(), String> {
    if let Some(item) = format.strip_suffix("-list") {
        return value
            .split([',', ';', '\0', ' ', '\t', '\n'])
            .filter(|part| !part.is_empty())
            .try_for_each(|part| check(item, part));
    }
    if let Some(inner) = format.strip_suffix("-opt") {
        return if value.is_empty() {
            Ok(())
        } else {
            check(inner, value)
        };
    }
    let (fine, text) = match format {
        "pve-vmid" => (
            VMID.is_match(value),
            "value does not look like a valid VM ID\n".to_owned(),
        ),
        "pve-node" => (
            NODE.is_match(value),
            "value does not look like a valid node name\n".to_owned(),
        ),
        "dns-name" => (
            DNS.is_match(value),
            "value does not look like a valid DNS name\n".to_owned(),
        ),
        "pve-configid" => (
            CONFIG_ID.is_match(value),
            format!("invalid configuration ID '{value}'\n"),
        ),
        "pve-storage-id" => (
            STORAGE.is_match(value),
            format!("storage ID '{value}' contains illegal characters\n"),
        ),
        "pve-poolid" => (POOL.is_match(value), format!("invalid pool ID '{value}'\n")),
        "mac-addr" => (
            MAC.is_match(value),
            "value does not look like a valid unicast MAC address\n".to_owned(),
        ),
        "disk-size" => (
            parse_size(value).is_some(),
            format!("value does not look like a valid disk size: {value}\n"),
        ),
        "pve-tag" => (
            TAG.is_match(value),
            "invalid characters in tag\n".to_owned(),
        ),
        "pve-volume-id" => (
            VOLUME_ID.is_match(value),
            format!("unable to parse volume ID '{value}'\n"),
        ),
        "pve-lxc-dev-string" => (
            is_device(value),
            format!("{value} is not a valid device path\n"),
        ),
        "pve-startup-order" => (
            value.split(',').all(|part| STARTUP.is_match(part)),
            "unable to parse startup options\n".to_owned(),
        ),
        "pve-ct-timezone" => (
            TIMEZONE.is_match(value),
            format!("invalid time zone '{value}'\n"),
        ),
        "pve-userid" => (
            USER.is_match(value),
            format!("value '{value}' does not look like a valid user name\n"),
        ),
        "ipv4" => (
            value.parse::<Ipv4Addr>().is_ok(),
            "value does not look like a valid IPv4 address\n".to_owned(),
        ),
        "ipv6" => (
            value.parse::<Ipv6Addr>().is_ok(),
            "value does not look like a valid IPv6 address\n".to_owned(),
        ),
        "lxc-ip-with-ll-iface" => (
            is_address(value),
            "value does not look like a valid IP address\n".to_owned(),
        ),
        "pve-ipv4-config" => {
            let fine = matches!(value, "dhcp" | "manual")
                || is_cidr(value, 32, |text| text.parse::<Ipv4Addr>().is_ok());
            (
                fine,
                "value does not look like a valid ipv4 network configuration\n".to_owned(),
            )
        }
        "pve-ipv6-config" => {
            let fine = matches!(value, "auto" | "dhcp" | "manual")
                || is_cidr(value, 128, |text| text.parse::<Ipv6Addr>().is_ok());
            (
                fine,
                "value does not look like a valid ipv6 network configuration\n".to_owned(),
            )
        }
        _ => (true, String::new()),
    };
    if fine { Ok(()) } else { Err(text) }
}

fn is_device(value: &str) -> bool {
    value.starts_with("/dev/") && !value.split('/').any(|part| part == "..")
}

fn is_address(value: &str) -> bool {
    value
        .split('%')
        .next()
        .is_some_and(|text| text.parse::<IpAddr>().is_ok())
}

fn is_cidr(value: &str, longest: u8, address: impl Fn(&str) -> bool) -> bool {
    value.split_once('/').is_some_and(|(ip, bits)| {
        address(ip) && bits.parse::<u8>().is_ok_and(|bits| bits <= longest)
    })
}

/// Parses `8G`, `512M`, `1.5T` or plain bytes.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes beyond 2^53 bytes do not occur"
)]
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let parts = SIZE.captures(text)?;
    let number: f64 = parts[1].parse().ok()?;
    let unit = match parts.get(2).map(|unit| unit.as_str()) {
        Some("K") => 1024.0,
        Some("M") => 1024.0 * 1024.0,
        Some("G") => 1024.0 * 1024.0 * 1024.0,
        Some("T") => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => 1.0,
    };
    Some((number * unit) as u64)
}

/// Prints a size as a container's configuration holds it: the largest unit that divides it.
pub(crate) fn print_size(bytes: u64) -> String {
    let mut value = bytes;
    let mut unit = "";
    for next in ["K", "M", "G", "T"] {
        if value < 1024 || !value.is_multiple_of(1024) {
            break;
        }
        value /= 1024;
        unit = next;
    }
    format!("{value}{unit}")
}

/// What a `rootfs` or `mpN` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MountSpec {
    /// `STORAGE:SIZE`: a new volume of that many bytes.
    Allocate { storage: String, bytes: u64 },
    /// `STORAGE:VOLUME`: one that exists.
    Volume { storage: String, name: String },
    /// A directory of the host.
    Bind(String),
    /// A device of the host.
    Device(String),
}

impl MountSpec {
    /// Reads the volume part of a mount's property string; a bare number is gigabytes on `default_storage`.
    pub(crate) fn parse(volume: &str, default_storage: &str) -> Self {
        if volume.starts_with("/dev/") {
            return Self::Device(volume.to_owned());
        }
        if volume.starts_with('/') {
            return Self::Bind(volume.to_owned());
        }
        let (storage, name) = volume.split_once(':').unwrap_or((default_storage, volume));
        match gigabytes(name) {
            Some(bytes) => Self::Allocate {
                storage: storage.to_owned(),
                bytes,
            },
            None => Self::Volume {
                storage: storage.to_owned(),
                name: name.to_owned(),
            },
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes beyond 2^53 bytes do not occur"
)]
fn gigabytes(text: &str) -> Option<u64> {
    let plain = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    // Proxmox allocates whole KiB.
    plain
        .then(|| text.parse::<f64>().ok())
        .flatten()
        .map(|number| (number * 1024.0 * 1024.0) as u64 * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_accept_and_refuse_as_recorded() {
        for (format, value, expected) in [
            (
                "pve-vmid",
                "99",
                Err("value does not look like a valid VM ID\n"),
            ),
            (
                "pve-vmid",
                "1000000000",
                Err("value does not look like a valid VM ID\n"),
            ),
            ("pve-vmid", "900", Ok(())),
            (
                "dns-name",
                "a_b",
                Err("value does not look like a valid DNS name\n"),
            ),
            (
                "dns-name",
                "-x",
                Err("value does not look like a valid DNS name\n"),
            ),
            (
                "dns-name",
                "",
                Err("value does not look like a valid DNS name\n"),
            ),
            ("dns-name", "a.b.example", Ok(())),
            ("dns-name", "UPPER", Ok(())),
            ("pve-configid", "x", Err("invalid configuration ID 'x'\n")),
            (
                "pve-configid",
                "a.b",
                Err("invalid configuration ID 'a.b'\n"),
            ),
            ("pve-configid", "a-b", Ok(())),
            ("pve-tag-list", "zeta;Alpha;k8s,beta gamma;alpha", Ok(())),
            ("pve-tag-list", "a/b", Err("invalid characters in tag\n")),
            ("pve-tag-list", "", Ok(())),
            ("pve-startup-order", "order=2,up=5,down=10", Ok(())),
            (
                "pve-startup-order",
                "order=x",
                Err("unable to parse startup options\n"),
            ),
            (
                "pve-lxc-dev-string",
                "/etc/passwd",
                Err("/etc/passwd is not a valid device path\n"),
            ),
            ("pve-ipv4-config", "10.0.0.200/24", Ok(())),
            (
                "pve-ipv4-config",
                "10.0.0.200",
                Err("value does not look like a valid ipv4 network configuration\n"),
            ),
        ] {
            assert_eq!(
                check(format, value),
                expected.map_err(str::to_owned),
                "{format} of {value:?}"
            );
        }
    }

    #[test]
    fn sizes_round_trip() {
        for text in ["8G", "512M", "1T", "900G", "102400K"] {
            assert_eq!(
                parse_size(&print_size(parse_size(text).unwrap())),
                parse_size(text)
            );
        }
        assert_eq!(print_size(2 << 30), "2G");
        assert_eq!(print_size(1536 << 20), "1536M");
        assert_eq!(parse_size("big"), None);
    }

    #[test]
    fn mounts_name_what_they_ask_for() {
        let two_gigabytes = MountSpec::Allocate {
            storage: "lxc-disks".into(),
            bytes: 2 << 30,
        };
        assert_eq!(MountSpec::parse("lxc-disks:2", "local"), two_gigabytes);
        assert_eq!(MountSpec::parse("2", "lxc-disks"), two_gigabytes);
        assert_eq!(
            MountSpec::parse("/srv/x", "local"),
            MountSpec::Bind("/srv/x".into())
        );
        assert_eq!(
            MountSpec::parse("lxc-disks:2G", "local"),
            MountSpec::Volume {
                storage: "lxc-disks".into(),
                name: "2G".into()
            }
        );
    }
}
