//! The command line of `phoenix`.
//!
//! It decides what commands there are, what they print and how the process ends. It leaves out all they do: each command is a
//! thin call into the module that does it, and no other module knows of this one.

mod controller;
mod crds;
mod logs;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Proxmox VE containers as Kubernetes objects: a hierarchy of templates, cloned into GPU, Docker and vLLM layers.
#[derive(Parser, Debug)]
#[command(name = "phoenix", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  phoenix crds | kubectl apply --server-side -f -
          Install the kinds that the operator works with
  phoenix controller
          Run the operator against the current kubectl context
  phoenix controller --leader-elect --log-format json
          Run it as one of several replicas, as the chart does
  phoenix logs lxctemplate/base-template -f
          Follow a setup as it runs";

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the operator
    Controller(Box<controller::Arguments>),
    /// Print the definitions of the kinds (CRDs), or write them as files
    Crds(crds::Arguments),
    /// Print the whole log of a setup
    Logs(logs::Arguments),
}

/// Reads the command line and does what it says. Errors go to stderr, with their causes; what is asked for to stdout.
pub fn main() -> ExitCode {
    main_from(std::env::args_os())
}

/// As [`main`], with the arguments given, the program's name first.
pub fn main_from<A: Into<std::ffi::OsString> + Clone>(
    arguments: impl IntoIterator<Item = A>,
) -> ExitCode {
    let outcome = match Cli::parse_from(arguments).command {
        Command::Controller(arguments) => controller::run(*arguments),
        Command::Crds(arguments) => crds::run(&arguments),
        Command::Logs(arguments) => logs::run(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not by tracing: logging may be what failed, and not every command logs.
            eprintln!("phoenix: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes in one line. Many libraries repeat the cause in their own text; said once is enough.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |mut said, cause| {
        let cause = cause.to_string();
        if !said.contains(&cause) {
            if !said.is_empty() {
                said.push_str(": ");
            }
            said.push_str(&cause);
        }
        said
    })
}

#[cfg(test)]
mod tests;
