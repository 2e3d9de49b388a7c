//! What a running vLLM server answers, header for header as recorded.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use serde_json::{Value, json};

use super::Engine;
use crate::guest::standin::VLLM;
use crate::guest::web::Answer;

const FINGERPRINT: &str = "vllm-0.32.0-efc20125";
/// Without `max_tokens` an answer ends by itself after so many.
const USUAL: u64 = 16;

/// Answers one request.
pub(super) async fn answer(engine: Arc<Engine>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let key = parts
        .headers
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    if path.starts_with("/v1")
        && !engine.api_key.is_empty()
        && !key.is_some_and(|key| engine.api_key.iter().any(|known| known == key))
    {
        return finish(
            401,
            Some("application/json"),
            json!({"error": "Unauthorized"}).to_string(),
        );
    }
    match (parts.method, path) {
        (Method::GET, "/health") if engine.dead.is_cancelled() => finish(503, None, String::new()),
        (Method::GET, "/health") | (Method::GET | Method::POST, "/ping") => {
            finish(200, None, String::new())
        }
        (Method::GET, "/version") => reply(200, &json!({"version": VLLM})),
        (Method::GET, "/load") => reply(200, &json!({"server_load": 0})),
        (Method::GET, "/v1/models") => reply(200, &models(&engine)),
        (Method::GET, "/metrics") => finish(
            200,
            Some("text/plain; version=1.0.0; charset=utf-8"),
            metrics(&engine),
        ),
        (Method::POST, "/v1/completions" | "/v1/chat/completions" | "/tokenize") => {
            let body = body
                .collect()
                .await
                .map(http_body_util::Collected::to_bytes)
                .unwrap_or_default();
            generate(&engine, path, &body)
        }
        (
            _,
            "/health"
            | "/version"
            | "/load"
            | "/v1/models"
            | "/metrics"
            | "/v1/completions"
            | "/v1/chat/completions"
            | "/tokenize"
            | "/ping",
        ) => reply(405, &json!({"detail": "Method Not Allowed"})),
        _ => reply(404, &json!({"detail": "Not Found"})),
    }
}

fn reply(status: u16, value: &Value) -> Answer {
    finish(status, Some("application/json"), value.to_string())
}

fn finish(status: u16, kind: Option<&str>, body: String) -> Answer {
    let mut answer = Response::builder()
        .status(status)
        .header("server", "uvicorn")
        .header("content-length", body.len());
    if let Some(kind) = kind {
        answer = answer.header("content-type", kind);
    }
    answer
        .header("vary", "Origin")
        .body(Full::from(Bytes::from(body)))
        .unwrap_or_default()
}

