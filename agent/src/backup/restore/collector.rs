//! The collector as a source: over mTLS with the host's certificate, on a few connections at once, each with a runtime of its own, so
//! that whoever restores need not be asynchronous.
//!
//! What fails is asked again, with waits. Where nobody answers for longer than the caller has patience, nothing more is read; what
//! the collector answers and does not have, or cannot give for a while, is missing alone.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use http::StatusCode;
use infratrack_shared::backup::{ChunkId, KeyId, PackHash};
use infratrack_shared::ids::{SnapshotId, VolumeId};
use infratrack_shared::limits::BACKUP_PLACES;
use infratrack_shared::wire::backup::{Place, Snapshots, reason};
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

use super::source::{Source, SourceError};
use crate::backoff::{self, Backoff};
use crate::backup::remote::{Collector, Verdict};
use crate::uplink::UplinkError;

/// For a collector that answers, and cannot read a pack: the store may be away, or the pack damaged.
const UNREADABLE: Duration = Duration::from_secs(120);
/// The longest wait before something is tried again.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Places that are remembered, twice: some 100 bytes each.
const MAX_KNOWN: usize = 50_000;
/// Packs that could not be read, and are not waited for again.
const MAX_UNREADABLE: usize = 10_000;

/// One volume's objects, read from the collector. Not to be called from within a runtime.
pub struct Remote {
    collector: Collector,
    volume: VolumeId,
    patience: Duration,
    /// Those that nobody uses now.
    lanes: Mutex<Vec<Lane>>,
    known: Mutex<Known>,
    unreadable: Mutex<HashSet<PackHash>>,
    /// Why nothing more is asked.
    gone: Mutex<Option<String>>,
    read_bytes: AtomicU64,
}

/// A connection, and what drives it.
struct Lane {
    runtime: Runtime,
    collector: Collector,
}

/// The places that were asked for last, in two generations: the elder goes when the younger is full.
#[derive(Default)]
struct Known {
    younger: HashMap<ChunkId, Place>,
    elder: HashMap<ChunkId, Place>,
}

impl Known {
    fn find(&self, id: &ChunkId) -> Option<Place> {
        let found = self.younger.get(id).or_else(|| self.elder.get(id));
        found.copied()
    }

    fn insert(&mut self, place: Place) {
        if self.younger.len() >= MAX_KNOWN {
            self.elder = std::mem::take(&mut self.younger);
        }
        self.younger.insert(place.id, place);
    }

    /// What was known of a pack is no more: its chunks may have been moved.
    fn forget(&mut self, pack: &PackHash) {
        for known in [&mut self.younger, &mut self.elder] {
            known.retain(|_, place| place.pack != *pack);
        }
    }
}

/// What is asked for, and how long for.
struct Question {
    what: String,
    /// While the collector answers, and cannot give it.
    unreadable: Duration,
}

impl Remote {
    /// Gives up when nobody answered for so long.
    pub fn new(collector: Collector, volume: VolumeId, patience: Duration) -> Self {
        Self {
            collector,
            volume,
            patience,
            lanes: Mutex::default(),
            known: Mutex::default(),
            unreadable: Mutex::default(),
            gone: Mutex::default(),
            read_bytes: AtomicU64::new(0),
        }
    }

    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// What there is to restore, newest first, and the wrapped keys; only those before `before`, if it is given.
    pub fn snapshots(&self, before: Option<SnapshotId>) -> Result<Snapshots, SourceError> {
        let volume = self.volume;
        let question = self.question(format!("the snapshots of volume {volume}"));
        self.ask(&question, async |collector| {
            collector.snapshots(volume, before).await
        })
    }

    /// The wrapped key of this id.
    pub fn wrapped_key(&self, id: KeyId) -> anyhow::Result<Vec<u8>> {
        let keys = self.snapshots(None)?.keys;
        let wrapped = keys.into_iter().find(|wrapped| wrapped.id == id);
        let wrapped = wrapped.with_context(|| format!("the collector has no key {id}"))?;
        Ok(wrapped.age.into_vec())
    }

    fn question(&self, what: String) -> Question {
        let unreadable = self.patience;
        Question { what, unreadable }
    }

    fn ask<T>(
        &self,
        question: &Question,
        mut ask: impl AsyncFnMut(&mut Collector) -> Result<T, UplinkError>,
    ) -> Result<T, SourceError> {
        if let Some(why) = locked(&self.gone).clone() {
            return Err(SourceError::Gone(why));
        }
        let unreadable = |source| SourceError::Unreadable {
            what: question.what.clone(),
            source,
        };
        let free = locked(&self.lanes).pop();
        let mut lane = match free {
            Some(lane) => lane,
            None => self.lane().map_err(unreadable)?,
        };
        let Lane { runtime, collector } = &mut lane;
        let asked = runtime.block_on(self.persist(question, async || ask(collector).await));
        locked(&self.lanes).push(lane);
        asked
    }

