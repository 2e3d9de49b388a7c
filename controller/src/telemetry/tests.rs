//! The text that Prometheus gets.

use std::time::Duration;

use proxmox_client::CallObserver;

use super::{LogFormat, LoggingError, Metrics, init_logging};
use crate::probe::VllmFigures;

/// The value of a series, written as in the exposition format.
fn value(metrics: &Metrics, series: &str) -> Option<f64> {
    metrics.encode().lines().find_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        (name == series).then(|| value.parse().expect("a number"))
    })
}

#[test]
fn events_are_counted_under_their_labels() {
    let metrics = Metrics::new();
    metrics.reconcile("LxcContainer", "done", Duration::from_millis(20));
    metrics.reconcile("LxcContainer", "done", Duration::from_millis(30));
    metrics.reconcile("LxcTemplate", "retry", Duration::from_secs(2));
    metrics.step("LxcContainer", "Clone");
    metrics.task("vzclone", "ok");
    metrics.bug("Hypervisor");
    metrics.proxmox_call(
        "/nodes/{node}/lxc/{vmid}/config",
        "GET",
        200,
        Duration::from_millis(40),
    );
    // As the client reports it.
    let observer: &dyn CallObserver = &metrics;
    observer.call("/nodes/{node}/lxc/{vmid}/config", "GET", 0, 10.0);

    for (series, expected) in [
        (
            r#"phoenix_reconciles_total{kind="LxcContainer",result="done"}"#,
            2.0,
        ),
        (
            r#"phoenix_reconciles_total{kind="LxcTemplate",result="retry"}"#,
            1.0,
        ),
        (
            r#"phoenix_reconcile_duration_seconds_sum{kind="LxcContainer",result="done"}"#,
            0.05,
        ),
        (
            r#"phoenix_steps_total{kind="LxcContainer",step="Clone"}"#,
            1.0,
        ),
        (r#"phoenix_tasks_total{type="vzclone",outcome="ok"}"#, 1.0),
        (r#"phoenix_bugs_total{kind="Hypervisor"}"#, 1.0),
        (
            r#"phoenix_proxmox_requests_total{endpoint="/nodes/{node}/lxc/{vmid}/config",method="GET",code="200"}"#,
            1.0,
        ),
        (
            r#"phoenix_proxmox_requests_total{endpoint="/nodes/{node}/lxc/{vmid}/config",method="GET",code="0"}"#,
            1.0,
        ),
        (
            r#"phoenix_proxmox_request_duration_seconds_count{endpoint="/nodes/{node}/lxc/{vmid}/config",method="GET"}"#,
            2.0,
        ),
    ] {
        let got = value(&metrics, series);
        assert!(
            got.is_some_and(|got| (got - expected).abs() < 1e-9),
            "{series}: {got:?}\n{}",
            metrics.encode()
        );
    }
}

#[test]
fn states_are_shown_as_they_are_now() {
    let metrics = Metrics::new();
    metrics.objects("LxcTemplate", "Sealed", 3);
    metrics.objects("LxcTemplate", "Sealed", 2);
    metrics.queue_length("home", 4);
    metrics.gpus("home", 2, 8);
    let figures = |running, generation_tokens| VllmFigures {
        running,
        waiting: 1,
        prompt_tokens: 39,
        generation_tokens,
        asleep: false,
    };
    metrics.vllm_busy("ai", "qwen", "qwen3-coder", &figures(2, 900));
    // another engine counts from nothing
    metrics.vllm_busy("ai", "qwen", "qwen3-coder", &figures(5, 16));
    metrics.vllm_ready("ai", "qwen", true);
    metrics.vllm_ready("ai", "qwen", false);
    metrics.leader(true);
    for (series, expected) in [
        (r#"phoenix_objects{kind="LxcTemplate",state="Sealed"}"#, 2.0),
        (r#"phoenix_queue_length{hypervisor="home"}"#, 4.0),
        (r#"phoenix_gpus{hypervisor="home"}"#, 8.0),
        (r#"phoenix_gpus_allocated{hypervisor="home"}"#, 2.0),
        (r#"phoenix_vllm_ready{namespace="ai",name="qwen"}"#, 0.0),
        (
            r#"phoenix_vllm_requests_running{namespace="ai",name="qwen",model="qwen3-coder"}"#,
            5.0,
        ),
        (
            r#"phoenix_vllm_requests_waiting{namespace="ai",name="qwen",model="qwen3-coder"}"#,
            1.0,
        ),
        (
            r#"phoenix_vllm_prompt_tokens_total{namespace="ai",name="qwen",model="qwen3-coder"}"#,
            39.0,
        ),
        (
            r#"phoenix_vllm_generation_tokens_total{namespace="ai",name="qwen",model="qwen3-coder"}"#,
            16.0,
        ),
        ("phoenix_leader", 1.0),
    ] {
        assert_eq!(
            value(&metrics, series),
            Some(expected),
            "{series}\n{}",
            metrics.encode()
        );
    }
    metrics.leader(false);
    assert_eq!(value(&metrics, "phoenix_leader"), Some(0.0));
}

#[test]
fn what_is_deleted_leaves_no_series_behind() {
    let metrics = Metrics::new();
    metrics.queue_length("home", 1);
    metrics.poll_age("home", 1.0);
    metrics.gpus("home", 1, 2);
    metrics.vllm_ready("ai", "qwen", true);
    metrics.vllm_busy("ai", "qwen", "qwen3-coder", &VllmFigures::default());
    metrics.vllm_ready("ai", "other", true);
    assert!(metrics.encode().contains("home"));

    metrics.hypervisor_gone("home");
    metrics.vllm_gone("ai", "qwen");
    metrics.vllm_idle("ai", "qwen", "qwen3-coder");
    let text = metrics.encode();
    assert!(!text.contains("home") && !text.contains("qwen"), "{text}");
    assert!(text.contains("other"));
}

#[test]
fn the_age_of_a_poll_grows_by_itself() {
    let series = r#"phoenix_poll_age_seconds{hypervisor="home"}"#;
    let metrics = Metrics::new();
    metrics.poll_age("home", 30.0);
    let first = value(&metrics, series).expect("an age");
    assert!((30.0..35.0).contains(&first), "{first}");
    std::thread::sleep(Duration::from_millis(20));
    let later = value(&metrics, series).expect("an age");
    assert!(later >= first + 0.02, "{first} {later}");

    metrics.poll_age("home", 0.0);
    assert!(value(&metrics, series).expect("an age") < 5.0);
    for no_age in [f64::NAN, f64::INFINITY, -1.0] {
        metrics.poll_age("home", no_age);
        assert!(value(&metrics, series).expect("an age") < 5.0, "{no_age}");
    }
}

#[test]
fn every_metric_is_ours_and_explained() {
    let metrics = Metrics::new();
    metrics.objects("LxcTemplate", "quoted \" and\nbroken", 1);
    let text = metrics.encode();
    assert!(
        text.contains(&format!(
            r#"phoenix_build_info{{version="{}"}} 1"#,
            env!("CARGO_PKG_VERSION")
        )),
        "{text}"
    );
    assert!(text.contains(r#"state="quoted \" and\nbroken""#), "{text}");
    for line in text.lines() {
        assert!(
            line.starts_with("phoenix_")
                || line.starts_with("# HELP phoenix_")
                || line.starts_with("# TYPE phoenix_"),
            "{line}"
        );
        assert!(
            !line.contains("_total_total") && !line.contains("seconds_seconds"),
            "{line}"
        );
    }
}

#[test]
fn a_wrong_filter_is_refused_with_an_example() {
    let refused = init_logging(LogFormat::Text, "phoenix=loud").expect_err("no such level");
    assert!(matches!(&refused, LoggingError::Filter { filter, .. } if filter == "phoenix=loud"));
    assert!(
        refused.to_string().contains(super::DEFAULT_FILTER),
        "{refused}"
    );
}