fn error(status: u16, kind: &str, parameter: Option<&str>, message: &str) -> Answer {
    reply(
        status,
        &json!({"error": {"message": message, "type": kind, "param": parameter, "code": status}}),
    )
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn id(prefix: &str) -> String {
    format!("{prefix}-{}", hex::encode(rand::random::<[u8; 8]>()))
}

fn models(engine: &Engine) -> Value {
    let created = seconds(SystemTime::now());
    let data: Vec<_> = engine
        .served
        .iter()
        .map(|name| {
            json!({"id": name, "object": "model", "created": created, "owned_by": "vllm", "root": engine.model, "parent": null, "max_model_len": engine.max_model_len,
                "permission": [{"id": id("modelperm"), "object": "model_permission", "created": created, "allow_create_engine": false, "allow_sampling": true,
                    "allow_logprobs": true, "allow_search_indices": false, "allow_view": true, "allow_fine_tuning": false, "organization": "*", "group": null, "is_blocking": false}]})
        })
        .collect();
    json!({"object": "list", "data": data})
}

fn generate(engine: &Engine, path: &str, body: &[u8]) -> Answer {
    let Ok(asked) = serde_json::from_slice::<Value>(body) else {
        let expected = if body.first() == Some(&b'{') {
            "property name enclosed in double quotes"
        } else {
            "value"
        };
        let message = format!(
            "1 validation error:\n  {{'type': 'json_invalid', 'loc': 'body.1', 'msg': 'JSON decode error', 'input': '<dict of 0 items>', 'ctx': {{'error': 'Expecting {expected}'}}}}"
        );
        return error(400, "Bad Request", Some("body.1"), &message);
    };
    let model = match asked["model"].as_str() {
        Some(model) if !engine.served.iter().any(|name| name == model) => {
            return error(
                404,
                "NotFoundError",
                Some("model"),
                &format!(
                    "The model `{model}` does not exist. Valid aliases: {}.",
                    engine.served.join(", ")
                ),
            );
        }
        Some(model) => model.to_owned(),
        None => engine.served[0].clone(),
    };
    if path == "/tokenize" {
        return reply(
            200,
            &json!({"count": 1, "max_model_len": engine.max_model_len, "tokens": [316], "token_strs": null}),
        );
    }
    let chat = path == "/v1/chat/completions";
    let given = if chat { "messages" } else { "prompt" };
    if asked.get(given).is_none() {
        let message = format!(
            "1 validation error:\n  {{'type': 'missing', 'loc': ('body', '{given}'), 'msg': 'Field required', 'input': '<dict>'}}"
        );
        return error(400, "Bad Request", Some(&format!("body.{given}")), &message);
    }
    let tokens = asked["max_completion_tokens"]
        .as_u64()
        .or_else(|| asked["max_tokens"].as_u64());
    if let Some(tokens) = tokens.filter(|tokens| *tokens > engine.max_model_len) {
        let message = format!(
            "max_tokens={tokens} cannot be greater than max_model_len={}. Please request fewer output tokens. (parameter=max_tokens, value={tokens})",
            engine.max_model_len
        );
        return error(400, "BadRequestError", Some("max_tokens"), &message);
    }
    if engine.dead.is_cancelled() {
        return error(
            500,
            "InternalServerError",
            None,
            "EngineCore encountered an issue. See stack trace (above) for the root cause.",
        );
    }
    let count = tokens.unwrap_or(USUAL);
    engine.count(count);
    let reason = if tokens.is_some() { "length" } else { "stop" };
    if asked["stream"] == true {
        stream(chat, &model, count, reason)
    } else {
        reply(200, &whole(chat, &model, count, reason))
    }
}

fn words(count: u64) -> String {
    "m".repeat(usize::try_from(count.min(10_000)).unwrap_or_default())
}

fn whole(chat: bool, model: &str, count: u64, reason: &str) -> Value {
    let created = seconds(SystemTime::now());
    let prompt = if chat { 19 } else { 1 };
    let usage = json!({"prompt_tokens": prompt, "total_tokens": prompt + count, "completion_tokens": count, "prompt_tokens_details": null, "completion_tokens_details": null});
    if chat {
        json!({"id": id("chatcmpl"), "object": "chat.completion", "created": created, "model": model,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": words(count), "refusal": null, "annotations": null, "audio": null, "function_call": null, "reasoning": null},
                "logprobs": null, "finish_reason": reason, "stop_reason": null, "token_ids": null, "routed_experts": null}],
            "service_tier": null, "system_fingerprint": FINGERPRINT, "usage": usage, "prompt_logprobs": null, "prompt_token_ids": null, "prompt_text": null,
            "kv_transfer_params": null, "ec_transfer_params": null, "metrics": null})
    } else {
        json!({"id": id("cmpl"), "object": "text_completion", "created": created, "model": model,
            "choices": [{"index": 0, "text": words(count), "logprobs": null, "finish_reason": reason, "stop_reason": null, "token_ids": null, "prompt_logprobs": null,
                "prompt_token_ids": null, "routed_experts": null}],
            "service_tier": null, "system_fingerprint": FINGERPRINT, "usage": usage, "kv_transfer_params": null, "ec_transfer_params": null, "metrics": null})
    }
}

