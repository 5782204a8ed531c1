//! Backups and restores of the same files by the agent, through a collector, and by restic, to the same server of S3's
//! protocol, in turns; and what the collector and the heartbeats of other hosts have of it meanwhile.

pub mod corpus;
pub mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use infratrack_collector::postgres;
use nix::unistd::sync;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use super::super::api::Client;
use super::super::beats::{Beats, Took};
use super::super::cpu;
use super::super::members::Registry;
use super::alone::{self, Cost};
use super::usage;
use crate::s3::S3;
use corpus::Size;

/// Where the collector's packs go, and restic's.
pub const BUCKET: &str = "infratrack";
pub const RESTIC: &str = "restic";
/// For whom keys are wrapped: nobody has these.
const RECIPIENTS: [&str; 2] = [
    "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
    "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg",
];
/// Hosts that beat meanwhile, once in this many seconds.
const BEATING: u16 = 300;
const INTERVAL_S: f64 = 3.0;
const QUIET: Duration = Duration::from_secs(15);

/// What is done in each round, in this order.
pub const PHASES: [Phase; 4] = [
    Phase::First,
    Phase::Unchanged,
    Phase::Changed,
    Phase::Restore,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    First,
    Unchanged,
    /// After about 1 % of it changed.
    Changed,
    Restore,
}

/// What one tool did in one phase of one round.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    pub cost: Cost,
    /// By which the bucket grew.
    pub stored: u64,
}

/// Both tools in one phase of one round.
#[derive(Clone, Copy, Debug)]
pub struct Both {
    pub phase: Phase,
    pub ours: Done,
    pub restic: Done,
    /// Of the collector, for ours.
    pub collector: Collector,
}

/// What the collector took for a phase.
#[derive(Clone, Copy, Debug)]
pub struct Collector {
    pub cpu: Duration,
    /// Its most memory, above what it had before.
    pub grew_bytes: u64,
}

/// Everything that was measured.
#[derive(Debug)]
pub struct Results {
    pub size: Size,
    pub changed: u64,
    pub rounds: u64,
    pub all: Vec<Both>,
    /// Heartbeats of other hosts before, and meanwhile.
    pub quiet: Took,
    pub meanwhile: Took,
    pub restic_version: String,
}

/// The programs, and where they work.
#[derive(Debug)]
pub struct Setting<'a> {
    pub agent: &'a Path,
    /// The folder of the demo, and its collector's process.
    pub demo: &'a Path,
    pub collector: u32,
    pub work: &'a Path,
    pub s3: &'a S3,
    pub rounds: u64,
    /// Of the corpus.
    pub mib: u64,
}

/// Measures all of it.
pub async fn measure(setting: &Setting<'_>, say: impl Fn(&str)) -> anyhow::Result<Results> {
    let root = setting.work.join("corpus");
    let size = corpus::make(&root, setting.mib)?;
    say(&format!("{} files, {} MiB", size.files, size.bytes >> 20));
    allow(setting, &root)?;
    let beats = beats(setting).await?;
    tokio::time::sleep(QUIET).await;
    let quiet = beats.take();
    let (mut all, mut changed) = (Vec::new(), 0);
    for round in 0..setting.rounds {
        let name = volume(setting, &root, round).await?;
        let restic = Restic::new(setting, round)?;
        run(restic.command(&["init", "--repository-version", "2"])).await?;
        for phase in PHASES {
            if phase == Phase::Changed {
                changed = corpus::mutate(&root, round)?;
            }
            let both = both(setting, &root, &name, &restic, phase, round).await?;
            say(&format!("round {round}: {both:?}"));
            all.push(both);
        }
    }
    let meanwhile = beats.take();
    beats.stop()?;
    let version = Command::new("restic").arg("version").output()?;
    Ok(Results {
        size,
        changed,
        rounds: setting.rounds,
        all,
        quiet,
        meanwhile,
        restic_version: String::from_utf8_lossy(&version.stdout).trim().to_owned(),
    })
}

/// What the collector is told about the bucket, in its configuration.
pub fn collector_config(s3: &S3) -> String {
    let address = s3.address();
    format!(
        "[s3]\nbucket = \"{BUCKET}\"\nregion = \"us-east-1\"\nendpoint = \"http://{address}\"\n"
    )
}

/// `backup.toml`.
fn allow(setting: &Setting<'_>, root: &Path) -> anyhow::Result<()> {
    let [first, second] = RECIPIENTS;
    let root = root.display();
    let text = format!("recipients = [\"{first}\", \"{second}\"]\nallowed_paths = [\"{root}\"]\n");
    Ok(fs::write(setting.work.join("backup.toml"), text)?)
}

async fn client(demo: &Path) -> anyhow::Result<Client> {
    let manifest = manifest(demo)?;
    let address = text(&manifest, "operator_url")?;
    let address = address.trim_start_matches("http://").trim_end_matches('/');
    Client::connect(address.parse()?, text(&manifest, "admin_token")?.to_owned()).await
}

fn manifest(demo: &Path) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice(&fs::read(demo.join("demo.json"))?)?)
}

fn text<'a>(manifest: &'a Value, name: &str) -> anyhow::Result<&'a str> {
    let value = manifest.get(name).and_then(Value::as_str);
    value.with_context(|| format!("demo.json has no {name}"))
}

