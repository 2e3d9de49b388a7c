//! What is a container's alone: it runs, serves and is probed.

use kube::ResourceExt;
use phoenix_crds::LxcContainer;

use super::{
    LxcKind,
    desired::{Role, container_role},
    shared_stages,
};
use crate::{
    context::Context,
    engine::{Kind, Pass, Plan, Publication, Receipt},
    fault::Fault,
    wake::KindName,
};

impl Kind for LxcContainer {
    const NAME: KindName = KindName::LxcContainer;
    shared_stages!(LxcContainer);

    async fn publish(&self, status: &Self::Status, cx: &std::sync::Arc<Context>) -> Publication {
        crate::service::publish(self, status, cx).await
    }
}

impl LxcKind for LxcContainer {
    const SEALED: bool = false;

    async fn role(&self, cx: &Context) -> Result<Role, Fault> {
        container_role(self, &self.namespace().unwrap_or_default(), cx).await
    }
}
