//! One object of the seed on its way: its root file system, the machine that runs on it, and the operator's own guest code.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use phoenix_controller::guest::{
    self, GuestFacts, GuestKey, GuestOp, SetupPhase, SetupRun, SetupState,
};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::edge::Edge;
use crate::layers::Layer;
use crate::machine::{Given, Machine};
use crate::root::{Root, differences};

/// Longer than any script takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(1200);

/// When a run is interrupted.
pub(crate) enum Moment {
    /// A transfer has come half-way.
    Transferred(oneshot::Receiver<()>),
    /// The root shows it.
    Seen(Box<dyn Fn(&Root) -> bool>),
}

impl Moment {
    pub(crate) fn seen(look: impl Fn(&Root) -> bool + 'static) -> Self {
        Self::Seen(Box::new(look))
    }

    /// dpkg has said this of a package.
    pub(crate) fn package(state: &str, name: &str) -> Self {
        let line = format!(" status {state} {name}:");
        Self::seen(move |root| root.read("var/log/dpkg.log").contains(&line))
    }
}

/// How.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Interruption {
    /// The container is gone from one instruction to the next.
    Power,
    /// The run's processes are killed; the container stays up.
    Kill,
}

/// An object and its container.
pub(crate) struct Stage<'a> {
    edge: &'a Edge,
    pub(crate) layer: Layer,
    pub(crate) root: Root,
    key: GuestKey,
    given: Given,
    machine: Option<Machine>,
    attempt: u32,
}

impl<'a> Stage<'a> {
    /// Boots a new container on this root and makes it a machine of its own.
    pub(crate) async fn begin(
        edge: &'a Edge,
        layer: &Layer,
        root: Root,
        driver: &str,
    ) -> Result<Self> {
        let key = GuestKey {
            vmid: layer.vmid,
            uid: format!("5eed0000-0000-4000-8000-{:012}", layer.vmid),
        };
        let mut stage = Self {
            edge,
            layer: layer.clone(),
            root,
            key,
            given: Given {
                driver: layer.gpus.then(|| driver.to_owned()),
            },
            machine: None,
            attempt: 0,
        };
        stage.boot().await?;
        let facts = stage.operate(&GuestOp::Personalise).await?;
        if !facts.state.is_some_and(|state| state.personalised) {
            bail!("the clone was not made a machine of its own");
        }
        let states = std::fs::read_dir(stage.root.path("var/lib/phoenix"))?.count();
        if states != 1 {
            bail!("{states} states lie in the guest, its source's among them");
        }
        Ok(stage)
    }

    pub(crate) fn key(&self) -> &GuestKey {
        &self.key
    }

    pub(crate) fn machine(&self) -> Result<&Machine> {
        self.machine.as_ref().context("the machine is off")
    }

    async fn boot(&mut self) -> Result<()> {
        self.machine = Some(Machine::boot(&self.root, &self.given, self.edge)?);
        let facts = self
            .operate(&GuestOp::AwaitBoot {
                network: true,
                limit: Duration::from_secs(180),
            })
            .await?;
        if !facts.booted(true) {
            bail!("the machine does not come up: {facts:?}");
        }
        Ok(())
    }

    /// An operation by the operator's own code, on a new console.
    async fn operate(&self, op: &GuestOp) -> Result<GuestFacts> {
        let console = self.machine()?.console()?;
        timeout(LIMIT, guest::run(console, &self.key, op))
            .await
            .with_context(|| format!("{} takes too long", op.name()))?
            .with_context(|| format!("{} failed", op.name()))
    }

    async fn start(&mut self, script: &str) -> Result<()> {
        self.attempt += 1;
        let run = SetupRun {
            hash: "as-shipped".to_owned(),
            attempt: self.attempt,
            script: script.to_owned(),
            verify: self.layer.verify.clone(),
            env: Vec::new(),
            timeout: LIMIT,
        };
        self.operate(&GuestOp::StartSetup(run)).await.map(drop)
    }

    async fn ended(&self) -> Result<SetupState> {
        let facts = self.operate(&GuestOp::AwaitSetup { limit: LIMIT }).await?;
        let state = facts
            .state
            .and_then(|state| state.setup)
            .context("no run was found in the guest")?;
        if state.phase.is_running() {
            bail!("the script does not end:\n{}", self.log());
        }
        Ok(state)
    }

