//! What a run notes as it goes on, for the next one where it comes to no end: blocks of whole records, each with its length and hash.
//! What comes after a block that is not whole was not written: a run may be killed, and its host may lose its power.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use infratrack_shared::backup::{ChunkId, Salt};

use super::records::wrong;
use super::{HEAD_BYTES, create};
use crate::backup::chunks::{Place, Places};

/// From there on a block is written.
const BLOCK_BYTES: usize = 64 * 1024;
/// More than one has: a record may be as long as an entry of a tree.
const MAX_BLOCK_BYTES: usize = 8 * 1024 * 1024;
const HASH_BYTES: usize = 32;
/// Of a block: its length and its hash.
const FRONT_BYTES: usize = 4 + HASH_BYTES;
/// A chunk and its place.
const PLACE_BYTES: usize = 32 + 16 + 2;

/// A file of such blocks, which begins with a head.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    block: Vec<u8>,
}

impl Log {
    pub(super) fn create(path: &Path, head: &[u8; HEAD_BYTES]) -> io::Result<Self> {
        let mut log = Self {
            file: create(path)?,
            block: vec![0; FRONT_BYTES],
        };
        log.block.extend_from_slice(head);
        log.flush()?;
        Ok(log)
    }

    /// Adds a record.
    pub(super) fn push(
        &mut self,
        record: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        record(&mut self.block)?;
        if self.block.len() >= BLOCK_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Whatever becomes of this process, what was added is there.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let (front, records) = self.block.split_at_mut(FRONT_BYTES);
        if records.is_empty() {
            return Ok(());
        }
        let length = u32::try_from(records.len()).map_err(|_| wrong("a block is too long"))?;
        front[..4].copy_from_slice(&length.to_be_bytes());
        front[4..].copy_from_slice(blake3::hash(records).as_bytes());
        self.file.write_all(&self.block)?;
        self.block.truncate(FRONT_BYTES);
        Ok(())
    }

    /// What was added, from the beginning.
    pub(super) fn into_reader(mut self) -> io::Result<LogReader> {
        self.flush()?;
        LogReader::of(self.file.try_clone()?, None)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // What is not there is done again.
        let _ = self.flush();
    }
}

/// Reads what a [`Log`] has, up to the first block that is not whole.
#[derive(Debug)]
pub(super) struct LogReader {
    file: File,
    block: Vec<u8>,
    at: usize,
}

impl LogReader {
    /// Of the log with this head.
    pub(super) fn open(path: &Path, head: &[u8; HEAD_BYTES]) -> io::Result<Self> {
        Self::of(File::open(path)?, Some(head))
    }

    fn of(file: File, head: Option<&[u8; HEAD_BYTES]>) -> io::Result<Self> {
        let mut reader = Self {
            file,
            block: Vec::new(),
            at: 0,
        };
        let found = reader.rewind()?;
        if head.is_some_and(|head| *head != found) {
            return Err(wrong("it is of another volume or key"));
        }
        Ok(reader)
    }

    /// Back to the first record. Answers the head.
    pub(super) fn rewind(&mut self) -> io::Result<[u8; HEAD_BYTES]> {
        self.file.seek(SeekFrom::Start(0))?;
        self.block.clear();
        self.at = 0;
        let mut head = [0; HEAD_BYTES];
        self.read_exact(&mut head)?;
        Ok(head)
    }

    /// `false` where there is no whole one.
    fn next_block(&mut self) -> io::Result<bool> {
        let mut front = [0; FRONT_BYTES];
        if !filled(&mut self.file, &mut front)? {
            return Ok(false);
        }
        let [a, b, c, d, hash @ ..] = front;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > MAX_BLOCK_BYTES {
            return Ok(false);
        }
        self.block.resize(length, 0);
        self.at = 0;
        let is_whole = filled(&mut self.file, &mut self.block)?
            && blake3::hash(&self.block).as_bytes() == &hash;
        if !is_whole {
            self.block.clear();
        }
        Ok(is_whole && length > 0)
    }
}

impl Read for LogReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() && !self.next_block()? {
            return Ok(0);
        }
        let read = (&self.block[self.at..]).read(into)?;
        self.at += read;
        Ok(read)
    }
}

/// `false` where the file ends before.
fn filled(file: &mut File, into: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(into) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Notes where chunks lie that the collector has.
#[derive(Debug)]
pub struct PlaceLog(pub(super) Log);

impl PlaceLog {
    /// They are stored.
    pub fn note<'a>(
        &mut self,
        stored: impl IntoIterator<Item = &'a (ChunkId, Place)>,
    ) -> io::Result<()> {
        for (id, (salt, counter)) in stored {
            self.0.push(|block| {
                block.extend_from_slice(id.as_bytes());
                block.extend_from_slice(salt.as_bytes());
                block.extend_from_slice(&counter.to_be_bytes());
                Ok(())
            })?;
        }
        self.0.flush()
    }
}

/// What was noted.
pub(super) fn noted(path: &Path, head: &[u8; HEAD_BYTES]) -> io::Result<Places> {
    let mut from = LogReader::open(path, head)?;
    let (mut places, mut row) = (Places::new(), [0; PLACE_BYTES]);
    loop {
        match from.read_exact(&mut row) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(places),
            Err(error) => return Err(error),
        }
        let Some((id, rest)) = row.split_first_chunk() else {
            return Ok(places);
        };
        let Some((salt, [high, low])) = rest.split_first_chunk() else {
            return Ok(places);
        };
        let counter = u16::from_be_bytes([*high, *low]);
        places.insert(ChunkId::new(*id), (Salt::new(*salt), counter));
    }
}
