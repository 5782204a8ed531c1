//! What the collector says back: cursors forward, cursors back, records it will never take.

use infratrack_shared::ids::StreamId;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::answer::{Cursor, Expected};
use infratrack_shared::wire::batch::{Class, LostReason};

use super::backend::{BackendError, Key, Write};
use super::lane::{Lane, Slot};
use super::queue::{Change, Queue, Until};
use super::{Acknowledged, Rewound};

impl Queue {
    /// Moves cursors forward; names the streams whose cursor is above anything sent.
    pub(super) fn acknowledge(
        &mut self,
        cursors: &[Cursor],
        now: UnixMillis,
    ) -> Result<Acknowledged, BackendError> {
        let mut ledger = self.ledger.clone();
        let mut deletes = Vec::new();
        let mut answer = Acknowledged::default();
        for cursor in cursors {
            let is_current = ledger.current.stream == cursor.stream;
            let Some(section) = ledger.section_mut(cursor.stream) else {
                continue;
            };
            let slot = section.slot;
            let lane = section.lane_mut(cursor.class);
            if cursor.acked_seq > lane.highest() {
                answer.forked.push(cursor.stream);
            } else if cursor.acked_seq > lane.acked {
                answer.advanced = true;
                self.advance(slot, cursor, is_current, lane, now, &mut deletes);
            }
        }
        if answer.advanced {
            ledger.old.retain(|section| !section.drained());
            self.commit(Change {
                ledger,
                puts: Vec::new(),
                deletes,
                until: Until::Stored,
            })?;
        }
        answer.forked.dedup();
        Ok(answer)
    }

    fn advance(
        &mut self,
        slot: u32,
        cursor: &Cursor,
        is_current: bool,
        lane: &mut Lane,
        now: UnixMillis,
        deletes: &mut Vec<Write>,
    ) {
        let before = lane.clone();
        if is_current && cursor.class == Class::Critical {
            let sizes = before.present(before.acked + 1, cursor.acked_seq);
            let keys = sizes.into_iter().flat_map(|(from, to)| from..=to);
            let bytes = keys
                .map(|seq| self.size_of(&Key::record(slot, cursor.class, seq)))
                .sum();
            lane.acknowledge(cursor.acked_seq, bytes, now);
        } else {
            lane.acknowledge_for_good(cursor.acked_seq);
        }
        let freed = self.delete(slot, cursor.class, &before, lane.kept_from, deletes);
        lane.bytes = lane.bytes.saturating_sub(freed);
    }

    /// Deletes the records of `lane` below `end`; answers their bytes.
    pub(super) fn delete(
        &mut self,
        slot: u32,
        class: Class,
        lane: &Lane,
        end: u64,
        deletes: &mut Vec<Write>,
    ) -> u64 {
        let mut freed = 0;
        for (from, to) in lane.present(lane.kept_from, end - 1) {
            for seq in from..=to {
                let key = Key::record(slot, class, seq);
                freed += self.size_of(&key);
                deletes.push((key, None));
            }
        }
        freed
    }

    /// Goes where the collector says it is.
    pub(super) fn rewind(
        &mut self,
        expected: &[Expected],
        now: UnixMillis,
    ) -> Result<Rewound, BackendError> {
        let mut ledger = self.ledger.clone();
        let mut deletes = Vec::new();
        let mut answer = Rewound::default();
        for place in expected {
            let cursor = Cursor {
                stream: place.stream,
                class: place.class,
                acked_seq: place.seq.saturating_sub(1),
            };
            let is_current = ledger.current.stream == place.stream;
            let Some(section) = ledger.section_mut(place.stream) else {
                continue;
            };
            let slot = section.slot;
            let lane = section.lane_mut(place.class);
            if cursor.acked_seq > lane.highest() {
                answer.forked.push(place.stream);
            } else if cursor.acked_seq > lane.acked {
                self.advance(slot, &cursor, is_current, lane, now, &mut deletes);
            } else if cursor.acked_seq < lane.acked {
                answer.went_back = true;
                lane.rewind(cursor.acked_seq + 1);
            }
        }
        ledger.old.retain(|section| !section.drained());
        if ledger != self.ledger {
            self.commit(Change {
                ledger,
                puts: Vec::new(),
                deletes,
                until: Until::Stored,
            })?;
        }
        answer.forked.dedup();
        Ok(answer)
    }

    /// The collector refuses this record even alone.
    pub(super) fn refuse(
        &mut self,
        stream: StreamId,
        class: Class,
        seq: u64,
    ) -> Result<(), BackendError> {
        let mut ledger = self.ledger.clone();
        let Some(section) = ledger.section_mut(stream) else {
            return Ok(());
        };
        let key = Key::record(section.slot, class, seq);
        let lane = section.lane_mut(class);
        if seq <= lane.acked || seq >= lane.next || lane.at(seq) != Slot::Record {
            return Ok(());
        }
        lane.lose(seq, seq, LostReason::Refused);
        lane.bytes = lane.bytes.saturating_sub(self.size_of(&key));
        self.commit(Change {
            ledger,
            puts: Vec::new(),
            deletes: vec![(key, None)],
            until: Until::Stored,
        })
    }
}
