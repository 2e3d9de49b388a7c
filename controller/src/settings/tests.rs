//! Command lines and what becomes of them. The environment is the test process's own, which sets none of our variables.

use std::time::Duration;

use clap::Parser;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::SelectorExt;

use super::{LogFormat, Settings, SettingsError};

#[derive(Parser, Debug)]
struct Line {
    #[command(flatten)]
    settings: Settings,
}

fn read(flags: &[&str]) -> Result<Settings, clap::Error> {
    Line::try_parse_from(std::iter::once(&"phoenix").chain(flags)).map(|line| line.settings)
}

fn checked(flags: &[&str]) -> Result<Settings, SettingsError> {
    read(flags).expect("flags that parse").checked()
}

#[test]
fn the_default_is_what_no_flag_gives() {
    let parsed = checked(&[
        "--namespace=phoenix-system",
        "--log-filter",
        super::DEFAULT_FILTER,
    ])
    .expect("valid");
    // Pod name apart, which the machine may set.
    let parsed = Settings {
        pod_name: None,
        ..parsed
    };
    assert_eq!(format!("{parsed:?}"), format!("{:?}", Settings::default()));
}

#[test]
fn every_flag_arrives() {
    let settings = checked(&[
        "--namespace=ops",
        "--watch-namespaces=b,a,,b",
        "--hypervisor-selector=site=berlin",
        "--leader-elect",
        "--lease-name=phoenix.berlin",
        "--pod-name=phoenix-0",
        "--metrics-addr=127.0.0.1:0",
        "--health-addr=[::1]:9000",
        "--log-format=json",
        "--log-filter=debug",
        "--concurrency=3",
        "--slow-recheck=1m30s",
    ])
    .expect("valid");
    assert_eq!(settings.namespace, "ops");
    assert_eq!(settings.watch_namespaces, ["a", "b"]);
    assert_eq!(settings.hypervisor_selector.as_deref(), Some("site=berlin"));
    assert!(settings.leader_elect);
    assert_eq!(settings.metrics_addr, "127.0.0.1:0".parse().unwrap());
    assert_eq!(settings.health_addr, "[::1]:9000".parse().unwrap());
    assert_eq!(settings.log_format, LogFormat::Json);
    assert_eq!(settings.log_filter, "debug");
    assert_eq!(settings.concurrency, 3);
    assert_eq!(settings.slow_recheck, Duration::from_secs(90));

    let lease = settings.lease();
    assert_eq!((&*lease.namespace, &*lease.name), ("ops", "phoenix.berlin"));
    assert!(
        lease.identity.starts_with("phoenix-0_"),
        "{}",
        lease.identity
    );
    assert_ne!(
        lease.identity,
        settings.lease().identity,
        "a restart is another process"
    );
}

#[test]
fn leader_election_can_be_switched_as_a_chart_writes_it() {
    for (flag, expected) in [
        ("--leader-elect", true),
        ("--leader-elect=true", true),
        ("--leader-elect=false", false),
    ] {
        assert_eq!(checked(&[flag]).unwrap().leader_elect, expected, "{flag}");
    }
}

#[test]
fn empty_values_mean_absent_ones() {
    let settings = checked(&[
        "--watch-namespaces=",
        "--hypervisor-selector=",
        "--pod-name=",
    ])
    .expect("valid");
    assert!(settings.watch_namespaces.is_empty());
    assert_eq!(settings.hypervisor_selector, None);
    assert!(settings.lease().identity.starts_with("phoenix_"));
}

#[test]
fn values_that_cannot_work_are_refused_by_name() {
    for flag in [
        "--concurrency=0",
        "--concurrency=5000",
        "--slow-recheck=0s",
        "--slow-recheck=-5m",
        "--slow-recheck=soon",
        "--metrics-addr=8080",
        "--log-format=xml",
        "--leader-elect=perhaps",
    ] {
        let error = read(&[flag]).expect_err(flag).to_string();
        let name = flag.split('=').next().unwrap();
        assert!(error.contains(name), "{error}");
    }
    for flag in [
        "--namespace=Ops",
        "--namespace=",
        "--namespace=a.b",
        "--lease-name=-x",
        "--lease-name=a..b",
        "--watch-namespaces=ok,not_ok",
        "--hypervisor-selector=site in berlin",
    ] {
        let error = checked(&[flag]).expect_err(flag).to_string();
        let name = flag.split('=').next().unwrap();
        assert!(error.starts_with(name), "{error}");
    }
    assert!(checked(&[&format!("--namespace={}", "n".repeat(64))]).is_err());
    assert!(checked(&[&format!("--namespace={}", "n".repeat(63))]).is_ok());
}

#[test]
fn selectors_match_what_kubectl_would_match() {
    let labels = [
        ("site", "berlin"),
        ("tier", "gpu"),
        ("example.com/rack", ""),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    for (text, matches) in [
        ("site=berlin", true),
        ("site==berlin", true),
        ("site = berlin , tier=gpu", true),
        ("site=paris", false),
        ("site!=paris", true),
        ("absent!=x", true),
        ("site", true),
        ("absent", false),
        ("!absent", true),
        ("!site", false),
        ("site in (paris, berlin)", true),
        ("site in (paris,rome),tier=gpu", false),
        ("site notin (paris)", true),
        ("tier notin(gpu)", false),
        ("example.com/rack=", true),
        ("example.com/rack in ()", true),
    ] {
        let selector = checked(&["--hypervisor-selector", text])
            .expect(text)
            .selector()
            .expect(text);
        assert_eq!(selector.matches(&labels), matches, "{text}");
        // What kube prints of it is what the apiserver gets.
        let again = super::selector::parse(&selector.to_string()).expect(text);
        assert_eq!(
            LabelSelector::from(again),
            LabelSelector::from(selector),
            "{text}"
        );
    }
    assert!(Settings::default().selector().unwrap().selects_all());
}

#[test]
fn selectors_that_the_apiserver_would_refuse_are_refused() {
    let long = format!("a={}", "x".repeat(64));
    for text in [
        "a b",
        "=x",
        "a=b=c",
        "a in b",
        "a in (b",
        "a in b)",
        "a in ((b))",
        "a among (b)",
        "a=b,,c",
        ",",
        "-a",
        "a=b_",
        "a/b/c",
        "/a",
        "Upper.Prefix/a",
        "a=ö",
        "! ",
        "in (a)",
        &long,
    ] {
        assert!(super::selector::parse(text).is_err(), "{text}");
    }
}
