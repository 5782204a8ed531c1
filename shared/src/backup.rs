//! Backups as they are stored: chunks, packs, trees, snapshots, and the keys they are sealed with. docs/formats/backup.md is
//! the contract; what one release writes every later one reads. Nothing here touches a file or the network.

/// A name of so many bytes: one binary in MessagePack, hexadecimal for people.
macro_rules! bytes {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(serde_bytes::ByteArray<$length>);

        impl $name {
            pub fn new(bytes: [u8; $length]) -> Self {
                Self(serde_bytes::ByteArray::new(bytes))
            }

            pub fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

mod chunk;
mod chunker;
mod content;
mod key;
mod pack;
mod refs;
mod snapshot;
#[cfg(test)]
mod tests;
mod tree;

pub use self::chunk::{Algorithm, ChunkId, Compressor, OpenError, Packed, Salt, SealError, Sealed};
pub use self::chunker::{Chunker, Sizes};
pub use self::content::{Content, MAX_INLINE_CHUNKS, ids, joined};
pub use self::key::{KeyDocument, KeyId, VolumeKey};
pub use self::pack::{Entry, MoveError, PackBuilder, PackError, PackHash, PackKind, Table};
pub use self::refs::{Refs, RefsError};
pub use self::snapshot::{
    Counted, Head, MAX_ERRORS, Manifest, SnapshotError, SnapshotKind, SnapshotState, Unread,
};
pub use self::tree::{Kind, Node, TreeError, TreeReader};

/// The longest chunk, in bytes.
pub const MAX_CHUNK_BYTES: usize = 2 * 1024 * 1024;
/// The largest pack, in bytes.
pub const MAX_PACK_BYTES: usize = 32 * 1024 * 1024;
/// What a pack should have, in bytes.
pub const TARGET_PACK_BYTES: usize = 16 * 1024 * 1024;
/// Chunks in one pack: a counter has 16 bits.
pub const MAX_PACK_CHUNKS: usize = 65_536;
/// The head of a snapshot, in bytes.
pub const MAX_HEAD_BYTES: usize = 16 * 1024 * 1024;
/// A whole snapshot object, in bytes.
pub const MAX_SNAPSHOT_BYTES: usize = 18 * 1024 * 1024;

/// An array from a slice that was cut to its length.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("cut to this length")
}
