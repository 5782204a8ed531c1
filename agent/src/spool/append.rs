//! Appending to the queue: records get their numbers, and what is over the ring's size is declared lost.

use bytes::Bytes;
use infratrack_shared::wire::batch::{Class, LostReason};

use super::backend::{BackendError, Key, Write};
use super::ledger::Section;
use super::queue::{Change, Queue, RING, Until};

impl Queue {
    /// Appends in one commit; answers the last number of each.
    pub(super) fn append(
        &mut self,
        batches: &[(Class, Vec<Bytes>)],
    ) -> Result<Vec<u64>, BackendError> {
        let appended = self.try_append(batches, None);
        if appended.is_err() {
            let beats = batches.iter().filter(|(class, _)| *class == Class::Beat);
            self.shed_beats += beats.map(|(_, values)| values.len() as u64).sum::<u64>();
        }
        appended
    }

    /// Appends critical records and sets a small value, in one commit: after a crash it is both or neither.
    pub(super) fn append_with(
        &mut self,
        values: Vec<Bytes>,
        name: &str,
        value: Bytes,
    ) -> Result<(), BackendError> {
        self.try_append(&[(Class::Critical, values)], Some((name, value)))
            .map(|_| ())
    }

    fn try_append(
        &mut self,
        batches: &[(Class, Vec<Bytes>)],
        with: Option<(&str, Bytes)>,
    ) -> Result<Vec<u64>, BackendError> {
        let keep_beats = self.make_room()?;
        let mut ledger = self.ledger.clone();
        let slot = ledger.current.slot;
        ledger
            .current
            .beat
            .append_lost(self.shed_beats, LostReason::DiskFull);
        let (mut puts, mut last) = (Vec::new(), Vec::new());
        for (class, values) in batches {
            let lane = ledger.current.lane_mut(*class);
            if *class == Class::Beat && !keep_beats {
                lane.append_lost(values.len() as u64, LostReason::Quota);
                last.push(lane.highest());
                continue;
            }
            for value in values {
                puts.push((Key::record(slot, *class, lane.next), Some(value.clone())));
                lane.bytes += value.len() as u64;
                lane.next += 1;
            }
            last.push(lane.highest());
        }
        let deletes = self.turn_ring(&mut ledger.current, &puts);
        if let Some((name, value)) = with {
            ledger.values.insert(name.to_owned());
            puts.push((Key::value(name), Some(value)));
        }
        let until = if puts.is_empty() {
            Until::Stored
        } else {
            Until::Synced
        };
        self.commit(Change {
            ledger,
            puts,
            deletes,
            until,
        })?;
        self.shed_beats = 0;
        Ok(last)
    }

    /// Declares the oldest beats above the ring's size lost.
    fn turn_ring(&mut self, section: &mut Section, puts: &[Write]) -> Vec<Write> {
        let mut deletes = Vec::new();
        let mut excess = section.beat.unacked().saturating_sub(RING);
        let slot = section.slot;
        let lane = &mut section.beat;
        for (from, to) in lane.present(lane.acked + 1, lane.highest()) {
            if excess == 0 {
                break;
            }
            let to = to.min(from + excess - 1);
            excess -= to - from + 1;
            lane.lose(from, to, LostReason::RingFull);
            for seq in from..=to {
                let key = Key::record(slot, Class::Beat, seq);
                let pending = puts.iter().find(|(put, _)| *put == key);
                let bytes = match pending {
                    Some((_, value)) => value.as_ref().map_or(0, |value| value.len() as u64),
                    None => self.size_of(&key),
                };
                lane.bytes = lane.bytes.saturating_sub(bytes);
                deletes.push((key, None));
            }
        }
        deletes
    }
}
