//! The processes a campaign is thrown at: how they start, come back, and are judged in the end. How they are
//! hurt: `hurt.rs`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use infratrack_collector::clock::Clock;
use infratrack_collector::config::Config;
use infratrack_collector::login::token::{self, NewToken};
use infratrack_collector::postgres::PrivatePostgres;
use infratrack_collector::roles::Role;
use nix::sys::signal::Signal;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::disk::Disk;
use super::fault::Fault;
use super::node::Node;
use super::points::Points;
use super::replica::Replica;
use crate::fleet::{FleetConfig, Tokens};
use crate::ledger::{self, Ledger, Must, Verdict};
use crate::postgres::{binary, durable_cluster, reachable_tempdir};
use crate::process::Process;
use crate::proxy::{self, Proxy, Upstream};
use crate::wire::Wire;

/// All of it works again within this.
pub(super) const RECOVERY: Duration = Duration::from_secs(60);
/// What is queued in the end is gone within this.
const DRAIN: Duration = Duration::from_secs(90);
/// Between two looks at whether it does.
pub(super) const LOOK: Duration = Duration::from_millis(50);
/// What a world is made of.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub seed: u64,
    /// Agents in the fleet; without any, there is none.
    pub agents: usize,
    /// Between two heartbeats of an agent.
    pub interval: Duration,
    /// Critical records with each.
    pub events_per_beat: usize,
    /// What each of them carries.
    pub event_bytes: usize,
    /// A standby can take over.
    pub has_replica: bool,
    /// The agents are at the far end of a wire, without a proxy between, where there can be one here.
    pub has_wire: bool,
    /// What is different in the collectors' configuration.
    pub change: fn(&mut Config),
}

impl Setup {
    /// The world of most campaigns.
    pub fn new(agents: usize, seed: u64) -> Self {
        Self {
            seed,
            agents,
            interval: Duration::from_millis(250),
            events_per_beat: 3,
            event_bytes: 0,
            has_replica: false,
            has_wire: false,
            change: |_| {},
        }
    }
}

/// Processes, and what is between them.
#[derive(Debug)]
pub struct World {
    pub(super) dir: TempDir,
    postgres: Option<(JoinHandle<()>, oneshot::Sender<()>)>,
    pub(super) postmaster: PathBuf,
    /// What takes the place of `postgres` in a failover.
    replica: Option<Replica>,
    /// The campaign's own way to Postgres.
    pub(super) pool: PgPool,
    /// Collectors to Postgres.
    pub(super) database: Proxy,
    /// Agents to a collector.
    pub(super) network: Proxy,
    pub(super) collectors: Vec<Node>,
    /// The one that agents are sent to.
    pub(super) current: usize,
    pub(super) fleet: Option<Process>,
    setup: Setup,
    pub(super) points: Points,
    pub(super) disk: Disk,
    wire: Option<Wire>,
    /// Faults of the proxies under way, and what their counters were before.
    pub(super) open: Vec<(Fault, u64)>,
}

impl World {
    /// Starts everything; without agents, no fleet.
    pub async fn start(agents: usize, seed: u64) -> anyhow::Result<Self> {
        Self::with(Setup::new(agents, seed)).await
    }

    /// Starts everything as it is told.
    pub async fn with(setup: Setup) -> anyhow::Result<Self> {
        let dir = reachable_tempdir()?;
        let postgres = durable_cluster(&dir.path().join("database")).await?;
        let cluster = dir.path().join("database/postgres/cluster");
        let mut replica = None;
        if setup.has_replica {
            let place = dir.path().join("replica");
            replica = Some(Replica::start(&postgres, &cluster, &place).await?);
        }
        let options = postgres.connect_options();
        let socket = socket_of(&options)?;
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .connect_lazy_with(options);
        let database = Proxy::start(socket).await?;
        let token = {
            let mut connection = pool.acquire().await?;
            let now = Clock::system().now();
            let new = NewToken::of_role("nemesis", Role::Admin, "nemesis");
            token::create(&mut connection, &new, now).await?.1
        };
        std::fs::write(dir.path().join("admin_token"), token)?;
        std::fs::write(dir.path().join("clock"), "0")?;
        let wire = if setup.has_wire { Wire::make()? } else { None };
        let address = wire.as_ref().map_or(Ipv4Addr::LOCALHOST, Wire::address);
        let mut collectors = Vec::new();
        for index in 0..2 {
            collectors.push(Node::start(
                dir.path(),
                index,
                address.into(),
                database.address(),
                setup.change,
            )?);
            // The first one makes the CA that they share.
            until("a collector", || collectors[index].is_up()).await?;
        }
        let network = Proxy::start(collectors[0].agents).await?;
        let disk = Disk::make(&dir.path().join("disk"))?;
        let mut world = Self {
            dir,
            postgres: Some(supervised(postgres)),
            postmaster: cluster.join("postmaster.pid"),
            replica,
            pool,
            database,
            network,
            collectors,
            current: 0,
            fleet: None,
            points: Points::new(setup.seed),
            setup,
            disk,
            wire,
            open: Vec::new(),
        };
        if setup.agents > 0 {
            world.start_fleet()?;
        }
        Ok(world)
    }

