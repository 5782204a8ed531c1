//! The processes that are measured: a collector with its private Postgres as they are installed, and the
//! bare front end. Their CPU time, memory and the database's own counters.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use infratrack_collector::config::Config;
use infratrack_collector::{postgres, server};
use nix::sys::signal::Signal;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::time::Instant;

use super::cpu;
use crate::nemesis::free_addresses;
use crate::process::Process;

/// A process is ready or has ended within this.
const START: Duration = Duration::from_secs(60);
/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(20);

/// A collector and its cluster, which has a second database for the loader.
#[derive(Debug)]
pub struct Subject {
    pub process: Process,
    pub agents: SocketAddr,
    pub operators: SocketAddr,
    pub ca_dir: PathBuf,
    pub postmaster: u32,
    pub own: PgConnectOptions,
    pub loader: PgConnectOptions,
}

impl Subject {
    /// Starts a collector in `dir`, which is empty.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        let config = config(dir)?;
        let path = dir.join("collector.toml");
        std::fs::write(&path, toml::to_string(&config)?)?;
        let collector = std::env::current_exe()?.with_file_name("infratrack-collector");
        let mut command = Command::new(collector);
        command.arg("--config").arg(&path).arg("serve");
        command.env_remove("DATABASE_URL").env_remove("RUST_LOG");
        let process = Process::start(&mut command, &dir.join("collector.log"), Stdio::null())?;
        listening(config.operators.listen).await?;
        let own = postgres::private_connect_options(&config.data_dir).await?;
        let mut connection = PgConnection::connect_with(&own).await?;
        let backend: i32 = sqlx::query_scalar("select pg_backend_pid()")
            .fetch_one(&mut connection)
            .await?;
        let postmaster = cpu::parent_of(backend.unsigned_abs())?;
        connection.execute("create database loader").await?;
        let loader = own.clone().database("loader");
        server::migrate(loader.clone()).await?;
        partition(&mut connection, &loader).await?;
        connection.close().await?;
        Ok(Self {
            process,
            agents: config.agents.listen,
            operators: config.operators.listen,
            ca_dir: config.data_dir.join("ca"),
            postmaster,
            own,
            loader,
        })
    }

    /// Ends both in order.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::SIGTERM);
        self.process.ended(START).await.map(drop)
    }
}

/// The product's defaults, but for what one machine with many hosts on it needs: the share of a host, and
/// the queue, without which more requests under way than it takes would be refused.
fn config(dir: &Path) -> anyhow::Result<Config> {
    let mut config = Config {
        data_dir: dir.join("collector"),
        ..Config::default()
    };
    [
        config.agents.listen,
        config.enroll.listen,
        config.operators.listen,
    ] = free_addresses(Ipv4Addr::LOCALHOST.into())?;
    config.ingest.host_batches_per_second = 1_000_000;
    config.ingest.host_batches_burst = 1_000_000;
    config.ingest.queue_requests = 8192;
    // One client asks as fast as it is answered.
    config.operators.requests_per_second = 1_000_000;
    config.operators.requests_burst = 1_000_000;
    Ok(config)
}

async fn listening(address: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + START;
    while tokio::net::TcpStream::connect(address).await.is_err() {
        anyhow::ensure!(
            Instant::now() < deadline,
            "nothing listens on {address} after {START:?}"
        );
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Gives the loader the partitions that the collector made for itself.
async fn partition(own: &mut PgConnection, loader: &PgConnectOptions) -> anyhow::Result<()> {
    let partitions: Vec<(String, String, String)> = sqlx::query_as(
        "select p.relname::text, c.relname::text, pg_get_expr(c.relpartbound, c.oid)
         from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_class p on p.oid = i.inhparent
         where c.relkind = 'r'",
    )
    .fetch_all(own)
    .await?;
    anyhow::ensure!(
        !partitions.is_empty(),
        "the collector has made no partitions"
    );
    let mut connection = PgConnection::connect_with(loader).await?;
    for (table, name, bounds) in partitions {
        let sql = format!("create table {name} partition of {table} {bounds}");
        connection.execute(AssertSqlSafe(sql)).await?;
    }
    Ok(connection.close().await?)
}

/// The bare front end.
#[derive(Debug)]
pub struct Front {
    pub process: Process,
    pub address: SocketAddr,
}

impl Front {
    /// Starts it over the CA in `ca_dir`; it leaves its address in `dir`.
    pub async fn start(dir: &Path, ca_dir: &Path) -> anyhow::Result<Self> {
        let said = dir.join("front.address");
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("front").arg("--ca-dir").arg(ca_dir);
        let out = std::fs::File::create(&said)?;
        let process = Process::start(&mut command, &dir.join("front.log"), out.into())?;
        let deadline = Instant::now() + START;
        loop {
            if let Some(line) = std::fs::read_to_string(&said)?.strip_suffix('\n') {
                let address = line.parse().context("the front end's address")?;
                return Ok(Self { process, address });
            }
            anyhow::ensure!(Instant::now() < deadline, "the front end does not start");
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// What the database counted since it was made.
#[derive(Clone, Copy, Debug, Default, sqlx::FromRow)]
pub struct Counters {
    pub transactions: i64,
    pub liveness_updates: i64,
    pub liveness_hot: i64,
    pub wal_bytes: i64,
}

impl Counters {
    /// What was counted between `before` and this.
    pub fn since(self, before: Self) -> Self {
        Self {
            transactions: self.transactions - before.transactions,
            liveness_updates: self.liveness_updates - before.liveness_updates,
            liveness_hot: self.liveness_hot - before.liveness_hot,
            wal_bytes: self.wal_bytes - before.wal_bytes,
        }
    }

    /// As of the last transactions: backends report a second late at most, so until nothing changes.
    pub async fn read(database: &mut PgConnection) -> anyhow::Result<Self> {
        let deadline = Instant::now() + START;
        let mut last = Self::now(database).await?;
        loop {
            tokio::time::sleep(Duration::from_millis(1100)).await;
            let next = Self::now(database).await?;
            if next.liveness_updates == last.liveness_updates || Instant::now() > deadline {
                return Ok(next);
            }
            last = next;
        }
    }

    async fn now(database: &mut PgConnection) -> sqlx::Result<Self> {
        sqlx::query_as(
            "select d.xact_commit as transactions, t.n_tup_upd as liveness_updates,
                    t.n_tup_hot_upd as liveness_hot,
                    pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::int8 as wal_bytes
             from pg_stat_database d, pg_stat_user_tables t
             where d.datname = current_database() and t.relname = 'host_liveness'",
        )
        .fetch_one(database)
        .await
    }
}
