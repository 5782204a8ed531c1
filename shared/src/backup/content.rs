//! Where the bytes of a file or of a tree are.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::ChunkId;

/// Chunks that are named where the content is; of more, the list is content of its own.
pub const MAX_INLINE_CHUNKS: usize = 1_024;

/// The chunks of some content, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Content {
    /// In bytes.
    pub size: u64,
    /// Ids, one after another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chunks: Option<ByteBuf>,
    /// Ids of the chunks that hold the list of ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lists: Option<ByteBuf>,
}

impl Content {
    /// Of at most [`MAX_INLINE_CHUNKS`] chunks.
    pub fn of_chunks(size: u64, chunks: &[ChunkId]) -> Self {
        Self {
            size,
            chunks: Some(joined(chunks)),
            lists: None,
        }
    }

    /// Of a list that is kept in these chunks.
    pub fn of_lists(size: u64, lists: &[ChunkId]) -> Self {
        Self {
            size,
            chunks: None,
            lists: Some(joined(lists)),
        }
    }

    /// Its chunks, where they are named here. `None` where [`Self::lists`] have them; an error text where the ids are cut.
    pub fn chunks(&self) -> Option<Result<Vec<ChunkId>, &'static str>> {
        self.chunks.as_ref().map(|bytes| ids(bytes))
    }

    /// The chunks that hold the list of its chunks.
    pub fn lists(&self) -> Result<Vec<ChunkId>, &'static str> {
        match &self.lists {
            Some(bytes) if self.chunks.is_none() => ids(bytes),
            Some(_) => Err("it has both chunks and lists"),
            None => Err("it has neither chunks nor lists"),
        }
    }
}

/// Ids as they stand in a list: one after another.
pub fn joined(chunks: &[ChunkId]) -> ByteBuf {
    let bytes: Vec<u8> = chunks.iter().flat_map(|id| *id.as_bytes()).collect();
    ByteBuf::from(bytes)
}

/// The ids of a list.
pub fn ids(bytes: &[u8]) -> Result<Vec<ChunkId>, &'static str> {
    let (ids, []) = bytes.as_chunks::<32>() else {
        return Err("its list of chunks is cut off");
    };
    Ok(ids.iter().copied().map(ChunkId::new).collect())
}
