//! `RUN.acked`: up to where the collector has the run, and up to where it may have got it.
//!
//! Written before each request and after its answer, whole or not at all. Where it is missing or damaged everything is sent
//! again, and the collector passes over what it has. Who shortens runs reads it too, so in a group's folder the group may.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

/// Two numbers.
const BYTES: u64 = 64;

/// How far a run was sent and acknowledged, where that is known.
pub(super) fn read(path: &Path) -> Option<(u64, u64)> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .ok()?;
    let mut text = String::new();
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    file.take(BYTES).read_to_string(&mut text).ok()?;
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    let (acked, sent) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    numbers.next().is_none().then_some((acked, sent))
}

/// Remembers it.
pub(super) fn write(path: &Path, acked: u64, sent: u64, is_shared: bool) -> io::Result<()> {
    let part = path.with_extension("acked.part");
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // Never through a link that somebody else laid there.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)?;
    if is_shared {
        file.set_permissions(Permissions::from_mode(0o640))?;
    }
    file.write_all(format!("{acked} {sent}\n").as_bytes())?;
    drop(file);
    fs::rename(&part, path)
}
