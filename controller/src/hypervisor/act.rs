//! The one thing that is done: the connection is opened for changes, or closed to them. Everything else happens to containers.

use super::{Step, desired::Desired};
use crate::{context::Context, engine::Receipt, fleet::Barred};

pub(crate) fn act(step: &Step, desired: &Desired, cx: &Context) -> Receipt {
    if let Some(cluster) = &desired.cluster {
        cluster.admit(match step {
            Step::Admit => None,
            Step::Bar { why } => Some(Barred::Identity(why.clone())),
        });
        cx.wake_users_of(cluster.name());
    }
    Receipt::default()
}
