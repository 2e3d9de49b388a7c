//! What the command line understands and says.

use clap::{CommandFactory, Parser};

use super::{Cli, Command, sentence};

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_of_the_examples_is_understood() {
    let mut commands = 0;
    let mut texts = vec![Cli::command()];
    texts.extend(Cli::command().get_subcommands().cloned());
    for command in texts {
        let help = command.get_after_help().expect("examples").to_string();
        for line in help.lines().map(str::trim_start) {
            let Some(arguments) = line.strip_prefix("phoenix ") else {
                continue;
            };
            let arguments = arguments.split(" | ").next().expect("a first part");
            let words = std::iter::once("phoenix").chain(arguments.split_whitespace());
            let parsed =
                Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            if let Command::Controller(controller) = parsed.command {
                controller.into_settings().checked().expect(line);
            }
            commands += 1;
        }
    }
    assert!(commands >= 6, "only {commands} examples were found");
}

#[test]
fn help_names_flags_variables_and_defaults() {
    let help = Cli::command()
        .find_subcommand_mut("controller")
        .expect("there")
        .render_long_help()
        .to_string();
    for part in [
        "--namespace",
        "[env: POD_NAMESPACE",
        "[default: phoenix-system]",
        "--leader-elect",
        "--hypervisor-selector",
        "--watch-namespaces",
        "[default: 0.0.0.0:8080]",
        "[default: 0.0.0.0:8081]",
        "[default: 10m]",
        "RUST_LOG",
    ] {
        assert!(help.contains(part), "{part} is missing in\n{help}");
    }
}

#[test]
fn a_command_is_needed_and_the_version_is_known() {
    assert!(Cli::try_parse_from(["phoenix"]).is_err());
    let version = Cli::try_parse_from(["phoenix", "--version"])
        .expect_err("printed instead")
        .to_string();
    assert_eq!(
        version.trim(),
        format!("phoenix {}", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn an_error_says_each_cause_once() {
    let cause = anyhow::anyhow!("no such file");
    let repeating = cause.context("cannot read config: no such file");
    let error = repeating.context("cannot connect");
    assert_eq!(
        sentence(&error),
        "cannot connect: cannot read config: no such file"
    );
    let plain = anyhow::anyhow!("disk full").context("cannot write");
    assert_eq!(sentence(&plain), "cannot write: disk full");
}
