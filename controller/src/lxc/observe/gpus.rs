//! Who holds which GPU: told by the status of all objects of a hypervisor, wherever they are, with our own last writes in place of what
//! the watch has not brought yet.

use phoenix_crds::{LxcStatus, Sharing, lxc::Lxc};

use crate::{
    context::Context,
    engine::{Kind, key_of},
    wake::ObjectKey,
};

/// A GPU that somebody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its device minor.
    pub gpu: u32,
    /// Who.
    pub holder: ObjectKey,
    /// Nobody else may hold it meanwhile.
    pub exclusive: bool,
    /// It is a template's, and held until that is sealed.
    pub building: bool,
}

impl Claim {
    /// Whether it can't be held beside one that is, or isn't, exclusive.
    pub fn excludes(&self, exclusive: bool) -> bool {
        self.exclusive || exclusive
    }
}

/// Whether a status says `Exclusive`.
pub(in crate::lxc) fn is_exclusive(sharing: Option<&str>) -> bool {
    sharing == Some(<&str>::from(Sharing::Exclusive))
}

/// What others than the object with this uid hold on a node.
pub(in crate::lxc) fn claims(hypervisor: &str, node: &str, uid: &str, cx: &Context) -> Vec<Claim> {
    let mut found = Vec::new();
    for template in cx.stores.all_templates() {
        found.extend(claims_of(
            &*cx.latest(&template),
            hypervisor,
            node,
            uid,
            true,
        ));
    }
    for container in cx.stores.all_containers() {
        found.extend(claims_of(
            &*cx.latest(&container),
            hypervisor,
            node,
            uid,
            false,
        ));
    }
    found.sort_by(|a, b| (a.gpu, &a.holder).cmp(&(b.gpu, &b.holder)));
    found
}

fn claims_of<K: Kind + Lxc>(
    object: &K,
    hypervisor: &str,
    node: &str,
    uid: &str,
    building: bool,
) -> Vec<Claim> {
    let here = |s: &&LxcStatus| {
        s.hypervisor.as_deref() == Some(hypervisor) && s.node.as_deref() == Some(node)
    };
    let status = object
        .status_shared()
        .filter(here)
        .filter(|_| object.uid().as_deref() != Some(uid));
    status
        .iter()
        .flat_map(|s| s.gpus.iter())
        .filter_map(|g| {
            Some(Claim {
                gpu: u32::try_from(g.index).ok()?,
                holder: key_of(object),
                exclusive: is_exclusive(g.sharing.as_deref()),
                building,
            })
        })
        .collect()
}

/// The GPUs that a node is known to have.
pub(super) fn of_node(hypervisor: &str, node: &str, cx: &Context) -> Vec<u32> {
    let known = cx.stores.hypervisor(hypervisor).and_then(|h| h.status);
    let mut gpus: Vec<u32> = known
        .iter()
        .flat_map(|s| s.gpus.iter())
        .filter(|g| g.node == node)
        .filter_map(|g| u32::try_from(g.index).ok())
        .collect();
    gpus.sort_unstable();
    gpus
}
