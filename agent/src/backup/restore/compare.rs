//! What was restored, read back: each file is cut again and its chunks' ids compared with the snapshot's.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use infratrack_shared::backup::{Content, Kind, Node};
use rustix::fs::{AtFlags, FileType, readlinkat, statat};

use super::target::{self, Dir};
use super::walk::{self, Failed, Sink, Walk};
use super::{Fetcher, Options, RestoreError, Restored};
use crate::backup::chunks::Meter;

/// Compares what is below `target` with the tree; what differs or is missing is in the errors.
pub fn compare(
    from: Fetcher<'_>,
    root: &Content,
    target: &Path,
    options: &Options,
    meter: &Meter,
) -> Result<Restored, RestoreError> {
    let dir = target::open_root(target).map_err(|errno| RestoreError::Target {
        path: target.display().to_string(),
        source: errno.into(),
    })?;
    walk::walk(from, root, Sink::Compare(dir), options, meter)
}

impl Walk<'_, '_> {
    /// A file, of which is known whether its content and time are those of the snapshot.
    pub(super) fn compare_file(&mut self, node: &Node, is_same: bool) -> Result<(), Failed> {
        let name = OsStr::from_bytes(&node.name);
        let mode = self.dir()?.map(|dir| mode(dir, name)).transpose()?;
        if !is_same || mode != Some(node.mode) {
            let what = "it is not as the snapshot has it".to_owned();
            return Err(Failed::File(what));
        }
        self.meter.files.fetch_add(1, Ordering::Relaxed);
        self.done.bytes += node.content.as_ref().map_or(0, |content| content.size);
        self.done.left += 1;
        Ok(())
    }
}

fn mode(dir: &Dir, name: &OsStr) -> Result<u32, Failed> {
    let stat = statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(stat.st_mode & 0o7777)
}

/// Whether a symlink, fifo, socket or device is there as the snapshot has it.
pub(super) fn special(dir: &Dir, node: &Node) -> Result<(), Failed> {
    let name = OsStr::from_bytes(&node.name);
    let stat = statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = match node.kind {
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
        Kind::Char => FileType::CharacterDevice,
        Kind::Block => FileType::BlockDevice,
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
    };
    let mut is_same = FileType::from_raw_mode(stat.st_mode) == kind;
    if is_same && node.kind == Kind::Symlink {
        let target = readlinkat(&dir.fd, name, Vec::new())?;
        is_same = node.target.as_ref().map(|target| target.as_slice()) == Some(target.to_bytes());
    }
    if is_same {
        Ok(())
    } else {
        Err(Failed::File("it is something else".to_owned()))
    }
}
