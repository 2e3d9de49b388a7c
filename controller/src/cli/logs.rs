//! `phoenix logs`: the whole log of a setup, to stdout; what is to be said about it to stderr.

use std::io::{self, ErrorKind, IsTerminal, Write};

use anyhow::Context;
use kube::Client;
use tokio::runtime;

use crate::guest::{Which, printable};
use crate::logs::{Output, Request, print};
use crate::settings::NAMESPACE;
use crate::wake::KindName;

const AFTER_HELP: &str = "\
It is read with your own rights: you need to read the object, its Hypervisor and the Secret of that one, and to reach Proxmox. The pod of
the operator has all that. Values of Secrets are masked. Of a sealed template only the last lines are left, in its status.

Examples:
  phoenix logs lxctemplate/base-template -n ai -f
          Follow a setup until it has ended
  phoenix logs lxcc/portainer --previous
          Why the attempt before this one failed

  kubectl exec -n phoenix-system deploy/phoenix -- phoenix logs lxccontainer/portainer -n ai
          The same from inside the cluster";

#[derive(clap::Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Arguments {
    /// The object: lxctemplate/NAME or lxccontainer/NAME, or by their short names lxct and lxcc
    #[arg(value_name = "KIND/NAME", value_parser = object)]
    object: (KindName, String),

    /// Its namespace [default: that of the current context]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,

    /// Go on until the setup has ended
    #[arg(short, long)]
    follow: bool,

    /// The log of the attempt before the last one
    #[arg(short, long, conflicts_with = "follow")]
    previous: bool,

    /// Namespace of the operator, where the Secrets with Proxmox credentials are
    #[arg(long, env = "POD_NAMESPACE", default_value = NAMESPACE, value_name = "NAME")]
    operator_namespace: String,
}

fn object(text: &str) -> Result<(KindName, String), String> {
    let (kind, name) = text
        .split_once('/')
        .filter(|(_, name)| !name.is_empty())
        .ok_or("give kind and name, such as lxccontainer/portainer")?;
    let kind = match kind.to_ascii_lowercase().as_str() {
        "lxctemplate" | "lxctemplates" | "lxct" => KindName::LxcTemplate,
        "lxccontainer" | "lxccontainers" | "lxcc" => KindName::LxcContainer,
        _ => return Err("only an lxctemplate or an lxccontainer has a setup".to_owned()),
    };
    Ok((kind, name.to_owned()))
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let outcome = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?
        .block_on(show(arguments));
    match outcome {
        // Whoever reads has seen enough, as in `phoenix logs … | head`.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        outcome => outcome,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

async fn show(arguments: Arguments) -> anyhow::Result<()> {
    let kube = Client::try_default().await.context(
        "cannot connect to Kubernetes: neither a service account's files nor a usable KUBECONFIG is there",
    )?;
    let (kind, name) = arguments.object;
    let request = Request {
        kind,
        namespace: arguments
            .namespace
            .unwrap_or_else(|| kube.default_namespace().to_owned()),
        name,
        follow: arguments.follow,
        which: if arguments.previous {
            Which::Previous
        } else {
            Which::Last
        },
        operator_namespace: arguments.operator_namespace,
    };
    let stdout = io::stdout();
    let mut log = Harmless {
        wanted: stdout.is_terminal(),
        out: stdout,
        held: Vec::new(),
    };
    let mut out = Output {
        log: &mut log,
        notes: &mut io::stderr(),
    };
    print(&request, &kube, &mut out).await?;
    log.finish()?;
    Ok(())
}

/// What a container prints is no command to the terminal of whoever looks at it. Into a file or a pipe it goes as it is.
struct Harmless<W> {
    wanted: bool,
    out: W,
    /// Of a line that has not ended.
    held: Vec<u8>,
}

impl<W: Write> Harmless<W> {
    fn finish(&mut self) -> io::Result<()> {
        if !self.held.is_empty() {
            let rest = std::mem::take(&mut self.held);
            writeln!(self.out, "{}", printable(&rest))?;
        }
        self.out.flush()
    }
}

impl<W: Write> Write for Harmless<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.wanted {
            return self.out.write(bytes);
        }
        self.held.extend_from_slice(bytes);
        if let Some(end) = self.held.iter().rposition(|byte| *byte == b'\n') {
            let whole: Vec<u8> = self.held.drain(..=end).collect();
            self.out.write_all(printable(&whole).as_bytes())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_named_as_for_kubectl() {
        let named = |text| object(text).map(|(kind, name)| (kind.to_string(), name));
        let base = Ok(("LxcTemplate".to_owned(), "base".to_owned()));
        assert_eq!(named("lxctemplate/base"), base);
        assert_eq!(named("lxct/base"), base);
        assert_eq!(named("LxcTemplates/base"), base);
        assert_eq!(named("lxcc/web").unwrap().0, "LxcContainer");
        for wrong in ["base", "lxct/", "hypervisor/home"] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_terminal_is_shown_text_only() {
        let show = |wanted| {
            let mut shown = Harmless {
                wanted,
                out: Vec::new(),
                held: Vec::new(),
            };
            for piece in ["\x1b]0;ow", "ned\x07one\n 10%\r", "100%\ntwo"] {
                shown.write_all(piece.as_bytes()).unwrap();
            }
            shown.finish().unwrap();
            String::from_utf8(shown.out).unwrap()
        };
        assert_eq!(show(true), "one\n100%\ntwo\n");
        assert_eq!(show(false), "\x1b]0;owned\x07one\n 10%\r100%\ntwo");
    }
}
