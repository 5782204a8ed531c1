//! `infratrack-collector`: takes what agents report, keeps it, shows it.

mod cmd;

use std::process::ExitCode;

use clap::Parser;
use infratrack_collector::cli::{Audit, Cli, Command, Configuration, LogFormat};
use infratrack_collector::config::Config;
use infratrack_collector::secret::SecretError;
use infratrack_collector::traces::{self, Traces};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

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
    let set_up = Config::load(cli.config.as_deref()).and_then(|config| {
        let traces = if matches!(cli.command, Command::Serve | Command::Demo(_)) {
            Traces::set_up(&config.telemetry)?
        } else {
            None
        };
        Ok((config, traces))
    });
    let (config, traces) = match set_up {
        Ok(set_up) => set_up,
        Err(error) => {
            cmd::complain(&error);
            return ExitCode::from(BAD_CONFIG);
        }
    };
    let is_demo = matches!(
        cli.command,
        Command::Demo(_)
            | Command::Sample {
                data_dir: Some(_),
                ..
            }
    );
    log(&cli, traces.as_ref());
    // A demo's directory may be in anybody's checkout.
    if !is_demo && let Err(error) = cmd::owner::become_owner(&config.data_dir) {
        cmd::complain(&error);
        return ExitCode::FAILURE;
    }
    let done = match cli.command {
        Command::Serve => Box::pin(cmd::serve::run(config)).await,
        Command::Demo(arguments) => Box::pin(cmd::demo::run(config, arguments)).await,
        Command::Sample { action, data_dir } => {
            Box::pin(cmd::sample::run(&config, &action, data_dir.as_deref())).await
        }
        Command::Migrate => cmd::migrate::run(&config).await,
        Command::Ca { action } => cmd::ca::run(&config, action).await,
        Command::Token(token) => cmd::token::run(&config, token).await,
        Command::User(action) => cmd::user::run(&config, action).await,
        Command::Audit(Audit::Verify { json }) => cmd::audit::verify(&config, json).await,
        Command::Host { id } => cmd::host::show(&config, id).await,
        Command::Config(Configuration::Show) => cmd::config::show(&config),
        Command::Doctor { json } => cmd::doctor::run(&config, json).await,
    };
    if let Some(traces) = traces {
        traces.stop().await;
    }
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cmd::complain(&error);
            // A secret that the configuration names and that can't be had.
            match error.downcast_ref::<SecretError>() {
                Some(_) => ExitCode::from(BAD_CONFIG),
                None => ExitCode::FAILURE,
            }
        }
    }
}

/// To standard error, and spans to where they go.
fn log(cli: &Cli, traces: Option<&Traces>) {
    let filter = EnvFilter::try_new(&cli.log).unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    let Some(traces) = traces else {
        let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr);
        return match cli.log_format {
            LogFormat::Text => lines.init(),
            LogFormat::Json => lines.json().flatten_event(true).init(),
        };
    };
    // Of a trace, its id stands in a line; the rest is for those who ask for the trace.
    let filter = filter.and(filter_fn(|metadata| metadata.target() != traces::TARGET));
    let spans = tracing_subscriber::registry().with(traces.layer());
    let lines = fmt::layer().with_writer(std::io::stderr);
    match cli.log_format {
        LogFormat::Text => spans.with(lines.with_filter(filter)).init(),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_span_list(false);
            spans.with(lines.with_filter(filter)).init();
        }
    }
}
