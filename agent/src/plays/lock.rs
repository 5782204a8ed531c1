//! Record locks (`fcntl`), by which plays and those who ship them keep out of each other's way.
//!
//! Ours belong to the open file (`F_OFD_SETLK`), so that they end with it and with nothing else; those of plays, which belong
//! to their process (`F_SETLK`), and ours exclude each other.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use infratrack_shared::time::UnixMillis;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// On a file system without locks a run is over when nothing was written for so long.
const WITHOUT_LOCKS: Duration = Duration::from_secs(24 * 3600);

/// Whether nobody else holds the whole file's lock; then we do, until `file` is closed.
pub(super) fn take(file: &File, now: UnixMillis) -> io::Result<bool> {
    let whole = libc::flock {
        l_type: kind(libc::F_WRLCK),
        l_whence: kind(libc::SEEK_SET),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(_) => {
            let written_ms = file.metadata()?.mtime().saturating_mul(1000);
            let age_ms = now.millis_since(UnixMillis(written_ms));
            Ok(age_ms > i64::try_from(WITHOUT_LOCKS.as_millis()).unwrap_or(i64::MAX))
        }
    }
}

/// The kernel's constants are small.
fn kind(constant: libc::c_int) -> libc::c_short {
    libc::c_short::try_from(constant).unwrap_or_default()
}
