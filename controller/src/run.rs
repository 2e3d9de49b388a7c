//! From settings to a running operator: caches, controllers, lease, server, and their orderly end.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context as _, bail};
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{
    Api, Client, CustomResourceExt, ResourceExt,
    api::ListParams,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        events::{Recorder, Reporter},
        reflector::{self, ObjectRef},
        watcher,
    },
};
use phoenix_crds::{Hypervisor, LxcContainer, LxcTemplate, lxc::Lxc};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    context::{Context, Filled, Stores},
    digest_key::DigestKey,
    engine::{Backoffs, Kind, Latest, Streams, drive, key_of},
    fleet::Fleet,
    hypervisor::ssh_secret_name,
    lease::{self, Leadership},
    lxc,
    memory::Memory,
    prober::Prober,
    server::{Pages, Server},
    service::{self, Published},
    sessions::Sessions,
    settings::Settings,
    telemetry::Metrics,
    wake::{ObjectKey, WakeStreams, Wakes},
};

/// How often missing CRDs are looked for.
const CRD_RECHECK: Duration = Duration::from_secs(2);

/// Runs until `shutdown`, or until leadership is lost.
///
/// # Errors
/// What keeps it from starting, and a lost lease: the process is to end then.
pub async fn run(
    settings: Settings,
    kube: Client,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let server = Server::bind(settings.metrics_addr, settings.health_addr).await?;
    let metrics = Arc::new(Metrics::new());
    let (leadership, campaign) = if settings.leader_elect {
        let (leadership, campaign) = lease::campaign(kube.clone(), settings.lease())?;
        (leadership, Some(campaign))
    } else {
        (Leadership::always(), None)
    };
    // the lease is given back only when nothing is at work under it any more
    let lease_stop = CancellationToken::new();
    let campaigning = tokio::spawn(campaign.map_or_else(
        || futures::future::pending().boxed(),
        |c| {
            let stop = lease_stop.clone();
            async move { c.run(stop).await }.boxed()
        },
    ));
    // served from the first moment: a probe must not end a process that waits for the CRDs
    let working = Arc::new(OnceLock::new());
    let serving = tokio::spawn(server.run(pages(&working, &metrics), shutdown.clone()));
    let leader_elect = settings.leader_elect;
    let outcome = serve(settings, kube, &leadership, metrics, &working, &shutdown).await;
    lease_stop.cancel();
    if leader_elect {
        drop(tokio::time::timeout(Duration::from_secs(5), campaigning).await);
    } else {
        campaigning.abort();
    }
    shutdown.cancel();
    drop(serving.await);
    outcome
}

/// Waits for the CRDs and for its turn, and leads then.
async fn serve(
    settings: Settings,
    kube: Client,
    leadership: &Leadership,
    metrics: Arc<Metrics>,
    working: &OnceLock<Arc<Context>>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let lost = leadership.lost();
    let instance = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        () = lost.cancelled() => bail!("the lease was lost"),
        instance = installed(&kube) => instance?,
    };
    let (wakes, streams) = Wakes::new();
    let writers = Writers::new();
    let cx = Arc::new(context(
        settings,
        kube,
        instance,
        &writers,
        leadership.clone(),
        metrics,
        wakes,
    ));
    let _ = working.set(Arc::clone(&cx));
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        () = lost.cancelled() => bail!("the lease was lost"),
        () = leadership.leading() => lead(&cx, writers, streams, shutdown, leadership).await,
    }
}

/// Works until the end is asked for, or the lease is lost.
async fn lead(
    cx: &Arc<Context>,
    writers: Writers,
    streams: WakeStreams,
    shutdown: &CancellationToken,
    leadership: &Leadership,
) -> anyhow::Result<()> {
    info!(instance = %cx.instance, "working");
    // where it fails it is tried again by those that need it
    if let Err(fault) = cx.digest_key.get(&cx.kube, &cx.namespace).await {
        warn!(
            "the key for values of Secrets is not at hand: {}",
            fault.message
        );
    }
    let stop = shutdown.child_token();
    let mut work = tokio::spawn(controllers(Arc::clone(cx), writers, streams, stop.clone()));
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = async { leadership.lost().cancelled().await } => {
            // not one call more: whoever leads now may be acting already
            work.abort();
            bail!("the lease was lost");
        }
        ended = &mut work => {
            ended.context("a controller ended by itself")?;
            return Ok(());
        }
    }
    stop.cancel();
    drop(work.await);
    Ok(())
}

