//! One regular file: its data is read and stored, its holes are not. What changes meanwhile is read once more, and then taken
//! for what it is.

use std::ffi::OsStr;
use std::fs::File;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use infratrack_shared::backup::{Content, PackKind};
use rustix::fs::{Advice, Mode, OFlags, SeekFrom, Stat, fadvise, fstat, openat, seek};
use rustix::io::Errno;

use super::cache::{Cache, Row};
use super::node::fingerprint;
use crate::backup::chunks::{Chunks, Stopped};
use crate::backup::cut::{Cutter, Ids};

const READ_BYTES: usize = 256 * 1024;
/// A shorter hole is read as the zeros that it is.
const MIN_HOLE_BYTES: u64 = 64 * 1024;
/// Beyond these, holes are read: an entry has a bound.
const MAX_HOLES: usize = 10_000;
/// From there on, what was read does not stay in the host's page cache.
const BIG_BYTES: u64 = 8 * 1024 * 1024;
/// Chunks in one record of the cache.
const ROWS: usize = 1_000;

/// Offset and length of each.
type Holes = Vec<(u64, u64)>;

/// What was read.
pub(super) struct Taken {
    pub(super) fd: OwnedFd,
    pub(super) stat: Stat,
    pub(super) content: Content,
    pub(super) holes: Holes,
    pub(super) torn: bool,
}

pub(super) enum Failed {
    Stopped,
    Gone,
    /// It is no file any more.
    Replaced,
    Errno(Errno),
}

impl From<Stopped> for Failed {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::Gone,
            Errno::LOOP | Errno::NXIO => Self::Replaced,
            errno => Self::Errno(errno),
        }
    }
}

/// Opens for reading what is no symlink, without a trace where that is allowed, and without waiting for a fifo's other end.
pub(super) fn open(dir: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags
        | OFlags::RDONLY
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    match openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(dir, name, flags, Mode::empty()),
        opened => opened,
    }
}

/// Reads files, one after another, in the same buffers.
#[derive(Debug, Default)]
pub(super) struct FileReader {
    buffer: Vec<u8>,
    cutter: Cutter,
    rows: Vec<Row>,
    /// How many files were opened: tests ask.
    pub(super) opened: u64,
}

/// Where the chunks go.
pub(super) struct Into<'a> {
    pub(super) chunks: &'a mut dyn Chunks,
    pub(super) cache: &'a mut Cache,
}

impl FileReader {
    /// Reads a file whose beginning stands in the cache; its end is the caller's.
    pub(super) fn read(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        begin: &dyn Fn(&mut Cache, &Stat),
        into: &mut Into<'_>,
    ) -> Result<Taken, Failed> {
        let mut is_again = false;
        loop {
            self.opened += 1;
            let fd = open(dir, name, OFlags::empty())?;
            let before = fstat(&fd)?;
            if super::node::kind(&before) != Some(infratrack_shared::backup::Kind::File) {
                return Err(Failed::Replaced);
            }
            begin(into.cache, &before);
            let file = File::from(fd);
            let read = self.content(&file, &before, into);
            if read.is_err() {
                into.cache.end_file(None);
            }
            let (content, holes, is_short) = read?;
            let after = fstat(&file)?;
            let has_changed = is_short || fingerprint(&before) != fingerprint(&after);
            if has_changed && !is_again {
                is_again = true;
                into.cache.end_file(None);
                let meter = into.chunks.meter();
                meter.bytes.fetch_sub(content.size, Ordering::Relaxed);
                continue;
            }
            return Ok(Taken {
                fd: file.into(),
                stat: before,
                content,
                holes,
                torn: has_changed,
            });
        }
    }

