//! A log and those that it was rotated to: found, told apart, opened, unpacked.

use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;

use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;
use infratrack_shared::digest::Digest;
use infratrack_shared::limits::ZSTD_WINDOW_LOG;
use lzma_rust2::XzReader;
use serde::{Deserialize, Serialize};

use crate::collect::Root;

/// What a log begins with tells it from others, wherever it is moved or copied to.
const HEAD_BYTES: usize = 256;
/// Read of a packed log at most.
const UNPACKED_BYTES: u64 = 64 * 1024 * 1024;
/// What unpacking one of xz may take: enough for what `xz -7` has made, and logrotate has it make `xz -6`.
const XZ_KIB: u32 = 20 * 1024;
/// Rotated logs looked at; a month has 30.
const ROTATED: usize = 100;
/// More digits are a date.
const NUMBER_DIGITS: usize = 5;

/// What a file is known by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub dev: u64,
    pub ino: u64,
    /// How much of the beginning there was, and its digest.
    pub head_bytes: usize,
    pub head: u64,
}

/// How its bytes are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
    /// In a way that is not read.
    Unread,
}

/// A log, or one that it was rotated to.
#[derive(Clone, Debug)]
pub(super) struct LogFile {
    pub path: String,
    pub packing: Packing,
    pub dev: u64,
    pub ino: u64,
    pub len: u64,
    pub modified_ms: i64,
}

impl LogFile {
    /// What is there by that name. Nothing is opened: a device may mind.
    pub(super) fn find(root: &Root, path: &str) -> io::Result<Self> {
        let packing = match path.rsplit_once('.') {
            Some((_, "gz")) => Packing::Gzip,
            Some((_, "zst")) => Packing::Zstd,
            Some((_, "xz")) => Packing::Xz,
            Some((_, "bz2")) => Packing::Bzip2,
            Some((_, "lzma" | "Z")) => Packing::Unread,
            _ => Packing::Plain,
        };
        let found = root.path(path).metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("is no file"));
        }
        Ok(Self {
            path: path.to_owned(),
            packing,
            dev: found.dev(),
            ino: found.ino(),
            len: found.len(),
            modified_ms: modified_ms(&found),
        })
    }

    /// Opens it where it is still what was found.
    fn open(&self, root: &Root) -> io::Result<File> {
        let (file, found) = root.open_file(&self.path)?;
        if (found.dev(), found.ino()) == (self.dev, self.ino) {
            Ok(file)
        } else {
            Err(io::Error::other("was replaced as it was opened"))
        }
    }

    /// Its bytes from `offset` on.
    pub(super) fn read_from(&self, root: &Root, offset: u64) -> io::Result<Box<dyn Read>> {
        let mut file = self.open(root)?;
        let mut unpacked: Box<dyn Read> = match self.packing {
            Packing::Plain => {
                file.seek(SeekFrom::Start(offset))?;
                return Ok(Box::new(file));
            }
            Packing::Gzip => Box::new(MultiGzDecoder::new(BufReader::new(file))),
            Packing::Zstd => {
                let mut decoder = zstd::Decoder::new(file)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
            Packing::Xz => {
                let file = BufReader::new(file);
                Box::new(XzReader::new_mem_limit(file, true, XZ_KIB))
            }
            // Its blocks have 900 kB at most.
            Packing::Bzip2 => Box::new(MultiBzDecoder::new(BufReader::new(file))),
            Packing::Unread => return Err(io::Error::other("is packed in a way that is not read")),
        };
        io::copy(&mut unpacked.by_ref().take(offset), &mut io::sink())?;
        Ok(Box::new(
            unpacked.take(UNPACKED_BYTES.saturating_sub(offset)),
        ))
    }

    /// What it is known by.
    pub(super) fn identity(&self, root: &Root) -> io::Result<Identity> {
        let head = self.head(root, HEAD_BYTES)?;
        Ok(Identity {
            dev: self.dev,
            ino: self.ino,
            head_bytes: head.len(),
            head: digest(&head),
        })
    }

    /// Whether it is the file that was known, or a copy of it, with at least `offset` bytes.
    pub(super) fn is(&self, known: &Identity, offset: u64, root: &Root) -> bool {
        let is_same = (self.dev, self.ino) == (known.dev, known.ino);
        // One that was empty has no beginning that it could be known by.
        if !is_same && known.head_bytes == 0 {
            return false;
        }
        if self.packing == Packing::Plain && self.len < offset {
            return false;
        }
        let head = self.head(root, known.head_bytes.min(HEAD_BYTES));
        head.is_ok_and(|head| head.len() == known.head_bytes && digest(&head) == known.head)
    }

    fn head(&self, root: &Root, bytes: usize) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        let file = self.read_from(root, 0)?;
        file.take(bytes as u64).read_to_end(&mut head)?;
        Ok(head)
    }
}

/// What `path` was rotated to, the oldest first.
pub(super) fn rotated(root: &Root, path: &str) -> Vec<LogFile> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut found: Vec<(i64, String)> = root
        .names(directory)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|other| Some((age(name, &other)?, other)))
        .collect();
    // The plain one of two, the other is made of it just now: it sorts first and is kept.
    found.sort_unstable();
    found.dedup_by_key(|(age, _)| *age);
    let newest = found.len().saturating_sub(ROTATED);
    let found = found.into_iter().skip(newest);
    found
        .filter_map(|(_, name)| LogFile::find(root, &format!("{directory}/{name}")).ok())
        .collect()
}

/// Sorts what logrotate makes of `name`, the oldest first: `name.3.gz`, `name.1`, `name-20261122.gz`.
fn age(name: &str, other: &str) -> Option<i64> {
    let rest = other.strip_prefix(name)?.strip_prefix(['.', '-'])?;
    let (number, packing) = rest.split_once('.').unwrap_or((rest, ""));
    let is_packing = ["", "gz", "zst", "xz", "bz2", "lzma", "Z"].contains(&packing);
    let is_number = number
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'-');
    if !is_packing || !is_number {
        return None;
    }
    let value: i64 = number.replace('-', "").parse().ok()?;
    let is_date = number.len() > NUMBER_DIGITS;
    Some(if is_date { value } else { -value })
}

fn modified_ms(found: &Metadata) -> i64 {
    found.mtime().saturating_mul(1000) + found.mtime_nsec() / 1_000_000
}

fn digest(bytes: &[u8]) -> u64 {
    let digest = Digest::of(bytes);
    let first = digest.as_bytes().first_chunk::<8>();
    first.map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::fixture;

    #[test]
    fn rotated_logs_are_those_of_logrotate_the_oldest_first() {
        let (_keep, root) = fixture::host(&[
            ("var/log/dpkg.log", ""),
            ("var/log/dpkg.log.1", ""),
            ("var/log/dpkg.log.2.gz", ""),
            ("var/log/dpkg.log.2", ""),
            ("var/log/dpkg.log.10.xz", ""),
            ("var/log/dpkg.log.old", ""),
            ("var/log/dpkg.log.1.gz.tmp", ""),
            ("var/log/dpkg.log-20261101.gz", ""),
            ("var/log/dpkg.log-2026110", "->dpkg.log-2026110"),
            ("var/log/alternatives.log.1", ""),
        ]);
        let names: Vec<_> = rotated(&root, "var/log/dpkg.log")
            .into_iter()
            .map(|file| file.path.replace("var/log/dpkg.log", ""))
            .collect();
        assert_eq!(names, [".10.xz", ".2", ".1", "-20261101.gz"]);
    }
}
