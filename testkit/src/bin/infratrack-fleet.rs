//! `infratrack-fleet`: a simulated fleet against a collector on this machine, and the check of what it stored.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use infratrack_agent::clock::Clock;
use infratrack_collector::postgres::private_connect_options;
use infratrack_testkit::fleet::{Fleet, FleetConfig, Tokens};
use infratrack_testkit::ledger::{self, Ledger};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Deserialize;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tracing_subscriber::EnvFilter;

/// A simulated fleet of Infratrack agents; talks to loopback addresses only.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enrolls agents, lets them report for a while, says how it went
    Run(Box<Run>),
    /// Compares a ledger with the collector's tables; exits with 1 where they disagree
    Verify(Verify),
}

#[derive(Debug, Args)]
struct Run {
    /// The demo's `demo.json`; instead of the four options below
    #[arg(long, required_unless_present_all = ["agents", "enroll", "operators", "admin_token_file"])]
    demo_json: Option<PathBuf>,
    /// The agents' listener, `127.0.0.1:8443`
    #[arg(long)]
    agents: Option<String>,
    /// The enrollment listener, `127.0.0.1:8444`
    #[arg(long)]
    enroll: Option<String>,
    /// The operators' listener, `http://127.0.0.1:8080`
    #[arg(long)]
    operators: Option<String>,
    #[arg(long)]
    admin_token_file: Option<PathBuf>,
    #[arg(long, default_value_t = 10)]
    agents_count: usize,
    /// So many of them have a spool on disk
    #[arg(long, default_value_t = 0)]
    disk: usize,
    /// Between two heartbeats of an agent
    #[arg(long, default_value_t = 1000)]
    interval_ms: u64,
    /// Critical records with each heartbeat
    #[arg(long, default_value_t = 1)]
    events_per_beat: usize,
    /// What each of them carries beside its number
    #[arg(long, default_value_t = 0)]
    event_bytes: usize,
    /// Critical records in each spool before the start
    #[arg(long, default_value_t = 0)]
    backlog: usize,
    /// The most records in a batch
    #[arg(long, default_value_t = 500)]
    batch_records: usize,
    /// Between two batches of a backlog
    #[arg(long, default_value_t = 500)]
    pace_ms: u64,
    /// How long answers may be held
    #[arg(long, default_value_t = 0)]
    wait_ms: u64,
    /// The agents' waits after failures, times this
    #[arg(long, default_value_t = 1.0)]
    backoff_scale: f64,
    /// Handshakes at once; the collector takes 32 from one address
    #[arg(long, default_value_t = 16)]
    handshakes: usize,
    #[arg(long, default_value_t = 30)]
    duration_s: u64,
    /// For what is queued at the end
    #[arg(long, default_value_t = 10)]
    drain_s: u64,
    /// For the phases and values of heartbeats
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where identities and disk spools are kept for the next run; takes the same ledger
    #[arg(long, requires = "ledger")]
    state_dir: Option<PathBuf>,
    /// What was offered and acknowledged; appended to
    #[arg(long)]
    ledger: Option<PathBuf>,
    /// Milliseconds, in a file, that the hosts' wall clocks are ahead; looked at whenever they tell the time
    #[arg(long)]
    clock_file: Option<PathBuf>,
    /// The report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Verify {
    #[arg(long)]
    ledger: PathBuf,
    #[command(flatten)]
    database: Database,
    /// The verdict as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Database {
    /// The demo's `demo.json`, beside its private Postgres
    #[arg(long)]
    demo_json: Option<PathBuf>,
    /// The directory of a private Postgres' socket
    #[arg(long)]
    socket: Option<PathBuf>,
    #[arg(long = "database-url")]
    url: Option<String>,
}

/// What is used of `demo.json`.
#[derive(Debug, Deserialize)]
struct Demo {
    operator_url: String,
    agent_url: String,
    enroll_url: String,
    admin_token: String,
}

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _points = infratrack_agent::failpoint::set_up();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error.into()),
    };
    let done = runtime.block_on(async {
        match Cli::parse().command {
            Command::Run(arguments) => run(*arguments).await,
            Command::Verify(arguments) => verify(arguments).await,
        }
    });
    done.unwrap_or_else(|error| complain(&error))
}

