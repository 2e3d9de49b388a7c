//! Short hashes that name content: ten hex digits, as image digests are shown.

use sha2::{Digest, Sha256};

/// Over the parts in their order, each with its length so that no two lists are the same text.
pub(crate) fn short(parts: &[&str]) -> String {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part.as_bytes());
    }
    hex::encode(&sha.finalize()[..5])
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(short(&["ab", "c"]), short(&["a", "bc"]));
        assert_eq!(short(&["ab", "c"]).len(), 10);
    }
}
