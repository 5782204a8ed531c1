//! A run's way to the collector. Its caller hashes chunks and hands them over; a thread asks which are not held, others compress and
//! seal those, and full packs leave two at a time.
//!
//! Memory: 16 MiB of chunks, a pack of each kind in the making and two on their way (16 MiB each), 4 MiB for each of at most four
//! compressing threads: some 90 MiB at the most, and 100 bytes for each new chunk of the run. What glibc keeps of freed memory comes to
//! that: measured 110 to 130 MiB in all with `MALLOC_ARENA_MAX=1`, up to 160 without. All threads end with the run.

mod net;
mod pack;
#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use infratrack_shared::backup::{
    Chunker, PackHash, PackKind, Refs, Salt, Sizes, TARGET_PACK_BYTES, VolumeKey,
};
use infratrack_shared::ids::VolumeId;
use infratrack_shared::wire::backup::reason;
use tokio::sync::mpsc;

pub use infratrack_shared::backup::ChunkId;

pub(super) use self::net::persist;
use self::pack::Packer;
use super::chunks::{Chunks, Meter, Place, Places, Stopped};
use super::control::{Bounds, Control, Failure, Guard};
use super::files::PlaceLog;
use super::pace::Pace;
use super::remote::Lane;

/// Chunks that are not in a pack yet, in bytes.
const CHUNK_BYTES: usize = 16 * 1024 * 1024;
/// What a small chunk costs at least.
const LEAST_BYTES: usize = 1024;
const PACKS_IN_FLIGHT: usize = 2;
const MOST_COMPRESSORS: usize = 4;
/// Of a place that is not known yet.
const NO_SALT: [u8; 16] = [0; 16];

/// Whose chunks, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    pub volume: VolumeId,
    pub key: VolumeKey,
    pub sizes: Sizes,
    /// Bytes a second.
    pub bandwidth: Option<u64>,
    /// What a pack should have, in bytes.
    pub pack_bytes: usize,
    /// A run gives up when for so long nothing got through.
    pub patience: Duration,
}

impl Settings {
    /// As production has it.
    pub fn new(
        volume: VolumeId,
        key: VolumeKey,
        is_database: bool,
        bandwidth: Option<u64>,
    ) -> Self {
        Self {
            volume,
            key,
            sizes: if is_database {
                Sizes::DATABASE
            } else {
                Sizes::USUAL
            },
            bandwidth,
            pack_bytes: TARGET_PACK_BYTES,
            patience: Duration::from_secs(15 * 60),
        }
    }
}

/// What is stored when all went well.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Of the chunks that [`Chunks::store`] took.
    pub places: Places,
    /// Those, and what was kept.
    pub refs: Refs,
}

/// A chunk on its way.
struct Chunk {
    id: ChunkId,
    kind: PackKind,
    plain: Vec<u8>,
}

impl Chunk {
    fn cost(length: usize) -> usize {
        length.max(LEAST_BYTES)
    }
}

/// A pack on its way.
struct Made {
    hash: PackHash,
    bytes: bytes::Bytes,
    /// What is in it.
    chunks: Vec<(ChunkId, Place)>,
}

/// What all threads of a run have in common.
struct Shared {
    settings: Settings,
    control: Arc<Control>,
    meter: Arc<Meter>,
    places: Mutex<Places>,
    noted: Mutex<Option<PlaceLog>>,
}

