//! A setup is given what it asks for, no secret is seen anywhere, and it runs once, however often the console breaks. That a killed operator
//! finds its run again is in `crash`.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    core::v1::{ConfigMap, Secret},
    events::v1::Event,
};
use kube::api::{ListParams, Patch, PatchParams};
use phoenix_crds::{Lxc, LxcContainer, LxcTemplate};
use proxmox_simulator::guest::Direction;
use serde_json::json;

use crate::stage::{PATIENCE, Settings, Stage, condition};

const FIRST: &str = "s3cr3t-of-the-first-day";
const SECOND: &str = "s3cr3t-of-the-second-day";

async fn settings(stage: &Stage, mirror: &str) {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"mirror": mirror}});
    stage
        .api::<ConfigMap>()
        .patch(
            "settings",
            &PatchParams::apply("test").force(),
            &Patch::Apply(&map),
        )
        .await
        .expect("a ConfigMap");
}

async fn registry(stage: &Stage, token: &str) {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "registry"}, "stringData": {"token": token}});
    stage
        .api::<Secret>()
        .patch(
            "registry",
            &PatchParams::apply("test").force(),
            &Patch::Apply(&secret),
        )
        .await
        .expect("a Secret");
}

fn setup(layer: &str) -> serde_json::Value {
    let script = format!(
        "#!/bin/bash\nset -eu\necho \"$PLAIN $MIRROR $TOKEN\" >/etc/given-{layer}\necho \"{layer} logs in with $TOKEN\"\necho run >>/etc/runs-{layer}\n"
    );
    json!({
        "script": script,
        "verify": "test -n \"$TOKEN\"",
        "env": [
            {"name": "PLAIN", "value": "it's plain"},
            {"name": "MIRROR", "configMapKeyRef": {"name": "settings", "key": "mirror"}},
            {"name": "TOKEN", "secretKeyRef": {"name": "registry", "key": "token"}},
        ],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_environment_reaches_the_setup_and_its_secrets_nobody_else() {
    let stage = Stage::raise("setup-env", Settings::default()).await;
    stage
        .template("base", json!({"vmid": 900, "setup": setup("base")}))
        .await;
    stage
        .container("top", "base", json!({"vmid": 901, "setup": setup("top")}))
        .await;

    // what is missing is said, and waited for
    for (missing, then) in [("ConfigMap", "Secret"), ("Secret", "")] {
        let told = format!("{missing} {}/", stage.name);
        let says = |t: &LxcTemplate| {
            condition(t, "SetupComplete")
                .is_some_and(|c| c.reason == "Waiting" && c.message.contains(&told))
        };
        stage
            .until(stage.api::<LxcTemplate>(), "base", &told, says)
            .await;
        if then.is_empty() {
            registry(&stage, FIRST).await;
        } else {
            settings(&stage, "http://mirror.lan").await;
        }
    }
    stage.ready::<LxcTemplate>("base").await;
    let top = stage.ready::<LxcContainer>("top").await;
    let guests = stage.simulator.guests().unwrap();
    let given = |layer: &str| guests.read_file(901, &format!("/etc/given-{layer}"));
    for layer in ["base", "top"] {
        assert_eq!(
            given(layer),
            Some(format!("it's plain http://mirror.lan {FIRST}\n"))
        );
    }
    let said = last_lines(&top);
    assert_eq!(said.as_deref(), Some("top logs in with ***"));
    let revision = top.status_shared().unwrap().revision.clone();

    // a change is a changed setup: it runs again, and what is sealed is outdated
    registry(&stage, SECOND).await;
    let again = |c: &LxcContainer| {
        c.status_shared().unwrap().revision != revision
            && guests.read_file(901, "/etc/runs-top").as_deref() == Some("run\nrun\n")
            && condition(c, "Ready").is_some_and(|c| c.status == "True")
    };
    stage
        .until(stage.api::<LxcContainer>(), "top", "a second run", again)
        .await;
    assert_eq!(
        given("top"),
        Some(format!("it's plain http://mirror.lan {SECOND}\n"))
    );
    let outdated = stage
        .reason::<LxcTemplate>("base", "Outdated", "SpecChanged")
        .await;
    assert_eq!(outdated.status, "True");

    for path in ["environment", "masks"] {
        let left = guests.read_file(901, &format!("/run/phoenix-setup/{path}"));
        assert_eq!(left, None, "{path}");
    }
    let top = stage.api::<LxcContainer>().get("top").await.unwrap();
    let log = format!(
        "/var/lib/phoenix/901-{}/setup/log",
        top.metadata.uid.as_deref().unwrap()
    );
    assert_eq!(
        guests.read_file(901, &log).as_deref(),
        Some("top logs in with ***\n")
    );
    for secret in [FIRST, SECOND] {
        for (place, text) in everywhere(&stage).await {
            assert!(!text.contains(secret), "{secret} is in {place}: {text}");
        }
    }
}

fn last_lines(object: &impl Lxc) -> Option<String> {
    object.status_shared()?.setup.as_ref()?.last_lines.clone()
}

/// All that others can read of it.
async fn everywhere(stage: &Stage) -> Vec<(&'static str, String)> {
    let all = ListParams::default();
    let templates = stage.api::<LxcTemplate>().list(&all).await.unwrap();
    let containers = stage.api::<LxcContainer>().list(&all).await.unwrap();
    let events = stage.api::<Event>().list(&all).await.unwrap();
    assert!(!events.items.is_empty());
    vec![
        ("the templates", json!(templates.items).to_string()),
        ("the containers", json!(containers.items).to_string()),
        ("the events", json!(events.items).to_string()),
        ("the operator's log", stage.log()),
        ("Proxmox", format!("{:?}", stage.simulator.containers())),
        ("the calls", format!("{:?}", stage.simulator.calls())),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_that_breaks_again_and_again_leaves_one_run() {
    let stage = Stage::raise("setup-cuts", Settings::default()).await;
    let guests = stage.simulator.guests().unwrap();
    let script = |layer: &str| json!({"script": format!("#!/bin/sh\nset -eu\necho {layer} >> /etc/runs\nsleep 1\n")});
    // at first within what is typed, then before the exit status of a script, each time of a later one
    guests.cut_console_at(Direction::Typed, |typed| {
        (typed.len() > 3000).then_some(3000)
    });
    stage
        .template("base", json!({"vmid": 900, "setup": script("base")}))
        .await;
    stage
        .container("top", "base", json!({"vmid": 901, "setup": script("top")}))
        .await;
    let cuts = Cell::new(0);
    stage
        .until(stage.api::<LxcContainer>(), "top", "Ready", |c| {
            if cuts.get() < CUTS && !guests.waits_to_cut_console() {
                cuts.set(cuts.get() + 1);
                let nth = 1 + cuts.get() % 4;
                guests.cut_console_at(Direction::Shown, move |shown| exit_status(shown, nth));
            }
            condition(c, "Ready").is_some_and(|c| c.status == "True")
        })
        .await;
    assert!(cuts.get() > 4, "only {} cuts", cuts.get());
    assert_eq!(
        guests.read_file(901, "/etc/runs").as_deref(),
        Some("base\ntop\n")
    );
}

/// No more than the operator's growing pauses leave time for.
const CUTS: usize = 8;

/// Where the n-th line begins that ends a script's output.
fn exit_status(shown: &[u8], nth: usize) -> Option<usize> {
    let text = String::from_utf8_lossy(shown);
    let ends = |line: &str| {
        line.strip_prefix('E')
            .and_then(|rest| rest.split_once('-'))
            .is_some_and(|(number, _)| number.parse::<u32>().is_ok())
    };
    let mut lines = text.match_indices('\n').map(|(at, _)| at + 1);
    lines.by_ref().filter(|at| ends(&text[*at..])).nth(nth - 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_followed_while_the_status_keeps_its_pace() {
    let stage = Stage::raise("setup-log", Settings::default()).await;
    let guests = stage.simulator.guests().unwrap();
    registry(&stage, FIRST).await;
    let script = "#!/bin/bash\necho run >>/etc/runs\necho \"begins with $TOKEN\"\n\
        for ((i = 0; ; i++)); do [ ! -e /etc/stop ] || break; echo \"line $i\"; sleep 0.2; done\necho ends\n";
    let env = json!([{"name": "TOKEN", "secretKeyRef": {"name": "registry", "key": "token"}}]);
    stage.template("base", json!({"vmid": 900})).await;
    stage
        .container(
            "top",
            "base",
            json!({"vmid": 901, "setup": {"script": script, "env": env}}),
        )
        .await;
    stage
        .reason::<LxcContainer>("top", "SetupComplete", "Running")
        .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("followed");
    let mut following = stage
        .phoenix(&["logs", "lxcc/top", "-n", &stage.name, "--follow"])
        .stdout(std::fs::File::create(&path).unwrap())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    stage
        .eventually("a followed log", || read().contains("line 1\n"))
        .await;

    // every few seconds somebody asks, which ends the operator's waits: the status is written no more often for that
    let began = Instant::now();
    let seen = RefCell::new(BTreeSet::new());
    stage
        .until(stage.api::<LxcContainer>(), "top", "three looks", |c| {
            seen.borrow_mut().extend(last_lines(c));
            seen.borrow().len() > 2
        })
        .await;
    assert!(
        began.elapsed() > Duration::from_secs(10),
        "{:?} in {:?}",
        seen.borrow(),
        began.elapsed()
    );
    assert!(guests.write_file(901, "/etc/stop", ""));
    let top = stage.ready::<LxcContainer>("top").await;
    assert!(last_lines(&top).unwrap().ends_with("ends"));
    let ended = tokio::time::timeout(PATIENCE, following.wait()).await;
    assert!(ended.expect("it ends with the run").unwrap().success());

    // all of it, without a gap
    let whole = |text: &str| {
        let lines: Vec<&str> = text.lines().collect();
        let begin = lines.iter().position(|l| *l == "begins with ***");
        let begin = begin.unwrap_or_else(|| panic!("no beginning in {text}"));
        let end = lines.iter().position(|l| *l == "ends");
        let end = end.unwrap_or_else(|| panic!("no end in {text}"));
        for (number, line) in lines[begin + 1..end].iter().enumerate() {
            assert_eq!(*line, format!("line {number}"), "{text}");
        }
        end - begin
    };
    let followed = whole(&read());
    let read = stage
        .phoenix(&["logs", "lxccontainer/top", "-n", &stage.name])
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&read.stdout);
    assert_eq!(whole(&text), followed);
    assert!(!text.contains(FIRST));
    assert_eq!(guests.read_file(901, "/etc/runs").as_deref(), Some("run\n"));

    // the reader has left the console to everybody, and what can't be had is said
    stage.ready::<LxcTemplate>("base").await;
    let none = stage
        .phoenix(&["logs", "lxct/base", "-n", &stage.name])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&none.stderr);
    assert!(said.contains("has no setup"), "{said}");
}
