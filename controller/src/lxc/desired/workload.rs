//! vLLM's unit and the probes, from the spec and the Secrets that it names.

use std::sync::Arc;

use phoenix_crds::{
    LxcContainer, PowerState,
    conditions::{ConditionType as C, Reason},
    reference::SecretSource,
    vllm::Vllm,
};
use secrecy::SecretString;

use super::Role;
use crate::{
    context::Context,
    fault::Fault,
    guest::{VllmInput, render_vllm},
    prober::ProbeSpec,
    secrets,
};

/// The role of a container.
pub(crate) async fn role(
    container: &LxcContainer,
    namespace: &str,
    cx: &Context,
) -> Result<Role, Fault> {
    let spec = &container.spec;
    let running = spec.power_state != PowerState::Stopped;
    let Some(vllm) = &spec.vllm else {
        let probe = spec.probe.clone().map(ProbeSpec::Http);
        return Ok(Role::Container {
            running,
            vllm: None,
            probe,
            startup_timeout: std::time::Duration::ZERO,
        });
    };
    let api_key = secret(vllm.api_key.as_ref(), "apiKey", namespace, cx).await?;
    let token = secret(
        vllm.hugging_face_token.as_ref(),
        "huggingFaceToken",
        namespace,
        cx,
    )
    .await?;
    let files = render_vllm(&input(vllm, token, api_key.clone()));
    let probe = ProbeSpec::Vllm {
        port: vllm.port(),
        model: vllm.served_model_name().to_owned(),
        api_key,
        args_hash: files.args_hash.clone(),
    };
    Ok(Role::Container {
        running,
        vllm: Some(Arc::new(files)),
        probe: Some(probe),
        startup_timeout: vllm.startup_timeout().into(),
    })
}

fn input(
    vllm: &Vllm,
    hugging_face_token: Option<SecretString>,
    api_key: Option<SecretString>,
) -> VllmInput {
    VllmInput {
        model: vllm.model.clone(),
        served_model_name: vllm.served_model_name.clone(),
        port: vllm.port(),
        host: vllm.host().to_owned(),
        tensor_parallel_size: vllm
            .tensor_parallel_size
            .and_then(|n| u32::try_from(n).ok()),
        max_model_len: vllm.max_model_len.and_then(|n| u64::try_from(n).ok()),
        gpu_memory_utilization: vllm.gpu_memory_utilization,
        dtype: vllm.dtype.clone(),
        quantization: vllm.quantization.clone(),
        extra_args: vllm.extra_args.clone(),
        env: vllm
            .env
            .iter()
            .map(|e| (e.name.clone(), e.value.clone()))
            .collect(),
        hugging_face_token,
        api_key,
        executable: vllm.executable().to_owned(),
    }
}

async fn secret(
    source: Option<&SecretSource>,
    field: &str,
    namespace: &str,
    cx: &Context,
) -> Result<Option<SecretString>, Fault> {
    let Some(source) = source else {
        return Ok(None);
    };
    let reference = &source.secret_key_ref;
    let (name, key) = (&reference.name, &reference.key);
    let bytes = secrets::read(&cx.kube, namespace, name)
        .await?
        .and_then(|s| s.data)
        .and_then(|mut data| data.remove(key));
    match bytes.map(|b| String::from_utf8(b.0)) {
        Some(Ok(text)) => Ok(Some(SecretString::from(
            text.trim_end_matches('\n').to_owned(),
        ))),
        Some(Err(_)) => Err(Fault::user(
            C::VllmReady,
            Reason::Installing,
            format!("Secret {namespace}/{name}: {key:?} is not text (spec.vllm.{field})."),
        )),
        None => {
            let message = format!(
                "Secret {namespace}/{name} with the key {key:?} does not exist (spec.vllm.{field}); create it, and this goes on by itself."
            );
            Err(Fault::retry(C::VllmReady, Reason::Installing, message))
        }
    }
}
