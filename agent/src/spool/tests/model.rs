//! The queue against a collector that remembers everything: whatever happens in whatever order,
//! each record arrives in order or is covered by a lost range, and no number is used twice.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use infratrack_shared::ids::StreamId;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::batch::{Class, LostReason, Part};
use proptest::prelude::*;
use proptest::test_runner::Config;

use super::super::ledger::Ledger;
use super::super::memory::Medium;
use super::super::queue::Queue;
use super::super::{Budget, record};
use super::{ALL, NOW, boot, cursor, expected, said, texts};

const QUOTA: u64 = u64::MAX;
/// A value that is set with critical records: how many there were.
const COUNT: &str = "count";

#[derive(Clone, Debug)]
enum Step {
    Append(Class, u64),
    /// Send at most so many records; the answer comes or is lost on the way.
    Send {
        records: usize,
        answered: bool,
    },
    /// The collector forgets its last commits.
    Forget(u64),
    /// The first record on the way is refused alone.
    Refuse,
    Fork,
    Rotate,
    PowerLoss,
    Restart,
    Wait(i64),
    Heartbeat,
}

fn step() -> impl Strategy<Value = Step> {
    let class = prop_oneof![Just(Class::Critical), Just(Class::Beat)];
    prop_oneof![
        6 => (class, 1..20_u64).prop_map(|(class, count)| Step::Append(class, count)),
        6 => (1..30_usize, prop::bool::weighted(0.8))
            .prop_map(|(records, answered)| Step::Send { records, answered }),
        1 => (1..20_u64).prop_map(Step::Forget),
        1 => Just(Step::Refuse),
        1 => Just(Step::Fork),
        1 => Just(Step::Rotate),
        2 => Just(Step::PowerLoss),
        1 => Just(Step::Restart),
        1 => (0..1_000_000_i64).prop_map(Step::Wait),
        1 => Just(Step::Heartbeat),
    ]
}

struct World {
    medium: Medium,
    queue: Queue,
    now: UnixMillis,
    appended: BTreeMap<Class, Vec<String>>,
    refused: usize,
    heartbeats: BTreeSet<u64>,
    /// What was at each number, for ever.
    seen: BTreeMap<(StreamId, Class, u64), Option<String>>,
    cursors: BTreeMap<(StreamId, Class), u64>,
    damaged: u64,
}

impl World {
    fn new() -> Self {
        let medium = Medium::journaled();
        let ledger = Ledger::new(StreamId::at(NOW));
        let store = Box::new(medium.generation(ledger.generation));
        let queue = Queue::resume(store, ledger, QUOTA).unwrap();
        Self {
            medium,
            queue,
            now: NOW,
            appended: BTreeMap::new(),
            refused: 0,
            heartbeats: BTreeSet::new(),
            seen: BTreeMap::new(),
            cursors: BTreeMap::new(),
            damaged: 0,
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Append(class, count) => self.append(class, count),
            Step::Send { records, answered } => {
                self.send(Budget { records, ..ALL }, answered);
            }
            Step::Forget(count) => self.forget(count),
            Step::Refuse => self.refuse(),
            Step::Fork => {
                let stream = self.queue.ledger.current.stream;
                self.queue.fork(stream, self.now).unwrap().unwrap();
            }
            Step::Rotate => self.queue.rotate().unwrap(),
            Step::PowerLoss => self.reopen(),
            Step::Restart => {
                self.queue.close().unwrap();
                self.reopen();
            }
            Step::Wait(millis) => self.now = self.now.plus_millis(millis),
            Step::Heartbeat => {
                let number = self.queue.heartbeat_number().unwrap();
                assert!(self.heartbeats.insert(number), "{number} came twice");
            }
        }
    }

    fn append(&mut self, class: Class, count: u64) {
        let appended = self.appended.entry(class).or_default();
        let mut values = Vec::new();
        for _ in 0..count {
            let text = format!("{class:?} {:06}", appended.len());
            values.push(Bytes::from(record::encode(&said(&text)).unwrap()));
            appended.push(text);
        }
        if class == Class::Critical {
            let count = Bytes::from(appended.len().to_string());
            self.queue.append_with(values, COUNT, count).unwrap();
        } else {
            self.queue.append(&[(class, values)]).unwrap();
        }
    }

