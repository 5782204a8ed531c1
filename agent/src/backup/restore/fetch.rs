//! Chunks by their ids: places are asked for together, what lies close together is read together, and a few reads go on at
//! once. Every chunk is opened, which proves that it is the one of its id.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind::NotFound;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use infratrack_shared::backup::{
    ChunkId, Content, MAX_CHUNK_BYTES, OpenError, PackHash, Sealed, VolumeKey, ids,
};
use infratrack_shared::ids::VolumeId;
use infratrack_shared::limits::BACKUP_PLACES;
use infratrack_shared::wire::backup::Place;
use thiserror::Error;

use super::source::{Source, SourceError};

/// What is read for nothing rather than asked for apart.
const MAX_GAP_BYTES: u32 = 1024 * 1024;
/// Of one read.
const MAX_READ_BYTES: u32 = 8 * 1024 * 1024;
/// Reads at once.
const READS: usize = 8;
/// Of chunks that are in memory at once: more is in them than in what they are of.
const MAX_FETCHED_BYTES: usize = 256 * 1024 * 1024;
/// Chunks that are in memory at once, of long content.
pub(super) const WINDOW: usize = 32;

/// Why a chunk is not to be had.
#[derive(Clone, Debug, Error)]
pub enum ChunkError {
    #[error("its chunk {0} is not there")]
    Missing(ChunkId),
    #[error("its chunk {id} does not open: {why}")]
    Open { id: ChunkId, why: String },
    #[error("one of its chunks is not to be had: {0}")]
    Read(String),
    #[error("where its chunks are is not known: {0}")]
    Unplaced(String),
    #[error("{0}")]
    List(&'static str),
    /// Nor is anything else.
    #[error("nothing more can be read: {0}")]
    Gone(String),
}

impl ChunkError {
    fn unread(error: SourceError) -> Self {
        Self::of(error, Self::Read)
    }

    fn unplaced(error: SourceError) -> Self {
        Self::of(error, Self::Unplaced)
    }

    fn of(error: SourceError, other: impl FnOnce(String) -> Self) -> Self {
        match error {
            SourceError::Gone(why) => Self::Gone(why),
            error @ SourceError::Unreadable { .. } => {
                other(format!("{:#}", anyhow::Error::from(error)))
            }
        }
    }
}

/// Chunks of one volume.
#[derive(Clone, Copy)]
pub struct Fetcher<'a> {
    pub source: &'a dyn Source,
    pub key: &'a VolumeKey,
    pub volume: VolumeId,
}

pub(super) type Fetched = HashMap<ChunkId, Result<Vec<u8>, ChunkError>>;

/// A read, and the chunks that are in it.
struct Job {
    pack: PackHash,
    range: Range<u32>,
    places: Vec<Place>,
}

