//! What was saved of one store becomes part of another: records keep their stream and numbers, the rest
//! of the numbers is lost.
//!
//! Used after damage ([`super::open`]) and for a spool that was put aside ([`super::newer`]).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use infratrack_shared::wire::batch::{Class, LostReason};
use infratrack_shared::wire::event::{DamagedClass, SpoolDamaged};

use super::OpenReport;
use super::backend::{Backend, BackendError, Key};
use super::lane::Lane;
use super::ledger::{Ledger, Section};
use super::probe::{self, Salvaged};
use super::queue::CLASSES;
use super::rebuild::Chunk;

/// Puts everything that was saved into `disk`, and its streams into `target`, to drain first.
pub(super) fn salvage(
    disk: &mut dyn Backend,
    root: &Path,
    old: Ledger,
    mut target: Ledger,
    mut detail: String,
    report: &mut OpenReport,
) -> Result<Ledger, BackendError> {
    target.revision = old.revision + 1;
    target.current.slot = old.next_slot;
    target.next_slot = old.next_slot + 1;
    target.heartbeats_reserved = old.heartbeats_reserved;
    target.unread = old.unread;
    report.damaged = old.untold;
    let found = Found::put(disk, root, Some)?;
    for name in &old.values {
        if found.0.contains_key(&Key::value(name)) {
            target.values.insert(name.clone());
        } else {
            detail = format!("{detail}; value {name} is lost");
        }
    }
    for mut section in old.old.into_iter().chain([old.current]) {
        let mut classes = Vec::new();
        for class in CLASSES {
            let slot = section.slot;
            let (expected, salvaged) = found.settle(slot, class, section.lane_mut(class));
            classes.push(DamagedClass {
                class,
                expected,
                salvaged,
            });
        }
        report.damaged.push(SpoolDamaged {
            stream: Some(section.stream),
            detail: detail.clone(),
            classes,
        });
        if !Section::drained(&section) {
            target.old.push(section);
        }
    }
    Ok(target)
}

/// The keys that were saved, with their values' sizes.
#[derive(Default)]
pub(super) struct Found(BTreeMap<Key, u64>);

impl Found {
    /// Puts what was saved of the spool in `root` into `disk`, under the keys that `rename` gives.
    pub(super) fn put(
        disk: &mut dyn Backend,
        root: &Path,
        rename: impl Fn(Key) -> Option<Key>,
    ) -> Result<Self, BackendError> {
        let mut found = Self::default();
        let mut chunk = Chunk::default();
        for (key, value) in Salvaged::open(root) {
            let Some(key) = rename(key) else { continue };
            // It was saved twice, first with sled's snapshot, which may know better.
            if let Entry::Vacant(entry) = found.0.entry(key.clone()) {
                entry.insert(value.len() as u64);
                chunk.push(disk, (key, Some(value)))?;
            }
        }
        disk.apply(chunk.writes, None)?;
        Ok(found)
    }

    /// Closes a lane: what was not saved of it is lost. Answers how many records it should have had
    /// and how many it has.
    pub(super) fn settle(&self, slot: u32, class: Class, lane: &mut Lane) -> (u64, u64) {
        let runs = probe::unsent(lane);
        lane.next = lane.next.max(lane.reserved);
        lane.acknowledge_for_good(lane.acked);
        lane.bytes = 0;
        let (mut expected, mut salvaged) = (0, 0);
        for (from, to) in runs {
            for seq in from..=to {
                expected += 1;
                if let Some(bytes) = self.0.get(&Key::record(slot, class, seq)) {
                    salvaged += 1;
                    lane.bytes += bytes;
                } else {
                    lane.lose(seq, seq, LostReason::Damaged);
                }
            }
        }
        lane.durable = lane.next;
        lane.reserved = lane.next;
        (expected, salvaged)
    }
}
