//! What should exist: the spool's whole state but for the records themselves.
//!
//! Written to the `watermark` file before a caller is told that something is durable, and into the
//! store with every batch, so that either can stand in for the other. Because it says what should
//! exist, a loss can be measured after any damage.

use std::collections::BTreeSet;

use infratrack_shared::codec::{self, Limits};
use infratrack_shared::ids::StreamId;
use infratrack_shared::wire::batch::Class;
use infratrack_shared::wire::event::SpoolDamaged;
use serde::{Deserialize, Serialize};

use super::lane::Lane;

const MAGIC: &[u8; 4] = b"itwm";
const VERSION: u8 = 1;
/// Above what any ledger can be.
pub(super) const LIMITS: Limits = Limits {
    bytes: 64 * 1024 * 1024,
    items: 16 * 1024 * 1024,
    depth: 16,
    string_bytes: 64 * 1024,
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ledger {
    /// Counts up with every change: of two copies the higher is the later.
    pub revision: u64,
    /// The directory the records are in.
    pub generation: u64,
    /// Names the keys of the next section.
    pub next_slot: u32,
    /// Streams that no longer grow, oldest first: they drain before `current`.
    pub old: Vec<Section>,
    pub current: Section,
    /// Heartbeat numbers below this may have been given out.
    pub heartbeats_reserved: u64,
    /// Names of the small values.
    pub values: BTreeSet<String>,
    /// Raw values of a newer version put aside, numbered from 0.
    pub unread: u64,
    /// Damage that no event tells of yet.
    #[serde(default)]
    pub untold: Vec<SpoolDamaged>,
}

/// One stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Section {
    pub slot: u32,
    pub stream: StreamId,
    pub critical: Lane,
    pub beat: Lane,
}

impl Section {
    pub(super) fn new(slot: u32, stream: StreamId) -> Self {
        Self {
            slot,
            stream,
            critical: Lane::new(),
            beat: Lane::new(),
        }
    }

    pub(super) fn lane(&self, class: Class) -> &Lane {
        match class {
            Class::Critical => &self.critical,
            Class::Beat => &self.beat,
        }
    }

    pub(super) fn lane_mut(&mut self, class: Class) -> &mut Lane {
        match class {
            Class::Critical => &mut self.critical,
            Class::Beat => &mut self.beat,
        }
    }

    pub(super) fn drained(&self) -> bool {
        self.critical.drained() && self.beat.drained()
    }
}

impl Ledger {
    pub(super) fn new(stream: StreamId) -> Self {
        Self {
            revision: 0,
            generation: 1,
            next_slot: 1,
            old: Vec::new(),
            current: Section::new(0, stream),
            heartbeats_reserved: 1,
            values: BTreeSet::new(),
            unread: 0,
            untold: Vec::new(),
        }
    }

    /// All streams in the order they drain.
    pub(super) fn sections(&self) -> impl Iterator<Item = &Section> {
        self.old.iter().chain([&self.current])
    }

    pub(super) fn sections_mut(&mut self) -> impl Iterator<Item = &mut Section> {
        self.old.iter_mut().chain([&mut self.current])
    }

    pub(super) fn section_mut(&mut self, stream: StreamId) -> Option<&mut Section> {
        self.sections_mut().find(|section| section.stream == stream)
    }

    /// What the records in the store take, encoded.
    pub(super) fn bytes(&self) -> u64 {
        self.sections()
            .map(|section| section.critical.bytes + section.beat.bytes)
            .sum()
    }

    /// Records of a class that are not acknowledged.
    pub(super) fn unacked(&self, class: Class) -> u64 {
        self.sections()
            .map(|section| section.lane(class).unacked())
            .sum()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let body = codec::encode(self).expect("plain structs always encode");
        let mut bytes = Vec::with_capacity(body.len() + 9);
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Whether a version after this one wrote it; what else it is can't be told.
    pub(super) fn is_newer(bytes: &[u8]) -> bool {
        let version = bytes.strip_prefix(MAGIC).and_then(<[u8]>::first);
        version.is_some_and(|version| *version > VERSION)
    }

    /// `None` for anything but a whole ledger of this version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, body) = bytes.split_at_checked(9)?;
        let mut expected = [0; 9];
        let (magic, rest) = expected.split_at_mut(4);
        magic.copy_from_slice(MAGIC);
        let (version, crc) = rest.split_at_mut(1);
        version.copy_from_slice(&[VERSION]);
        crc.copy_from_slice(&crc32c::crc32c(body).to_be_bytes());
        if head != expected {
            return None;
        }
        codec::decode(body, &LIMITS).ok()
    }
}
