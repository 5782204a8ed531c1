//! The numbers of one class in one stream: what exists, what is acknowledged, what is lost.
//!
//! Pure arithmetic, no storage. Invariant: every number in `kept_from..next` is either a record in
//! the store or inside exactly one of `lost`; `kept_from <= acked + 1 <= next <= reserved`.

use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::batch::{Lost, LostReason};
use serde::{Deserialize, Serialize};

/// How long acknowledged records are kept for a collector that loses its last commits.
const WINDOW_MS: i64 = 15 * 60 * 1000;
/// How much of them is kept at most.
const WINDOW_BYTES: u64 = 4 * 1024 * 1024;
/// Acknowledgements closer together than this share one mark, so that the ledger stays small.
const MARK_MS: i64 = 10_000;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lane {
    /// The first number this store still accounts for.
    pub kept_from: u64,
    /// The collector has everything up to here.
    pub acked: u64,
    /// The number the next record gets.
    pub next: u64,
    /// Records below this were synced to the disk: one that is missing is damage.
    pub durable: u64,
    /// Numbers below this may have been used by the time of a crash.
    pub reserved: u64,
    /// Ascending, apart, all within `kept_from..next`.
    pub lost: Vec<Lost>,
    /// What the records in the store take, encoded.
    pub bytes: u64,
    window: Vec<Mark>,
}

/// One step of the rewind window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    to: u64,
    at: UnixMillis,
    bytes: u64,
}

/// What stands at a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Record,
    /// Lost, from that number on.
    Lost(Lost),
}

impl Lane {
    pub(super) fn new() -> Self {
        Self {
            kept_from: 1,
            acked: 0,
            next: 1,
            durable: 1,
            reserved: 1,
            lost: Vec::new(),
            bytes: 0,
            window: Vec::new(),
        }
    }

    /// The highest number given.
    pub(super) fn highest(&self) -> u64 {
        self.next - 1
    }

    /// Nothing left to send, neither a record nor a loss.
    pub(super) fn drained(&self) -> bool {
        self.acked == self.highest()
    }

    /// Records that are not acknowledged.
    pub(super) fn unacked(&self) -> u64 {
        self.present(self.acked + 1, self.highest())
            .iter()
            .map(|(from, to)| to - from + 1)
            .sum()
    }

    /// What the records take that are not acknowledged, encoded.
    pub(super) fn unacked_bytes(&self) -> u64 {
        let window: u64 = self.window.iter().map(|mark| mark.bytes).sum();
        self.bytes.saturating_sub(window)
    }

    /// What stands at `seq`, which must be below `next`.
    pub(super) fn at(&self, seq: u64) -> Slot {
        let index = self.lost.partition_point(|lost| lost.to < seq);
        match self.lost.get(index) {
            Some(lost) if lost.from <= seq => Slot::Lost(Lost { from: seq, ..*lost }),
            _ => Slot::Record,
        }
    }

    /// The parts of `from..=to` that no lost range covers.
    pub(super) fn present(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut parts = Vec::new();
        let mut at = from;
        let first = self.lost.partition_point(|lost| lost.to < from);
        for lost in self.lost.iter().skip(first) {
            if lost.from > to {
                break;
            }
            if lost.from > at {
                parts.push((at, lost.from - 1));
            }
            at = lost.to + 1;
        }
        if at <= to {
            parts.push((at, to));
        }
        parts
    }

    /// Declares what is still present of `from..=to` lost.
    pub(super) fn lose(&mut self, from: u64, to: u64, reason: LostReason) {
        let fresh = self.present(from, to);
        self.lost.extend(
            fresh
                .into_iter()
                .map(|(from, to)| Lost { from, to, reason }),
        );
        self.lost.sort_by_key(|lost| lost.from);
        self.lost.dedup_by(|later, earlier| {
            let joined = earlier.to + 1 == later.from && earlier.reason == later.reason;
            if joined {
                earlier.to = later.to;
            }
            joined
        });
    }

    /// Appends `count` numbers that never had a record.
    pub(super) fn append_lost(&mut self, count: u64, reason: LostReason) {
        if count > 0 {
            let from = self.next;
            self.next += count;
            self.reserved = self.reserved.max(self.next);
            self.lose(from, self.next - 1, reason);
        }
    }

    /// Moves the cursor to `to`, which took `bytes`, and keeps what the rewind window allows.
    /// Answers the numbers whose records are to be deleted: below the new `kept_from`.
    pub(super) fn acknowledge(&mut self, to: u64, bytes: u64, now: UnixMillis) {
        self.acked = to;
        match self.window.last_mut() {
            Some(last) if (0..MARK_MS).contains(&now.millis_since(last.at)) => {
                last.to = to;
                last.bytes += bytes;
            }
            _ => self.window.push(Mark { to, at: now, bytes }),
        }
        let mut total: u64 = self.window.iter().map(|mark| mark.bytes).sum();
        let mut expired = 0;
        for mark in &self.window {
            if total <= WINDOW_BYTES && now.millis_since(mark.at) <= WINDOW_MS {
                break;
            }
            total -= mark.bytes;
            self.kept_from = mark.to + 1;
            expired += 1;
        }
        self.window.drain(..expired);
        self.forget_below_kept();
    }

    /// Moves the cursor to `to` and keeps nothing for a rewind.
    pub(super) fn acknowledge_for_good(&mut self, to: u64) {
        self.acked = to;
        self.kept_from = to + 1;
        self.window.clear();
        self.forget_below_kept();
    }

    /// Makes `seq` the next to send again; what is no longer kept from there on is declared lost.
    pub(super) fn rewind(&mut self, seq: u64) {
        self.acked = seq - 1;
        self.window.retain(|mark| mark.to < seq);
        if seq < self.kept_from {
            let gone_to = self.kept_from - 1;
            self.kept_from = seq;
            self.lose(seq, gone_to, LostReason::AckedNotKept);
        }
    }

    fn forget_below_kept(&mut self) {
        let from = self.kept_from;
        self.lost.retain_mut(|lost| {
            lost.from = lost.from.max(from);
            lost.from <= lost.to
        });
    }
}
