//! What is done to the guest as a machine: personalising, cleaning, vLLM's unit.

use super::pty::{Guest, ways};
use super::setup::a_run;
use super::{key, operate};
use crate::guest::op::{GuestKey, GuestOp};
use crate::guest::vllm::{VllmFiles, VllmInput, render_vllm};

/// A systemd that keeps one unit's state in files and notes what it is asked.
const SYSTEMCTL: &str = r#"
echo "$*" >> $ROOT/asked
case "$1" in
  is-system-running) echo running ;;
  is-active) cat $ROOT/active ;;
  show)
    case "$*" in *ActiveState*) ;; *) echo MainPID=$(cat $ROOT/pid); exit 0 ;; esac
    echo MainPID=$(cat $ROOT/pid); echo ActiveState=$(cat $ROOT/active); echo SubState=running; echo NRestarts=0
    echo ExecMainCode=0; echo ExecMainStatus=0; echo ActiveEnterTimestamp=@1795545742 ;;
  restart)
    pid=$(cat $ROOT/pid); [ $pid -gt 0 ] && kill $pid
    hash=$(sed -n 's/.*PHOENIX_ARGS_HASH=//p' $ROOT/etc/systemd/system/phoenix-vllm.service)
    env PHOENIX_ARGS_HASH=$hash setsid sleep 60 </dev/null >/dev/null 2>&1 &
    echo $! > $ROOT/pid; echo active > $ROOT/active; sleep 0.2 ;;
  disable) pid=$(cat $ROOT/pid); [ $pid -gt 0 ] && kill $pid; echo 0 > $ROOT/pid; echo inactive > $ROOT/active ;;
esac
"#;

struct Machine(Guest);

