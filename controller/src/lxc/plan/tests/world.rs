//! The world as the plan sees it, and what each step makes of it. An independent reading of what steps are for: it applies them, so that
//! a plan that repeats itself or destroys what it needs doesn't come to an end.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use phoenix_crds::conditions::{Effect, Status, verdict};
use proxmox_client::{CtConfig, CtStatus, SecretString, TaskState};

use crate::{
    engine::{Plan, Verdict},
    fleet::{Health, Look, Place, Presence, Seen, Turn},
    guest::{
        GpuFact, GuestFacts, GuestState, InitState, SetupPhase, SetupState, VllmFiles, VllmUnit,
    },
    lxc::{
        desired::{
            Absence, Desired, Goal, Present, Role, Setup, Source, SourceTemplate, Strategy, Target,
            WantedNet,
        },
        mark::Mark,
        observe::{Claim, DriverStep, Observed, StorageKind, TaskSeen},
        plan::plan,
        step::{GuestStep, Step},
    },
    probe::VllmProbe,
    prober::{ProbeSpec, ProbeView},
    wake::{KindName, ObjectKey},
};

pub(super) const SETUP: &str = "5e70000001";

/// What an object asks for.
pub(super) fn template() -> Desired {
    Desired {
        target: target(KindName::LxcTemplate, "base-template-gpu"),
        goal: Goal::Present(Box::new(present())),
    }
}

/// A container that serves a model.
pub(super) fn container() -> Desired {
    let files = VllmFiles {
        unit: "[Service]".into(),
        env: SecretString::from(String::new()),
        args_hash: "a1".into(),
    };
    let role = Role::Container {
        running: true,
        vllm: Some(Arc::new(files)),
        probe: Some(ProbeSpec::Vllm {
            port: 8000,
            model: "qwen3-coder".into(),
            api_key: None,
            args_hash: "a1".into(),
        }),
        startup_timeout: Duration::from_secs(3600),
    };
    let present = Present {
        role,
        setup: None,
        setup_mark: "none".into(),
        ..present()
    };
    Desired {
        target: target(KindName::LxcContainer, "vllm"),
        goal: Goal::Present(Box::new(present)),
    }
}

fn target(kind: KindName, name: &str) -> Target {
    Target {
        key: ObjectKey {
            kind,
            namespace: "default".into(),
            name: name.into(),
        },
        uid: "u-1".into(),
        instance: "here".into(),
        hypervisor: "home".into(),
        vmid: None,
        node_hint: None,
    }
}

fn present() -> Present {
    let source = SourceTemplate {
        name: "base-template".into(),
        vmid: 900,
        node: "pve".into(),
        snapshot: "base-snapshot".into(),
        linked: true,
        clone_snapshot: None,
        revision: "4be1c0a2d9".into(),
    };
    Present {
        pinned: Some(901),
        range: 900..=999,
        taken: Vec::new(),
        node: "pve".into(),
        wish: None,
        source: Source::Template(source),
        hostname: "base-template-gpu".into(),
        keys: BTreeMap::from([("cores", "2".to_owned()), ("memory", "2048".to_owned())]),
        nets: Some(vec![WantedNet {
            name: "eth0".into(),
            bridge: "vmbr0".into(),
            properties: vec![("ip", "10.0.0.201/24".into()), ("gw", "10.0.0.1".into())],
            hwaddr: None,
        }]),
        unprivileged: Some(true),
        tags: Vec::new(),
        description: None,
        storage: None,
        disk_gib: Some(64),
        mounts: Vec::new(),
        devices: Vec::new(),
        pool: None,
        not_allowed: None,
        gpus: vec![0, 1],
        gpu_count: None,
        gpus_exclusive: false,
        setup: Some(Setup {
            script: "true".into(),
            verify: None,
            env: Vec::new(),
            timeout: Duration::from_secs(60),
            retries: 1,
            hash: SETUP.into(),
        }),
        setup_mark: SETUP.into(),
        revision: "0123456789".into(),
        built_from: None,
        shutdown_timeout: Duration::from_secs(60),
        role: Role::Template {
            snapshot: "gpu-snapshot".into(),
            strategy: Strategy::Auto,
        },
    }
}

/// The same object, on its way out.
pub(super) fn deleted(desired: &Desired) -> Desired {
    let absence = Absence {
        retain: false,
        children: Vec::new(),
        shutdown_timeout: Duration::from_secs(60),
    };
    Desired {
        target: desired.target.clone(),
        goal: Goal::Absent(absence),
    }
}

