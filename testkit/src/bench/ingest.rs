//! How close ingest comes to what the machine and its Postgres can do: `make bench`.
//!
//! In turns: the bare front end (F, and the generator's G), the raw loader (P), the collector. Whatever was
//! acknowledged is counted in the tables after each turn. Results go to `report`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use super::connection::Target;
use super::drive::{self, Driven, Line, Load};
use super::loader::{self, Rows};
use super::members::{self, Member, Registry};
use super::rounds::busy;
use super::sender::Sender;
use super::subject::{Counters, Front, Subject};
use super::{cpu, machine};
use crate::postgres::reachable_tempdir;

/// Connections open at once: both ends are on this machine, within the usual limit of descriptors.
const CONNECTIONS: usize = 9_000;
/// Before each measured run, unmeasured: statements are prepared, caches are warm.
const WARM_UP: Duration = Duration::from_secs(1);
/// Batches of a backlog, and the records in each: a batch has at most 500.
const BATCHES: usize = 5;
const BATCH_RECORDS: usize = 500;
/// Backlogs sent at once.
const REPLAYS: usize = 32;
/// Records that are replayed for each second of a run: more than can be stored in it.
const REPLAYED_PER_S: usize = 100_000;
/// How old a backlog's first record is, in milliseconds.
const BACKLOG_MS: i64 = 21 * 3600 * 1000;
/// Busy rounds that are run again.
const AGAIN: usize = 3;

/// How long and how much.
#[derive(Clone, Debug)]
pub struct Options {
    pub rounds: usize,
    pub lasts: Duration,
    /// Hosts of the rounds.
    pub hosts: usize,
    pub in_flight: usize,
    /// Hosts at which the growth of the cost is measured, ascending; none: it is not.
    pub growth: Vec<usize>,
}

/// CPU time per row or request, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    pub front: f64,
    pub postgres: f64,
    /// Generator or loader.
    pub client: f64,
}

impl Cost {
    pub fn sum(&self) -> f64 {
        self.front + self.postgres + self.client
    }
}

/// Something measured: rows or requests a second, and what each took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    pub rate: f64,
    pub cost: Cost,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub refused: u64,
}

/// One round.
#[derive(Clone, Debug, Default)]
pub struct Round {
    pub front: Measured,
    pub loader: Measured,
    pub live: Measured,
    pub half: Measured,
    pub beats: Measured,
    pub event_loader: Measured,
    pub events: Measured,
    pub counters: Counters,
    /// Acknowledged in the measured run of live ones.
    pub acknowledged: u64,
    pub connections: usize,
    /// Of the collector: before and with the connections open, in bytes.
    pub rss: (u64, u64),
    pub load: f64,
    pub is_busy: bool,
}

impl Round {
    /// Heartbeats a second that these cores could do: cores / (F + P + G).
    pub fn limit(&self, cores: usize) -> f64 {
        cores as f64 * 1e6 / (self.front.cost.sum() + self.loader.cost.sum())
    }

    /// What its counters are about.
    pub fn heartbeats(&self) -> f64 {
        self.acknowledged as f64
    }
}

