//! `infratrack-agent`: reports this host to a collector.

mod cmd;

use std::process::ExitCode;

use clap::Parser;
use infratrack_agent::cli::{Backup, BackupCommand, Cli, Command, Configuration};
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
    if let Some(done) = without_configuration(&cli.command) {
        return done;
    }
    let config = match Config::load(cli.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            cmd::complain(&anyhow::Error::from(error));
            return ExitCode::from(BAD_CONFIG);
        }
    };
    if let Command::RunBackup = &cli.command {
        log_to_stderr(
            config
                .log
                .parse()
                .unwrap_or(Targets::new().with_default(LevelFilter::INFO)),
        );
        return cmd::backup::run_asked(&config);
    }
    if let Command::Backup(arguments) = &cli.command {
        // As whoever may read what is backed up.
        log_to_stderr(Targets::new().with_default(LevelFilter::WARN));
        return cmd::backup::run(&config, arguments);
    }
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
                Command::SpoolStore { .. }
                | Command::SpoolProbe { .. }
                | Command::Backup(_)
                | Command::RunBackup
                | Command::CheckUpdates => Ok(()),
            }
        })
    });
    ended(done)
}

/// What is done before there is a configuration: parts of the agent that it starts itself, and what any host can do.
fn without_configuration(command: &Command) -> Option<ExitCode> {
    match command {
        Command::SpoolStore { dir } => {
            log_to_stderr(Targets::new().with_default(LevelFilter::WARN));
            Some(spool::store_main(dir))
        }
        Command::SpoolProbe {
            dir,
            generation,
            salvage,
        } => Some(spool::probe_main(dir, *generation, *salvage)),
        Command::CheckUpdates => Some(ended(updates::main())),
        // On any host, whoever runs it: it needs no configuration.
        Command::Backup(
            arguments @ Backup {
                command: BackupCommand::Read(read),
                ..
            },
        ) if read.from().is_bucket() => {
            log_to_stderr(Targets::new().with_default(LevelFilter::INFO));
            Some(ended(cmd::backup_restore::run(None, arguments, read)))
        }
        Command::Run
        | Command::Enroll(_)
        | Command::Status { .. }
        | Command::Facts
        | Command::Packages
        | Command::Backup(_)
        | Command::RunBackup
        | Command::Config(_) => None,
    }
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
