//! Chunks that are not held become packs: compressed by several threads, sealed and appended by one of them at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, MutexGuard, PoisonError};

use infratrack_shared::backup::{
    Algorithm, Compressor, PackBuilder, PackKind, Packed, Salt, SealError,
};
use infratrack_shared::wire::backup::reason;
use tokio::sync::mpsc::UnboundedSender;

use super::{Chunk, ChunkId, Failure, Made, Place, Shared, Stopped};

/// A pack in the making.
struct Open {
    builder: PackBuilder,
    origin: (Salt, Algorithm),
    chunks: Vec<(ChunkId, Place)>,
}

/// One pack of each kind.
#[derive(Default)]
struct Packs {
    content: Option<Open>,
    trees: Option<Open>,
}

/// What the compressing threads share.
pub(super) struct Packer {
    packs: Mutex<Packs>,
    /// Threads that are not at their end; the last one sends what is not full.
    threads: AtomicUsize,
    made: UnboundedSender<Made>,
}

impl Packer {
    pub(super) fn new(threads: usize, made: UnboundedSender<Made>) -> Self {
        Self {
            packs: Mutex::default(),
            threads: AtomicUsize::new(threads),
            made,
        }
    }

    /// One thread's work, until there is no more.
    pub(super) fn work(&self, shared: &Shared, chunks: &Mutex<Receiver<Chunk>>) {
        if let Err(failure) = self.all(shared, chunks) {
            shared.control.stop(failure);
        }
    }

    fn all(&self, shared: &Shared, chunks: &Mutex<Receiver<Chunk>>) -> Result<(), Failure> {
        let internal = |error: SealError| Failure::of(reason::INTERNAL, error);
        let mut compressor =
            Compressor::new().map_err(|error| Failure::of(reason::INTERNAL, error))?;
        loop {
            let next = chunks.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Chunk { id, kind, plain }) = next else {
                break;
            };
            let length = plain.len();
            let packed = compressor.pack(&plain);
            drop(plain);
            let pushed = self.push(shared, kind, id, packed).map_err(internal)?;
            shared.control.give_bytes(Chunk::cost(length));
            let new_bytes = &shared.meter.new_bytes;
            new_bytes.fetch_add(length as u64, Ordering::Relaxed);
            if pushed.is_err() {
                return Ok(());
            }
        }
        if self.threads.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut packs = self.packs();
            for open in [packs.content.take(), packs.trees.take()] {
                // Who stopped the run has said why.
                if open.is_some_and(|open| self.send(shared, open).is_err()) {
                    break;
                }
            }
        }
        Ok(())
    }

    fn push(
        &self,
        shared: &Shared,
        kind: PackKind,
        id: ChunkId,
        packed: Packed,
    ) -> Result<Result<(), Stopped>, SealError> {
        let settings = &shared.settings;
        // Held while a full pack waits for its turn, so that there is one such.
        let mut packs = self.packs();
        let slot = match kind {
            PackKind::Content => &mut packs.content,
            PackKind::Trees => &mut packs.trees,
        };
        let length = packed.sealed_length();
        let is_full = |open: &mut Open| {
            // Its table's rows have some bytes for each chunk.
            let size = open.builder.size() + length + 64;
            size > settings.pack_bytes || !open.builder.has_room_for(length)
        };
        if let Some(full) = slot.take_if(is_full)
            && self.send(shared, full).is_err()
        {
            return Ok(Err(Stopped));
        }
        let open = slot.get_or_insert_with(|| Open {
            builder: PackBuilder::new(settings.volume, settings.key.id(), kind),
            origin: (Salt::new(rand::random()), Algorithm::of_this_machine()),
            chunks: Vec::new(),
        });
        let sealed = open.builder.push(&settings.key, open.origin, id, packed)?;
        let place = (sealed.salt, sealed.counter);
        shared.places().insert(id, place);
        open.chunks.push((id, place));
        Ok(Ok(()))
    }

    fn send(&self, shared: &Shared, open: Open) -> Result<(), Stopped> {
        shared.control.take_pack()?;
        let chunks = open.chunks;
        let (hash, bytes) = open.builder.finish();
        let bytes = bytes.into();
        let made = Made {
            hash,
            bytes,
            chunks,
        };
        self.made.send(made).map_err(|_| Stopped)
    }

    fn packs(&self) -> MutexGuard<'_, Packs> {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