fn stream(chat: bool, model: &str, count: u64, reason: &str) -> Answer {
    let created = seconds(SystemTime::now());
    let (id, object) = if chat {
        (id("chatcmpl"), "chat.completion.chunk")
    } else {
        (id("cmpl"), "text_completion")
    };
    let mut text = String::new();
    let mut event = |choices: Value, usage: Option<Value>| {
        let mut value = json!({"id": id, "object": object, "created": created, "model": model, "choices": choices});
        if let Some(usage) = usage {
            value["usage"] = usage;
            value["system_fingerprint"] = json!(FINGERPRINT);
        }
        write!(text, "data: {value}\n\n").ok();
    };
    if chat {
        event(
            json!([{"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": null, "finish_reason": null}]),
            None,
        );
    }
    for token in 1..=count.min(10_000) {
        let end = if token == count {
            json!(reason)
        } else {
            Value::Null
        };
        let choice = if chat {
            json!({"index": 0, "delta": {"content": "m"}, "logprobs": null, "finish_reason": end, "token_ids": null})
        } else {
            json!({"index": 0, "text": "m", "logprobs": null, "finish_reason": end, "stop_reason": null})
        };
        event(json!([choice]), None);
    }
    event(
        json!([]),
        Some(json!({"prompt_tokens": 19, "total_tokens": 19 + count, "completion_tokens": count})),
    );
    text += "data: [DONE]\n\n";
    Response::builder()
        .header("server", "uvicorn")
        .header("content-type", "text/event-stream; charset=utf-8")
        .header("vary", "Origin")
        .body(Full::from(Bytes::from(text)))
        .unwrap_or_default()
}

/// The metrics that dashboards and autoscalers look at; the real server has some 300 more lines.
fn metrics(engine: &Engine) -> String {
    let label = format!("{{engine=\"0\",model_name=\"{}\"}}", engine.served[0]);
    let (running, waiting) = engine
        .guest
        .upgrade()
        .map_or((0, 0), |guest| guest.shared.faults.load(guest.vmid));
    let requests = engine.requests.load(Ordering::Relaxed);
    let generated = engine.generated.load(Ordering::Relaxed);
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(&str, String, f64)]| {
        write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n").ok();
        for (suffix, label, value) in samples {
            writeln!(text, "{name}{suffix}{label} {value:?}").ok();
        }
    };
    #[expect(
        clippy::cast_precision_loss,
        reason = "metrics are floating-point numbers, and these counts are small"
    )]
    let (running, waiting, requests, generated, started) = (
        running as f64,
        waiting as f64,
        requests as f64,
        generated as f64,
        seconds(engine.started) as f64,
    );
    family(
        "process_start_time_seconds",
        "gauge",
        "Start time of the process since unix epoch in seconds.",
        &[("", String::new(), started)],
    );
    family(
        "vllm:num_requests_running",
        "gauge",
        "Number of requests in model execution batches.",
        &[("", label.clone(), running)],
    );
    family(
        "vllm:num_requests_waiting",
        "gauge",
        "Number of requests waiting to be processed.",
        &[("", label.clone(), waiting)],
    );
    let states = ["awake", "weights_offloaded", "discard_all"].map(|state| {
        (
            "",
            format!(
                "{{engine=\"0\",model_name=\"{}\",sleep_state=\"{state}\"}}",
                engine.served[0]
            ),
            f64::from(u8::from(state == "awake")),
        )
    });
    family(
        "vllm:engine_sleep_state",
        "gauge",
        "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake; weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2.",
        &states,
    );
    family(
        "vllm:kv_cache_usage_perc",
        "gauge",
        "KV-cache usage. 1 means 100 percent usage.",
        &[("", label.clone(), 0.0)],
    );
    family(
        "vllm:prompt_tokens",
        "counter",
        "Number of prefill tokens processed.",
        &[("_total", label.clone(), requests)],
    );
    family(
        "vllm:generation_tokens",
        "counter",
        "Number of generation tokens processed.",
        &[("_total", label.clone(), generated)],
    );
    let finished = format!(
        "{{engine=\"0\",finished_reason=\"length\",model_name=\"{}\"}}",
        engine.served[0]
    );
    family(
        "vllm:request_success",
        "counter",
        "Count of successfully processed requests.",
        &[("_total", finished, requests)],
    );
    text
}
