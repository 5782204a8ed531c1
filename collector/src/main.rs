//! `infratrack-collector`: takes what agents report, keeps it, shows it.

mod cmd;

use std::process::ExitCode;

use clap::Parser;
use infratrack_collector::cli::{Cli, Command, Configuration, LogFormat};
use infratrack_collector::config::Config;
use tracing_subscriber::EnvFilter;

/// With glibc's, a heartbeat takes the collector a tenth more CPU time: docs/benchmarks.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Something in the configuration is wrong.
const BAD_CONFIG: u8 = 64;

#[tokio::main]
async fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _points = infratrack_collector::failpoint::set_up();
    let cli = Cli::parse();
    let filter = EnvFilter::try_new(&cli.log).unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match cli.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    let config = match Config::load(cli.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            cmd::complain(&error);
            return ExitCode::from(BAD_CONFIG);
        }
    };
    // A demo's directory may be in anybody's checkout.
    if !matches!(cli.command, Command::Demo(_))
        && let Err(error) = cmd::owner::become_owner(&config.data_dir)
    {
        cmd::complain(&error);
        return ExitCode::FAILURE;
    }
    let done = match cli.command {
        Command::Serve => cmd::serve::run(config).await,
        Command::Demo(arguments) => cmd::demo::run(config, arguments).await,
        Command::Migrate => cmd::migrate::run(&config).await,
        Command::Ca { action } => cmd::ca::run(&config, action).await,
        Command::Token(token) => cmd::token::run(&config, token).await,
        Command::User(action) => cmd::user::run(&config, action).await,
        Command::Host { id } => cmd::host::show(&config, id).await,
        Command::Config(Configuration::Show) => cmd::config::show(&config),
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
