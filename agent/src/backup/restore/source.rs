//! Where a restore reads from: a copy of the bucket, or the collector.

use std::io;
use std::ops::Range;

use infratrack_shared::backup::{ChunkId, PackHash};
use infratrack_shared::ids::SnapshotId;
use infratrack_shared::wire::backup::Place;
use thiserror::Error;

/// Cannot be read from there.
#[derive(Debug, Error)]
pub enum SourceError {
    /// This alone.
    #[error("cannot read {what}")]
    Unreadable {
        what: String,
        #[source]
        source: io::Error,
    },
    /// Nothing more comes from there.
    #[error("nothing more can be read: {0}")]
    Gone(String),
}

/// Has the objects of one volume. What it answers is believed in nothing: every chunk is opened with the volume's key.
pub trait Source: Sync {
    /// The object of a snapshot.
    fn snapshot(&self, id: SnapshotId) -> Result<Vec<u8>, SourceError>;

    /// Where chunks lie, in no order, and maybe where others do; of one that is not there, nothing. At most
    /// [`infratrack_shared::limits::BACKUP_PLACES`].
    fn places(&self, ids: &[ChunkId]) -> Result<Vec<Place>, SourceError>;

    /// Which bytes of a pack can be read for nothing in particular; `None`: that is not known.
    fn extent(&self, pack: &PackHash) -> Option<Range<u32>>;

    /// These bytes of a pack, all of them.
    fn read(&self, pack: &PackHash, range: Range<u32>) -> Result<Vec<u8>, SourceError>;

    /// Of packs, so far.
    fn read_bytes(&self) -> u64;
}
