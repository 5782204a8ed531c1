//! Where content goes, as what reads it sees it: a run's pipeline to the collector.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;

use infratrack_shared::backup::{ChunkId, Chunker, PackKind, Salt};
use thiserror::Error;

/// Origin and counter: a chunk as a snapshot names it.
pub type Place = (Salt, u16);

/// Why nothing more is taken. The pipeline has said to its own caller what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the run was stopped")]
pub struct Stopped;

/// Takes chunks. Everything that a snapshot needs goes through here, once.
pub trait Chunks {
    /// Where the volume's content is cut.
    fn chunker(&self) -> &Chunker;

    /// Stores a chunk, of at most [`infratrack_shared::backup::MAX_CHUNK_BYTES`] and not empty. Its id is known at once; where
    /// it lies only when all is stored. Waits while the pipeline is full.
    fn store(&mut self, kind: PackKind, plain: &[u8]) -> Result<ChunkId, Stopped>;

    /// Needs a chunk that lies where it has been.
    fn keep(&mut self, place: Place);

    /// Waits while the run is paused. To be asked at least every few hundred entries where nothing is stored.
    fn go_on(&mut self) -> Result<(), Stopped>;

    /// How far the run is.
    fn meter(&self) -> &Meter;
}

/// Where the chunks lie that [`Chunks::store`] has taken, when all are stored.
pub type Places = HashMap<ChunkId, Place>;

/// What is counted while a run goes on, read by who shows it.
#[derive(Debug, Default)]
pub struct Meter {
    pub files: AtomicU64,
    /// Of content, read or known to be unchanged.
    pub bytes: AtomicU64,
    pub packs: AtomicU64,
    pub sent_bytes: AtomicU64,
    /// Of chunks that were not there before, as they were read.
    pub new_bytes: AtomicU64,
}
