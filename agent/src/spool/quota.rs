//! Room on the disk: who yields when the quota is near, and when a store is copied to a smaller one.
//!
//! sled never makes its file smaller and is slow to write again where records were deleted. So space
//! comes from rotation alone. One file may be eleven twentieths of the quota, and what a rotation copies
//! a fifth, since the old and the fresh file are there at once for a moment, as are a file and its copy
//! at a start.
//!
//! A disk that is full below the quota takes no more records. What is left of the reserve then is for sending those
//! there are, until so few are left that a rotation fits into it.

use infratrack_shared::wire::batch::{Class, LostReason};

use super::backend::{BackendError, Key, Write};
use super::lane::Lane;
use super::queue::{CLASSES, Change, Queue, Until};

/// A file below this is not worth a rotation.
const ROTATE_ABOVE_BYTES: u64 = 16 * 1024 * 1024;

/// What a rotation on a full disk may copy: with sled's own files about it, a part of the reserve.
const ROTATE_FULL_BYTES: u64 = 64 * 1024;

/// How much a file has to grow after a rotation that left it big, for another one.
const SLACK_BYTES: u64 = 1024 * 1024;

/// See the module. All in bytes.
pub(super) struct Quota {
    /// The file's size at which room has to be made.
    file_max: u64,
    /// What the records may take when it is.
    live_max: u64,
    /// The size after the last rotation.
    rotated: u64,
    /// What the records took then.
    rotated_live: u64,
}

impl Quota {
    pub(super) fn new(quota: u64) -> Self {
        Self {
            file_max: quota / 20 * 11,
            live_max: quota / 5,
            rotated: 0,
            rotated_live: 0,
        }
    }
}

impl Queue {
    /// Makes room for an append; answers whether there is room for beats too.
    pub(super) fn make_room(&mut self) -> Result<bool, BackendError> {
        if !self.backend.has_reserve() {
            self.reclaim_full()?;
            if !self.backend.has_reserve() {
                return Err(BackendError::Full);
            }
        }
        let size = self.backend.size_bytes();
        // Should a rotation ever give back next to nothing, the next one waits all the same.
        if size >= self.quota.file_max && size > self.quota.rotated / 4 * 5 {
            let excess = self.ledger.bytes().saturating_sub(self.quota.live_max);
            if excess > 0 {
                tracing::warn!(size, "spool: at its quota, the oldest records are dropped");
                self.drop_oldest(excess)?;
            }
            self.rotate()?;
            self.rotated();
        }
        Ok(self.backend.size_bytes() < self.quota.file_max / 10 * 7)
    }

    /// To delete takes room too: without a reserve what is done with stays, until a rotation leaves it behind.
    pub(super) fn affordable(&mut self, deletes: Vec<Write>) -> Vec<Write> {
        if deletes.is_empty() || self.backend.has_reserve() {
            deletes
        } else {
            Vec::new()
        }
    }

    fn rotated(&mut self) {
        self.quota.rotated = self.backend.size_bytes();
        self.quota.rotated_live = self.ledger.bytes();
    }

    /// Gives up what is worth least until `want` bytes are free: the rewind window, then beats,
    /// then the oldest critical records.
    fn drop_oldest(&mut self, want: u64) -> Result<(), BackendError> {
        let mut ledger = self.ledger.clone();
        // Not deleted one by one: that would make the file grow, and the rotation leaves them behind.
        let mut unused = Vec::new();
        let mut freed = 0;
        for section in ledger.sections_mut() {
            let lane = &mut section.critical;
            let before = lane.clone();
            lane.acknowledge_for_good(lane.acked);
            let bytes = self.delete(
                section.slot,
                Class::Critical,
                &before,
                lane.kept_from,
                &mut unused,
            );
            lane.bytes = lane.bytes.saturating_sub(bytes);
            freed += bytes;
        }
        for class in CLASSES.into_iter().rev() {
            for section in ledger.sections_mut() {
                let slot = section.slot;
                let lane = section.lane_mut(class);
                for (from, to) in lane.present(lane.acked + 1, lane.highest()) {
                    let mut end = from;
                    while end <= to && freed < want {
                        let key = Key::record(slot, class, end);
                        let bytes = self.size_of(&key);
                        lane.bytes = lane.bytes.saturating_sub(bytes);
                        freed += bytes;
                        end += 1;
                    }
                    if end > from {
                        lane.lose(from, end - 1, LostReason::Quota);
                    }
                }
            }
        }
        self.commit(Change {
            ledger,
            puts: Vec::new(),
            deletes: Vec::new(),
            until: Until::Stored,
        })
    }

    /// Copies what is left to a fresh store where the file is far bigger than that.
    pub(super) fn reclaim(&mut self) -> Result<bool, BackendError> {
        if !self.backend.has_reserve() {
            return self.reclaim_full();
        }
        let size = self.backend.size_bytes();
        let drained = self.ledger.sections().all(super::ledger::Section::drained);
        let floor = if drained {
            ROTATE_ABOVE_BYTES
        } else {
            self.ledger.bytes() * 4 + ROTATE_ABOVE_BYTES
        };
        if size <= floor || !self.is_worth_it(size) {
            return Ok(false);
        }
        self.reclaim_from(size)
    }

    /// Likewise where nothing else makes room, at the cost of the rewind window.
    fn reclaim_full(&mut self) -> Result<bool, BackendError> {
        let size = self.backend.size_bytes();
        let sections = self.ledger.sections();
        let lanes = sections.flat_map(|section| CLASSES.map(|class| section.lane(class)));
        let unacked: u64 = lanes.map(Lane::unacked_bytes).sum();
        if unacked > ROTATE_FULL_BYTES || !self.is_worth_it(size) {
            return Ok(false);
        }
        self.drop_oldest(0)?;
        // Should there be no room for it, it is not tried again until there is less to copy.
        self.rotated();
        self.reclaim_from(size)
    }

    fn is_worth_it(&self, size: u64) -> bool {
        let live = self.ledger.bytes();
        size > self.quota.rotated + SLACK_BYTES || live < self.quota.rotated_live / 2
    }

    fn reclaim_from(&mut self, size: u64) -> Result<bool, BackendError> {
        self.rotate()?;
        self.rotated();
        tracing::info!(
            from_bytes = size,
            to_bytes = self.quota.rotated,
            "spool: rotated to a fresh store"
        );
        Ok(true)
    }
}
