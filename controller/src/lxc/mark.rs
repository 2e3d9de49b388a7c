//! The ownership mark: the last line of a container's `description`, by which we know what is ours after any crash.
//!
//! It names its own VMID, since a clone carries its source's description until the call that follows: a mark whose VMID differs came
//! with the clone and says nothing about this container. What is durably done grows by PUT: `created`, then `setup=`, then `revision=`.

use std::fmt;

/// First word of a mark line; the number is the format's version.
const PREFIX: &str = "phoenix-hypervisor/v1";

/// Who owns a container and what was durably done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The operator installation (`Hypervisor.spec.instance`, by default the uid of namespace kube-system).
    pub instance: String,
    /// `LxcTemplate` or `LxcContainer`.
    pub kind: String,
    /// Namespace of the owning object.
    pub namespace: String,
    /// Name of the owning object.
    pub name: String,
    /// Uid of the owning object; another one under the same name is the same object restored from Git.
    pub uid: String,
    /// The VMID that this mark was written for.
    pub vmid: u32,
    /// The create or clone task ended well.
    pub created: bool,
    /// Hash of the setup that ran and was verified.
    pub setup: Option<String>,
    /// Revision of the disk, written just before a template is sealed.
    pub revision: Option<String>,
}

/// What a description says about ownership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// Our instance and our object (whatever its uid).
    Ours(Mark),
    /// A valid mark of somebody else: another instance, object or kind.
    Another(Mark),
    /// A mark that names another VMID: it came with a clone whose own mark was never written.
    Inherited(Mark),
    /// No mark at all.
    None,
}

impl Mark {
    /// Parses one line; `None` for anything that isn't exactly a mark of a version we know.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.trim().split(' ');
        if words.next()? != PREFIX {
            return None;
        }
        let (mut instance, mut kind, mut object, mut uid, mut vmid) =
            (None, None, None, None, None);
        let (mut created, mut setup, mut revision) = (false, None, None);
        for word in words {
            match word.split_once('=') {
                Some(("instance", v)) => instance = Some(v.to_owned()),
                Some(("kind", v)) => kind = Some(v.to_owned()),
                Some(("object", v)) => {
                    object = v.split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned()));
                }
                Some(("uid", v)) => uid = Some(v.to_owned()),
                Some(("vmid", v)) => vmid = v.parse().ok(),
                Some(("setup", v)) => setup = Some(v.to_owned()),
                Some(("revision", v)) => revision = Some(v.to_owned()),
                None if word == "created" => created = true,
                // a newer operator may have added words; what we know still holds
                _ => {}
            }
        }
        let (namespace, name) = object?;
        Some(Self {
            instance: instance?,
            kind: kind?,
            namespace,
            name,
            uid: uid?,
            vmid: vmid?,
            created,
            setup,
            revision,
        })
    }

    /// The mark in a description, wherever its line stands (people append text below it).
    pub fn find(description: &str) -> Option<Self> {
        description.lines().rev().find_map(Self::parse)
    }

    /// Whether both name the same object of the same installation; the uid may differ (restored from Git).
    pub fn same_owner(&self, other: &Self) -> bool {
        (&self.instance, &self.kind, &self.namespace, &self.name)
            == (&other.instance, &other.kind, &other.namespace, &other.name)
    }

    /// Judges a container's description from the point of view of `self`, the mark that we would write.
    pub fn judge(&self, description: &str) -> Ownership {
        match Self::find(description) {
            None => Ownership::None,
            Some(found) if found.vmid != self.vmid => Ownership::Inherited(found),
            Some(found) if self.same_owner(&found) => Ownership::Ours(found),
            Some(found) => Ownership::Another(found),
        }
    }

    /// `text` with this mark as its last line, and every other mark line removed.
    pub fn describe(&self, text: &str) -> String {
        let kept = strip(text);
        if kept.is_empty() {
            self.to_string()
        } else {
            format!("{kept}\n{self}")
        }
    }
}

/// The user's part of a description: all lines but marks, without trailing blank lines.
pub fn strip(description: &str) -> String {
    let lines: Vec<&str> = description
        .lines()
        .filter(|l| Mark::parse(l).is_none())
        .collect();
    lines.join("\n").trim_end().to_owned()
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            instance,
            kind,
            namespace,
            name,
            uid,
            vmid,
            created,
            setup,
            revision,
        } = self;
        write!(
            f,
            "{PREFIX} instance={instance} kind={kind} object={namespace}/{name} uid={uid} vmid={vmid}"
        )?;
        if *created {
            f.write_str(" created")?;
        }
        if let Some(hash) = setup {
            write!(f, " setup={hash}")?;
        }
        if let Some(hash) = revision {
            write!(f, " revision={hash}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mark() -> Mark {
        Mark {
            instance: "0b7c".into(),
            kind: "LxcTemplate".into(),
            namespace: "default".into(),
            name: "base-template".into(),
            uid: "u-1".into(),
            vmid: 900,
            created: false,
            setup: None,
            revision: None,
        }
    }

    #[test]
    fn the_users_text_is_kept_above_the_mark() {
        let text = mark().describe("Base image\nask Ada before touching");
        assert!(text.starts_with("Base image\nask Ada before touching\nphoenix-hypervisor/v1 "));
        let grown = Mark {
            created: true,
            ..mark()
        }
        .describe(&text);
        assert_eq!(strip(&grown), "Base image\nask Ada before touching");
        assert_eq!(grown.matches(PREFIX).count(), 1);
        assert!(Mark::find(&grown).unwrap().created);
    }

    #[test]
    fn a_clones_inherited_mark_is_not_ownership() {
        let child = Mark {
            name: "gpu".into(),
            vmid: 901,
            ..mark()
        };
        assert_eq!(
            child.judge(&mark().describe("x")),
            Ownership::Inherited(mark())
        );
        assert_eq!(child.judge("hand-made"), Ownership::None);
        assert_eq!(
            child.judge(&child.to_string()),
            Ownership::Ours(child.clone())
        );
    }

    #[test]
    fn another_instance_or_object_is_another_owner() {
        let theirs = Mark {
            instance: "ffff".into(),
            ..mark()
        };
        assert_eq!(
            mark().judge(&theirs.to_string()),
            Ownership::Another(theirs)
        );
        let restored = Mark {
            uid: "u-2".into(),
            ..mark()
        };
        assert_eq!(
            mark().judge(&restored.to_string()),
            Ownership::Ours(restored)
        );
    }

    #[test]
    fn words_of_a_newer_operator_are_tolerated_and_broken_lines_are_no_marks() {
        assert!(Mark::parse(&format!("{} adopted=yes", mark())).is_some());
        for line in [
            "",
            "phoenix-hypervisor/v2 instance=a",
            "phoenix-hypervisor/v1 instance=a kind=LxcTemplate uid=u vmid=900",
            "see phoenix-hypervisor/v1",
        ] {
            assert_eq!(Mark::parse(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn a_mark_survives_any_description(text in "(?s)[ -~\n]{0,200}", setup in proptest::option::of("[0-9a-f]{10}"), vmid in 100u32..999_999) {
            let m = Mark { vmid, setup, ..mark() };
            let described = m.describe(&text);
            prop_assert_eq!(Mark::find(&described), Some(m.clone()));
            prop_assert_eq!(m.describe(&described), described);
        }
    }
}
