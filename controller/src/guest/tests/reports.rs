//! The inspection's output, read strictly.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use proptest::prelude::*;

use crate::guest::facts::{GpuFact, InitState, SetupPhase};
use crate::guest::report::parse;
use crate::guest::stream::{printable, tail};

fn base64(text: &str) -> String {
    BASE64.encode(text)
}

#[test]
fn a_guest_at_work() {
    let report = format!(
        "init=running\ndefault_route=1\nresolves=1\nos={}\nstate=1\npersonalised=1\nsetup.hash=abc\nsetup.attempt=2\nsetup.started=100\n\
         setup.phase=unverified 7 160\nsetup.tail={}\nvllm.unit_hash=new\nvllm.executable=1\nvllm.show.ActiveState=active\n\
         vllm.show.SubState=running\nvllm.show.NRestarts=3\nvllm.show.MainPID=77\nvllm.show.ExecMainCode=0\nvllm.show.ExecMainStatus=0\n\
         vllm.show.ActiveEnterTimestamp=@1795545742\nvllm.running_hash=old\nvllm.journal={}\nhost_driver={}\n\
         minor=0000:01:00.0 0\nminor=0000:41:00.0 1\ngpu_device=0\ngpu_device=1\n\
         gpu=GPU-5a2f, 00000000:41:00.0, 49140, 550.90.07, NVIDIA RTX 6000 Ada Generation\n\
         gpu=GPU-77aa, 00000000:01:00.0, 24564, 550.90.07, NVIDIA GeForce RTX 4090\nend=1\n",
        base64("\"Ubuntu 24.04.3 LTS\"\n"),
        base64("one\x1b[31m two\x1b[0m\r\n"),
        base64("loading\n"),
        base64(
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.90.07  Release Build  (dvs-builder@U16)\nGCC version:  gcc 12.2.0\n"
        ),
    );
    let facts = parse(report.as_bytes(), "950-uid").unwrap();
    assert!(facts.booted(true));
    assert_eq!(facts.os.as_deref(), Some("Ubuntu 24.04.3 LTS"));
    assert_eq!(facts.host_driver.as_deref(), Some("550.90.07"));
    assert_eq!(facts.driver_mismatch(), None);
    let state = facts.state.unwrap();
    assert_eq!((state.key.as_str(), state.personalised), ("950-uid", true));
    let setup = state.setup.unwrap();
    assert_eq!(
        (
            setup.hash.as_str(),
            setup.attempt,
            setup.started_at,
            setup.finished_at
        ),
        ("abc", 2, 100, Some(160))
    );
    assert_eq!(
        (setup.phase, setup.tail.as_str()),
        (SetupPhase::VerifyFailed { code: 7 }, "one two")
    );
    let vllm = facts.vllm.unwrap();
    assert_eq!(
        vllm.args_hash, "old",
        "the running engine's, not the file's"
    );
    assert_eq!(
        (
            vllm.active.as_str(),
            vllm.sub.as_str(),
            vllm.restarts,
            vllm.exit_status
        ),
        ("active", "running", 3, None)
    );
    assert_eq!(
        (
            vllm.since,
            vllm.executable_found,
            vllm.journal_tail.as_str()
        ),
        (Some(1_795_545_742), true, "loading")
    );
    let ada = GpuFact {
        minor: Some(1),
        uuid: "GPU-5a2f".to_owned(),
        pci_address: "0000:41:00.0".to_owned(),
        name: "NVIDIA RTX 6000 Ada Generation".to_owned(),
        memory_mib: 49140,
        driver_version: "550.90.07".to_owned(),
    };
    assert_eq!(facts.gpus[0], ada, "nvidia-smi's order is not the minors'");
    assert_eq!(facts.gpu_devices, [0, 1]);
    assert_eq!((facts.gpus[1].minor, facts.nvidia_error), (Some(0), None));
}