/// Proxmox, the guest and what we remember.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) config: Option<CtConfig>,
    pub(super) running: bool,
    pub(super) task: Option<(&'static str, TaskState)>,
    pub(super) facts: Option<GuestFacts>,
    /// Runs of the setup that fail before one succeeds.
    pub(super) failing: u32,
    pub(super) storage: StorageKind,
    pub(super) snapshots: Vec<String>,
    pub(super) has_root: bool,
    pub(super) steps: Vec<String>,
    pub(super) in_guest: GuestFacts,
    pub(super) ssh_key: Option<String>,
    pub(super) seen_at: Instant,
    /// The GPUs that its status says it holds, and whether alone.
    pub(super) held: BTreeMap<u32, bool>,
    pub(super) claims: Vec<Claim>,
    pub(super) node_gpus: Vec<u32>,
    pub(super) driver_step: Option<DriverStep>,
    pub(super) places: Vec<Place>,
}

impl World {
    pub(super) fn empty() -> Self {
        Self {
            config: None,
            running: false,
            task: None,
            facts: None,
            failing: 0,
            storage: StorageKind::Clones,
            snapshots: Vec::new(),
            has_root: true,
            steps: Vec::new(),
            in_guest: guest(),
            ssh_key: None,
            seen_at: Instant::now()
                .checked_sub(Duration::from_secs(150))
                .unwrap_or_else(Instant::now),
            held: BTreeMap::new(),
            claims: Vec::new(),
            node_gpus: Vec::new(),
            driver_step: None,
            places: Vec::new(),
        }
    }

    /// What the second stage would have found.
    pub(super) fn observed(&self, desired: &Desired) -> Observed {
        let mut seen = Observed::nothing(Health::Connected, None);
        seen.has_root = self.has_root;
        seen.storage = Some(self.storage);
        seen.snapshots.clone_from(&self.snapshots);
        seen.task = self.task.clone().map(|(kind, state)| TaskSeen {
            upid: "UPID".into(),
            kind: kind.into(),
            state,
        });
        seen.turn = Some(Turn::Now);
        seen.gpus_held.clone_from(&self.held);
        seen.gpu_claims.clone_from(&self.claims);
        seen.node_gpus.clone_from(&self.node_gpus);
        seen.driver_step.clone_from(&self.driver_step);
        seen.places = matches!(&desired.goal, Goal::Present(p) if p.wish.is_some())
            .then(|| Arc::new(self.places.clone()));
        seen.bridges = Some(vec!["vmbr0".into()]);
        seen.ssh_key = self.ssh_key.clone();
        let Some(vmid) = desired.target.vmid else {
            seen.candidate = Some(901);
            return seen;
        };
        let presence = match &self.config {
            None => Presence::Absent,
            Some(config) => {
                seen.ownership = Some(desired.target.mark(vmid).judge(config.description()));
                let status = CtStatus {
                    status: if self.running { "running" } else { "stopped" }.into(),
                    uptime: Some(200),
                    ..CtStatus::default()
                };
                Presence::Here(Box::new(Seen {
                    node: "pve".into(),
                    config: config.clone(),
                    pending: Vec::new(),
                    status,
                    addresses: vec!["10.0.0.201".into()],
                }))
            }
        };
        seen.look = Some(Arc::new(Look {
            at: Instant::now(),
            presence,
        }));
        seen.half_made = seen.mark().is_some_and(|m| !m.created);
        if self.running {
            // old enough that no pause is left
            seen.guest.facts = self.facts.clone().map(|f| (Arc::new(f), self.seen_at));
        }
        let unit = self.in_guest.vllm.as_ref().filter(|_| self.running);
        seen.probe = unit.map(|_| ProbeView {
            vllm: Some(VllmProbe::Serving {
                models: vec!["qwen3-coder".into()],
                version: Some("0.32.0".into()),
            }),
            http: None,
        });
        seen
    }

    pub(super) fn plan(&self, desired: &Desired) -> Plan<Step> {
        let plan = plan(
            desired,
            &self.observed(desired),
            Timestamp::from_second(1_000_000).unwrap(),
        );
        lint(&plan);
        plan
    }

    /// Plans and acts until nothing is left to do, or `bound` passes were made; the last verdict.
    pub(super) fn run(&mut self, desired: &mut Desired, bound: usize) -> Verdict<Step> {
        let mut verdict = Verdict::Blocked { recheck: None };
        for _ in 0..bound {
            verdict = self.plan(desired).verdict;
            match verdict.clone() {
                Verdict::Do(step) => self.apply(&step, desired),
                Verdict::Wait { .. }
                    if self
                        .task
                        .as_ref()
                        .is_some_and(|(_, s)| *s == TaskState::Running) =>
                {
                    self.task = self.task.take().map(|(kind, _)| (kind, TaskState::Ok));
                }
                _ => break,
            }
        }
        verdict
    }