    fn lane(&self) -> io::Result<Lane> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let collector = self.collector.clone();
        Ok(Lane { runtime, collector })
    }

    async fn persist<T>(
        &self,
        question: &Question,
        mut ask: impl AsyncFnMut() -> Result<T, UplinkError>,
    ) -> Result<T, SourceError> {
        let mut backoff = Backoff::default();
        let begun = Instant::now();
        loop {
            let error = match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let unreadable = |error| SourceError::Unreadable {
                what: question.what.clone(),
                source: io::Error::new(kind(&error), error),
            };
            let asked = match Verdict::on(&error) {
                Verdict::Never(_) => return Err(unreadable(error)),
                Verdict::Again(why, asked) => {
                    let is_answer = why == reason::STORE_AWAY;
                    let is_answer = is_answer || matches!(error, UplinkError::Answer(_));
                    if is_answer && begun.elapsed() >= question.unreadable {
                        return Err(unreadable(error));
                    }
                    asked
                }
            };
            if begun.elapsed() >= self.patience {
                return Err(self.give_up(error));
            }
            tracing::info!(%error, "{} is asked for again", question.what);
            let wait = match asked {
                Some(asked) => backoff::retry_after(asked),
                None => backoff.after_failure(),
            };
            sleep(wait.min(LONGEST_WAIT)).await;
            if let Some(why) = locked(&self.gone).clone() {
                return Err(SourceError::Gone(why));
            }
        }
    }

    fn give_up(&self, error: UplinkError) -> SourceError {
        let why = format!("{:#}", anyhow::Error::from(error));
        let why = locked(&self.gone).get_or_insert(why).clone();
        SourceError::Gone(why)
    }
}

impl Source for Remote {
    fn snapshot(&self, id: SnapshotId) -> Result<Vec<u8>, SourceError> {
        let volume = self.volume;
        let question = self.question(format!("snapshot {id}"));
        let object = self.ask(&question, async |collector| {
            collector.snapshot(volume, id).await
        })?;
        Ok(object.into())
    }

    fn places(&self, ids: &[ChunkId]) -> Result<Vec<Place>, SourceError> {
        let volume = self.volume;
        let mut places = Vec::with_capacity(ids.len());
        let mut unknown = Vec::new();
        {
            let known = locked(&self.known);
            for id in ids {
                match known.find(id) {
                    Some(place) => places.push(place),
                    None => unknown.push(*id),
                }
            }
        }
        for asked in unknown.chunks(BACKUP_PLACES) {
            let question = self.question("the places of chunks".to_owned());
            let found = self.ask(&question, async |collector| {
                collector.places(volume, asked).await
            })?;
            let asked: HashSet<_> = asked.iter().collect();
            let mut known = locked(&self.known);
            for place in found.places {
                // Nothing else is remembered than was asked for.
                if asked.contains(&place.id) {
                    known.insert(place);
                    places.push(place);
                }
            }
        }
        Ok(places)
    }

    fn read(&self, pack: &PackHash, range: Range<u32>) -> Result<Vec<u8>, SourceError> {
        let (volume, pack) = (self.volume, *pack);
        let is_unreadable = locked(&self.unreadable).contains(&pack);
        let question = Question {
            what: format!("pack {pack}"),
            unreadable: if is_unreadable {
                Duration::ZERO
            } else {
                UNREADABLE.min(self.patience)
            },
        };
        let (offset, length) = (u64::from(range.start), range.len() as u64);
        let read = self.ask(&question, async |collector| {
            collector.pack_bytes(volume, pack, offset, length).await
        });
        if let Err(SourceError::Unreadable { .. }) = &read {
            locked(&self.known).forget(&pack);
            let mut unreadable = locked(&self.unreadable);
            if unreadable.len() < MAX_UNREADABLE {
                unreadable.insert(pack);
            }
        }
        let read = read?;
        let bytes = read.len() as u64;
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(read.into())
    }

    fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }
}

fn kind(error: &UplinkError) -> io::ErrorKind {
    match error {
        UplinkError::Refused { status, .. } if *status == StatusCode::NOT_FOUND => {
            io::ErrorKind::NotFound
        }
        UplinkError::Refused { .. }
        | UplinkError::Connect { .. }
        | UplinkError::Slow { .. }
        | UplinkError::Tls { .. }
        | UplinkError::Broken(_)
        | UplinkError::Answer(_)
        | UplinkError::Unacknowledged
        | UplinkError::Encode(_) => io::ErrorKind::Other,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Remote({})", self.volume)
    }
}