impl Shared {
    /// The collector has these: the next run need not read them again.
    fn note<'a>(&self, stored: impl IntoIterator<Item = &'a (ChunkId, Place)>) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = &mut *noted
            && let Err(error) = log.note(stored)
        {
            tracing::warn!(%error, "if this run is stopped, the next reads again what this one has stored");
            *noted = None;
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pipeline; ends its threads when it is dropped.
pub struct Pipeline {
    shared: Arc<Shared>,
    pace: Pace,
    chunker: Chunker,
    refs: Refs,
    queue: Option<mpsc::UnboundedSender<Chunk>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pipeline {
    /// What ends, pauses and watches a run with these settings.
    pub fn control(patience: Duration) -> Arc<Control> {
        let bounds = Bounds {
            bytes: CHUNK_BYTES,
            packs: PACKS_IN_FLIGHT,
        };
        Arc::new(Control::new(bounds, patience))
    }

    /// Starts its threads.
    pub fn start(
        mut settings: Settings,
        control: Arc<Control>,
        meter: Arc<Meter>,
        lane: impl Lane,
    ) -> Result<Self, Failure> {
        let pace = Pace::new(Arc::clone(&control), settings.bandwidth);
        settings.pack_bytes = pace.pack_bytes(settings.pack_bytes);
        let chunker = Chunker::new(&settings.key, settings.sizes);
        let shared = Arc::new(Shared {
            settings,
            control,
            meter,
            places: Mutex::default(),
            noted: Mutex::default(),
        });
        let (queue, asked) = mpsc::unbounded_channel();
        let (work, to_pack) = std::sync::mpsc::channel();
        let (packs, made) = mpsc::unbounded_channel();
        let mut pipeline = Self {
            shared: Arc::clone(&shared),
            pace: pace.clone(),
            chunker,
            refs: Refs::default(),
            queue: Some(queue),
            threads: Vec::new(),
        };
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let packer = Arc::new(Packer::new(cores.min(MOST_COMPRESSORS), packs));
        let to_pack = Arc::new(Mutex::new(to_pack));
        for _ in 0..cores.min(MOST_COMPRESSORS) {
            let (packer, to_pack) = (Arc::clone(&packer), Arc::clone(&to_pack));
            pipeline.spawn("compress", move |shared| packer.work(shared, &to_pack))?;
        }
        pipeline.spawn("net", move |shared| {
            net::main(shared, lane, &pace, asked, work, made);
        })?;
        Ok(pipeline)
    }

    fn spawn(
        &mut self,
        name: &str,
        work: impl FnOnce(&Shared) + Send + 'static,
    ) -> Result<(), Failure> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _guard = Guard(&shared.control);
            work(&shared);
        });
        self.threads
            .push(thread.map_err(|error| Failure::of(reason::INTERNAL, error))?);
        Ok(())
    }

    /// From here on it is noted there what the collector has.
    pub fn note_in(&self, log: Option<PlaceLog>) {
        let noted = &self.shared.noted;
        *noted.lock().unwrap_or_else(PoisonError::into_inner) = log;
    }

    /// How fast what follows may be sent.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Waits until everything is stored; or says what ended the run.
    pub fn finish(mut self) -> Result<Stored, Failure> {
        self.join();
        if let Some(failure) = self.shared.control.cause() {
            return Err(failure);
        }
        let places = std::mem::take(&mut *self.shared.places());
        let mut refs = std::mem::take(&mut self.refs);
        for place in places.values() {
            if *place.0.as_bytes() == NO_SALT {
                let detail = "a chunk was lost on its way";
                return Err(Failure::new(reason::INTERNAL, detail));
            }
            refs.insert(place.0, place.1);
        }
        Ok(Stored { places, refs })
    }

    fn join(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            // One that panicked has said so to the control.
            drop(thread.join());
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            let failure = Failure::new(reason::INTERNAL, "the run was given up");
            self.shared.control.stop(failure);
            self.join();
        }
    }
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pipeline({})", self.shared.settings.volume)
    }
}

impl Chunks for Pipeline {
    fn chunker(&self) -> &Chunker {
        &self.chunker
    }

    fn store(&mut self, kind: PackKind, plain: &[u8]) -> Result<ChunkId, Stopped> {
        let shared = &self.shared;
        let id = shared.settings.key.chunk_id(plain);
        match shared.places().entry(id) {
            Entry::Occupied(_) => {
                shared.control.go_on()?;
                return Ok(id);
            }
            Entry::Vacant(place) => drop(place.insert((Salt::new(NO_SALT), 0))),
        }
        shared.control.take_bytes(Chunk::cost(plain.len()))?;
        let plain = plain.to_vec();
        let chunk = Chunk { id, kind, plain };
        let queue = self.queue.as_ref().ok_or(Stopped)?;
        queue.send(chunk).map_err(|_| Stopped)?;
        Ok(id)
    }

    fn keep(&mut self, place: Place) {
        self.refs.insert(place.0, place.1);
    }

    fn go_on(&mut self) -> Result<(), Stopped> {
        self.shared.control.go_on()
    }

    fn meter(&self) -> &Meter {
        &self.shared.meter
    }
}

/// What a run has done so far, for the collector.
pub(super) fn progress_of(meter: &Meter) -> infratrack_shared::wire::backup::Progress {
    infratrack_shared::wire::backup::Progress {
        files: meter.files.load(Ordering::Relaxed),
        bytes: meter.bytes.load(Ordering::Relaxed),
        files_expected: None,
        bytes_expected: None,
        sent_bytes: meter.sent_bytes.load(Ordering::Relaxed),
        packs: meter.packs.load(Ordering::Relaxed),
    }
}
