//! What each test stands on.

use std::{
    fmt::Debug,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use phoenix_crds::{Hypervisor, LxcContainer, LxcTemplate, lxc::Lxc};
use phoenix_lab::{
    ControlPlane,
    installation::{
        Access, apply_hypervisor, hypervisor_for, install_operator, make_namespace, repository,
    },
    operator::{Operator, OperatorSettings},
};
use proxmox_simulator::{Simulator, SimulatorConfig, guest::GuestSettings};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// How long a condition is waited for. Nothing takes so long; machines that do three things at once do.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// The OS template that the simulated host has.
pub(crate) const OS_TEMPLATE: &str = "local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst";

/// A control plane with the operator's rights in it.
struct Installed {
    plane: ControlPlane,
    kubeconfig: PathBuf,
}

impl Installed {
    async fn on(plane: anyhow::Result<ControlPlane>) -> Arc<Self> {
        let plane = plane.expect("a control plane");
        let kubeconfig = install_operator(&plane)
            .await
            .expect("the operator's rights");
        Arc::new(Self { plane, kubeconfig })
    }
}

/// The one that tests share.
static SHARED: OnceCell<Arc<Installed>> = OnceCell::const_new();

/// What differs from test to test.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "switches that a test sets by their names"
)]
pub(crate) struct Settings {
    /// The simulated host.
    pub(crate) simulator: SimulatorConfig,
    /// Whether the root password is in the Secret.
    pub(crate) root: bool,
    /// Whether the password of the token's user is.
    pub(crate) password: bool,
    /// `spec.polling`.
    pub(crate) polling: (&'static str, &'static str),
    /// Start the operator at once.
    pub(crate) operator: bool,
    /// A control plane of its own, and an operator that takes all hypervisors in it for its own: for what can't be shown beside others.
    pub(crate) alone: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let simulator = SimulatorConfig {
            guests: Some(GuestSettings::default()),
            ..SimulatorConfig::default()
        };
        Self {
            simulator,
            root: true,
            password: false,
            polling: ("1s", "10m"),
            operator: true,
            alone: false,
        }
    }
}

impl Settings {
    /// Containers without anything inside: enough where nothing has to be done in them.
    pub(crate) fn without_guests() -> Self {
        Self {
            simulator: SimulatorConfig::default(),
            ..Self::default()
        }
    }
}

