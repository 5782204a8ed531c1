//! Files of a snapshot: the small ones of a directory are fetched together, a large one window by window. Each is written
//! beside, and gets its name when all of it is there.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::Ordering;

use infratrack_shared::backup::{ChunkId, Content, MAX_CHUNK_BYTES, Node};
use rustix::io::Errno;

use super::fetch::{ClonedError, Fetched};
use super::target::{self, Dir, has_chunks};
use super::walk::{BATCH_BYTES, Failed, Sink, Walk};
use super::{ChunkError, RestoreError};

/// A larger file is fetched on its own, window by window.
const SMALL_BYTES: u64 = 8 * 1024 * 1024;
const SMALL_CHUNKS: usize = 128;
/// Inodes whose first name is remembered; beyond, each name is a file of its own.
const MAX_LINKS: usize = 1_000_000;

impl Walk<'_, '_> {
    /// Writes the files that wait.
    pub(super) fn flush(&mut self) -> Result<(), RestoreError> {
        let level = self.levels.last_mut().expect("the walk is in a directory");
        let batch = std::mem::take(&mut level.batch);
        level.batch_bytes = 0;
        if matches!(self.sink, Sink::List(_)) || batch.is_empty() {
            return Ok(());
        }
        let length = self.path.len();
        let mut rest = batch.as_slice();
        while !rest.is_empty() {
            let (left, fetched) = self.fetch_small(rest);
            let (now, later) = rest.split_at(left.len());
            for (node, is_left) in now.iter().zip(left) {
                self.path.truncate(length);
                self.path.push(b'/');
                self.path.extend_from_slice(&node.name);
                let made = self.file(node, &fetched, is_left);
                if made.is_err()
                    && let Ok(Some(dir)) = self.dir()
                {
                    dir.give_up(OsStr::from_bytes(&node.name));
                }
                self.settle(made)?;
            }
            rest = later;
        }
        self.path.truncate(length);
        Ok(())
    }

    /// The chunks of as many files as have room in memory; at least of one, which may be too large for that. For each of
    /// them, whether it is there already.
    fn fetch_small(&mut self, batch: &[Node]) -> (Vec<bool>, Fetched) {
        let (mut ids, mut bytes, mut left) = (Vec::new(), 0, Vec::new());
        let is_compared = matches!(self.sink, Sink::Compare(_));
        for node in batch {
            let chunks = small(node).unwrap_or_default();
            let size = node.content.as_ref().map_or(0, |content| content.size);
            bytes += size.min((chunks.len() * MAX_CHUNK_BYTES) as u64);
            if !left.is_empty() && bytes > BATCH_BYTES {
                break;
            }
            let is_left = small(node).is_some() && self.is_left(node, &chunks);
            left.push(is_left);
            if !is_left && !is_compared {
                ids.extend(chunks);
            }
        }
        if ids.is_empty() {
            return (left, Fetched::new());
        }
        (left, self.from.fetch(&ids))
    }

    /// Whether the file is there as it should be, so that nothing need be fetched.
    fn is_left(&mut self, node: &Node, ids: &[ChunkId]) -> bool {
        let key = self.from.key;
        let Ok(Some(dir)) = self.dir() else {
            return false;
        };
        let existing = dir.existing(OsStr::from_bytes(&node.name), node);
        existing.is_some_and(|file| has_chunks(&file, node, ids, key))
    }

    fn is_large_left(&mut self, node: &Node) -> Result<bool, Failed> {
        let name = OsStr::from_bytes(&node.name);
        let is_there = self
            .dir()?
            .is_some_and(|dir| dir.existing(name, node).is_some());
        if small(node).is_some() || !is_there {
            return Ok(false);
        }
        let mut ids = Vec::new();
        let content = node.content.clone().unwrap_or_default();
        self.from.each_window(&content, |window| {
            ids.extend_from_slice(window);
            Ok::<_, ChunkError>(())
        })?;
        Ok(self.is_left(node, &ids))
    }

