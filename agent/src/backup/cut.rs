//! Content on its way into chunks: bytes are fed as they come, chunks come out as the volume's chunker cuts them, and their ids
//! become a [`Content`], whose list is content of its own where it is long. No more than two chunks are in memory.

use std::sync::atomic::Ordering;

use infratrack_shared::backup::{
    ChunkId, Chunker, Content, MAX_CHUNK_BYTES, MAX_INLINE_CHUNKS, PackKind,
};

use super::chunks::{Chunks, Stopped};

/// Cuts what is fed to it.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    pending: Vec<u8>,
    /// Up to there it has been cut.
    start: usize,
}

impl Cutter {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        // Moved seldom: once for each chunk's length.
        if self.start >= MAX_CHUNK_BYTES || self.start == self.pending.len() {
            self.pending.drain(..std::mem::take(&mut self.start));
        }
        self.pending.extend_from_slice(bytes);
    }

    /// The next chunk; `None` where more is needed to know its end. At the end of the content the rest, and then `None`.
    pub(crate) fn next_chunk(&mut self, chunker: &Chunker, is_end: bool) -> Option<&[u8]> {
        let rest = &self.pending[self.start..];
        if rest.is_empty() || (!is_end && rest.len() < MAX_CHUNK_BYTES) {
            return None;
        }
        let length = chunker.cut(rest);
        self.start += length;
        Some(&rest[..length])
    }

    pub(crate) fn clear(&mut self) {
        self.pending.clear();
        self.start = 0;
    }
}

/// The ids of some content, in the making.
#[derive(Debug, Default)]
pub(super) struct Ids {
    size: u64,
    inline: Vec<ChunkId>,
    lists: Option<Lists>,
}

/// Of content with more than [`MAX_INLINE_CHUNKS`].
#[derive(Debug, Default)]
struct Lists {
    cutter: Cutter,
    ids: Vec<ChunkId>,
}

impl Ids {
    /// The next chunk. `stored` is told of the chunks that lists take.
    pub(crate) fn push(
        &mut self,
        id: ChunkId,
        chunks: &mut dyn Chunks,
        stored: &mut dyn FnMut(ChunkId),
    ) -> Result<(), Stopped> {
        if self.lists.is_none() && self.inline.len() < MAX_INLINE_CHUNKS {
            self.inline.push(id);
            return Ok(());
        }
        let inline = std::mem::take(&mut self.inline);
        let lists = self.lists.get_or_insert_default();
        for id in inline.iter().chain([&id]) {
            lists.cutter.feed(id.as_bytes());
        }
        lists.store(chunks, false, stored)
    }

    /// That many bytes belong to the content.
    pub(crate) fn grow(&mut self, bytes: u64) {
        self.size += bytes;
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn finish(
        self,
        chunks: &mut dyn Chunks,
        stored: &mut dyn FnMut(ChunkId),
    ) -> Result<Content, Stopped> {
        let Some(mut lists) = self.lists else {
            return Ok(Content::of_chunks(self.size, &self.inline));
        };
        lists.store(chunks, true, stored)?;
        Ok(Content::of_lists(self.size, &lists.ids))
    }
}

impl Lists {
    fn store(
        &mut self,
        chunks: &mut dyn Chunks,
        is_end: bool,
        stored: &mut dyn FnMut(ChunkId),
    ) -> Result<(), Stopped> {
        let chunker = chunks.chunker().clone();
        while let Some(list) = self.cutter.next_chunk(&chunker, is_end) {
            let id = chunks.store(PackKind::Trees, list)?;
            self.ids.push(id);
            stored(id);
        }
        Ok(())
    }
}

/// Twice the longest chunk: what is left over is moved to the front once for each.
const ROOM_BYTES: usize = 2 * MAX_CHUNK_BYTES;

/// Cuts one stream, which writes where it is cut: without a copy for each piece.
#[derive(Debug)]
pub(super) struct Stream<'a, C> {
    chunks: &'a mut C,
    room: Vec<u8>,
    start: usize,
    end: usize,
    ids: Ids,
}

impl<'a, C: Chunks> Stream<'a, C> {
    pub(super) fn new(chunks: &'a mut C) -> Self {
        Self {
            chunks,
            room: vec![0; ROOM_BYTES],
            start: 0,
            end: 0,
            ids: Ids::default(),
        }
    }

    /// Bytes that came so far.
    pub(super) fn size(&self) -> u64 {
        self.ids.size()
    }

    /// Where the next bytes belong. Never empty.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.end == self.room.len() {
            self.room.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.room[self.end..]
    }

    /// So many bytes were put there.
    pub(super) fn filled(&mut self, bytes: usize) -> Result<(), Stopped> {
        self.end += bytes;
        self.ids.grow(bytes as u64);
        let meter = &self.chunks.meter().bytes;
        meter.fetch_add(bytes as u64, Ordering::Relaxed);
        while self.end - self.start >= MAX_CHUNK_BYTES {
            self.cut()?;
        }
        Ok(())
    }

    /// There are no more.
    pub(super) fn finish(&mut self) -> Result<Content, Stopped> {
        while self.start < self.end {
            self.cut()?;
        }
        std::mem::take(&mut self.ids).finish(self.chunks, &mut |_| ())
    }

    /// Stores a tree that has to do with it.
    pub(super) fn tree(&mut self, bytes: &[u8]) -> Result<Content, Stopped> {
        let (mut ids, mut rest) = (Ids::default(), bytes);
        ids.grow(bytes.len() as u64);
        while !rest.is_empty() {
            let length = self.chunks.chunker().cut(rest);
            let (chunk, others) = rest.split_at(length);
            let id = self.chunks.store(PackKind::Trees, chunk)?;
            ids.push(id, self.chunks, &mut |_| ())?;
            rest = others;
        }
        ids.finish(self.chunks, &mut |_| ())
    }

    fn cut(&mut self) -> Result<(), Stopped> {
        let rest = &self.room[self.start..self.end];
        let length = self.chunks.chunker().cut(rest);
        let id = self.chunks.store(PackKind::Content, &rest[..length])?;
        self.ids.push(id, self.chunks, &mut |_| ())?;
        self.start += length;
        Ok(())
    }
}
