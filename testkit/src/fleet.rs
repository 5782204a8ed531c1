//! A simulated fleet: many agents in one process, made of the agent's own client code.
//!
//! Each has its certificate, its spool and one connection, and no thread. What it offers and what was
//! acknowledged is in a [`ledger`](crate::ledger). Only addresses of this machine are dialled: a fleet is a
//! load, and nobody's server but our own is to carry it.

mod agent;
mod enroll;
mod failure;
pub(crate) mod heartbeat;
mod sent;
mod stats;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use infratrack_agent::clock::Clock;
use infratrack_agent::spool::{Spool, SpoolConfig};
use tempfile::TempDir;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ledger::{Ledger, LedgerWriter};
use agent::Agent;
use enroll::Member;
use stats::Counters;

pub use stats::Stats;

/// Records of a backlog that are appended at once.
const BACKLOG_CHUNK: usize = 1000;

/// Where enrollment tokens come from.
#[derive(Clone, Debug)]
pub enum Tokens {
    /// One for each 500 agents.
    Given(Vec<String>),
    /// Made through `POST /api/v1/enroll-tokens`, plain HTTP.
    Api {
        operators: SocketAddr,
        admin_token: String,
    },
}

/// What the fleet is and does.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// The agents' listener.
    pub agents: SocketAddr,
    /// The enrollment listener.
    pub enroll: SocketAddr,
    pub tokens: Tokens,
    pub count: usize,
    /// So many of them have a spool on disk.
    pub disk: usize,
    /// Between two heartbeats of an agent.
    pub interval: Duration,
    /// Critical records with each heartbeat.
    pub events_per_beat: usize,
    /// What each of them carries beside its number.
    pub event_bytes: usize,
    /// Critical records in each spool before the start.
    pub backlog: usize,
    /// The most records in a batch.
    pub batch_records: usize,
    /// Between two batches of a backlog.
    pub pace: Duration,
    /// How long answers may be held.
    pub wait: Duration,
    /// The agent's own waits after failures, times this.
    pub backoff_scale: f64,
    /// Handshakes at once: all agents share one address here, and an address may have few.
    pub handshakes: usize,
    /// How long [`Fleet::stop`] goes on with what is queued.
    pub drain: Duration,
    /// For the phases and values of heartbeats; keys, ids and waits are random.
    pub seed: u64,
    /// Identities and disk spools; kept for the next fleet. `None`: for this one alone.
    pub state_dir: Option<PathBuf>,
    /// Appended to. `None`: a temporary one.
    pub ledger: Option<PathBuf>,
    pub clock: Clock,
}

impl FleetConfig {
    /// Ten agents with a heartbeat and an event a second.
    pub fn new(agents: SocketAddr, enroll: SocketAddr, tokens: Tokens) -> Self {
        Self {
            agents,
            enroll,
            tokens,
            count: 10,
            disk: 0,
            interval: Duration::from_secs(1),
            events_per_beat: 1,
            event_bytes: 0,
            backlog: 0,
            batch_records: 500,
            pace: Duration::from_millis(500),
            wait: Duration::ZERO,
            backoff_scale: 1.0,
            handshakes: 16,
            drain: Duration::from_secs(10),
            seed: 1,
            state_dir: None,
            ledger: None,
            clock: Clock::system(),
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        let operators = match &self.tokens {
            Tokens::Given(_) => None,
            Tokens::Api { operators, .. } => Some(*operators),
        };
        for address in [self.agents, self.enroll].into_iter().chain(operators) {
            anyhow::ensure!(
                is_ours(address.ip().to_canonical()),
                "{address} may not be on this machine: a fleet reports to loopback addresses, and to those \
                 that are set aside for tests, only"
            );
        }
        anyhow::ensure!(self.count > 0, "a fleet has at least one agent");
        anyhow::ensure!(self.disk <= self.count, "more disk spools than agents");
        anyhow::ensure!(!self.interval.is_zero(), "the interval is 0");
        anyhow::ensure!(
            self.backoff_scale.is_finite() && self.backoff_scale >= 0.0,
            "the backoff's scale is no positive number"
        );
        Ok(())
    }
}

/// The loopback, or 198.18.0.0/15 (RFC 2544): the near end of a [`wire`](crate::wire).
fn is_ours(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_loopback() || matches!(address.octets(), [198, 18 | 19, _, _])
        }
        IpAddr::V6(address) => address.is_loopback(),
    }
}

/// A fleet that runs until [`Fleet::stop`]; dropped, it is cut off in the middle.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    tasks: JoinSet<anyhow::Result<()>>,
    stop: watch::Sender<bool>,
    started: Instant,
    ledger: PathBuf,
    temporary: TempDir,
}

