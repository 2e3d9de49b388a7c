//! The seam between a guest and the simulator: calls that stand-in commands make.
//!
//! `guest-root/call.sh` is the other half and describes the protocol. Everything here comes from inside the guest and is not trusted: names are checked,
//! links are not followed, and only regular files and pipes of the one folder are opened.

use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, unlinkat};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::Mutex;

const LIMIT: u64 = 1 << 20;

/// One command called in a guest.
pub(super) struct Call {
    /// The command's full path, as called.
    pub(super) program: String,
    pub(super) args: Vec<String>,
    pub(super) env: HashMap<String, String>,
    pub(super) cwd: String,
    /// Only where the seam's script collects it.
    pub(super) stdin: String,
    pub(super) reply: Reply,
}

impl Call {
    /// The command's name.
    pub(super) fn name(&self) -> &str {
        self.program.rsplit('/').next().unwrap_or(&self.program)
    }

    /// A path as the caller meant it.
    pub(super) fn path(&self, path: &str) -> String {
        if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.cwd.trim_end_matches('/'))
        }
    }

    pub(super) fn args(&self) -> Vec<&str> {
        self.args.iter().map(String::as_str).collect()
    }
}

/// Where a call's output goes.
#[derive(Clone)]
pub(super) struct Reply(Arc<Mutex<pipe::Sender>>);

impl Reply {
    /// Text to standard output; its last newline may be missing.
    pub(super) async fn out(&self, text: &str) {
        self.send('o', text).await;
    }

    /// Text to standard error.
    pub(super) async fn err(&self, text: &str) {
        self.send('e', text).await;
    }

    async fn send(&self, kind: char, text: &str) {
        let mut lines = String::with_capacity(text.len() + 16);
        for line in text.split_inclusive('\n') {
            if let Some(line) = line.strip_suffix('\n') {
                lines.push(kind);
                lines.push_str(line);
            } else {
                lines.push(if kind == 'o' { 'O' } else { kind });
                lines.push_str(line);
            }
            lines.push('\n');
        }
        // A caller that is gone is noticed by its other pipe.
        self.0.lock().await.write_all(lines.as_bytes()).await.ok();
    }

    async fn exit(&self, code: i32) {
        self.0
            .lock()
            .await
            .write_all(format!("x{code}\n").as_bytes())
            .await
            .ok();
    }
}

/// An option's name, and its value where that hangs on it: `--name=value`.
pub(super) fn option(word: &str) -> (&str, Option<String>) {
    match word.split_once('=') {
        Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
        _ => (word, None),
    }
}

/// Serves the calls of one guest until the task is dropped.
pub(super) async fn serve<F, Fut>(seam: &Path, handle: F) -> Result<()>
where
    F: Fn(Call) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = i32> + Send + 'static,
{
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = Arc::new(
        rustix::fs::open(seam.join("calls"), flags, Mode::empty())
            .context("opening the folder of calls")?,
    );
    let doorbell = pipe::OpenOptions::new()
        .read_write(true)
        .open_receiver(seam.join("calls.pipe"))
        .context("opening the pipe of calls")?;
    let mut ids = BufReader::new(doorbell).lines();
    let mut running = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            id = ids.next_line() => {
                let Some(id) = id? else { return Ok(()) };
                let (folder, handle) = (folder.clone(), handle.clone());
                running.spawn(async move {
                    if let Err(error) = answer(&folder, &id, handle).await {
                        tracing::warn!("a guest's call {id:?} could not be answered: {error:#}");
                    }
                });
            }
            Some(_) = running.join_next() => {}
        }
    }
}

async fn answer<F, Fut>(folder: &OwnedFd, id: &str, handle: F) -> Result<()>
where
    F: Fn(Call) -> Fut,
    Fut: Future<Output = i32>,
{
    ensure!(
        !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'),
        "not a name of a call"
    );
    let mut alive = pipe::Receiver::from_owned_fd(open(
        folder,
        &format!("{id}.alive"),
        OFlags::RDONLY,
        FileType::Fifo,
    )?)?;
    let reply = Reply(Arc::new(Mutex::new(pipe::Sender::from_owned_fd(open(
        folder,
        &format!("{id}.reply"),
        OFlags::WRONLY,
        FileType::Fifo,
    )?)?)));
    let words = read_words(folder, &format!("{id}.args"))?;
    let stdin = open(
        folder,
        &format!("{id}.stdin"),
        OFlags::RDONLY,
        FileType::RegularFile,
    )
    .ok()
    .map(read_text)
    .transpose()?
    .unwrap_or_default();
    let env = read_words(folder, &format!("{id}.env"))?;
    for suffix in ["alive", "reply", "args", "env", "stdin"] {
        unlinkat(folder, format!("{id}.{suffix}"), AtFlags::empty()).ok();
    }
    let mut words = words.into_iter();
    let (cwd, program) = (
        words.next().context("no folder")?,
        words.next().context("no program")?,
    );
    let env = env
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let call = Call {
        program,
        args: words.collect(),
        env,
        cwd,
        stdin,
        reply: reply.clone(),
    };
    let mut nothing = [0u8; 1];
    tokio::select! {
        code = handle(call) => reply.exit(code).await,
        _ = alive.read(&mut nothing) => {}
    }
    Ok(())
}

fn open(folder: &OwnedFd, name: &str, how: OFlags, kind: FileType) -> Result<OwnedFd> {
    let file = openat(
        folder,
        name,
        how | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .with_context(|| format!("opening {name}"))?;
    ensure!(
        FileType::from_raw_mode(fstat(&file)?.st_mode) == kind,
        "{name} is of another kind"
    );
    Ok(file)
}

fn read_text(file: OwnedFd) -> Result<String> {
    let mut bytes = Vec::new();
    File::from(file).take(LIMIT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn read_words(folder: &OwnedFd, name: &str) -> Result<Vec<String>> {
    let text = read_text(open(folder, name, OFlags::RDONLY, FileType::RegularFile)?)?;
    Ok(text.split_terminator('\0').map(str::to_owned).collect())
}
