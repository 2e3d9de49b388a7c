//! What is a template's alone: it is sealed in the end.

use phoenix_crds::LxcTemplate;

use super::{LxcKind, desired::Role, shared_stages};
use crate::{
    context::Context,
    engine::{Kind, Pass, Plan, Receipt},
    fault::Fault,
    wake::KindName,
};

impl Kind for LxcTemplate {
    const NAME: KindName = KindName::LxcTemplate;
    shared_stages!(LxcTemplate);
}

impl LxcKind for LxcTemplate {
    const SEALED: bool = true;

    async fn role(&self, _: &Context) -> Result<Role, Fault> {
        let snapshot = &self.spec.snapshot;
        Ok(Role::Template {
            snapshot: snapshot.name.clone(),
            strategy: snapshot.strategy.into(),
        })
    }
}
