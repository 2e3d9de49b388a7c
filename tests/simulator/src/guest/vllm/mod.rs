//! vLLM's life as a guest's unit runs it: arguments, loading, serving, the ways to end.
//!
//! Texts and answers follow what vLLM 0.32.0 was recorded to say. Loading means connection refused, never 503; an engine that dies takes the server
//! with it, exit status 0.

mod api;
mod args;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use super::boot::Guest;
use super::calls::{Call, Reply};
use super::faults::VllmFailure;
use super::standin;
use super::web;
use args::{Refused, Serve};

/// A loaded engine.
pub(super) struct Engine {
    /// Where it runs.
    guest: std::sync::Weak<Guest>,
    model: String,
    served: Vec<String>,
    max_model_len: u64,
    api_key: Vec<String>,
    started: SystemTime,
    /// The engine's processes are dead; the server has not noticed yet, or is about to end.
    dead: CancellationToken,
    requests: AtomicU64,
    generated: AtomicU64,
}

/// The engines of a guest by port.
#[derive(Default)]
pub(super) struct Engines(Mutex<HashMap<u16, Arc<Engine>>>);

impl Engines {
    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<u16, Arc<Engine>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills all engines; how many there were.
    pub(super) fn kill(&self) -> usize {
        let all = self.all();
        all.values().for_each(|engine| engine.dead.cancel());
        all.len()
    }
}

/// An engine registered for as long as it serves.
struct Registered<'a>(&'a Engines, u16);

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.0.all().remove(&self.1);
    }
}

/// `vllm`.
pub(super) async fn run(guest: &Arc<Guest>, call: &Call) -> i32 {
    let home = call
        .program
        .rsplit_once("/bin/")
        .map_or("/usr/local", |(home, _)| home);
    let version =
        standin::python_package(guest, home, "vllm").unwrap_or_else(|| standin::VLLM.to_owned());
    match call.args().first().copied() {
        Some("--version" | "-v") => {
            call.reply.out(&format!("{version}\n")).await;
            0
        }
        Some("serve") => match Serve::parse(&call.args[1..]) {
            Ok(serve) => serve_model(guest, call, serve, &version).await,
            Err(Refused(text)) => {
                call.reply.err(&text).await;
                2
            }
        },
        _ => {
            call.reply.err("usage: vllm [-h] [-v] {chat,complete,serve,launch,bench,collect-env,run-batch} ...\nvllm: error: the following arguments are required: subparser\n").await;
            2
        }
    }
}

fn stamp() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
        % 86_400;
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// The server's log, which it writes to standard error.
#[derive(Clone, Copy)]
struct Log<'a>(&'a Reply);

impl Log<'_> {
    async fn info(self, text: &str) {
        self.0
            .err(&format!(
                "(APIServer pid=1) INFO 11-24 {} {text}\n",
                stamp()
            ))
            .await;
    }

    /// Says why the engine did not start; the answer is the exit status.
    async fn failure(self, text: &str) -> i32 {
        let core = format!(
            "(EngineCore pid=2) ERROR 11-24 {} [core.py:1104] EngineCore failed to start.\n(EngineCore pid=2) {text}\n",
            stamp()
        );
        self.0.err(&core).await;
        self.0.err("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n").await;
        1
    }
}