/// The caches' writing ends.
struct Writers {
    hypervisors: reflector::store::Writer<DeserializeGuard<Hypervisor>>,
    templates: reflector::store::Writer<DeserializeGuard<LxcTemplate>>,
    containers: reflector::store::Writer<DeserializeGuard<LxcContainer>>,
}

impl Writers {
    fn new() -> Self {
        Self {
            hypervisors: reflector::store::Writer::new(()),
            templates: reflector::store::Writer::new(()),
            containers: reflector::store::Writer::new(()),
        }
    }
}

fn context(
    settings: Settings,
    kube: Client,
    instance: String,
    writers: &Writers,
    leadership: Leadership,
    metrics: Arc<Metrics>,
    wakes: Wakes,
) -> Context {
    let reporter = Reporter {
        controller: "phoenix-hypervisor".to_owned(),
        instance: settings.pod_name.clone(),
    };
    Context {
        recorder: Recorder::new(kube.clone(), reporter),
        kube,
        namespace: settings.namespace.clone(),
        instance,
        stores: Stores {
            hypervisors: writers.hypervisors.as_reader(),
            templates: writers.templates.as_reader(),
            containers: writers.containers.as_reader(),
        },
        fleet: Fleet::default(),
        sessions: Arc::new(Sessions::default()),
        prober: Arc::new(Prober::new(Arc::clone(&metrics))),
        leadership,
        metrics,
        wakes,
        backoffs: Backoffs::default(),
        memory: Memory::default(),
        gpu_turn: tokio::sync::Mutex::default(),
        digest_key: DigestKey::default(),
        latest_writes: Latest::default(),
        filled: Filled::default(),
        published: Published::default(),
        settings,
    }
}

/// Waits for the CRDs and yields who we are in ownership marks.
async fn installed(kube: &Client) -> anyhow::Result<String> {
    served::<Hypervisor>(Api::all(kube.clone())).await?;
    served::<LxcTemplate>(Api::all(kube.clone())).await?;
    served::<LxcContainer>(Api::all(kube.clone())).await?;
    let namespaces: Api<Namespace> = Api::all(kube.clone());
    let system = namespaces
        .get("kube-system")
        .await
        .context("reading namespace kube-system, whose uid names this installation")?;
    system.uid().context("namespace kube-system has no uid")
}

/// Waits until a kind is served. Asked by listing it, which the operator may do in any case.
async fn served<K: Kind + CustomResourceExt>(api: Api<K>) -> anyhow::Result<()> {
    let mut told = false;
    loop {
        match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(e) => {
                return Err(e).with_context(|| format!("looking for the kind {}", K::crd_name()));
            }
        }
        if !std::mem::replace(&mut told, true) {
            warn!(
                "the CRD {} is not installed; waiting for it (kubectl apply -f crds/)",
                K::crd_name()
            );
        }
        tokio::time::sleep(CRD_RECHECK).await;
    }
}

async fn controllers(
    cx: Arc<Context>,
    writers: Writers,
    streams: WakeStreams,
    stop: CancellationToken,
) {
    let all_hypervisors = match &cx.settings.hypervisor_selector {
        Some(labels) => watcher::Config::default().labels(labels),
        None => watcher::Config::default(),
    };
    let hypervisors = drive::<Hypervisor>(
        Api::all(cx.kube.clone()),
        all_hypervisors,
        Streams {
            writer: writers.hypervisors,
            wakes: wakes(streams.hypervisors),
            namespaces: Vec::new(),
        },
        {
            let cx = Arc::clone(&cx);
            move |h: &DeserializeGuard<Hypervisor>| cx.wake_users_of(&h.name_any())
        },
        Arc::clone(&cx),
        stop.clone(),
    );
    let templates = drive::<LxcTemplate>(
        namespaced(&cx),
        watcher::Config::default(),
        Streams {
            writer: writers.templates,
            wakes: wakes(streams.templates),
            namespaces: cx.settings.watch_namespaces.clone(),
        },
        {
            let cx = Arc::clone(&cx);
            move |t: &DeserializeGuard<LxcTemplate>| {
                cx.wake_clones_of(&t.namespace().unwrap_or_default(), &t.name_any());
                wake_hypervisor_of(t, &cx);
            }
        },
        Arc::clone(&cx),
        stop.clone(),
    );
    let containers = drive::<LxcContainer>(
        namespaced(&cx),
        watcher::Config::default(),
        Streams {
            writer: writers.containers,
            wakes: wakes(streams.containers),
            namespaces: cx.settings.watch_namespaces.clone(),
        },
        {
            let cx = Arc::clone(&cx);
            move |c: &DeserializeGuard<LxcContainer>| wake_hypervisor_of(c, &cx)
        },
        Arc::clone(&cx),
        stop.clone(),
    );
    let references = async { stop.run_until_cancelled(references(Arc::clone(&cx))).await };
    let published = async { stop.run_until_cancelled(service::watch(&cx)).await };
    futures::join!(hypervisors, templates, containers, references, published);
}

