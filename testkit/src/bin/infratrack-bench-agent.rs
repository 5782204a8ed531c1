//! `infratrack-bench-agent`: the agent on this machine beside its peers, in one run (`bench::agent`).
//!
//! Starts a collector with an agent, `node_exporter` and `zabbix_agentd`, all of its own, watches them while they
//! idle, then takes facts in turns with facter and ansible; what inventories and checks for updates take; and backups, in
//! turns with restic. Writes what it
//! found into `docs/benchmarks.md`. Fails where a goal is missed. Called by `make bench`, and by `make soak` for an hour.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use clap::{Parser, ValueEnum};
use infratrack_collector::clock::Clock;
use infratrack_testkit::backlog::Lived;
use infratrack_testkit::bench::agent::inventory::Databases;
use infratrack_testkit::bench::agent::peers::{
    NODE_EXPORTER, NodeExporter, POLL, SCRAPE, ZABBIX_AGENTD, ZabbixAgentd, stop,
};
use infratrack_testkit::bench::agent::report::{self, Daemon, Results};
use infratrack_testkit::bench::agent::taking::{self, Taking};
use infratrack_testkit::bench::agent::{alone, backups, checks, facts, inventory};
use infratrack_testkit::bench::{document, machine};
use infratrack_testkit::process::Process;
use infratrack_testkit::s3::S3;
use tokio::time::{Instant, Interval, interval, sleep};

/// Caches are filled, and the agent's store has had its minute of idleness.
const WARM_UP: Duration = Duration::from_secs(90);
const START: Duration = Duration::from_secs(60);
const ROUNDS: usize = 5;

/// Each has a section of its own in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Idle daemons, facts, the soak
    Daemons,
    /// Inventories and checks for updates
    Packages,
    /// Backups and restores
    Backups,
}

#[derive(Debug, Parser)]
struct Arguments {
    /// What is measured; all of it where nothing is said
    #[arg(long)]
    part: Option<Part>,
    /// How long to watch the idle daemons
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// As --seconds 3600
    #[arg(long, conflicts_with = "seconds")]
    hour: bool,
    /// Heartbeats of the soak in fast time
    #[arg(long, default_value_t = 100_000)]
    heartbeats: u64,
    /// Rounds of backups
    #[arg(long, default_value_t = 3)]
    backups: u64,
    /// What is backed up, in MiB
    #[arg(long, default_value_t = 1024)]
    corpus: u64,
    /// The agent as it is shipped
    #[arg(long, default_value = "target/agent/infratrack-agent")]
    agent: PathBuf,
    #[arg(long, default_value = "target/release/infratrack-collector")]
    collector: PathBuf,
    /// Takes the results in its sections `agent`, `agent-packages` and `agent-backups`
    #[arg(long, default_value = "docs/benchmarks.md")]
    document: PathBuf,
    /// A program that this process runs, to say what it took
    #[arg(last = true, hide = true)]
    alone: Vec<OsString>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if !arguments.alone.is_empty() {
        let cost = alone::run_here(&arguments.alone)?;
        say(&serde_json::to_string(&cost)?);
        return Ok(ExitCode::SUCCESS);
    }
    let is_asked = |part| arguments.part.is_none_or(|one| one == part);
    let mut missed = false;
    if is_asked(Part::Packages) {
        packages(&arguments).await?;
    }
    if is_asked(Part::Backups) {
        missed |= backups(&arguments).await?;
    }
    if is_asked(Part::Daemons) {
        missed |= daemons(&arguments).await?;
    }
    Ok(ExitCode::from(u8::from(missed)))
}

/// Answers whether a goal is missed.
async fn daemons(arguments: &Arguments) -> anyhow::Result<bool> {
    let work = tempfile::Builder::new().prefix("bench-agent").tempdir()?;
    readable_by_postgres(work.path())?;
    let results = measure(arguments, work.path()).await?;
    let text = report::text(&results);
    say(&text);
    document::write_section(&arguments.document, "agent", &text)?;
    let goals = report::goals(&results);
    let mut goals = goals.iter();
    Ok(goals.any(|goal| !goal.is_moonshot && !goal.holds()))
}

