//! Excerpts of journals, as vLLM and what it stands on word them, and what a person is told.

use super::*;

const CORE: &str = "(EngineCore_DP0 pid=223840) ERROR 10-25 13:08:43 [core.py:708] ";
const INIT: &str = "\n(APIServer pid=223598) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n";

#[test]
fn a_cause_is_told_with_its_figures_and_its_remedy() {
    let rows: [(&str, Reason, &[&str]); 22] = [
        (
            "ValueError: To serve at least one request with the models's max seq len (40960), (10.00 GiB KV cache is needed, which is larger than the available KV cache memory (1.25 GiB). Based on the available memory,  Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.",
            Reason::OutOfMemory,
            &[
                "40960 tokens needs 10.00 GiB",
                "1.25 GiB are left",
                "lower spec.vllm.maxModelLen or raise gpuMemoryUtilization",
            ],
        ),
        (
            "ValueError: To serve at least one request with the model's max seq len (4096), (1.0 GiB KV cache is needed, which is larger than the available KV cache memory (0.58 GiB). Based on the available memory, the estimated maximum model length is 2368. Try increasing `gpu_memory_utilization` (which also controls CPU memory on the CPU backend) or decreasing `max_model_len` when initializing the engine.",
            Reason::OutOfMemory,
            &["needs 1.0 GiB", "maxModelLen (to 2368 at most)"],
        ),
        (
            "ValueError: To serve at least one request with the models's max seq len (262144), 28.00 GiB KV cache is needed, which is larger than the available KV cache memory (13.69 GiB). The estimated maximum model length is 128128.",
            Reason::OutOfMemory,
            &[
                "needs 28.00 GiB",
                "13.69 GiB are left",
                "(to 128128 at most)",
            ],
        ),
        (
            "ValueError: The model's max seq len (32768) is larger than the maximum number of tokens that can be stored in KV cache (7344). Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.",
            Reason::OutOfMemory,
            &["32768 tokens", "holds 7344"],
        ),
        (
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.",
            Reason::OutOfMemory,
            &["raise spec.vllm.gpuMemoryUtilization"],
        ),
        (
            "ValueError: Free memory on device cuda:0 (19.77/22.05 GiB) on startup is less than desired GPU memory utilization (0.9, 19.84 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
            Reason::OutOfMemory,
            &[
                "19.77 of the GPU's 22.05 GiB are free",
                "gpuMemoryUtilization 0.9 asks for 19.84 GiB",
                "lower it",
            ],
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 350.00 MiB. GPU 0 has a total capacity of 23.68 GiB of which 212.81 MiB is free. Including non-PyTorch memory, this process has 23.46 GiB memory in use.",
            Reason::OutOfMemory,
            &[
                "GPU 0 has 23.68 GiB, 212.81 MiB of it are free, and 350.00 MiB more are needed",
                "quantized",
            ],
        ),
        (
            "RuntimeError: CUDA out of memory occurred when warming up sampler with 256 dummy requests. Please try lowering `max_num_seqs` or `gpu_memory_utilization` when initializing the engine.",
            Reason::OutOfMemory,
            &["does not fit into the GPUs' memory"],
        ),
        (
            "OSError: You are trying to access a gated repo.\nMake sure to have access to it at https://huggingface.co/org/model.\n401 Client Error. (Request ID: Root=1-695139c1)",
            Reason::ModelNotFound,
            &["gated", "spec.vllm.huggingFaceToken"],
        ),
        (
            "huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1-661471eb)",
            Reason::ModelNotFound,
            &["accept its licence"],
        ),
        (
            "huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error. (Request ID: Root=1-69aa2f15)",
            Reason::ModelNotFound,
            &["no such model", "correct spec.vllm.model"],
        ),
        (
            "OSError: org/modle is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/models'",
            Reason::ModelNotFound,
            &["no such model"],
        ),
        (
            "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached files.",
            Reason::Exited,
            &["hub could not be reached", "gateway"],
        ),
        (
            "OSError: [Errno 28] No space left on device",
            Reason::Exited,
            &["spec.rootfs.size"],
        ),
        (
            "OSError: [Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use",
            Reason::Exited,
            &["port 8000", "spec.vllm.port"],
        ),
        (
            "vllm: error: unrecognized arguments: --flavour sweet",
            Reason::Exited,
            &["does not know --flavour sweet", "extraArgs"],
        ),
        (
            "vllm serve: error: argument --dtype: invalid choice: 'int4' (choose from 'auto', 'half')",
            Reason::Exited,
            &["--dtype: invalid choice: 'int4'"],
        ),
        (
            "ValueError: World size (4) is larger than the number of available GPUs (2) in this node. If this is intentional and you are using:",
            Reason::Exited,
            &[
                "asks for 4 GPUs, and the container has 2",
                "tensorParallelSize",
            ],
        ),
        (
            "  Value error, User-specified max_model_len (262144) is greater than the derived max_model_len (max_position_embeddings=40960 or model_max_length=None in model's config.json).",
            Reason::Exited,
            &["262144", "(40960)"],
        ),
        (
            "RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG` to turn on verbose logging to help debug the issue.",
            Reason::Exited,
            &["no GPU", "spec.gpus"],
        ),
        (
            "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
            Reason::Exited,
            &["an illegal memory access was encountered", "Xid"],
        ),
        (
            "ValueError: Model architectures ['NewForCausalLM'] are not supported for now.",
            Reason::Exited,
            &["'NewForCausalLM'", "newer"],
        ),
    ];
    for (says, reason, words) in rows {
        // the engine's own words, twice as it prints them, and then what the server makes of it
        let log = format!("{CORE}{says}\nValueError: raise\n{says}{INIT}");
        let (is, told) = why(&log).unwrap_or_else(|| panic!("nothing told of {says}"));
        assert_eq!(is, reason, "{says}: {told}");
        for word in words {
            assert!(told.contains(word), "{word:?} is not in {told:?}");
        }
    }
}

#[test]
fn a_cause_that_was_overcome_is_none() {
    let oom = "torch.OutOfMemoryError: CUDA out of memory.";
    let served = "(APIServer pid=1) INFO:     Application startup complete.";
    let died = "Engine core proc EngineCore_DP0 died unexpectedly, shutting down client.";
    assert_eq!(why(&format!("{oom}\n{served}\n{died}")), None);
    assert_eq!(why(""), None);
    let last = format!("{oom}\n{served}\nOSError: [Errno 28] No space left on device\n{died}");
    assert_eq!(why(&last).map(|(reason, _)| reason), Some(Reason::Exited));
}

#[test]
fn the_way_to_the_first_answer_has_stages() {
    let rows = [
        ("", None),
        ("Started phoenix-vllm.service", None),
        (
            "INFO [api_server.py:1977] vLLM API server version 0.32.0",
            Some("reading the model's configuration"),
        ),
        (
            "INFO [gpu_model_runner.py:3875] Starting to load model org/m...",
            Some("loading the weights"),
        ),
        (
            "Loading safetensors checkpoint shards:  40% Completed | 4/10 [00:02<00:03]",
            Some("loading the weights (40 %)"),
        ),
        (
            "INFO Loading weights took 4.21 seconds",
            Some("measuring the memory that is left"),
        ),
        (
            "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  12%|#",
            Some("capturing CUDA graphs"),
        ),
        (
            "INFO:     Application startup complete.",
            Some("it is about to answer"),
        ),
    ];
    let mut log = String::new();
    for (line, expected) in rows {
        log.push_str(line);
        log.push('\n');
        assert_eq!(stage(&log).as_deref(), expected, "{line}");
    }
}
