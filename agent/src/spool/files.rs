//! The spool's directory: `lock`, `watermark` (the ledger), `opening` (how often in a row opening
//! did not come to its end), `reserve` (1 MiB to give back when the disk is full), one
//! `gen-<number>` with sled's files, while opening a `copy` of it, after damage one
//! `spool.bad-<unix seconds>`, after a downgrade a `newer-<unix seconds>`.
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

/// Brings a file, or the names in a directory, to the disk.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Replaces `root/name` so that it is the old or the new file at any moment.
pub(super) fn replace(root: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let beside = root.join(format!("{name}.tmp"));
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, root.join(name))?;
    sync(root)
}

pub(super) fn store_ledger(root: &Path, ledger: &Ledger) -> io::Result<()> {
    replace(root, WATERMARK, &ledger.encode())
}

/// The ledger of the watermark file, where that is whole.
pub(super) fn load_ledger(root: &Path) -> Option<Ledger> {
    Ledger::decode(&fs::read(root.join(WATERMARK)).ok()?)
}

/// The watermark is of a version that this build does not know.
pub(super) fn is_newer(root: &Path) -> bool {
    fs::read(root.join(WATERMARK)).is_ok_and(|bytes| Ledger::is_newer(&bytes))
}

pub(super) fn move_ledger(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from.join(WATERMARK), to.join(WATERMARK))
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

/// Takes the reserve again where it is missing, and where there is room beside it: else it would be given back at
/// once, and taken, and so on.
pub(super) fn hold_reserve(root: &Path) -> io::Result<()> {
    let path = root.join(RESERVE);
    let size = RESERVE_BYTES as u64;
    if fs::metadata(&path).is_ok_and(|held| held.len() == size) {
        return Ok(());
    }
    need_room(root, size + size / 4)?;
    let mut file = File::create(&path)?;
    // Written, not truncated to size: only real blocks can be given back.
    let held = file.write_all(&vec![0; RESERVE_BYTES]);
    if held.is_err() {
        fs::remove_file(&path)?;
    }
    held
}

/// Fails where the disk has less than this.
fn need_room(dir: &Path, bytes: u64) -> io::Result<()> {
    let disk = nix::sys::statvfs::statvfs(dir)?;
    if disk.blocks_available() * disk.fragment_size() < bytes {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

/// What is opened in place of a generation: sled writes as it opens, and destroys what it takes for torn.
fn copy_dir(root: &Path) -> PathBuf {
    root.join("copy")
}

/// Copies a generation. Where the disk has no room for that, it will be opened itself.
pub(super) fn copy_generation(root: &Path, generation: u64) -> io::Result<()> {
    let from = generation_dir(root, generation);
    let to = copy_dir(root);
    forget_copy(root)?;
    // Not to be found out by filling a disk that others write to.
    need_room(root, size_on_disk(&from))?;
    let copied = copy(&from, &to);
    if copied.is_err() {
        forget_copy(root)?;
    }
    copied
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

pub(super) fn forget_copy(root: &Path) -> io::Result<()> {
    match fs::remove_dir_all(copy_dir(root)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The copy of a generation, or where there is none the generation itself.
pub(super) fn working_dir(root: &Path, generation: u64) -> PathBuf {
    let copy = copy_dir(root);
    if copy.exists() {
        copy
    } else {
        generation_dir(root, generation)
    }
}

/// Makes the copy a generation. `None` where there is no copy.
pub(super) fn adopt_copy(root: &Path) -> io::Result<Option<u64>> {
    if !copy_dir(root).exists() {
        return Ok(None);
    }
    let next = generations(root)?.last().map_or(1, |last| last + 1);
    fs::rename(copy_dir(root), generation_dir(root, next))?;
    Ok(Some(next))
}

/// Brings a directory to the disk: names, and what the files hold.
pub(super) fn sync_all(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())?;
        } else {
            sync(&entry.path())?;
        }
    }
    sync(dir)
}

/// Moves what sled derives out of its way: it replays its log without a snapshot, and writes its
/// settings again.
pub(super) fn drop_derived(generation: &Path) -> io::Result<()> {
    for entry in fs::read_dir(generation)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with("snap.") || name == "conf" {
            let kind = name.split('.').next().unwrap_or(name);
            fs::rename(entry.path(), generation.join(format!("aside.{kind}")))?;
        }
    }
    sync(generation)
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
    sync(root)?;
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
