//! `proxmox-simulator`: a simulated Proxmox VE for anyone who tests a client of it.

mod cli;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use proxmox_simulator::{
    HostShape, Simulator, SimulatorConfig, Timing,
    guest::{GuestSettings, GuestTiming},
    schema::reduce,
};

#[derive(Parser)]
#[command(
    version,
    about = "A simulated Proxmox VE: the container API over HTTPS on 127.0.0.1"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until interrupted; prints the address and the credentials.
    Serve {
        /// The API's port; one that is free by default.
        #[arg(long)]
        port: Option<u16>,
        /// How fast simulated time runs.
        #[arg(long, value_enum, default_value_t = Speed::Tenth)]
        speed: Speed,
        /// Which installation is there at the start.
        #[arg(long, value_enum, default_value_t = Host::Phoenix)]
        host: Host,
        /// Containers have a state but nothing runs in them.
        #[arg(long)]
        no_guests: bool,
    },
    /// Make a running simulator fail.
    Fault(cli::FaultArgs),
    /// Reduce a published API description to what this simulator checks; prints `schema.json`.
    ReduceSchema {
        /// The description: a JSON object of paths.
        file: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Host {
    /// The host that the Phoenix systems are made for.
    Phoenix,
    /// The Phoenix host with Proxmox VE 8.4.
    #[value(name = "phoenix-8.4")]
    Phoenix84,
    /// The host on which a real Proxmox VE was recorded.
    Recorded,
}

#[derive(Clone, Copy, ValueEnum)]
enum Speed {
    /// Tasks end at once.
    Instant,
    /// A tenth of a real host's times.
    Tenth,
    /// A real host's times.
    Real,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    match run(Cli::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "it is what the program is asked for")]
async fn run(command: Command) -> Result<()> {
    match command {
        Command::Fault(args) => println!("{}", cli::run(args).await?),
        Command::ReduceSchema { file } => {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("reading {}", file.display()))?;
            print!("{}", reduce::reduce(&text)?);
        }
        Command::Serve {
            port,
            speed,
            host,
            no_guests,
        } => {
            let host = match host {
                Host::Phoenix => HostShape::phoenix(),
                Host::Phoenix84 => HostShape::phoenix_8_4(),
                Host::Recorded => HostShape::recorded(),
            };
            let timing = match speed {
                Speed::Instant => Timing::instant(),
                Speed::Tenth => Timing::tenth_of_real(),
                Speed::Real => Timing::real(),
            };
            let guest_timing = match speed {
                Speed::Instant => GuestTiming::default(),
                Speed::Tenth | Speed::Real => GuestTiming::tenth_of_real(),
            };
            let guests = (!no_guests).then_some(GuestSettings {
                timing: guest_timing,
            });
            let simulator = Simulator::start(SimulatorConfig {
                port,
                timing,
                guests,
                host,
            })
            .await?;
            println!("API          {}", simulator.url());
            println!("admin        {}", simulator.admin_url());
            println!(
                "guest proxy  {}",
                simulator
                    .guest_proxy_url()
                    .unwrap_or_else(|| "none".to_owned())
            );
            println!("fingerprint  {}", simulator.fingerprint());
            for known in simulator.credentials() {
                println!("credentials  {}={}", known.id, known.secret);
            }
            tokio::signal::ctrl_c()
                .await
                .context("waiting for the end")?;
            simulator.stop().await;
        }
    }
    Ok(())
}