    pub(super) fn apply(&mut self, step: &Step, desired: &mut Desired) {
        use crate::engine::Named;
        self.steps.push(step.name().to_owned());
        self.task = None;
        let mut config = self.config.clone().unwrap_or_default();
        let set = |config: &mut CtConfig, key: &str, value: &str| {
            drop(config.keys.insert(key.into(), value.into()));
        };
        match step {
            Step::ReserveVmid { vmid } => desired.target.vmid = Some(*vmid),
            Step::TakeGpus {
                gpus, exclusive, ..
            } => self.take_gpus(gpus, *exclusive, desired),
            Step::ChooseNode { node, .. } => {
                if let Goal::Present(present) = &mut desired.goal {
                    (present.node, present.wish) = (node.clone(), None);
                }
            }
            Step::Create { params, .. } | Step::Clone { params, .. } => {
                assert!(self.config.is_none(), "created upon something");
                for (key, value) in params {
                    set(&mut config, key, value);
                }
                set(
                    &mut config,
                    "rootfs",
                    "lxc-disks:basevol-900-disk-0/subvol-901-disk-0,size=32G",
                );
                set(
                    &mut config,
                    "net0",
                    "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=10.0.0.200/24,type=veth",
                );
                set(&mut config, "dev0", "/dev/fuse,mode=0666");
                set(&mut config, "onboot", "1");
                self.config = Some(config);
                self.task = Some(("vzclone", TaskState::Running));
            }
            Step::Destroy { .. } => {
                assert!(!self.running, "destroyed while it runs");
                let mark = desired
                    .target
                    .mark(desired.target.vmid.unwrap())
                    .judge(config.description());
                assert!(
                    matches!(mark, crate::lxc::mark::Ownership::Ours(_)),
                    "destroyed what isn't ours"
                );
                self.config = None;
                self.in_guest = guest();
                self.facts = None;
            }
            Step::Configure { change, .. } => {
                assert!(self.has_root || !change.as_root, "root's work without root");
                for (key, value) in &change.set {
                    let value = allocated(&config, key, value);
                    set(&mut config, key, &value);
                }
                change
                    .delete
                    .iter()
                    .for_each(|k| drop(config.keys.remove(k)));
                self.config = Some(config);
            }
            Step::Resize { disk, gib, .. } if disk != "rootfs" => {
                let mut volume = config.mounts()[&disk[2..].parse().unwrap()].clone();
                volume.props.set("size", format!("{gib}G"));
                set(&mut config, disk, &volume.props.to_string());
                self.config = Some(config);
            }
            Step::Resize { gib, .. } => {
                set(
                    &mut config,
                    "rootfs",
                    &format!("lxc-disks:basevol-900-disk-0/subvol-901-disk-0,size={gib}G"),
                );
                self.config = Some(config);
            }
            Step::Start { .. } => {
                assert!(
                    !config.keys.values().any(|v| v.contains("/dev/fuse")),
                    "started with an inherited device"
                );
                self.assert_gpus_held(desired);
                self.running = true;
                self.facts = None;
            }
            Step::Shutdown { .. } => {
                self.running = false;
                self.facts = None;
            }
            Step::Convert { .. } => {
                assert!(!self.running && self.snapshots.is_empty());
                set(&mut config, "template", "1");
                self.config = Some(config);
            }
            Step::Snapshot { name, .. } => self.snapshots.push(name.clone()),
            Step::Guest { step, .. } => self.enter(*step, desired),
        }
    }

