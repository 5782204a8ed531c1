//! The way back: a snapshot's tree is read from a [`Source`], and written below a directory, compared, or listed. Nothing is
//! believed that does not open with the volume's key; a file that is not whole is not there, and is named.

mod ahead;
mod bucket;
mod collector;
mod compare;
mod fetch;
mod files;
mod lanes;
mod objects;
mod opened;
pub mod s3;
mod sample;
mod source;
mod target;
#[cfg(test)]
mod tests;
mod walk;

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use infratrack_shared::backup::{Content, Kind, MAX_ERRORS, Node, TreeError, Unread};
use rustix::io::Errno;
use thiserror::Error;

pub use self::bucket::Bucket;
pub use self::collector::Remote;
pub use self::compare::compare;
pub use self::fetch::{ChunkError, Fetcher};
pub use self::objects::{Folder, Objects};
pub use self::opened::{KeySources, Opened};
pub use self::sample::{Sample, Sizes};
pub use self::source::{Source, SourceError};
use super::chunks::Meter;

/// Why a restore ends before its end. What concerns one file alone is in [`Restored::errors`].
#[derive(Debug, Error)]
pub enum RestoreError {
    #[error("cannot write to {path}")]
    Target {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("there is no more room for {path}")]
    DiskFull { path: String },
    #[error("cannot read the pattern {pattern:?}")]
    Pattern {
        pattern: String,
        #[source]
        source: ignore::Error,
    },
    #[error("the snapshot has no file {0}")]
    NoFile(String),
    #[error("the snapshot has more than one file: name one")]
    WhichFile,
    #[error("cannot write it out")]
    Out(#[source] io::Error),
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    #[error("its tree is none")]
    Tree(#[from] TreeError),
    #[error("the file has other content than its size says")]
    Size,
}

/// How it is to be done.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// As in a .gitignore; empty: everything. What is below a match is wanted too.
    pub paths: Vec<String>,
    /// Devices are made, where this is root.
    pub has_devices: bool,
    /// Nothing else is written, and directories above them stay as they are. `None`: anything.
    pub allowed: Option<Vec<PathBuf>>,
    /// Files that are not in it are passed over.
    pub sample: Option<Sample>,
    /// Owners, and attributes that are root's, are left out: what is restored is nobody's to use.
    pub is_scratch: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Restored {
    pub files: u64,
    pub bytes: u64,
    /// Of the files, those that were there already.
    pub left: u64,
    /// Devices that were not made.
    pub skipped: u64,
    /// The first [`MAX_ERRORS`].
    pub errors: Vec<Unread>,
    pub errors_total: u64,
}

impl Restored {
    fn push(&mut self, path: &[u8], what: String) {
        self.errors_total += 1;
        if self.errors.len() < MAX_ERRORS {
            let path = String::from_utf8_lossy(path).into_owned();
            self.errors.push(Unread { path, what });
        }
    }
}

/// Writes the tree below `target`, which is there.
pub fn restore(
    from: Fetcher<'_>,
    root: &Content,
    target: &Path,
    options: &Options,
    meter: &Meter,
) -> Result<Restored, RestoreError> {
    let dir = target::open_root(target).map_err(|errno: Errno| RestoreError::Target {
        path: target.display().to_string(),
        source: errno.into(),
    })?;
    walk::walk(from, root, walk::Sink::Disk(dir), options, meter)
}

/// Reads everything, and writes nothing.
pub fn verify(
    from: Fetcher<'_>,
    root: &Content,
    options: &Options,
    meter: &Meter,
) -> Result<Restored, RestoreError> {
    walk::walk(from, root, walk::Sink::Nothing, options, meter)
}

/// Calls `each` with the path and the entry of everything.
pub fn list(
    from: Fetcher<'_>,
    root: &Content,
    options: &Options,
    each: &mut dyn FnMut(&[u8], &Node),
) -> Result<Restored, RestoreError> {
    walk::walk(
        from,
        root,
        walk::Sink::List(each),
        options,
        &Meter::default(),
    )
}

/// Writes one file's content out; the only one where no path is given.
pub fn dump(
    from: Fetcher<'_>,
    root: &Content,
    path: Option<&OsStr>,
    out: &mut dyn Write,
) -> Result<(), RestoreError> {
    let node = match path {
        Some(path) => find(from, root, path)?,
        None => walk::only_file(from, root)?,
    };
    let content = node.content.clone().unwrap_or_default();
    let (mut at, mut holes) = (0, node.holes.iter().copied().peekable());
    let mut fill = |at: &mut u64, out: &mut dyn Write| -> Result<(), RestoreError> {
        while let Some((_, length)) = holes.next_if(|(offset, _)| offset == at) {
            io::copy(&mut io::Read::take(io::repeat(0), length), out).map_err(RestoreError::Out)?;
            *at += length;
        }
        Ok(())
    };
    let starts: Vec<u64> = node.holes.iter().map(|(offset, _)| *offset).collect();
    from.stream(&content, |mut bytes| {
        while !bytes.is_empty() {
            fill(&mut at, out)?;
            let next = starts.get(starts.partition_point(|start| *start <= at));
            let end = next.copied().unwrap_or(content.size);
            let room = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            if now.is_empty() {
                return Err(RestoreError::Size);
            }
            out.write_all(now).map_err(RestoreError::Out)?;
            at += now.len() as u64;
            bytes = rest;
        }
        Ok(())
    })?;
    fill(&mut at, out)?;
    if at == content.size {
        out.flush().map_err(RestoreError::Out)
    } else {
        Err(RestoreError::Size)
    }
}

fn find(from: Fetcher<'_>, root: &Content, path: &OsStr) -> Result<Node, RestoreError> {
    let none = || RestoreError::NoFile(path.display().to_string());
    let parts = path.as_bytes().split(|byte| *byte == b'/');
    let mut parts = parts.filter(|part| !part.is_empty()).peekable();
    let mut tree = root.clone();
    while let Some(part) = parts.next() {
        let node = walk::find_entry(from, &tree, part)?.ok_or_else(none)?;
        match (node.kind, parts.peek()) {
            (Kind::File, None) => return Ok(node),
            (Kind::Directory, Some(_)) => tree = node.content.unwrap_or_default(),
            (_, _) => break,
        }
    }
    Err(none())
}

fn patterns(paths: &[String]) -> Result<Option<Gitignore>, RestoreError> {
    if paths.is_empty() {
        return Ok(None);
    }
    let mut builder = GitignoreBuilder::new("/");
    let wrong = |pattern: &str, source| RestoreError::Pattern {
        pattern: pattern.to_owned(),
        source,
    };
    for pattern in paths {
        builder
            .add_line(None, pattern)
            .map_err(|source| wrong(pattern, source))?;
    }
    let built = builder.build();
    built
        .map(Some)
        .map_err(|source| wrong(&paths.join(" "), source))
}
