//! Group commit: what arrives within a few milliseconds becomes one transaction.
//!
//! Each writer has its share of the hosts, so a host's batches stay in order. An answer is given only
//! after COMMIT; a COMMIT whose outcome is unknown is "not stored", and the resend finds out.

mod clones;
mod flush;
pub(crate) mod json;
mod plan;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use infratrack_shared::ids::HostId;
use infratrack_shared::wire::answer::Ack;
use infratrack_shared::wire::batch::Batch;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgPool};
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tracing::Span;

use crate::clock::Clock;
use crate::condition::Condition;
use crate::config::{Ingest, Retention};
use crate::store::{self, failure};
use crate::traces;

/// The server limits its statements by itself; this is for one that is gone without a word. Shorter than
/// agents wait for an answer.
const FLUSH: Duration = Duration::from_secs(15);

/// A connection that was idle for longer is tried before it is used.
const TRUSTED: Duration = Duration::from_millis(500);

/// One batch on its way to the tables.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whom the certificate names.
    pub host: HostId,
    pub address: IpAddr,
    /// Boxed: it is handed on a few times.
    pub batch: Box<Batch>,
    pub received_at: OffsetDateTime,
    /// Agent's clock less ours.
    pub skew_ms: i64,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Committed, as that host's: the certificate's, or the hidden one of its clone.
    Stored { host: HostId, ack: Ack },
    /// Its stream is shared by two copies of the host; nothing was stored.
    Forked,
    /// Its process is a clone that was set apart; nothing was stored, it has to use a stream of its own.
    SetApart,
    /// Its process is a clone that an operator dropped.
    Blocked,
    /// Its process was replaced while it was under way; nothing was stored, if it lives it sends again.
    InFlight,
    /// Not stored, or not known to be.
    Unavailable,
    /// The database takes it under no circumstances.
    Refused(String),
}

/// Why a batch was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

struct Queued {
    report: Report,
    rows: usize,
    reply: oneshot::Sender<Outcome>,
    /// Of the request that it came with, where that is traced.
    span: Span,
    _bytes: OwnedSemaphorePermit,
}

/// The way in: queues bounded by count and bytes, one for each writer.
#[derive(Debug)]
pub struct Writers {
    queues: Vec<mpsc::Sender<Queued>>,
    bytes: Arc<Semaphore>,
    condition: Arc<Condition>,
}

/// What a writer works with.
#[derive(Clone, Debug)]
struct Writer {
    pool: PgPool,
    /// A connection for each writer: each has few backends to itself, whose caches are warm.
    own: PgPool,
    /// Half of the writers store live heartbeats while the others commit theirs: all at once, each of their
    /// backends would take longer.
    turn: Arc<Semaphore>,
    condition: Arc<Condition>,
    clock: Clock,
    linger: Duration,
    flush_rows: usize,
    heartbeats_kept: time::Duration,
}

impl Writers {
    /// Starts the writers; they end when this is dropped and their queues are empty.
    pub fn start(pool: &PgPool, clock: &Clock, ingest: &Ingest, retention: &Retention) -> Self {
        let condition = Arc::new(Condition::default());
        let writer = Writer {
            pool: pool.clone(),
            own: own_pool(pool, ingest.writers),
            turn: Arc::new(Semaphore::new(ingest.writers.div_ceil(2))),
            condition: Arc::clone(&condition),
            clock: clock.clone(),
            linger: ingest.linger,
            flush_rows: ingest.flush_rows,
            heartbeats_kept: retention
                .heartbeats
                .try_into()
                .unwrap_or(time::Duration::MAX),
        };
        let queues = (0..ingest.writers).map(|_| {
            let (sender, receiver) = mpsc::channel(ingest.queue_requests.div_ceil(ingest.writers));
            tokio::spawn(writer.clone().run(receiver));
            sender
        });
        Self {
            queues: queues.collect(),
            bytes: Arc::new(Semaphore::new(ingest.queue_bytes)),
            condition,
        }
    }

    /// Queues a batch of `size` decoded bytes and waits for its outcome.
    pub async fn write(&self, report: Report, size: usize) -> Result<Outcome, QueueFull> {
        let permits = u32::try_from(size).unwrap_or(u32::MAX);
        let bytes = Arc::clone(&self.bytes)
            .try_acquire_many_owned(permits)
            .map_err(|_| QueueFull)?;
        let shard = usize::from(report.host.0.as_bytes().last().copied().unwrap_or(0));
        let queue = self
            .queues
            .get(shard % self.queues.len())
            .ok_or(QueueFull)?;
        let rows = plan::rows(&report.batch);
        let (reply, outcome) = oneshot::channel();
        queue
            .try_send(Queued {
                report,
                rows,
                reply,
                span: traces::current(),
                _bytes: bytes,
            })
            .map_err(|_| QueueFull)?;
        Ok(outcome.await.unwrap_or(Outcome::Unavailable))
    }

    /// Whether what was written last was stored.
    pub fn condition(&self) -> &Condition {
        &self.condition
    }

    /// How full the fullest queue is, 0 to 1.
    pub fn load(&self) -> f64 {
        let used = |queue: &mpsc::Sender<Queued>| {
            1.0 - queue.capacity() as f64 / queue.max_capacity() as f64
        };
        self.queues.iter().map(used).fold(0.0, f64::max)
    }
}

