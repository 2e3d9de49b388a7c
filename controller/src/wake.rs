//! Which object to look at again: the one way by which finished tasks, fleet changes, guests and probes reach a controller.

use std::fmt;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The three kinds, as Kubernetes spells them.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, strum::IntoStaticStr, strum::Display,
)]
pub enum KindName {
    /// The connection to a Proxmox VE host or cluster.
    Hypervisor,
    /// A layer of the hierarchy.
    LxcTemplate,
    /// A running container.
    LxcContainer,
}

/// An object's address: kind, namespace (empty for `Hypervisor`) and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: KindName,
    /// Its namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// Key of a `Hypervisor`.
    pub fn hypervisor(name: &str) -> Self {
        Self {
            kind: KindName::Hypervisor,
            namespace: String::new(),
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            KindName::Hypervisor => write!(f, "{} {}", self.kind, self.name),
            _ => write!(f, "{} {}/{}", self.kind, self.namespace, self.name),
        }
    }
}

/// The sending ends; cheap to clone.
#[derive(Clone, Debug)]
pub struct Wakes {
    templates: UnboundedSender<ObjectKey>,
    containers: UnboundedSender<ObjectKey>,
    hypervisors: UnboundedSender<ObjectKey>,
}

/// The receiving ends, one a controller.
#[derive(Debug)]
pub struct WakeStreams {
    /// For the `LxcTemplate` controller.
    pub templates: UnboundedReceiver<ObjectKey>,
    /// For the `LxcContainer` controller.
    pub containers: UnboundedReceiver<ObjectKey>,
    /// For the `Hypervisor` controller.
    pub hypervisors: UnboundedReceiver<ObjectKey>,
}

impl Wakes {
    /// Makes the channels.
    pub fn new() -> (Self, WakeStreams) {
        let (templates, t) = unbounded_channel();
        let (containers, c) = unbounded_channel();
        let (hypervisors, h) = unbounded_channel();
        (
            Self {
                templates,
                containers,
                hypervisors,
            },
            WakeStreams {
                templates: t,
                containers: c,
                hypervisors: h,
            },
        )
    }

    /// Asks for a look at an object. After shutdown nobody listens, and nothing is lost by that.
    pub fn wake(&self, key: &ObjectKey) {
        let to = match key.kind {
            KindName::LxcTemplate => &self.templates,
            KindName::LxcContainer => &self.containers,
            KindName::Hypervisor => &self.hypervisors,
        };
        drop(to.send(key.clone()));
    }
}
