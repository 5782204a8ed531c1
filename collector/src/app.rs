//! The shared state of one collector process: what every listener and job works with.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use infratrack_shared::ids::{CollectorId, HostId};
use infratrack_shared::wire::answer::{Intervals, Policy};
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::sync::{Semaphore, watch};

use crate::agents::backup::{self, Memory};
use crate::agents::certificates::Certificates;
use crate::agents::commands::Answers;
use crate::agents::lane::Lane;
use crate::agents::writer::Writers;
use crate::api::changes::compare::Compared;
use crate::api::ingest;
use crate::blob::BlobStore;
use crate::ca::Ca;
use crate::ca::live::LiveCa;
use crate::changes::terraform::Table;
use crate::clock::Clock;
use crate::condition::Condition;
use crate::config::Config;
use crate::jobs::liveness::Silence;
use crate::live::Live;
use crate::login::fixed_token::FixedTokens;
use crate::login::oidc::provider::Provider;
use crate::login::proxy::TrustedProxy;
use crate::login::{Trust, Turns};
use crate::metrics::Metrics;
use crate::offered::Offered;
use crate::rate::{OneEach, Rates};

/// One collector's state.
#[derive(Debug)]
pub struct App {
    pub id: CollectorId,
    pub started_at: OffsetDateTime,
    pub config: Config,
    pub clock: Clock,
    pub pool: PgPool,
    pub ca: LiveCa,
    pub blob: BlobStore,
    pub answers: Arc<Answers>,
    pub certificates: Certificates,
    pub writers: Writers,
    /// Of large state.
    pub lane: Lane,
    /// Of the sign of life.
    pub alive: Condition,
    /// Of new connections to Postgres.
    pub connects: Condition,
    /// It was told to stop.
    pub draining: AtomicBool,
    pub rates: Rates<HostId>,
    /// Of requests with plays; a host's own share beside that of its batches.
    pub play_rates: Rates<HostId>,
    /// One of these at a time.
    pub play_turns: OneEach<HostId>,
    /// Of requests about backups.
    pub backup_rates: Rates<HostId>,
    /// For packs and snapshots that arrive.
    pub backup_memory: Memory,
    /// Of operators' credentials.
    pub operator_rates: Rates<String>,
    pub metrics: Metrics,
    /// Tokens that stand in files.
    pub fixed_tokens: FixedTokens,
    /// Whose word for a user is taken.
    pub proxy: TrustedProxy,
    /// Who else logs people in.
    pub oidc: Option<Arc<Provider>>,
    /// For checking passwords.
    pub password_turns: Turns,
    /// The audit log is verified by one request at a time.
    pub verifying: Semaphore,
    /// Of documents that are posted and read.
    pub ingesting: Semaphore,
    /// What in them tells hosts.
    pub link_table: Arc<Table>,
    /// The policy in force; its job replaces it.
    pub policy: watch::Sender<Policy>,
    /// When no collector was alive, to judge silence by.
    pub silence: Silence,
    /// Who watches hosts on open pages.
    pub live: Arc<Live>,
    /// What filters of hosts offer.
    pub offered: Offered,
    /// Plans that were held against what was applied.
    pub compared: Compared,
}

impl App {
    /// Puts the state together. Needs a tokio runtime: the writers start here.
    pub fn new(
        config: Config,
        clock: Clock,
        pool: PgPool,
        ca: LiveCa,
        blob: BlobStore,
        trust: Trust,
    ) -> Arc<Self> {
        let answers = Arc::new(Answers::default());
        let certificates = Certificates::new(pool.clone(), clock.clone(), Arc::clone(&answers));
        let writers = Writers::start(&pool, &clock, &config.ingest, &config.retention);
        let lane = Lane::start(&pool, &clock, &config.patches);
        let shares = &config.ingest;
        let rates = Rates::new(shares.host_batches_per_second, shares.host_batches_burst);
        let play_rates = Rates::new(shares.host_batches_per_second, shares.host_batches_burst);
        let backup_rates = Rates::new(backup::PER_SECOND, backup::BURST);
        let backup_memory = Memory::new(config.backups.pack_memory_bytes);
        let operators = &config.operators;
        let operator_rates = Rates::new(operators.requests_per_second, operators.requests_burst);
        let policy = watch::Sender::new(default_policy(&config, &ca.load()));
        let silence = Silence::new(&config.liveness);
        let link_table = Arc::new(Table::with(&config.changes.links));
        let (id, started_at) = (CollectorId::at(clock.unix_millis()), clock.now());
        Arc::new(Self {
            id,
            started_at,
            config,
            clock,
            pool,
            ca,
            blob,
            answers,
            certificates,
            writers,
            lane,
            alive: Condition::default(),
            connects: Condition::default(),
            draining: AtomicBool::default(),
            rates,
            play_rates,
            play_turns: OneEach::default(),
            backup_rates,
            backup_memory,
            operator_rates,
            metrics: Metrics::default(),
            fixed_tokens: trust.fixed_tokens,
            proxy: trust.proxy,
            oidc: trust.oidc,
            password_turns: Turns::default(),
            verifying: Semaphore::new(1),
            ingesting: Semaphore::new(ingest::AT_ONCE),
            link_table,
            policy,
            silence,
            live: Arc::default(),
            offered: Offered::default(),
            compared: Compared::default(),
        })
    }
}

/// What agents are asked where no operator said otherwise: version 1, so that every agent takes it.
fn default_policy(config: &Config, ca: &Ca) -> Policy {
    let millis =
        |duration: std::time::Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    Policy {
        version: policy_version(ca, 1),
        intervals: Intervals {
            heartbeat_ms: millis(config.agents.heartbeat_interval),
            facts_ms: millis(config.agents.facts_interval),
        },
        trust_bundle: ca.trust_bundle(),
        ..Policy::default()
    }
}

/// A policy's version as agents compare it: a change of the CA's generations makes every policy a newer one.
pub fn policy_version(ca: &Ca, version: u64) -> u64 {
    u64::from(ca.change()) << 32 | version
}
