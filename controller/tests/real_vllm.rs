//! A real vLLM, started by the command line and the environment of the unit that we render, over its life. Left out unless it is asked for,
//! since it takes 6 GB and minutes: `bash tests/vllm/run.sh`.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and somebody watches this one"
)]

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use phoenix_controller::{
    guest::{VllmFiles, VllmInput, render_vllm},
    probe::{ProbeClient, VllmProbe, VllmTarget, VllmWatch},
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::process::{Child, Command};

const KEY: &str = "EXAMPLE-KEY";

fn input(executable: String, model: String, port: u16, max_model_len: u64) -> VllmInput {
    let variables = [
        ("VLLM_TARGET_DEVICE", "cpu"),
        ("VLLM_CPU_KVCACHE_SPACE", "1"),
        ("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
        ("HF_HUB_OFFLINE", "1"),
        ("TRANSFORMERS_OFFLINE", "1"),
        ("VLLM_NO_USAGE_STATS", "1"),
        ("DO_NOT_TRACK", "1"),
    ];
    VllmInput {
        model,
        served_model_name: Some("tiny".to_owned()),
        port,
        host: "127.0.0.1".to_owned(),
        tensor_parallel_size: None,
        max_model_len: Some(max_model_len),
        gpu_memory_utilization: None,
        dtype: Some("bfloat16".to_owned()),
        quantization: None,
        extra_args: vec!["--enforce-eager".to_owned()],
        env: variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        hugging_face_token: None,
        api_key: Some(SecretString::from(KEY)),
        executable,
    }
}

/// Starts what the unit says, as systemd would: these words, this environment and no other.
fn start(files: &VllmFiles) -> Child {
    let unit = files.unit.replace("\\\n", " ");
    let setting = |name: &str| {
        unit.lines()
            .filter_map(move |line| line.strip_prefix(name)?.strip_prefix('='))
            .flat_map(str::split_whitespace)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let words = setting("ExecStart");
    let variables = setting("Environment");
    let secrets = files.env.expose_secret().lines().map(|line| {
        let (name, value) = line.split_once('=').expect("a variable");
        format!("{name}={}", value.trim_matches('"'))
    });
    assert!(
        words.iter().chain(&variables).all(|w| !w.contains('"')),
        "nothing here needs quotes"
    );
    assert!(
        !unit.contains(KEY),
        "the key stands in the environment only"
    );
    let (program, arguments) = words.split_first().expect("a command line");
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for variable in variables.into_iter().chain(secrets) {
        let (name, value) = variable.split_once('=').expect("a variable");
        command.env(name, value);
    }
    command.spawn().expect("a process")
}

/// The engine's processes below the server.
fn engines(server: u32) -> Vec<u32> {
    let stat = |pid: u32| -> Option<(u32, String)> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        let title = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        Some((parent, title))
    };
    let all = std::fs::read_dir("/proc").expect("/proc");
    all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            stat(*pid).is_some_and(|(parent, title)| {
                parent == server && title.starts_with("VLLM::EngineCor")
            })
        })
        .collect()
}

/// Looks until it is as wanted; the kinds of answers on the way, each once where it stands.
async fn until(
    watch: &mut VllmWatch,
    client: &ProbeClient,
    target: &VllmTarget,
    wanted: impl Fn(&VllmProbe) -> bool,
) -> Vec<&'static str> {
    let deadline = Instant::now() + Duration::from_mins(8);
    let mut kinds: Vec<&'static str> = Vec::new();
    loop {
        let seen = watch.look(client, target).await;
        let kind = match &seen {
            VllmProbe::Serving { .. } => "Serving",
            VllmProbe::Refused => "Refused",
            VllmProbe::Unhealthy { .. } => "Unhealthy",
            VllmProbe::WrongModel { .. } => "WrongModel",
            VllmProbe::NoCompletion { .. } => "NoCompletion",
            VllmProbe::Unauthorized => "Unauthorized",
            VllmProbe::Unreachable { .. } => "Unreachable",
        };
        if kinds.last() != Some(&kind) {
            println!("{seen:?}");
            kinds.push(kind);
        }
        if wanted(&seen) {
            return kinds;
        }
        assert!(Instant::now() < deadline, "still {seen:?}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real vLLM: tests/vllm/run.sh"]
async fn a_real_server_is_seen_to_load_to_serve_and_to_die() {
    let named = |name: &str| std::env::var(name).expect("run by tests/vllm/run.sh");
    let (executable, model) = (named("PHOENIX_VLLM"), named("PHOENIX_MODEL"));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let files = render_vllm(&input(executable, model, port, 512));
    let target = VllmTarget {
        address: "127.0.0.1".parse().expect("an address"),
        port,
        model: "tiny".to_owned(),
        api_key: Some(SecretString::from(KEY)),
        args_hash: files.args_hash.clone(),
    };
    let client = ProbeClient::new(None).expect("a client");
    let mut watch = VllmWatch::default();

    let mut server = start(&files);
    let started = Instant::now();
    let serving =
        |seen: &VllmProbe| matches!(seen, VllmProbe::Serving { models, .. } if models == &["tiny"]);
    let way = until(&mut watch, &client, &target, serving).await;
    println!("serving after {:?}", started.elapsed());
    assert_eq!(
        way,
        ["Refused", "Serving"],
        "refused while it loads, and nothing else"
    );
    let tokens = watch.figures().expect("figures").generation_tokens;
    assert_eq!(tokens, 0, "the figures were read before the first token");
    watch.look(&client, &target).await;
    let figures = watch.figures().expect("figures");
    println!("{figures:?}");
    assert_eq!(
        (figures.generation_tokens, figures.asleep),
        (1, false),
        "one token, and no further one at the second look"
    );

    let stranger = VllmTarget {
        api_key: None,
        ..target.clone()
    };
    assert_eq!(
        VllmWatch::default().look(&client, &stranger).await,
        VllmProbe::Unauthorized
    );
    let other = VllmTarget {
        model: "other".to_owned(),
        ..target.clone()
    };
    assert!(matches!(
        VllmWatch::default().look(&client, &other).await,
        VllmProbe::WrongModel { .. }
    ));

    let pid = server.id().expect("it runs");
    let engines = engines(pid);
    assert_eq!(engines.len(), 1, "one engine below the server");
    for engine in engines {
        let killed = Command::new("kill")
            .args(["-9", &engine.to_string()])
            .status();
        assert!(killed.await.expect("kill").success());
    }
    let way = until(&mut watch, &client, &target, |seen| {
        *seen == VllmProbe::Refused
    })
    .await;
    println!("after the engine's death: {way:?}");
    assert!(!way[1..].contains(&"Serving"), "{way:?}");
    let ended = tokio::time::timeout(Duration::from_mins(1), server.wait())
        .await
        .expect("it ends by itself")
        .expect("a status");
    println!("{ended}");
    assert_eq!(
        ended.code(),
        Some(0),
        "which is why the unit has Restart=always"
    );
}
