//! The walk through a snapshot: trees are read as they are needed, a directory's files are fetched together, and what is in
//! memory grows with depth only.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ignore::gitignore::Gitignore;
use infratrack_shared::backup::{ChunkId, Content, Kind, Node, TreeReader};
use rustix::fs::Mode;
use rustix::io::Errno;

use super::ahead::Ahead;
use super::target::{self, Dir};
use super::{ChunkError, Fetcher, Options, RestoreError, Restored, compare, patterns};
use crate::backup::chunks::Meter;

/// Directories in one another: a few more than a backup walks into.
const MAX_DEPTH: usize = 600;
/// Pieces of one tree: 500 GB of entries.
const MAX_PIECES: usize = 1_000_000;
/// Files that are fetched together, and their bytes.
const BATCH_FILES: usize = 1_000;
pub(super) const BATCH_BYTES: u64 = 32 * 1024 * 1024;

pub(super) enum Sink<'a> {
    Disk(Dir),
    /// What is there is compared.
    Compare(Dir),
    Nothing,
    List(&'a mut dyn FnMut(&[u8], &Node)),
}

impl Sink<'_> {
    /// The directory that the walk goes through beside the tree.
    fn root(&self) -> Option<&Dir> {
        match self {
            Self::Disk(root) | Self::Compare(root) => Some(root),
            Self::Nothing | Self::List(_) => None,
        }
    }
}

pub(super) struct Level {
    pub(super) ids: VecDeque<ChunkId>,
    pub(super) reader: Option<TreeReader>,
    pub(super) node: Option<Node>,
    /// Open as soon as something in it is written.
    pub(super) dir: Option<Dir>,
    pub(super) path_length: usize,
    pub(super) is_wanted: bool,
    /// It stays as it is: only what is in it may be written.
    pub(super) is_above: bool,
    pub(super) batch: Vec<Node>,
    pub(super) batch_bytes: u64,
}

pub(super) struct Walk<'a, 's> {
    pub(super) from: Fetcher<'a>,
    pub(super) sink: Sink<'s>,
    pub(super) wanted: Option<Gitignore>,
    pub(super) options: &'a Options,
    pub(super) meter: &'a Meter,
    pub(super) levels: Vec<Level>,
    pub(super) path: Vec<u8>,
    pub(super) links: HashMap<u64, (Vec<u8>, Option<Content>)>,
    pub(super) is_root: bool,
    pub(super) done: Restored,
}

/// Where an entry is, as to what may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Within,
    Above,
    Outside,
}

impl Place {
    fn of(path: &Path, allowed: Option<&[PathBuf]>) -> Self {
        let Some(allowed) = allowed else {
            return Self::Within;
        };
        if allowed.iter().any(|allowed| path.starts_with(allowed)) {
            Self::Within
        } else if allowed.iter().any(|allowed| allowed.starts_with(path)) {
            Self::Above
        } else {
            Self::Outside
        }
    }
}

/// What keeps one file from being made.
pub(super) enum Failed {
    All(RestoreError),
    File(String),
}

impl From<ChunkError> for Failed {
    fn from(error: ChunkError) -> Self {
        match error {
            ChunkError::Gone(_) => Self::All(error.into()),
            ChunkError::Missing(_)
            | ChunkError::Open { .. }
            | ChunkError::Read(_)
            | ChunkError::Unplaced(_)
            | ChunkError::List(_) => Self::File(error.to_string()),
        }
    }
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        if matches!(errno, Errno::NOSPC | Errno::DQUOT) {
            let path = String::new();
            return Self::All(RestoreError::DiskFull { path });
        }
        Self::File(errno.to_string())
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno) => errno.into(),
            None => Self::File(error.to_string()),
        }
    }
}

pub(super) fn walk(
    from: Fetcher<'_>,
    root: &Content,
    sink: Sink<'_>,
    options: &Options,
    meter: &Meter,
) -> Result<Restored, RestoreError> {
    let wanted = patterns(&options.paths)?;
    let ahead = Ahead::new(from.source);
    let from = Fetcher {
        source: &ahead,
        ..from
    };
    let mut walk = Walk {
        from,
        sink,
        options,
        meter,
        levels: Vec::new(),
        path: Vec::new(),
        links: HashMap::new(),
        is_root: nix::unistd::Uid::effective().is_root() && !options.is_scratch,
        done: Restored::default(),
        wanted,
    };
    let is_wanted = walk.wanted.is_none();
    let ids = pieces(from, root)?;
    walk.push(None, ids, is_wanted, Place::Above);
    walk.run()?;
    Ok(walk.done)
}