/// The cost at one number of hosts, of collector with Postgres, and of the loader with Postgres.
#[derive(Clone, Debug)]
pub struct Growth {
    pub hosts: usize,
    pub live: Vec<f64>,
    pub loader: Vec<f64>,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Results {
    pub options: Options,
    pub cores: usize,
    pub machine: String,
    pub postgres: String,
    pub rounds: Vec<Round>,
    pub growth: Vec<Growth>,
    pub request_bytes: usize,
}

struct Bench {
    options: Options,
    dir: TempDir,
    subject: Subject,
    front: Front,
    registry: Arc<Registry>,
    members: Vec<Member>,
    senders: VecDeque<Sender>,
    own: PgConnection,
    loader: PgConnection,
}

/// Runs everything; `say` is told how it goes.
pub async fn run(options: Options, say: impl Fn(&str)) -> anyhow::Result<Results> {
    let mut bench = Bench::start(options.clone()).await?;
    let cores = cpu::count()?;
    let mut growth = Vec::new();
    let (before, after): (Vec<usize>, Vec<usize>) = options
        .growth
        .iter()
        .partition(|count| **count <= options.hosts);
    for hosts in before {
        growth.push(bench.growth(hosts, &say).await?);
    }
    bench.grow(options.hosts).await?;
    let mut rounds: Vec<Round> = Vec::new();
    while rounds.iter().filter(|round| !round.is_busy).count() < options.rounds
        && rounds.len() < options.rounds + AGAIN
    {
        let round = bench.round(cores).await?;
        say(&format!(
            "round {}: limit {:.0}/s, live {:.0}/s ({:.2}), CPU {:.1} of {:.1} us ({:.2})",
            rounds.len() + 1,
            round.limit(cores),
            round.live.rate,
            round.live.rate / round.limit(cores),
            round.live.cost.sum(),
            cores as f64 * 1e6 / round.limit(cores),
            cores as f64 * 1e6 / round.limit(cores) / round.live.cost.sum(),
        ));
        say(&format!("{round:#?}"));
        rounds.push(round);
        let limits: Vec<f64> = rounds.iter().map(|round| round.limit(cores)).collect();
        for (round, is_busy) in rounds.iter_mut().zip(busy(&limits)) {
            round.is_busy = is_busy;
        }
    }
    for hosts in after {
        growth.push(bench.growth(hosts, &say).await?);
    }
    let postgres: String = sqlx::query_scalar("show server_version")
        .fetch_one(&mut bench.own)
        .await?;
    let request_bytes = bench.request_bytes()?;
    bench.stop().await?;
    Ok(Results {
        options,
        cores,
        machine: machine::describe()?,
        postgres,
        rounds,
        growth,
        request_bytes,
    })
}

impl Bench {
    async fn start(options: Options) -> anyhow::Result<Self> {
        let dir = reachable_tempdir()?;
        let subject = Subject::start(dir.path()).await?;
        let front = Front::start(dir.path(), &subject.ca_dir).await?;
        let registry = Arc::new(Registry::open(&subject.ca_dir)?);
        let own = PgConnection::connect_with(&subject.own).await?;
        let loader = PgConnection::connect_with(&subject.loader).await?;
        Ok(Self {
            options,
            dir,
            subject,
            front,
            registry,
            members: Vec::new(),
            senders: VecDeque::new(),
            own,
            loader,
        })
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.own.close().await?;
        self.loader.close().await?;
        drop(self.front);
        self.subject.stop().await?;
        self.dir.close().context("cannot remove the directory")
    }

    async fn grow(&mut self, count: usize) -> anyhow::Result<()> {
        let had = self.members.len();
        let mut databases = [&mut self.own, &mut self.loader];
        self.registry
            .grow(&mut self.members, count, &mut databases)
            .await?;
        let new = self.members.iter().enumerate().skip(had);
        let new = new.map(|(index, member)| Sender::new(index, member.clone()));
        self.senders.extend(new);
        // Whoever is taken together is not of one page of the tables.
        let mut random = StdRng::seed_from_u64(count as u64);
        self.senders.make_contiguous().shuffle(&mut random);
        Ok(())
    }

    fn request_bytes(&mut self) -> anyhow::Result<usize> {
        let sender = self.senders.front_mut().context("there is a host")?;
        let mut request = Vec::new();
        sender.live(&mut request)?;
        Ok(request.len())
    }

    async fn round(&mut self, cores: usize) -> anyhow::Result<Round> {
        let load = machine::load()?;
        let front = self.front().await?;
        let loader = self.loader(Rows::Heartbeats, self.options.lasts).await?;
        let mut round = Round {
            front,
            loader,
            load,
            ..Round::default()
        };
        self.live_and_half(&mut round).await?;
        round.beats = self.replay("heartbeats", Sender::beats).await?;
        round.event_loader = self.loader(Rows::Events, self.options.lasts / 2).await?;
        round.events = self.replay("events", Sender::events).await?;
        anyhow::ensure!(round.limit(cores).is_finite(), "a baseline has no cost");
        Ok(round)
    }

