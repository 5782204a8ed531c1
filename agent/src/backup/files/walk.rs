//! The walk: directories are open on a stack, each with the rest of its names and the tree in the making. What is in memory
//! grows with depth and with the largest directory, and not with the number of files.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use ignore::gitignore::Gitignore;
use infratrack_shared::backup::{Content, Kind, Node, PackKind};
use infratrack_shared::codec::{Limits, decode};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;
use serde_bytes::ByteBuf;

use super::cache::{Cache, Fingerprint, Record, Row};
use super::links::Links;
use super::names::Names;
use super::node::{Owners, Whose, fingerprint, kind};
use super::paths::Selected;
use super::read::{Failed, FileReader, Into, open};
use super::{CHANGED, Errors, FilesError, Sources, Walked};
use crate::backup::chunks::{Chunks, Stopped};
use crate::backup::cut::{Cutter, Ids};

/// Directories in one another: each has a file descriptor.
pub(super) const MAX_DEPTH: usize = 512;
/// Entries between two looks at whether the run may go on.
const ENTRIES: u64 = 256;
/// A file that changed so shortly before can change again without that its times show it.
const SETTLED_MS: i64 = 2_000;
/// Of an entry in the cache: it was made here.
const NODE_LIMITS: Limits = Limits {
    bytes: 4 * 1024 * 1024,
    items: 200_000,
    depth: 8,
    string_bytes: 1024 * 1024,
};

struct Level<'a> {
    fd: OwnedFd,
    /// Its own entry; the root has none.
    node: Option<Node>,
    names: Names,
    tree: Cutter,
    ids: Ids,
    device: u64,
    /// What was asked for by name below.
    selected: Option<&'a Selected>,
    /// All of it is wanted, and not only what was asked for by name.
    is_whole: bool,
    /// Where it ends in the path.
    path_length: usize,
}

struct Walk<'a> {
    sources: &'a Sources<'a>,
    excludes: Gitignore,
    errors: Errors,
    cache: &'a mut Cache,
    chunks: &'a mut dyn Chunks,
    levels: Vec<Level<'a>>,
    path: Vec<u8>,
    owners: Owners,
    links: Links,
    reader: FileReader,
    xattrs: Vec<u8>,
    entries: u64,
    files: u64,
    bytes: u64,
}

pub(super) fn walk<'a>(
    sources: &'a Sources<'a>,
    selected: &'a Selected,
    excludes: Gitignore,
    errors: Errors,
    cache: &'a mut Cache,
    chunks: &'a mut dyn Chunks,
) -> Result<Walked, FilesError> {
    let mut walk = Walk {
        sources,
        excludes,
        errors,
        cache,
        chunks,
        levels: Vec::new(),
        path: Vec::new(),
        owners: Owners::default(),
        links: Links::default(),
        reader: FileReader::default(),
        xattrs: Vec::new(),
        entries: 0,
        files: 0,
        bytes: 0,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, "/", flags, Mode::empty());
    let level = root.and_then(|root| walk.level(root, None, Some(selected), selected.is_whole));
    walk.levels
        .push(level.map_err(|errno| FilesError::Root(errno.into()))?);
    let root = walk.run()?;
    Ok(Walked {
        root,
        files: walk.files,
        bytes: walk.bytes,
        errors: walk.errors.first,
        errors_total: walk.errors.total,
        changed_total: walk.errors.changed,
        opened: walk.reader.opened,
    })
}

impl<'a> Walk<'a> {
    fn run(&mut self) -> Result<Content, FilesError> {
        loop {
            let level = self.levels.last_mut().expect("the root is left last");
            let name = level.names.next_name().map(OsStr::to_os_string);
            self.path.truncate(level.path_length);
            if let Some(name) = name {
                self.entries += 1;
                if self.entries.is_multiple_of(ENTRIES) {
                    self.chunks.go_on()?;
                }
                self.path.push(b'/');
                self.path.extend_from_slice(name.as_bytes());
                self.entry(&name)?;
            } else if let Some(root) = self.leave()? {
                return Ok(root);
            }
        }
    }