/// The ids of a tree's pieces.
fn pieces(from: Fetcher<'_>, tree: &Content) -> Result<VecDeque<ChunkId>, ChunkError> {
    let mut ids = VecDeque::new();
    from.each_window(tree, |window| {
        ids.extend(window);
        if ids.len() > MAX_PIECES {
            return Err(ChunkError::List("its tree is too long"));
        }
        Ok(())
    })?;
    Ok(ids)
}

impl Level {
    fn next_node(&mut self, from: Fetcher<'_>) -> Result<Option<Node>, RestoreError> {
        let Some(reader) = &mut self.reader else {
            return Ok(None);
        };
        loop {
            if let Some(node) = reader.next_node()? {
                return Ok(Some(node));
            }
            let Some(id) = self.ids.pop_front() else {
                break;
            };
            reader.feed(&from.one(id)?);
        }
        self.reader.take().map_or(Ok(()), TreeReader::finish)?;
        Ok(None)
    }
}

impl Walk<'_, '_> {
    fn push(&mut self, node: Option<Node>, ids: VecDeque<ChunkId>, is_wanted: bool, place: Place) {
        self.levels.push(Level {
            ids,
            reader: Some(TreeReader::default()),
            node,
            dir: None,
            path_length: self.path.len(),
            is_wanted,
            is_above: place == Place::Above,
            batch: Vec::new(),
            batch_bytes: 0,
        });
    }