impl Fetcher<'_> {
    /// Each of these chunks, which all have room in memory.
    pub(super) fn fetch(&self, ids: &[ChunkId]) -> Fetched {
        let wanted: HashSet<ChunkId> = ids.iter().copied().collect();
        let (mut fetched, unread) = self.pass(&wanted, &HashSet::new());
        if !unread.is_empty() {
            // They may be elsewhere by now.
            let is_unread = |found: &Result<_, _>| matches!(found, Err(ChunkError::Read(_)));
            let again = fetched.iter().filter(|(_, found)| is_unread(found));
            let again: HashSet<ChunkId> = again.map(|(id, _)| *id).collect();
            fetched.extend(self.pass(&again, &unread).0);
        }
        for id in wanted {
            fetched.entry(id).or_insert(Err(ChunkError::Missing(id)));
        }
        fetched
    }

    /// What of these is to be had in other packs than `unread`, and in which packs there are some that could not be read.
    fn pass(
        &self,
        wanted: &HashSet<ChunkId>,
        unread: &HashSet<PackHash>,
    ) -> (Fetched, HashSet<PackHash>) {
        let all: Vec<ChunkId> = wanted.iter().copied().collect();
        let (mut places, mut fetched) = (Vec::new(), Fetched::new());
        for ids in all.chunks(BACKUP_PLACES) {
            match self.source.places(ids) {
                Ok(found) => places.extend(found.into_iter().filter(|p| wanted.contains(&p.id))),
                Err(error) => {
                    let error = ChunkError::unplaced(error);
                    fetched.extend(ids.iter().map(|id| (*id, Err(error.clone()))));
                }
            }
        }
        // What no chunk can have is not read.
        let is_readable = |place: &Place| place.length as usize <= MAX_CHUNK_BYTES + 64;
        places.retain(|place| is_readable(place) && !unread.contains(&place.pack));
        let jobs = jobs(places);
        let (next, total) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let results = Mutex::new((fetched, HashSet::new()));
        let work = || {
            while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let whole = self.source.read(&job.pack, job.range.clone());
                let is_unread = whole.is_err();
                let opened = self.run(job, whole, &total);
                let mut results = results.lock().expect("nobody panics with it");
                results.0.extend(opened);
                if is_unread {
                    results.1.insert(job.pack);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..jobs.len().min(READS) {
                scope.spawn(work);
            }
            work();
        });
        results.into_inner().expect("nobody panics with it")
    }

    fn run(
        &self,
        job: &Job,
        whole: Result<Vec<u8>, SourceError>,
        total: &AtomicUsize,
    ) -> Vec<(ChunkId, Result<Vec<u8>, ChunkError>)> {
        let whole = match whole {
            Ok(whole) => Some(whole),
            // One by one, so that a hole in a pack is not one in its neighbours.
            Err(SourceError::Unreadable { source, .. }) if source.kind() != NotFound => None,
            Err(error) => {
                let error = ChunkError::unread(error);
                let of = |place: &Place| (place.id, Err(error.clone()));
                return job.places.iter().map(of).collect();
            }
        };
        let one = |place: &Place| {
            let id = place.id;
            let (start, end) = (place.offset, place.offset.saturating_add(place.length));
            let within = whole.as_ref().and_then(|whole| {
                let from = usize::try_from(start - job.range.start).ok()?;
                whole.get(from..from.checked_add(usize::try_from(place.length).ok()?)?)
            });
            let opened = if let Some(sealed) = within {
                self.open(place, sealed)
            } else {
                let read = self.source.read(&job.pack, start..end);
                let read = read.map_err(ChunkError::unread);
                read.and_then(|sealed| self.open(place, &sealed))
            };
            let bytes = opened.as_ref().map_or(0, Vec::len);
            if total.fetch_add(bytes, Ordering::Relaxed) > MAX_FETCHED_BYTES {
                return (
                    id,
                    Err(ChunkError::List("its chunks are longer than the files")),
                );
            }
            (id, opened)
        };
        job.places.iter().map(one).collect()
    }

    fn open(&self, place: &Place, sealed: &[u8]) -> Result<Vec<u8>, ChunkError> {
        let origin = Sealed {
            salt: place.salt,
            algorithm: place.algorithm,
            counter: place.counter,
        };
        let opened = origin.open(self.key, self.volume, &place.id, sealed);
        opened.map_err(|error: OpenError| ChunkError::Open {
            id: place.id,
            why: error.to_string(),
        })
    }

    /// The ids of some content, in windows that have room in memory.
    pub(super) fn each_window<E: From<ChunkError>>(
        &self,
        content: &Content,
        mut each: impl FnMut(&[ChunkId]) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(chunks) = content.chunks() {
            let chunks = chunks.map_err(ChunkError::List)?;
            return chunks.chunks(WINDOW).try_for_each(each);
        }
        let mut pending = Vec::new();
        for list in content.lists().map_err(ChunkError::List)? {
            pending.extend_from_slice(&self.one(list)?);
            let whole = pending.len() / 32 * 32;
            let found = ids(&pending[..whole]).map_err(ChunkError::List)?;
            found.chunks(WINDOW).try_for_each(&mut each)?;
            pending.drain(..whole);
        }
        if pending.is_empty() {
            Ok(())
        } else {
            Err(ChunkError::List("its list of chunks is cut off").into())
        }
    }

    pub(super) fn one(&self, id: ChunkId) -> Result<Vec<u8>, ChunkError> {
        let mut fetched = self.fetch(&[id]);
        fetched.remove(&id).unwrap_or(Err(ChunkError::Missing(id)))
    }

    /// The plain bytes of some content, chunk by chunk.
    pub(super) fn stream<E: From<ChunkError>>(
        &self,
        content: &Content,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.each_window(content, |window| {
            let fetched = self.fetch(window);
            window.iter().try_for_each(|id| {
                let chunk = fetched.get(id).cloned_error(*id)?;
                each(chunk)
            })
        })
    }
}

/// The bytes of what was fetched.
pub(super) trait ClonedError<'a> {
    fn cloned_error(self, id: ChunkId) -> Result<&'a [u8], ChunkError>;
}

impl<'a> ClonedError<'a> for Option<&'a Result<Vec<u8>, ChunkError>> {
    fn cloned_error(self, id: ChunkId) -> Result<&'a [u8], ChunkError> {
        match self {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(error)) => Err(error.clone()),
            None => Err(ChunkError::Missing(id)),
        }
    }
}

/// What lies close together is one read.
fn jobs(mut places: Vec<Place>) -> Vec<Job> {
    places
        .sort_unstable_by(|a, b| (a.pack.as_bytes(), a.offset).cmp(&(b.pack.as_bytes(), b.offset)));
    let mut jobs: Vec<Job> = Vec::new();
    for place in places {
        let end = place.offset.saturating_add(place.length);
        let joined = jobs.last_mut().filter(|job| {
            job.pack == place.pack
                && place.offset.saturating_sub(job.range.end) <= MAX_GAP_BYTES
                && end - job.range.start <= MAX_READ_BYTES
        });
        if let Some(job) = joined {
            job.range.end = job.range.end.max(end);
            job.places.push(place);
        } else {
            jobs.push(Job {
                pack: place.pack,
                range: place.offset..end,
                places: vec![place],
            });
        }
    }
    jobs
}

impl std::fmt::Debug for Fetcher<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fetcher({})", self.volume)
    }
}
