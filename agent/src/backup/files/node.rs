//! An entry as the file system has it: everything but its content.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use infratrack_shared::backup::{Kind, Node};
use nix::unistd::{Gid, Group, Uid, User};
use rustix::fs::{FileType, Stat, getxattr, lgetxattr, listxattr, llistxattr, major, minor};
use rustix::io::Errno;
use serde_bytes::ByteBuf;

use super::cache::Fingerprint;

/// What the kernel allows for the names of one inode, and for one value.
const XATTR_BYTES: usize = 64 * 1024;
/// Of one entry altogether; some file systems have no limit of their own.
const MAX_XATTRS_BYTES: usize = 1024 * 1024;

/// Names of users and groups, asked for once.
#[derive(Debug, Default)]
pub(super) struct Owners {
    users: HashMap<u32, Option<String>>,
    groups: HashMap<u32, Option<String>>,
}

impl Owners {
    fn user(&mut self, uid: u32) -> Option<String> {
        let ask = || Some(User::from_uid(Uid::from_raw(uid)).ok()??.name);
        self.users.entry(uid).or_insert_with(ask).clone()
    }

    fn group(&mut self, gid: u32) -> Option<String> {
        let ask = || Some(Group::from_gid(Gid::from_raw(gid)).ok()??.name);
        self.groups.entry(gid).or_insert_with(ask).clone()
    }

    /// What `stat` says, and the names for it.
    pub(super) fn node(&mut self, name: &OsStr, kind: Kind, stat: &Stat) -> Node {
        let is_device = matches!(kind, Kind::Char | Kind::Block);
        Node {
            name: ByteBuf::from(name.as_bytes()),
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            user: self.user(stat.st_uid),
            group: self.group(stat.st_gid),
            mtime_s: stat.st_mtime,
            mtime_ns: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            content: None,
            target: None,
            device: is_device.then(|| (major(stat.st_rdev), minor(stat.st_rdev))),
            xattrs: Vec::new(),
            holes: Vec::new(),
            hard_link: None,
            torn: false,
        }
    }
}

pub(super) fn kind(stat: &Stat) -> Option<Kind> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Some(Kind::File),
        FileType::Directory => Some(Kind::Directory),
        FileType::Symlink => Some(Kind::Symlink),
        FileType::Fifo => Some(Kind::Fifo),
        FileType::Socket => Some(Kind::Socket),
        FileType::CharacterDevice => Some(Kind::Char),
        FileType::BlockDevice => Some(Kind::Block),
        FileType::Unknown => None,
    }
}

pub(super) fn fingerprint(stat: &Stat) -> Fingerprint {
    let mut bytes = [0; Fingerprint::BYTES];
    let numbers = [
        stat.st_size.to_be_bytes(),
        stat.st_mtime.to_be_bytes(),
        stat.st_mtime_nsec.to_be_bytes(),
        stat.st_ctime.to_be_bytes(),
        stat.st_ctime_nsec.to_be_bytes(),
        stat.st_ino.to_be_bytes(),
        stat.st_dev.to_be_bytes(),
    ];
    for (at, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        at.copy_from_slice(&number);
    }
    Fingerprint(bytes)
}

/// Whose attributes: of what is open (by any means), or of a name in a directory, which is not followed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whose<'a> {
    Open(BorrowedFd<'a>),
    Named(BorrowedFd<'a>, &'a OsStr),
}

impl Whose<'_> {
    /// Through the kernel's own link to what is open: also where it was opened only to be named.
    fn path(self) -> PathBuf {
        let of = |fd: BorrowedFd<'_>| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        match self {
            Self::Open(fd) => of(fd),
            Self::Named(dir, name) => of(dir).join(name),
        }
    }

    fn list(self, path: &Path, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(_) => listxattr(path, buffer),
            Self::Named(..) => llistxattr(path, buffer),
        }
    }

    fn get(self, path: &Path, name: &[u8], buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Open(_) => getxattr(path, name, buffer),
            Self::Named(..) => lgetxattr(path, name, buffer),
        }
    }

    /// What can be read of them, in the order of their names; and what could not be, for people.
    pub(super) fn xattrs(self, buffer: &mut Vec<u8>) -> (Vec<(ByteBuf, ByteBuf)>, Option<String>) {
        buffer.resize(XATTR_BYTES, 0);
        let path = self.path();
        let listed = match self.list(&path, buffer) {
            Ok(0) | Err(Errno::NOTSUP | Errno::NOENT) => return (Vec::new(), None),
            Ok(length) => buffer[..length].to_vec(),
            Err(error) => return (Vec::new(), Some(format!("extended attributes: {error}"))),
        };
        let (mut xattrs, mut problem, mut total) = (Vec::new(), None, 0);
        for name in listed
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
        {
            let shown = String::from_utf8_lossy(name);
            match self.get(&path, name, buffer) {
                Ok(length) if total + name.len() + length <= MAX_XATTRS_BYTES => {
                    total += name.len() + length;
                    let value = ByteBuf::from(&buffer[..length]);
                    xattrs.push((ByteBuf::from(name), value));
                }
                Ok(_) => problem = Some("more than 1 MiB of extended attributes".to_owned()),
                Err(Errno::NODATA | Errno::NOENT) => {}
                Err(error) => problem = Some(format!("extended attribute {shown}: {error}")),
            }
        }
        xattrs.sort();
        (xattrs, problem)
    }
}
