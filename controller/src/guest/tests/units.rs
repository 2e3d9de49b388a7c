//! vLLM's unit: quoting, secrets, the hash.

use insta::assert_snapshot;
use proptest::prelude::*;
use secrecy::{ExposeSecret as _, SecretString};

use crate::guest::script::quote;
use crate::guest::vllm::{VllmInput, render_vllm};

fn qwen() -> VllmInput {
    VllmInput {
        model: "Qwen/Qwen3-Coder-30B-A3B-Instruct".to_owned(),
        served_model_name: Some("qwen3-coder".to_owned()),
        port: 8000,
        host: "0.0.0.0".to_owned(),
        tensor_parallel_size: Some(2),
        max_model_len: None,
        gpu_memory_utilization: Some(0.92),
        dtype: None,
        quantization: None,
        extra_args: vec!["--max-model-len=32768".to_owned()],
        env: vec![("VLLM_LOGGING_LEVEL".to_owned(), "INFO".to_owned())],
        hugging_face_token: Some(SecretString::from("hf_secret")),
        api_key: None,
        executable: "/opt/vllm/bin/vllm".to_owned(),
    }
}

#[test]
fn the_seeds_model() {
    let files = render_vllm(&qwen());
    assert_snapshot!(files.unit, @r###"
    # Written by Phoenix; changes are put right.
    [Unit]
    Description=vLLM, serving qwen3-coder
    Wants=network-online.target
    After=network-online.target
    StartLimitIntervalSec=0

    [Service]
    Type=exec
    Environment=HOME=/root CUDA_DEVICE_ORDER=PCI_BUS_ID PHOENIX_ARGS_HASH=56082efc8135d1c5
    Environment=PATH=/opt/vllm/bin:/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    EnvironmentFile=/etc/phoenix/vllm.env
    WorkingDirectory=/
    ExecStart=/opt/vllm/bin/vllm \
        serve \
        Qwen/Qwen3-Coder-30B-A3B-Instruct \
        --served-model-name=qwen3-coder \
        --host=0.0.0.0 \
        --port=8000 \
        --tensor-parallel-size=2 \
        --gpu-memory-utilization=0.92 \
        --max-model-len=32768
    # vLLM ends with exit status 0 when its engine dies.
    Restart=always
    RestartSec=5
    KillMode=mixed
    TimeoutStopSec=60

    [Install]
    WantedBy=multi-user.target

    [X-Phoenix]
    ArgsHash=56082efc8135d1c5
    Executable=/opt/vllm/bin/vllm
    "###);
    assert_snapshot!(files.env.expose_secret(), @r###"
    VLLM_LOGGING_LEVEL="INFO"
    HF_TOKEN="hf_secret"
    "###);
}

#[test]
fn odd_arguments_reach_the_engine_as_they_are() {
    let files = render_vllm(&VllmInput {
        model: "/models/my model 100%".to_owned(),
        served_model_name: None,
        extra_args: vec![
            r#"--hf-overrides={"rope_scaling": {"factor": 2.0}}"#.to_owned(),
            r"--chat-template=C:\tmp\$HOME\n".to_owned(),
            "line one\nline\ttwo".to_owned(),
            ";".to_owned(),
            String::new(),
            "grüße".to_owned(),
        ],
        env: vec![
            ("ODD".to_owned(), "a \"b\" \\ $c `d` 'e' # f\ng".to_owned()),
            ("not a name".to_owned(), "x".to_owned()),
        ],
        api_key: Some(SecretString::from("k€y")),
        executable: "/opt/my \"vllm\" 50%/$bin/vllm".to_owned(),
        ..qwen()
    });
    assert_snapshot!(files.unit, @r###"
    # Written by Phoenix; changes are put right.
    [Unit]
    Description=vLLM, serving /models/my model 100%%
    Wants=network-online.target
    After=network-online.target
    StartLimitIntervalSec=0

    [Service]
    Type=exec
    Environment=HOME=/root CUDA_DEVICE_ORDER=PCI_BUS_ID PHOENIX_ARGS_HASH=8c02908f960b55e5
    Environment="PATH=/opt/my \"vllm\" 50%%/$bin:/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    EnvironmentFile=/etc/phoenix/vllm.env
    WorkingDirectory=/
    ExecStart="/opt/my \"vllm\" 50%%/$bin/vllm" \
        serve \
        "/models/my model 100%%" \
        "--served-model-name=/models/my model 100%%" \
        --host=0.0.0.0 \
        --port=8000 \
        --tensor-parallel-size=2 \
        --gpu-memory-utilization=0.92 \
        "--hf-overrides={\"rope_scaling\": {\"factor\": 2.0}}" \
        "--chat-template=C:\\tmp\\$$HOME\\n" \
        "line one\nline\ttwo" \
        ";" \
        "" \
        "grüße"
    # vLLM ends with exit status 0 when its engine dies.
    Restart=always
    RestartSec=5
    KillMode=mixed
    TimeoutStopSec=60

    [Install]
    WantedBy=multi-user.target

    [X-Phoenix]
    ArgsHash=8c02908f960b55e5
    Executable=/opt/my "vllm" 50%/$bin/vllm
    "###);
    assert_snapshot!(files.env.expose_secret(), @r###"
    ODD="a \"b\" \\ \$c \`d\` 'e' # f
    g"
    HF_TOKEN="hf_secret"
    VLLM_API_KEY="k€y"
    "###);
}

type Change = fn(&mut VllmInput);

#[test]
fn the_hash_covers_what_the_engine_is_started_with() {
    let base = render_vllm(&qwen()).args_hash;
    assert_eq!(base, render_vllm(&qwen()).args_hash);
    let changes: [(&str, Change); 9] = [
        ("model", |v| v.model.push('x')),
        ("name", |v| v.served_model_name = None),
        ("port", |v| v.port = 8001),
        ("parallel", |v| v.tensor_parallel_size = None),
        ("argument", |v| {
            v.extra_args.push("--enforce-eager".to_owned());
        }),
        ("argument split", |v| {
            v.extra_args = vec!["--max-model-len=".to_owned(), "32768".to_owned()];
        }),
        ("environment", |v| v.env[0].1.push('x')),
        ("token", |v| {
            v.hugging_face_token = Some(SecretString::from("hf_other"));
        }),
        ("executable", |v| v.executable.push('x')),
    ];
    for (name, change) in changes {
        let mut input = qwen();
        change(&mut input);
        assert_ne!(base, render_vllm(&input).args_hash, "{name}");
    }
}

#[test]
fn no_secret_stands_in_the_unit_or_in_debug_output() {
    let files = render_vllm(&qwen());
    assert!(!files.unit.contains("hf_secret"));
    assert!(!format!("{files:?} {:?}", qwen()).contains("hf_secret"));
}

/// How systemd reads the words of `ExecStart=`, as systemd.service(5) and systemd.syntax(7) describe it: quotes, C escapes, specifiers,
/// variables. Of the escapes only those that rendering may use.
fn systemd_words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut inside, mut quoted) = (false, false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '"' {
            if !inside {
                words.push(String::new());
            }
            (inside, quoted) = (true, !quoted);
            continue;
        }
        if c.is_ascii_whitespace() && !quoted {
            inside = false;
            continue;
        }
        if !inside {
            words.push(String::new());
            inside = true;
        }
        let word = words.last_mut().unwrap();
        match c {
            '\\' => match chars.next().unwrap() {
                'n' => word.push('\n'),
                't' => word.push('\t'),
                'x' => {
                    let hex: String = chars.by_ref().take(2).collect();
                    word.push(char::from(u8::from_str_radix(&hex, 16).unwrap()));
                }
                other @ ('"' | '\\') => word.push(other),
                other => panic!("escape {other:?}"),
            },
            '%' | '$' => {
                assert_eq!(chars.next(), Some(c), "{c} expands");
                word.push(c);
            }
            c => word.push(c),
        }
    }
    assert!(!quoted);
    words
}

/// How systemd reads an environment file's double-quoted value.
fn environment_value(text: &str, name: &str) -> String {
    let rest = text.split_once(&format!("{name}=\"")).unwrap().1;
    let mut value = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next().unwrap() {
            '"' => return value,
            '\\' => match chars.next().unwrap() {
                c @ ('"' | '\\' | '$' | '`') => value.push(c),
                '\n' => {}
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
}

proptest! {
    #[test]
    fn any_argument_survives_systemd(argument in "(\\PC|[\\x01-\\x1f \"'\\\\$%;]){0,40}") {
        let files = render_vllm(&VllmInput { extra_args: vec![argument.clone(), "last".to_owned()], ..qwen() });
        let command: String = files.unit.split_once("ExecStart=").unwrap().1.replace("\\\n", " ");
        let line = command.lines().next().unwrap();
        let words = systemd_words(line);
        prop_assert_eq!(&words[words.len() - 2], &argument);
        prop_assert_eq!(&words[words.len() - 1], "last");
    }

    #[test]
    fn any_value_survives_the_environment_file(value in "(\\PC|[\\x01-\\x1f \"'\\\\$%`]){0,40}") {
        let files = render_vllm(&VllmInput { env: vec![("ODD".to_owned(), value.clone())], ..qwen() });
        prop_assert_eq!(environment_value(files.env.expose_secret(), "ODD"), value);
    }

    #[test]
    fn any_word_survives_a_shell(value in "(\\PC|[\\x01-\\x1f \"'\\\\$%`!]){0,40}") {
        let output = std::process::Command::new("sh").args(["-c", &format!("printf %s {}", quote(&value))]).output().unwrap();
        prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
    }
}
