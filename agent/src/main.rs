//! `infratrack-agent`: reports this host to a collector.

mod cmd;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use infratrack_agent::config::Config;
use infratrack_agent::spool;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// sysexits.h: something in the configuration is wrong.
const EX_CONFIG: u8 = 64;

/// Reports this host to an Infratrack collector.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Configuration file [default: /etc/infratrack/agent.toml, where it exists]
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent; what systemd starts.
    Run,
    /// Give this host its identity, with a token from the collector.
    Enroll(cmd::enroll::Arguments),
    /// Say who this host is to the collector and until when.
    Status,
    /// Print the facts this host would report, as JSON.
    Facts,
    /// Keep a spool's records in a process of its own.
    #[command(hide = true)]
    SpoolStore { dir: PathBuf },
    /// Check a spool in a process of its own.
    #[command(hide = true)]
    SpoolProbe {
        dir: PathBuf,
        generation: u64,
        #[arg(long)]
        salvage: bool,
    },
}

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _points = infratrack_agent::failpoint::set_up();
    let cli = Cli::parse();
    match &cli.command {
        Command::SpoolStore { dir } => {
            log_to_stderr(Targets::new().with_default(LevelFilter::WARN));
            return spool::store_main(dir);
        }
        Command::SpoolProbe {
            dir,
            generation,
            salvage,
        } => return spool::probe_main(dir, *generation, *salvage),
        Command::Run | Command::Enroll(_) | Command::Status | Command::Facts => {}
    }
    let config = match Config::load(cli.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            cmd::complain(&anyhow::Error::from(error));
            return ExitCode::from(EX_CONFIG);
        }
    };
    let info = Targets::new().with_default(LevelFilter::INFO);
    log_to_stderr(config.log.parse().unwrap_or(info));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            match cli.command {
                Command::Run => cmd::run::run(config).await,
                Command::Enroll(arguments) => cmd::enroll::run(config, arguments).await,
                Command::Status => cmd::status::run(&config),
                Command::Facts => cmd::facts::run(&config).await,
                Command::SpoolStore { .. } | Command::SpoolProbe { .. } => Ok(()),
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cmd::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn log_to_stderr(filter: Targets) {
    // journald has its own clock.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .without_time();
    tracing_subscriber::registry()
        .with(lines)
        .with(filter)
        .init();
}