    /// Ends everything in order; what is left are the logs.
    pub async fn stop(mut self) -> TempDir {
        drop(self.fleet.take());
        self.collectors.clear();
        self.pool.close().await;
        if let Some((supervised, stop)) = self.postgres.take() {
            drop(stop);
            supervised.await.ok();
        }
        drop(self.disk);
        self.dir
    }

    /// Waits until more records are stored than are now: the whole way works.
    pub async fn progress(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + RECOVERY;
        let mut before = None;
        loop {
            anyhow::ensure!(
                Instant::now() < deadline,
                "nothing is stored for {RECOVERY:?}"
            );
            if let Ok(stored) = self.stored().await
                && stored > *before.get_or_insert(stored)
            {
                return Ok(());
            }
            self.revive()?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends the faults of the network. Answers how often each really happened.
    pub fn heal(&mut self) -> Vec<(Fault, u64)> {
        self.network.set(proxy::Fault::None);
        self.database.set(proxy::Fault::None);
        let counted = std::mem::take(&mut self.open).into_iter();
        counted
            .map(|(fault, before)| (fault, u64::from(self.proxy_of(fault).fired() > before)))
            .collect()
    }

    /// The standby falls behind for as long as `lag`, then Postgres is gone and the standby takes its place.
    /// Answers how many records that were stored are not any more.
    pub async fn fail_over(&mut self, lag: Duration) -> anyhow::Result<i64> {
        let mut replica = self.replica.take().context("a replica")?;
        replica.stop().await?;
        tokio::time::sleep(lag).await;
        let stored = self.stored().await?;
        self.kill_postgres();
        if let Some((supervised, stop)) = self.postgres.take() {
            drop(stop);
            supervised.await?;
        }
        replica.promote().await?;
        let options = replica.connect_options();
        self.database.set_upstream(socket_of(&options)?);
        self.pool = PgPoolOptions::new()
            .max_connections(4)
            .connect_lazy_with(options);
        let left = self.stored().await?;
        self.replica = Some(replica);
        Ok(stored - left)
    }

    async fn stored(&self) -> sqlx::Result<i64> {
        sqlx::query_scalar("select count(*) from events where seq is not null")
            .fetch_one(&self.pool)
            .await
    }

    /// Stops the fleet when it has sent everything, and judges.
    pub async fn drain_and_verify(&mut self, failed_over: bool) -> anyhow::Result<Verdict> {
        let mut fleet = self.fleet.take().context("the fleet runs")?;
        fleet.signal(Signal::SIGINT);
        let status = fleet.ended(DRAIN + RECOVERY).await?;
        anyhow::ensure!(status.success(), "the fleet ended with {status}");
        let ledger = Ledger::read(&self.dir.path().join("ledger"))?;
        ledger::verify_that(&self.pool, &ledger, Must::Drained { failed_over }).await
    }

    /// The process that agents talk to.
    pub fn collector(&self) -> &Process {
        &self.collectors[self.current].process
    }

    /// What it logs.
    pub fn collector_log(&self) -> PathBuf {
        self.dir
            .path()
            .join(format!("collector-{}.log", self.current))
    }

    /// A fleet that reports to that collector, without a proxy between.
    pub fn fleet_config(&self) -> anyhow::Result<FleetConfig> {
        let node = &self.collectors[self.current];
        let tokens = Tokens::Api {
            operators: node.operators,
            admin_token: std::fs::read_to_string(self.dir.path().join("admin_token"))?,
        };
        Ok(FleetConfig::new(node.agents, node.enroll, tokens))
    }

    /// Runs the collector's program beside its collectors, as an administrator does; answers whether it succeeded,
    /// and what it printed.
    pub fn command(&self, arguments: &[&str]) -> anyhow::Result<(bool, String)> {
        let output = self.collectors[0]
            .command(self.database.address())?
            .args(arguments)
            .output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        Ok((output.status.success(), said))
    }

    /// An administrator's token.
    pub fn admin_token(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(
            self.dir.path().join("admin_token"),
        )?)
    }

    /// Its listener for operators.
    pub fn operators(&self) -> SocketAddr {
        self.collectors[self.current].operators
    }

    /// How often each named point was where a process ended.
    pub fn points(&self) -> &BTreeMap<&'static str, u64> {
        &self.points.reached
    }

