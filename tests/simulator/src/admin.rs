//! The admin port: faults and human edits by plain HTTP on 127.0.0.1, for those who don't run the simulator in their own process.
//!
//! `GET /state`, `GET /calls`, `GET|POST|DELETE /faults`, `POST /mishaps` (as [`Mishap`] prints in JSON: `{"lock": {"vmid": 100, "lock": "disk"}}`), `POST /containers/{vmid}` with `{"lock": …}`, `{"set": {…}}`, `{"delete": true}` or
//! `{"create": "hostname"}`, `POST /nodes/{node}` with `{"online": …}`, `POST /storages/{storage}` with `{"full": …, "online": …}`.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use anyhow::Result;
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    core::Core,
    fault::Fault,
    mishap::Mishap,
    model::{check, zfs},
};

type Answer = Result<Json<Value>, (StatusCode, String)>;

fn done(result: Result<()>) -> Answer {
    result
        .map(|()| Json(json!({"ok": true})))
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("{error:#}\n")))
}

/// Opens the port; the answer is where.
pub(crate) async fn start(core: Arc<Core>) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/state", get(state))
        .route("/calls", get(calls))
        .route("/faults", get(faults).post(add_fault).delete(clear_faults))
        .route("/mishaps", post(mishap))
        .route("/containers/{vmid}", post(container))
        .route("/nodes/{node}", post(node))
        .route("/storages/{storage}", post(storage))
        .with_state(Arc::clone(&core));
    let stop = core.stop.clone();
    core.running.spawn(async move {
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(async move { stop.cancelled().await })
            .await;
        if let Err(error) = served {
            tracing::warn!(%error, "the admin port closed");
        }
    });
    Ok(address)
}

async fn state(State(core): State<Arc<Core>>) -> Json<Value> {
    let state = core.state();
    let containers: BTreeMap<String, String> = state
        .containers
        .iter()
        .map(|(vmid, container)| (vmid.to_string(), container.file.text()))
        .collect();
    let tasks: Vec<Value> = state
        .tasks
        .newest()
        .map(|task| json!({"upid": task.upid.to_string(), "exit": task.exit}))
        .collect();
    Json(
        json!({"containers": containers, "tasks": tasks, "zfs": zfs::list(&state), "problems": check::problems(&state)}),
    )
}

async fn calls(State(core): State<Arc<Core>>) -> Json<Value> {
    let counts = core.calls.counts().into_iter();
    Json(counts.map(|((method, endpoint, code), count)| json!({"method": method, "endpoint": endpoint, "code": code, "count": count})).collect())
}

async fn faults(State(core): State<Arc<Core>>) -> Json<Vec<Fault>> {
    Json(core.faults.all())
}

async fn add_fault(State(core): State<Arc<Core>>, Json(fault): Json<Fault>) -> Json<Value> {
    core.faults.add(fault);
    Json(json!({"ok": true}))
}

async fn clear_faults(State(core): State<Arc<Core>>) -> Json<Value> {
    core.faults.clear();
    Json(json!({"ok": true}))
}

async fn mishap(State(core): State<Arc<Core>>, Json(mishap): Json<Mishap>) -> Answer {
    done(core.suffer(mishap).await)
}

/// What is done to a container.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Edit {
    Lock(Option<String>),
    Set(BTreeMap<String, Option<String>>),
    Delete(bool),
    Create(String),
}

async fn container(
    State(core): State<Arc<Core>>,
    Path(vmid): Path<u32>,
    Json(edit): Json<Edit>,
) -> Answer {
    done(match edit {
        Edit::Lock(lock) => core.set_lock(vmid, lock.as_deref()),
        Edit::Set(keys) => keys
            .iter()
            .try_for_each(|(key, value)| core.edit_config(vmid, key, value.as_deref())),
        Edit::Delete(true) => core.vanish(vmid).await,
        Edit::Delete(false) => Ok(()),
        Edit::Create(hostname) => core.create_foreign(vmid, &hostname).await,
    })
}

#[derive(Deserialize)]
struct NodeEdit {
    online: bool,
}

async fn node(
    State(core): State<Arc<Core>>,
    Path(name): Path<String>,
    Json(edit): Json<NodeEdit>,
) -> Answer {
    done(core.set_online(&name, edit.online))
}

#[derive(Deserialize)]
struct StorageEdit {
    full: Option<bool>,
    online: Option<bool>,
}

async fn storage(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    Json(edit): Json<StorageEdit>,
) -> Answer {
    done(core.set_storage(&id, edit.full, edit.online))
}