impl Writer {
    async fn run(self, mut queue: mpsc::Receiver<Queued>) {
        while let Some(first) = queue.recv().await {
            let deadline = Instant::now() + self.linger;
            let mut rows = first.rows;
            let mut group = vec![first];
            while rows < self.flush_rows {
                // Under load no timer is needed.
                let next = match queue.try_recv() {
                    Ok(next) => Some(next),
                    Err(_) => tokio::time::timeout_at(deadline, queue.recv())
                        .await
                        .unwrap_or(None),
                };
                let Some(next) = next else { break };
                rows += next.rows;
                group.push(next);
            }
            self.commit(group).await;
        }
    }

    async fn commit(&self, group: Vec<Queued>) {
        let busy = plan::busy_hosts(group.iter().map(|queued| &queued.report));
        let (others, live): (Vec<_>, Vec<_>) = group
            .into_iter()
            .partition(|queued| busy.contains(&queued.report.host));
        // Those that lock more than their hosts' rows are slower: the others don't wait for them.
        for some in [live, others] {
            if some.is_empty() {
                continue;
            }
            let rows = some.iter().map(|queued| queued.rows).sum();
            let spans: Vec<_> = some.iter().map(|queued| queued.span.clone()).collect();
            let (reports, replies): (Vec<_>, Vec<_>) = some
                .into_iter()
                .map(|queued| (queued.report, queued.reply))
                .unzip();
            let reports: Vec<_> = reports.iter().collect();
            let span = traces::flush(&spans, rows);
            let outcomes = traces::within(span.clone(), self.store(&reports)).await;
            if outcomes.contains(&Outcome::Unavailable) {
                traces::has_failed(&span, "unavailable");
            }
            for (reply, outcome) in replies.into_iter().zip(outcomes) {
                // Whoever asked may be gone; what is stored stays stored.
                drop(reply.send(outcome));
            }
        }
    }

    /// Stores `reports` in one transaction; tries again where that can help, and in halves where one of
    /// them is at fault. Those whose process is not in place come after, each in one of its own.
    async fn store(&self, reports: &[&Report]) -> Vec<Outcome> {
        let mut careful = false;
        for attempt in 1..=4_u32 {
            let flush = tokio::time::timeout(FLUSH, flush::flush(self, reports, careful));
            let error = match flush.await {
                Ok(Ok(outcomes)) => {
                    self.condition.succeeded();
                    return self.store_left(reports, outcomes).await;
                }
                Ok(Err(error)) => error,
                // Its COMMIT may have arrived: the resend finds out.
                Err(elapsed) => sqlx::Error::Io(elapsed.into()),
            };
            match kind(&error) {
                Failure::Data if !careful => careful = true,
                Failure::Data if reports.len() > 1 => {
                    let (left, right) = reports.split_at(reports.len() / 2);
                    let mut outcomes = Box::pin(self.store(left)).await;
                    outcomes.extend(Box::pin(self.store(right)).await);
                    return outcomes;
                }
                Failure::Data => return vec![Outcome::Refused(error.to_string())],
                Failure::Passing if attempt < 4 => {
                    let jitter = Duration::from_millis(rand::random_range(20..200));
                    tokio::time::sleep(jitter).await;
                }
                Failure::Passing | Failure::Lasting => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        attempt,
                        "cannot store a group of batches"
                    );
                    self.condition.failed(failure::words(&error));
                    break;
                }
            }
        }
        reports.iter().map(|_| Outcome::Unavailable).collect()
    }

    /// Stores those that a group left, in order.
    async fn store_left(
        &self,
        reports: &[&Report],
        outcomes: Vec<Option<Outcome>>,
    ) -> Vec<Outcome> {
        let mut all = Vec::with_capacity(reports.len());
        for (report, outcome) in reports.iter().zip(outcomes) {
            all.push(match outcome {
                Some(outcome) => outcome,
                None => Box::pin(self.store(&[*report]))
                    .await
                    .pop()
                    .unwrap_or(Outcome::Unavailable),
            });
        }
        all
    }
}

/// The writers' connections. Every join of theirs is of a sorted list with one row for each of its keys: it
/// is to be looked up in that order, which is also the order of the locks, however large the table is.
fn own_pool(pool: &PgPool, writers: usize) -> PgPool {
    let options = PgConnectOptions::clone(&pool.connect_options()).options([
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
    ]);
    store::pool::options(u32::try_from(writers).unwrap_or(u32::MAX))
        .test_before_acquire(false)
        .before_acquire(|connection, idle| {
            Box::pin(async move {
                if idle.idle_for > TRUSTED {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// A row is at fault (SQLSTATE class 22 or 23): find it and store the rest.
    Data,
    /// Serialization, deadlock, a lock or statement that took too long.
    Passing,
    /// The connection or the server: whoever sent it keeps it.
    Lasting,
}

/// PostgreSQL, appendix A: error codes.
fn kind(error: &sqlx::Error) -> Failure {
    let error = error.as_database_error();
    let code = error
        .and_then(sqlx::error::DatabaseError::code)
        .unwrap_or_default();
    match code.get(..2) {
        // A check without a name is a partition that is not there, as after a jump of our clock: the fault
        // is ours, and a job will make one.
        Some("23") if code == "23514" && error.and_then(|error| error.constraint()).is_none() => {
            Failure::Lasting
        }
        Some("22" | "23") => Failure::Data,
        Some("40") => Failure::Passing,
        Some("55" | "57") if code != "57P01" && code != "57P03" => Failure::Passing,
        _ => Failure::Lasting,
    }
}