async fn packages(arguments: &Arguments) -> anyhow::Result<()> {
    let work = tempfile::Builder::new().prefix("bench-agent").tempdir()?;
    let work = work.path();
    readable_by_postgres(work)?;
    say("asking for updates, in turns with apt");
    let checks = checks::measure(&arguments.agent, work, ROUNDS).await?;
    let databases = Databases::make(work)?;
    let mut demo = demo(arguments, work)?;
    demo = databases.around(&demo);
    let demo = Process::start(&mut demo, &work.join("demo.log"), Stdio::null())?;
    say("taking inventories");
    let taken = match agent_of(work).await {
        Ok(agent) => inventory::measure(&databases, &work.join("demo"), agent, ROUNDS).await,
        Err(error) => Err(error),
    };
    stop(demo).await?;
    let taking = Taking {
        date: Clock::system().now().date().to_string(),
        machine: machine::describe()?,
        command: std::env::args().collect::<Vec<_>>().join(" "),
        rounds: ROUNDS,
        inventories: taken?,
        checks,
    };
    let text = taking::text(&taking);
    say(&text);
    document::write_section(&arguments.document, "agent-packages", &text)
}

/// Answers whether a goal is missed.
async fn backups(arguments: &Arguments) -> anyhow::Result<bool> {
    let work = tempfile::Builder::new().prefix("bench-agent").tempdir()?;
    let work = work.path();
    readable_by_postgres(work)?;
    // Its work is not the measuring process's.
    let runtime = tokio::runtime::Runtime::new()?;
    let s3 = runtime.spawn(S3::start()).await??;
    for bucket in [backups::BUCKET, backups::RESTIC] {
        s3.bucket(bucket)?;
    }
    let mut demo = demo(arguments, work)?;
    let config = work.join("collector.toml");
    fs::write(&config, backups::collector_config(&s3))?;
    demo.arg("--config").arg(&config);
    demo.envs(s3.environment());
    let demo = Process::start(&mut demo, &work.join("demo.log"), Stdio::null())?;
    let setting = backups::Setting {
        agent: &arguments.agent,
        demo: &work.join("demo"),
        collector: demo.pid(),
        work,
        s3: &s3,
        rounds: arguments.backups,
        mib: arguments.corpus,
    };
    let measured = match agent_of(work).await {
        Ok(_) => backups::measure(&setting, say).await,
        Err(error) => Err(error),
    };
    stop(demo).await?;
    drop(s3);
    runtime.shutdown_background();
    let results = measured?;
    let date = Clock::system().now().date().to_string();
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    let text = backups::report::text(&results, &date, &machine::describe()?, &command);
    say(&text);
    document::write_section(&arguments.document, "agent-backups", &text)?;
    let goals = backups::report::goals(&results);
    Ok(!goals.iter().all(backups::report::Goal::holds))
}

async fn measure(arguments: &Arguments, work: &Path) -> anyhow::Result<Results> {
    let over = Duration::from_secs(if arguments.hour {
        3600
    } else {
        arguments.seconds
    });
    let mut demo = demo(arguments, work)?;
    let demo = Process::start(&mut demo, &work.join("demo.log"), Stdio::null())?;
    let watched = match agent_of(work).await {
        Ok(agent) => watch(agent, over, work).await,
        Err(error) => Err(error),
    };
    stop(demo).await?;
    let [mut agent, mut exporter, mut zabbix] = <[Daemon; 3]>::try_from(watched?)
        .map_err(|daemons| anyhow!("{} daemons were watched", daemons.len()))?;
    agent.binary_bytes = fs::metadata(&arguments.agent)?.len();
    exporter.binary_bytes = installed_bytes(NODE_EXPORTER)?;
    zabbix.binary_bytes = installed_bytes(ZABBIX_AGENTD)?;
    say("taking facts, in turns with facter and ansible");
    let facts = facts::measure(&arguments.agent, work, ROUNDS)?;
    say("the soak in fast time");
    let lived = live(&work.join("soak"), arguments.heartbeats)?;
    Ok(Results {
        date: Clock::system().now().date().to_string(),
        machine: machine::describe()?,
        command: std::env::args().collect::<Vec<_>>().join(" "),
        agent,
        exporter,
        zabbix,
        facts,
        lived,
    })
}

