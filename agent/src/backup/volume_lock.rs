//! One run of a volume on this host at a time. The lock is the open file's, so that a run which died holds none.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use infratrack_shared::ids::VolumeId;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Held until it is dropped.
#[derive(Debug)]
pub(super) struct VolumeLock(
    #[expect(dead_code, reason = "what it does is to be open")] Flock<File>,
);

impl VolumeLock {
    /// `None` where another run holds it.
    pub(super) fn take(state_dir: &Path, volume: VolumeId) -> io::Result<Option<Self>> {
        Self::named(state_dir, &volume.to_string())
    }

    /// For the only drill of this host. `None` where another holds it.
    pub(super) fn of_drills(state_dir: &Path) -> io::Result<Option<Self>> {
        Self::named(state_dir, "drills")
    }

    fn named(state_dir: &Path, name: &str) -> io::Result<Option<Self>> {
        let folder = state_dir.join("locks");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join(name))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Self(lock))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_one_run_at_a_time_and_others_have_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let volume = VolumeId::random();
        let held = VolumeLock::take(dir.path(), volume).unwrap();
        assert!(held.is_some());
        assert!(VolumeLock::take(dir.path(), volume).unwrap().is_none());
        let other = VolumeLock::take(dir.path(), VolumeId::random()).unwrap();
        assert!(other.is_some());
        drop(held);
        assert!(VolumeLock::take(dir.path(), volume).unwrap().is_some());
    }
}
