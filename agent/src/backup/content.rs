//! Content on its way into chunks: bytes as they come are cut where the volume's key says, without a copy for each piece.

use std::sync::atomic::Ordering;

use infratrack_shared::backup::{
    ChunkId, Content, MAX_CHUNK_BYTES, MAX_INLINE_CHUNKS, PackKind, joined,
};

use super::chunks::{Chunks, Stopped};

/// Twice the longest chunk: what is left over is moved to the front once for each.
const ROOM_BYTES: usize = 2 * MAX_CHUNK_BYTES;

/// Cuts one stream.
#[derive(Debug)]
pub(super) struct Cutter<'a, C> {
    chunks: &'a mut C,
    room: Vec<u8>,
    start: usize,
    end: usize,
    ids: Vec<ChunkId>,
    size: u64,
}

impl<'a, C: Chunks> Cutter<'a, C> {
    pub(super) fn new(chunks: &'a mut C) -> Self {
        Self {
            chunks,
            room: vec![0; ROOM_BYTES],
            start: 0,
            end: 0,
            ids: Vec::new(),
            size: 0,
        }
    }

    /// Bytes that came so far.
    pub(super) fn size(&self) -> u64 {
        self.size
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
        self.size += bytes as u64;
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
        content(self.chunks, self.size, &self.ids)
    }

    /// Stores a tree that has to do with it.
    pub(super) fn tree(&mut self, bytes: &[u8]) -> Result<Content, Stopped> {
        let ids = stored(self.chunks, bytes)?;
        content(self.chunks, bytes.len() as u64, &ids)
    }

    fn cut(&mut self) -> Result<(), Stopped> {
        let rest = &self.room[self.start..self.end];
        let length = self.chunks.chunker().cut(rest);
        let id = self.chunks.store(PackKind::Content, &rest[..length])?;
        self.ids.push(id);
        self.start += length;
        Ok(())
    }
}

/// Content of these chunks. A long list becomes content of its own.
pub(super) fn content<C: Chunks>(
    chunks: &mut C,
    size: u64,
    ids: &[ChunkId],
) -> Result<Content, Stopped> {
    if ids.len() <= MAX_INLINE_CHUNKS {
        return Ok(Content::of_chunks(size, ids));
    }
    let lists = stored(chunks, &joined(ids))?;
    Ok(Content::of_lists(size, &lists))
}

fn stored<C: Chunks>(chunks: &mut C, bytes: &[u8]) -> Result<Vec<ChunkId>, Stopped> {
    let mut rest = bytes;
    let mut ids = Vec::new();
    while !rest.is_empty() {
        let length = chunks.chunker().cut(rest);
        let (chunk, others) = rest.split_at(length);
        ids.push(chunks.store(PackKind::Trees, chunk)?);
        rest = others;
    }
    Ok(ids)
}