/// What a fleet leaves.
#[derive(Clone, Debug)]
pub struct FleetReport {
    pub stats: Stats,
    pub ledger: Ledger,
}

/// What all agents share.
#[derive(Debug)]
struct Shared {
    config: FleetConfig,
    counters: Counters,
    ledger: LedgerWriter,
    /// Permits for connections that are being opened.
    handshakes: Semaphore,
    next_unique: AtomicU64,
}

impl Fleet {
    /// Enrolls the agents, fills their backlogs and lets them go.
    pub async fn start(config: FleetConfig) -> anyhow::Result<Self> {
        config.check()?;
        let temporary = tempfile::tempdir().context("cannot make a temporary directory")?;
        let dir = config.state_dir.as_deref().unwrap_or(temporary.path());
        let default = temporary.path().join("ledger.jsonl");
        let ledger = config.ledger.clone().unwrap_or(default);
        let begun = std::fs::metadata(&ledger).is_ok_and(|ledger| ledger.len() > 0);
        anyhow::ensure!(
            config.state_dir.is_some() || !begun,
            "{} is another fleet's ledger: name a new file, or that fleet's state directory",
            ledger.display()
        );
        let members = enroll::members(&config, dir).await?;
        // Above those of any fleet that ran before on the same state; exact in JSON.
        let first_unique = Clock::system().now().0.unsigned_abs() * 1000;
        let shared = Arc::new(Shared {
            counters: Counters::default(),
            ledger: LedgerWriter::open(&ledger)?,
            handshakes: Semaphore::new(config.handshakes.max(1)),
            next_unique: AtomicU64::new(first_unique),
            config: config.clone(),
        });
        let (stop, stopped) = watch::channel(false);
        let mut agents = Vec::with_capacity(members.len());
        for (index, member) in members.into_iter().enumerate() {
            agents.push(agent(&shared, dir, index, member).await?);
        }
        let mut tasks = JoinSet::new();
        let started = Instant::now();
        for agent in agents {
            tasks.spawn(agent.run(stopped.clone()));
        }
        Ok(Self {
            shared,
            tasks,
            stop,
            started,
            ledger,
            temporary,
        })
    }

    /// What it did so far.
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        counters.snapshot(self.shared.config.count, self.started.elapsed())
    }

    /// Ends the heartbeats, sends what is queued for as long as `drain` allows, and reports. Fails where
    /// an agent could not go on; an agent that is not done in time is no failure.
    pub async fn stop(mut self) -> anyhow::Result<FleetReport> {
        let loaded = self.stats();
        self.stop.send_replace(true);
        let deadline = Instant::now() + self.shared.config.drain;
        while let Ok(Some(done)) = tokio::time::timeout_at(deadline, self.tasks.join_next()).await {
            done.context("an agent panicked")??;
        }
        self.tasks.shutdown().await;
        // The rates are those of the load, not of its end.
        let stats = Stats {
            elapsed_s: loaded.elapsed_s,
            requests_per_s: loaded.requests_per_s,
            records_per_s: loaded.records_per_s,
            heartbeats_per_s: loaded.heartbeats_per_s,
            ..self.stats()
        };
        let ledger = Ledger::read(&self.ledger)?;
        self.temporary.close().ok();
        Ok(FleetReport { stats, ledger })
    }
}

async fn agent(
    shared: &Arc<Shared>,
    dir: &Path,
    index: usize,
    member: Member,
) -> anyhow::Result<Agent> {
    let now = shared.config.clock.now();
    let spool = if index < shared.config.disk {
        let config = SpoolConfig::new(agent_dir(dir, index).join("spool"));
        Spool::open(config, now).await?.0
    } else {
        Spool::in_memory(now)
    };
    let mut agent = Agent::new(Arc::clone(shared), index, member, spool);
    let mut left = shared.config.backlog;
    while left > 0 {
        let some = left.min(BACKLOG_CHUNK);
        agent.offer_records(some).await?;
        left -= some;
    }
    Ok(agent)
}

fn agent_dir(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("agent-{index:05}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_of_another_machine_is_refused() {
        let here = SocketAddr::from(([127, 0, 0, 1], 9));
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 9));
        let given = || Tokens::Given(Vec::new());
        let api = Tokens::Api {
            operators: elsewhere,
            admin_token: String::new(),
        };
        for config in [
            FleetConfig::new(elsewhere, here, given()),
            FleetConfig::new(here, elsewhere, given()),
            FleetConfig::new(here, here, api),
        ] {
            let refused = Fleet::start(config).await.expect_err("refused");
            assert!(refused.to_string().contains("192.0.2.1:9"), "{refused}");
        }
    }
}
