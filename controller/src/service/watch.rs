//! What stands: our Services and slices as the watch has seen them. A change of one wakes its owner.

use std::sync::{Arc, Mutex};

use futures::StreamExt;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{core::v1::Service, discovery::v1::EndpointSlice},
};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{Store, store::Writer},
        watcher,
    },
};
use phoenix_crds::{LxcContainer, lxc::Lxc};
use serde::de::DeserializeOwned;
use tracing::warn;

use super::wanted::{MANAGED_BY, owned, owners};
use crate::{
    context::Context,
    engine::{MANAGER, key_of},
    fleet::lock,
    wake::{KindName, ObjectKey},
};

/// The caches, and how their watches fare.
pub(crate) struct Published {
    services: Watched<Service>,
    slices: Watched<EndpointSlice>,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            services: Watched::new(),
            slices: Watched::new(),
        }
    }
}

impl Published {
    /// Whether both hold all that there is; else the watch's trouble, where it is in any.
    pub(super) fn known(&self) -> Result<(), Option<String>> {
        self.services.known()?;
        self.slices.known()
    }

    /// The Services of an owner.
    pub(super) fn services_of(&self, uid: &str) -> Vec<Arc<Service>> {
        self.services.of(uid)
    }

    /// The slices of an owner.
    pub(super) fn slices_of(&self, uid: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.of(uid)
    }
}

struct Watched<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    writer: Mutex<Option<Writer<K>>>,
    known: Mutex<Result<(), Option<String>>>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Watched<K> {
    fn new() -> Self {
        let writer = Writer::new(());
        Self {
            store: writer.as_reader(),
            writer: Mutex::new(Some(writer)),
            known: Mutex::new(Err(None)),
        }
    }

    fn known(&self) -> Result<(), Option<String>> {
        lock(&self.known).clone()
    }

    fn of(&self, uid: &str) -> Vec<Arc<K>> {
        let all = self.store.state();
        all.into_iter().filter(|o| owned(o.meta(), uid)).collect()
    }
}

/// Fills the caches until it is dropped.
pub(crate) async fn watch(cx: &Context) {
    futures::join!(
        follow(cx, &cx.published.services),
        follow(cx, &cx.published.slices)
    );
}

async fn follow<K>(cx: &Context, watched: &Watched<K>)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let Some(writer) = lock(&watched.writer).take() else {
        return;
    };
    let api: Api<K> = match cx.settings.watch_namespaces.as_slice() {
        [only] => Api::namespaced(cx.kube.clone(), only),
        _ => Api::all(cx.kube.clone()),
    };
    let config = watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    watcher(api, config)
        .default_backoff()
        .modify(|o| o.managed_fields_mut().clear())
        .reflect(writer)
        .for_each(|event| {
            match event {
                Ok(watcher::Event::Apply(o) | watcher::Event::Delete(o)) => wake_owners(&o, cx),
                Ok(watcher::Event::InitDone) => {
                    *lock(&watched.known) = Ok(());
                    watched
                        .store
                        .state()
                        .iter()
                        .for_each(|o| wake_owners(&**o, cx));
                    cx.stores
                        .all_containers()
                        .iter()
                        .filter(|c| c.spec.service.is_some())
                        .for_each(|c| cx.wakes.wake(&key_of(c)));
                }
                Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
                Err(e) => {
                    warn!(kind = %K::kind(&()), error = %e, "watch");
                    let mut known = lock(&watched.known);
                    if known.is_err() {
                        *known = Err(Some(e.to_string()));
                    }
                }
            }
            futures::future::ready(())
        })
        .await;
}

fn wake_owners<K: Resource>(object: &K, cx: &Context) {
    let meta = object.meta();
    for owner in owners(meta).iter().filter(|o| o.kind == LxcContainer::KIND) {
        cx.wakes.wake(&ObjectKey {
            kind: KindName::LxcContainer,
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: owner.name.clone(),
        });
    }
}
