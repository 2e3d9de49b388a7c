//! The whole log of an object's setup, for whoever asks for it on the command line.
//!
//! It is read with the asker's own rights: from Kubernetes the object, its Hypervisor and that one's Secret, from Proxmox the console. The
//! operator is not asked and opens no port for it; where it works in the container at that moment, the reader asks in between. Nothing is
//! typed into a container that doesn't carry the object's mark, nor into a human's session.

use std::{io::Write, time::Duration};

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client as Kube};
use phoenix_crds::{Hypervisor, Lxc, LxcContainer, LxcStatus, LxcTemplate, status::State};
use proxmox_client::{Client, ClientConfig, Timeouts};
use serde::de::DeserializeOwned;

use crate::{
    fault::Fault,
    guest::{GuestError, GuestKey, LogPiece, LogReader, SetupPhase, Which},
    hypervisor,
    lxc::mark::Mark,
    wake::KindName,
};

/// How often a log that is followed is asked for more.
const PACE: Duration = Duration::from_secs(2);
/// So often in a row may the console fail before that is said.
const TRIES: u32 = 3;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The object's kind.
    pub kind: KindName,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Go on until the run has ended.
    pub follow: bool,
    /// Which run's log.
    pub which: Which,
    /// Where the operator is, with the Secrets of Hypervisors.
    pub operator_namespace: String,
}

/// The object, as far as it matters here.
struct Found {
    who: String,
    uid: String,
    status: LxcStatus,
}

/// Its container.
struct Place {
    client: Client,
    node: String,
    key: GuestKey,
}

/// Where text goes.
pub struct Output<'a> {
    /// The log.
    pub log: &'a mut (dyn Write + Send),
    /// What is said about it.
    pub notes: &'a mut (dyn Write + Send),
}

/// Prints the log.
///
/// # Errors
/// Why there is none, or why it can't be had, in a sentence.
pub async fn print(request: &Request, kube: &Kube, out: &mut Output<'_>) -> anyhow::Result<()> {
    let found = match request.kind {
        KindName::LxcTemplate => find::<LxcTemplate>(request, kube).await?,
        KindName::LxcContainer => find::<LxcContainer>(request, kube).await?,
        KindName::Hypervisor => bail!("a Hypervisor has no setup"),
    };
    if found.status.state == Some(State::Sealed) {
        let why = "is sealed: its log went with all that no clone shall have";
        return last_lines(&found, why, out);
    }
    let place = place(&found, request, kube).await?;
    if !running(&place, &found).await? {
        return last_lines(&found, "doesn't run: its log is inside", out);
    }
    let mut reading = Reading {
        place: &place,
        which: request.which,
        reader: None,
        failures: 0,
    };
    let outcome = tokio::select! {
        outcome = copy(&mut reading, &found, request.follow, out) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    if let Some(reader) = reading.reader.take() {
        reader.close().await;
    }
    outcome
}

async fn copy(
    reading: &mut Reading<'_>,
    found: &Found,
    follow: bool,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    let (mut run, mut offset) = (None, 0);
    loop {
        let Some(piece) = reading.next(offset).await? else {
            if follow {
                tokio::time::sleep(PACE).await;
                continue;
            }
            let what = if reading.which == Which::Previous {
                "only one run of a setup"
            } else {
                "no run of a setup yet"
            };
            bail!("{} has had {what}", found.who);
        };
        let this = Some((piece.attempt, piece.started_at));
        if run.is_some() && run != this {
            // what was read belongs to the run before
            (run, offset) = (this, 0);
            writeln!(out.notes, "--- attempt {}", piece.attempt)?;
            continue;
        }
        run = this;
        offset += piece.bytes.len();
        out.log.write_all(&piece.bytes)?;
        out.log.flush()?;
        if !piece.bytes.is_empty() {
            continue;
        }
        if !follow || !piece.phase.is_running() {
            writeln!(out.notes, "--- {}", ending(&piece))?;
            return Ok(());
        }
        tokio::time::sleep(PACE).await;
    }
}

fn ending(piece: &LogPiece) -> String {
    let attempt = piece.attempt;
    match piece.phase {
        SetupPhase::Running => format!("attempt {attempt} is running"),
        SetupPhase::Verifying => format!("attempt {attempt} is being verified"),
        SetupPhase::Verified => format!("attempt {attempt} succeeded"),
        SetupPhase::Exited { code } => format!("attempt {attempt} ended with exit code {code}"),
        SetupPhase::TimedOut => format!("attempt {attempt} was ended at its timeout"),
        SetupPhase::VerifyFailed { code } => {
            format!("the verification of attempt {attempt} ended with exit code {code}")
        }
        SetupPhase::Lost => {
            format!("attempt {attempt} was lost: the container was stopped meanwhile")
        }
    }
}

/// A reader that is opened anew when the connection breaks, or the operator ends the session that both used.
struct Reading<'a> {
    place: &'a Place,
    which: Which,
    reader: Option<LogReader>,
    failures: u32,
}

