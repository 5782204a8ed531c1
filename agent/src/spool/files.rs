//! The spool's directory: `lock`, `watermark` (the ledger), `opening` (how often in a row opening
//! did not come to its end), `reserve` (1 MiB to give back when the disk is full), one
//! `gen-<number>` with sled's files, and after damage one `spool.bad-<unix seconds>`.
//!
//! A file that is replaced is whole at any moment: written beside, synced, renamed, directory synced.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::ledger::Ledger;

const WATERMARK: &str = "watermark";
const OPENING: &str = "opening";
const RESERVE: &str = "reserve";
const RESERVE_BYTES: usize = 1024 * 1024;
/// What may be left of a damaged spool.
const BAD_BYTES: u64 = 64 * 1024 * 1024;

pub(super) fn generation_dir(root: &Path, generation: u64) -> PathBuf {
    root.join(format!("gen-{generation:06}"))
}

/// The generations that have a directory, ascending.
pub(super) fn generations(root: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("gen-"));
        found.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

pub(super) fn create_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Replaces `root/name` so that it is the old or the new file at any moment.
pub(super) fn replace(root: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let beside = root.join(format!("{name}.tmp"));
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, root.join(name))?;
    sync_dir(root)
}

pub(super) fn store_ledger(root: &Path, ledger: &Ledger) -> io::Result<()> {
    replace(root, WATERMARK, &ledger.encode())
}

/// The ledger of the watermark file, where that is whole.
pub(super) fn load_ledger(root: &Path) -> Option<Ledger> {
    Ledger::decode(&fs::read(root.join(WATERMARK)).ok()?)
}

/// No spool was ever here.
pub(super) fn is_fresh(root: &Path) -> io::Result<bool> {
    Ok(!root.join(WATERMARK).exists() && generations(root)?.is_empty())
}

/// Counts this attempt to open; answers how many before it did not come to their end.
pub(super) fn begin_opening(root: &Path) -> io::Result<u32> {
    let before = fs::read(root.join(OPENING)).ok();
    let before = before.map_or(0, |bytes| {
        String::from_utf8(bytes)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(1)
    });
    replace(root, OPENING, format!("{}\n", before + 1).as_bytes())?;
    Ok(before)
}

pub(super) fn end_opening(root: &Path) -> io::Result<()> {
    fs::remove_file(root.join(OPENING))
}

/// Gives the reserve's space back; answers whether there was any.
pub(super) fn release_reserve(root: &Path) -> bool {
    fs::remove_file(root.join(RESERVE)).is_ok()
}

/// Takes the reserve again where it is missing.
pub(super) fn hold_reserve(root: &Path) -> io::Result<()> {
    let path = root.join(RESERVE);
    if path.exists() {
        return Ok(());
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)?;
    // Written, not truncated to size: only real blocks can be given back.
    let held = file.write_all(&vec![0; RESERVE_BYTES]);
    if held.is_err() {
        fs::remove_file(&path)?;
    }
    held
}

/// Moves sled's snapshots out of its way: it replays its log without them.
pub(super) fn drop_snapshots(generation: &Path) -> io::Result<()> {
    for entry in fs::read_dir(generation)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("snap.")) {
            fs::rename(entry.path(), generation.join("aside.snap"))?;
        }
    }
    sync_dir(generation)
}

/// Moves a damaged generation aside, the only one kept, cut to size.
pub(super) fn move_aside(root: &Path, generation: &Path, unix_s: i64) -> io::Result<PathBuf> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("spool.bad-"))
        {
            fs::remove_dir_all(entry.path())?;
        }
    }
    let bad = root.join(format!("spool.bad-{unix_s}"));
    fs::rename(generation, &bad)?;
    sync_dir(root)?;
    let blobs = bad.join("blobs");
    if size_on_disk(&bad) > BAD_BYTES {
        OpenOptions::new()
            .write(true)
            .open(bad.join("db"))
            .and_then(|db| db.set_len(BAD_BYTES / 2))?;
        if size_on_disk(&blobs) > BAD_BYTES / 2 {
            fs::remove_dir_all(&blobs)?;
        }
    }
    Ok(bad)
}

/// Blocks taken by the files in `dir` and its directories. What can't be read counts nothing.
pub(super) fn size_on_disk(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    let mut size = 0;
    for entry in entries.flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size += size_on_disk(&entry.path()),
            Ok(metadata) => size += metadata.blocks() * 512,
            Err(_) => {}
        }
    }
    size
}
