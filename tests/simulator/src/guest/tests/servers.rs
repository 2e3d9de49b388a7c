//! vLLM and Portainer in guests, looked at from outside through the proxy.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Lab, VllmFailure, lab};

const GPUS: &[&str] = &[
    "/dev/nvidia0",
    "/dev/nvidia1",
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
];

/// A guest in which vLLM is installed as layers 901 and 920 do it, and a unit that serves on port 8000.
async fn with_vllm(arguments: &str) -> Lab {
    let lab = lab().await;
    lab.boot(950, "10.0.0.150", GPUS).await;
    let install = format!(
        "set -e
        echo 'deb https://mirror/cuda/ /' > /etc/apt/sources.list.d/cuda.list
        apt-get update -qq; apt-get install -qq -y libnvidia-compute-580 nvidia-utils-580 python3-venv
        python3 -m venv /opt/vllm; /opt/vllm/bin/pip install -q vllm; /opt/vllm/bin/vllm --version
        printf '%s\\n' '[Unit]' StartLimitIntervalSec=0 '[Service]' Type=exec 'ExecStart=/opt/vllm/bin/vllm serve {arguments}' \
            Restart=always RestartSec=200ms KillMode=mixed '[Install]' WantedBy=multi-user.target >/etc/systemd/system/vllm.service
        systemctl daemon-reload"
    );
    assert_eq!(lab.ok(950, &install).await, "0.32.0\n");
    lab
}

fn proxy(lab: &Lab) -> String {
    lab.world
        .proxy_url()
        .unwrap()
        .trim_start_matches("socks5://")
        .to_owned()
}

/// One request through the proxy's HTTP side; status and body, or the proxy's own refusal as 502.
async fn http(lab: &Lab, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    let (head, body) = exchange_http(lab, method, path, headers, body).await;
    (head[0].split(' ').nth(1).unwrap().parse().unwrap(), body)
}