impl Reading<'_> {
    async fn next(&mut self, offset: usize) -> Result<Option<LogPiece>, GuestError> {
        loop {
            let attempt = async {
                let reader = match self.reader.take() {
                    Some(open) => open,
                    None => {
                        let Place { client, node, key } = self.place;
                        LogReader::open(client, node, key).await?
                    }
                };
                self.reader.insert(reader).read(self.which, offset).await
            };
            match attempt.await {
                Ok(piece) => {
                    self.failures = 0;
                    return Ok(piece);
                }
                Err(error) => {
                    self.reader = None;
                    self.failures += 1;
                    if self.failures >= TRIES {
                        return Err(error);
                    }
                }
            }
            tokio::time::sleep(PACE / 2).await;
        }
    }
}

async fn find<K>(request: &Request, kube: &Kube) -> anyhow::Result<Found>
where
    K: Lxc
        + kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + DeserializeOwned
        + std::fmt::Debug,
{
    let who = format!("{} {}/{}", K::KIND, request.namespace, request.name);
    let api: Api<K> = Api::namespaced(kube.clone(), &request.namespace);
    let object = api.get_opt(&request.name).await;
    let Some(object) = object.with_context(|| format!("reading {who}"))? else {
        bail!("{who} does not exist; give its namespace by -n");
    };
    let status = object.status_shared().cloned().unwrap_or_default();
    if object.spec_shared().setup.is_none() {
        bail!("{who} has no setup (spec.setup)");
    }
    Ok(Found {
        who,
        uid: object.uid().unwrap_or_default(),
        status,
    })
}

async fn place(found: &Found, request: &Request, kube: &Kube) -> anyhow::Result<Place> {
    let status = &found.status;
    let (Some(name), Some(vmid), Some(node)) = (&status.hypervisor, status.vmid, &status.node)
    else {
        let ready = status.conditions.first().map(|c| c.message.clone());
        bail!(
            "{} has no container yet. {}",
            found.who,
            ready.unwrap_or_default()
        );
    };
    let hypervisors: Api<Hypervisor> = Api::all(kube.clone());
    let object = hypervisors
        .get(name)
        .await
        .with_context(|| format!("reading Hypervisor {name}"))?;
    let secrets: Api<Secret> = Api::namespaced(kube.clone(), &request.operator_namespace);
    let secret = secrets.get(&object.spec.credentials_secret).await;
    let secret = secret.with_context(|| {
        format!(
            "reading Secret {0}/{1}, by which Proxmox is reached (who may not read it asks where the operator is: \
             kubectl exec -n {0} deploy/phoenix -- phoenix logs …)",
            request.operator_namespace, object.spec.credentials_secret
        )
    })?;
    let said = |fault: Fault| anyhow::anyhow!(fault.message);
    let client = Client::new(ClientConfig {
        endpoints: object.spec.endpoints.clone(),
        trust: hypervisor::trust(&object).map_err(said)?,
        credentials: hypervisor::credentials(&object, &secret, &request.operator_namespace)
            .map_err(said)?,
        timeouts: Timeouts::default(),
        observer: None,
    });
    Ok(Place {
        client: client.with_context(|| format!("connecting to Hypervisor {name}"))?,
        node: node.clone(),
        key: GuestKey {
            vmid: u32::try_from(vmid).context("status.vmid")?,
            uid: found.uid.clone(),
        },
    })
}

/// Whether the container runs, and is the object's.
async fn running(place: &Place, found: &Found) -> anyhow::Result<bool> {
    let Place { client, node, key } = place;
    let doing = || format!("looking at container {} on node {node}", key.vmid);
    let config = client.ct_config(node, key.vmid).await;
    let config = config.with_context(doing)?;
    let mark = Mark::find(config.description());
    if !mark.is_some_and(|mark| mark.uid == key.uid && mark.vmid == key.vmid) {
        bail!(
            "container {} on node {node} does not carry the mark of {}: it is not entered",
            key.vmid,
            found.who
        );
    }
    let status = client.ct_status(node, key.vmid).await;
    Ok(status.with_context(doing)?.is_running())
}

/// What the status has, where the log itself can't be had.
fn last_lines(found: &Found, why: &str, out: &mut Output<'_>) -> anyhow::Result<()> {
    let lines = found
        .status
        .setup
        .as_ref()
        .and_then(|setup| setup.last_lines.as_ref());
    let Some(lines) = lines else {
        bail!("{} {why}, and its status has no last lines", found.who);
    };
    writeln!(
        out.notes,
        "--- {} {why}; these are the last lines, from its status",
        found.who
    )?;
    writeln!(out.log, "{lines}")?;
    Ok(())
}