/// The hypervisor's count and its map of GPUs follow its objects, and so do those who wait for a GPU.
fn wake_hypervisor_of<K: Lxc>(guard: &DeserializeGuard<K>, cx: &Context) {
    let Ok(object) = guard.0.as_ref() else { return };
    let Some(name) = lxc::hypervisor_of(object) else {
        return;
    };
    cx.wakes.wake(&ObjectKey::hypervisor(&name));
    if object.spec_shared().gpus.is_some() {
        cx.wake_waiting_for_gpus(&name);
    }
}

fn namespaced<K: Kind<Scope = k8s_openapi::NamespaceResourceScope>>(
    cx: &Context,
) -> Api<DeserializeGuard<K>> {
    match cx.settings.watch_namespaces.as_slice() {
        [only] => Api::namespaced(cx.kube.clone(), only),
        _ => Api::all(cx.kube.clone()),
    }
}

fn wakes<K: Kind>(
    receiver: UnboundedReceiver<ObjectKey>,
) -> futures::stream::BoxStream<'static, ObjectRef<DeserializeGuard<K>>> {
    UnboundedReceiverStream::new(receiver)
        .map(|key| {
            let reference = ObjectRef::new_with(&key.name, ());
            if key.namespace.is_empty() {
                reference
            } else {
                reference.within(&key.namespace)
            }
        })
        .boxed()
}

/// `Secret`s and `ConfigMap`s that objects name: a change of one wakes them. Metadata only; their content is read when it is needed.
async fn references(cx: Arc<Context>) {
    let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(cx.kube.clone(), &cx.namespace);
    let maps: Api<PartialObjectMeta<ConfigMap>> = Api::all(cx.kube.clone());
    let secrets = watcher(secrets, watcher::Config::default())
        .default_backoff()
        .touched_objects()
        .for_each(|secret| {
            if let Ok(secret) = secret {
                secret_changed(&secret.name_any(), &cx);
            }
            futures::future::ready(())
        });
    let maps = watcher(maps, watcher::Config::default())
        .default_backoff()
        .touched_objects()
        .for_each(|map| {
            if let Ok(map) = map {
                map_changed(&map.namespace().unwrap_or_default(), &map.name_any(), &cx);
            }
            futures::future::ready(())
        });
    futures::join!(secrets, maps, crate::secrets::follow(cx.clone()));
}

fn secret_changed(name: &str, cx: &Context) {
    for h in cx
        .stores
        .all_hypervisors()
        .iter()
        .filter(|h| h.spec.credentials_secret == name || ssh_secret_name(&h.name_any()) == name)
    {
        cx.wakes.wake(&key_of(h));
    }
}

fn map_changed(namespace: &str, name: &str, cx: &Context) {
    fn uses<K: Lxc>(object: &K, namespace: &str, name: &str) -> bool {
        let Some(setup) = &object.spec_shared().setup else {
            return false;
        };
        let script = setup.script_from.iter().map(|s| &s.config_map_key_ref);
        let env = setup.env.iter().flat_map(|e| &e.config_map_key_ref);
        object.namespace().as_deref() == Some(namespace)
            && script.chain(env).any(|from| from.name == name)
    }
    cx.stores
        .all_templates()
        .iter()
        .filter(|t| uses(*t, namespace, name))
        .for_each(|t| cx.wakes.wake(&key_of(t)));
    cx.stores
        .all_containers()
        .iter()
        .filter(|c| uses(*c, namespace, name))
        .for_each(|c| cx.wakes.wake(&key_of(c)));
}

/// `working` holds the context from the moment on when the CRDs are there.
fn pages(working: &Arc<OnceLock<Arc<Context>>>, metrics: &Arc<Metrics>) -> Pages {
    let (metrics, gauges, ready) = (
        Arc::clone(metrics),
        Arc::clone(working),
        Arc::clone(working),
    );
    Pages {
        metrics: Arc::new(move || {
            if let Some(cx) = gauges.get() {
                cx.gauge();
            }
            metrics.encode()
        }),
        healthy: Arc::new(|| Ok(())),
        ready: Arc::new(move || {
            ready
                .get()
                .map(|_| ())
                .ok_or_else(|| "the CRDs are not installed yet".to_owned())
        }),
    }
}