    /// Its content and holes, and whether it was shorter than it said.
    fn content(
        &mut self,
        file: &File,
        stat: &Stat,
        into: &mut Into<'_>,
    ) -> Result<(Content, Holes, bool), Failed> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        let mut map = Map {
            is_sparse: blocks.saturating_mul(512) < size,
            size,
            holes: Vec::new(),
        };
        if size >= READ_BYTES as u64 {
            // Only advice.
            let _ = fadvise(file, 0, None, Advice::Sequential);
        }
        self.buffer.resize(READ_BYTES, 0);
        self.cutter.clear();
        self.rows.clear();
        let (mut ids, mut at, mut dropped) = (Ids::default(), 0, 0);
        let mut is_short = false;
        while let Some((start, end)) = map.next_data(file, at) {
            self.advance(&mut ids, start - at, into);
            at = start;
            while at < end && !is_short {
                let want =
                    usize::try_from(end - at).map_or(READ_BYTES, |left| left.min(READ_BYTES));
                let got = match file.read_at(&mut self.buffer[..want], at) {
                    Ok(got) => got,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(error) => {
                        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                        return Err(Failed::Errno(errno));
                    }
                };
                is_short = got == 0;
                at += got as u64;
                self.cutter.feed(&self.buffer[..got]);
                self.advance(&mut ids, got as u64, into);
                self.store(&mut ids, false, into)?;
                if at - dropped >= BIG_BYTES {
                    drop_pages(file, dropped, at);
                    dropped = at;
                }
            }
            if is_short {
                break;
            }
        }
        if !is_short {
            self.advance(&mut ids, size - at, into);
        }
        if size >= BIG_BYTES {
            drop_pages(file, dropped, size);
        }
        self.store(&mut ids, true, into)?;
        let (Self { rows, .. }, chunks) = (&mut *self, &mut *into.chunks);
        let end = ids.size();
        let content = ids.finish(chunks, &mut |id| rows.push(Row { id, place: None }))?;
        into.cache.chunks(std::mem::take(rows));
        map.holes.retain(|(offset, length)| offset + length <= end);
        Ok((content, map.holes, is_short))
    }

    #[expect(clippy::unused_self, reason = "beside `store`")]
    fn advance(&self, ids: &mut Ids, bytes: u64, into: &Into<'_>) {
        ids.grow(bytes);
        let meter = into.chunks.meter();
        meter.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn store(&mut self, ids: &mut Ids, is_end: bool, into: &mut Into<'_>) -> Result<(), Stopped> {
        let Self { cutter, rows, .. } = self;
        while let Some(plain) = cutter.next_chunk(into.chunks.chunker(), is_end) {
            let id = into.chunks.store(PackKind::Content, plain)?;
            rows.push(Row { id, place: None });
            let stored = &mut |id| rows.push(Row { id, place: None });
            ids.push(id, into.chunks, stored)?;
            if rows.len() >= ROWS {
                into.cache.chunks(std::mem::take(rows));
            }
        }
        Ok(())
    }
}

/// Where a file has data.
struct Map {
    is_sparse: bool,
    size: u64,
    holes: Holes,
}

impl Map {
    /// The next data at or after `at`: from and to.
    fn next_data(&mut self, file: &File, at: u64) -> Option<(u64, u64)> {
        if at >= self.size {
            return None;
        }
        if !self.is_sparse || self.holes.len() >= MAX_HOLES {
            return Some((at, self.size));
        }
        let start = match seek(file.as_fd(), SeekFrom::Data(at)) {
            Ok(start) => start.min(self.size),
            Err(Errno::NXIO) => self.size,
            Err(_) => {
                self.is_sparse = false;
                return Some((at, self.size));
            }
        };
        let start = if start - at >= MIN_HOLE_BYTES {
            self.holes.push((at, start - at));
            start
        } else {
            at
        };
        if start >= self.size {
            return None;
        }
        let from = start.max(at);
        let end = seek(file.as_fd(), SeekFrom::Hole(from)).unwrap_or(self.size);
        // In a short hole nothing is found, but progress has to be made.
        let end = if end <= from {
            from + MIN_HOLE_BYTES
        } else {
            end
        };
        Some((start, end.min(self.size)))
    }
}

fn drop_pages(file: &File, from: u64, to: u64) {
    if let Some(length) = NonZeroU64::new(to.saturating_sub(from)) {
        // Only advice.
        let _ = fadvise(file, from, Some(length), Advice::DontNeed);
    }
}
