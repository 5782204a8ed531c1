//! The store on disk, and the only file that knows sled 0.34.
//!
//! Measured there: `flush` is no fsync, so [`Backend::sync`] adds it, for the blob files too, which
//! sled never syncs; a write error sticks to the handle, so it is dropped and opened again after a
//! pause; a damaged file can panic, so every call is caught.

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

use ::sled::{Batch, Db, Error, Mode};
use bytes::Bytes;

use super::backend::{Backend, BackendError, Key, Write};
use super::files;
use super::ledger::Ledger;

/// Fixed for the life of a file: sled refuses to open one with another.
const SEGMENT_BYTES: usize = 64 * 1024;
const CACHE_BYTES: u64 = 1024 * 1024;
/// How often sled's own thread tidies up.
const TIDY_MS: u64 = 1_000;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// How long sled's threads may take to let go of a file.
const LOCKED: Duration = Duration::from_secs(5);
/// What a change costs in sled's log beside its value, roughly.
const WRITE_BYTES: u64 = 64;
/// The size on disk is measured again after this much was written.
const MEASURE_BYTES: u64 = 256 * 1024;

/// How a file shows that it is shorter than its own index, or a blob that it is gone.
const DAMAGE: [io::ErrorKind; 4] = [
    io::ErrorKind::UnexpectedEof,
    io::ErrorKind::InvalidData,
    io::ErrorKind::InvalidInput,
    io::ErrorKind::NotFound,
];

/// See the module.
pub(super) struct Disk {
    root: PathBuf,
    dir: PathBuf,
    /// Held for as long as any generation is open.
    lock: Arc<File>,
    open: Option<Opened>,
    failures: u32,
    open_at: Option<Instant>,
    size_bytes: u64,
    unmeasured_bytes: u64,
}

struct Opened {
    db: Db,
    /// A second descriptor of sled's file, to sync it.
    data: File,
    /// Blobs up to this one are synced; their names count up.
    blobs_synced: i64,
}

impl Disk {
    /// Opens a generation, or makes one.
    pub(super) fn open(
        root: &Path,
        generation: u64,
        lock: Arc<File>,
    ) -> Result<Self, BackendError> {
        let dir = files::generation_dir(root, generation);
        let open = Opened::open(root, &dir)?;
        Ok(Self {
            root: root.to_owned(),
            size_bytes: files::size_on_disk(&dir),
            dir,
            lock,
            open: Some(open),
            failures: 0,
            open_at: None,
            unmeasured_bytes: 0,
        })
    }

    fn with<T>(
        &mut self,
        work: impl FnOnce(&mut Opened) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        if self.open.is_none() {
            if self.open_at.is_some_and(|at| Instant::now() < at) {
                return Err(BackendError::Pausing);
            }
            match Opened::open(&self.root, &self.dir) {
                Ok(open) => self.open = Some(open),
                Err(error) => return Err(self.failed(error)),
            }
        }
        let Some(open) = &mut self.open else {
            return Err(BackendError::Pausing);
        };
        caught(|| work(open))
    }

    /// Lets go of the store until a pause is over, and of the reserve where the disk is full.
    fn failed(&mut self, error: BackendError) -> BackendError {
        if matches!(error, BackendError::Pausing) {
            return error;
        }
        if matches!(error, BackendError::Full) && files::release_reserve(&self.root) {
            tracing::warn!("spool: the disk is full, its reserve is given back");
        }
        let open = self.open.take();
        let _ = caught(move || {
            drop(open);
            Ok(())
        });
        let pause = PAUSE_MAX.min(PAUSE_MIN * 2_u32.saturating_pow(self.failures.min(6)));
        let pause = pause.mul_f64(rand::random_range(0.5..=1.0));
        self.failures = self.failures.saturating_add(1);
        self.open_at = Some(Instant::now() + pause);
        error
    }
}

impl Opened {
    fn open(root: &Path, dir: &Path) -> Result<Self, BackendError> {
        let io = |source| BackendError::io("open its directory", source);
        let made = !dir.exists();
        files::create_dir(dir).map_err(io)?;
        let db = open_db(dir)?;
        let data = File::open(dir.join("db")).map_err(io)?;
        if made {
            data.sync_all().map_err(io)?;
            for path in [&dir.join("blobs"), dir, root] {
                files::sync_dir(path).map_err(io)?;
            }
        }
        Ok(Self {
            db,
            data,
            blobs_synced: i64::MIN,
        })
    }

    fn sync(&mut self, dir: &Path) -> Result<(), BackendError> {
        self.db.flush().map_err(|error| convert("flush", error))?;
        self.sync_blobs(&dir.join("blobs"))
            .map_err(|source| BackendError::io("sync its blobs", source))?;
        self.data
            .sync_data()
            .map_err(|source| BackendError::io("sync", source))
    }

    fn sync_blobs(&mut self, blobs: &Path) -> io::Result<()> {
        let before = self.blobs_synced;
        for entry in fs::read_dir(blobs)? {
            let entry = entry?;
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.parse::<i64>().ok());
            let Some(id) = id.filter(|id| *id > before) else {
                continue;
            };
            match File::open(entry.path()) {
                Ok(blob) => blob.sync_data()?,
                // sled removed it in the meantime: nothing refers to it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            self.blobs_synced = self.blobs_synced.max(id);
        }
        if self.blobs_synced == before {
            return Ok(());
        }
        files::sync_dir(blobs)
    }
}