    async fn front(&mut self) -> anyhow::Result<Measured> {
        let (lines, _) = self.open(self.front.address, CONNECTIONS).await?;
        let (lines, _) = drive::live(lines, self.load(WARM_UP, None)).await?;
        let before = (cpu::of_process(self.front.process.pid())?, cpu::of_self()?);
        let (lines, driven) = drive::live(lines, self.load(self.options.lasts, None)).await?;
        let front = cpu::of_process(self.front.process.pid())?.saturating_sub(before.0);
        let client = cpu::of_self()?.saturating_sub(before.1);
        self.senders.extend(drive::close(lines));
        let (zero, count) = (Duration::ZERO, driven.acknowledged);
        Ok(measured(&driven, count, (front, zero, client)))
    }

    async fn loader(&mut self, rows: Rows, lasts: Duration) -> anyhow::Result<Measured> {
        members::empty(&mut self.loader).await?;
        let (options, pid) = (&self.subject.loader, self.subject.postmaster);
        loader::load(options, &self.members, rows, WARM_UP / 2).await?;
        members::empty(&mut self.loader).await?;
        let before = (cpu::of_family(pid)?, cpu::of_self()?);
        let loaded = loader::load(options, &self.members, rows, lasts).await?;
        let postgres = cpu::of_family(pid)?.saturating_sub(before.0);
        let client = cpu::of_self()?.saturating_sub(before.1);
        let stored = match rows {
            Rows::Heartbeats => count(&mut self.loader, "heartbeats").await?,
            Rows::Events => count(&mut self.loader, "events").await?,
        };
        anyhow::ensure!(
            stored == loaded.rows,
            "the loader stored {stored} of {}",
            loaded.rows
        );
        Ok(Measured {
            rate: loaded.rate(),
            cost: cost(loaded.rows, (Duration::ZERO, postgres, client)),
            ..Measured::default()
        })
    }

    async fn live_and_half(&mut self, round: &mut Round) -> anyhow::Result<()> {
        members::empty(&mut self.own).await?;
        let rss = self.subject.process.memory_bytes("VmRSS")?;
        let (lines, opened) = self.open(self.subject.agents, CONNECTIONS).await?;
        round.connections = lines.len();
        round.rss = (rss, self.subject.process.memory_bytes("VmRSS")?);
        let (lines, warm) = drive::live(lines, self.load(WARM_UP, None)).await?;
        let before = Counters::read(&mut self.own).await?;
        let (lines, driven) = self
            .measure(lines, self.options.lasts, None, &mut round.live)
            .await?;
        round.acknowledged = driven.acknowledged;
        let after = Counters::read(&mut self.own).await?;
        round.counters = after.since(before);
        let rate = Some(round.live.rate / 2.0);
        let (lines, half) = self
            .measure(lines, self.options.lasts, rate, &mut round.half)
            .await?;
        self.senders.extend(drive::close(lines));
        self.verify("heartbeats", 1, &[opened, warm, driven, half])
            .await
    }

    /// A run over open lines, measured.
    async fn measure(
        &self,
        lines: Vec<Line>,
        lasts: Duration,
        rate: Option<f64>,
        into: &mut Measured,
    ) -> anyhow::Result<(Vec<Line>, Driven)> {
        let before = self.cpu()?;
        let (lines, driven) = drive::live(lines, self.load(lasts, rate)).await?;
        *into = measured(&driven, driven.acknowledged, self.cpu_since(before)?);
        Ok((lines, driven))
    }

    async fn replay(
        &mut self,
        table: &'static str,
        encode: fn(&mut Sender, i64, usize) -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<Measured> {
        let records = REPLAYED_PER_S as f64 * self.options.lasts.as_secs_f64() / 2.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "some hundred"
        )]
        let hosts = (records / (BATCHES * BATCH_RECORDS) as f64).ceil() as usize;
        let (mut lines, _) = self.open(self.subject.agents, hosts).await?;
        members::empty(&mut self.own).await?;
        let share_ms = BACKLOG_MS / i64::try_from(BATCHES)?;
        drive::queue(&mut lines, |sender| {
            let age_ms = (0..BATCHES).map(|batch| BACKLOG_MS - share_ms * batch as i64);
            age_ms
                .map(|age_ms| encode(sender, age_ms, BATCH_RECORDS))
                .collect()
        })?;
        let before = self.cpu()?;
        let (lines, driven) = drive::replay(lines, REPLAYS).await?;
        let records = driven.acknowledged * BATCH_RECORDS as u64;
        let result = measured(&driven, records, self.cpu_since(before)?);
        self.senders.extend(drive::close(lines));
        self.verify(table, BATCH_RECORDS as u64, &[driven]).await?;
        Ok(result)
    }

