//! The store on disk, and the only file that knows sled 0.34.
//!
//! Measured there: `flush` is no fsync, so [`Backend::sync`] adds it, and [`order`] has every write of
//! sled's own followed by one; a value of a kilobyte may end in a
//! file of its own that sled never syncs, so there are none (see [`pieces`]); a write error sticks to
//! the handle, so it is dropped and opened again after a pause; a damaged file can panic, so every call
//! is caught.

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
use super::order;
use super::pieces::{self, Head};

/// Fixed for the life of a file: sled refuses to open one with another.
const SEGMENT_BYTES: usize = 64 * 1024;
const CACHE_BYTES: u64 = 1024 * 1024;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// How long sled's threads may take to let go of a file.
const LOCKED: Duration = Duration::from_secs(5);
/// What a change costs in sled's log beside its value, roughly.
const WRITE_BYTES: usize = 64;
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
        order::keep();
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
        files::create_dir(dir).map_err(io)?;
        let db = open_db(dir)?;
        let data = File::open(dir.join("db")).map_err(io)?;
        // sled syncs neither its settings nor any directory, and a copy is not synced at all.
        files::sync_all(dir).map_err(io)?;
        files::sync(root).map_err(io)?;
        Ok(Self { db, data })
    }

    fn sync(&self) -> Result<(), BackendError> {
        self.db.flush().map_err(|error| convert("flush", error))?;
        if cfg!(feature = "mutant-no-fdatasync") {
            return Ok(());
        }
        self.data
            .sync_data()
            .map_err(|source| BackendError::io("sync", source))
    }

    /// Sets or removes a value with all its pieces.
    fn write(
        &self,
        batch: &mut Batch,
        key: &Key,
        value: Option<&[u8]>,
    ) -> Result<(), BackendError> {
        let before = self.db.get(key.as_bytes());
        let before = before.map_err(|error| convert("read", error))?;
        let before = match before.as_deref().and_then(pieces::head) {
            Some(Head::First(further, _)) => further,
            Some(Head::Whole(_)) | None => 0,
        };
        let mut after = 0;
        if let Some(value) = value {
            for (index, piece) in (0..).zip(pieces::split(value)) {
                if index == 0 {
                    batch.insert(key.as_bytes(), piece);
                } else {
                    batch.insert(pieces::key(key, index), piece);
                }
                after = index;
            }
        } else {
            batch.remove(key.as_bytes());
        }
        for index in after + 1..=before {
            batch.remove(pieces::key(key, index));
        }
        Ok(())
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
        let ledger = ledger.map(Ledger::encode);
        let values = writes.iter().filter_map(|(_, value)| value.as_deref());
        let bytes = values.chain(ledger.as_deref()).map(<[u8]>::len);
        self.unmeasured_bytes += (bytes.sum::<usize>() + writes.len() * WRITE_BYTES) as u64;
        self.with(|open| {
            let mut batch = Batch::default();
            for (key, value) in &writes {
                open.write(&mut batch, key, value.as_deref())?;
            }
            if let Some(ledger) = &ledger {
                open.write(&mut batch, &Key::ledger(), Some(ledger))?;
            }
            open.db
                .apply_batch(batch)
                .map_err(|error| convert("write", error))
        })
        .map_err(|error| self.failed(error))
    }

    fn sync(&mut self) -> Result<(), BackendError> {
        self.with(|open| open.sync())
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
    order::keep();
    let deadline = Instant::now() + LOCKED;
    loop {
        let opened = caught(|| {
            let config = ::sled::Config::new()
                .path(dir)
                .segment_size(SEGMENT_BYTES)
                .cache_capacity(CACHE_BYTES)
                // A thread less, which would write in between and wake every second.
                .flush_every_ms(None)
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
    let read = |key: &[u8]| db.get(key).map_err(|error| convert("read", error));
    let Some(stored) = read(key.as_bytes())? else {
        return Ok(None);
    };
    match pieces::head(&stored) {
        Some(Head::Whole(value)) => Ok(Some(Bytes::copy_from_slice(value))),
        Some(Head::First(further, first)) => {
            let mut value = first.to_vec();
            for index in 1..=further {
                let Some(piece) = read(&pieces::key(key, index))? else {
                    return Err(BackendError::Damaged("a piece is missing".to_owned()));
                };
                value.extend_from_slice(&piece);
            }
            Ok(Some(value.into()))
        }
        None => Err(BackendError::Damaged("a value has no head".to_owned())),
    }
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
