//! Wires a kind to kube's controller: one watch, its triggers, its concurrency.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream::BoxStream};
use kube::{
    Api,
    core::DeserializeGuard,
    runtime::{
        Config, Controller, Predicate, WatchStreamExt, predicates,
        reflector::{self, ObjectRef, store::Writer},
        watcher,
    },
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Kind, reconcile};
use crate::context::Context;

/// The triggers of a kind beside its own watch.
pub(crate) struct Streams<K: Kind> {
    /// Its cache, to be filled by its watch.
    pub(crate) writer: Writer<DeserializeGuard<K>>,
    /// Wakes by tasks, fleet, guests, probes and other kinds.
    pub(crate) wakes: BoxStream<'static, ObjectRef<DeserializeGuard<K>>>,
    /// Only objects of these namespaces; all where it is empty.
    pub(crate) namespaces: Vec<String>,
}

/// Runs the controller of one kind until `stop`; running passes are finished.
pub(crate) async fn drive<K: Kind>(
    api: Api<DeserializeGuard<K>>,
    watch: watcher::Config,
    streams: Streams<K>,
    on_event: impl Fn(&DeserializeGuard<K>) + Send + 'static,
    cx: Arc<Context>,
    stop: CancellationToken,
) {
    let reader = streams.writer.as_reader();
    // our own status writes must not wake us: only the spec, finalizers and annotations do
    let changes = Predicate::combine(
        Predicate::combine(predicates::generation, predicates::finalizers),
        predicates::annotations,
    );
    let namespaces = streams.namespaces;
    let filled = Arc::clone(&cx);
    let main = watcher(api, watch)
        .default_backoff()
        .filter(move |event| futures::future::ready(within(&namespaces, event)))
        .modify(|o| kube::ResourceExt::managed_fields_mut(o).clear())
        .reflect(streams.writer)
        .inspect(move |event| {
            if let Ok(watcher::Event::InitDone) = event {
                filled.filled.mark(K::NAME);
            }
        })
        .touched_objects()
        .inspect(move |o| {
            if let Ok(o) = o {
                on_event(o);
            }
        })
        .predicate_filter(changes, kube::runtime::PredicateConfig::default());
    let concurrency = cx.settings.concurrency;
    controller(main, reader, streams.wakes, concurrency, stop)
        .run(reconcile::<K>, |_, never, _| match *never {}, cx)
        .for_each(|outcome| async move {
            if let Err(e) = outcome {
                debug!(error = %e, "controller");
            }
        })
        .await;
}

fn controller<K: Kind>(
    main: impl Stream<Item = Result<DeserializeGuard<K>, watcher::Error>> + Send + 'static,
    reader: reflector::Store<DeserializeGuard<K>>,
    wakes: BoxStream<'static, ObjectRef<DeserializeGuard<K>>>,
    concurrency: u16,
    stop: CancellationToken,
) -> Controller<DeserializeGuard<K>> {
    Controller::for_stream(main, reader)
        .with_config(Config::default().concurrency(concurrency))
        .reconcile_on(wakes)
        .graceful_shutdown_on(async move { stop.cancelled().await })
}

/// Whether an event concerns a namespace that we work in.
fn within<K: Kind>(
    namespaces: &[String],
    event: &Result<watcher::Event<DeserializeGuard<K>>, watcher::Error>,
) -> bool {
    match event {
        Ok(watcher::Event::Apply(o) | watcher::Event::InitApply(o) | watcher::Event::Delete(o)) => {
            namespaces.is_empty()
                || kube::Resource::meta(o)
                    .namespace
                    .as_ref()
                    .is_none_or(|ns| namespaces.contains(ns))
        }
        _ => true,
    }
}