    /// Loader and collector in turns, at a number of hosts.
    async fn growth(&mut self, hosts: usize, say: &impl Fn(&str)) -> anyhow::Result<Growth> {
        self.grow(hosts).await?;
        let mut growth = Growth {
            hosts,
            live: Vec::new(),
            loader: Vec::new(),
        };
        let lasts = self.options.lasts / 2;
        for _ in 0..hosts.div_ceil(CONNECTIONS).max(3) {
            let loader = self.loader(Rows::Heartbeats, lasts).await?;
            members::empty(&mut self.own).await?;
            let (lines, opened) = self.open(self.subject.agents, CONNECTIONS).await?;
            let (lines, warm) = drive::live(lines, self.load(WARM_UP, None)).await?;
            let mut live = Measured::default();
            let (lines, driven) = self.measure(lines, lasts, None, &mut live).await?;
            self.senders.extend(drive::close(lines));
            self.verify("heartbeats", 1, &[opened, warm, driven])
                .await?;
            growth.live.push(live.cost.front + live.cost.postgres);
            growth.loader.push(loader.cost.sum());
        }
        say(&format!("{growth:?}"));
        Ok(growth)
    }

    /// Connections of the hosts whose turn it is.
    async fn open(
        &mut self,
        address: std::net::SocketAddr,
        most: usize,
    ) -> anyhow::Result<(Vec<Line>, Driven)> {
        let target = Target {
            address,
            name: self.registry.server_name()?,
        };
        let some = most.min(self.senders.len());
        let senders = self.senders.drain(..some).collect();
        drive::open(&self.registry, &target, senders).await
    }

    fn load(&self, lasts: Duration, rate: Option<f64>) -> Load {
        Load {
            in_flight: self.options.in_flight,
            lasts,
            rate,
        }
    }

    /// CPU time of the collector, of Postgres, and of the generator.
    fn cpu(&self) -> anyhow::Result<(Duration, Duration, Duration)> {
        Ok((
            cpu::of_process(self.subject.process.pid())?,
            cpu::of_family(self.subject.postmaster)?,
            cpu::of_self()?,
        ))
    }

    fn cpu_since(
        &self,
        before: (Duration, Duration, Duration),
    ) -> anyhow::Result<(Duration, Duration, Duration)> {
        let now = self.cpu()?;
        Ok((
            now.0.saturating_sub(before.0),
            now.1.saturating_sub(before.1),
            now.2.saturating_sub(before.2),
        ))
    }

    /// What was acknowledged is in the table, once; what was refused may be.
    async fn verify(&mut self, table: &str, each: u64, driven: &[Driven]) -> anyhow::Result<()> {
        let stored = count(&mut self.own, table).await?;
        let acknowledged: u64 = driven.iter().map(|one| one.acknowledged * each).sum();
        let refused: u64 = driven.iter().map(|one| one.refused() * each).sum();
        anyhow::ensure!(
            (acknowledged..=acknowledged + refused).contains(&stored),
            "{table} has {stored} rows, acknowledged were {acknowledged}, refused {refused}"
        );
        Ok(())
    }
}

async fn count(database: &mut PgConnection, table: &str) -> anyhow::Result<u64> {
    // The collector has events of its own, such as a host's silence: those are of no stream.
    let sql = format!("select count(*) from {table} where stream is not null");
    let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .fetch_one(database)
        .await?;
    Ok(count.unsigned_abs())
}

fn measured(driven: &Driven, rows: u64, cpu: (Duration, Duration, Duration)) -> Measured {
    Measured {
        rate: rows as f64 / driven.elapsed.as_secs_f64(),
        cost: cost(rows, cpu),
        p50_ms: driven.latency_ms(0.5),
        p99_ms: driven.latency_ms(0.99),
        refused: driven.refused(),
    }
}

fn cost(rows: u64, (front, postgres, client): (Duration, Duration, Duration)) -> Cost {
    let each = |time: Duration| time.as_secs_f64() * 1e6 / rows as f64;
    Cost {
        front: each(front),
        postgres: each(postgres),
        client: each(client),
    }
}