/// Heartbeats of other hosts at the demo's collector.
async fn beats(setting: &Setting<'_>) -> anyhow::Result<Beats> {
    let registry = Arc::new(Registry::open(&setting.demo.join("ca"))?);
    let options = postgres::private_connect_options(setting.demo).await?;
    let mut database = PgConnection::connect_with(&options).await?;
    let mut members = Vec::new();
    registry
        .grow(&mut members, BEATING.into(), &mut [&mut database])
        .await?;
    database.close().await?;
    let manifest = manifest(setting.demo)?;
    let address = text(&manifest, "agent_url")?.trim_start_matches("https://");
    let rate = f64::from(BEATING) / INTERVAL_S;
    Beats::start(address.parse()?, &registry, members, rate)
}

/// A volume of its own, so that its first backup finds nothing.
async fn volume(setting: &Setting<'_>, root: &Path, round: u64) -> anyhow::Result<String> {
    let manifest = manifest(setting.demo)?;
    let (host, name) = (text(&manifest, "agent_host_id")?, format!("round-{round}"));
    let wanted = json!({"host_id": host, "name": name, "source": {"files": {"paths": [root]}}});
    // One that was idle for a round may be closed.
    let mut client = client(setting.demo).await?;
    client.create("/api/v1/volumes", &wanted).await?;
    Ok(name)
}

async fn both(
    setting: &Setting<'_>,
    root: &Path,
    name: &str,
    restic: &Restic,
    phase: Phase,
    round: u64,
) -> anyhow::Result<Both> {
    let to = |tool: &str| setting.work.join(format!("restored-{tool}"));
    let (our_target, their_target) = (to("ours"), to("theirs"));
    let ours = async || {
        let command = ours(setting, name, phase, &our_target);
        let before = (
            usage::rss_bytes(setting.collector)?,
            cpu::of_process(setting.collector)?,
        );
        // The most memory counts from here (proc(5), `clear_refs`).
        fs::write(format!("/proc/{}/clear_refs", setting.collector), "5")?;
        let done = counted(setting.s3, BUCKET, command).await?;
        let collector = Collector {
            cpu: cpu::of_process(setting.collector)?.saturating_sub(before.1),
            grew_bytes: usage::peak_bytes(setting.collector)?.saturating_sub(before.0),
        };
        anyhow::Ok((done, collector))
    };
    let theirs = async || {
        let command = restic.phase(phase, root, &their_target);
        counted(setting.s3, RESTIC, command).await
    };
    let ((ours, collector), restic) = if round.is_multiple_of(2) {
        (ours().await?, theirs().await?)
    } else {
        let restic = theirs().await?;
        (ours().await?, restic)
    };
    if phase == Phase::Restore {
        let wanted = corpus::digests(root)?;
        for target in [&our_target, &their_target] {
            let inner = target.join(root.strip_prefix("/")?);
            let restored = corpus::digests(&inner)?;
            ensure!(restored == wanted, "{} differs", target.display());
            fs::remove_dir_all(target)?;
        }
    }
    Ok(Both {
        phase,
        ours,
        restic,
        collector,
    })
}

fn ours(setting: &Setting<'_>, volume: &str, phase: Phase, to: &Path) -> Command {
    let mut command = Command::new(setting.agent);
    let file = |name: &str| setting.work.join(name);
    command
        .arg("--config")
        .arg(setting.demo.join("agent/agent.toml"))
        .arg("backup")
        .arg("--backup-config")
        .arg(file("backup.toml"))
        .arg("--backup-dir")
        .arg(file("state"));
    // As its unit has it.
    command.env("MALLOC_ARENA_MAX", "2");
    match phase {
        Phase::First | Phase::Unchanged | Phase::Changed => command.args(["run", volume]),
        Phase::Restore => command.args(["restore", volume, "--to"]).arg(to),
    };
    command
}

/// A repository of restic's.
#[derive(Debug)]
struct Restic {
    repository: String,
    cache: PathBuf,
}

impl Restic {
    fn new(setting: &Setting<'_>, round: u64) -> anyhow::Result<Self> {
        let cache = setting.work.join("restic-cache");
        fs::create_dir_all(&cache)?;
        let address = setting.s3.address();
        Ok(Self {
            repository: format!("s3:http://{address}/{RESTIC}/{round}"),
            cache,
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("restic");
        command
            .args(["--quiet", "--repo", &self.repository])
            .args(arguments)
            .env("RESTIC_PASSWORD", "measured")
            .env("RESTIC_CACHE_DIR", &self.cache)
            .env("AWS_ACCESS_KEY_ID", "testing")
            .env("AWS_SECRET_ACCESS_KEY", "testing");
        command
    }

    fn phase(&self, phase: Phase, root: &Path, to: &Path) -> Command {
        match phase {
            Phase::First | Phase::Unchanged | Phase::Changed => {
                let mut command = self.command(&["backup"]);
                command.arg(root);
                command
            }
            Phase::Restore => {
                let mut command = self.command(&["restore", "latest", "--target"]);
                command.arg(to);
                command
            }
        }
    }
}

async fn run(command: Command) -> anyhow::Result<Cost> {
    tokio::task::spawn_blocking(move || alone::run(&command, "")).await?
}

async fn counted(s3: &S3, bucket: &str, command: Command) -> anyhow::Result<Done> {
    // What one left unwritten is not the other's to wait for.
    sync();
    let before = s3.stored_bytes(bucket)?;
    let cost = run(command).await?;
    let stored = s3.stored_bytes(bucket)?.saturating_sub(before);
    Ok(Done { cost, stored })
}
