//! What a simulated fleet said, and what it was told was stored: one line of JSON an item.
//!
//! An offer is in the file before it can reach a collector, an acknowledgement only after the Ack was
//! read; so whatever dies in the middle, [`verify`] can hold the tables against it. Each write is one
//! append, without a buffer: a fleet that is killed leaves a whole ledger.

mod verify;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::Context;
use infratrack_shared::ids::{HostId, StreamId};
use infratrack_shared::wire::batch::Class;
use serde::{Deserialize, Serialize};

pub use verify::{Must, Offenders, Verdict, verify, verify_that};

/// A heartbeat's or critical record's identity: host, stream, and `n` or `seq`.
pub type Key = (HostId, StreamId, u64);

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "item", rename_all = "snake_case")]
pub enum Item {
    /// Critical records are about to be put into a spool: killed now, they may be in it or not.
    RecordsIntended {
        host: HostId,
        /// The first of their unique numbers.
        first: u64,
        count: u64,
    },
    /// A critical record is in an agent's spool.
    RecordOffered {
        host: HostId,
        stream: StreamId,
        class: Class,
        seq: u64,
        /// In the record's body; no other record of the host has it.
        unique: u64,
    },
    /// A heartbeat is about to be sent or kept.
    HeartbeatOffered {
        host: HostId,
        stream: StreamId,
        n: u64,
    },
    /// An Ack's cursor: every record up to and including `to` is stored, or known to be lost.
    RecordsAcknowledged {
        host: HostId,
        stream: StreamId,
        class: Class,
        to: u64,
    },
    HeartbeatAcknowledged {
        host: HostId,
        stream: StreamId,
        n: u64,
    },
    /// The collector keeps it as a dead letter.
    RecordRejected {
        host: HostId,
        stream: StreamId,
        seq: u64,
    },
    /// The host's records have other streams and numbers from here on; what they are stays.
    Forked { host: HostId },
}

/// Appends to a ledger.
#[derive(Debug)]
pub struct LedgerWriter(File);

impl LedgerWriter {
    /// Goes on with the ledger at `path`, or begins one.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.with_context(|| format!("cannot open the ledger {}", path.display()))?;
        Ok(Self(file))
    }

    /// Appends `items`, all in one write.
    pub fn append(&self, items: &[Item]) -> anyhow::Result<()> {
        let mut lines = Vec::with_capacity(items.len() * 160);
        for item in items {
            serde_json::to_writer(&mut lines, item)?;
            lines.push(b'\n');
        }
        (&self.0)
            .write_all(&lines)
            .context("cannot write the ledger")
    }
}

/// A ledger as read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The unique number of each.
    pub records: BTreeMap<Key, u64>,
    /// Whether each was acknowledged.
    pub heartbeats: BTreeMap<Key, bool>,
    pub rejected: HashSet<Key>,
    /// The unique numbers of records that may have been put into a spool.
    pub intended: HashSet<(HostId, u64)>,
    pub forked: HashSet<HostId>,
    acknowledged_to: HashMap<(HostId, StreamId), u64>,
}

impl Ledger {
    /// Reads a ledger. A last line without its end was cut off by a crash and is left out.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot read the ledger {}", path.display());
        let mut lines = BufReader::new(File::open(path).with_context(cannot)?);
        let mut ledger = Self::default();
        let mut line = String::new();
        for number in 1.. {
            line.clear();
            lines.read_line(&mut line).with_context(cannot)?;
            if !line.ends_with('\n') {
                break;
            }
            let item = serde_json::from_str(&line)
                .with_context(|| format!("line {number} of {} is damaged", path.display()))?;
            ledger.add(&item);
        }
        Ok(ledger)
    }

    /// Notes one item.
    pub fn add(&mut self, item: &Item) {
        match *item {
            Item::RecordsIntended { host, first, count } => {
                let uniques = first..first + count;
                self.intended.extend(uniques.map(|unique| (host, unique)));
            }
            Item::RecordOffered {
                host,
                stream,
                seq,
                unique,
                ..
            } => {
                self.intended.remove(&(host, unique));
                self.records.insert((host, stream, seq), unique);
            }
            Item::HeartbeatOffered { host, stream, n } => {
                self.heartbeats.entry((host, stream, n)).or_default();
            }
            Item::RecordsAcknowledged {
                host, stream, to, ..
            } => {
                let known = self.acknowledged_to.entry((host, stream)).or_default();
                *known = to.max(*known);
            }
            Item::HeartbeatAcknowledged { host, stream, n } => {
                self.heartbeats.insert((host, stream, n), true);
            }
            Item::RecordRejected { host, stream, seq } => {
                self.rejected.insert((host, stream, seq));
            }
            Item::Forked { host } => {
                self.forked.insert(host);
            }
        }
    }

    /// Whether an Ack covered this record.
    pub fn is_acknowledged(&self, key: &Key) -> bool {
        let to = self.acknowledged_to.get(&(key.0, key.1));
        to.is_some_and(|to| key.2 <= *to)
    }

    /// The hosts in it.
    pub fn hosts(&self) -> Vec<HostId> {
        let keys = self.records.keys().chain(self.heartbeats.keys());
        let hosts: HashSet<_> = keys.map(|key| key.0).collect();
        hosts.into_iter().collect()
    }

    /// How many records were acknowledged.
    pub fn acknowledged_records(&self) -> usize {
        let acknowledged = |key: &&Key| self.is_acknowledged(key);
        self.records.keys().filter(acknowledged).count()
    }

    /// How many heartbeats were acknowledged.
    pub fn acknowledged_heartbeats(&self) -> usize {
        self.heartbeats.values().filter(|known| **known).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_reads_as_written_and_a_torn_last_line_is_left_out() {
        let (host, stream) = (HostId::random(), StreamId::random());
        let path = tempfile::NamedTempFile::new()
            .expect("a file")
            .into_temp_path();
        let ledger = LedgerWriter::open(&path).expect("opens");
        let offered = |seq| Item::RecordOffered {
            host,
            stream,
            class: Class::Critical,
            seq,
            unique: 100 + seq,
        };
        let acknowledged = Item::RecordsAcknowledged {
            host,
            stream,
            class: Class::Critical,
            to: 2,
        };
        ledger
            .append(&[offered(1), offered(2), offered(3)])
            .expect("written");
        ledger.append(&[acknowledged]).expect("written");
        let beat = |n| Item::HeartbeatOffered { host, stream, n };
        ledger.append(&[beat(1), beat(2)]).expect("written");
        let known = Item::HeartbeatAcknowledged { host, stream, n: 2 };
        ledger.append(&[known]).expect("written");
        (&ledger.0)
            .write_all(br#"{"item":"heartb"#)
            .expect("written");

        let read = Ledger::read(&path).expect("reads");
        assert_eq!(read.hosts(), [host]);
        assert_eq!(
            read.records.values().copied().collect::<Vec<_>>(),
            [101, 102, 103]
        );
        assert_eq!(read.acknowledged_records(), 2);
        assert!(!read.is_acknowledged(&(host, stream, 3)));
        assert_eq!(
            (read.heartbeats.len(), read.acknowledged_heartbeats()),
            (2, 1)
        );
    }
}