/// One request through the proxy; the lines of the head, and the body.
async fn exchange_http(
    lab: &Lab,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> (Vec<String>, String) {
    let mut stream = TcpStream::connect(proxy(lab)).await.unwrap();
    let request = format!(
        "{method} http://10.0.0.150:8000{path} HTTP/1.1\r\nHost: 10.0.0.150:8000\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().map(str::to_owned).collect(), body.to_owned())
}

/// The code with which SOCKS5 answers a connection to an address.
async fn socks(lab: &Lab, host: [u8; 4], port: u16) -> u8 {
    let mut stream = TcpStream::connect(proxy(lab)).await.unwrap();
    stream.write_all(&[5, 1, 0]).await.unwrap();
    let mut chosen = [0u8; 2];
    stream.read_exact(&mut chosen).await.unwrap();
    assert_eq!(chosen, [5, 0]);
    stream
        .write_all(&[&[5, 1, 0, 1], &host[..], &port.to_be_bytes()[..]].concat())
        .await
        .unwrap();
    let mut reply = [0u8; 10];
    stream.read_exact(&mut reply).await.unwrap();
    reply[1]
}

async fn until_status(lab: &Lab, path: &str, wanted: u16) {
    for _ in 0..200 {
        if http(lab, "GET", path, "", "").await.0 == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!(
        "{path} never answered {wanted}: {:?}",
        lab.control.journal(950, "vllm")
    );
}

#[tokio::test]
async fn a_server_loads_serves_loses_its_engine_and_is_restarted() {
    let lab = with_vllm("Qwen/Qwen3-Coder-30B-A3B-Instruct --served-model-name=qwen3-coder --port=8000 --tensor-parallel-size=2 --max-model-len=32768").await;
    lab.control.set_load_time(Duration::from_millis(600));
    assert_eq!(socks(&lab, [10, 0, 0, 151], 8000).await, 4, "no such host");
    lab.ok(950, "systemctl enable --now -q vllm").await;
    assert_eq!(
        socks(&lab, [10, 0, 0, 150], 8000).await,
        5,
        "refused while loading"
    );
    until_status(&lab, "/health", 200).await;
    assert_eq!(
        http(&lab, "GET", "/health", "", "").await,
        (200, String::new())
    );
    assert_eq!(
        http(&lab, "GET", "/version", "", "").await.1,
        r#"{"version":"0.32.0"}"#
    );
    let models: Value =
        serde_json::from_str(&http(&lab, "GET", "/v1/models", "", "").await.1).unwrap();
    assert_eq!(models["data"][0]["id"], "qwen3-coder");
    assert_eq!(
        models["data"][0]["root"],
        "Qwen/Qwen3-Coder-30B-A3B-Instruct"
    );
    assert_eq!(models["data"][0]["max_model_len"], 32768);
    let asked = json!({"model": "qwen3-coder", "prompt": "x", "max_tokens": 1}).to_string();
    let (status, completed) = http(
        &lab,
        "POST",
        "/v1/completions",
        "Content-Type: application/json\r\n",
        &asked,
    )
    .await;
    let completed: Value = serde_json::from_str(&completed).unwrap();
    assert_eq!(
        (status, &completed["usage"]["completion_tokens"]),
        (200, &json!(1))
    );
    assert_eq!(
        http(
            &lab,
            "POST",
            "/v1/completions",
            "",
            r#"{"model":"nope","prompt":"x"}"#
        )
        .await
        .0,
        404
    );
    assert!(
        http(&lab, "GET", "/metrics", "", "").await.1.contains(
            "vllm:generation_tokens_total{engine=\"0\",model_name=\"qwen3-coder\"} 1.0\n"
        )
    );
    assert_eq!(
        lab.ok(950, "curl -fsS http://127.0.0.1:8000/version").await,
        r#"{"version":"0.32.0"}"#
    );

    assert_eq!(lab.control.kill_engine(950), 1);
    assert_eq!(
        http(&lab, "POST", "/v1/completions", "", &asked).await.0,
        500
    );
    until_status(&lab, "/health", 502).await;
    until_status(&lab, "/health", 200).await;
    assert_eq!(
        lab.ok(950, "systemctl show -p NRestarts -p ExecMainStatus vllm")
            .await,
        "NRestarts=1\nExecMainStatus=0\n"
    );

    lab.ok(950, "systemctl stop vllm").await;
    assert_eq!(socks(&lab, [10, 0, 0, 150], 8000).await, 5);
}

#[tokio::test]
async fn the_journal_says_why_a_server_does_not_start() {
    for (arguments, failure, wanted) in [
        (
            "org/model --flavour=sweet",
            None,
            "vllm serve: error: unrecognized arguments: --flavour=sweet",
        ),
        (
            "org/model --tensor-parallel-size=4",
            None,
            "World size (4) is larger than the number of available GPUs (2)",
        ),
        (
            "org/model",
            Some(VllmFailure::OutOfMemory),
            "torch.OutOfMemoryError: CUDA out of memory",
        ),
        (
            "org/model",
            Some(VllmFailure::ModelNotFound),
            "org/model is not a local folder and is not a valid model identifier",
        ),
    ] {
        let lab = with_vllm(arguments).await;
        lab.control.fail_vllm(950, failure);
        lab.ok(950, "systemctl start vllm; sleep 0.5").await;
        let journal = lab.control.journal(950, "vllm").join("\n");
        assert!(journal.contains(wanted), "{wanted}: {journal}");
        let status = lab
            .ok(950, "systemctl show -p ExecMainStatus --value vllm")
            .await;
        assert_eq!(
            status,
            if arguments.contains("flavour") {
                "2\n"
            } else {
                "1\n"
            }
        );
        assert_eq!(socks(&lab, [10, 0, 0, 150], 8000).await, 5);
    }
}

#[tokio::test]
async fn a_key_guards_what_generates_and_nothing_else() {
    let lab = with_vllm("org/model --api-key=EXAMPLE-KEY").await;
    lab.ok(950, "systemctl start vllm").await;
    until_status(&lab, "/health", 200).await;
    assert_eq!(
        http(&lab, "GET", "/v1/models", "", "").await,
        (401, r#"{"error":"Unauthorized"}"#.to_owned())
    );
    assert_eq!(
        http(
            &lab,
            "GET",
            "/v1/models",
            "Authorization: Bearer EXAMPLE-KEY\r\n",
            ""
        )
        .await
        .0,
        200
    );
    assert_eq!(http(&lab, "GET", "/metrics", "", "").await.0, 200);
}

#[tokio::test]
async fn portainer_answers_over_its_own_certificate_and_returns_with_its_container() {
    let lab = lab().await;
    lab.boot(910, "10.0.0.99", &[]).await;
    lab.ok(910, "set -e; echo 'deb https://mirror/docker x stable' > /etc/apt/sources.list.d/docker.list; apt-get update -qq; apt-get install -qq -y docker-ce docker-ce-cli containerd.io; docker info >/dev/null; docker run --rm hello-world | grep -q 'Hello from Docker'; docker run -d --name portainer --restart=always -p 9443:9443 -v portainer_data:/data portainer/portainer-ce:2.39.3").await;
    let (said, code) = lab
        .sh(910, "curl -fsS https://127.0.0.1:9443/api/system/status")
        .await;
    assert!(
        code == 60 && said.contains("self-signed certificate"),
        "{said}"
    );
    let status: Value = serde_json::from_str(
        &lab.ok(910, "curl -fsSk https://127.0.0.1:9443/api/system/status")
            .await,
    )
    .unwrap();
    assert_eq!(status["Version"], "2.39.3");
    assert_eq!(socks(&lab, [10, 0, 0, 99], 9443).await, 0);
    lab.world
        .shutdown(910, Duration::from_secs(10))
        .await
        .unwrap();
    assert_eq!(socks(&lab, [10, 0, 0, 99], 9443).await, 4);
    lab.world
        .boot(
            910,
            super::spec("lxc-disks:subvol-910-disk-0", "10.0.0.99", &[]),
        )
        .await
        .unwrap();
    lab.ok(910, "for _ in $(seq 50); do curl -fsk -o /dev/null https://127.0.0.1:9443/api/system/status && exit 0; sleep 0.1; done; exit 1").await;
    assert_eq!(lab.ok(910, "docker ps --format '{{.Names}} {{.State}}'; docker inspect -f '{{.State.Running}}' portainer").await, "portainer running\ntrue\n");
}

/// The same keys and kinds of values, whatever the values are.
fn same_shape(ours: &Value, recorded: &Value, at: &str) {
    match (ours, recorded) {
        (Value::Object(ours), Value::Object(recorded)) => {
            let names =
                |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(ours), names(recorded), "{at}");
            ours.iter().for_each(|(name, value)| {
                same_shape(value, &recorded[name], &format!("{at}.{name}"));
            });
        }
        (Value::Array(ours), Value::Array(recorded)) => {
            assert_eq!(ours.len(), recorded.len(), "{at}");
            ours.iter()
                .zip(recorded)
                .for_each(|(ours, recorded)| same_shape(ours, recorded, at));
        }
        _ => assert_eq!(
            std::mem::discriminant(ours),
            std::mem::discriminant(recorded),
            "{at}: {ours} or {recorded}"
        ),
    }
}

#[tokio::test]
async fn answers_are_those_that_a_real_server_was_recorded_to_give() {
    let lab = with_vllm("org/model --served-model-name=tiny --max-model-len=512").await;
    lab.ok(950, "systemctl start vllm").await;
    until_status(&lab, "/health", 200).await;
    let recorded: Vec<Value> =
        serde_json::from_str(include_str!("../../../recordings/vllm-running.json")).unwrap();
    assert!(recorded.len() > 15);
    for exchange in &recorded {
        let text = |key: &str| exchange[key].as_str().unwrap_or_default();
        let (head, body) = exchange_http(
            &lab,
            text("method"),
            text("path"),
            "Content-Type: application/json\r\n",
            text("request"),
        )
        .await;
        let name = text("name");
        assert_eq!(
            head[0].split(' ').nth(1),
            Some(exchange["status"].to_string().as_str()),
            "{name}"
        );
        for header in exchange["headers"].as_array().unwrap() {
            let wanted = format!(
                "{}: {}",
                header[0].as_str().unwrap(),
                header[1].as_str().unwrap()
            );
            assert!(head.contains(&wanted), "{name}: {wanted}: {head:?}");
        }
        match (
            serde_json::from_str::<Value>(text("body")),
            exchange["status"].as_u64(),
        ) {
            (Ok(recorded), Some(200)) => {
                same_shape(&serde_json::from_str(&body).unwrap(), &recorded, name);
            }
            (Ok(recorded), _) => assert_eq!(
                serde_json::from_str::<Value>(&body).unwrap(),
                recorded,
                "{name}"
            ),
            (Err(_), _) => {
                let events = |text: &str| {
                    text.lines()
                        .filter_map(|line| line.strip_prefix("data: "))
                        .map(str::to_owned)
                        .collect::<Vec<_>>()
                };
                let (ours, recorded) = (events(&body), events(text("body")));
                assert_eq!(ours.len(), recorded.len(), "{name}");
                assert_eq!(ours.last(), recorded.last(), "{name}");
            }
        }
    }
}