impl Backend for Disk {
    fn get(&mut self, key: &Key) -> Result<Option<Bytes>, BackendError> {
        let got = self.with(|open| get(&open.db, key));
        match got {
            Err(BackendError::Damaged(_)) | Ok(_) => got,
            Err(error) => Err(self.failed(error)),
        }
    }

    fn apply(&mut self, writes: Vec<Write>, ledger: Option<&Ledger>) -> Result<(), BackendError> {
        let mut batch = Batch::default();
        let mut bytes = 0;
        for (key, value) in writes {
            bytes += WRITE_BYTES;
            match value {
                Some(value) => {
                    bytes += value.len() as u64;
                    batch.insert(key.as_bytes(), value.as_ref());
                }
                None => batch.remove(key.as_bytes()),
            }
        }
        if let Some(ledger) = ledger {
            let ledger = ledger.encode();
            bytes += ledger.len() as u64;
            batch.insert(Key::ledger().as_bytes(), ledger);
        }
        self.unmeasured_bytes += bytes;
        self.with(|open| {
            open.db
                .apply_batch(batch)
                .map_err(|error| convert("write", error))
        })
        .map_err(|error| self.failed(error))
    }

    fn sync(&mut self) -> Result<(), BackendError> {
        let dir = self.dir.clone();
        self.with(|open| open.sync(&dir))
            .map_err(|error| self.failed(error))?;
        if self.failures > 0 {
            self.failures = 0;
            if let Err(error) = files::hold_reserve(&self.root) {
                tracing::warn!(%error, "spool: its reserve can't be taken again");
            }
        }
        Ok(())
    }

    fn store_ledger(&mut self, ledger: &Ledger) -> Result<(), BackendError> {
        files::store_ledger(&self.root, ledger).map_err(|source| {
            let error = BackendError::io("write its watermark", source);
            self.failed(error)
        })
    }

    fn size_bytes(&mut self) -> u64 {
        if self.unmeasured_bytes >= MEASURE_BYTES {
            self.unmeasured_bytes = 0;
            self.size_bytes = files::size_on_disk(&self.dir);
        }
        self.size_bytes
    }

    fn fresh(&mut self, generation: u64) -> Result<Box<dyn Backend>, BackendError> {
        let dir = files::generation_dir(&self.root, generation);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(BackendError::io("remove a directory of its own", error));
            }
            _ => {}
        }
        let fresh = Self::open(&self.root, generation, Arc::clone(&self.lock))?;
        Ok(Box::new(fresh))
    }

    fn discard(mut self: Box<Self>) {
        let open = self.open.take();
        let _ = caught(move || {
            drop(open);
            Ok(())
        });
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(%error, "spool: an old generation can't be removed");
        }
    }
}

/// Opens a directory of sled's. It may panic where a file is damaged: that is an error here.
pub(super) fn open_db(dir: &Path) -> Result<Db, BackendError> {
    let deadline = Instant::now() + LOCKED;
    loop {
        let opened = caught(|| {
            let config = ::sled::Config::new()
                .path(dir)
                .segment_size(SEGMENT_BYTES)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(Some(TIDY_MS))
                .mode(Mode::LowSpace);
            match config.open() {
                Err(error) if is_lock(&error) => Ok(None),
                opened => opened.map(Some).map_err(|error| convert("open", error)),
            }
        })?;
        if let Some(db) = opened {
            return Ok(db);
        }
        if Instant::now() >= deadline {
            let source = io::Error::from(io::ErrorKind::WouldBlock);
            return Err(BackendError::io("lock its file", source));
        }
        thread::park_timeout(Duration::from_millis(10));
    }
}

/// sled's own threads let go of the file a little after the handle is dropped. No other process can
/// hold it: the spool has a lock of its own.
fn is_lock(error: &Error) -> bool {
    matches!(error, Error::Io(source) if source.to_string().starts_with("could not acquire lock"))
}

pub(super) fn get(db: &Db, key: &Key) -> Result<Option<Bytes>, BackendError> {
    let value = db
        .get(key.as_bytes())
        .map_err(|error| convert("read", error))?;
    Ok(value.map(|value| Bytes::copy_from_slice(&value)))
}

/// Runs what may panic over a damaged file.
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T, BackendError>) -> Result<T, BackendError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(BackendError::Damaged("sled panicked".to_owned())))
}

fn convert(doing: &'static str, error: Error) -> BackendError {
    match error {
        Error::Io(source) if DAMAGE.contains(&source.kind()) => {
            BackendError::Damaged(format!("{doing}: {source}"))
        }
        Error::Io(source) => BackendError::io(doing, source),
        Error::CollectionNotFound(_)
        | Error::Unsupported(_)
        | Error::ReportableBug(_)
        | Error::Corruption { .. } => BackendError::Damaged(format!("{doing}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_opened_again_by_a_sync_is_the_same_store() {
        let root = tempfile::tempdir().unwrap();
        let lock = Arc::new(File::create(root.path().join("lock")).unwrap());
        let mut disk = Disk::open(root.path(), 1, lock).unwrap();
        let key = Key::value("kept");
        let kept = Bytes::from_static(b"kept");
        disk.apply(vec![(key.clone(), Some(kept.clone()))], None)
            .unwrap();
        disk.sync().unwrap();
        disk.failed(BackendError::Full);
        assert!(matches!(disk.sync(), Err(BackendError::Pausing)));
        disk.open_at = None;
        disk.sync().unwrap();
        assert_eq!(disk.get(&key).unwrap(), Some(kept));
    }
}
