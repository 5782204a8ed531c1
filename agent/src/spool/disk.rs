//! A generation on disk: where it is, whether it is open, and when to try again after an error.
//!
//! sled works in a process of its own where there is a binary for it ([`Apart`]), else in this one. That process is
//! there while the store is used and for a minute after, so an idle agent has none of sled's threads and
//! memory. A store that failed is let go of, and opened again by the first use after a pause.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::apart::Apart;
use super::backend::{Backend, BackendError, Key, Write};
use super::files;
use super::ledger::Ledger;
use super::sled::Store;

const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// What a change costs in sled's log beside its value, roughly.
const WRITE_BYTES: usize = 64;
/// The size on disk is measured again after this much was written.
const MEASURE_BYTES: u64 = 256 * 1024;

/// What every generation of a spool has in common.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) root: PathBuf,
    /// Held for as long as any generation is open.
    pub(super) lock: Arc<File>,
    /// The binary that [`Apart`] runs; see [`super::SpoolConfig`].
    pub(super) program: Option<PathBuf>,
    /// How long a process of its own may be idle.
    pub(super) idle: Duration,
}

/// See the module.
pub(super) struct Disk {
    place: Place,
    dir: PathBuf,
    open: Option<Opened>,
    used_at: Instant,
    failures: u32,
    open_at: Option<Instant>,
    size_bytes: u64,
    unmeasured_bytes: u64,
}

enum Opened {
    Apart(Apart),
    Here(Store),
}

impl Disk {
    /// Opens a generation, or makes one.
    pub(super) fn open(place: &Place, generation: u64) -> Result<Self, BackendError> {
        let dir = files::generation_dir(&place.root, generation);
        let mut disk = Self {
            place: place.clone(),
            size_bytes: 0,
            dir,
            open: None,
            used_at: Instant::now(),
            failures: 0,
            open_at: None,
            unmeasured_bytes: 0,
        };
        disk.open = Some(disk.open_store()?);
        disk.size_bytes = files::size_on_disk(&disk.dir);
        Ok(disk)
    }

    fn open_store(&self) -> Result<Opened, BackendError> {
        if let Some(program) = &self.place.program {
            match Apart::start(program, &self.dir, &self.place.lock) {
                Ok(opened) => return opened.map(Opened::Apart),
                Err(error) => {
                    tracing::warn!(%error, "spool: its store has no process of its own");
                }
            }
        }
        Store::open(&self.dir).map(Opened::Here)
    }

    fn with<T>(
        &mut self,
        work: impl FnOnce(&mut Opened) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        self.used_at = Instant::now();
        if self.open.is_none() {
            if self.open_at.is_some_and(|at| Instant::now() < at) {
                return Err(BackendError::Pausing);
            }
            match self.open_store() {
                Ok(open) => self.open = Some(open),
                Err(error) => return Err(self.failed(error)),
            }
        }
        let Some(open) = &mut self.open else {
            return Err(BackendError::Pausing);
        };
        work(open)
    }

    /// Lets go of the store until a pause is over, and of the reserve where the disk is full.
    fn failed(&mut self, error: BackendError) -> BackendError {
        if matches!(error, BackendError::Pausing) {
            return error;
        }
        if matches!(error, BackendError::Full) && files::release_reserve(&self.place.root) {
            tracing::warn!("spool: the disk is full, its reserve is given back");
        }
        self.close();
        let pause = PAUSE_MAX.min(PAUSE_MIN * 2_u32.saturating_pow(self.failures.min(6)));
        let pause = pause.mul_f64(rand::random_range(0.5..=1.0));
        self.failures = self.failures.saturating_add(1);
        self.open_at = Some(Instant::now() + pause);
        error
    }

    fn close(&mut self) {
        match self.open.take() {
            Some(Opened::Here(store)) => store.close(),
            Some(Opened::Apart(apart)) => drop(apart),
            None => {}
        }
    }
}

impl Backend for Disk {
    fn get(&mut self, key: &Key) -> Result<Option<Bytes>, BackendError> {
        let got = self.with(|open| match open {
            Opened::Apart(apart) => apart.get(key),
            Opened::Here(store) => store.get(key),
        });
        match got {
            Err(BackendError::Damaged(_)) | Ok(_) => got,
            Err(error) => Err(self.failed(error)),
        }
    }

    fn apply(
        &mut self,
        mut writes: Vec<Write>,
        ledger: Option<&Ledger>,
    ) -> Result<(), BackendError> {
        writes.extend(ledger.map(|ledger| (Key::ledger(), Some(ledger.encode().into()))));
        let values = writes.iter().filter_map(|(_, value)| value.as_deref());
        let bytes = values.map(<[u8]>::len).sum::<usize>();
        self.unmeasured_bytes += (bytes + writes.len() * WRITE_BYTES) as u64;
        self.with(|open| match open {
            Opened::Apart(apart) => apart.apply(writes),
            Opened::Here(store) => store.apply(&writes),
        })
        .map_err(|error| self.failed(error))
    }

    fn sync(&mut self) -> Result<(), BackendError> {
        self.with(|open| match open {
            Opened::Apart(apart) => apart.sync(),
            Opened::Here(store) => store.sync(),
        })
        .map_err(|error| self.failed(error))?;
        if self.failures > 0 {
            self.failures = 0;
            if let Err(error) = files::hold_reserve(&self.place.root) {
                tracing::warn!(%error, "spool: its reserve can't be taken again");
            }
        }
        Ok(())
    }

    fn store_ledger(&mut self, ledger: &Ledger) -> Result<(), BackendError> {
        files::store_ledger(&self.place.root, ledger).map_err(|source| {
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

    fn rest(&mut self) {
        let is_idle = self.used_at.elapsed() >= self.place.idle;
        if let Some(Opened::Apart(apart)) = &mut self.open
            && is_idle
        {
            // What is not on the disk yet is not to depend on how that process ends.
            match apart.sync() {
                Ok(()) => self.close(),
                Err(error) => {
                    let error = self.failed(error);
                    tracing::warn!(%error, "spool: its store could not be closed in order");
                }
            }
        }
    }

    fn fresh(&mut self, generation: u64) -> Result<Box<dyn Backend>, BackendError> {
        let dir = files::generation_dir(&self.place.root, generation);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(BackendError::io("remove a directory of its own", error));
            }
            _ => {}
        }
        Ok(Box::new(Self::open(&self.place, generation)?))
    }

    fn discard(mut self: Box<Self>) {
        self.close();
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(%error, "spool: an old generation can't be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_opened_again_by_a_sync_is_the_same_store() {
        let root = tempfile::tempdir().unwrap();
        let place = Place {
            root: root.path().to_owned(),
            lock: Arc::new(File::create(root.path().join("lock")).unwrap()),
            program: None,
            idle: Duration::MAX,
        };
        let mut disk = Disk::open(&place, 1).unwrap();
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
