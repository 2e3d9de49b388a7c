//! What vLLM's journal tells: why it ended, in words for a person, and how far it has come while it loads.

use phoenix_crds::conditions::Reason;

/// The line that an engine which has come to serve leaves; what stands before it has been overcome.
const SERVES: &str = "Application startup complete";

/// A cause by what vLLM says of it, and what to say of that.
struct Cause {
    /// A line that contains all of these.
    says: &'static [&'static str],
    reason: Reason,
    tell: fn(&str) -> Option<String>,
}

const fn cause(
    says: &'static [&'static str],
    reason: Reason,
    tell: fn(&str) -> Option<String>,
) -> Cause {
    Cause { says, reason, tell }
}

/// Texts of vLLM 0.4 to 0.32, `PyTorch`, `huggingface_hub` and argparse. The first that fits a line counts.
const CAUSES: [Cause; 26] = [
    cause(
        &["KV cache is needed, which is larger than"],
        Reason::OutOfMemory,
        kv_cache,
    ),
    cause(
        &["is larger than the maximum number of tokens that can be stored in KV cache"],
        Reason::OutOfMemory,
        kv_tokens,
    ),
    cause(
        &["No available memory for the cache blocks"],
        Reason::OutOfMemory,
        |_| {
            Some(
            "the model leaves no GPU memory for the KV cache: raise spec.vllm.gpuMemoryUtilization, lower maxModelLen, take more GPUs or a \
             quantized checkpoint"
                .to_owned(),
        )
        },
    ),
    cause(
        &["is less than desired GPU memory utilization"],
        Reason::OutOfMemory,
        free_memory,
    ),
    cause(&["CUDA out of memory"], Reason::OutOfMemory, cuda_memory),
    cause(&["OutOfMemoryError"], Reason::OutOfMemory, cuda_memory),
    cause(&["gated repo"], Reason::ModelNotFound, |_| {
        Some(GATED.to_owned())
    }),
    cause(&["GatedRepoError"], Reason::ModelNotFound, |_| {
        Some(GATED.to_owned())
    }),
    cause(
        &["Access to model", "is restricted"],
        Reason::ModelNotFound,
        |_| Some(GATED.to_owned()),
    ),
    cause(&["RepositoryNotFoundError"], Reason::ModelNotFound, |_| {
        Some(NOT_FOUND.to_owned())
    }),
    cause(
        &["Repository Not Found for url"],
        Reason::ModelNotFound,
        |_| Some(NOT_FOUND.to_owned()),
    ),
    cause(
        &["is not a local folder and is not a valid model identifier"],
        Reason::ModelNotFound,
        |_| Some(NOT_FOUND.to_owned()),
    ),
    cause(
        &["Invalid repository ID or local directory"],
        Reason::ModelNotFound,
        |_| Some(NOT_FOUND.to_owned()),
    ),
    cause(&["We couldn't connect to"], Reason::Exited, |_| {
        Some("the hub could not be reached from the container: check its gateway and name server, or put the model on a mount".to_owned())
    }),
    cause(&["No space left on device"], Reason::Exited, |_| {
        Some("the container's disk is full: raise spec.rootfs.size".to_owned())
    }),
    cause(&["address already in use"], Reason::Exited, |line| {
        let port = between(line, "', ", ")")
            .map(|port| format!(" {port}"))
            .unwrap_or_default();
        Some(format!(
            "another program in the container listens on port{port}: end it, or choose another spec.vllm.port"
        ))
    }),
    cause(&["unrecognized arguments:"], Reason::Exited, |line| {
        let arguments = after(line, "unrecognized arguments:")?;
        Some(format!(
            "this vLLM does not know {arguments}: correct spec.vllm.extraArgs"
        ))
    }),
    cause(&["error: argument "], Reason::Exited, |line| {
        let what = after(line, "error: argument ")?;
        Some(format!(
            "vLLM refuses an argument ({what}): correct spec.vllm"
        ))
    }),
    cause(
        &[
            "World size (",
            "is larger than the number of available GPUs",
        ],
        Reason::Exited,
        |line| {
            Some(format!(
                "spec.vllm asks for {} GPUs, and the container has {}: lower tensorParallelSize, or give it more by spec.gpus",
                between(line, "World size (", ")")?,
                between(line, "available GPUs (", ")")?
            ))
        },
    ),
    cause(
        &["must be divisible by tensor parallel size"],
        Reason::Exited,
        |line| {
            Some(format!(
                "the model's {} attention heads can't be split over {} GPUs: choose a tensorParallelSize that divides them",
                between(line, "attention heads (", ")")?,
                between(line, "tensor parallel size (", ")")?
            ))
        },
    ),
    cause(
        &[
            "User-specified max_model_len",
            "is greater than the derived",
        ],
        Reason::Exited,
        |line| {
            Some(format!(
                "spec.vllm.maxModelLen {} is more than the model was made for ({}): lower it",
                between(line, "max_model_len (", ")")?,
                between(line, "max_position_embeddings=", " ")
                    .or_else(|| between(line, "model_max_length=", " "))
                    .map_or("see its card", |most| most
                        .trim_end_matches([')', ',', '.']))
            ))
        },
    ),
    cause(&["Failed to infer device type"], Reason::Exited, |_| {
        Some(NO_GPU.to_owned())
    }),
    cause(&["No CUDA GPUs are available"], Reason::Exited, |_| {
        Some(NO_GPU.to_owned())
    }),
    cause(
        &["driver", "version is insufficient for CUDA runtime"],
        Reason::Exited,
        |_| {
            Some("the host's NVIDIA driver is too old for this vLLM's CUDA: upgrade it on the node, or install an older vLLM".to_owned())
        },
    ),
    cause(&["CUDA error:"], Reason::Exited, |line| {
        let what = after(line, "CUDA error:")?;
        Some(format!(
            "the GPU failed ({what}): look for `NVRM: Xid` in the node's kernel log"
        ))
    }),
    cause(
        &["Model architectures", "are not supported"],
        Reason::Exited,
        |line| {
            let what = between(line, "Model architectures [", "]")?;
            Some(format!(
                "this vLLM does not know the model's architecture ({what}): rebuild the template with a newer one"
            ))
        },
    ),
];

