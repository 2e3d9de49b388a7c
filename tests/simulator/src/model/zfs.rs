//! The ZFS side of the storages as `zfs list` prints it, so that a test can compare it with a real host's.

use std::{collections::BTreeMap, fmt::Write};

use super::{State, storage::Storage};
use crate::config::StorageKind;

const HEADER: [&str; 5] = ["NAME", "ORIGIN", "USED", "REFER", "REFQUOTA"];

/// `zfs list -t all -o name,origin,used,refer,refquota`.
pub(crate) fn list(state: &State) -> String {
    let mut rows = BTreeMap::new();
    for storage in state.storages.values() {
        if let StorageKind::ZfsPool { pool } = &storage.shape.kind {
            collect(storage, pool, &mut rows);
        }
    }
    let mut table = vec![HEADER.map(str::to_owned)];
    table.extend(rows.into_values());
    print(&table)
}

fn collect(storage: &Storage, pool: &str, rows: &mut BTreeMap<String, [String; 5]>) {
    let row = |name: &str, origin: &str, used: u64, refer: u64, quota: String| {
        [
            name.to_owned(),
            origin.to_owned(),
            size(used),
            size(refer),
            quota,
        ]
    };
    rows.insert(
        pool.to_owned(),
        row(pool, "-", storage.used(), 104 << 10, "none".to_owned()),
    );
    for (leaf, volume) in &storage.volumes {
        let name = format!("{pool}/{leaf}");
        let origin = volume.origin.as_ref().map_or_else(
            || "-".to_owned(),
            |base| format!("{pool}/{base}@{}", super::storage::BASE_SNAPSHOT),
        );
        let quota = if volume.size == 0 {
            "none".to_owned()
        } else {
            size(volume.size)
        };
        rows.insert(
            name.clone(),
            row(&name, &origin, volume.used, volume.refer, quota),
        );
        for (number, snapshot) in volume.snapshots.iter().enumerate() {
            let full = format!("{name}@{}", snapshot.name);
            rows.insert(
                format!("{name}@{number:04}"),
                row(&full, "-", 0, snapshot.refer, "-".to_owned()),
            );
        }
    }
}

fn print(table: &[[String; 5]]) -> String {
    let width = |column: usize| table.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut out = String::new();
    for [name, origin, used, refer, quota] in table {
        let [w0, w1, w2, w3, w4] = widths;
        let _ = writeln!(
            out,
            "{name:w0$}  {origin:w1$}  {used:>w2$}  {refer:>w3$}  {quota:>w4$}"
        );
    }
    out
}

/// A size as ZFS prints it: three significant digits.
#[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["K", "M", "G", "T", "P"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" || value.fract() == 0.0 {
        format!("{value:.0}{unit}")
    } else if value < 10.0 {
        format!("{value:.2}{unit}")
    } else if value < 100.0 {
        format!("{value:.1}{unit}")
    } else {
        format!("{value:.0}{unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HostShape;

    #[test]
    fn sizes_look_like_zfs() {
        for (bytes, text) in [
            (0, "0B"),
            (96 << 10, "96K"),
            (8 << 10, "8K"),
            (1 << 30, "1G"),
            (23_278_387, "22.2M"),
            (2 << 30, "2G"),
            (1_500_000, "1.43M"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_chain_of_clones_shows_its_origins() {
        let mut state = State::new(&HostShape::phoenix());
        let storage = state.storage_mut("lxc-disks").unwrap();
        let first = storage.allocate(900, 1 << 30).unwrap();
        storage.write(&first, 23_000_000);
        let base = storage.make_base(&first).unwrap();
        assert_eq!(base, "basevol-900-disk-0");
        let second = storage.link(&base, 901).unwrap();
        assert_eq!(
            storage.written(&second),
            "basevol-900-disk-0/subvol-901-disk-0"
        );
        let second = storage.make_base(&second).unwrap();
        assert_eq!(
            storage.written(&second),
            "basevol-900-disk-0/basevol-901-disk-0"
        );
        let third = storage.link(&second, 950).unwrap();
        assert_eq!(
            storage.written(&third),
            "basevol-901-disk-0/subvol-950-disk-0"
        );
        assert_eq!(storage.destroy(&second), Err("base volume 'basevol-900-disk-0/basevol-901-disk-0' is still in use by linked clones".to_owned()));
        let text = list(&state);
        let names: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().take(2).collect())
            .collect();
        let expected = [
            ["NAME", "ORIGIN"],
            ["tank", "-"],
            ["tank/basevol-900-disk-0", "-"],
            ["tank/basevol-900-disk-0@__base__", "-"],
            [
                "tank/basevol-901-disk-0",
                "tank/basevol-900-disk-0@__base__",
            ],
            ["tank/basevol-901-disk-0@__base__", "-"],
            ["tank/subvol-950-disk-0", "tank/basevol-901-disk-0@__base__"],
        ];
        assert_eq!(names, expected.map(|row| row.to_vec()));
    }
}
