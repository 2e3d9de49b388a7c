//! The one thing that is done: the connection is opened for changes. Everything else happens to containers.

use super::{Step, desired::Desired};
use crate::{context::Context, engine::Receipt};

pub(crate) fn act(step: Step, desired: &Desired, cx: &Context) -> Receipt {
    match step {
        Step::Admit => {
            if let Some(cluster) = &desired.cluster {
                cluster.admit(None);
                cx.wake_users_of(cluster.name());
            }
            Receipt::default()
        }
    }
}
