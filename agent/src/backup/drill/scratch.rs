//! Where a drill writes: a directory of its own below the backups' state, which is gone when the drill is, also where its process
//! died. A tenth of the file system stays free.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use infratrack_shared::ids::DrillId;
use rustix::fs::statvfs;

const FOLDER: &str = "drills";
/// What is in memory, and may be written before it is looked again.
const IN_FLIGHT_BYTES: u64 = 128 * 1024 * 1024;

/// One drill's.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// An empty one; whatever another drill left goes first.
    pub(super) fn make(state_dir: &Path, drill: DrillId) -> io::Result<Self> {
        let folder = state_dir.join(FOLDER);
        remove(&folder)?;
        let path = folder.join(drill.to_string());
        // Others pass through to what is theirs, a cluster, and see nothing on the way.
        for path in [&folder, &path] {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o711).create(path)?;
            fs::set_permissions(path, Permissions::from_mode(0o711))?;
        }
        DirBuilder::new().mode(0o700).create(path.join("files"))?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where what is restored goes.
    pub(super) fn files(&self) -> PathBuf {
        self.path.join("files")
    }

    /// What may still be written.
    pub(super) fn room(&self, most: Option<u64>) -> io::Result<u64> {
        let room = free(&self.path)?.saturating_sub(IN_FLIGHT_BYTES);
        Ok(most.map_or(room, |most| room.min(most)))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            let path = self.path.display();
            tracing::warn!(%error, %path, "a drill's scratch is removed by the next");
        }
    }
}

/// Bytes of this file system beyond the tenth that stays free.
pub(super) fn free(path: &Path) -> io::Result<u64> {
    let stat = statvfs(path)?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let all = stat.f_blocks.saturating_mul(stat.f_frsize);
    Ok(free.saturating_sub(all / 10))
}

/// Removes a directory with all that is in it. What is restored may have taken its owner's own rights away.
fn remove(path: &Path) -> io::Result<()> {
    let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        Err(error) if is_gone(&error) => Ok(()),
        done => done,
    }
}

fn open_up(path: &Path) -> io::Result<()> {
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_drill_that_died_left_goes_with_the_next_and_its_own_with_itself() {
        let dir = tempfile::tempdir().unwrap();
        let died = Scratch::make(dir.path(), DrillId::random()).unwrap();
        let left = died.files().join("a/b");
        fs::create_dir_all(&left).unwrap();
        fs::write(left.join("c"), "c").unwrap();
        fs::set_permissions(&left, Permissions::from_mode(0o000)).unwrap();
        let kept = died.path().to_owned();
        std::mem::forget(died);
        let scratch = Scratch::make(dir.path(), DrillId::random()).unwrap();
        assert!(!kept.exists());
        assert!(scratch.room(Some(7)).unwrap() <= 7);
        let mode = fs::metadata(scratch.files()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists());
    }
}