async fn run(arguments: Run) -> anyhow::Result<ExitCode> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let (agents, enroll, tokens) = collector(&arguments)?;
    let config = FleetConfig {
        count: arguments.agents_count,
        disk: arguments.disk,
        interval: Duration::from_millis(arguments.interval_ms),
        events_per_beat: arguments.events_per_beat,
        event_bytes: arguments.event_bytes,
        backlog: arguments.backlog,
        batch_records: arguments.batch_records,
        pace: Duration::from_millis(arguments.pace_ms),
        wait: Duration::from_millis(arguments.wait_ms),
        backoff_scale: arguments.backoff_scale,
        handshakes: arguments.handshakes,
        drain: Duration::from_secs(arguments.drain_s),
        seed: arguments.seed,
        state_dir: arguments.state_dir,
        ledger: arguments.ledger,
        clock: arguments.clock_file.map_or_else(Clock::system, stepped),
        ..FleetConfig::new(agents, enroll, tokens)
    };
    let fleet = Fleet::start(config).await?;
    tracing::info!("the fleet is enrolled and runs");
    tokio::select! {
        () = tokio::time::sleep(Duration::from_secs(arguments.duration_s)) => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    let report = fleet.stop().await?;
    let ledger = &report.ledger;
    let missing_records = ledger.records.len() - ledger.acknowledged_records();
    let missing_beats = ledger.heartbeats.len() - ledger.acknowledged_heartbeats();
    if arguments.json {
        let mut json = serde_json::to_value(&report.stats)?;
        json["records_unacknowledged"] = missing_records.into();
        json["heartbeats_unacknowledged"] = missing_beats.into();
        json["peak_rss_bytes"] = peak_rss_bytes().into();
        print(&serde_json::to_string_pretty(&json)?);
    } else {
        print(&report.stats.to_string());
        print(&format!(
            "left over   {missing_records} records and {missing_beats} heartbeats unacknowledged"
        ));
        let rss = peak_rss_bytes().unwrap_or_default() >> 20;
        print(&format!("memory      {rss} MiB at its peak"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The system's clock, ahead by what the file says.
fn stepped(path: PathBuf) -> Clock {
    let system = Clock::system();
    Clock::from_fn(move || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        system
            .now()
            .plus_millis(text.trim().parse().unwrap_or_default())
    })
}

async fn verify(arguments: Verify) -> anyhow::Result<ExitCode> {
    let ledger = Ledger::read(&arguments.ledger)?;
    let options = connect_options(&arguments.database).await?;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await
        .context("cannot connect to the database")?;
    let verdict = ledger::verify(&pool, &ledger).await?;
    if arguments.json {
        print(&serde_json::to_string_pretty(&verdict)?);
    } else {
        print(&verdict.to_string());
    }
    Ok(if verdict.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The listeners, and who makes the tokens.
fn collector(arguments: &Run) -> anyhow::Result<(SocketAddr, SocketAddr, Tokens)> {
    let demo = arguments.demo_json.as_deref().map(read_demo).transpose()?;
    let pick = |option: &Option<String>, demo: Option<&String>| {
        let text = option.as_ref().or(demo);
        address(text.context("an address is missing")?)
    };
    let demo = demo.as_ref();
    let admin_token = match (&arguments.admin_token_file, demo) {
        (Some(path), _) => std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?,
        (None, Some(demo)) => demo.admin_token.clone(),
        (None, None) => anyhow::bail!("the admin token is missing"),
    };
    let tokens = Tokens::Api {
        operators: pick(&arguments.operators, demo.map(|demo| &demo.operator_url))?,
        admin_token,
    };
    let agents = pick(&arguments.agents, demo.map(|demo| &demo.agent_url))?;
    let enroll = pick(&arguments.enroll, demo.map(|demo| &demo.enroll_url))?;
    Ok((agents, enroll, tokens))
}

fn read_demo(path: &Path) -> anyhow::Result<Demo> {
    let cannot = || format!("cannot read {}", path.display());
    let text = std::fs::read_to_string(path).with_context(cannot)?;
    serde_json::from_str(&text).with_context(cannot)
}

/// The address of a URL without a path, or as it is.
fn address(text: &str) -> anyhow::Result<SocketAddr> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    rest.trim_end_matches('/')
        .parse()
        .with_context(|| format!("{text} has no address of the form 127.0.0.1:8443"))
}

async fn connect_options(database: &Database) -> anyhow::Result<PgConnectOptions> {
    match (&database.url, &database.socket, &database.demo_json) {
        (Some(url), _, _) => url.parse().context("the database URL is not valid"),
        (None, Some(socket), _) => Ok(PgConnectOptions::new_without_pgpass()
            .socket(socket)
            .username("infratrack")
            .database("infratrack")),
        (None, None, Some(demo)) => {
            let data_dir = demo.parent().context("demo.json is in no directory")?;
            Ok(private_connect_options(data_dir).await?)
        }
        (None, None, None) => anyhow::bail!("no database is named"),
    }
}

fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024)
}

#[expect(clippy::print_stderr, reason = "the command line's last words")]
fn complain(error: &anyhow::Error) -> ExitCode {
    eprintln!("infratrack-fleet: {error:#}");
    ExitCode::FAILURE
}

#[expect(clippy::print_stdout, reason = "what the command was asked for")]
fn print(text: &str) {
    println!("{text}");
}
