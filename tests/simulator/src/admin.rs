//! The admin port: faults and human edits by plain HTTP on 127.0.0.1, for those who don't run the simulator in their own process.
//!
//! `GET /state`, `GET /calls`, `GET|POST|DELETE /faults`, and `POST /mishaps` with a [`Mishap`] as it prints in JSON: `{"lock": {"vmid": 100, "lock": "disk"}}`.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use anyhow::Result;
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
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
