//! The durable queue between what the agent observes and what a collector has committed.
//!
//! A critical record that [`Spool::append`] took survives power loss and is sent in order until it
//! is acknowledged, or its loss is counted: a range of numbers with a reason, on disk before what it
//! covers is gone. Sources append; the uplink calls [`Spool::next`] and reports back what the
//! collector answered. sled lives in a process that ends when it is idle; the same queue runs in memory for tests
//! and simulated fleets. How the files are laid out: [`files`]; how a damaged one opens: [`open`].

mod apart;
mod append;
mod backend;
mod cursor;
mod disk;
mod files;
mod lane;
mod ledger;
mod memory;
mod newer;
mod open;
mod order;
mod pieces;
mod probe;
mod queue;
mod quota;
mod rebuild;
mod record;
mod salvage;
mod sled;
mod worker;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use infratrack_shared::codec::{DecodeError, EncodeError};
use infratrack_shared::ids::{BootId, StreamId};
use infratrack_shared::limits;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::answer::{Cursor, Expected};
use infratrack_shared::wire::batch::{Body, Class, Part};
use infratrack_shared::wire::event::SpoolDamaged;
use infratrack_shared::wire::heartbeat::SpoolUsage;
use thiserror::Error;

use backend::BackendError;
use ledger::Ledger;
use memory::Medium;
use queue::Queue;

pub use apart::store_main;
pub use probe::probe_main;

/// How long [`Spool::close`] waits for the disk.
const CLOSE: Duration = Duration::from_secs(5);
/// The longest content of a small value, in bytes.
const VALUE_BYTES: usize = limits::STRING_BYTES;

/// Where the spool lies and how big it may get.
#[derive(Clone, Debug)]
pub struct SpoolConfig {
    /// Made with mode 0700 where it is missing; nothing else may be in it.
    pub dir: PathBuf,
    /// What the spool may take on disk.
    pub quota_bytes: u64,
    /// The agent's binary, run as `spool-probe` before the spool is opened, so that a panic, a hang or a
    /// huge allocation over a damaged file is a child's, and as `spool-store` while it is used, so that sled's
    /// threads end when it is not. `None`: all of it in this process.
    pub program: Option<PathBuf>,
    /// The store is closed, and its process ends, when nobody asked for it this long.
    pub idle: Duration,
}

impl SpoolConfig {
    /// The default quota (128 MiB), all in this process.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            quota_bytes: 128 * 1024 * 1024,
            program: None,
            idle: Duration::from_mins(1),
        }
    }
}

/// A record without its number.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRecord {
    pub at: UnixMillis,
    pub mono_ms: u64,
    pub boot_id: BootId,
    pub kind: String,
    pub body: Body,
}

/// What a batch has room for.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    pub records: usize,
    /// Encoded, before compression.
    pub bytes: usize,
    pub items: usize,
}

/// What to send next. At most one part a class, all of one stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    pub stream: StreamId,
    pub parts: Vec<Part>,
}

/// What an acknowledgement did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// A cursor moved forward.
    pub advanced: bool,
    /// Streams whose cursor is above anything this spool ever numbered: to be forked.
    pub forked: Vec<StreamId>,
}

/// What an expectation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewound {
    /// A cursor moved back: the collector had lost commits.
    pub went_back: bool,
    /// As [`Acknowledged::forked`].
    pub forked: Vec<StreamId>,
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpenReport {
    /// There was no spool: this is the first start, or the directory was emptied.
    pub fresh: bool,
    /// One for each stream that was in a damaged spool, ready to be sent. Comes again at the next
    /// opening until [`Spool::damage_told`].
    pub damaged: Vec<SpoolDamaged>,
    /// Where the damaged files are.
    pub moved_to: Option<PathBuf>,
    /// Records a newer version wrote: kept, not sent.
    pub unread_records: u64,
    /// Where a spool is that a newer version wrote: kept for that version, which sends it.
    pub newer: Option<PathBuf>,
}

