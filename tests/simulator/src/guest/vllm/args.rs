//! `vllm serve`'s command line, as far as argparse would accept it.

/// What `serve` was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Serve {
    pub(super) model: String,
    served: Vec<String>,
    pub(super) port: u16,
    pub(super) tensor_parallel: usize,
    pub(super) pipeline_parallel: usize,
    pub(super) max_model_len: Option<u64>,
    pub(super) api_key: Option<String>,
    shown: Vec<String>,
}

/// The text of a refusal; the exit status is 2.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) String);

const USAGE: &str = "usage: vllm serve [model_tag] [options]\n";

/// Options that take a value. Their last words tell how it is checked.
const VALUED: &[&str] = &[
    "allowed-origins",
    "api-key",
    "attention-backend",
    "block-size",
    "chat-template",
    "chat-template-content-format",
    "compilation-config",
    "config",
    "config-format",
    "cpu-offload-gb",
    "data-parallel-size",
    "default-chat-template-kwargs",
    "device",
    "distributed-executor-backend",
    "download-dir",
    "dtype",
    "gpu-memory-utilization",
    "generation-config",
    "guided-decoding-backend",
    "hf-overrides",
    "hf-token",
    "host",
    "hf-config-path",
    "kv-cache-dtype",
    "kv-cache-memory-bytes",
    "kv-transfer-config",
    "limit-mm-per-prompt",
    "load-format",
    "logprobs-mode",
    "lora-modules",
    "max-log-len",
    "max-logprobs",
    "max-loras",
    "max-lora-rank",
    "max-model-len",
    "max-num-batched-tokens",
    "max-num-seqs",
    "max-parallel-loading-workers",
    "mm-processor-kwargs",
    "model",
    "model-impl",
    "num-gpu-blocks-override",
    "optimization-level",
    "override-generation-config",
    "pipeline-parallel-size",
    "port",
    "quantization",
    "reasoning-parser",
    "response-role",
    "revision",
    "root-path",
    "rope-scaling",
    "rope-theta",
    "runner",
    "scheduling-policy",
    "seed",
    "served-model-name",
    "speculative-config",
    "ssl-ca-certs",
    "ssl-certfile",
    "ssl-keyfile",
    "structured-outputs-config",
    "swap-space",
    "task",
    "tensor-parallel-size",
    "tokenizer",
    "tokenizer-mode",
    "tool-call-parser",
    "tool-parser-plugin",
    "tool-server",
    "uvicorn-log-level",
];

/// Options without a value; argparse also knows each with `--no-` in front.
const FLAGS: &[&str] = &[
    "async-scheduling",
    "disable-custom-all-reduce",
    "disable-fastapi-docs",
    "disable-log-requests",
    "disable-log-stats",
    "disable-sliding-window",
    "disable-uvicorn-access-log",
    "enable-auto-tool-choice",
    "enable-chunked-prefill",
    "enable-expert-parallel",
    "enable-force-include-usage",
    "enable-log-requests",
    "enable-lora",
    "enable-prefix-caching",
    "enable-prompt-tokens-details",
    "enable-request-id-headers",
    "enable-server-load-tracking",
    "enable-sleep-mode",
    "enforce-eager",
    "language-model-only",
    "skip-tokenizer-init",
    "trust-remote-code",
    "trust-request-chat-template",
];

const DTYPES: [&str; 6] = ["auto", "half", "float16", "bfloat16", "float", "float32"];

fn refuse<T>(text: &str) -> Result<T, Refused> {
    Err(Refused(format!("{USAGE}vllm serve: error: {text}\n")))
}

