//! What the world knows at a moment: what was promised, what the collector has, what was ever sent.
//!
//! The collector in here is the real one's rules in few words: it takes a stream's numbers without a
//! hole, skips what it has, and keeps everything, unless it is told to forget.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{bail, ensure};
use infratrack_shared::ids::StreamId;
use infratrack_shared::wire::batch::{Class, Lost, LostReason};

use super::mark::Mark;

type Lane = (StreamId, Class);

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The stream the spool named last; `None` while a fork or a first start is on its way.
    pub stream: Option<StreamId>,
    /// Records whose append returned, and the stream and number they got.
    promised: BTreeMap<u64, (StreamId, u64)>,
    pending: Option<(Class, u64, u64)>,
    /// What was at each number, ever.
    used: BTreeMap<(Lane, u64), u64>,
    /// Numbers that went to the collector with a record, whether it took them or not.
    sent: BTreeSet<(Lane, u64)>,
    /// What the collector has committed.
    taken: BTreeMap<(Lane, u64), u64>,
    cursors: BTreeMap<Lane, u64>,
    lost: BTreeMap<(Lane, u64), LostReason>,
    /// The highest number of a heartbeat.
    pub heartbeat: u64,
    /// What the small value may be; more than one while it is being set.
    pub values: Vec<u64>,
    /// What it ever was.
    past_values: Vec<u64>,
    /// A value was promised; damage may have cost it.
    pub has_value: bool,
    /// The next record that was never appended.
    pub fresh: u64,
    /// The spool was opened at least once.
    pub opened: bool,
    /// A record was garbled, and nobody was told of it.
    pub damaged: bool,
}

impl History {
    /// Takes the next step; fails where it breaks a promise.
    pub fn step(&mut self, mark: &Mark) -> anyhow::Result<()> {
        match mark {
            Mark::Opened { stream, damaged } => {
                // A first start that was cut short leaves a store without a ledger.
                let excused = self.damaged || !self.opened;
                ensure!(!damaged || excused, "damage where none was done");
                let known = self.stream.is_none_or(|known| known == *stream);
                ensure!(known || *damaged, "another stream without a reason");
                self.stream = Some(*stream);
                self.opened = true;
                // sled takes a garbled record at the end of its log for the end: what came after it is
                // gone. Of records that is counted; a small value goes back to what it was.
                if *damaged {
                    self.has_value = false;
                    self.values.clone_from(&self.past_values);
                }
            }
            Mark::Append { class, from, count } => {
                self.pending = Some((*class, *from, *count));
                self.fresh = self.fresh.max(from + count);
            }
            Mark::Appended { stream, last } => self.appended(*stream, *last)?,
            Mark::Sent {
                stream,
                class,
                first_seq,
                records,
                lost,
            } => self.sent((*stream, *class), *first_seq, records, lost)?,
            Mark::Committed { stream, class, to } => self.committed((*stream, *class), *to),
            Mark::Forgot { stream, class, to } => {
                let lane = (*stream, *class);
                self.taken.retain(|(of, seq), _| *of != lane || seq <= to);
                self.cursors.insert(lane, *to);
            }
            Mark::Heartbeat { number } => {
                ensure!(*number > self.heartbeat, "heartbeat {number} came again");
                self.heartbeat = *number;
            }
            Mark::Put { value } => {
                self.values.push(*value);
                self.past_values.push(*value);
            }
            Mark::HasPut { value } => {
                self.values = vec![*value];
                self.has_value = true;
            }
            Mark::Fork => self.stream = None,
            Mark::Forked { stream } => self.stream = Some(*stream),
            Mark::Damage => self.damaged = true,
            Mark::Told => self.damaged = false,
        }
        Ok(())
    }

    fn appended(&mut self, stream: StreamId, last: u64) -> anyhow::Result<()> {
        let Some((class, from, count)) = self.pending.take() else {
            bail!("an append that was never begun");
        };
        for (number, seq) in (from..from + count).zip(last + 1 - count..) {
            let place = ((stream, class), seq);
            let before = self.used.insert(place, number);
            ensure!(before.is_none(), "{place:?} was {before:?} already");
            if class == Class::Critical {
                self.promised.insert(number, (stream, seq));
            }
        }
        Ok(())
    }

    fn sent(
        &mut self,
        lane: Lane,
        first_seq: u64,
        records: &[(u64, u64)],
        lost: &[Lost],
    ) -> anyhow::Result<()> {
        let mut numbers: BTreeSet<u64> = records.iter().map(|(seq, _)| *seq).collect();
        ensure!(numbers.len() == records.len(), "a number twice in one part");
        for (seq, number) in records {
            self.sent.insert((lane, *seq));
            let before = self.used.insert((lane, *seq), *number);
            let same = before.is_none_or(|before| before == *number);
            ensure!(same, "{lane:?} {seq} was {before:?}, is {number}");
        }
        for range in lost {
            for seq in range.from..=range.to {
                ensure!(numbers.insert(seq), "{seq} is sent and lost");
                self.lost.insert((lane, seq), range.reason);
            }
        }
        let dense = numbers
            .iter()
            .copied()
            .eq((first_seq..).take(numbers.len()));
        ensure!(dense, "{lane:?}: a hole from {first_seq} in {numbers:?}");
        Ok(())
    }

    fn committed(&mut self, lane: Lane, to: u64) {
        let from = self.cursor(lane.0, lane.1) + 1;
        if to < from {
            return;
        }
        for place in self.sent.range((lane, from)..=(lane, to)) {
            // Sent once and lost since: the part that was committed had no record of it.
            if !self.lost.contains_key(place)
                && let Some(number) = self.used.get(place)
            {
                self.taken.insert(*place, *number);
            }
        }
        self.cursors.insert(lane, to);
    }

    /// Where the collector stands.
    pub fn cursor(&self, stream: StreamId, class: Class) -> u64 {
        self.cursors.get(&(stream, class)).copied().unwrap_or(0)
    }

    /// Numbers lost to damage: what a crash may lose too where a record was garbled on purpose.
    pub fn damage(&self) -> BTreeSet<(StreamId, u64)> {
        let lost = self.lost.iter();
        let lost = lost.filter(|((lane, _), reason)| {
            lane.1 == Class::Critical && **reason == LostReason::Damaged
        });
        lost.map(|((lane, seq), _)| (lane.0, *seq)).collect()
    }

    /// Everything was sent: fails where a promise was not kept. `excused`: see [`History::damage`].
    pub fn settle(&self, excused: &BTreeSet<(StreamId, u64)>) -> anyhow::Result<()> {
        let has: BTreeSet<u64> = self.taken.values().copied().collect();
        for (number, place) in &self.promised {
            let lost = self.lost.get(&((place.0, Class::Critical), place.1));
            let told = match lost {
                Some(LostReason::Quota) => true,
                Some(LostReason::Damaged) => excused.contains(place),
                Some(
                    LostReason::RingFull
                    | LostReason::AckedNotKept
                    | LostReason::Refused
                    | LostReason::DiskFull
                    | LostReason::Other,
                )
                | None => false,
            };
            ensure!(
                told || has.contains(number),
                "record {number}, promised as {place:?}, is gone ({lost:?})"
            );
        }
        let mut last: BTreeMap<Lane, u64> = BTreeMap::new();
        for ((lane, seq), number) in &self.taken {
            let before = last.insert(*lane, *number);
            ensure!(
                before < Some(*number),
                "{lane:?} {seq}: {number} after {before:?}"
            );
        }
        Ok(())
    }
}
