//! The queue itself: numbering, order, cursors, rewinds, losses. Knows stores only as [`Backend`].
//!
//! Every change is a [`Change`]: records are put and synced, then the ledger that names them is
//! stored, then what it no longer names is deleted. So the ledger never names what may be missing,
//! and a loss is on disk before what it covers is gone.

use std::ops::Range;

use bytes::Bytes;
use infratrack_shared::ids::{BootId, StreamId};
use infratrack_shared::limits;
use infratrack_shared::wire::batch::{Class, Lost, LostReason, Part};
use infratrack_shared::wire::heartbeat::SpoolUsage;

use super::backend::{Backend, BackendError, Key, Write};
use super::lane::{Lane, Slot};
use super::ledger::Ledger;
use super::record::{self, Decoded, Stored};
use super::{Budget, Outgoing};
use crate::failpoint::reach;

/// Beats kept: 24 hours of one every 30 seconds.
pub(super) const RING: u64 = 2_880;
/// Records deleted in one batch.
const DELETED_AT_ONCE: usize = 50;
/// Heartbeat numbers reserved at a time.
const HEARTBEATS: u64 = 1_000;
pub(super) const CLASSES: [Class; 2] = [Class::Critical, Class::Beat];

/// See the module.
pub(super) struct Queue {
    pub(super) backend: Box<dyn Backend>,
    pub(super) ledger: Ledger,
    /// The highest revision written anywhere, above the ledger's after a failure.
    pub(super) revision: u64,
    pub(super) quota: super::quota::Quota,
    /// Heartbeat numbers reserved and not given out.
    heartbeats: Range<u64>,
    /// Beats that could not be kept and have no number yet.
    pub(super) shed_beats: u64,
}

/// One step from a ledger to the next.
pub(super) struct Change {
    pub ledger: Ledger,
    pub puts: Vec<Write>,
    pub deletes: Vec<Write>,
    pub until: Until,
}

/// What a change has to survive before it counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The ledger survives power loss; records put may not.
    Stored,
    /// All of it survives power loss.
    Synced,
}

impl Queue {
    pub(super) fn new(backend: Box<dyn Backend>, ledger: Ledger, quota_bytes: u64) -> Self {
        Self {
            backend,
            revision: ledger.revision,
            quota: super::quota::Quota::new(quota_bytes),
            heartbeats: ledger.heartbeats_reserved..ledger.heartbeats_reserved,
            shed_beats: 0,
            ledger,
        }
    }

    /// As [`Queue::new`], after a run that may have ended anyhow: numbers that may have been used and
    /// have no record are declared lost, never used again.
    pub(super) fn resume(
        backend: Box<dyn Backend>,
        ledger: Ledger,
        quota_bytes: u64,
    ) -> Result<Self, BackendError> {
        let mut queue = Self::new(backend, ledger, quota_bytes);
        let mut ledger = queue.ledger.clone();
        for section in ledger.sections_mut() {
            for class in CLASSES {
                let slot = section.slot;
                let lane = section.lane_mut(class);
                let from = lane.durable.max(lane.kept_from);
                let known = lane.next;
                lane.next = lane.reserved.max(lane.next);
                for (from, to) in lane.present(from, lane.highest()) {
                    for seq in from..=to {
                        match queue.backend.get(&Key::record(slot, class, seq))? {
                            Some(value) if seq >= known => lane.bytes += value.len() as u64,
                            Some(_) => {}
                            None => lane.lose(seq, seq, LostReason::Damaged),
                        }
                    }
                }
            }
        }
        queue.commit(Change {
            ledger,
            puts: Vec::new(),
            deletes: Vec::new(),
            until: Until::Synced,
        })?;
        Ok(queue)
    }

    /// Before every use of the store: opens it where it is closed.
    pub(super) fn wake(&mut self) -> Result<(), BackendError> {
        let ledger = Ledger {
            revision: self.revision + 1,
            ..self.ledger.clone()
        };
        let Some(awake) = self.backend.awaken(&ledger)? else {
            return Ok(());
        };
        self.revision = awake.ledger.revision;
        self.ledger = awake.ledger;
        std::mem::replace(&mut self.backend, awake.store).discard();
        Ok(())
    }

