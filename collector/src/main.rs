//! `infratrack-collector`: takes what agents report, keeps it, shows it.

mod cmd;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use infratrack_collector::config::Config;
use tracing_subscriber::EnvFilter;

/// With glibc's, a heartbeat takes the collector a tenth more CPU time: docs/benchmarks.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// sysexits.h: something in the configuration is wrong.
const EX_CONFIG: u8 = 64;

/// Takes what Infratrack's agents report, keeps it in Postgres, shows it to operators.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Configuration file [default: /etc/infratrack/collector.toml, where it exists]
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// What to log, as in `RUST_LOG`
    #[arg(
        long,
        global = true,
        env = "RUST_LOG",
        default_value = "info,sqlx=warn"
    )]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a collector; what systemd starts.
    Serve,
    /// Run a collector and an agent on this machine, in one directory.
    Demo(cmd::demo::Arguments),
    /// Bring the database to this release.
    Migrate,
    /// Show the certificate authority, or work on it.
    Ca {
        #[command(subcommand)]
        action: Option<cmd::ca::Action>,
    },
    /// Make a token; it is shown once.
    #[command(subcommand)]
    Token(cmd::token::Token),
    /// The configuration.
    #[command(subcommand)]
    Config(cmd::config::Configuration),
    /// Check the configuration against reality.
    Doctor,
}

#[tokio::main]
async fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _points = infratrack_collector::failpoint::set_up();
    let cli = Cli::parse();
    let filter = EnvFilter::try_new(&cli.log).unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let config = match Config::load(cli.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            cmd::complain(&error);
            return ExitCode::from(EX_CONFIG);
        }
    };
    let done = match cli.command {
        Command::Serve => cmd::serve::run(config).await,
        Command::Demo(arguments) => cmd::demo::run(config, arguments).await,
        Command::Migrate => cmd::migrate::run(&config).await,
        Command::Ca { action } => cmd::ca::run(&config, action).await,
        Command::Token(token) => cmd::token::run(&config, token).await,
        Command::Config(cmd::config::Configuration::Show) => cmd::config::show(&config),
        Command::Doctor => cmd::doctor::run(&config).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cmd::complain(&error);
            ExitCode::FAILURE
        }
    }
}
