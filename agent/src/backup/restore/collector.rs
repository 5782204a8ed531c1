//! The collector as a source: over mTLS with the host's certificate, on a few connections at once.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use http::StatusCode;
use infratrack_shared::backup::{ChunkId, KeyId, MAX_PACK_BYTES, PackHash};
use infratrack_shared::ids::{SnapshotId, VolumeId};
use infratrack_shared::limits::BACKUP_PLACES;
use infratrack_shared::wire::backup::{Place, Snapshots, reason};

use super::lanes::{Lanes, Question, Trouble, UNREADABLE, locked};
use super::source::{Source, SourceError};
use crate::backup::remote::{Collector, Verdict};
use crate::uplink::UplinkError;

/// Places that are remembered, twice: some 100 bytes each.
const MAX_KNOWN: usize = 50_000;
/// Packs that could not be read, and are not waited for again.
const MAX_UNREADABLE: usize = 10_000;

/// One volume's objects, read from the collector. Not to be called from within a runtime.
pub struct Remote {
    collector: Collector,
    volume: VolumeId,
    lanes: Lanes<Collector>,
    known: Mutex<Known>,
    unreadable: Mutex<HashSet<PackHash>>,
    read_bytes: AtomicU64,
}

/// The places that were asked for last, in two generations: the elder goes when the younger is full.
#[derive(Default)]
struct Known {
    younger: HashMap<ChunkId, Place>,
    elder: HashMap<ChunkId, Place>,
    /// From the first of a pack's chunks to the last that any of them has named.
    extents: HashMap<PackHash, Range<u32>>,
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
        if self.extents.len() >= MAX_KNOWN {
            self.extents.clear();
        }
        let (start, end) = (place.offset, place.offset.saturating_add(place.length));
        let extent = self.extents.entry(place.pack).or_insert(start..end);
        extent.start = extent.start.min(start);
        extent.end = extent.end.max(end);
        self.younger.insert(place.id, place);
    }

    /// What was known of a pack is no more: its chunks may have been moved.
    fn forget(&mut self, pack: &PackHash) {
        for known in [&mut self.younger, &mut self.elder] {
            known.retain(|_, place| place.pack != *pack);
        }
        self.extents.remove(pack);
    }
}

impl Remote {
    /// Gives up when nobody answered for so long.
    pub fn new(collector: Collector, volume: VolumeId, patience: Duration) -> Self {
        Self {
            collector,
            volume,
            lanes: Lanes::new(patience),
            known: Mutex::default(),
            unreadable: Mutex::default(),
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

    /// What nothing goes on without.
    fn question(&self, what: impl Into<String>) -> Question {
        Question::new(what, self.lanes.patience())
    }

    fn ask<T>(
        &self,
        question: &Question,
        mut ask: impl AsyncFnMut(&mut Collector) -> Result<T, UplinkError>,
    ) -> Result<T, SourceError> {
        let new = || self.collector.clone();
        self.lanes.ask(question, new, async |collector| {
            ask(collector).await.map_err(trouble)
        })
    }
}

impl Source for Remote {
    fn snapshot(&self, id: SnapshotId) -> Result<Vec<u8>, SourceError> {
        let volume = self.volume;
        let question = Question::new(
            format!("snapshot {id}"),
            UNREADABLE.min(self.lanes.patience()),
        );
        let object = self.ask(&question, async |collector| {
            collector.snapshot(volume, id).await
        })?;
        Ok(object.into())
    }

    fn places(&self, ids: &[ChunkId]) -> Result<Vec<Place>, SourceError> {
        let volume = self.volume;
        let (mut places, mut unknown) = (Vec::with_capacity(ids.len()), Vec::new());
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
            let question = self.question("the places of chunks");
            let found = self.ask(&question, async |collector| {
                collector.places(volume, asked).await
            })?;
            let asked: HashSet<_> = asked.iter().collect();
            let mut known = locked(&self.known);
            // What lies beside them is asked for next.
            for place in found.places {
                known.insert(place);
                if asked.contains(&place.id) {
                    places.push(place);
                }
            }
        }
        Ok(places)
    }

    fn extent(&self, pack: &PackHash) -> Option<Range<u32>> {
        let known = locked(&self.known);
        // The table and the footer follow: this is never beyond the end.
        let extent = known.extents.get(pack)?.clone();
        (extent.end as usize <= MAX_PACK_BYTES).then_some(extent)
    }

    fn read(&self, pack: &PackHash, range: Range<u32>) -> Result<Vec<u8>, SourceError> {
        let (volume, pack) = (self.volume, *pack);
        let unreadable = if locked(&self.unreadable).contains(&pack) {
            Duration::ZERO
        } else {
            UNREADABLE.min(self.lanes.patience())
        };
        let question = Question::new(format!("pack {pack}"), unreadable);
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
        self.read_bytes.fetch_add(length, Ordering::Relaxed);
        Ok(read.into())
    }

    fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }
}

fn trouble(error: UplinkError) -> Trouble {
    let is_missing =
        matches!(&error, UplinkError::Refused { status, .. } if *status == StatusCode::NOT_FOUND);
    let kind = if is_missing {
        io::ErrorKind::NotFound
    } else {
        io::ErrorKind::Other
    };
    let is_cut = matches!(error, UplinkError::Answer(_));
    let verdict = Verdict::on(&error);
    let error = io::Error::new(kind, error);
    match verdict {
        Verdict::Never(_) => Trouble::Never(error),
        Verdict::Again(why, asked) if is_cut || why == reason::STORE_AWAY => {
            Trouble::Unreadable(asked, error)
        }
        Verdict::Again(_, asked) => Trouble::Again(asked, error),
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Remote({})", self.volume)
    }
}
