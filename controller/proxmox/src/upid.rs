//! UPIDs: the name of a Proxmox task, which also says where it runs, since when, for whom and on what.

use std::{fmt, str::FromStr};

/// The identity of one task. Known only to the node in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Upid {
    /// The text as Proxmox gave it.
    pub raw: String,
    /// The node that runs the task.
    pub node: String,
    /// The process on that node.
    pub pid: u32,
    /// When it began, seconds since the epoch.
    pub starttime: u64,
    /// The kind of task: `vzcreate`, `vzclone`, `vzstart`, …
    pub task_type: String,
    /// What it works on: the VMID for containers (for a clone that of the source).
    pub id: String,
    /// Who asked for it, with the token's name where a token did.
    pub user: String,
}

impl Upid {
    /// The VMID that the task works on, where its id is one.
    pub fn vmid(&self) -> Option<u32> {
        self.id.parse().ok()
    }
}

/// The text is no UPID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UPID: {0:?}")]
pub struct ParseUpidError(String);

impl FromStr for Upid {
    type Err = ParseUpidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseUpidError(text.to_owned());
        let parts: Vec<&str> = text.split(':').collect();
        let [
            "UPID",
            node,
            pid,
            pstart,
            starttime,
            task_type,
            id,
            user,
            "",
        ] = parts[..]
        else {
            return Err(bad());
        };
        if node.is_empty()
            || task_type.is_empty()
            || user.is_empty()
            || u64::from_str_radix(pstart, 16).is_err()
        {
            return Err(bad());
        }
        Ok(Self {
            raw: text.to_owned(),
            node: node.to_owned(),
            pid: u32::from_str_radix(pid, 16).map_err(|_| bad())?,
            starttime: u64::from_str_radix(starttime, 16).map_err(|_| bad())?,
            task_type: task_type.to_owned(),
            id: id.to_owned(),
            user: user.to_owned(),
        })
    }
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.raw)
    }
}

#[cfg(test)]
mod tests {
    use super::Upid;
    use proptest::prelude::*;

    #[test]
    fn reads_a_recorded_one() {
        let upid: Upid = "UPID:pve1:00000525:0000FB6A:6B05DEC6:vzstart:999:root@pam!op:"
            .parse()
            .unwrap();
        assert_eq!(
            (upid.node.as_str(), upid.pid, upid.starttime),
            ("pve1", 0x525, 0x6B05_DEC6)
        );
        assert_eq!(
            (upid.task_type.as_str(), upid.vmid(), upid.user.as_str()),
            ("vzstart", Some(999), "root@pam!op")
        );
    }

    #[test]
    fn refuses_what_is_none() {
        for text in [
            "",
            "UPID:",
            "UPID:n:1:2:3:t:1:u",
            "UPID:n:x:2:3:t:1:u:",
            "UPID:n:1:2:3:t:1:u:x",
            "OK",
        ] {
            assert!(text.parse::<Upid>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(node in "[a-z][a-z0-9-]{0,8}", pid: u32, pstart: u32, start: u32, kind in "[a-z]{1,9}", id in "[0-9]{0,6}", user in "[a-z]{1,5}@pve(![a-z]{1,3})?") {
            let text = format!("UPID:{node}:{pid:08X}:{pstart:08X}:{start:08X}:{kind}:{id}:{user}:");
            let upid: Upid = text.parse().unwrap();
            prop_assert_eq!(upid.to_string(), text);
            prop_assert_eq!((upid.pid, upid.starttime), (pid, u64::from(start)));
        }
    }
}
