//! What is written, below one open directory and by single names, so that no symlink leads elsewhere. A file is written beside,
//! under a name of its own, and gets its name when all of it is there.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use infratrack_shared::backup::{ChunkId, Chunker, Kind, Node, Sizes, VolumeKey};
use rustix::fs::{
    AtFlags, FallocateFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags, chownat, fallocate, fchmod, fchown, fstat, ftruncate, futimens, linkat, lsetxattr,
    makedev, mkdirat, mknodat, openat, renameat, setxattr, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::backup::cut::Cutter;

const READ_BYTES: usize = 256 * 1024;

/// A directory of the target.
#[derive(Debug)]
pub(super) struct Dir {
    pub(super) fd: OwnedFd,
}

/// The name under which an entry is made; the same again, so that a run that died leaves nothing for good.
fn beside(name: &OsStr) -> String {
    let hash = blake3::hash(name.as_bytes());
    format!(".infratrack-restore.{}", &hash.to_hex()[..32])
}

impl Dir {
    /// The directory of this name, made where it is missing. Anything else of that name stays, and is an error.
    pub(super) fn enter(&self, name: &OsStr) -> Result<Self, Errno> {
        match mkdirat(&self.fd, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        self.open(name)
    }

    pub(super) fn open(&self, name: &OsStr) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.fd, name, flags, Mode::empty()).map(|fd| Self { fd })
    }

    /// An empty file beside.
    pub(super) fn create(&self, name: &OsStr, node: &Node) -> Result<Writing, Errno> {
        let temporary = beside(name);
        self.remove(&temporary)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.fd, &temporary, flags, Mode::RUSR | Mode::WUSR)?;
        let size = node.content.as_ref().map_or(0, |content| content.size);
        if size > 0 && node.holes.is_empty() {
            match fallocate(&fd, FallocateFlags::empty(), 0, size) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(errno) => {
                    self.remove(&temporary)?;
                    return Err(errno);
                }
            }
        }
        Ok(Writing {
            file: File::from(fd),
            at: 0,
            size,
            holes: node.holes.clone().into(),
        })
    }

    /// Nothing is left of what was made beside.
    pub(super) fn give_up(&self, name: &OsStr) {
        // The next run removes it too.
        let _ = self.remove(&beside(name));
    }

    fn remove(&self, name: &str) -> Result<(), Errno> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// What was made beside gets its name.
    pub(super) fn put(&self, name: &OsStr) -> Result<(), Errno> {
        let temporary = beside(name);
        renameat(&self.fd, &temporary, &self.fd, name)?;
        // Two names of one inode stay where they are.
        self.remove(&temporary)
    }

    /// Another name for what is at `name_there` in `there`.
    pub(super) fn link(&self, name: &OsStr, there: &Self, name_there: &OsStr) -> Result<(), Errno> {
        let temporary = beside(name);
        self.remove(&temporary)?;
        linkat(
            &there.fd,
            name_there,
            &self.fd,
            &temporary,
            AtFlags::empty(),
        )?;
        self.put(name)
    }

    /// A symlink, fifo, socket or device with all that belongs to it.
    pub(super) fn special(&self, name: &OsStr, node: &Node, is_root: bool) -> Result<(), Errno> {
        let temporary = beside(name);
        self.remove(&temporary)?;
        let (major, minor) = node.device.unwrap_or_default();
        let make = |kind| {
            let mode = Mode::from_raw_mode(node.mode);
            mknodat(&self.fd, &temporary, kind, mode, makedev(major, minor))
        };
        match node.kind {
            Kind::Symlink => {
                let target = node.target.as_ref().ok_or(Errno::INVAL)?;
                symlinkat(OsStr::from_bytes(target), &self.fd, &temporary)?;
            }
            Kind::Fifo => make(FileType::Fifo)?,
            Kind::Socket => make(FileType::Socket)?,
            Kind::Char => make(FileType::CharacterDevice)?,
            Kind::Block => make(FileType::BlockDevice)?,
            Kind::File | Kind::Directory => return Err(Errno::INVAL),
        }
        if is_root {
            let (uid, gid) = owner(node);
            chownat(&self.fd, &temporary, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if node.kind != Kind::Symlink {
            let mode = Mode::from_raw_mode(node.mode);
            rustix::fs::chmodat(&self.fd, &temporary, mode, AtFlags::empty())?;
        }
        let path = format!("/proc/self/fd/{}/{temporary}", self.fd.as_raw_fd());
        for (key, value) in settable(node, is_root) {
            lsetxattr(&path, key, value, XattrFlags::empty())?;
        }
        let times = times(node);
        utimensat(&self.fd, &temporary, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        self.put(name)
    }

    /// Whether the file of this name has the size and time of `node`; it is then open.
    pub(super) fn existing(&self, name: &OsStr, node: &Node) -> Option<File> {
        let stat = statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let is_alike = |stat: &Stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                && u64::try_from(stat.st_size).ok() == node.content.as_ref().map(|c| c.size)
                && stat.st_mtime == node.mtime_s
                && u32::try_from(stat.st_mtime_nsec).ok() == Some(node.mtime_ns)
        };
        if !is_alike(&stat) {
            return None;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = openat(&self.fd, name, flags, Mode::empty()).ok()?;
        is_alike(&fstat(&fd).ok()?).then(|| File::from(fd))
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) file: File,
    at: u64,
    size: u64,
    holes: std::collections::VecDeque<(u64, u64)>,
}

impl Writing {
    /// The next of its data: `false` where it has no room for that.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> std::io::Result<bool> {
        while !bytes.is_empty() {
            self.pass_hole();
            let end = self.holes.front().map_or(self.size, |(offset, _)| *offset);
            let room = usize::try_from(end - self.at).unwrap_or(usize::MAX);
            let Some((now, rest)) = bytes.split_at_checked(room.min(bytes.len())) else {
                return Ok(false);
            };
            if now.is_empty() {
                return Ok(false);
            }
            self.file.write_all_at(now, self.at)?;
            self.at += now.len() as u64;
            bytes = rest;
        }
        Ok(true)
    }

    fn pass_hole(&mut self) {
        while let Some((offset, length)) = self.holes.front().copied() {
            if offset != self.at {
                break;
            }
            self.at += length;
            self.holes.pop_front();
        }
    }

    /// Whether all that belongs to it was there.
    pub(super) fn finish(&mut self) -> Result<bool, Errno> {
        self.pass_hole();
        ftruncate(&self.file, self.size)?;
        Ok(self.at == self.size)
    }
}

/// Owner, attributes, mode and time of what is open, in the order in which one does not undo the other.
pub(super) fn finish(fd: BorrowedFd<'_>, node: &Node, is_root: bool) -> Result<(), Errno> {
    if is_root {
        let (uid, gid) = owner(node);
        fchown(fd, uid, gid)?;
    }
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let mut problem = Ok(());
    for (key, value) in settable(node, is_root) {
        problem = problem.and(setxattr(&path, key, value, XattrFlags::empty()));
    }
    fchmod(fd, Mode::from_raw_mode(node.mode))?;
    futimens(fd, &times(node))?;
    problem
}

/// Some name spaces are root's.
fn settable(node: &Node, is_root: bool) -> impl Iterator<Item = (&OsStr, &[u8])> {
    let all = node.xattrs.iter();
    all.filter(move |(key, _)| {
        is_root || key.starts_with(b"user.") || key.starts_with(b"system.posix_acl_")
    })
    .map(|(key, value)| (OsStr::from_bytes(key), value.as_slice()))
}

fn owner(node: &Node) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)))
}