    fn send(&mut self, budget: Budget, answered: bool) -> bool {
        let Some(outgoing) = self.queue.next(budget, boot()).unwrap() else {
            return false;
        };
        let mut cursors = Vec::new();
        for part in &outgoing.parts {
            let last = self.receive(outgoing.stream, part);
            cursors.push(cursor(outgoing.stream, part.class, last));
        }
        if answered {
            let done = self.queue.acknowledge(&cursors, self.now).unwrap();
            assert!(done.forked.is_empty());
        }
        true
    }

    /// Commits a part as a collector does: no hole, nothing another than before.
    fn receive(&mut self, stream: StreamId, part: &Part) -> u64 {
        let at = self.cursors.entry((stream, part.class)).or_default();
        assert!(part.first_seq <= *at + 1, "a hole after {at}: {part:?}");
        let mut numbers = BTreeMap::new();
        for lost in &part.lost {
            numbers.extend((lost.from..=lost.to).map(|seq| (seq, None)));
        }
        for (record, text) in part.records.iter().zip(texts(part)) {
            assert_eq!(numbers.insert(record.seq, Some(text)), None);
        }
        let dense: Vec<_> = (part.first_seq..).take(numbers.len()).collect();
        assert_eq!(numbers.keys().copied().collect::<Vec<_>>(), dense);
        for (seq, text) in numbers {
            let before = self.seen.entry((stream, part.class, seq)).or_default();
            if let (Some(before), Some(text)) = (&before, &text) {
                assert_eq!(before, text, "number {seq} was used twice");
            }
            if text.is_some() {
                *before = text;
            }
            *at = (*at).max(seq);
        }
        let damaged = part.lost.iter();
        let damaged = damaged.filter(|lost| lost.reason == LostReason::Damaged);
        self.damaged += damaged.map(|lost| lost.to - lost.from + 1).sum::<u64>();
        *at
    }

    fn forget(&mut self, count: u64) {
        let stream = self.queue.ledger.current.stream;
        if let Some(at) = self.cursors.get_mut(&(stream, Class::Critical)) {
            *at = at.saturating_sub(count);
            let back = [expected(stream, Class::Critical, *at + 1)];
            let rewound = self.queue.rewind(&back, self.now).unwrap();
            assert!(rewound.forked.is_empty());
        }
    }

    fn refuse(&mut self) {
        let Some(outgoing) = self.queue.next(ALL, boot()).unwrap() else {
            return;
        };
        for part in outgoing.parts {
            let at = self.cursors.get(&(outgoing.stream, part.class));
            let Some(first) = part.records.first() else {
                continue;
            };
            // A collector refuses only what it has not committed.
            if first.seq > at.copied().unwrap_or(0) {
                let refused = self.queue.refuse(outgoing.stream, part.class, first.seq);
                refused.unwrap();
                self.refused += 1;
            }
        }
    }

    fn reopen(&mut self) {
        let ledger = self.medium.power_loss().unwrap();
        let store = Box::new(self.medium.generation(ledger.generation));
        self.queue = Queue::resume(store, ledger, QUOTA).unwrap();
        let count = self.queue.get(COUNT).unwrap();
        let appended = self.appended.get(&Class::Critical).map(Vec::len);
        assert_eq!(count, appended.map(|count| Bytes::from(count.to_string())));
    }

    fn settle(mut self) {
        while self.send(ALL, true) {}
        let seen = |class| {
            let texts = self.seen.iter().filter(|((_, of, _), _)| *of == class);
            texts
                .filter_map(|(_, text)| text.clone())
                .collect::<BTreeSet<_>>()
        };
        for (class, appended) in &self.appended {
            let seen = seen(*class);
            let missing = appended.iter().filter(|text| !seen.contains(*text)).count();
            let excused = match class {
                Class::Critical => self.refused as u64,
                Class::Beat => self.refused as u64 + self.damaged,
            };
            assert!(missing as u64 <= excused, "{missing} of {class:?} missing");
        }
        let mut last = BTreeMap::new();
        for ((stream, class, _), text) in &self.seen {
            let Some(text) = text else { continue };
            let before = last.insert((stream, class), text);
            assert!(before < Some(text), "{text} after {before:?}");
        }
    }
}

proptest! {
    #![proptest_config(Config { cases: 256, failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_record_arrives_in_order_or_is_counted(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        world.settle();
    }
}