#[test]
fn what_nvidia_smi_says_instead_of_a_card() {
    let mismatch = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.54\n";
    let facts = parse(
        format!(
            "init=none\nhost_driver={}\nnvidia_error={}\nend=1",
            base64("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.76.05  Tue Sep 9\n"),
            base64(mismatch)
        )
        .as_bytes(),
        "k",
    )
    .unwrap();
    assert_eq!(facts.nvidia_error.as_deref(), Some(mismatch.trim()));
    let versions = ("550.54".to_owned(), "580.76.05".to_owned());
    assert_eq!(facts.driver_mismatch(), Some(versions));
    assert_eq!(facts.init, InitState::NoSystemd);
    let facts = parse(b"init=starting\ngpu=No devices were found\nend=1", "k").unwrap();
    assert_eq!(
        (facts.gpus.len(), facts.nvidia_error.as_deref()),
        (0, Some("No devices were found"))
    );
    let facts = parse(
        b"init=starting\ngpu=GPU-1, 00000000:0A:00.0, 24564, 550.54, NVIDIA L4\nend=1",
        "k",
    )
    .unwrap();
    assert_eq!(
        (facts.gpus[0].minor, facts.gpus[0].pci_address.as_str()),
        (None, "0000:0a:00.0"),
        "unreadable minors are unknown"
    );
}

#[test]
fn how_a_main_process_ended() {
    let rows = [
        ("0", "0", None),
        ("1", "0", Some(0)),
        ("1", "203", Some(203)),
        ("2", "9", Some(137)),
        ("3", "6", Some(134)),
    ];
    for (code, status, expected) in rows {
        let report = format!(
            "init=running\nvllm.unit_hash=h\nvllm.show.ActiveState=activating\nvllm.show.SubState=auto-restart\n\
             vllm.show.ExecMainCode={code}\nvllm.show.ExecMainStatus={status}\nvllm.show.ActiveEnterTimestamp=\nend=1"
        );
        let vllm = parse(report.as_bytes(), "k").unwrap().vllm.unwrap();
        assert_eq!(
            (vllm.exit_status, vllm.since),
            (expected, None),
            "{code} {status}"
        );
    }
}

#[test]
fn what_the_script_cannot_have_said_is_refused() {
    let rows = [
        ("", "no end"),
        ("init=running", "no end"),
        ("end=1", "no init"),
        ("init=running\nhello\nend=1", "no key"),
        ("init=running\ninit=running\nend=1", "twice"),
        ("init=running\nmotd=1\nend=1", "unknown key"),
        ("init=running\nos=%%\nend=1", "not base64"),
        (
            "init=running\nstate=1\nsetup.phase=done\nend=1",
            "no such phase",
        ),
        (
            "init=running\nstate=1\nsetup.phase=exited x 1\nend=1",
            "no such phase",
        ),
        (
            "init=running\nstate=1\nsetup.phase=running\nsetup.hash=a\nsetup.attempt=one\nend=1",
            "no number",
        ),
        (
            "init=running\nstate=1\nsetup.phase=running\nsetup.hash=a\nsetup.attempt=1\nend=1",
            "no setup.started",
        ),
    ];
    for (report, complaint) in rows {
        let error = parse(report.as_bytes(), "k").unwrap_err();
        assert!(error.contains(complaint), "{report:?}: {error}");
    }
}

#[test]
fn tails_are_whole_lines() {
    assert_eq!(tail("one\ntwo\nthree\n", 100), "one\ntwo\nthree");
    assert_eq!(tail("one\ntwo\nthree\n", 9), "two\nthree");
    assert_eq!(tail("one\ntwo\nthree\n", 8), "three");
    assert_eq!(tail("abcdefgh", 3), "fgh");
    assert_eq!(tail("ääää", 3), "ä", "cut between characters");
    assert_eq!(printable(b" 1%\r50%\r99%\r\ndone\x07\n"), "99%\ndone\n");
}

proptest! {
    /// Any output is either read or refused; nothing panics, and no control character gets through.
    #[test]
    fn any_report_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes, "k");
        let with_log = format!("init=running\nvllm.unit_hash=h\nvllm.journal={}\nend=1", BASE64.encode(&bytes));
        let facts = parse(with_log.as_bytes(), "k").unwrap();
        prop_assert!(!facts.vllm.unwrap().journal_tail.contains(|c: char| c.is_ascii_control() && c != '\n'));
    }

    #[test]
    fn a_tail_is_an_end_that_fits(text in "(\\PC|\n){0,60}", limit in 0usize..40) {
        let end = tail(&text, limit);
        prop_assert!(end.len() <= limit || text.trim_end().len() <= limit);
        prop_assert!(text.trim_end().ends_with(end));
    }
}
