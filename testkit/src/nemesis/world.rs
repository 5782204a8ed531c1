//! The processes a campaign is thrown at, and how each is hurt and healed.
//!
//! Whatever is hurt is alive again when its method returns, but for faults of the network, which last until
//! [`World::heal`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use infratrack_collector::api::auth;
use infratrack_collector::clock::Clock;
use infratrack_collector::postgres::PrivatePostgres;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::disk::Disk;
use super::fault::Fault;
use super::node::Node;
use super::replica::Replica;
use crate::fleet::{FleetConfig, Tokens};
use crate::ledger::{self, Ledger, Must, Verdict};
use crate::postgres::{binary, durable_cluster, reachable_tempdir};
use crate::process::Process;
use crate::proxy::{self, Proxy, Upstream};

/// All of it works again within this.
const RECOVERY: Duration = Duration::from_secs(60);
/// What is queued in the end is gone within this.
const DRAIN: Duration = Duration::from_secs(90);
/// Between two looks at whether it does.
const LOOK: Duration = Duration::from_millis(50);
/// Two wall clocks are at most so far apart, in milliseconds.
const CLOCK_MS: f64 = 20.0 * 365.0 * 86_400_000.0;

/// Processes, and what is between them.
#[derive(Debug)]
pub struct World {
    dir: TempDir,
    postgres: Option<(JoinHandle<()>, oneshot::Sender<()>)>,
    postmaster: PathBuf,
    /// What takes the place of `postgres` in a failover.
    replica: Option<Replica>,
    /// The campaign's own way to Postgres.
    pool: PgPool,
    /// Collectors to Postgres.
    database: Proxy,
    /// Agents to a collector.
    network: Proxy,
    collectors: Vec<Node>,
    /// The one that agents are sent to.
    current: usize,
    fleet: Option<Process>,
    fleet_count: usize,
    seed: u64,
    disk: Disk,
    /// Faults of the proxies under way, and what their counters were before.
    open: Vec<(Fault, u64)>,
}

impl World {
    /// Starts everything; without agents, no fleet.
    pub async fn start(agents: usize, seed: u64) -> anyhow::Result<Self> {
        Self::start_with(agents, seed, false).await
    }

    /// With a standby that can take over.
    pub async fn with_replica(agents: usize, seed: u64) -> anyhow::Result<Self> {
        Self::start_with(agents, seed, true).await
    }