/// Why the spool could not do as asked.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// Sources keep their place and come again later.
    #[error("the spool's disk is full")]
    DiskFull,
    /// Closed after an error; opens itself again within a minute.
    #[error("the spool is closed after a disk error and will be opened again")]
    Pausing,
    #[error("the spool can't {doing}")]
    Io {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the spool is damaged: {detail}")]
    Damaged { detail: String },
    #[error("{bytes} bytes are over the limit of a record or value")]
    TooLarge { bytes: usize },
    #[error("a record can't be encoded")]
    Encode(#[source] EncodeError),
    #[error("a record is beyond what may be sent")]
    Unreadable(#[source] DecodeError),
    #[error("another process holds the spool in {dir}")]
    Held { dir: PathBuf },
    #[error("the spool is closed")]
    Closed,
}

impl From<BackendError> for SpoolError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Full => Self::DiskFull,
            BackendError::Pausing => Self::Pausing,
            BackendError::Io { doing, source } => Self::Io { doing, source },
            BackendError::Damaged(detail) => Self::Damaged { detail },
        }
    }
}

/// A handle to the queue; clones are the same queue.
#[derive(Clone)]
pub struct Spool {
    home: Home,
    status: Arc<Mutex<Status>>,
}

#[derive(Clone)]
enum Home {
    Disk(worker::Worker),
    Memory(Arc<Mutex<Queue>>),
}

/// What can be asked without waiting.
#[derive(Clone, Copy, Debug)]
struct Status {
    stream: StreamId,
    usage: SpoolUsage,
}

impl Status {
    fn of(queue: &mut Queue) -> Self {
        Self {
            stream: queue.ledger.current.stream,
            usage: queue.usage(),
        }
    }
}

impl Spool {
    /// Opens the spool in `config.dir`, whatever state it is in. Fails only where the directory
    /// can't be used at all.
    pub async fn open(
        config: SpoolConfig,
        now: UnixMillis,
    ) -> Result<(Self, OpenReport), SpoolError> {
        let (mut queue, report) = open::open(&config, now).await?;
        let status = Arc::new(Mutex::new(Status::of(&mut queue)));
        let worker = worker::Worker::start(queue, Arc::clone(&status))?;
        let home = Home::Disk(worker);
        Ok((Self { home, status }, report))
    }

    /// A spool that dies with the process, without a thread of its own.
    pub fn in_memory(now: UnixMillis) -> Self {
        let ledger = Ledger::new(StreamId::at(now));
        let store = Medium::default().generation(ledger.generation);
        let mut queue = Queue::new(Box::new(store), ledger, u64::MAX);
        let status = Arc::new(Mutex::new(Status::of(&mut queue)));
        Self {
            home: Home::Memory(Arc::new(Mutex::new(queue))),
            status,
        }
    }

    /// Takes records, all or none, and answers the last one's number.
    ///
    /// They survive power loss when this returns. On an error critical ones were not taken, and the
    /// source keeps its place; beats are counted as lost and must not come again.
    pub async fn append(&self, class: Class, records: Vec<NewRecord>) -> Result<u64, SpoolError> {
        let values = encoded(&records)?;
        match &self.home {
            Home::Disk(worker) => worker.append(class, values).await,
            Home::Memory(_) => {
                let appended = self
                    .run(move |queue| queue.append(&[(class, values)]))
                    .await?;
                Ok(appended.into_iter().sum())
            }
        }
    }

    /// [`Spool::append`] of critical records, and [`Spool::put`], in one: whatever happens, it is both or neither.
    pub async fn append_with(
        &self,
        records: Vec<NewRecord>,
        name: &str,
        value: Bytes,
    ) -> Result<(), SpoolError> {
        check_value(name, &value)?;
        let (values, name) = (encoded(&records)?, name.to_owned());
        self.run(move |queue| queue.append_with(values, &name, value))
            .await
    }

    /// The oldest that is not acknowledged, within `budget` (one record is always allowed). Asking
    /// again without an acknowledgement answers the same. Records of another boot than `boot_id`
    /// name theirs.
    pub async fn next(
        &self,
        budget: Budget,
        boot_id: BootId,
    ) -> Result<Option<Outgoing>, SpoolError> {
        self.run(move |queue| queue.next(budget, boot_id)).await
    }

