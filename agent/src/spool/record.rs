//! A record as it lies in the store: `magic, version, flags, crc32c, at, mono_ms, boot_id, kind
//! length, kind, body`, numbers big-endian, the body as the MessagePack that goes on the wire.
//!
//! The number is in the key, not in here, so that a fork renumbers without touching values.

use infratrack_shared::codec::{self, Limits};
use infratrack_shared::ids::BootId;
use infratrack_shared::limits;
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::batch::{Body, Record};
use infratrack_shared::wire::heartbeat::Heartbeat;
use uuid::Uuid;

use super::{NewRecord, SpoolError};

const MAGIC: u8 = 0xb7;
const VERSION: u8 = 1;
/// Keys, numbers and markers of a record on the wire around kind and body, at most.
const ENVELOPE_BYTES: usize = 96;
/// The same in items.
const ENVELOPE_ITEMS: usize = 13;

/// What a stored value turned out to be.
pub(super) enum Stored {
    Record(Decoded),
    /// Whole as far as can be told, but of a version this build does not know.
    Newer,
    /// Not what was written.
    Damaged,
}

/// A record and what it costs in a batch.
pub(super) struct Decoded {
    pub record: Record,
    pub bytes: usize,
    pub items: usize,
}

/// The value for a record.
pub(super) fn encode(record: &NewRecord) -> Result<Vec<u8>, SpoolError> {
    let body = codec::encode(&record.body).map_err(SpoolError::Encode)?;
    let wire_bytes = body.len() + record.kind.len() + ENVELOPE_BYTES;
    let kind_bytes = u8::try_from(record.kind.len()).unwrap_or(u8::MAX);
    if wire_bytes > limits::RECORD_BYTES || usize::from(kind_bytes) > limits::NAME_BYTES {
        return Err(SpoolError::TooLarge { bytes: wire_bytes });
    }
    // What a reader would refuse must not get a number: it would be damage at the next start.
    codec::check(&body, &Limits::bytes(limits::RECORD_BYTES)).map_err(SpoolError::Unreadable)?;
    let mut payload = Vec::with_capacity(body.len() + record.kind.len() + 33);
    payload.extend_from_slice(&record.at.0.to_be_bytes());
    payload.extend_from_slice(&record.mono_ms.to_be_bytes());
    payload.extend_from_slice(record.boot_id.0.as_bytes());
    payload.push(kind_bytes);
    payload.extend_from_slice(record.kind.as_bytes());
    payload.extend_from_slice(&body);
    let mut value = Vec::with_capacity(payload.len() + 7);
    value.extend_from_slice(&[MAGIC, VERSION, 0]);
    value.extend_from_slice(&crc32c::crc32c(&payload).to_be_bytes());
    value.extend_from_slice(&payload);
    Ok(value)
}

/// Reads a value back as the record `seq`; its boot is named only where it is not `boot_id`.
pub(super) fn decode(value: &[u8], seq: u64, boot_id: BootId) -> Stored {
    match value {
        [MAGIC, VERSION, _flags, rest @ ..] => {
            payload(rest, seq, boot_id).map_or(Stored::Damaged, Stored::Record)
        }
        [MAGIC, ..] => Stored::Newer,
        _ => Stored::Damaged,
    }
}

fn payload(rest: &[u8], seq: u64, boot_id: BootId) -> Option<Decoded> {
    let (crc, payload) = rest.split_first_chunk()?;
    if u32::from_be_bytes(*crc) != crc32c::crc32c(payload) {
        return None;
    }
    let (at, rest) = payload.split_first_chunk()?;
    let (mono_ms, rest) = rest.split_first_chunk()?;
    let (own_boot, rest) = rest.split_first_chunk()?;
    let (kind_bytes, rest) = rest.split_first()?;
    let (kind, body) = rest.split_at_checked(usize::from(*kind_bytes))?;
    let kind = String::from_utf8(kind.to_vec()).ok()?;
    let limits = Limits::bytes(limits::RECORD_BYTES);
    let items = codec::check(body, &limits).ok()?;
    let bytes = body.len() + kind.len() + ENVELOPE_BYTES;
    let body = if kind == Heartbeat::KIND {
        Body::Heartbeat(codec::decode(body, &limits).ok()?)
    } else {
        Body::Event(codec::decode(body, &limits).ok()?)
    };
    let own_boot = BootId(Uuid::from_bytes(*own_boot));
    Some(Decoded {
        record: Record {
            seq,
            at: UnixMillis(i64::from_be_bytes(*at)),
            mono_ms: u64::from_be_bytes(*mono_ms),
            boot_id: (own_boot != boot_id).then_some(own_boot),
            kind,
            body,
        },
        bytes,
        items: items + ENVELOPE_ITEMS,
    })
}
