//! The one way into and out of MessagePack for the whole workspace.
//!
//! A document is walked once, without allocating, before anything is built from it: its size, depth,
//! item count, string lengths and end are checked there, so a hostile body costs one pass over its
//! own bytes and no memory. (A decoder alone lets 1 MiB of empty arrays become 30 MiB of heap, and
//! accepts trailing bytes.)

use std::io::Cursor;

use rmp::Marker;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::limits;

/// What a document may cost. [`Limits::default`] is a batch's.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the whole document.
    pub bytes: usize,
    /// Values in it: keys, scalars, arrays and maps each count one.
    pub items: usize,
    /// Nested arrays and maps.
    pub depth: usize,
    /// Bytes of one string or binary.
    pub string_bytes: usize,
}

impl Limits {
    /// The limits of a batch with another size in bytes.
    pub const fn bytes(bytes: usize) -> Self {
        Self {
            bytes,
            items: limits::ITEMS,
            depth: limits::DEPTH,
            string_bytes: limits::STRING_BYTES,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::bytes(limits::BATCH_BYTES)
    }
}

/// Why a document was refused. Every variant names the limit or the place (byte offset).
#[derive(Debug, Error)]
pub enum DecodeError {
    #[error("document of {got} bytes is over the limit of {limit} bytes")]
    TooLarge { got: usize, limit: usize },
    #[error("more than {limit} items (limit reached at byte {at})")]
    TooManyItems { limit: usize, at: usize },
    #[error("nested deeper than {limit} (at byte {at})")]
    TooDeep { limit: usize, at: usize },
    #[error("string or binary of {got} bytes at byte {at} is over the limit of {limit} bytes")]
    StringTooLong { got: usize, limit: usize, at: usize },
    #[error("document ends in the middle of the value at byte {at}")]
    Truncated { at: usize },
    #[error("byte {at} is no MessagePack marker")]
    Reserved { at: usize },
    #[error("{extra} bytes trail the document's end at byte {at}")]
    Trailing { at: usize, extra: usize },
    #[error("document does not have the expected shape")]
    Shape(#[source] rmp_serde::decode::Error),
}

/// A value that can't be written as MessagePack (a map of unknown length, say).
#[derive(Debug, Error)]
#[error("value cannot be encoded as MessagePack")]
pub struct EncodeError(#[source] rmp_serde::encode::Error);

/// Encodes `value` with named fields.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    rmp_serde::to_vec_named(value).map_err(EncodeError)
}

/// Decodes one document that must fill `bytes` and hold to `limits`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limits: &Limits) -> Result<T, DecodeError> {
    check(bytes, limits)?;
    let mut deserializer = rmp_serde::Deserializer::new(Cursor::new(bytes));
    // One above what the walk allows, so that the walk's error, which names the place, is the one.
    deserializer.set_max_depth(limits.depth + 1);
    T::deserialize(&mut deserializer).map_err(DecodeError::Shape)
}

/// Decodes a typed body out of an already decoded value.
pub fn decode_value<T: DeserializeOwned>(value: &rmpv::Value) -> Result<T, DecodeError> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).map_err(|_| DecodeError::TooLarge {
        got: usize::MAX,
        limit: usize::MAX,
    })?;
    decode(&bytes, &Limits::default())
}

/// The value that `body` is on the wire.
pub fn to_value<T: Serialize + ?Sized>(body: &T) -> Result<rmpv::Value, EncodeError> {
    let bytes = encode(body)?;
    rmpv::decode::read_value(&mut bytes.as_slice())
        .map_err(|source| EncodeError(rmp_serde::encode::Error::Syntax(source.to_string())))
}

/// Walks `bytes` and answers how many items the document has.
pub fn check(bytes: &[u8], limits: &Limits) -> Result<usize, DecodeError> {
    if bytes.len() > limits.bytes {
        return Err(DecodeError::TooLarge {
            got: bytes.len(),
            limit: limits.bytes,
        });
    }
    let walk = walk(bytes, limits)?;
    match bytes.len() - walk.at {
        0 => Ok(walk.items),
        extra => Err(DecodeError::Trailing { at: walk.at, extra }),
    }
}