    fn file(&mut self, node: &Node, fetched: &Fetched, is_left: bool) -> Result<(), Failed> {
        let content = node.content.clone().unwrap_or_default();
        let name = OsStr::from_bytes(&node.name);
        let is_root = self.is_root;
        let (from, meter) = (self.from, self.meter);
        if let Sink::Compare(_) = self.sink {
            let is_same = is_left || self.is_large_left(node)?;
            return self.compare_file(node, is_same);
        }
        if let Some(number) = node.hard_link
            && self.link(number, name, &content)?
        {
            return Ok(());
        }
        let is_left = is_left || self.is_large_left(node)?;
        let dir = self.dir()?;
        let mut got = 0_u64;
        let mut writing = match (dir, is_left) {
            (Some(dir), false) => Some(dir.create(name, node)?),
            (Some(_) | None, _) => None,
        };
        if !is_left {
            let mut each = |bytes: &[u8]| -> Result<(), Failed> {
                meter.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                got += bytes.len() as u64;
                let has_room = match &mut writing {
                    Some(writing) => writing.write(bytes)?,
                    None => true,
                };
                has_room.then_some(()).ok_or_else(wrong_size)
            };
            match small(node) {
                Some(ids) => ids
                    .iter()
                    .try_for_each(|id| each(fetched.get(id).cloned_error(*id)?))?,
                None => from.stream(&content, each)?,
            }
            let holes: u64 = node.holes.iter().map(|(_, length)| *length).sum();
            if got + holes != content.size {
                return Err(wrong_size());
            }
        }
        meter.files.fetch_add(1, Ordering::Relaxed);
        if is_left {
            meter.bytes.fetch_add(content.size, Ordering::Relaxed);
        }
        self.done.bytes += content.size;
        self.done.left += u64::from(is_left);
        let problem = match (&mut writing, self.dir()?) {
            (Some(writing), Some(dir)) => {
                if !writing.finish()? {
                    return Err(wrong_size());
                }
                let problem = target::finish(writing.file.as_fd(), node, is_root);
                dir.put(name)?;
                problem
            }
            (None, Some(dir)) => match dir.existing(name, node) {
                Some(file) => target::finish(file.as_fd(), node, is_root),
                None => Err(Errno::STALE),
            },
            (_, None) => Ok(()),
        };
        self.remember(node);
        problem.map_err(|errno| Failed::File(format!("what belongs to it: {errno}")))
    }

    /// Another name of a file that has been written.
    fn link(&mut self, number: u64, name: &OsStr, content: &Content) -> Result<bool, Failed> {
        let Some((path, first)) = self.links.get(&number) else {
            return Ok(false);
        };
        // Names of one inode have the same content.
        let Sink::Disk(root) = &self.sink else {
            return Ok(first.as_ref() == Some(content));
        };
        if first.as_ref() != Some(content) {
            return Ok(false);
        }
        let mut parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').skip(1).collect();
        let Some(last) = parts.pop() else {
            return Ok(false);
        };
        let last = OsStr::from_bytes(last);
        let mut there: Option<Dir> = None;
        for part in parts {
            let above = there.as_ref().unwrap_or(root);
            there = Some(above.open(OsStr::from_bytes(part))?);
        }
        let level = self.levels.last().and_then(|level| level.dir.as_ref());
        let here = level.unwrap_or(root);
        here.link(name, there.as_ref().unwrap_or(root), last)?;
        self.meter.files.fetch_add(1, Ordering::Relaxed);
        self.done.bytes += content.size;
        Ok(true)
    }

    fn remember(&mut self, node: &Node) {
        if let Some(number) = node.hard_link
            && self.links.len() < MAX_LINKS
        {
            let first = (self.path.clone(), node.content.clone());
            self.links.entry(number).or_insert(first);
        }
    }
}

fn wrong_size() -> Failed {
    Failed::File("its chunks are not as long as the file".to_owned())
}

/// The chunks of a file that is fetched together with others.
fn small(node: &Node) -> Option<Vec<ChunkId>> {
    let content = node.content.as_ref()?;
    let ids = content.chunks()?.ok()?;
    (content.size <= SMALL_BYTES && ids.len() <= SMALL_CHUNKS).then_some(ids)
}
