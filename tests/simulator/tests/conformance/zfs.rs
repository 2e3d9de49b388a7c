//! `zfs list` as recorded after some of the exchanges: which datasets, snapshots and origins there were.
//!
//! The host had more on it than one file tells of: the datasets of the containers that the file has named so far count. Sizes don't: they
//! are what happened to be in an archive.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// The beginning of a state's heading, the file that it belongs to, and the exchange that it was taken after.
const TAKEN: &[(&str, &str, &str)] = &[
    ("19:12:44", "b0-make200", "create 200: task log"),
    (
        "19:13:00",
        "b5-clone-1",
        "full clone of a stopped CT, no snapshot: task log",
    ),
    (
        "19:13:11",
        "b2-config-1-running-ct",
        "resize back from 900G",
    ),
    (
        "19:19:01",
        "b2-config-2-stopped-ct",
        "resize back from 900G",
    ),
    ("19:19:03", "b5-clone-2", "config of 110"),
    ("19:19:20", "b5-clone-2", "config of 110 (maybe absent)"),
    (
        "19:21:07",
        "c1-devices-features-mounts",
        "PUT delete unused0 as op-ticket",
    ),
    ("19:30:10", "b6-template", "config of the template"),
    (
        "19:30:30",
        "b6-template",
        "linked clone of the template (full=0): task log",
    ),
    (
        "19:30:49",
        "b6-template",
        "clone of the template without 'full': task log",
    ),
    (
        "19:31:07",
        "b6-template",
        "destroy the template with linked clones, purge+force+unreferenced: task log",
    ),
    ("19:31:33", "b6-template", "config of 123"),
    ("19:31:43", "b6-template", "destroy template now: task log"),
    (
        "19:32:28",
        "b7-destroy",
        "destroy with snapshots, destroy-unreferenced-disks=1: task log",
    ),
    (
        "19:32:43",
        "b7-destroy",
        "destroy when the dataset is busy (a process sits in it): task log",
    ),
    ("19:33:31", "b4-snapshot", "create s1 (stopped): task log"),
    ("19:34:14", "b4-snapshot", "create s2 (running): task log"),
    (
        "19:35:14",
        "b4-snapshot",
        "rollback to s2 with start=1: task log",
    ),
    (
        "19:35:20",
        "b4-snapshot",
        "delete s1 (has child s2): task log",
    ),
    ("19:35:46", "b1-create", "create on zfspool: task log"),
    (
        "19:36:20",
        "b1-create",
        "create: template file does not exist: task log",
    ),
    (
        "19:36:30",
        "b1-create",
        "create: broken template archive: task log",
    ),
    (
        "19:36:38",
        "b1-create",
        "create: rootfs too small for the template",
    ),
    (
        "19:39:55",
        "b0-debian13-standard-warnings",
        "create from the Debian 13 template (213 MB): task log",
    ),
    (
        "19:40:28",
        "b0-debian13-standard-warnings",
        "full clone 213 MB from snapshot: task log",
    ),
];

/// A dataset or snapshot and its origin.
type Rows = BTreeMap<String, String>;

/// The recorded states by heading.
#[derive(Debug, Default)]
pub(crate) struct States(BTreeMap<String, Rows>);

impl States {
    /// Reads `zfs-states.txt` of a folder; without one there is nothing to compare.
    pub(crate) fn load(folder: &Path) -> Self {
        let text = std::fs::read_to_string(folder.join("zfs-states.txt")).unwrap_or_default();
        let mut states = BTreeMap::new();
        for part in text.split("=== ").skip(1) {
            let (heading, table) = part.split_once('\n').unwrap_or((part, ""));
            states.insert(heading.trim().to_owned(), rows(table));
        }
        Self(states)
    }

    /// The states that were taken after an exchange.
    pub(crate) fn after<'a>(
        &'a self,
        file: &'a str,
        title: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Rows)> {
        TAKEN
            .iter()
            .filter(move |(_, name, after)| *name == file && *after == title)
            .filter_map(|(begin, _, _)| {
                self.0
                    .iter()
                    .find(|(heading, _)| heading.starts_with(begin))
            })
            .map(|(heading, rows)| (heading.as_str(), rows))
    }
}

fn rows(table: &str) -> Rows {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, origin) = (words.next()?, words.next()?);
        Some((name.to_owned(), origin.to_owned()))
    };
    table
        .lines()
        .filter(|line| line.contains('/'))
        .filter_map(line)
        .collect()
}

/// What differs, of the containers named so far.
pub(crate) fn difference(then: &Rows, now: &str, known: &BTreeSet<u32>) -> Option<String> {
    let ours = |rows: Rows| -> Rows {
        rows.into_iter()
            .filter(|(name, _)| owner(name).is_some_and(|vmid| known.contains(&vmid)))
            .collect()
    };
    let (then, now) = (ours(then.clone()), ours(rows(now)));
    (then != now).then(|| format!("{now:?}, recorded {then:?}"))
}

/// The container that a dataset belongs to.
fn owner(name: &str) -> Option<u32> {
    name.rsplit('/').next()?.split('-').nth(1)?.parse().ok()
}
