//! What package managers did, from their logs: each transaction once, however the logs were rotated meanwhile.
//!
//! Blocking: its caller, `daemon/package_logs.rs`, gives it a thread. What [`PackageLogs::read`] answers is to be made durable
//! together with the place that it answers beside it. A transaction that is not over is held by its place being saved as
//! that of its first line. On the first run, what is at most a month old is told.

mod cut;
mod fact;
mod files;
mod follow;
mod reader;
mod years;
mod zone;

use std::collections::BTreeMap;

use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::event::PackageTransaction;
use serde::{Deserialize, Serialize};

use super::{Reason, Root};
use crate::packages::log::merge::{Waiting, merge};
use crate::packages::log::parts::split;
use crate::packages::log::source::Source;
use crate::packages::log::transactions::{FRONT, LOGS, RUNS, Spot, Transactions};
use follow::{Follower, Here, Place};
use zone::Zone;

pub(super) use fact::collect;
pub use reader::LogReader;

/// Told on the first run.
const MONTH_MS: i64 = 30 * 24 * 3600 * 1000;
/// Two readings are never closer together.
const PAUSE_MS: i64 = 100;

/// The readers of all logs that there may be.
pub struct PackageLogs {
    root: Root,
    readers: Vec<SourceReader>,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Reading {
    /// In parts that a record has room for.
    pub transactions: Vec<PackageTransaction>,
    /// Where to read on after a restart, once `transactions` are durable.
    pub saved: Vec<u8>,
    /// Nothing is under way: a good moment to save the place though there is nothing to tell.
    pub is_at_rest: bool,
    /// When there is something to do without a change in the logs.
    pub again_ms: Option<i64>,
    /// Logs that can't be read.
    pub problems: Vec<Reason>,
}

/// Of one package manager, as it is saved.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Saved {
    logs: [Option<Place>; LOGS],
    /// The last line of the last transaction told.
    #[serde(default)]
    told_ms: Option<i64>,
    /// What ended no later was told before, or is too old.
    #[serde(default)]
    since_ms: Option<i64>,
}

struct SourceReader {
    source: Source,
    followers: [Option<Follower>; LOGS],
    waiting: [Waiting; LOGS],
    transactions: Transactions,
    told_ms: Option<i64>,
    since_ms: Option<i64>,
}

impl PackageLogs {
    /// Goes on where `saved` says.
    pub fn resume(root: Root, saved: Option<&[u8]>) -> Self {
        let mut saved: BTreeMap<String, Saved> = saved
            .and_then(|saved| serde_json::from_slice(saved).ok())
            .unwrap_or_default();
        let readers = Source::ALL.map(|source| {
            let saved = saved.remove(name(source)).unwrap_or_default();
            SourceReader::resume(source, saved)
        });
        Self {
            root,
            readers: readers.into(),
        }
    }

    /// Reads some of what is new, and tells what is over.
    pub fn read(&mut self, now: UnixMillis) -> Reading {
        let zone = Zone::read(&self.root);
        let here = Here {
            root: &self.root,
            zone: &zone,
            now,
        };
        let mut reading = Reading {
            is_at_rest: true,
            ..Reading::default()
        };
        for reader in &mut self.readers {
            reader.read(&here, &mut reading);
        }
        let saved: BTreeMap<_, _> = self
            .readers
            .iter()
            .map(|reader| (name(reader.source), reader.saved()))
            .collect();
        reading.saved = serde_json::to_vec(&saved).unwrap_or_default();
        reading
    }
}

impl SourceReader {
    fn resume(source: Source, saved: Saved) -> Self {
        let mut places = saved.logs.into_iter();
        let followers = source.logs().map(|log| {
            let place = places.next().flatten();
            log.map(|log| Follower::new(log, source.names_years(), place))
        });
        Self {
            source,
            followers,
            waiting: Default::default(),
            transactions: Transactions::new(source.settings()),
            told_ms: saved.told_ms,
            since_ms: saved.since_ms,
        }
    }

    fn read(&mut self, here: &Here<'_>, reading: &mut Reading) {
        let now = here.now;
        // The front's first: whatever has begun is known when the log of what it runs is read.
        for log in [FRONT, RUNS] {
            if let Err(reason) = self.follow(log, here) {
                reading.problems.push(reason);
            }
        }
        merge(&mut self.waiting, now.0, &mut self.transactions);
        let has_more = self.waiting.iter().any(|waiting| waiting.has_more);
        if !has_more {
            self.transactions.rest(now.0);
        }
        for over in self.transactions.take() {
            if self.since_ms.is_none_or(|since| over.last_at > since) {
                reading.transactions.extend(split(over.transaction));
                let told = over.last_at.min(now.0);
                self.told_ms = self.told_ms.max(Some(told));
            }
        }
        if !has_more {
            self.since_ms = None;
        }
        for log in [FRONT, RUNS] {
            let held = self.held(log);
            reading.is_at_rest &= held.is_none() && !has_more;
            if let Some(follower) = &mut self.followers[log] {
                follower.forget(held);
            }
        }
        let due = if has_more {
            Some(now.0)
        } else {
            self.transactions.due()
        };
        let again = due.map(|due| due.saturating_sub(now.0).max(PAUSE_MS));
        reading.again_ms = reading.again_ms.into_iter().chain(again).min();
    }

    fn follow(&mut self, log: usize, here: &Here<'_>) -> Result<(), Reason> {
        let (Some(follower), waiting) = (&mut self.followers[log], &mut self.waiting[log]) else {
            return Ok(());
        };
        // Lines that wait for the other log: no more of them meanwhile.
        if !waiting.lines.is_empty() {
            return Ok(());
        }
        let month_ago = here.now.0.saturating_sub(MONTH_MS);
        let since = self.told_ms.unwrap_or(month_ago);
        let followed = follower.read(here, since, waiting)?;
        if followed.is_lost {
            self.since_ms = Some(since);
        }
        Ok(())
    }

    /// The first line that is not done with.
    fn held(&self, log: usize) -> Option<Spot> {
        let waiting = self.waiting[log].lines.front().map(|line| line.spot);
        self.transactions.held(log).into_iter().chain(waiting).min()
    }

    fn saved(&self) -> Saved {
        let place = |log: usize| {
            let follower = self.followers[log].as_ref()?;
            follower.saved(self.held(log))
        };
        let mut logs: [Option<Place>; LOGS] = Default::default();
        logs[FRONT] = place(FRONT);
        logs[RUNS] = place(RUNS);
        Saved {
            logs,
            told_ms: self.told_ms,
            since_ms: self.since_ms,
        }
    }
}

/// As it is saved.
fn name(source: Source) -> &'static str {
    match source {
        Source::Dpkg => "dpkg",
        Source::Dnf => "dnf",
        Source::Dnf5 => "dnf5",
        Source::Zypp => "zypp",
        Source::Yum => "yum",
    }
}

#[cfg(test)]
mod tests;
