//! Hashes of facts and inventory that let both sides see that they agree without sending them.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

/// The first 16 bytes of a BLAKE3 hash: enough to notice change, not a proof against forgery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(ByteArray<16>);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::shorten(blake3::hash(bytes))
    }

    /// The digest of a set of named digests, whatever order they come in; names must be distinct.
    ///
    /// Defined as BLAKE3 over `name-length (u32 BE) || name || digest` in byte order of the names.
    pub fn of_set<'a>(entries: impl IntoIterator<Item = (&'a str, Digest)>) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_unstable_by_key(|(name, _)| *name);
        let mut hasher = blake3::Hasher::new();
        for (name, digest) in entries {
            hasher.update(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes());
            hasher.update(name.as_bytes());
            hasher.update(digest.as_bytes());
        }
        Self::shorten(hasher.finalize())
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A digest from stored bytes; `None` unless there are 16.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        <[u8; 16]>::try_from(bytes)
            .ok()
            .map(|bytes| Self(ByteArray::new(bytes)))
    }

    fn shorten(hash: blake3::Hash) -> Self {
        let first = hash
            .as_bytes()
            .first_chunk()
            .expect("a BLAKE3 hash has 32 bytes");
        Self(ByteArray::new(*first))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_hashes_the_same_in_any_order_and_differs_by_name_and_value() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let set = Digest::of_set([("x", a), ("y", b)]);
        assert_eq!(set, Digest::of_set([("y", b), ("x", a)]));
        assert_ne!(set, Digest::of_set([("x", b), ("y", a)]));
        assert_ne!(set, Digest::of_set([("x", a)]));
    }
}