    pub(super) fn commit(&mut self, change: Change) -> Result<(), BackendError> {
        let Change {
            mut ledger,
            puts,
            deletes,
            until,
        } = change;
        if !puts.is_empty() || !deletes.is_empty() || until == Until::Synced {
            self.wake()?;
        }
        // A store may have been woken since the caller took its copy of the ledger.
        ledger.generation = self.ledger.generation;
        self.revision += 1;
        ledger.revision = self.revision;
        if until == Until::Synced {
            for section in ledger.sections_mut() {
                for class in CLASSES {
                    let lane = section.lane_mut(class);
                    lane.durable = lane.next;
                    lane.reserved = lane.reserved.max(lane.next);
                }
            }
        }
        if !puts.is_empty() {
            reach("spool::insert");
            self.backend.apply(puts, Some(&ledger))?;
            reach("spool::inserted");
        }
        if until == Until::Synced {
            self.backend.sync()?;
            reach("spool::synced");
        }
        self.backend.store_ledger(&ledger)?;
        reach("spool::stored");
        self.ledger = ledger;
        // In parts, for their memory: see `rebuild`. The copy of the ledger goes with the last.
        let mut deletes = self.affordable(deletes).into_iter().peekable();
        while deletes.peek().is_some() {
            let part = deletes.by_ref().take(DELETED_AT_ONCE).collect();
            let copy = deletes.peek().is_none().then_some(&self.ledger);
            let mut done = self.backend.apply(part, copy);
            if copy.is_none() {
                // What a slow disk has not taken yet waits in memory.
                done = done.and_then(|()| self.backend.sync());
            }
            if let Err(error) = done {
                // Nothing names these records any more: they cost space until the next rotation.
                tracing::warn!(%error, "spool: records that are done with could not be deleted");
                break;
            }
        }
        reach("spool::deleted");
        Ok(())
    }

    /// The oldest unacknowledged records and losses of the oldest stream that has any.
    pub(super) fn next(
        &mut self,
        budget: Budget,
        boot_id: BootId,
    ) -> Result<Option<Outgoing>, BackendError> {
        let Some(section) = self.ledger.sections().find(|section| !section.drained()) else {
            return Ok(None);
        };
        let stream = section.stream;
        let mut left = Left {
            budget,
            lost: limits::BATCH_LOST_RANGES,
            first: true,
        };
        let mut parts = Vec::new();
        for class in CLASSES {
            let part = self.part(stream, class, &mut left, boot_id)?;
            if !part.records.is_empty() || !part.lost.is_empty() {
                parts.push(part);
            }
        }
        Ok(Some(Outgoing { stream, parts }))
    }

    fn part(
        &mut self,
        stream: StreamId,
        class: Class,
        left: &mut Left,
        boot_id: BootId,
    ) -> Result<Part, BackendError> {
        let (mut seq, end) = self
            .lane(stream, class)
            .map_or((1, 1), |(_, lane)| (lane.acked + 1, lane.next));
        let mut part = Part {
            class,
            first_seq: seq,
            lost: Vec::new(),
            records: Vec::new(),
        };
        while seq < end {
            match self.look(stream, class, seq, boot_id)? {
                Found::Lost(lost) => {
                    if left.lost == 0 {
                        break;
                    }
                    left.lost -= 1;
                    part.lost.push(lost);
                    seq = lost.to + 1;
                }
                Found::Record(decoded) => {
                    if !left.take(&decoded) {
                        break;
                    }
                    part.records.push(decoded.record);
                    seq += 1;
                }
            }
        }
        Ok(part)
    }

    /// What is to be sent for `seq`. What can't be read is declared lost here and now.
    fn look(
        &mut self,
        stream: StreamId,
        class: Class,
        seq: u64,
        boot_id: BootId,
    ) -> Result<Found, BackendError> {
        let nothing = Lost {
            from: seq,
            to: seq,
            reason: LostReason::Damaged,
        };
        let Some((slot, lane)) = self.lane(stream, class) else {
            return Ok(Found::Lost(nothing));
        };
        if let Slot::Lost(lost) = lane.at(seq) {
            return Ok(Found::Lost(lost));
        }
        let key = Key::record(slot, class, seq);
        self.wake()?;
        let value = match self.backend.get(&key) {
            Ok(value) => value,
            Err(BackendError::Damaged(detail)) => {
                tracing::warn!(seq, detail, "spool: a record can't be read");
                None
            }
            Err(error) => return Err(error),
        };
        let stored = value
            .as_ref()
            .map_or(Stored::Damaged, |value| record::decode(value, seq, boot_id));
        let (reason, puts, until) = match stored {
            Stored::Record(decoded) => return Ok(Found::Record(decoded)),
            Stored::Damaged => (LostReason::Damaged, Vec::new(), Until::Stored),
            Stored::Newer => {
                let aside = (Key::unread(self.ledger.unread), value.clone());
                (LostReason::Other, vec![aside], Until::Synced)
            }
        };
        let mut ledger = self.ledger.clone();
        ledger.unread += puts.len() as u64;
        if let Some(section) = ledger.section_mut(stream) {
            let lane = section.lane_mut(class);
            lane.lose(seq, seq, reason);
            lane.bytes = lane
                .bytes
                .saturating_sub(value.map_or(0, |value| value.len() as u64));
        }
        self.commit(Change {
            ledger,
            puts,
            deletes: vec![(key, None)],
            until,
        })?;
        Ok(Found::Lost(Lost { reason, ..nothing }))
    }

