//! What a run of the spool was asked and promised, written into its trace as it happens.
//!
//! A mark is one `write` to a file of its own, so that its place among the spool's system calls is its
//! place in time: what is marked before a crash was known before it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use infratrack_agent::spool::NewRecord;
use infratrack_shared::ids::{BootId, StreamId};
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::batch::{Body, Class, Lost, Part, Record};
use serde::{Deserialize, Serialize};

/// The time of every run; nothing here depends on another.
pub const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
/// The one small value the runs set.
pub const VALUE: &str = "cursor";

/// One step of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Mark {
    /// The spool is open.
    Opened {
        stream: StreamId,
        damaged: bool,
    },
    /// Records `from..from + count` are about to be appended.
    Append {
        class: Class,
        from: u64,
        count: u64,
    },
    /// The append returned: critical records are promised.
    Appended {
        stream: StreamId,
        last: u64,
    },
    /// What the spool gave out to be sent.
    Sent {
        stream: StreamId,
        class: Class,
        first_seq: u64,
        /// Number in the stream, number of the record.
        records: Vec<(u64, u64)>,
        lost: Vec<Lost>,
    },
    /// The collector has committed up to here, and the spool is about to be told.
    Committed {
        stream: StreamId,
        class: Class,
        to: u64,
    },
    /// The collector lost its commits above this.
    Forgot {
        stream: StreamId,
        class: Class,
        to: u64,
    },
    Heartbeat {
        number: u64,
    },
    /// The small value is about to be this.
    Put {
        value: u64,
    },
    /// It is.
    HasPut {
        value: u64,
    },
    /// The stream is about to be forked.
    Fork,
    Forked {
        stream: StreamId,
    },
    /// A record in the store is about to be garbled.
    Damage,
    /// What an opening said of damage is known.
    Told,
}

/// Where marks go.
#[derive(Debug)]
pub struct Marks(File);

impl Marks {
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self(file))
    }

    /// Everything marked in a file; a last mark that was cut short is left out.
    pub fn read(path: &Path) -> io::Result<Vec<Mark>> {
        let bytes = fs::read(path)?;
        let marks = serde_json::Deserializer::from_slice(&bytes).into_iter();
        Ok(marks.map_while(Result::ok).collect())
    }

    pub fn put(&mut self, mark: &Mark) -> io::Result<()> {
        self.0.write_all(&serde_json::to_vec(mark)?)
    }
}

/// The record that carries `number`: its text follows from it, so that every byte can be checked. Most
/// are small; some are beyond what sled keeps in its log, and lie in files of their own.
pub fn record(number: u64) -> NewRecord {
    NewRecord {
        at: NOW,
        mono_ms: number,
        boot_id: BootId::default(),
        kind: "test".to_owned(),
        body: Body::Event(text(number).into()),
    }
}

fn text(number: u64) -> String {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let bytes = match mixed % 40 {
        0 => 30_000 + mixed % 30_000,
        1..=8 => 2_000 + mixed % 3_000,
        _ => 20 + mixed % 700,
    };
    let mut text = format!("record {number:08} ");
    let end = text.len() + usize::try_from(bytes).unwrap_or(0);
    let mut state = mixed | 1;
    while text.len() < end {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        text.push(char::from(
            b'a' + u8::try_from((state >> 40) % 26).unwrap_or(0),
        ));
    }
    text
}

/// A unique part of the record's text, for who looks for it in a file.
pub fn needle(number: u64) -> String {
    format!("record {number:08} ")
}

/// The number a record carries. `None` where a byte differs from what was appended.
pub fn number(record: &Record) -> Option<u64> {
    let Body::Event(body) = &record.body else {
        return None;
    };
    let found = body.as_str()?;
    let number = found.strip_prefix("record ")?.get(..8)?.parse().ok()?;
    (found == text(number) && record.mono_ms == number).then_some(number)
}

/// The mark of what is about to be sent. `None` where a record is not what was appended.
pub fn sent(stream: StreamId, part: &Part) -> Option<Mark> {
    let records = part.records.iter();
    let records = records.map(|record| Some((record.seq, number(record)?)));
    Some(Mark::Sent {
        stream,
        class: part.class,
        first_seq: part.first_seq,
        records: records.collect::<Option<_>>()?,
        lost: part.lost.clone(),
    })
}