/// The length of the document that `bytes` begin with, which must hold to `limits`; others may follow it.
pub fn first_document(bytes: &[u8], limits: &Limits) -> Result<usize, DecodeError> {
    let within = bytes.get(..limits.bytes).unwrap_or(bytes);
    walk(within, limits).map(|walk| walk.at)
}

/// To the end of the first document.
fn walk<'a>(bytes: &'a [u8], limits: &'a Limits) -> Result<Walk<'a>, DecodeError> {
    let mut walk = Walk {
        bytes,
        at: 0,
        items: 0,
        limits,
    };
    // Values still to come at each open level; the document itself is the first.
    let mut open: Vec<u64> = vec![1];
    while let Some(left) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        let children = walk.value()?;
        if children > 0 {
            // The document is level 0, so that `depth` counts containers.
            if open.len() > limits.depth {
                return Err(DecodeError::TooDeep {
                    limit: limits.depth,
                    at: walk.at,
                });
            }
            open.push(children);
        }
    }
    Ok(walk)
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    items: usize,
    limits: &'a Limits,
}

impl Walk<'_> {
    /// Steps over one marker and its scalar; answers how many values follow inside it.
    #[expect(
        clippy::match_same_arms,
        reason = "one arm a marker family, in the order of the specification"
    )]
    fn value(&mut self) -> Result<u64, DecodeError> {
        let start = self.at;
        self.items += 1;
        if self.items > self.limits.items {
            return Err(DecodeError::TooManyItems {
                limit: self.limits.items,
                at: start,
            });
        }
        let marker = Marker::from_u8(u8::try_from(self.unsigned(1, start)?).unwrap_or(0xc1));
        match marker {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => {
                Ok(0)
            }
            Marker::U8 | Marker::I8 => self.skip(1, start),
            Marker::U16 | Marker::I16 => self.skip(2, start),
            Marker::U32 | Marker::I32 | Marker::F32 => self.skip(4, start),
            Marker::U64 | Marker::I64 | Marker::F64 => self.skip(8, start),
            Marker::FixStr(length) => self.string(u64::from(length), start),
            Marker::Str8 | Marker::Bin8 => self.sized_string(1, 0, start),
            Marker::Str16 | Marker::Bin16 => self.sized_string(2, 0, start),
            Marker::Str32 | Marker::Bin32 => self.sized_string(4, 0, start),
            Marker::FixExt1 => self.skip(2, start),
            Marker::FixExt2 => self.skip(3, start),
            Marker::FixExt4 => self.skip(5, start),
            Marker::FixExt8 => self.skip(9, start),
            Marker::FixExt16 => self.skip(17, start),
            Marker::Ext8 => self.sized_string(1, 1, start),
            Marker::Ext16 => self.sized_string(2, 1, start),
            Marker::Ext32 => self.sized_string(4, 1, start),
            Marker::FixArray(length) => Ok(u64::from(length)),
            Marker::Array16 => self.unsigned(2, start),
            Marker::Array32 => self.unsigned(4, start),
            Marker::FixMap(length) => Ok(u64::from(length) * 2),
            Marker::Map16 => Ok(self.unsigned(2, start)? * 2),
            Marker::Map32 => Ok(self.unsigned(4, start)? * 2),
            Marker::Reserved => Err(DecodeError::Reserved { at: start }),
        }
    }

    fn sized_string(&mut self, width: usize, tag: u64, start: usize) -> Result<u64, DecodeError> {
        let length = self.unsigned(width, start)?;
        self.string(length + tag, start)
    }

    fn string(&mut self, length: u64, start: usize) -> Result<u64, DecodeError> {
        let got = usize::try_from(length).unwrap_or(usize::MAX);
        if got > self.limits.string_bytes {
            let limit = self.limits.string_bytes;
            return Err(DecodeError::StringTooLong {
                got,
                limit,
                at: start,
            });
        }
        self.skip(got, start)
    }

    fn skip(&mut self, count: usize, start: usize) -> Result<u64, DecodeError> {
        if self.bytes.len() - self.at < count {
            return Err(DecodeError::Truncated { at: start });
        }
        self.at += count;
        Ok(0)
    }

    fn unsigned(&mut self, width: usize, start: usize) -> Result<u64, DecodeError> {
        let from = self.at;
        self.skip(width, start)?;
        let bytes = self.bytes.get(from..self.at).unwrap_or_default();
        Ok(bytes
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }
}

#[cfg(test)]
mod tests;