/// A collector with its database, and the agent in the profile it is shipped in, beside each other in `bin`.
fn demo(arguments: &Arguments, work: &Path) -> anyhow::Result<Command> {
    let bin = work.join("bin");
    fs::create_dir(&bin)?;
    for program in [&arguments.agent, &arguments.collector] {
        let name = program.file_name().context("a program has a name")?;
        fs::copy(program, bin.join(name))
            .with_context(|| format!("cannot copy {}", program.display()))?;
    }
    let anywhere = "127.0.0.1:0";
    let mut demo = Command::new(bin.join("infratrack-collector"));
    demo.args(["--log", "warn", "demo", "--operator-listen", anywhere])
        .args(["--agent-listen", anywhere, "--enroll-listen", anywhere])
        .arg("--data-dir")
        .arg(work.join("demo"));
    Ok(demo)
}

/// The process of the demo's agent.
async fn agent_of(work: &Path) -> anyhow::Result<u32> {
    let noted = work.join("demo/agent/agent.pid");
    let deadline = Instant::now() + START;
    loop {
        if let Ok(pid) = fs::read_to_string(&noted).unwrap_or_default().parse() {
            return Ok(pid);
        }
        ensure!(
            Instant::now() < deadline,
            "the demo has no agent: {}",
            fs::read_to_string(work.join("demo.log")).unwrap_or_default()
        );
        sleep(Duration::from_millis(100)).await;
    }
}

/// The agent, `node_exporter` and `zabbix_agentd`, asked as their servers would for `over`.
async fn watch(agent: u32, over: Duration, work: &Path) -> anyhow::Result<Vec<Daemon>> {
    let mut exporter = NodeExporter::start(work).await?;
    let zabbix = ZabbixAgentd::start(work).await?;
    let watched = watch_all(agent, &mut exporter, &zabbix, over).await;
    stop(exporter.process).await?;
    stop(zabbix.process).await?;
    watched
}

async fn watch_all(
    agent: u32,
    exporter: &mut NodeExporter,
    zabbix: &ZabbixAgentd,
    over: Duration,
) -> anyhow::Result<Vec<Daemon>> {
    let pids = [
        ("infratrack-agent", agent),
        ("node_exporter", exporter.process.pid()),
        ("zabbix_agentd", zabbix.process.pid()),
    ];
    let mut servers = Servers {
        exporter,
        zabbix,
        scrapes: interval(SCRAPE),
        polls: interval(POLL),
    };
    say(&format!("warming up for {} s", WARM_UP.as_secs()));
    let begun = Instant::now();
    while begun.elapsed() < WARM_UP {
        servers.ask().await?;
    }
    say(&format!("watching for {} s", over.as_secs()));
    let begun = Instant::now();
    let first = pids.map(|(name, pid)| Daemon::first(name, pid));
    let mut daemons = first.into_iter().collect::<Result<Vec<_>, _>>()?;
    while begun.elapsed() < over {
        servers.ask().await?;
        for daemon in &mut daemons {
            daemon.look(begun.elapsed())?;
        }
    }
    Ok(daemons)
}

/// Prometheus and a Zabbix server, as far as their agents see of them.
struct Servers<'a> {
    exporter: &'a mut NodeExporter,
    zabbix: &'a ZabbixAgentd,
    scrapes: Interval,
    polls: Interval,
}

impl Servers<'_> {
    /// Waits until either has to ask, and asks.
    async fn ask(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            _ = self.scrapes.tick() => self.exporter.scrape().map(drop),
            _ = self.polls.tick() => self.zabbix.poll().map(drop),
        }
    }
}

/// The soak of `backlog::live`, in a process whose memory is its own.
fn live(dir: &Path, heartbeats: u64) -> anyhow::Result<Lived> {
    let program = std::env::current_exe()?.with_file_name("infratrack-spool-workload");
    let output = Command::new(&program)
        .arg("live")
        .arg(dir)
        .arg("--heartbeats")
        .arg(heartbeats.to_string())
        .env("MALLOC_ARENA_MAX", "1")
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(output.status.success(), "the soak failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The size of a program in the path.
fn installed_bytes(program: &str) -> anyhow::Result<u64> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = places
        .map(|place| place.join(program))
        .find(|file| file.is_file());
    let found = found.with_context(|| format!("{program} is not installed"))?;
    Ok(fs::metadata(found)?.len())
}

/// The demo's Postgres runs as another user.
fn readable_by_postgres(dir: &Path) -> anyhow::Result<()> {
    Ok(fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?)
}

#[expect(clippy::print_stdout, reason = "the result")]
fn say(line: &str) {
    println!("{line}");
}
