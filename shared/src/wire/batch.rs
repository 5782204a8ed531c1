//! `POST /agent/v1/batch`: everything an agent reports.

use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;
use crate::ids::{BootId, CommandId, InstanceId, StreamId};
use crate::time::UnixMillis;
use crate::wire::heartbeat::Heartbeat;

/// One request. The host is who the certificate says; nothing in here names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// [`crate::wire::PROTOCOL`] of the sender.
    pub protocol: u16,
    /// The numbering that `parts` continue.
    pub stream: StreamId,
    /// This run of the agent process.
    pub instance: InstanceId,
    /// The boot the agent runs in.
    pub boot_id: BootId,
    /// The agent's wall clock when it sent this, to measure its skew.
    pub sent_at: UnixMillis,
    /// Milliseconds since the boot `boot_id` when it sent this: how old a record of the same boot is, whatever
    /// the wall clock says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mono_ms: Option<u64>,
    /// The newest policy the agent has applied; 0 before the first.
    pub policy_version: u64,
    /// How long the collector may hold the answer for commands, in milliseconds.
    #[serde(default)]
    pub wait_ms: u32,
    /// Commands received, repeated until a batch that carried them was acknowledged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands_seen: Vec<CommandId>,
    /// The heartbeat that is due, straight from the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Heartbeat>,
    /// Queued records, at most one part a class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// Changed state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<StatePart>,
}

/// How much a record is worth keeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Events and results: never dropped below the disk cap.
    Critical,
    /// Heartbeats that could not be sent when they were due: a ring, the oldest go first.
    Beat,
}

/// Records of one class, without a hole: record `i` of `records` that is left after `lost` has the
/// next sequence number that no lost range covers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub class: Class,
    /// The first sequence number this part accounts for, as a record or as lost.
    pub first_seq: u64,
    /// What is gone for good, ascending and apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
    /// Ascending by `seq`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Record>,
}

/// Sequence numbers that will never come, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    pub from: u64,
    pub to: u64,
    pub reason: LostReason,
}

/// Why records are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LostReason {
    /// The beat ring was full.
    RingFull,
    /// The spool's quota was reached.
    Quota,
    /// The spool was damaged.
    Damaged,
    /// Acknowledged once, then forgotten by the collector, and no longer kept here.
    AckedNotKept,
    /// The collector refused the record even alone.
    Refused,
    /// The disk was full when the record was to be kept.
    DiskFull,
    /// A reason of a newer agent.
    #[serde(other)]
    Other,
}

/// One queued record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// Dense within stream and class, from 1.
    pub seq: u64,
    /// The host's wall clock when it happened.
    pub at: UnixMillis,
    /// Milliseconds since the boot `boot_id`, when it was recorded.
    pub mono_ms: u64,
    /// The boot it was recorded in, where that is not the batch's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<BootId>,
    /// What it is: names the shape of `body`.
    pub kind: String,
    /// Always after `kind` on the wire, so that it is decoded once, into what it is.
    pub body: Body,
}

/// A record's content.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Body {
    /// Kind [`Heartbeat::KIND`].
    Heartbeat(Box<Heartbeat>),
    /// Any other kind, known ([`crate::wire::event`]) or not.
    Event(rmpv::Value),
}

/// The state key that lists every fact's key, as an array of text: facts that it leaves out are gone.
/// In `want_whole` it asks for every fact and the list.
pub const FACTS: &str = "facts";

/// One part of one version of one state key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatePart {
    /// `facts.<source>`, `packages`, …
    pub key: String,
    /// Newest wins within a stream.
    pub version: u64,
    /// Where `body` is a delta: the hash of the whole it applies to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_hash: Option<Digest>,
    /// The hash of the whole after this version: [`Digest::of`] its MessagePack.
    pub new_hash: Digest,
    /// This part's place, from 0.
    #[serde(default)]
    pub part: u32,
    /// How many parts the version has.
    #[serde(default = "one")]
    pub parts: u32,
    pub body: rmpv::Value,
}

fn one() -> u32 {
    1
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RecordVisitor)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Field {
    Seq,
    At,
    MonoMs,
    BootId,
    Kind,
    Body,
    #[serde(other)]
    Unknown,
}

struct RecordVisitor;

impl<'de> Visitor<'de> for RecordVisitor {
    type Value = Record;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record: a map with seq, at, kind and body")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Record, A::Error> {
        let (mut seq, mut at, mut mono_ms, mut boot_id) = (None, None, 0, None);
        let mut kind: Option<String> = None;
        let mut body = None;
        while let Some(field) = map.next_key()? {
            match field {
                Field::Seq => seq = Some(map.next_value()?),
                Field::At => at = Some(map.next_value()?),
                Field::MonoMs => mono_ms = map.next_value()?,
                Field::BootId => boot_id = map.next_value()?,
                Field::Kind => kind = Some(map.next_value()?),
                Field::Body => {
                    body = Some(match kind.as_deref() {
                        Some(Heartbeat::KIND) => Body::Heartbeat(map.next_value()?),
                        Some(_) => Body::Event(map.next_value()?),
                        None => {
                            return Err(A::Error::custom(
                                "a record's kind must come before its body",
                            ));
                        }
                    });
                }
                Field::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Record {
            seq: seq.ok_or_else(|| A::Error::missing_field("seq"))?,
            at: at.ok_or_else(|| A::Error::missing_field("at"))?,
            mono_ms,
            boot_id,
            kind: kind.ok_or_else(|| A::Error::missing_field("kind"))?,
            body: body.ok_or_else(|| A::Error::missing_field("body"))?,
        })
    }
}