    fn enter(&mut self, step: GuestStep, desired: &Desired) {
        assert!(self.running, "entered a stopped guest");
        let guest = &mut self.in_guest;
        match step {
            GuestStep::AwaitBoot { .. } | GuestStep::Inspect => {}
            GuestStep::Authorize => guest.ssh_key = Some(true),
            GuestStep::Personalise => {
                guest.ssh_key = Some(true);
                guest.state = Some(GuestState {
                    key: "901-u-1".into(),
                    personalised: true,
                    setup: None,
                });
            }
            GuestStep::StartSetup { attempt } => {
                let state = guest.state.get_or_insert_with(|| GuestState {
                    key: "901-u-1".into(),
                    personalised: false,
                    setup: None,
                });
                state.setup = Some(SetupState {
                    hash: SETUP.into(),
                    attempt,
                    started_at: 1,
                    phase: SetupPhase::Running,
                    finished_at: None,
                    tail: "installing".into(),
                });
            }
            GuestStep::StartDriverStep { attempt } => {
                let step = self.driver_step.as_ref().unwrap();
                guest.state.as_mut().unwrap().setup = Some(super::gpus::begun(step, attempt));
            }
            GuestStep::AwaitSetup => {
                let failing = self.failing;
                if let Some(run) = guest.state.as_mut().and_then(|s| s.setup.as_mut()) {
                    run.phase = if run.attempt <= failing {
                        SetupPhase::Exited { code: 3 }
                    } else {
                        SetupPhase::Verified
                    };
                    run.finished_at = Some(2);
                    let brings = self.driver_step.as_ref();
                    if brings.is_some_and(|step| step.run.hash == run.hash)
                        && run.phase == SetupPhase::Verified
                    {
                        guest.nvidia_error = None;
                    }
                }
            }
            GuestStep::ApplyVllm => {
                let Goal::Present(p) = &desired.goal else {
                    return;
                };
                let Role::Container {
                    vllm: Some(files), ..
                } = &p.role
                else {
                    return;
                };
                guest.vllm = Some(VllmUnit {
                    args_hash: files.args_hash.clone(),
                    active: "active".into(),
                    sub: "running".into(),
                    restarts: 0,
                    exit_status: None,
                    since: Some(1),
                    executable_found: true,
                    journal_tail: String::new(),
                    complaints: String::new(),
                });
            }
            GuestStep::Clean => guest.state = None,
        }
        self.facts = Some(self.in_guest.clone());
    }

    /// Puts a mark on a container that is there.
    pub(super) fn mark(&mut self, mark: &Mark) {
        let config = self.config.get_or_insert_default();
        config.keys.insert("description".into(), mark.describe(""));
    }
}

/// A mount as Proxmox keeps it: `storage:8` makes a volume, and must never be sent where there is one.
fn allocated(config: &CtConfig, key: &str, value: &str) -> String {
    let Some(mut volume) = key
        .strip_prefix("mp")
        .and_then(|_| proxmox_client::Volume::parse(value))
    else {
        return value.to_owned();
    };
    if let Ok(gib) = volume.volume.parse::<u64>() {
        let path = volume.props.get("mp");
        let twice = config.mounts().values().any(|m| m.props.get("mp") == path);
        assert!(
            !twice && !config.keys.contains_key(key),
            "allocated twice: {key} {value}"
        );
        let name = format!("{}:subvol-901-{key}", volume.storage);
        volume.props.set("volume", name);
        volume.props.set("size", format!("{gib}G"));
    }
    volume.props.to_string()
}

/// What holds of every plan: each finding stands in the table of conditions as it stands there, and each message is a sentence.
pub(super) fn lint(plan: &Plan<Step>) {
    use crate::condition::{Progress, Truth};
    for f in &plan.findings {
        let row = verdict(f.condition, f.reason)
            .unwrap_or_else(|| panic!("{} {} is not in the table", f.condition, f.reason));
        let truth = match row.status {
            Status::True => Truth::True,
            Status::False => Truth::False,
            Status::Unknown => Truth::Unknown,
        };
        assert_eq!(f.truth, truth, "{f:?}");
        let fits = match row.effect {
            Effect::Neutral => f.progress == Progress::Neutral,
            Effect::Reconciling => f.progress == Progress::Reconciling,
            Effect::Stalled => f.progress == Progress::Stalled,
            Effect::ReconcilingThenStalled => f.progress != Progress::Neutral,
        };
        assert!(fits, "{f:?} against {row:?}");
        assert!(f.truth == Truth::True || !f.message.is_empty(), "{f:?}");
    }
}

fn guest() -> GuestFacts {
    let gpu = |minor: u32| GpuFact {
        minor: Some(minor),
        uuid: format!("GPU-{minor}"),
        pci_address: format!("0000:0{minor}:00.0"),
        name: "NVIDIA RTX A6000".into(),
        memory_mib: 49140,
        driver_version: "580.76.05".into(),
    };
    GuestFacts {
        host_key: None,
        ssh_key: Some(false),
        init: InitState::Running,
        default_route: true,
        resolves: true,
        state: None,
        vllm: None,
        gpus: vec![gpu(0), gpu(1)],
        gpu_devices: vec![0, 1],
        nvidia_error: None,
        host_driver: Some("580.76.05".into()),
        os: None,
        docker_storage: None,
    }
}
