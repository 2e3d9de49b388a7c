//! Who else boots with an address that this container asks for.

use kube::ResourceExt;

use crate::{
    context::Context,
    lxc::{
        LxcKind,
        desired::{Present, WantedNet},
    },
};

/// Containers of this hypervisor that run with one of the static addresses that this one asks for; another one's bridges are others.
pub(super) fn rivals<K: LxcKind>(
    object: &K,
    present: &Present,
    hypervisor: &str,
    cx: &Context,
) -> Vec<String> {
    use phoenix_crds::{lxc::Lxc, status::State};
    let uid = object.uid();
    let alive = |s: Option<&phoenix_crds::LxcStatus>| {
        s.is_some_and(|s| {
            s.hypervisor.as_deref() == Some(hypervisor)
                && matches!(
                    s.state,
                    Some(State::Running | State::SettingUp | State::Starting)
                )
        })
    };
    let mut found = Vec::new();
    let mut compare = |name: String, other: &phoenix_crds::LxcSpec| {
        for (mine, theirs) in present
            .nets
            .iter()
            .flatten()
            .flat_map(|m| other.network.iter().map(move |t| (m, t)))
        {
            if same_place(mine, theirs) {
                found.push(format!(
                    "{name} runs with the address {} on bridge {}",
                    mine.address().unwrap_or_default(),
                    mine.bridge
                ));
            }
        }
    };
    for t in cx
        .stores
        .all_templates()
        .iter()
        .filter(|t| t.uid() != uid && alive(t.status_shared()))
    {
        compare(
            format!(
                "LxcTemplate {}/{}",
                t.namespace().unwrap_or_default(),
                t.name_any()
            ),
            t.spec_shared(),
        );
    }
    for c in cx
        .stores
        .all_containers()
        .iter()
        .filter(|c| c.uid() != uid && alive(c.status_shared()))
    {
        compare(
            format!(
                "LxcContainer {}/{}",
                c.namespace().unwrap_or_default(),
                c.name_any()
            ),
            c.spec_shared(),
        );
    }
    found
}

fn same_place(mine: &WantedNet, theirs: &phoenix_crds::network::NetworkInterface) -> bool {
    let address = theirs
        .address
        .as_deref()
        .and_then(|a| a.split_once('/'))
        .map(|(a, _)| a);
    let vlan = theirs.vlan.map(|v| v.to_string());
    mine.address().is_some()
        && mine.address() == address
        && theirs.bridge.as_ref().is_none_or(|b| *b == mine.bridge)
        && mine.vlan() == vlan.as_deref()
}
