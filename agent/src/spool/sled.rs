//! The only file that knows sled 0.34: one directory of its files, opened, read, changed and synced.
//!
//! Measured there: `flush` is no fsync, so [`Store::sync`] adds it, and [`order`] has every write of
//! sled's own followed by one; a value of a kilobyte may end in a
//! file of its own that sled never syncs, so there are none (see [`pieces`]); a write error sticks to
//! the handle, so [`super::disk`] drops it and opens again; a damaged file can panic, so every call
//! is caught; seven threads, once started, stay for the life of the process and wake every second, so
//! an agent has the store in a process that ends when it is idle (see [`super::apart`]).

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{io, thread};

use ::sled::{Batch, Db, Error, Mode};
use bytes::Bytes;

use super::backend::{BackendError, Key, Write};
use super::files;
use super::order;
use super::pieces::{self, Head};

/// Fixed for the life of a file: sled refuses to open one with another.
const SEGMENT_BYTES: usize = 64 * 1024;
const CACHE_BYTES: u64 = 1024 * 1024;
/// How long sled's threads may take to let go of a file.
const LOCKED: Duration = Duration::from_secs(5);

/// How a file shows that it is shorter than its own index, or a blob that it is gone.
const DAMAGE: [io::ErrorKind; 4] = [
    io::ErrorKind::UnexpectedEof,
    io::ErrorKind::InvalidData,
    io::ErrorKind::InvalidInput,
    io::ErrorKind::NotFound,
];

/// See the module.
pub(super) struct Store {
    db: Db,
    /// A second descriptor of sled's file, to sync it.
    data: File,
}

impl Store {
    /// Opens a generation's directory, or makes it.
    pub(super) fn open(dir: &Path) -> Result<Self, BackendError> {
        let io = |source| BackendError::io("open its directory", source);
        files::create_dir(dir).map_err(io)?;
        let db = open_db(dir)?;
        let data = File::open(dir.join("db")).map_err(io)?;
        // sled syncs neither its settings nor any directory, and a copy is not synced at all.
        files::sync_all(dir).map_err(io)?;
        if let Some(root) = dir.parent() {
            files::sync(root).map_err(io)?;
        }
        Ok(Self { db, data })
    }

    pub(super) fn get(&self, key: &Key) -> Result<Option<Bytes>, BackendError> {
        order::keep();
        caught(|| get(&self.db, key))
    }

    /// All or nothing.
    pub(super) fn apply(&self, writes: &[Write]) -> Result<(), BackendError> {
        order::keep();
        caught(|| {
            let mut batch = Batch::default();
            for (key, value) in writes {
                self.write(&mut batch, key, value.as_deref())?;
            }
            let applied = self.db.apply_batch(batch);
            applied.map_err(|error| convert("write", error))
        })
    }

    pub(super) fn sync(&self) -> Result<(), BackendError> {
        order::keep();
        caught(|| {
            self.db.flush().map_err(|error| convert("flush", error))?;
            if cfg!(feature = "mutant-no-fdatasync") {
                return Ok(());
            }
            self.data
                .sync_data()
                .map_err(|source| BackendError::io("sync", source))
        })
    }

    /// Lets go of the files, which may panic too.
    pub(super) fn close(self) {
        let _ = caught(move || {
            drop(self);
            Ok(())
        });
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
