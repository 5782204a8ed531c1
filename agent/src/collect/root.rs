//! Where the host's files are read from, and how: bounded, as text, never trusting their size.
//!
//! Paths are given without the leading slash, so that a fixture tree can stand in for `/`.
//! Every source reads through here.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::Reason;

/// The largest file read: `/proc/cpuinfo` of 512 threads is under 1 MiB.
const FILE_BYTES: u64 = 2 * 1024 * 1024;
/// The most names taken from one directory.
const NAMES: usize = 65_536;

/// Where the host's files are read from: `/` in production, a fixture tree in tests.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Default for Root {
    fn default() -> Self {
        Self::new("/")
    }
}

impl Root {
    /// Reads below `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Whether this is the running host, so that asking its kernel directly makes sense.
    pub(super) fn is_host(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// The place of an absolute or relative path below the root.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// The file to be read line by line, if it has no more than so many bytes. A FIFO is not waited for.
    pub(crate) fn open(&self, path: &str, bytes: u64) -> io::Result<impl io::BufRead> {
        let (file, found) = self.open_file(path)?;
        if found.len() > bytes {
            let reason = format!("has {} bytes, more than {bytes}", found.len());
            return Err(io::Error::other(reason));
        }
        // It may grow meanwhile.
        Ok(BufReader::new(file.take(bytes)))
    }

    /// The file and what it is, if it is one at all. A FIFO is not waited for.
    pub(super) fn open_file(&self, path: &str) -> io::Result<(File, Metadata)> {
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .custom_flags(flags.bits())
            .open(self.path(path))?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("is no file"));
        }
        Ok((file, found))
    }

    /// What is in the file, as far as its text would be read.
    pub(super) fn bytes(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let (file, _) = self.open_file(path)?;
        file.take(FILE_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The file's text, with what is no UTF-8 replaced.
    pub(super) fn read(&self, path: &str) -> io::Result<String> {
        let mut bytes = Vec::new();
        File::open(self.path(path))?
            .take(FILE_BYTES)
            .read_to_end(&mut bytes)?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// [`Self::read`], with the path in the reason.
    pub(super) fn text(&self, path: &str) -> Result<String, Reason> {
        self.read(path).map_err(|error| format!("/{path}: {error}"))
    }

    /// The trimmed text of a one-line file; `None` where it can't be read or is blank.
    pub(super) fn find(&self, path: &str) -> Option<String> {
        let text = self.read(path).ok()?;
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// The number in a one-line file.
    pub(super) fn find_number(&self, path: &str) -> Option<u64> {
        self.find(path)?.parse().ok()
    }

    /// The switch in a one-line file: 0 or 1.
    pub(super) fn find_flag(&self, path: &str) -> Option<bool> {
        self.find_number(path).map(|number| number != 0)
    }

    /// The names in a directory, sorted.
    pub(crate) fn names(&self, path: &str) -> Result<Vec<String>, Reason> {
        let entries = fs::read_dir(self.path(path)).map_err(|error| format!("/{path}: {error}"))?;
        let mut names: Vec<_> = entries
            .flatten()
            .take(NAMES)
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Where a symbolic link points, as it is written.
    pub(super) fn link(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.to_string_lossy().into_owned())
    }
}