const GATED: &str = "the model is gated: accept its licence on the hub, and give a token of that account in spec.vllm.huggingFaceToken";
const NOT_FOUND: &str = "there is no such model on the hub or in the container, or it is private: correct spec.vllm.model, or set spec.vllm.huggingFaceToken";
const NO_GPU: &str =
    "vLLM finds no GPU in the container: ask for one by spec.gpus, and run `nvidia-smi` inside";

fn kv_cache(line: &str) -> Option<String> {
    let needed = before(line, " KV cache is needed").and_then(|text| {
        let at = text.rfind(['(', ',']).map_or(0, |i| i + 1);
        Some(text.get(at..)?.trim().to_owned())
    })?;
    let there = between(line, "available KV cache memory (", ")")?;
    let length = between(line, "max seq len (", ")")?;
    let most = between(line, "maximum model length is ", " ")
        .map(|most| format!(" (to {} at most)", most.trim_end_matches('.')))
        .unwrap_or_default();
    Some(format!(
        "a context of {length} tokens needs {needed} of GPU memory for its KV cache, and {there} are left: lower spec.vllm.maxModelLen{most} or \
         raise gpuMemoryUtilization"
    ))
}

fn kv_tokens(line: &str) -> Option<String> {
    Some(format!(
        "a context of {} tokens is asked for, and the GPU memory that is left holds {}: lower spec.vllm.maxModelLen or raise gpuMemoryUtilization",
        between(line, "max seq len (", ")")?,
        between(line, "stored in KV cache (", ")")?
    ))
}

fn free_memory(line: &str) -> Option<String> {
    let (free, total) = between(line, "(", ")")?.split_once('/')?;
    let (share, wanted) = between(line, "utilization (", ")")?.split_once(", ")?;
    Some(format!(
        "{free} of the GPU's {total} are free, and gpuMemoryUtilization {share} asks for {wanted}: lower it, or end what else uses the GPU"
    ))
}

#[expect(clippy::unnecessary_wraps, reason = "the table takes it as it is")]
fn cuda_memory(line: &str) -> Option<String> {
    let advice = "lower spec.vllm.maxModelLen or gpuMemoryUtilization, take more GPUs or a quantized checkpoint";
    let numbers = || {
        let unit = |text: &str| text.trim_end_matches('.').to_owned();
        let wanted = unit(between(line, "Tried to allocate ", " GPU")?);
        let card = between(line, "GPU ", " has a total capacity")?;
        let card = card.rsplit("GPU ").next()?;
        let total = between(line, "total capacity of ", " of which")?;
        let free = between(line, "of which ", " is free")?;
        Some(format!(
            "the model does not fit: GPU {card} has {total}, {free} of it are free, and {wanted} more are needed; {advice}"
        ))
    };
    Some(
        numbers()
            .unwrap_or_else(|| format!("the model does not fit into the GPUs' memory: {advice}")),
    )
}

fn before<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    line.split_once(mark).map(|(text, _)| text)
}

fn after<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    line.split_once(mark).map(|(_, text)| text.trim())
}

fn between<'a>(line: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(from)?;
    Some(rest.split_once(to).map_or(rest, |(text, _)| text)).filter(|text| !text.is_empty())
}

/// Why it ended: the newest known cause since an engine last came to serve, with what can be done about it.
pub(super) fn why(log: &str) -> Option<(Reason, String)> {
    let lines = log.lines().rev().take_while(|line| !line.contains(SERVES));
    lines.into_iter().find_map(|line| {
        CAUSES
            .iter()
            .filter(|cause| cause.says.iter().all(|words| line.contains(words)))
            .find_map(|cause| Some((cause.reason, (cause.tell)(line)?)))
    })
}

/// How far it has come, as its newest line that says so tells.
pub(super) fn stage(log: &str) -> Option<String> {
    const STAGES: [(&str, &str); 10] = [
        (SERVES, "it is about to answer"),
        ("Starting vLLM API server", "it is about to answer"),
        ("Graph capturing finished", "it is about to answer"),
        ("apturing CUDA graphs", "capturing CUDA graphs"),
        ("GPU KV cache size", "warming up"),
        ("torch.compile", "compiling its kernels"),
        ("Loading weights took", "measuring the memory that is left"),
        ("Starting to load model", "loading the weights"),
        ("Resolved architecture", "preparing the engine"),
        (
            "vLLM API server version",
            "reading the model's configuration",
        ),
    ];
    log.lines().rev().find_map(|line| {
        if let Some(part) = between(line, "checkpoint shards:", "%").map(str::trim)
            && part.chars().all(|c| c.is_ascii_digit())
        {
            return Some(format!("loading the weights ({part} %)"));
        }
        let (_, stage) = STAGES.iter().find(|(says, _)| line.contains(says))?;
        Some((*stage).to_owned())
    })
}

#[cfg(test)]
mod tests;