    /// A number no other heartbeat of any stream of this spool has.
    pub(super) fn heartbeat_number(&mut self) -> Result<u64, BackendError> {
        if self.heartbeats.is_empty() {
            let mut ledger = self.ledger.clone();
            let from = ledger.heartbeats_reserved;
            ledger.heartbeats_reserved = from + HEARTBEATS;
            self.commit(Change {
                ledger,
                puts: Vec::new(),
                deletes: Vec::new(),
                until: Until::Stored,
            })?;
            self.heartbeats = from..from + HEARTBEATS;
        }
        let number = self.heartbeats.start;
        self.heartbeats.start += 1;
        Ok(number)
    }

    pub(super) fn get(&mut self, name: &str) -> Result<Option<Bytes>, BackendError> {
        if self.ledger.values.contains(name) {
            self.wake()?;
            self.backend.get(&Key::value(name))
        } else {
            Ok(None)
        }
    }

    /// Sets or removes a small value.
    pub(super) fn put(&mut self, name: &str, value: Option<Bytes>) -> Result<(), BackendError> {
        let mut ledger = self.ledger.clone();
        if value.is_some() {
            ledger.values.insert(name.to_owned());
        } else {
            ledger.values.remove(name);
        }
        self.commit(Change {
            ledger,
            puts: vec![(Key::value(name), value)],
            deletes: Vec::new(),
            until: Until::Synced,
        })
    }

    /// Events tell of the damage: not to be reported at the next opening.
    pub(super) fn damage_told(&mut self) -> Result<(), BackendError> {
        let mut ledger = self.ledger.clone();
        ledger.untold.clear();
        self.commit(Change {
            ledger,
            puts: Vec::new(),
            deletes: Vec::new(),
            until: Until::Stored,
        })
    }

    /// Leaves nothing uncertain behind.
    pub(super) fn close(&mut self) -> Result<(), BackendError> {
        let mut ledger = self.ledger.clone();
        ledger.heartbeats_reserved = self.heartbeats.start;
        for section in ledger.sections_mut() {
            section.beat.reserved = section.beat.next;
        }
        self.heartbeats.end = self.heartbeats.start;
        self.commit(Change {
            ledger,
            puts: Vec::new(),
            deletes: Vec::new(),
            until: Until::Synced,
        })
    }

    pub(super) fn usage(&mut self) -> SpoolUsage {
        SpoolUsage {
            critical_records: self.ledger.unacked(Class::Critical),
            beat_records: self.ledger.unacked(Class::Beat),
            size_bytes: self.backend.size_bytes(),
        }
    }

    pub(super) fn size_of(&mut self, key: &Key) -> u64 {
        let got = self.wake().and_then(|()| self.backend.get(key));
        match got {
            Ok(Some(value)) => value.len() as u64,
            Ok(None) | Err(_) => 0,
        }
    }

    fn lane(&self, stream: StreamId, class: Class) -> Option<(u32, &Lane)> {
        let mut sections = self.ledger.sections();
        let section = sections.find(|section| section.stream == stream)?;
        Some((section.slot, section.lane(class)))
    }
}

enum Found {
    Lost(Lost),
    Record(Decoded),
}

/// What a batch still has room for.
struct Left {
    budget: Budget,
    lost: usize,
    first: bool,
}

impl Left {
    /// Takes a record's share; one always fits, so that a batch can't be stuck.
    fn take(&mut self, decoded: &Decoded) -> bool {
        let budget = &mut self.budget;
        let fits =
            budget.records > 0 && decoded.bytes <= budget.bytes && decoded.items <= budget.items;
        if fits || self.first {
            budget.records = budget.records.saturating_sub(1);
            budget.bytes = budget.bytes.saturating_sub(decoded.bytes);
            budget.items = budget.items.saturating_sub(decoded.items);
            self.first = false;
            return true;
        }
        false
    }
}
