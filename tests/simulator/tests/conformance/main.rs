//! Every recorded exchange of a real Proxmox VE, asked of the simulator: file by file, in order, and compared.
//!
//! `recordings/pve/` holds them, one exchange a line; `PHOENIX_RECORDINGS` names another folder of the same form. What deliberately differs
//! stands in [`differences::TABLE`], each with its reason.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test says what it expects, and how far it got"
)]

mod bytes;
mod compare;
mod differences;
mod host;
mod inferred;
mod marks;
mod recording;
mod replay;
mod scene;
mod stage;
mod wire;
mod zfs;

use std::{collections::BTreeSet, path::PathBuf};

use futures::{StreamExt, stream};

/// So many of the committed exchanges match; fewer is a step back.
const MATCHING: usize = 1332;
/// Of other recordings at least so many of a hundred do.
const PERCENT: usize = 95;
/// Files replayed side by side, each with a simulator of its own.
const SIDE_BY_SIDE: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_exchanges_are_answered_alike() {
    let other = std::env::var_os("PHOENIX_RECORDINGS").map(PathBuf::from);
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("recordings/pve");
    let folder = other.as_deref().unwrap_or(&own);
    let files = recording::load(folder);
    let states = &zfs::States::load(folder);
    let results: Vec<_> = stream::iter(&files)
        .map(|file| async move { (file.name.as_str(), replay::replay(file, states).await) })
        .buffered(SIDE_BY_SIDE)
        .collect()
        .await;
    let (mut all, mut alike) = (0, 0);
    let mut unexplained = Vec::new();
    let mut used = BTreeSet::new();
    for (name, outcomes) in &results {
        let matching = outcomes
            .iter()
            .filter(|outcome| outcome.difference.is_none());
        let matching = matching.count();
        println!("{name}: {matching} of {}", outcomes.len());
        all += outcomes.len();
        alike += matching;
        for outcome in outcomes {
            let Some(difference) = &outcome.difference else {
                continue;
            };
            let told = format!("{name}: {} ({}): {difference}", outcome.title, outcome.call);
            match differences::explain(name, &outcome.title, difference) {
                Some((row, why)) => {
                    used.insert(row);
                    println!("  differs, {why}: {told}");
                }
                None => {
                    println!("  differs: {told}");
                    unexplained.push(told);
                }
            }
        }
    }
    println!("{alike} of {all} recorded exchanges match");
    let told = unexplained.join("\n");
    assert!(
        alike * 100 >= all * PERCENT,
        "{alike} of {all} match:\n{told}"
    );
    if other.is_none() {
        assert!(unexplained.is_empty(), "{told}");
        assert!(alike >= MATCHING, "{alike} match, {MATCHING} did before");
        let stale: Vec<_> = (0..differences::TABLE.len())
            .filter(|row| !used.contains(row))
            .map(|row| differences::TABLE[row])
            .collect();
        assert!(stale.is_empty(), "these match by now: {stale:?}");
    }
}