    /// All that the run has printed.
    pub(crate) fn log(&self) -> String {
        self.root
            .read(&format!("var/lib/phoenix/{}/setup/log", self.key))
    }

    /// One whole run with its verification.
    pub(crate) async fn succeeds(&mut self) -> Result<()> {
        let script = self.layer.script.clone();
        self.start(&script).await?;
        let state = self.ended().await?;
        if state.phase != SetupPhase::Verified {
            bail!("the run ended as {:?}:\n{}", state.phase, self.log());
        }
        let unknown = self.edge.unknown();
        if !unknown.is_empty() {
            bail!(
                "the script asked for what is not known here: {unknown:?}\n{}",
                self.log()
            );
        }
        let left = self.edge.trouble_left();
        if !left.is_empty() {
            bail!("the script never asked for {left:?}");
        }
        Ok(())
    }

    /// A run of another script that ends with an exit status, having said this.
    pub(crate) async fn fails(&mut self, script: &str, saying: &str) -> Result<()> {
        self.start(script).await?;
        let state = self.ended().await?;
        let log = self.log();
        if !matches!(state.phase, SetupPhase::Exited { .. }) || !log.contains(saying) {
            bail!(
                "the run ended as {:?} without saying {saying:?}:\n{log}",
                state.phase
            );
        }
        Ok(())
    }

    /// A run that is interrupted at a moment; afterwards the operator finds that it was lost.
    pub(crate) async fn interrupted(&mut self, moment: Moment, how: Interruption) -> Result<()> {
        let script = self.layer.script.clone();
        self.start(&script).await?;
        let result = format!("var/lib/phoenix/{}/setup/result", self.key);
        let ended = async {
            while !self.root.path(&result).exists() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(LIMIT, first(wait(moment, &self.root), ended))
            .await
            .context("the moment of the interruption does not come")?
            .with_context(|| format!("the run ended before it was interrupted:\n{}", self.log()))?;
        match how {
            Interruption::Power => {
                self.machine
                    .take()
                    .context("the machine is off")?
                    .cut_power();
                self.boot().await?;
            }
            Interruption::Kill => drop(
                self.machine()?
                    .exec("systemctl kill --signal=KILL phoenix-setup")?,
            ),
        }
        let facts = self.operate(&GuestOp::Inspect).await?;
        let phase = facts
            .state
            .and_then(|state| state.setup)
            .map(|setup| setup.phase);
        if phase != Some(SetupPhase::Lost) {
            bail!(
                "after the interruption the run is {phase:?}:\n{}",
                self.log()
            );
        }
        Ok(())
    }

    /// Another whole run, after which every file is what it was, and so is what `also` prints.
    pub(crate) async fn changes_nothing(&mut self, also: &str) -> Result<()> {
        let before = (self.root.content()?, self.machine()?.exec(also)?);
        self.succeeds().await?;
        let after = (self.root.content()?, self.machine()?.exec(also)?);
        let mut different = differences(&before.0, &after.0);
        if before.1 != after.1 {
            different.push(format!("{} became {}", before.1, after.1));
        }
        if !different.is_empty() {
            bail!("the second run changed:\n{}", different.join("\n"));
        }
        Ok(())
    }

    /// Cleaned and stopped, as a template is sealed.
    pub(crate) async fn sealed(mut self) -> Result<Root> {
        self.operate(&GuestOp::CleanForSeal).await?;
        self.machine
            .take()
            .context("the machine is off")?
            .power_off()?;
        Ok(self.root)
    }
}

/// Whether the first of two comes first.
async fn first(
    one: impl Future<Output = Result<()>>,
    other: impl Future<Output = ()>,
) -> Result<()> {
    tokio::select! {
        biased;
        done = one => done,
        () = other => bail!("too late"),
    }
}

async fn wait(moment: Moment, root: &Root) -> Result<()> {
    match moment {
        Moment::Transferred(stalled) => stalled.await.context("the edge is gone"),
        Moment::Seen(look) => {
            while !look(root) {
                sleep(Duration::from_millis(2)).await;
            }
            Ok(())
        }
    }
}