fn times(node: &Node) -> Timestamps {
    let time = Timespec {
        tv_sec: node.mtime_s,
        tv_nsec: node.mtime_ns.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Whether an open file has the content of these chunks: cut as it would be today.
pub(super) fn has_chunks(file: &File, node: &Node, ids: &[ChunkId], key: &VolumeKey) -> bool {
    let is_same = |sizes| {
        let chunker = Chunker::new(key, sizes);
        has_chunks_of(file, node, ids, key, &chunker).unwrap_or(false)
    };
    is_same(Sizes::USUAL) || is_same(Sizes::DATABASE)
}

fn has_chunks_of(
    file: &File,
    node: &Node,
    ids: &[ChunkId],
    key: &VolumeKey,
    chunker: &Chunker,
) -> std::io::Result<bool> {
    let size = node.content.as_ref().map_or(0, |content| content.size);
    let (mut cutter, mut buffer) = (Cutter::default(), vec![0; READ_BYTES]);
    let mut ids = ids.iter();
    let mut at = 0;
    let ends = node.holes.iter().copied().chain([(size, 0)]);
    for (end, hole) in ends {
        while at < end {
            let want = usize::try_from(end - at).map_or(READ_BYTES, |left| left.min(READ_BYTES));
            file.read_exact_at(&mut buffer[..want], at)?;
            at += want as u64;
            cutter.feed(&buffer[..want]);
            while let Some(plain) = cutter.next_chunk(chunker, false) {
                if ids.next() != Some(&key.chunk_id(plain)) {
                    return Ok(false);
                }
            }
        }
        at += hole;
    }
    while let Some(plain) = cutter.next_chunk(chunker, true) {
        if ids.next() != Some(&key.chunk_id(plain)) {
            return Ok(false);
        }
    }
    Ok(ids.next().is_none())
}

/// The directory that a restore goes into.
pub(super) fn open_root(path: &std::path::Path) -> Result<Dir, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(rustix::fs::CWD, path, flags, Mode::empty()).map(|fd| Dir { fd })
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