    /// What is between the agents and the collectors, where it is one.
    pub fn wire(&self) -> Option<&Wire> {
        self.wire.as_ref()
    }

    /// What is between them where it is none.
    pub fn network(&self) -> &Proxy {
        &self.network
    }

    /// The agents' process, and the port of the collector that they talk to.
    pub fn fleet(&self) -> Option<(&Process, u16)> {
        let port = self.collectors[self.current].agents.port();
        self.fleet.as_ref().map(|fleet| (fleet, port))
    }

    /// What is between the collectors and Postgres.
    pub fn database(&self) -> &Proxy {
        &self.database
    }

    /// The tables.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Starts what ended, as a service manager does: without Postgres no collector starts, and on a full
    /// disk no agent.
    pub(super) fn revive(&mut self) -> anyhow::Result<()> {
        if let Some(fleet) = &mut self.fleet
            && fleet.has_ended()?
        {
            self.start_fleet()?;
        }
        let database = self.database.address();
        for (index, node) in self.collectors.iter_mut().enumerate() {
            if node.process.has_ended()? {
                node.restart(self.dir.path(), index, database, None)?;
            }
        }
        Ok(())
    }

    pub(super) fn start_fleet(&mut self) -> anyhow::Result<()> {
        self.fleet = Some(self.spawn_fleet(None)?);
        Ok(())
    }

    /// The agents' process, perhaps to end at a named point.
    pub(super) fn spawn_fleet(&self, failpoints: Option<&str>) -> anyhow::Result<Process> {
        let dir = self.dir.path();
        let node = &self.collectors[0];
        let setup = &self.setup;
        let program = binary("infratrack-fleet")?;
        let (mut command, agents) = match &self.wire {
            Some(wire) => (wire.command(&program), node.agents),
            None => (Command::new(program), self.network.address()),
        };
        command.arg("run");
        let options: [(&str, &dyn std::fmt::Display); 14] = [
            ("--agents", &agents),
            ("--enroll", &node.enroll),
            ("--operators", &node.operators),
            ("--agents-count", &setup.agents),
            ("--disk", &setup.agents),
            ("--interval-ms", &setup.interval.as_millis()),
            ("--events-per-beat", &setup.events_per_beat),
            ("--event-bytes", &setup.event_bytes),
            ("--batch-records", &40),
            ("--pace-ms", &20),
            ("--wait-ms", &200),
            ("--backoff-scale", &0.02),
            ("--drain-s", &DRAIN.as_secs()),
            ("--seed", &setup.seed),
        ];
        for (name, value) in options {
            command.arg(name).arg(value.to_string());
        }
        command
            .args(["--duration-s", "86400"])
            .arg("--admin-token-file")
            .arg(dir.join("admin_token"))
            .arg("--clock-file")
            .arg(dir.join("clock"))
            .arg("--state-dir")
            .arg(dir.join("disk"))
            .arg("--ledger")
            .arg(dir.join("ledger"))
            // What a killed fleet leaves goes with the world.
            .env("TMPDIR", dir)
            .env("FAILPOINTS", failpoints.unwrap_or_default());
        Process::start(&mut command, &dir.join("fleet.log"), Stdio::null())
    }
}

/// Where a server listens.
fn socket_of(options: &PgConnectOptions) -> anyhow::Result<Upstream> {
    let socket = options.get_socket().context("a unix socket")?;
    Ok(Upstream::Unix(socket.join(".s.PGSQL.5432")))
}

/// Keeps Postgres running until it is told to stop.
fn supervised(mut postgres: PrivatePostgres) -> (JoinHandle<()>, oneshot::Sender<()>) {
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(async move {
        tokio::select! {
            error = postgres.supervise() => tracing::error!(%error, "Postgres is beyond help"),
            _ = stopped => {}
        }
        postgres.stop().await;
    });
    (task, stop)
}

async fn until<F: Future<Output = bool>>(what: &str, is: impl Fn() -> F) -> anyhow::Result<()> {
    let deadline = Instant::now() + RECOVERY;
    while !is().await {
        anyhow::ensure!(
            Instant::now() < deadline,
            "{what} is not there in {RECOVERY:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