    fn run(&mut self) -> Result<(), RestoreError> {
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.path_length);
            match level.next_node(self.from) {
                Ok(Some(node)) => {
                    self.path.push(b'/');
                    self.path.extend_from_slice(&node.name);
                    self.entry(node)?;
                }
                Ok(None) => {
                    self.flush()?;
                    self.leave()?;
                }
                Err(error @ RestoreError::Chunk(ChunkError::Gone(_))) => return Err(error),
                Err(error) => {
                    level.reader = None;
                    let what = format!("its tree: {:#}", anyhow::Error::from(error));
                    self.done.push(&self.path, what);
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, node: Node) -> Result<(), RestoreError> {
        let level = self.levels.last().expect("the walk is in a directory");
        let path = Path::new(OsStr::from_bytes(&self.path));
        let is_directory = node.kind == Kind::Directory;
        let is_match = |wanted: &Gitignore| wanted.matched(path, is_directory).is_ignore();
        let is_wanted = level.is_wanted || self.wanted.as_ref().is_none_or(is_match);
        if is_wanted && let Sink::List(each) = &mut self.sink {
            each(&self.path, &node);
        }
        let place = Place::of(path, self.options.allowed.as_deref());
        if place == Place::Outside || (place == Place::Above && !is_directory) {
            if is_wanted {
                let what = "it is outside of the allowed paths of this host".to_owned();
                self.done.push(&self.path, what);
            }
            return Ok(());
        }
        match node.kind {
            Kind::Directory => return self.enter(node, is_wanted, place),
            Kind::File if is_wanted && self.is_sampled(&node) => {
                self.done.files += 1;
                let level = self.levels.last_mut().expect("the walk is in a directory");
                level.batch_bytes += node.content.as_ref().map_or(0, |content| content.size);
                level.batch.push(node);
                if level.batch.len() >= BATCH_FILES || level.batch_bytes >= BATCH_BYTES {
                    self.path.truncate(level.path_length);
                    self.flush()?;
                }
            }
            Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::Char | Kind::Block if is_wanted => {
                let made = self.special(&node);
                self.settle(made)?;
            }
            Kind::File | Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::Char | Kind::Block => {}
        }
        Ok(())
    }

    fn is_sampled(&self, node: &Node) -> bool {
        let sample = self.options.sample.as_ref();
        sample.is_none_or(|sample| sample.has(&self.path, node))
    }

    /// A file that failed is named; what concerns all ends it.
    pub(super) fn settle(&mut self, made: Result<(), Failed>) -> Result<(), RestoreError> {
        match made {
            Ok(()) => Ok(()),
            Err(Failed::File(what)) => {
                self.done.push(&self.path, what);
                Ok(())
            }
            Err(Failed::All(RestoreError::DiskFull { .. })) => Err(RestoreError::DiskFull {
                path: String::from_utf8_lossy(&self.path).into_owned(),
            }),
            Err(Failed::All(error)) => Err(error),
        }
    }

    fn enter(&mut self, node: Node, is_wanted: bool, place: Place) -> Result<(), RestoreError> {
        if self.levels.len() > MAX_DEPTH {
            let what = format!("deeper than {MAX_DEPTH} directories");
            self.done.push(&self.path, what);
            return Ok(());
        }
        // What waits in this directory is written first, so that no more than one directory's files wait.
        let path = self.path.clone();
        let level = self.levels.last().expect("the walk is in a directory");
        self.path.truncate(level.path_length);
        self.flush()?;
        self.path = path;
        let tree = node.content.clone().unwrap_or_default();
        match pieces(self.from, &tree) {
            Ok(ids) => self.push(Some(node), ids, is_wanted, place),
            Err(error @ ChunkError::Gone(_)) => return Err(error.into()),
            Err(error) => {
                self.done.push(&self.path, format!("its tree: {error}"));
                return Ok(());
            }
        }
        if is_wanted && place == Place::Within {
            let opened = self.open();
            let is_opened = opened.is_ok();
            self.settle(opened)?;
            if !is_opened {
                self.levels.pop();
            }
        }
        Ok(())
    }

    /// Opens, and makes where they are missing, the directories that the walk is in.
    fn open(&mut self) -> Result<(), Failed> {
        let Some(root) = self.sink.root() else {
            return Ok(());
        };
        let is_compared = matches!(self.sink, Sink::Compare(_));
        for at in 1..self.levels.len() {
            let (above, below) = self.levels.split_at_mut(at);
            let level = &mut below[0];
            if level.dir.is_some() {
                continue;
            }
            let node = level.node.as_ref().expect("only the root has none");
            let parent = above.last().and_then(|level| level.dir.as_ref());
            let (parent, name) = (parent.unwrap_or(root), OsStr::from_bytes(&node.name));
            let dir = if is_compared {
                parent.open(name)?
            } else {
                parent.enter(name)?
            };
            if !self.is_root && !level.is_above && !is_compared {
                // Of an earlier run, it may have its mode already; whose it is not, it is written to as far as it can be.
                let _ = rustix::fs::fchmod(&dir.fd, Mode::RWXU);
            }
            level.dir = Some(dir);
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), RestoreError> {
        let level = self.levels.pop().expect("the walk is in a directory");
        let is_written = !level.is_above && matches!(self.sink, Sink::Disk(_));
        if let (Some(dir), Some(node), true) = (&level.dir, &level.node, is_written) {
            let finished = target::finish(dir.as_fd(), node, self.is_root);
            self.settle(finished.map_err(Failed::from))?;
        }
        Ok(())
    }

    /// The directory that the walk is in, where something is to be written.
    pub(super) fn dir(&mut self) -> Result<Option<&Dir>, Failed> {
        self.open()?;
        let Some(root) = self.sink.root() else {
            return Ok(None);
        };
        let level = self.levels.last();
        Ok(Some(
            level.and_then(|level| level.dir.as_ref()).unwrap_or(root),
        ))
    }

    fn special(&mut self, node: &Node) -> Result<(), Failed> {
        let is_device = matches!(node.kind, Kind::Char | Kind::Block);
        let is_root = self.is_root;
        if is_device && !(is_root && self.options.has_devices) {
            if matches!(self.sink, Sink::Disk(_)) {
                self.done.skipped += 1;
            }
            return Ok(());
        }
        let name = OsStr::from_bytes(&node.name);
        if let Sink::Compare(_) = self.sink {
            return match self.dir()? {
                Some(dir) => compare::special(dir, node),
                None => Ok(()),
            };
        }
        if let Some(dir) = self.dir()? {
            dir.special(name, node, is_root)
                .inspect_err(|_| dir.give_up(name))?;
        }
        Ok(())
    }
}

/// The entry of this name in a tree.
pub(super) fn find_entry(
    from: Fetcher<'_>,
    tree: &Content,
    name: &[u8],
) -> Result<Option<Node>, RestoreError> {
    each_entry(from, tree, |node| node.name.as_slice() == name)
}

/// The file of a tree that has no other.
pub(super) fn only_file(from: Fetcher<'_>, tree: &Content) -> Result<Node, RestoreError> {
    let mut count = 0_u64;
    let first = each_entry(from, tree, |node| node.kind == Kind::File)?;
    each_entry(from, tree, |_| {
        count += 1;
        count > 1
    })?;
    first.filter(|_| count == 1).ok_or(RestoreError::WhichFile)
}

fn each_entry(
    from: Fetcher<'_>,
    tree: &Content,
    mut is_it: impl FnMut(&Node) -> bool,
) -> Result<Option<Node>, RestoreError> {
    let mut reader = TreeReader::default();
    for id in pieces(from, tree)? {
        reader.feed(&from.one(id)?);
        while let Some(node) = reader.next_node()? {
            if is_it(&node) {
                return Ok(Some(node));
            }
        }
    }
    reader.finish()?;
    Ok(None)
}
