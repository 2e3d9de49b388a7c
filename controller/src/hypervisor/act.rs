//! What is done: the connection is opened for changes, or closed to them; the SSH key is made. Everything else happens to containers.

use phoenix_crds::Hypervisor;

use super::{Step, desired::Desired, ssh::KeyPair};
use crate::{context::Context, engine::Receipt, fault::Fault, fleet::Barred};

pub(crate) async fn act(
    object: &Hypervisor,
    step: &Step,
    desired: &Desired,
    cx: &Context,
) -> Result<Receipt, Fault> {
    let barred = match step {
        Step::MakeSshKey => {
            KeyPair::make(object, cx).await?;
            return Ok(Receipt::default());
        }
        Step::Admit => None,
        Step::Bar { why } => Some(Barred::Identity(why.clone())),
    };
    if let Some(cluster) = &desired.cluster {
        cluster.admit(barred);
        cx.wake_users_of(cluster.name());
    }
    Ok(Receipt::default())
}
