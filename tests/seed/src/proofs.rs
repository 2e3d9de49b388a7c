//! What is proved, in the order in which the layers stand on each other.

use std::fs::File;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::edge::Edge;
use crate::goods::{self, ARCHIVED_DRIVER, DRIVER, NEWER_DRIVER};
use crate::layers::{self, Layer};
use crate::root::{self, Root};
use crate::say;
use crate::stage::{Interruption, Moment, Stage};

use Interruption::{Kill, Power};

/// What Docker holds: its engine, images, containers and volumes.
const DOCKER: &str = "docker info --format '{{.ID}}'; docker images --no-trunc --quiet; docker ps --all --quiet --no-trunc; docker volume ls --quiet; cat /etc/docker/daemon.json";

/// Tells what was proved, and counts.
struct Report {
    count: usize,
    since: Instant,
}

impl Report {
    fn proved(&mut self, what: &str) {
        self.count += 1;
        say(&format!(
            "ok: {what} ({} s)",
            self.since.elapsed().as_secs()
        ));
        self.since = Instant::now();
    }
}

/// Everything; yields how many things were proved.
pub(crate) async fn all() -> Result<usize> {
    let mirror = root::mirror()?;
    let archive = root::archive(&mirror).context("making the root file system")?;
    // One at a time on a machine: the control group has one name.
    let lock = File::open(&archive)?;
    lock.lock()
        .context("waiting for another run on this machine")?;

    let folder = tempfile::Builder::new()
        .prefix("phoenix-seed-")
        .tempdir_in("/var/tmp")?;
    let (goods, kept) = (folder.path().join("goods"), folder.path().join("kept"));
    std::fs::create_dir_all(&goods)?;
    std::fs::create_dir_all(&kept)?;
    let key =
        goods::make(&goods, &mirror).context("making what stands in for other repositories")?;
    let edge = Edge::new(goods, kept, &mirror)?;
    let layers = Layers(layers::load(&key.fingerprint)?);
    let mut report = Report {
        count: 0,
        since: Instant::now(),
    };

    let fresh = Root::unpack(&archive, &mirror, edge.authority())?;
    let base = base(&edge, layers.get(900)?, fresh, &mut report).await?;
    let gpu = gpu(&edge, &layers, &base, &mut report).await?;
    vllm(&edge, &layers, &gpu, &mut report).await?;
    drop(gpu);
    let docker = docker(&edge, &layers, &base, &mut report).await?;
    drop(base);
    portainer(&edge, &layers, &docker, &mut report).await?;
    Ok(report.count)
}

struct Layers(Vec<Layer>);

impl Layers {
    fn get(&self, vmid: u32) -> Result<&Layer> {
        let layer = self.0.iter().find(|layer| layer.vmid == vmid);
        layer.with_context(|| format!("the seed has no object {vmid}"))
    }

    /// The object, and a copy of its parent's root.
    fn on(&self, vmid: u32, parent: u32, root: &Root) -> Result<(&Layer, Root)> {
        let layer = self.get(vmid)?;
        if layer.parent.as_ref() != Some(&self.get(parent)?.name) {
            bail!("{} does not stand on {parent} any more", layer.name);
        }
        Ok((layer, Root::clone_of(root)?))
    }
}

async fn base(edge: &Edge, layer: &Layer, root: Root, report: &mut Report) -> Result<Root> {
    let mut stage = Stage::begin(edge, layer, root, DRIVER).await?;
    report.proved("the operator enters a real Debian with a real systemd over its console");
    edge.cut("/jq_");
    let index = Moment::Transferred(edge.stall("/binary-amd64/"));
    stage.interrupted(index, Kill).await?;
    report.proved("900 killed while the package index is fetched");
    let package = Moment::Transferred(edge.stall("/git_"));
    stage.interrupted(package, Power).await?;
    report.proved("900 without power while a package is fetched");
    stage
        .interrupted(Moment::package("half-installed", "vim-runtime"), Power)
        .await?;
    report.proved("900 without power while a package is unpacked");
    stage
        .interrupted(Moment::package("half-configured", "ca-certificates"), Kill)
        .await?;
    report.proved("900 killed while a package is configured");
    stage.succeeds().await?;
    report.proved("900 ends well after all that, over a line that broke once");
    stage.changes_nothing("true").await?;
    report.proved("900 run again changes nothing");
    stage.sealed().await
}

