//! The names of one directory, in the order of their bytes: the one list that the walk has in memory for each level.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::RawDir;

const BUFFER_BYTES: usize = 32 * 1024;

/// Names one after another, and where each begins and ends: a million of them are some 40 MB.
#[derive(Debug, Default)]
pub(super) struct Names {
    bytes: Vec<u8>,
    ranges: Vec<(usize, u16)>,
    next: usize,
}

impl Names {
    pub(super) fn of_directory(dir: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let mut names = Self::default();
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER_BYTES];
        let mut entries = RawDir::new(dir, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// They are in order already.
    pub(super) fn of<'a>(all: impl Iterator<Item = &'a Vec<u8>>) -> Self {
        let mut names = Self::default();
        all.for_each(|name| names.push(name));
        names
    }

    fn push(&mut self, name: &[u8]) {
        // The kernel has none that is longer than 255 bytes.
        if let Ok(length) = u16::try_from(name.len()) {
            self.ranges.push((self.bytes.len(), length));
            self.bytes.extend_from_slice(name);
        }
    }

    fn sort(&mut self) {
        let name = |(start, length): (usize, u16)| &self.bytes[start..start + usize::from(length)];
        self.ranges.sort_unstable_by(|a, b| name(*a).cmp(name(*b)));
        // A file system that changes while it is listed may name an entry twice.
        self.ranges.dedup_by(|a, b| name(*a) == name(*b));
    }

    pub(super) fn next_name(&mut self) -> Option<&OsStr> {
        let (start, length) = *self.ranges.get(self.next)?;
        self.next += 1;
        let name = &self.bytes[start..start + usize::from(length)];
        Some(OsStr::from_bytes(name))
    }
}
