//! What deliberately differs from the recordings: file (any where empty), beginning of the title, a word of the difference, why.

/// One reason a line.
pub(crate) const TABLE: &[(&str, &str, &str, &str)] = &[
    (
        "",
        "",
        "recorded (596",
        "a worker of the slow host was stuck in a start's hooks",
    ),
    (
        "a1-version-cluster-nodes",
        "storage config list",
        "sparse",
        "a host's shape doesn't say which pools are thin",
    ),
    (
        "a2-auth-and-errors",
        "secret with trailing newline",
        "200",
        "blanks at a header's end are cut by the HTTP library",
    ),
    (
        "a2-auth-and-errors",
        "html version",
        "501",
        "the pages of the API's viewer aren't simulated",
    ),
    (
        "a2-auth-and-errors",
        "broken JSON body",
        "malformed",
        "the text is the Perl parser's own",
    ),
    (
        "b1-create",
        "two creates of one VMID at once (2)",
        "already exists",
        "a race: the loser was refused a step later",
    ),
    (
        "b3-power",
        "interfaces",
        "inet",
        "no guest is inside that would ask for an address",
    ),
    (
        "b3-power",
        "shutdown: task log",
        "lxc",
        "a hiccup of the slow host's LXC",
    ),
    (
        "b3-power",
        "cluster/resources (running)",
        "unknown",
        "the recorded host's statistics daemon was down",
    ),
    (
        "b5-clone-2",
        "full clone from snapshot s1, stopped CT",
        "110.conf",
        "artefact: the recording's clean-up removed the target in the middle",
    ),
    (
        "f-operator-flow",
        "interfaces of 900",
        "inet",
        "the recorded guest asked for an address instead of taking the configured one",
    ),
    (
        "f-operator-flow",
        "hardware/pci",
        "form",
        "the machine below has another disk controller",
    ),
];

/// The row that explains a difference.
pub(crate) fn explain(file: &str, title: &str, difference: &str) -> Option<(usize, &'static str)> {
    let row = TABLE.iter().position(|(name, begin, word, _)| {
        (name.is_empty() || file == *name) && title.starts_with(begin) && difference.contains(word)
    })?;
    Some((row, TABLE[row].3))
}
