//! `infratrack-bench`: measures ingest against its baselines, which run in turns with it, and the API over a loaded
//! fleet, its pages, and what inventories and changes cost. See `bench::ingest`, `bench::api`, `bench::ui`, `bench::packages`
//! and `bench::changes`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use infratrack_collector::clock::Clock;
use infratrack_testkit::bench::{api, changes, document, front, ingest, packages, report, ui};
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
    /// Measures the API over fleets with a past
    Api(Api),
    /// Measures pages, and the live stream, over a fleet
    Ui(Ui),
    /// Measures what inventories of packages cost, and questions about them
    Packages(Inventories),
    /// Measures what plans and plays cost, and questions about what changed
    Changes(Ledger),
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

#[derive(Debug, Args)]
struct Api {
    /// Hosts; with commas, one fleet after another
    #[arg(long, value_delimiter = ',', default_value = "10000,50000")]
    hosts: Vec<i32>,
    #[arg(long, default_value_t = 5_000_000)]
    heartbeats: i64,
    #[arg(long, default_value_t = 1_000_000)]
    events: i64,
    /// Requests of each question
    #[arg(long, default_value_t = 100)]
    requests: usize,
    /// The document whose section `api` is written; none: it is printed
    #[arg(long)]
    document: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Ui {
    #[arg(long, default_value_t = 10_000)]
    hosts: i32,
    /// Requests of each page
    #[arg(long, default_value_t = 100)]
    requests: usize,
    /// Clients of the live stream
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// How long they are measured; shorter ones are for development
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The document whose section `ui` is written; none: it is printed
    #[arg(long)]
    document: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Inventories {
    #[arg(long, default_value_t = 10_000)]
    hosts: usize,
    /// Packages of each host
    #[arg(long, default_value_t = 1000)]
    packages: usize,
    /// Requests of each question
    #[arg(long, default_value_t = 100)]
    requests: usize,
    /// The document whose section `packages` is written; none: it is printed
    #[arg(long)]
    document: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Ledger {
    /// What of it
    #[arg(long, value_delimiter = ',', default_value = "documents,plays,lists")]
    parts: Vec<Part>,
    /// Resource changes of the plan that is posted
    #[arg(long, default_value_t = 35_000)]
    plan: usize,
    /// Hosts that changes are loaded of
    #[arg(long, default_value_t = 2000)]
    hosts: i32,
    /// Changes that are loaded
    #[arg(long, default_value_t = 20_000)]
    changes: i32,
    /// Resource changes of the largest plan that is loaded
    #[arg(long, default_value_t = 100_000)]
    resources: i32,
    /// Results of tasks that are loaded, and that are posted
    #[arg(long, default_value_t = 1_000_000)]
    results: i32,
    /// Requests of each question
    #[arg(long, default_value_t = 100)]
    requests: usize,
    /// The document whose section `changes` is written; none: it is printed
    #[arg(long)]
    document: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// A large plan, and what is refused
    Documents,
    /// Records of plays
    Plays,
    /// Lists and pages over a year of changes
    Lists,
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
        Command::Api(arguments) => tokio::runtime::Runtime::new()?.block_on(measure_api(arguments)),
        Command::Packages(arguments) => {
            tokio::runtime::Runtime::new()?.block_on(measure_packages(arguments))
        }
        Command::Changes(arguments) => {
            tokio::runtime::Runtime::new()?.block_on(measure_changes(arguments))
        }
        Command::Ui(arguments) => tokio::runtime::Runtime::new()?.block_on(measure_ui(arguments)),
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

async fn measure_api(arguments: Api) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for hosts in arguments.hosts {
        let sample = api::sample::Sample {
            hosts,
            heartbeats: arguments.heartbeats,
            events: arguments.events,
        };
        let options = api::Options {
            sample,
            requests: arguments.requests,
        };
        all.push(api::run(options, say).await?);
    }
    let date = Clock::system().now().date().to_string();
    let command: Vec<String> = std::env::args().skip(1).collect();
    let command = format!("infratrack-bench {}", command.join(" "));
    let text = api::report::text(&all, &date, &command)?;
    print(&text);
    if let Some(path) = arguments.document {
        document::write_section(&path, "api", &text)?;
    }
    Ok(())
}

async fn measure_ui(arguments: Ui) -> anyhow::Result<()> {
    let options = ui::Options {
        hosts: arguments.hosts,
        requests: arguments.requests,
        clients: arguments.clients,
        lasts: Duration::from_secs(arguments.seconds),
    };
    let results = ui::run(options, say).await?;
    let date = Clock::system().now().date().to_string();
    let command: Vec<String> = std::env::args().skip(1).collect();
    let command = format!("infratrack-bench {}", command.join(" "));
    let text = ui::report::text(&results, &date, &command)?;
    print(&text);
    if let Some(path) = arguments.document {
        document::write_section(&path, "ui", &text)?;
    }
    Ok(())
}

async fn measure_packages(arguments: Inventories) -> anyhow::Result<()> {
    let options = packages::Options {
        hosts: arguments.hosts,
        packages: arguments.packages,
        requests: arguments.requests,
    };
    let results = packages::run(options, say).await?;
    let date = Clock::system().now().date().to_string();
    let command: Vec<String> = std::env::args().skip(1).collect();
    let command = format!("infratrack-bench {}", command.join(" "));
    let text = packages::report::text(&results, &date, &command)?;
    print(&text);
    if let Some(path) = arguments.document {
        document::write_section(&path, "packages", &text)?;
    }
    Ok(())
}

async fn measure_changes(arguments: Ledger) -> anyhow::Result<()> {
    let has = |part| arguments.parts.contains(&part);
    let options = changes::Options {
        plan: arguments.plan,
        results: usize::try_from(arguments.results)?,
        past: changes::sample::Past {
            hosts: arguments.hosts,
            changes: arguments.changes,
            resources: arguments.resources,
            results: arguments.results,
        },
        requests: arguments.requests,
        parts: changes::Parts {
            documents: has(Part::Documents),
            lists: has(Part::Lists),
            plays: has(Part::Plays),
        },
    };
    let results = changes::run(options, say).await?;
    let date = Clock::system().now().date().to_string();
    let command: Vec<String> = std::env::args().skip(1).collect();
    let command = format!("infratrack-bench {}", command.join(" "));
    let text = changes::report::text(&results, &date, &command)?;
    print(&text);
    if let Some(path) = arguments.document {
        document::write_section(&path, "changes", &text)?;
    }
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
