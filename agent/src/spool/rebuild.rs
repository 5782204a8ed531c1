//! Rotation and forks: what is kept is copied to a fresh store, which then takes the old one's place.
//!
//! The switch is the store of a ledger that names the fresh generation. Until then the old store is
//! the spool, so a crash at any point leaves one whole store and at most a directory to delete.

use infratrack_shared::ids::StreamId;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::batch::{Class, LostReason};

use super::backend::{Backend, BackendError, Key, Write};
use super::lane::{Lane, Slot};
use super::ledger::{Ledger, Section};
use super::queue::{CLASSES, Queue};
use crate::failpoint::reach;

/// How much is copied in one batch. sled frees nothing that a batch replaced before its end, and each
/// record replaces a page: a batch of a mebibyte took 30.
const CHUNK_BYTES: usize = 64 * 1024;
/// How much may wait in memory for a slow disk.
const UNSYNCED_BYTES: usize = 512 * 1024;

/// Records to copy, with the numbers they get.
struct Run {
    class: Class,
    from_slot: u32,
    from: u64,
    count: u64,
    to_slot: u32,
    to: u64,
}

impl Queue {
    /// Same streams, same numbers, same rewind window, a fresh file.
    pub(super) fn rotate(&mut self) -> Result<(), BackendError> {
        let target = self.ledger.clone();
        let mut runs = Vec::new();
        for section in target.sections() {
            for class in CLASSES {
                unchanged(section, class, &mut runs);
            }
        }
        self.rebuild(target, &runs)
    }

    /// Gives `stream` another id: all of it that is not acknowledged, numbered anew.
    pub(super) fn fork(
        &mut self,
        stream: StreamId,
        now: UnixMillis,
    ) -> Result<Option<StreamId>, BackendError> {
        let mut target = self.ledger.clone();
        let slot = target.next_slot;
        target.next_slot += 1;
        let fresh = StreamId::at(now);
        let mut runs = Vec::new();
        let mut found = false;
        for section in target.sections_mut() {
            for class in CLASSES {
                if section.stream == stream {
                    let lane = renumbered(section, class, slot, &mut runs);
                    *section.lane_mut(class) = lane;
                } else {
                    unchanged(section, class, &mut runs);
                }
            }
            if section.stream == stream {
                found = true;
                section.slot = slot;
                section.stream = fresh;
            }
        }
        if !found {
            return Ok(None);
        }
        self.rebuild(target, &runs)?;
        Ok(Some(fresh))
    }

    fn rebuild(&mut self, mut target: Ledger, runs: &[Run]) -> Result<(), BackendError> {
        self.wake()?;
        target.generation = self.ledger.generation + 1;
        self.revision += 1;
        target.revision = self.revision;
        let mut fresh = self.backend.fresh(target.generation)?;
        if let Err(error) = self.fill(fresh.as_mut(), &mut target, runs) {
            fresh.discard();
            return Err(error);
        }
        let old = std::mem::replace(&mut self.backend, fresh);
        self.ledger = target;
        old.discard();
        reach("spool::rotation-done");
        Ok(())
    }

    fn fill(
        &mut self,
        fresh: &mut dyn Backend,
        target: &mut Ledger,
        runs: &[Run],
    ) -> Result<(), BackendError> {
        let mut chunk = Chunk::default();
        for section in target.sections_mut() {
            for class in CLASSES {
                section.lane_mut(class).bytes = 0;
            }
        }
        for run in runs {
            for offset in 0..run.count {
                let key = Key::record(run.from_slot, run.class, run.from + offset);
                let value = match self.backend.get(&key) {
                    Ok(value) => value,
                    Err(BackendError::Damaged(_)) => None,
                    Err(error) => return Err(error),
                };
                let seq = run.to + offset;
                let mut sections = target.sections_mut();
                let Some(section) = sections.find(|section| section.slot == run.to_slot) else {
                    continue;
                };
                let lane = section.lane_mut(run.class);
                if let Some(value) = value {
                    lane.bytes += value.len() as u64;
                    let key = Key::record(run.to_slot, run.class, seq);
                    chunk.push(fresh, (key, Some(value)))?;
                } else {
                    lane.lose(seq, seq, LostReason::Damaged);
                }
            }
        }
        let values = target.values.iter().map(|name| Key::value(name));
        let unread = (0..target.unread).map(Key::unread);
        for key in values.chain(unread).collect::<Vec<_>>() {
            if let Ok(Some(value)) = self.backend.get(&key) {
                chunk.push(fresh, (key, Some(value)))?;
            }
        }
        for section in target.sections_mut() {
            for class in CLASSES {
                let lane = section.lane_mut(class);
                lane.durable = lane.next;
                lane.reserved = lane.reserved.max(lane.next);
            }
        }
        // With the ledger's copy in the last batch, a store that was not filled is never taken for one.
        fresh.apply(chunk.writes, Some(target))?;
        fresh.sync()?;
        reach("spool::rotation-filled");
        fresh.store_ledger(target)?;
        reach("spool::rotation-stored");
        Ok(())
    }
}

fn unchanged(section: &Section, class: Class, runs: &mut Vec<Run>) {
    let lane = section.lane(class);
    for (from, to) in lane.present(lane.kept_from, lane.highest()) {
        runs.push(Run {
            class,
            from_slot: section.slot,
            from,
            count: to - from + 1,
            to_slot: section.slot,
            to: from,
        });
    }
}

/// Everything that is not acknowledged, from 1: what was is stored, under the old numbers.
fn renumbered(section: &Section, class: Class, to_slot: u32, runs: &mut Vec<Run>) -> Lane {
    let old = section.lane(class);
    let mut lane = Lane::new();
    let mut seq = old.kept_from.max(old.acked + 1);
    while seq < old.next {
        match old.at(seq) {
            Slot::Lost(lost) => {
                lane.append_lost((lost.to + 1).saturating_sub(seq), lost.reason);
                seq = lost.to + 1;
            }
            Slot::Record => {
                let run = old.present(seq, old.highest());
                let to = run.first().map_or(seq, |(_, to)| *to);
                runs.push(Run {
                    class,
                    from_slot: section.slot,
                    from: seq,
                    count: to - seq + 1,
                    to_slot,
                    to: lane.next,
                });
                lane.next += to - seq + 1;
                seq = to + 1;
            }
        }
    }
    lane
}

/// Writes gathered up to a size.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) writes: Vec<Write>,
    bytes: usize,
    unsynced_bytes: usize,
}

impl Chunk {
    pub(super) fn push(
        &mut self,
        backend: &mut dyn Backend,
        write: Write,
    ) -> Result<(), BackendError> {
        self.bytes += write.1.as_ref().map_or(0, bytes::Bytes::len);
        self.writes.push(write);
        if self.bytes >= CHUNK_BYTES {
            self.unsynced_bytes += std::mem::take(&mut self.bytes);
            backend.apply(std::mem::take(&mut self.writes), None)?;
        }
        if self.unsynced_bytes >= UNSYNCED_BYTES {
            self.unsynced_bytes = 0;
            backend.sync()?;
        }
        Ok(())
    }
}
