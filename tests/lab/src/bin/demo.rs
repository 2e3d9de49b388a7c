//! `cargo demo`: see [`phoenix_lab::demo`].

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    if let Some(ended) = phoenix_lab::operator::become_operator() {
        return ended;
    }
    let options = phoenix_lab::demo::Options::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("demo: no async runtime: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(phoenix_lab::demo::run(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("demo: {e:#}");
            ExitCode::FAILURE
        }
    }
}
