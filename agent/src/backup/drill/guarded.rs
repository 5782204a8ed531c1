//! A source that a drill reads from: it waits while the drill is paused, ends with it, and keeps room on the disk.

use std::ops::Range;
use std::path::Path;

use infratrack_shared::backup::{ChunkId, PackHash};
use infratrack_shared::ids::SnapshotId;
use infratrack_shared::wire::backup::{Place, reason};

use super::scratch;
use crate::backup::control::{Control, Failure};
use crate::backup::restore::{Source, SourceError};

/// See the module.
pub(super) struct Guarded<'a> {
    pub(super) source: &'a dyn Source,
    pub(super) control: &'a Control,
    /// Where is written.
    pub(super) scratch: &'a Path,
}

/// Ends a drill that would leave less than a tenth of the file system free.
pub(super) fn keep_room(scratch: &Path, control: &Control) {
    if scratch::free(scratch).is_ok_and(|free| free == 0) {
        let detail = "a tenth of the file system has to stay free";
        control.stop(Failure::new(reason::DISK_FULL, detail));
    }
}

impl Guarded<'_> {
    fn go_on(&self) -> Result<(), SourceError> {
        keep_room(self.scratch, self.control);
        let stopped = |_| SourceError::Gone("the drill was stopped".to_owned());
        self.control.go_on().map_err(stopped)
    }
}

impl Source for Guarded<'_> {
    fn snapshot(&self, id: SnapshotId) -> Result<Vec<u8>, SourceError> {
        self.go_on()?;
        self.source.snapshot(id)
    }

    fn places(&self, ids: &[ChunkId]) -> Result<Vec<Place>, SourceError> {
        self.go_on()?;
        self.source.places(ids)
    }

    fn extent(&self, pack: &PackHash) -> Option<Range<u32>> {
        self.source.extent(pack)
    }

    fn read(&self, pack: &PackHash, range: Range<u32>) -> Result<Vec<u8>, SourceError> {
        self.go_on()?;
        self.source.read(pack, range)
    }

    fn read_bytes(&self) -> u64 {
        self.source.read_bytes()
    }
}