async fn serve_model(guest: &Arc<Guest>, call: &Call, serve: Serve, version: &str) -> i32 {
    let log = Log(&call.reply);
    log.info(&format!(
        "[api_server.py:1977] vLLM API server version {version}"
    ))
    .await;
    log.info(&format!(
        "[utils.py:253] non-default args: {}",
        serve.described()
    ))
    .await;
    let gpus = standin::cuda_devices(guest);
    if gpus == 0 {
        call.reply.err("RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG` to turn on verbose logging to help debug the issue.\n").await;
        return 1;
    }
    let wanted = serve.tensor_parallel * serve.pipeline_parallel;
    if wanted > gpus {
        return log.failure(&format!("ValueError: World size ({wanted}) is larger than the number of available GPUs ({gpus}) in this node. If this is intentional and you are using:\n- ray, set '--distributed-executor-backend ray'.")).await;
    }
    let api_key = serve
        .api_key
        .clone()
        .into_iter()
        .chain(
            call.env
                .get("VLLM_API_KEY")
                .filter(|key| !key.is_empty())
                .cloned(),
        )
        .collect();
    let loads = async {
        let step = guest.shared.faults.timing().model_load / 4;
        log.info(&format!(
            "[model.py:547] Resolved architecture: {}",
            serve.architecture()
        ))
        .await;
        tokio::time::sleep(step).await;
        match guest.shared.faults.vllm(guest.vmid) {
            Some(VllmFailure::ModelNotFound) => {
                return Err(format!(
                    "OSError: {} is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'\nIf this is a private repository, make sure to pass a token having permission to this repo either by logging in with `hf auth login` or by passing `token=<your_token>`",
                    serve.model
                ));
            }
            Some(VllmFailure::GatedModel)
                if call.env.get("HF_TOKEN").is_none_or(String::is_empty) =>
            {
                return Err(format!(
                    "OSError: You are trying to access a gated repo.\nMake sure to have access to it at https://huggingface.co/{}.\n401 Client Error. Access to model {} is restricted. You must have access to it and be authenticated to access it. Please log in.",
                    serve.model, serve.model
                ));
            }
            _ => {}
        }
        log.info(&format!(
            "[gpu_model_runner.py:3875] Starting to load model {}...",
            serve.model
        ))
        .await;
        tokio::time::sleep(step).await;
        if guest.shared.faults.vllm(guest.vmid) == Some(VllmFailure::OutOfMemory) {
            return Err("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.16 GiB. GPU 0 has a total capacity of 47.41 GiB of which 512.00 MiB is free. Including non-PyTorch memory, this process has 46.88 GiB memory in use.".to_owned());
        }
        log.info("[default_loader.py:314] Loading weights took 4.21 seconds")
            .await;
        tokio::time::sleep(step).await;
        log.info("[kv_cache_utils.py:1305] GPU KV cache size: 262,144 tokens")
            .await;
        tokio::time::sleep(step).await;
        Ok(())
    };
    if let Err(text) = loads.await {
        return log.failure(&text).await;
    }
    let engine = Arc::new(Engine {
        guest: Arc::downgrade(guest),
        max_model_len: serve
            .max_model_len
            .unwrap_or_else(|| serve.native_context()),
        served: serve.served_names(),
        model: serve.model.clone(),
        api_key,
        started: SystemTime::now(),
        dead: CancellationToken::new(),
        requests: AtomicU64::new(0),
        generated: AtomicU64::new(0),
    });
    listen(guest, call, serve.port, engine, log).await
}

async fn listen(
    guest: &Arc<Guest>,
    call: &Call,
    port: u16,
    engine: Arc<Engine>,
    log: Log<'_>,
) -> i32 {
    let process = CancellationToken::new();
    let ends = process.clone().drop_guard();
    let (served, until) = (engine.clone(), process.clone());
    let service = Arc::new(move |stream| {
        let engine = served.clone();
        web::serve(stream, until.clone(), move |request| {
            api::answer(engine.clone(), request)
        });
    });
    let Some(listening) = guest.ports.listen(port, service) else {
        call.reply.err(&format!("OSError: [Errno 98] error while attempting to bind on address ('0.0.0.0', {port}): address already in use\n")).await;
        return 1;
    };
    guest.engines.all().insert(port, engine.clone());
    let registered = Registered(&guest.engines, port);
    log.info(&format!(
        "[api_server.py:2052] Starting vLLM API server 0 on http://0.0.0.0:{port}"
    ))
    .await;
    call.reply
        .err("(APIServer pid=1) INFO:     Application startup complete.\n")
        .await;
    engine.dead.cancelled().await;
    call.reply.err("(APIServer pid=1) ERROR [core_client.py:610] Engine core proc EngineCore_DP0 died unexpectedly, shutting down client.\n").await;
    // The first request after the death may still be answered with 503 before the server is gone.
    tokio::time::sleep(Duration::from_millis(250)).await;
    drop((listening, registered, ends));
    tokio::time::sleep(Duration::from_millis(250)).await;
    call.reply.err("(APIServer pid=1) INFO:     Shutting down\n(APIServer pid=1) INFO:     Finished server process [1]\n").await;
    0
}

impl Engine {
    fn count(&self, tokens: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.generated.fetch_add(tokens, Ordering::Relaxed);
    }
}