    async fn start_with(agents: usize, seed: u64, has_replica: bool) -> anyhow::Result<Self> {
        let dir = reachable_tempdir()?;
        let postgres = durable_cluster(&dir.path().join("database")).await?;
        let cluster = dir.path().join("database/postgres/cluster");
        let mut replica = None;
        if has_replica {
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
            auth::create_token(&mut connection, "nemesis", "admin", now).await?
        };
        std::fs::write(dir.path().join("admin_token"), token)?;
        std::fs::write(dir.path().join("clock"), "0")?;
        let mut collectors = Vec::new();
        for index in 0..2 {
            collectors.push(Node::start(dir.path(), index, database.address())?);
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
            fleet_count: agents,
            seed,
            disk,
            open: Vec::new(),
        };
        if agents > 0 {
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

    /// Its listener for operators.
    pub fn operators(&self) -> SocketAddr {
        self.collectors[self.current].operators
    }

    /// The tables.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// kill -9 of the collector that agents talk to; it is away for as long as `down`. Answers whether it
    /// was that which ended it.
    pub async fn kill_collector(&mut self, down: Duration) -> anyhow::Result<bool> {
        let node = &mut self.collectors[self.current];
        let killed = node.process.kill().await?;
        tokio::time::sleep(down).await;
        self.revive()?;
        Ok(killed)
    }

    pub(super) async fn stop_collector(&mut self, down: Duration) -> anyhow::Result<bool> {
        let node = &mut self.collectors[self.current];
        node.process.signal(Signal::SIGTERM);
        // It may be without Postgres just now, and then ends with an error.
        node.process.ended(RECOVERY).await?;
        tokio::time::sleep(down).await;
        self.revive()?;
        Ok(true)
    }

    /// Starts what ended, as a service manager does: without Postgres no collector starts, and on a full
    /// disk no agent.
    fn revive(&mut self) -> anyhow::Result<()> {
        if let Some(fleet) = &mut self.fleet
            && fleet.has_ended()?
        {
            self.start_fleet()?;
        }
        let database = self.database.address();
        for (index, node) in self.collectors.iter_mut().enumerate() {
            if node.process.has_ended()? {
                node.restart(self.dir.path(), index, database)?;
            }
        }
        Ok(())
    }

    pub(super) async fn switch_collector(&mut self) -> anyhow::Result<bool> {
        self.current = 1 - self.current;
        self.network
            .set_upstream(self.collectors[self.current].agents);
        let before = self.network.fired();
        self.network.set(proxy::Fault::Reset);
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.network.set(proxy::Fault::None);
        Ok(self.network.fired() > before)
    }

    pub(super) fn kill_postgres(&self) -> bool {
        let text = std::fs::read_to_string(&self.postmaster).unwrap_or_default();
        let pid = text.lines().next().and_then(|pid| pid.trim().parse().ok());
        pid.is_some_and(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok())
    }

    /// Signals up to `most` backends that work for collectors.
    pub(super) async fn signal_backends(
        &self,
        signal: Signal,
        most: usize,
    ) -> anyhow::Result<bool> {
        let sql = "select pid from pg_stat_activity
             where application_name = 'infratrack-collector' order by random()";
        let backends: sqlx::Result<Vec<i32>> = sqlx::query_scalar(sql).fetch_all(&self.pool).await;
        let mut happened = false;
        for pid in backends.unwrap_or_default().into_iter().take(most) {
            happened |= kill(Pid::from_raw(pid), signal).is_ok();
        }
        Ok(happened)
    }

    pub(super) async fn lock_cursors(&self, lasts: Duration) -> anyhow::Result<bool> {
        let Ok(mut transaction) = self.pool.begin().await else {
            return Ok(false);
        };
        let locked = sqlx::query("lock table agent_streams in access exclusive mode")
            .execute(&mut *transaction)
            .await;
        tokio::time::sleep(lasts).await;
        drop(transaction.rollback().await);
        Ok(locked.is_ok())
    }

    pub(super) async fn database_fault(
        &mut self,
        kind: Fault,
        fault: proxy::Fault,
        lasts: Duration,
    ) -> anyhow::Result<bool> {
        self.open.push((kind, self.database.fired()));
        self.database.set(fault);
        tokio::time::sleep(lasts).await;
        Ok(false)
    }

    pub(super) async fn network_fault(
        &mut self,
        kind: Fault,
        fault: proxy::Fault,
        lasts: Duration,
    ) -> anyhow::Result<bool> {
        self.open.push((kind, self.network.fired()));
        self.network.set(fault);
        tokio::time::sleep(lasts).await;
        Ok(false)
    }

    fn proxy_of(&self, fault: Fault) -> &Proxy {
        if fault.target() == super::fault::Target::Database {
            &self.database
        } else {
            &self.network
        }
    }

    pub(super) async fn kill_agents(&mut self, down: Duration) -> anyhow::Result<bool> {
        let Some(mut fleet) = self.fleet.take() else {
            return Ok(false);
        };
        let killed = fleet.kill().await?;
        tokio::time::sleep(down).await;
        self.start_fleet()?;
        Ok(killed)
    }

    pub(super) async fn pause_agents(&self, lasts: Duration) -> anyhow::Result<bool> {
        let Some(fleet) = &self.fleet else {
            return Ok(false);
        };
        fleet.signal(Signal::SIGSTOP);
        tokio::time::sleep(lasts).await;
        let stopped = fleet.state() == Some('T');
        fleet.signal(Signal::SIGCONT);
        Ok(stopped)
    }

    pub(super) async fn step_clock(&self, draw: f64) -> anyhow::Result<bool> {
        // Small steps are as nasty as large ones: a third each of seconds, hours and years.
        let scale = [1e-8, 1e-4, 1.0];
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 2"
        )]
        let scale = scale[(draw * 3000.0) as usize % 3];
        let offset_ms = (draw - 0.5) * CLOCK_MS * scale;
        let new = self.dir.path().join("clock.new");
        std::fs::write(&new, format!("{offset_ms:.0}"))?;
        std::fs::rename(&new, self.dir.path().join("clock"))?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(true)
    }

    pub(super) async fn fill_disk(&self, lasts: Duration) -> anyhow::Result<bool> {
        self.disk.fill(lasts).await
    }

    fn start_fleet(&mut self) -> anyhow::Result<()> {
        let dir = self.dir.path();
        let node = &self.collectors[0];
        let mut command = Command::new(binary("infratrack-fleet")?);
        command
            .arg("run")
            .args(["--agents", &self.network.address().to_string()])
            .args(["--enroll", &node.enroll.to_string()])
            .args(["--operators", &node.operators.to_string()])
            .arg("--admin-token-file")
            .arg(dir.join("admin_token"))
            .args(["--agents-count", &self.fleet_count.to_string()])
            .args(["--disk", &self.fleet_count.to_string()])
            .args(["--interval-ms", "250", "--events-per-beat", "3"])
            .args([
                "--batch-records",
                "40",
                "--pace-ms",
                "20",
                "--wait-ms",
                "200",
            ])
            .args(["--backoff-scale", "0.02", "--duration-s", "86400"])
            .args(["--drain-s", &DRAIN.as_secs().to_string()])
            .args(["--seed", &self.seed.to_string()])
            .arg("--clock-file")
            .arg(dir.join("clock"))
            .arg("--state-dir")
            .arg(dir.join("disk"))
            .arg("--ledger")
            .arg(dir.join("ledger"));
        let log = dir.join("fleet.log");
        self.fleet = Some(Process::start(&mut command, &log, Stdio::null())?);
        Ok(())
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