async fn gpu(edge: &Edge, layers: &Layers, base: &Root, report: &mut Report) -> Result<Root> {
    let (layer, root) = layers.on(901, 900, base)?;
    let mut stage = Stage::begin(edge, layer, root, DRIVER).await?;
    let library = Moment::Transferred(edge.stall("/libcuda1_"));
    stage.interrupted(library, Power).await?;
    report.proved("901 without power while the driver's libraries are fetched");
    stage
        .interrupted(
            Moment::package("half-installed", "cuda-libraries-13-0"),
            Power,
        )
        .await?;
    report.proved("901 without power while CUDA is unpacked");
    stage.succeeds().await?;
    report.proved("901, on a clone of 900, ends well after that");
    stage
        .changes_nothing("apt-mark showhold; nvidia-smi -L")
        .await?;
    report.proved("901 run again changes nothing");
    let sealed = stage.sealed().await?;

    let mut stage = Stage::begin(edge, layer, Root::clone_of(&sealed)?, NEWER_DRIVER).await?;
    stage.succeeds().await?;
    report.proved(
        "901 run again after the host's driver was changed brings the libraries of the new one",
    );
    drop(stage);

    let mut stage = Stage::begin(edge, layer, Root::clone_of(base)?, ARCHIVED_DRIVER).await?;
    let installer = Moment::Transferred(edge.stall(".run"));
    stage.interrupted(installer, Power).await?;
    stage.succeeds().await?;
    nothing_left(&stage)?;
    report.proved("901 with a driver that no repository has takes NVIDIA's installer, after a loss of power half-way, and leaves nothing of it");
    stage.changes_nothing("nvidia-smi -L").await?;
    report.proved("901 by the installer run again changes nothing");
    Ok(sealed)
}

/// What a run that was cut off had downloaded would be in every clone.
fn nothing_left(stage: &Stage<'_>) -> Result<()> {
    let left = stage
        .machine()?
        .exec("ls -A /var/tmp | grep -v '^systemd-private-' || true")?;
    if !left.is_empty() {
        bail!("the interrupted runs have left in /var/tmp: {left}");
    }
    Ok(())
}

async fn vllm(edge: &Edge, layers: &Layers, gpu: &Root, report: &mut Report) -> Result<()> {
    let (layer, root) = layers.on(920, 901, gpu)?;
    let mut stage = Stage::begin(edge, layer, root, DRIVER).await?;
    let begun = |root: &Root| root.path("opt/vllm/bin/python3").is_symlink();
    stage.interrupted(Moment::seen(begun), Kill).await?;
    report.proved("920 killed while the virtual environment is made");
    let wheel = Moment::Transferred(edge.stall("/torch-"));
    stage.interrupted(wheel, Power).await?;
    report.proved("920 without power while a wheel is fetched");
    let half = |root: &Root| {
        let found = std::fs::read_dir(root.path("opt/vllm/lib"))
            .into_iter()
            .flatten()
            .flatten();
        found
            .into_iter()
            .any(|python| python.path().join("site-packages/torch/part-0500").exists())
    };
    stage.interrupted(Moment::seen(half), Power).await?;
    report.proved("920 without power while a wheel is unpacked");
    stage.succeeds().await?;
    nothing_left(&stage)?;
    report.proved(
        "920, on a clone of 901, ends well after all that, with every file of its packages",
    );
    stage
        .changes_nothing("/opt/vllm/bin/pip list 2>/dev/null")
        .await?;
    report.proved("920 run again changes nothing");
    stage.sealed().await.map(drop)
}

async fn docker(edge: &Edge, layers: &Layers, base: &Root, report: &mut Report) -> Result<Root> {
    let (layer, root) = layers.on(902, 900, base)?;
    let mut stage = Stage::begin(edge, layer, root, DRIVER).await?;
    let shipped = layer.shipped.clone();
    stage
        .fails(
            &shipped,
            "if its owner announced a new key, change the fingerprint in this script",
        )
        .await?;
    report.proved("902 as shipped refuses a repository that is signed with another key");
    let engine = Moment::Transferred(edge.stall("/docker-ce_"));
    stage.interrupted(engine, Power).await?;
    report.proved("902 without power while Docker is fetched");
    stage
        .interrupted(Moment::package("half-configured", "docker-ce"), Power)
        .await?;
    report.proved("902 without power while Docker is configured");
    let image = Moment::Transferred(edge.stall("hello-world/blobs/"));
    stage.interrupted(image, Kill).await?;
    report.proved("902 killed while an image is pulled");
    stage.succeeds().await?;
    report
        .proved("902, on a clone of 900, ends well after all that: a real Docker runs a container");
    stage.changes_nothing(DOCKER).await?;
    report.proved("902 run again changes nothing");
    stage.sealed().await
}

async fn portainer(edge: &Edge, layers: &Layers, docker: &Root, report: &mut Report) -> Result<()> {
    let (layer, root) = layers.on(910, 902, docker)?;
    let engine = docker.read("var/lib/docker/engine-id");
    let mut stage = Stage::begin(edge, layer, root, DRIVER).await?;
    if engine.is_empty() || stage.root.read("var/lib/docker/engine-id") == engine {
        bail!("Docker's engine in the clone is not told from its source's: {engine:?}");
    }
    let image = Moment::Transferred(edge.stall("portainer-ce/blobs/"));
    stage.interrupted(image, Power).await?;
    report.proved("910 without power while Portainer's image is pulled");
    let log = format!("var/lib/phoenix/{}/setup/log", stage.key());
    let waits = move |root: &Root| root.read(&log).contains("Waiting for its answer");
    stage.interrupted(Moment::seen(waits), Power).await?;
    report.proved("910 without power just after Portainer was started");
    stage.succeeds().await?;
    report.proved("910, on a clone of 902, ends well after that: Portainer answers");
    stage.changes_nothing(DOCKER).await?;
    report.proved("910 run again changes nothing: Portainer's container runs on");
    Ok(())
}
