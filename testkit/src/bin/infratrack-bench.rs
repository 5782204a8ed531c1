//! `infratrack-bench`: measures ingest against its baselines, which run in turns with it. See `bench::ingest`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use infratrack_collector::clock::Clock;
use infratrack_testkit::bench::{document, front, ingest, report};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures a collector against the bare front end and the raw loader
    Ingest(Ingest),
    /// The bare front end
    #[command(hide = true)]
    Front {
        #[arg(long)]
        ca_dir: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Ingest {
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long a run is measured; shorter ones are for development
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Hosts that report
    #[arg(long, default_value_t = 10_000)]
    hosts: usize,
    /// Requests under way at once
    #[arg(long, default_value_t = 4096)]
    in_flight: usize,
    /// Hosts at which the growth of the cost is measured
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000")]
    growth: Vec<usize>,
    /// Without the growth of the cost
    #[arg(long)]
    no_growth: bool,
    /// The document whose section `ingest` is written; none: it is printed
    #[arg(long)]
    document: Option<PathBuf>,
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("infratrack-bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    match Cli::parse().command {
        // As many threads as the collector has.
        Command::Front { ca_dir } => tokio::runtime::Runtime::new()?
            .block_on(front::serve(&ca_dir, |address| print(&address.to_string()))),
        // The generator is one thread: what it takes is not spent on handing work around.
        Command::Ingest(arguments) => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(ingest(arguments)),
    }
}

async fn ingest(arguments: Ingest) -> anyhow::Result<()> {
    let options = ingest::Options {
        rounds: arguments.rounds,
        lasts: Duration::from_secs_f64(arguments.seconds),
        hosts: arguments.hosts,
        in_flight: arguments.in_flight,
        growth: if arguments.no_growth {
            Vec::new()
        } else {
            arguments.growth
        },
    };
    let results = ingest::run(options, say).await?;
    let date = Clock::system().now().date().to_string();
    let command: Vec<String> = std::env::args().skip(1).collect();
    let text = report::text(
        &results,
        &date,
        &format!("infratrack-bench {}", command.join(" ")),
    );
    if let Some(path) = arguments.document {
        return document::write_section(&path, "ingest", &text);
    }
    print(&text);
    Ok(())
}

#[expect(clippy::print_stderr, reason = "how the measurement goes")]
fn say(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stdout, reason = "what the command was asked for")]
fn print(text: &str) {
    println!("{text}");
}