    /// The collector has committed up to `cursors`. Cursors of unknown streams and backward ones are
    /// ignored.
    pub async fn acknowledge(
        &self,
        cursors: &[Cursor],
        now: UnixMillis,
    ) -> Result<Acknowledged, SpoolError> {
        let cursors = cursors.to_vec();
        self.run(move |queue| {
            let acknowledged = queue.acknowledge(&cursors, now)?;
            if let Err(error) = queue.reclaim() {
                tracing::warn!(%error, "spool: no rotation");
            }
            Ok(acknowledged)
        })
        .await
    }

    /// The collector expects these numbers next. Going back as far as records are kept (15 minutes,
    /// 4 MiB); what is no longer kept is declared lost.
    pub async fn rewind(
        &self,
        expected: &[Expected],
        now: UnixMillis,
    ) -> Result<Rewound, SpoolError> {
        let expected = expected.to_vec();
        self.run(move |queue| queue.rewind(&expected, now)).await
    }

    /// Gives everything of `stream` that is not acknowledged a stream of its own, from number 1. `None` where
    /// the spool holds no such stream.
    pub async fn fork(
        &self,
        stream: StreamId,
        now: UnixMillis,
    ) -> Result<Option<StreamId>, SpoolError> {
        self.run(move |queue| queue.fork(stream, now)).await
    }

    /// The collector refused this record even alone: it becomes a loss.
    pub async fn refuse(&self, stream: StreamId, class: Class, seq: u64) -> Result<(), SpoolError> {
        self.run(move |queue| queue.refuse(stream, class, seq))
            .await
    }

    /// The stream new records join, and heartbeats name.
    pub fn stream(&self) -> StreamId {
        self.status().stream
    }

    /// A heartbeat number that no other heartbeat has, over restarts and crashes.
    pub async fn heartbeat_number(&self) -> Result<u64, SpoolError> {
        self.run(Queue::heartbeat_number).await
    }

    /// A small value by its name.
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>, SpoolError> {
        let name = name.to_owned();
        self.run(move |queue| queue.get(&name)).await
    }

    /// Sets a small value (64 KiB at most, its name 32 bytes); survives power loss when this returns.
    pub async fn put(&self, name: &str, value: Bytes) -> Result<(), SpoolError> {
        check_value(name, &value)?;
        let name = name.to_owned();
        self.run(move |queue| queue.put(&name, Some(value))).await
    }

    /// Removes a small value; as durable as [`Spool::put`].
    pub async fn remove(&self, name: &str) -> Result<(), SpoolError> {
        let name = name.to_owned();
        self.run(move |queue| queue.put(&name, None)).await
    }

    /// What [`OpenReport::damaged`] said is appended as events.
    pub async fn damage_told(&self) -> Result<(), SpoolError> {
        self.run(Queue::damage_told).await
    }

    /// What the heartbeat says of the spool.
    pub fn usage(&self) -> SpoolUsage {
        self.status().usage
    }

    /// Brings everything to the disk and lets go of it; other handles get [`SpoolError::Closed`].
    /// Gives up after 5 seconds.
    pub async fn close(self) -> Result<(), SpoolError> {
        match &self.home {
            Home::Memory(_) => self.run(Queue::close).await,
            Home::Disk(worker) => tokio::time::timeout(CLOSE, worker.close())
                .await
                .unwrap_or(Err(SpoolError::Closed)),
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Queue) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        match &self.home {
            Home::Disk(worker) => worker.run(work).await,
            Home::Memory(queue) => {
                let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                let done = work(&mut queue);
                *self.status.lock().unwrap_or_else(PoisonError::into_inner) =
                    Status::of(&mut queue);
                Ok(done?)
            }
        }
    }

    fn status(&self) -> Status {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn encoded(records: &[NewRecord]) -> Result<Vec<Bytes>, SpoolError> {
    let values = records.iter();
    values
        .map(|record| record::encode(record).map(Bytes::from))
        .collect()
}

fn check_value(name: &str, value: &Bytes) -> Result<(), SpoolError> {
    for (bytes, limit) in [(value.len(), VALUE_BYTES), (name.len(), pieces::NAME_BYTES)] {
        if bytes > limit {
            return Err(SpoolError::TooLarge { bytes });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
