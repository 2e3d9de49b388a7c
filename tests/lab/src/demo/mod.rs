//! The demo: all of it on one machine, from nothing to six systems that are Ready, drawn while it happens.

mod draw;
mod systems;
mod timeline;

use std::{
    io::{IsTerminal, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use proxmox_simulator::{
    Simulator, SimulatorConfig, Timing,
    guest::{GuestSettings, GuestTiming},
};

pub use timeline::{Overhead, Timeline};

use self::{draw::Drawing, systems::Systems};
use crate::{
    ControlPlane,
    installation::{Access, apply_hypervisor, hypervisor_for, install_operator, repository},
    operator::{Operator, OperatorSettings},
};

/// What `cargo demo` can be asked for.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "cargo demo --",
    about = "Six systems from nothing: a real Kubernetes control plane, a simulated Proxmox VE, the operator"
)]
pub struct Options {
    /// Leave when all six are Ready (exit code 0), or when they aren't in time (1, with the reasons)
    #[arg(long)]
    pub exit: bool,
    /// Print the timeline as JSON at the end, and nothing else on standard output; implies --exit
    #[arg(long)]
    pub json: bool,
    /// How long the six may take
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    pub timeout: u64,
    /// Let everything take no time at all instead of a tenth of a real host's
    #[arg(long)]
    pub instant: bool,
}

/// Everything that runs while the demo does.
struct Stage {
    plane: ControlPlane,
    simulator: Simulator,
    _operator: Operator,
    log: PathBuf,
}

/// Runs the demo.
///
/// # Errors
/// What kept it from starting, and systems that are not Ready in time.
pub async fn run(options: Options) -> Result<()> {
    let out = Out {
        quiet: options.json,
    };
    let stage = raise(&options, &out).await?;
    let manifests = repository().join("manifests/phoenix");
    let manifests = manifests
        .to_str()
        .context("the repository lies in a folder whose name is no text")?;
    out.say("applying manifests/phoenix");
    let apply = async {
        stage
            .plane
            .kubectl()
            .run(["apply", "-k", manifests])
            .await
            .context("applying manifests/phoenix")
    };
    let outcome = tokio::select! {
        outcome = async { futures::try_join!(apply, until_ready(&stage, &options, &out)).map(|(_, timeline)| timeline) } => outcome,
        interrupted = tokio::signal::ctrl_c() => { interrupted?; return Ok(()) }
    };
    let timeline = outcome?;
    if options.json {
        println_json(&timeline)?;
        return Ok(());
    }
    epilogue(&stage, &timeline, &out).await?;
    if options.exit {
        return Ok(());
    }
    out.say("Ctrl-C ends it and leaves nothing behind.");
    tokio::signal::ctrl_c().await?;
    Ok(())
}

async fn raise(options: &Options, out: &Out) -> Result<Stage> {
    out.say("starting etcd, kube-apiserver and kube-controller-manager");
    let plane = ControlPlane::start().await?;
    out.say("starting a simulated Proxmox VE");
    let (timing, guests) = if options.instant {
        (Timing::instant(), GuestTiming::default())
    } else {
        (Timing::tenth_of_real(), GuestTiming::tenth_of_real())
    };
    let config = SimulatorConfig {
        timing,
        guests: Some(GuestSettings { timing: guests }),
        ..SimulatorConfig::default()
    };
    let simulator = Simulator::start(config)
        .await
        .context("starting the simulated Proxmox VE")?;
    out.say(
        "installing the CRDs and the operator's rights (manifests/install), starting the operator",
    );
    let kubeconfig = install_operator(&plane).await?;
    let access = Access {
        name: "home".into(),
        root: true,
        password: false,
        polling: ("10s", "10m"),
    };
    let (secret, hypervisor) = hypervisor_for(&simulator, &access);
    apply_hypervisor(&plane, &secret, &hypervisor).await?;
    let log = plane.state_dir().join("operator.log");
    let settings = OperatorSettings {
        kubeconfig,
        selector: None,
        // as the chart does
        elect: Some("demo".to_owned()),
        log: Some(log.clone()),
        filter: "info,phoenix_controller=debug,kube=warn,kube_runtime=warn".into(),
        arguments: Vec::new(),
    };
    let operator = Operator::start(&settings)?;
    Ok(Stage {
        plane,
        simulator,
        _operator: operator,
        log,
    })
}

async fn until_ready(stage: &Stage, options: &Options, out: &Out) -> Result<Timeline> {
    let deadline = Instant::now() + Duration::from_secs(options.timeout);
    let mut systems = Systems::follow(stage.plane.client()?);
    let mut drawing = Drawing::new(!out.quiet && std::io::stdout().is_terminal());
    loop {
        if !out.quiet {
            drawing.show(&systems, systems.elapsed());
        }
        if systems.all_ready() {
            drawing.finish(&systems, systems.elapsed(), out.quiet);
            return Ok(Timeline::of(&systems, &stage.simulator));
        }
        if Instant::now() > deadline {
            drawing.finish(&systems, systems.elapsed(), out.quiet);
            let log = std::fs::read_to_string(&stage.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines
                .iter()
                .rev()
                .take(40)
                .rev()
                .copied()
                .collect::<Vec<_>>()
                .join("\n");
            bail!(
                "not all six are Ready after {} s:\n{}\nthe operator last said:\n{tail}",
                options.timeout,
                systems.reasons()
            );
        }
        stage.plane.check()?;
        systems.changed(Duration::from_millis(200)).await;
    }
}

async fn epilogue(stage: &Stage, timeline: &Timeline, out: &Out) -> Result<()> {
    let overhead = timeline.overhead();
    out.say(&format!(
        "all six are Ready after {:.1} s; Proxmox, the setups and the model alone take {:.1} s on the longest chain: the operator adds a factor of {:.2}",
        overhead.total, overhead.critical_path, overhead.factor
    ));
    for kinds in ["hypervisors", "lxctemplates", "lxccontainers"] {
        let table = stage.plane.kubectl().run(["get", kinds]).await?;
        Out::print(&format!("\n$ kubectl get {kinds}\n{table}"));
    }
    Out::print(&format!(
        "\n$ zfs list   # in the simulated Proxmox\n{}",
        stage.simulator.zfs_list()
    ));
    Out::print(&format!(
        "\nLook around:\n  export KUBECONFIG={}\n  alias kubectl={}\n  kubectl get phoenix -A\n  kubectl describe lxccontainer vllm-qwen3-coder\n  \
         kubectl explain lxccontainer.spec.vllm\n  curl --proxy {} http://10.0.0.150:8000/v1/models\n  the operator's log: {}\n",
        stage.plane.kubeconfig_path().display(),
        stage.plane.kubectl().program().display(),
        stage.simulator.guest_proxy_url().unwrap_or_default(),
        stage.log.display(),
    ));
    Ok(())
}

fn println_json(timeline: &Timeline) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut stdout, &timeline.json())?;
    writeln!(stdout)?;
    Ok(())
}

/// Where words go.
struct Out {
    quiet: bool,
}

impl Out {
    fn say(&self, what: &str) {
        if self.quiet {
            eprintln!("demo: {what}");
        } else {
            Self::print(&format!("demo: {what}\n"));
        }
    }

    fn print(text: &str) {
        // a closed pipe is no reason to fail
        drop(std::io::stdout().lock().write_all(text.as_bytes()));
    }
}