impl Machine {
    fn new(shell: &[&'static str]) -> Self {
        let guest = Guest::new(shell);
        guest.command("systemctl", SYSTEMCTL);
        guest.write("active", "inactive\n");
        guest.write("pid", "0\n");
        Self(guest)
    }

    fn times_restarted(&self) -> usize {
        self.0
            .read("asked")
            .lines()
            .filter(|line| line.starts_with("restart"))
            .count()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Ok(pid @ 2..) = self.0.read("pid").trim().parse::<i32>() {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
    }
}

fn files(model: &str) -> VllmFiles {
    render_vllm(&VllmInput {
        model: model.to_owned(),
        served_model_name: None,
        port: 8000,
        host: "0.0.0.0".to_owned(),
        tensor_parallel_size: None,
        max_model_len: None,
        gpu_memory_utilization: None,
        dtype: None,
        quantization: None,
        extra_args: Vec::new(),
        env: Vec::new(),
        hugging_face_token: Some("hf_secret".into()),
        api_key: None,
        executable: "/opt/vllm/bin/vllm".to_owned(),
    })
}

#[tokio::test]
async fn vllm_is_applied_once_and_again_only_when_it_differs() {
    use std::os::unix::fs::PermissionsExt as _;
    for shell in ways() {
        let machine = Machine::new(&shell);
        let guest = &machine.0;
        guest.write("opt/vllm/bin/vllm", "");
        std::fs::set_permissions(
            guest.path("opt/vllm/bin/vllm"),
            std::fs::Permissions::from_mode(0o755),
        )
        .unwrap();
        let first = GuestOp::ApplyVllm { unit: files("one") };
        let unit = operate(guest, &first).await.unwrap().vllm.unwrap();
        assert_eq!(
            (unit.args_hash.as_str(), unit.active.as_str()),
            (files("one").args_hash.as_str(), "active"),
            "{shell:?}"
        );
        assert!(
            unit.executable_found && unit.since == Some(1_795_545_742),
            "{shell:?}: {unit:?}"
        );
        let mode = std::fs::metadata(guest.path("etc/phoenix/vllm.env"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{shell:?}");
        assert!(
            guest.read("etc/phoenix/vllm.env").contains("hf_secret"),
            "{shell:?}"
        );
        operate(guest, &first).await.unwrap();
        assert_eq!(
            machine.times_restarted(),
            1,
            "{shell:?}: nothing differs, nothing restarts"
        );

        let unit = operate(guest, &GuestOp::ApplyVllm { unit: files("two") })
            .await
            .unwrap()
            .vllm
            .unwrap();
        assert_eq!(
            (unit.args_hash, machine.times_restarted()),
            (files("two").args_hash, 2),
            "{shell:?}"
        );

        operate(guest, &GuestOp::StopVllm).await.unwrap();
        let unit = operate(guest, &GuestOp::ApplyVllm { unit: files("two") })
            .await
            .unwrap()
            .vllm
            .unwrap();
        assert_eq!(
            (unit.active.as_str(), machine.times_restarted()),
            ("active", 3),
            "{shell:?}: a stopped one is started"
        );

        operate(guest, &GuestOp::RestartVllm).await.unwrap();
        assert_eq!(machine.times_restarted(), 4, "{shell:?}");
        assert_eq!(
            operate(guest, &GuestOp::RemoveVllm).await.unwrap().vllm,
            None,
            "{shell:?}"
        );
        assert!(!guest.exists("etc/phoenix"), "{shell:?}");
        assert!(
            operate(guest, &GuestOp::RestartVllm).await.is_err(),
            "{shell:?}"
        );
    }
}

#[tokio::test]
async fn an_engine_that_still_runs_with_old_arguments_is_restarted() {
    let machine = Machine::new(&["bash"]);
    let guest = &machine.0;
    operate(guest, &GuestOp::ApplyVllm { unit: files("one") })
        .await
        .unwrap();
    // As after a connection that broke between writing the files and the restart.
    guest.write(
        "etc/systemd/system/phoenix-vllm.service",
        &files("two").unit,
    );
    let seen = operate(guest, &GuestOp::Inspect)
        .await
        .unwrap()
        .vllm
        .unwrap();
    assert_eq!(
        seen.args_hash,
        files("one").args_hash,
        "what runs counts, not what is written"
    );
    let unit = operate(guest, &GuestOp::ApplyVllm { unit: files("two") })
        .await
        .unwrap()
        .vllm
        .unwrap();
    assert_eq!(
        (unit.args_hash, machine.times_restarted()),
        (files("two").args_hash, 2)
    );
}

#[tokio::test]
async fn vllm_without_systemd_is_refused_with_the_reason() {
    let guest = Guest::new(&["bash"]);
    let error = operate(&guest, &GuestOp::ApplyVllm { unit: files("one") })
        .await
        .unwrap_err();
    assert!(error.to_string().contains("run by systemd"), "{error}");
    assert!(!guest.exists("etc/phoenix"));
}

#[tokio::test]
async fn a_clone_becomes_a_machine_of_its_own_once() {
    for shell in ways() {
        let guest = Guest::new(&shell);
        let parent = GuestKey {
            vmid: 900,
            uid: "parent".to_owned(),
        };
        guest.write(
            &format!("var/lib/phoenix/{parent}/setup/result"),
            "verified 1\n",
        );
        guest.write("etc/ssh/ssh_host_ed25519_key", "the parent's");
        guest.write("etc/ssh/ssh_host_ed25519_key.pub", "the parent's");
        guest.write("etc/ssh/sshd_config", "Port 22\n");
        guest.write("var/lib/docker/engine-id", "the parent's");
        guest.write("var/lib/dhcp/dhclient.eth0.leases", "lease");
        guest.write("var/lib/systemd/random-seed", "seed");
        guest.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        guest.command(
            "ssh-keygen",
            "echo new > $ROOT/etc/ssh/ssh_host_ed25519_key; echo x >> $ROOT/keygen",
        );

        let facts = operate(&guest, &GuestOp::Personalise)
            .await
            .unwrap_or_else(|error| panic!("{shell:?}: {error}"));
        let state = facts.state.unwrap();
        assert!(
            state.personalised && state.setup.is_none(),
            "{shell:?}: {state:?}"
        );
        assert_eq!(state.key, key().to_string());
        assert!(
            !guest.exists(&format!("var/lib/phoenix/{parent}")),
            "{shell:?}: the parent's state is gone"
        );
        assert_eq!(
            guest.read("etc/ssh/ssh_host_ed25519_key"),
            "new\n",
            "{shell:?}"
        );
        for gone in [
            "etc/ssh/ssh_host_ed25519_key.pub",
            "var/lib/docker/engine-id",
            "var/lib/dhcp/dhclient.eth0.leases",
            "var/lib/systemd/random-seed",
        ] {
            assert!(!guest.exists(gone), "{shell:?}: {gone}");
        }
        assert!(guest.exists("etc/ssh/sshd_config"), "{shell:?}");
        assert!(
            guest.read("etc/machine-id").starts_with("0123"),
            "{shell:?}: not known to be inherited"
        );
        operate(&guest, &GuestOp::Personalise).await.unwrap();
        assert_eq!(guest.read("keygen"), "x\n", "{shell:?}: once");
    }
}

#[tokio::test]
async fn a_machine_id_from_before_this_boot_is_replaced() {
    let guest = Guest::new(&["bash"]);
    guest.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    let old = std::fs::File::options()
        .write(true)
        .open(guest.path("etc/machine-id"))
        .unwrap();
    old.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(3600))
        .unwrap();
    guest.write("run/systemd/notify", "");
    guest.command(
        "systemd-machine-id-setup",
        "echo fedcba9876543210fedcba9876543210 > $ROOT/etc/machine-id",
    );
    operate(&guest, &GuestOp::Personalise).await.unwrap();
    assert!(guest.read("etc/machine-id").starts_with("fedc"));
}

#[tokio::test]
async fn a_sealed_template_holds_nothing_of_ours() {
    for shell in ways() {
        let guest = Guest::new(&shell);
        operate(&guest, &GuestOp::Personalise).await.unwrap();
        operate(&guest, &GuestOp::StartSetup(a_run("h1", "true")))
            .await
            .unwrap();
        guest.write("root/.bash_history", "secret");
        guest.write("home/me/.ash_history", "secret");
        guest.write("etc/phoenix/vllm.env", "TOKEN=\"secret\"\n");
        guest.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        guest.write("root/.bashrc", "PS1='# '\n");
        operate(
            &guest,
            &GuestOp::AwaitSetup {
                limit: std::time::Duration::from_secs(20),
            },
        )
        .await
        .unwrap();
        let facts = operate(&guest, &GuestOp::CleanForSeal)
            .await
            .unwrap_or_else(|error| panic!("{shell:?}: {error}"));
        assert_eq!(facts.state, None, "{shell:?}");
        for gone in [
            "var/lib/phoenix",
            "root/.bash_history",
            "home/me/.ash_history",
            "etc/phoenix",
        ] {
            assert!(!guest.exists(gone), "{shell:?}: {gone}");
        }
        assert!(
            guest.exists("etc/machine-id") && guest.read("etc/machine-id").is_empty(),
            "{shell:?}"
        );
        assert!(guest.exists("root/.bashrc"), "{shell:?}");
    }
}

#[tokio::test]
async fn nothing_is_sealed_under_a_running_setup() {
    let guest = Guest::new(&["bash"]);
    operate(&guest, &GuestOp::StartSetup(a_run("h1", "sleep 5")))
        .await
        .unwrap();
    let error = operate(&guest, &GuestOp::CleanForSeal).await.unwrap_err();
    assert!(error.to_string().contains("under way"), "{error}");
    assert!(guest.exists("var/lib/phoenix"));
}