    fn here(&self) -> &Level<'a> {
        self.levels.last().expect("the root is left last")
    }

    fn failed(&mut self, what: &str) {
        self.errors.push(&self.path, what);
    }

    fn entry(&mut self, name: &OsString) -> Result<(), FilesError> {
        let level = self.here();
        let selected = level.selected.and_then(|selected| selected.find(name));
        let stat = match statat(&level.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // It was there when the directory was listed, and nobody asked for it by name.
            Err(Errno::NOENT) if selected.is_none() => return Ok(()),
            Err(errno) => {
                self.failed(&errno.to_string());
                return Ok(());
            }
        };
        let Some(kind) = kind(&stat) else {
            self.failed("of no known kind");
            return Ok(());
        };
        let is_directory = kind == Kind::Directory;
        let path = Path::new(OsStr::from_bytes(&self.path));
        if selected.is_none() && self.excludes.matched(path, is_directory).is_ignore() {
            return Ok(());
        }
        match kind {
            Kind::Directory => self.directory(name, &stat, selected),
            Kind::File => self.file(name, &stat),
            Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::Char | Kind::Block => {
                self.special(name, kind, &stat, selected.is_some())
            }
        }
    }

    fn special(
        &mut self,
        name: &OsStr,
        kind: Kind,
        stat: &Stat,
        is_asked_for: bool,
    ) -> Result<(), FilesError> {
        let mut node = self.owners.node(name, kind, stat);
        let level = self.levels.last().expect("the root is left last");
        if kind == Kind::Symlink {
            match readlinkat(&level.fd, name, Vec::new()) {
                Ok(target) => node.target = Some(ByteBuf::from(target.into_bytes())),
                Err(Errno::NOENT | Errno::INVAL) => return Ok(()),
                Err(errno) => {
                    self.failed(&errno.to_string());
                    return Ok(());
                }
            }
        }
        let whose = Whose::Named(level.fd.as_fd(), name);
        let (xattrs, problem) = whose.xattrs(&mut self.xattrs);
        node.xattrs = xattrs;
        if stat.st_nlink > 1 {
            node.hard_link = Some(self.links.number(stat));
        }
        if kind == Kind::Symlink && is_asked_for {
            self.failed("it is a symlink: what it leads to is not in the snapshot");
        }
        if let Some(problem) = problem {
            self.failed(&problem);
        }
        self.append(&node)
    }

    fn directory(
        &mut self,
        name: &OsStr,
        stat: &Stat,
        selected: Option<&'a Selected>,
    ) -> Result<(), FilesError> {
        let mut node = self.owners.node(name, Kind::Directory, stat);
        let is_mount = stat.st_dev != self.here().device;
        let is_foreign = is_mount && !self.sources.files.crosses_file_systems && selected.is_none();
        let is_whole = self.here().is_whole || selected.is_some_and(|selected| selected.is_whole);
        let opened = if self.levels.len() > MAX_DEPTH {
            Err(format!("deeper than {MAX_DEPTH} directories"))
        } else {
            // What only leads to a path need not be readable.
            let flags = if is_whole && !is_foreign {
                OFlags::DIRECTORY
            } else {
                OFlags::DIRECTORY | OFlags::PATH
            };
            open(self.here().fd.as_fd(), name, flags).map_err(|errno| match errno {
                Errno::NOENT | Errno::NOTDIR | Errno::LOOP if selected.is_none() => String::new(),
                errno => errno.to_string(),
            })
        };
        let opened = opened.and_then(|fd| {
            let stat = fstat(&fd).map_err(|errno| errno.to_string())?;
            let whose = Whose::Open(fd.as_fd());
            let (xattrs, problem) = whose.xattrs(&mut self.xattrs);
            node = self.owners.node(name, Kind::Directory, &stat);
            node.xattrs = xattrs;
            Ok((fd, problem))
        });
        let level = opened.and_then(|(fd, problem)| {
            if let Some(problem) = problem {
                self.failed(&problem);
            }
            if is_foreign {
                return Ok(None);
            }
            self.level(fd, Some(node.clone()), selected, is_whole)
                .map(Some)
                .map_err(|errno| errno.to_string())
        });
        match level {
            Ok(Some(level)) => {
                self.cache.enter(name.as_bytes());
                self.levels.push(level);
                return Ok(());
            }
            Ok(None) => {}
            // It is gone.
            Err(error) if error.is_empty() => return Ok(()),
            Err(error) => self.failed(&error),
        }
        node.content = Some(Content::of_chunks(0, &[]));
        self.append(&node)
    }

    fn level(
        &self,
        fd: OwnedFd,
        node: Option<Node>,
        selected: Option<&'a Selected>,
        is_whole: bool,
    ) -> Result<Level<'a>, Errno> {
        let stat = fstat(&fd)?;
        let names = match selected {
            Some(selected) if !is_whole => Names::of(selected.below.keys()),
            Some(_) | None => Names::of_directory(fd.as_fd())?,
        };
        Ok(Level {
            fd,
            node,
            names,
            tree: Cutter::default(),
            ids: Ids::default(),
            device: stat.st_dev,
            selected,
            is_whole,
            path_length: self.path.len(),
        })
    }

    /// Adds an entry to the tree of the directory that the walk is in.
    fn append(&mut self, node: &Node) -> Result<(), FilesError> {
        let bytes = node.encode()?;
        let level = self.levels.last_mut().expect("the root is left last");
        level.ids.grow(bytes.len() as u64);
        level.tree.feed(&bytes);
        self.store_tree(false)?;
        Ok(())
    }

    fn store_tree(&mut self, is_end: bool) -> Result<(), Stopped> {
        let level = self.levels.last_mut().expect("the root is left last");
        while let Some(plain) = level.tree.next_chunk(self.chunks.chunker(), is_end) {
            let hash = *blake3::hash(plain).as_bytes();
            let row = match self.cache.find_piece(&hash) {
                Some(row) => {
                    row.place
                        .into_iter()
                        .for_each(|place| self.chunks.keep(place));
                    row
                }
                None => Row {
                    id: self.chunks.store(PackKind::Trees, plain)?,
                    place: None,
                },
            };
            self.cache.piece(hash, row);
            // Lists of trees this long are not remembered: they are stored, and known to the collector.
            level.ids.push(row.id, self.chunks, &mut |_| ())?;
        }
        Ok(())
    }

    /// The tree of the root, when that is left.
    fn leave(&mut self) -> Result<Option<Content>, FilesError> {
        self.store_tree(true)?;
        let level = self.levels.pop().expect("the root is left last");
        let content = level.ids.finish(self.chunks, &mut |_| ())?;
        let Some(mut node) = level.node else {
            return Ok(Some(content));
        };
        self.cache.leave();
        node.content = Some(content);
        self.append(&node)?;
        Ok(None)
    }

    fn file(&mut self, name: &OsStr, stat: &Stat) -> Result<(), FilesError> {
        let now = fingerprint(stat);
        let is_linked = stat.st_nlink > 1;
        let linked = is_linked.then(|| self.links.find(stat, now)).flatten();
        let known = linked.is_some();
        let node = match linked {
            Some(mut node) => {
                node.name = ByteBuf::from(name.as_bytes());
                Some(node)
            }
            None => self.unchanged(name, stat, now)?,
        };
        let node = if let Some(node) = node {
            let bytes = node.content.as_ref().map_or(0, |content| content.size);
            let meter = self.chunks.meter();
            meter.bytes.fetch_add(bytes, Ordering::Relaxed);
            node
        } else {
            match self.changed(name)? {
                Some(node) => node,
                None => return Ok(()),
            }
        };
        if is_linked && !known && !node.torn {
            self.links.insert(stat, now, &node);
        }
        self.files += 1;
        self.bytes += node.content.as_ref().map_or(0, |content| content.size);
        self.chunks.meter().files.fetch_add(1, Ordering::Relaxed);
        self.append(&node)
    }

    /// The file's entry, where the cache knows it as it is, and where all of its chunks are.
    fn unchanged(
        &mut self,
        name: &OsStr,
        stat: &Stat,
        now: Fingerprint,
    ) -> Result<Option<Node>, FilesError> {
        if self.cache.find(name.as_bytes()) != Some(now) {
            return Ok(None);
        }
        self.cache.begin_file(name.as_bytes(), now);
        loop {
            match self.cache.next_of_file() {
                Some(Record::Chunks(rows)) if rows.iter().all(|row| self.cache.is_trusted(row)) => {
                    let places = rows.iter().filter_map(|row| row.place);
                    places.for_each(|place| self.chunks.keep(place));
                    self.cache.chunks(rows);
                }
                Some(Record::End(Some(bytes))) => {
                    let Ok(mut node) = decode::<Node>(&bytes, &NODE_LIMITS) else {
                        break;
                    };
                    let owner = self.owners.node(name, Kind::File, stat);
                    (node.name, node.user, node.group) = (owner.name, owner.user, owner.group);
                    node.hard_link = (stat.st_nlink > 1).then(|| self.links.number(stat));
                    self.cache.end_file(Some(node.encode()?));
                    return Ok(Some(node));
                }
                Some(_) | None => break,
            }
        }
        self.cache.end_file(None);
        Ok(None)
    }

    fn changed(&mut self, name: &OsStr) -> Result<Option<Node>, FilesError> {
        let level = self.levels.last().expect("the root is left last");
        let clock = &self.sources.clock;
        let begin = |cache: &mut Cache, stat: &Stat| {
            let is_settled = stat.st_ctime * 1000 + 1000 + SETTLED_MS <= clock.now().0;
            let fingerprint = if is_settled {
                fingerprint(stat)
            } else {
                Fingerprint::NONE
            };
            cache.begin_file(name.as_bytes(), fingerprint);
        };
        let mut into = Into {
            chunks: self.chunks,
            cache: self.cache,
        };
        let taken = match self.reader.read(level.fd.as_fd(), name, &begin, &mut into) {
            Ok(taken) => taken,
            Err(Failed::Stopped) => return Err(Stopped.into()),
            Err(Failed::Gone) => return Ok(None),
            Err(Failed::Replaced) => {
                self.failed(CHANGED);
                return Ok(None);
            }
            Err(Failed::Errno(errno)) => {
                self.failed(&errno.to_string());
                return Ok(None);
            }
        };
        let mut node = self.owners.node(name, Kind::File, &taken.stat);
        let whose = Whose::Open(taken.fd.as_fd());
        let (xattrs, problem) = whose.xattrs(&mut self.xattrs);
        node.xattrs = xattrs;
        node.content = Some(taken.content);
        node.holes = taken.holes;
        node.torn = taken.torn;
        if taken.stat.st_nlink > 1 {
            node.hard_link = Some(self.links.number(&taken.stat));
        }
        let is_good = problem.is_none() && !taken.torn;
        self.cache
            .end_file(is_good.then(|| node.encode()).transpose()?);
        if taken.torn {
            self.failed(CHANGED);
        }
        if let Some(problem) = problem {
            self.failed(&problem);
        }
        Ok(Some(node))
    }
}
