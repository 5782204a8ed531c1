//! `infratrack-agent`: reports this host to a collector.

mod cmd;

use std::process::ExitCode;

use clap::Parser;
use infratrack_agent::cli::{Cli, Command, Configuration};
use infratrack_agent::config::Config;
use infratrack_agent::{spool, updates};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Something in the configuration is wrong.
const BAD_CONFIG: u8 = 64;

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
        Command::CheckUpdates => {
            return ended(updates::main());
        }
        Command::Run
        | Command::Enroll(_)
        | Command::Status { .. }
        | Command::Facts
        | Command::Packages
        | Command::Config(_) => {}
    }
    let config = match Config::load(cli.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            cmd::complain(&anyhow::Error::from(error));
            return ExitCode::from(BAD_CONFIG);
        }
    };
    // Root's file may be root's alone.
    let opened = cmd::enroll::open_token(&cli.command);
    let own = |token| cmd::owner::become_owner(&config.state_dir).map(|()| token);
    let token = match opened.and_then(own) {
        Ok(token) => token,
        Err(error) => return ended(Err(error)),
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
                Command::Enroll(arguments) => cmd::enroll::run(config, arguments, token).await,
                Command::Status { json } => cmd::status::run(&config, json),
                Command::Config(Configuration::Show) => cmd::config::show(&config),
                Command::Facts => cmd::facts::run(&config).await,
                Command::Packages => cmd::packages::run(),
                Command::SpoolStore { .. } | Command::SpoolProbe { .. } | Command::CheckUpdates => {
                    Ok(())
                }
            }
        })
    });
    ended(done)
}

fn ended(done: anyhow::Result<()>) -> ExitCode {
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