impl Serve {
    pub(super) fn parse(args: &[String]) -> Result<Self, Refused> {
        let mut found = Self {
            model: String::new(),
            served: Vec::new(),
            port: 8000,
            tensor_parallel: 1,
            pipeline_parallel: 1,
            max_model_len: None,
            api_key: None,
            shown: Vec::new(),
        };
        let mut unknown = Vec::new();
        let mut words = args.iter().peekable();
        while let Some(word) = words.next() {
            let short = match word.as_str() {
                "-tp" => "--tensor-parallel-size",
                "-pp" => "--pipeline-parallel-size",
                "-q" => "--quantization",
                word => word,
            };
            let Some(option) = short.strip_prefix("--") else {
                if found.model.is_empty() && !word.starts_with('-') {
                    found.model.clone_from(word);
                } else {
                    unknown.push(word.as_str());
                }
                continue;
            };
            let (name, attached) = option
                .split_once('=')
                .map_or((option, None), |(name, value)| {
                    (name, Some(value.to_owned()))
                });
            let name = name.replace('_', "-");
            if FLAGS.contains(&name.strip_prefix("no-").unwrap_or(&name)) {
                if let Some(value) = attached {
                    return refuse(&format!(
                        "argument --{name}: ignored explicit argument '{value}'"
                    ));
                }
                found
                    .shown
                    .push(format!("'{}': True", name.replace('-', "_")));
                continue;
            }
            // `--hf-overrides.key value` and the like set one key of a JSON option.
            let base = name.split('.').next().unwrap_or(&name);
            if !VALUED.contains(&base) {
                unknown.push(word.as_str());
                continue;
            }
            let Some(value) =
                attached.or_else(|| words.next_if(|next| !next.starts_with("--")).cloned())
            else {
                return refuse(&format!(
                    "argument --{name}: expected {} argument",
                    if base == "served-model-name" {
                        "at least one"
                    } else {
                        "one"
                    }
                ));
            };
            found.set(&name, &value)?;
            while base == "served-model-name"
                && let Some(next) = words.next_if(|next| !next.starts_with('-'))
            {
                found.served.push(next.clone());
            }
        }
        if !unknown.is_empty() {
            return refuse(&format!("unrecognized arguments: {}", unknown.join(" ")));
        }
        if found.model.is_empty() {
            "Qwen/Qwen3-0.6B".clone_into(&mut found.model);
        }
        Ok(found)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Refused> {
        let whole = |low: u64| match value.parse::<u64>() {
            Ok(number) if number >= low => Ok(number),
            _ => refuse(&format!("argument --{name}: invalid int value: '{value}'")),
        };
        match name {
            "model" => value.clone_into(&mut self.model),
            "served-model-name" => self.served.push(value.to_owned()),
            "port" => {
                self.port = u16::try_from(whole(1)?).or_else(|_| {
                    refuse(&format!("argument --port: invalid int value: '{value}'"))
                })?;
            }
            "tensor-parallel-size" => {
                self.tensor_parallel = usize::try_from(whole(1)?).unwrap_or(usize::MAX);
            }
            "pipeline-parallel-size" => {
                self.pipeline_parallel = usize::try_from(whole(1)?).unwrap_or(usize::MAX);
            }
            "max-model-len" => {
                self.max_model_len = human(value).map_or_else(
                    || {
                        refuse(&format!(
                            "argument --max-model-len: invalid human_readable_int value: '{value}'"
                        ))
                    },
                    |number| Ok(Some(number)),
                )?;
            }
            "api-key" => self.api_key = Some(value.to_owned()),
            "gpu-memory-utilization"
                if value
                    .parse::<f64>()
                    .is_ok_and(|part| part > 0.0 && part <= 1.0) => {}
            "gpu-memory-utilization" => {
                return refuse(&format!(
                    "argument --gpu-memory-utilization: invalid float value: '{value}'"
                ));
            }
            "dtype" if DTYPES.contains(&value) => {}
            "dtype" => {
                return refuse(&format!(
                    "argument --dtype: invalid choice: '{value}' (choose from {})",
                    DTYPES.map(|kind| format!("'{kind}'")).join(", ")
                ));
            }
            "max-num-seqs" | "max-loras" | "seed" => drop(whole(0)?),
            _ => {}
        }
        if name != "api-key" && name != "hf-token" {
            self.shown
                .push(format!("'{}': '{value}'", name.replace('-', "_")));
        }
        Ok(())
    }

    /// The names that requests may use.
    pub(super) fn served_names(&self) -> Vec<String> {
        if self.served.is_empty() {
            vec![self.model.clone()]
        } else {
            self.served.clone()
        }
    }

    pub(super) fn described(&self) -> String {
        format!(
            "{{'model_tag': '{}', {}}}",
            self.model,
            self.shown.join(", ")
        )
    }

    pub(super) fn architecture(&self) -> &'static str {
        if self.model.contains("A3B") || self.model.contains("MoE") {
            "Qwen3MoeForCausalLM"
        } else {
            "Qwen3ForCausalLM"
        }
    }

    /// The model's own longest context.
    pub(super) fn native_context(&self) -> u64 {
        if self.model.contains("Qwen3-Coder") {
            262_144
        } else {
            40_960
        }
    }
}

/// `32768`, `32k` (thousands), `32K` (1024s).
fn human(value: &str) -> Option<u64> {
    let (digits, factor) = match value.chars().last()? {
        'k' => (&value[..value.len() - 1], 1000),
        'K' => (&value[..value.len() - 1], 1024),
        'm' => (&value[..value.len() - 1], 1_000_000),
        'M' => (&value[..value.len() - 1], 1 << 20),
        _ => (value, 1),
    };
    digits
        .parse::<u64>()
        .ok()?
        .checked_mul(factor)
        .filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Serve, Refused> {
        Serve::parse(
            &line
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn what_an_operator_writes_is_understood() {
        let serve = parse("org/model --served-model-name=a --host=0.0.0.0 --port=8001 --tensor-parallel-size 2 --max-model-len=32K --gpu_memory_utilization 0.9 --enable-auto-tool-choice --no-enable-prefix-caching --api-key k").unwrap();
        assert_eq!(
            (
                serve.model.as_str(),
                serve.port,
                serve.tensor_parallel,
                serve.max_model_len
            ),
            ("org/model", 8001, 2, Some(32_768))
        );
        assert_eq!(serve.served_names(), ["a"]);
        assert!(!serve.described().contains("'k'"));
        assert_eq!(
            parse("m --served-model-name a b").unwrap().served_names(),
            ["a", "b"]
        );
    }

    #[test]
    fn mistakes_are_refused_as_argparse_refuses_them() {
        for (line, wanted) in [
            (
                "m --flavour sweet",
                "unrecognized arguments: --flavour sweet",
            ),
            ("m --port", "argument --port: expected one argument"),
            ("m --port x", "argument --port: invalid int value: 'x'"),
            ("m --dtype int4", "argument --dtype: invalid choice: 'int4'"),
            (
                "m --max-model-len long",
                "argument --max-model-len: invalid",
            ),
            (
                "m --enforce-eager=1",
                "argument --enforce-eager: ignored explicit argument '1'",
            ),
        ] {
            let Refused(text) = parse(line).unwrap_err();
            assert!(
                text.starts_with("usage: vllm serve") && text.contains(wanted),
                "{line}: {text}"
            );
        }
    }
}