/// One test's world.
pub(crate) struct Stage {
    pub(crate) name: String,
    pub(crate) simulator: Simulator,
    pub(crate) client: Client,
    installed: Arc<Installed>,
    alone: bool,
    operator: Option<Operator>,
    standby: Option<Operator>,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Stage {
    /// Raises it; `name` must be a DNS label that no other test has.
    pub(crate) async fn raise(name: &str, settings: Settings) -> Self {
        let installed = if settings.alone {
            Installed::on(ControlPlane::start_own().await).await
        } else {
            Arc::clone(
                SHARED
                    .get_or_init(async || Installed::on(ControlPlane::start().await).await)
                    .await,
            )
        };
        let plane = &installed.plane;
        make_namespace(plane, name).await.expect("a namespace");
        let simulator = Simulator::start(settings.simulator)
            .await
            .expect("a simulated Proxmox VE");
        let access = Access {
            name: name.to_owned(),
            root: settings.root,
            password: settings.password,
            polling: settings.polling,
        };
        let (secret, hypervisor) = hypervisor_for(&simulator, &access);
        apply_hypervisor(plane, &secret, &hypervisor)
            .await
            .expect("a Hypervisor");
        let folder = tempfile::tempdir().expect("a folder for the log");
        let log = folder.path().join("operator.log");
        let client = plane.client().expect("a client");
        let alone = settings.alone;
        let mut stage = Self {
            name: name.to_owned(),
            simulator,
            client,
            installed,
            alone,
            operator: None,
            standby: None,
            log,
            _folder: folder,
        };
        if settings.operator {
            stage.start_operator();
        }
        stage
    }

    pub(crate) fn start_operator(&mut self) {
        self.operator = Some(self.operator(None));
    }

    /// Starts two operators that elect who works.
    pub(crate) fn start_two_operators(&mut self) {
        self.operator = Some(self.operator(Some("one")));
        self.standby = Some(self.operator(Some("two")));
    }

    /// Kills that of the two which holds the Lease under this identity.
    pub(crate) async fn kill_leader(&mut self, identity: &str) {
        let leader = if identity.starts_with("one") {
            &mut self.operator
        } else {
            &mut self.standby
        };
        leader
            .take()
            .expect("two operators")
            .kill()
            .await
            .expect("a dead operator");
    }

    fn operator(&self, elect: Option<&str>) -> Operator {
        Operator::start(&self.operator_settings(elect)).expect("an operator")
    }

    /// Another command of `phoenix`, by the operator's rights: its process, which ends with what this gives.
    pub(crate) fn phoenix(&self, words: &[&str]) -> tokio::process::Command {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let mut command = Operator::command(&self.operator_settings(None), &words);
        command.kill_on_drop(true);
        command
    }

    fn operator_settings(&self, elect: Option<&str>) -> OperatorSettings {
        OperatorSettings {
            kubeconfig: self.installed.kubeconfig.clone(),
            selector: (!self.alone).then(|| format!("lab={}", self.name)),
            elect: elect.map(str::to_owned),
            log: Some(self.log.clone()),
            filter: "info,phoenix_controller=debug,kube=warn,kube_runtime=warn".to_owned(),
            arguments: ["operator_process", "--exact", "--nocapture"]
                .map(Into::into)
                .to_vec(),
        }
    }

    /// Kills the operator, whatever it is doing.
    pub(crate) async fn kill_operator(&mut self) {
        if let Some(operator) = self.operator.take() {
            operator.kill().await.expect("a dead operator");
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    pub(crate) fn hypervisors(&self) -> Api<Hypervisor> {
        Api::all(self.client.clone())
    }

    /// The containers of another namespace, which is made for it.
    pub(crate) async fn second_namespace(&self) -> Api<LxcContainer> {
        let name = format!("{}-second", self.name);
        make_namespace(&self.installed.plane, &name)
            .await
            .expect("a namespace");
        Api::namespaced(self.client.clone(), &name)
    }

    /// kubectl in the test's namespace.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> String {
        let args = ["-n", &self.name].into_iter().chain(args.iter().copied());
        self.installed
            .plane
            .kubectl()
            .run(args)
            .await
            .expect("kubectl")
    }

    /// A template from the OS template, in this test's world; `more` is merged into its spec.
    pub(crate) async fn template(&self, name: &str, more: Value) -> LxcTemplate {
        self.apply("LxcTemplate", name, merged(json!({"source": {"osTemplate": OS_TEMPLATE}, "rootfs": {"size": "4Gi"}, "snapshot": {"name": format!("{name}-snapshot")}}), more)).await
    }

    /// A container cloned from a template.
    pub(crate) async fn container(&self, name: &str, template: &str, more: Value) -> LxcContainer {
        self.apply(
            "LxcContainer",
            name,
            merged(json!({"source": {"templateRef": {"name": template}}}), more),
        )
        .await
    }

    async fn apply<K>(&self, kind: &str, name: &str, spec: Value) -> K
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let mut spec = merged(json!({"hypervisorRef": {"name": self.name}}), spec);
        if let Some(fields) = spec.as_object_mut() {
            // what a test names as null is left out
            fields.retain(|_, value| !value.is_null());
        }
        let object = json!({"apiVersion": "phoenix-hypervisor.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        let params = PatchParams::apply("test").force().validation_strict();
        self.api::<K>()
            .patch(name, &params, &Patch::Apply(&object))
            .await
            .expect("an accepted object")
    }

    /// Waits until an object is as `wanted` says; tells what it was like when it is not in time.
    pub(crate) async fn until<K>(
        &self,
        api: Api<K>,
        name: &str,
        what: &str,
        wanted: impl Fn(&K) -> bool,
    ) -> K
    where
        K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Serialize,
    {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let object = api.get_opt(name).await.expect("an answer");
            if let Some(object) = object.as_ref().filter(|o| wanted(o)) {
                return object.clone();
            }
            if Instant::now() > deadline {
                let status =
                    object.map(|o| serde_json::to_value(o).unwrap_or_default()["status"].clone());
                let status = serde_json::to_string_pretty(&status).unwrap_or_default();
                panic!("{name} did not come to {what}; its status is {status}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until something is so that no object tells.
    pub(crate) async fn eventually(&self, what: &str, is: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is() {
            assert!(
                Instant::now() < deadline,
                "in {}, {what} did not come",
                self.name
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until an Lxc object is Ready at its current generation.
    pub(crate) async fn ready<K>(&self, name: &str) -> K
    where
        K: Lxc
            + kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + DeserializeOwned
            + Debug
            + Serialize,
    {
        self.until(self.api::<K>(), name, "Ready", |o| {
            let current =
                o.status_shared().and_then(|s| s.observed_generation) == o.meta().generation;
            current && condition(o, "Ready").is_some_and(|c| c.status == "True")
        })
        .await
    }

    /// Waits until a condition of an Lxc object has a reason; the condition.
    pub(crate) async fn reason<K>(&self, name: &str, kind: &str, reason: &str) -> Condition
    where
        K: Lxc
            + kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + DeserializeOwned
            + Debug
            + Serialize,
    {
        let is = |o: &K| condition(o, kind).is_some_and(|c| c.reason == reason);
        let object = self
            .until(self.api::<K>(), name, &format!("{kind} {reason}"), is)
            .await;
        condition(&object, kind).expect("just seen")
    }

    /// How often the operator has polled the simulated host since its calls were cleared.
    pub(crate) fn polls(&self) -> usize {
        let calls = self.simulator.calls();
        let polls = calls
            .iter()
            .filter(|c| c.path.ends_with("/cluster/resources"));
        polls.count()
    }

    /// A further Hypervisor that leads to another simulator.
    pub(crate) async fn add_hypervisor(&self, simulator: &Simulator, access: &Access) {
        let (secret, hypervisor) = hypervisor_for(simulator, access);
        apply_hypervisor(&self.installed.plane, &secret, &hypervisor)
            .await
            .expect("a Hypervisor");
    }

    /// Deletes an Lxc object and waits until it is gone.
    pub(crate) async fn delete<K>(&self, name: &str)
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        self.api::<K>()
            .delete(name, &kube::api::DeleteParams::default())
            .await
            .expect("a deletion");
        self.gone::<K>(name).await;
    }

    /// Waits until an Lxc object is gone.
    pub(crate) async fn gone<K>(&self, name: &str)
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let api = self.api::<K>();
        let deadline = Instant::now() + PATIENCE;
        while let Some(object) = api.get_opt(name).await.expect("an answer") {
            assert!(
                Instant::now() < deadline,
                "{} is not gone: {object:?}",
                object.name_any()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines
                .iter()
                .rev()
                .take(60)
                .rev()
                .copied()
                .collect::<Vec<_>>()
                .join("\n");
            eprintln!(
                "--- the operator of {} last said:\n{tail}\n--- containers: {:?}",
                self.name,
                self.simulator.containers().keys()
            );
        }
    }
}

/// A condition of an Lxc object.
pub(crate) fn condition<K: Lxc>(object: &K, kind: &str) -> Option<Condition> {
    object
        .status_shared()?
        .conditions
        .iter()
        .find(|c| c.type_ == kind)
        .cloned()
}

/// `base` with the keys of `more` put over it.
pub(crate) fn merged(mut base: Value, more: Value) -> Value {
    if let (Some(base), Value::Object(more)) = (base.as_object_mut(), more) {
        base.extend(more);
    }
    base
}

/// A file of this repository.
pub(crate) fn file(path: &str) -> PathBuf {
    Path::new(&repository()).join(path)
}
