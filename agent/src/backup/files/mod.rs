//! A volume of files: [`back_up`] walks its paths and stores what is there as trees. Everything is reached from the root by open
//! directories and single names, and no symlink is followed, so that nobody can lead the walk elsewhere while it goes on. What
//! can't be read is named, and the snapshot says that it is incomplete.

mod cache;
mod links;
mod names;
mod node;
mod paths;
mod read;
#[cfg(test)]
pub(crate) mod tests;
mod walk;

use std::path::PathBuf;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use infratrack_shared::backup::{Content, MAX_ERRORS, Unread};
use infratrack_shared::wire::backup::{Files, reason};
use thiserror::Error;

pub use self::cache::{Cache, PlaceLog, records};
use super::chunks::{Chunks, Stopped};
use crate::clock::Clock;

/// Why there is nothing to make a snapshot of.
#[derive(Debug, Error)]
pub enum FilesError {
    #[error("{path} is not within the allowed paths of this host")]
    NotAllowed { path: PathBuf },
    #[error("{path} leads to {to}, which is not within the allowed paths of this host")]
    LeadsOut { path: PathBuf, to: PathBuf },
    #[error("none of the paths is there")]
    NothingThere,
    #[error("cannot read the pattern {pattern:?}")]
    Pattern {
        pattern: String,
        #[source]
        source: ignore::Error,
    },
    #[error("cannot open the root directory")]
    Root(#[source] std::io::Error),
    #[error("cannot encode an entry")]
    Encode(#[from] infratrack_shared::codec::EncodeError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl FilesError {
    /// As the collector is told; `None` where the caller stopped it and knows.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::NotAllowed { .. } | Self::LeadsOut { .. } => Some(reason::NOT_ALLOWED),
            Self::NothingThere => Some(reason::NOTHING_THERE),
            Self::Pattern { .. } => Some(reason::CONFIGURATION),
            Self::Root(_) | Self::Encode(_) => Some(reason::INTERNAL),
            Self::Stopped(_) => None,
        }
    }
}

/// What changed while it was read, as [`Unread::what`] says it.
pub const CHANGED: &str = "changed_while_read";

/// A walk that came to its end.
#[derive(Debug)]
pub struct Walked {
    pub root: Content,
    pub files: u64,
    pub bytes: u64,
    /// The first [`MAX_ERRORS`].
    pub errors: Vec<Unread>,
    pub errors_total: u64,
    /// Of these, files that changed while they were read.
    pub changed_total: u64,
    /// Files whose content was read.
    pub opened: u64,
}

impl Walked {
    /// Why it is incomplete, as the collector is told; `None` where it is whole.
    pub fn reason(&self) -> Option<&'static str> {
        match self.errors_total {
            0 => None,
            total if total == self.changed_total => Some(reason::CHANGED_FILES),
            _ => Some(reason::UNREADABLE_FILES),
        }
    }
}

/// What is to be walked, and under which rules.
#[derive(Debug)]
pub struct Sources<'a> {
    pub files: &'a Files,
    /// Of the host's own configuration.
    pub allowed: &'a [PathBuf],
    pub clock: Clock,
}

/// Stores the volume's files. When it ends well, the cache is the caller's to commit; otherwise what was done stands
/// in its logs.
pub fn back_up(
    sources: &Sources<'_>,
    cache: &mut Cache,
    chunks: &mut dyn Chunks,
) -> Result<Walked, FilesError> {
    let resolved = paths::resolve(&sources.files.paths, sources.allowed)?;
    let excludes = excludes(&sources.files.excludes)?;
    let mut errors = Errors::default();
    for path in &resolved.missing {
        errors.push(path.as_os_str().as_encoded_bytes(), "it is not there");
    }
    walk::walk(sources, &resolved.root, excludes, errors, cache, chunks)
}

fn excludes(patterns: &[String]) -> Result<Gitignore, FilesError> {
    let mut builder = GitignoreBuilder::new("/");
    let wrong = |pattern: &str, source| FilesError::Pattern {
        pattern: pattern.to_owned(),
        source,
    };
    for pattern in patterns {
        builder
            .add_line(None, pattern)
            .map_err(|source| wrong(pattern, source))?;
    }
    builder
        .build()
        .map_err(|source| wrong(&patterns.join(" "), source))
}

/// What could not be read.
#[derive(Debug, Default)]
struct Errors {
    first: Vec<Unread>,
    total: u64,
    changed: u64,
}

impl Errors {
    fn push(&mut self, path: &[u8], what: &str) {
        self.total += 1;
        if what == CHANGED {
            self.changed += 1;
        }
        if self.first.len() < MAX_ERRORS {
            let path = String::from_utf8_lossy(path).into_owned();
            let what = what.to_owned();
            self.first.push(Unread { path, what });
        }
    }
}
