//! A generation on disk: where it is, whether it is open, and when to try again after an error.
//!
//! sled works in a process of its own where there is a binary for it ([`Apart`]), else in this one. That process is
//! there while the store is used and for a minute after, so an idle agent has none of sled's threads and
//! memory. A store that failed is let go of too, and opened again by the first use after a pause.
//!
//! Power lost while sled opens a file can cost what was there, so what is opened again is a copy, and the original
//! goes when a ledger names the copy: [`Disk::awaken`]. Only where the disk has no room for one it is opened itself.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::apart::Apart;
use super::backend::{Awake, Backend, BackendError, Key, Write};
use super::files;
use super::ledger::Ledger;
use super::sled::Store;

const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// What a change costs in sled's log beside its value, roughly.
const WRITE_BYTES: usize = 64;
/// The size on disk is measured again after this much was written.
const MEASURE_BYTES: u64 = 256 * 1024;
/// A larger store stays open: to copy it would cost more than its threads.
const CLOSED_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// What every generation of a spool has in common.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) root: PathBuf,
    /// Held for as long as any generation is open.
    pub(super) lock: Arc<File>,
    /// The binary that [`Apart`] runs; see [`super::SpoolConfig`].
    pub(super) program: Option<PathBuf>,
    /// A store that nobody asked for this long is closed.
    pub(super) idle: Duration,
}

/// See the module.
pub(super) struct Disk {
    place: Place,
    generation: u64,
    dir: PathBuf,
    open: Option<Opened>,
    /// There was no room for a copy: the files themselves may be opened.
    in_place: bool,
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
            generation,
            dir,
            open: None,
            in_place: false,
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
        if self.open.is_none() && self.in_place && !self.is_pausing() {
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

    fn is_pausing(&self) -> bool {
        self.open_at.is_some_and(|at| Instant::now() < at)
    }

    /// Opens a copy. Power lost at any point leaves these files as they are, and the ledger that names them.
    fn open_copy(&self, ledger: &Ledger) -> Result<Awake, BackendError> {
        let io = |source| BackendError::io("copy its files", source);
        let root = &self.place.root;
        files::copy_generation(root, self.generation).map_err(io)?;
        let missing = || io(io::ErrorKind::NotFound.into());
        let generation = files::adopt_copy(root).map_err(io)?.ok_or_else(missing)?;
        let ledger = Ledger {
            generation,
            ..ledger.clone()
        };
        let mut copy = match Self::open(&self.place, generation) {
            Ok(copy) => Box::new(copy),
            Err(error) => {
                remove(&files::generation_dir(root, generation));
                return Err(error);
            }
        };
        copy.failures = self.failures;
        let stored = copy
            .apply(Vec::new(), Some(&ledger))
            .and_then(|()| copy.sync())
            .and_then(|()| copy.store_ledger(&ledger));
        match stored {
            Ok(()) => Ok(Awake {
                store: copy,
                ledger,
            }),
            Err(error) => {
                copy.discard();
                Err(error)
            }
        }
    }

    fn close(&mut self) {
        self.in_place = false;
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
        self.failures = 0;
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

    fn has_reserve(&mut self) -> bool {
        match files::hold_reserve(&self.place.root) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "spool: no reserve on the disk");
                false
            }
        }
    }

    fn rest(&mut self) {
        let in_use = self.used_at.elapsed() < self.place.idle;
        if self.open.is_none() || in_use || self.size_bytes > CLOSED_MAX_BYTES {
            return;
        }
        // What is not on the disk yet is not to depend on how a process ends.
        match self.sync() {
            Ok(()) => self.close(),
            Err(error) => {
                tracing::warn!(%error, "spool: its store could not be closed in order");
            }
        }
    }

    fn awaken(&mut self, ledger: &Ledger) -> Result<Option<Awake>, BackendError> {
        if self.open.is_some() || self.in_place {
            return Ok(None);
        }
        if self.is_pausing() {
            return Err(BackendError::Pausing);
        }
        match self.open_copy(ledger) {
            Ok(awake) => Ok(Some(awake)),
            Err(BackendError::Full) => {
                tracing::warn!("spool: no room for a copy, its files are opened themselves");
                self.in_place = true;
                Ok(None)
            }
            Err(error) => Err(self.failed(error)),
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
        // An error of the ledger's store does not say whether it is stored.
        let named = files::load_ledger(&self.place.root);
        if named.is_none_or(|ledger| ledger.generation != self.generation) {
            remove(&self.dir);
        }
    }
}

fn remove(dir: &Path) {
    if let Err(error) = fs::remove_dir_all(dir) {
        tracing::warn!(%error, "spool: an old generation can't be removed");
    }
}

#[cfg(test)]
mod tests {
    use infratrack_shared::ids::StreamId;
    use infratrack_shared::time::UnixMillis;

    use super::*;

    fn place(root: &Path) -> Place {
        Place {
            root: root.to_owned(),
            lock: Arc::new(File::create(root.join("lock")).unwrap()),
            program: None,
            idle: Duration::MAX,
        }
    }

    fn closed(root: &Path) -> (Disk, Ledger, Key) {
        let place = place(root);
        let ledger = Ledger::new(StreamId::at(UnixMillis(0)));
        let mut disk = Disk::open(&place, ledger.generation).unwrap();
        let key = Key::value("kept");
        let kept = Bytes::from_static(b"kept");
        disk.apply(vec![(key.clone(), Some(kept))], Some(&ledger))
            .unwrap();
        disk.sync().unwrap();
        disk.store_ledger(&ledger).unwrap();
        disk.failed(BackendError::Damaged("on purpose".to_owned()));
        (disk, ledger, key)
    }

    fn content(dir: &Path) -> Vec<u8> {
        fs::read(dir.join("db")).unwrap()
    }

    #[test]
    fn a_closed_store_is_opened_as_a_copy_and_stays_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let (mut disk, ledger, key) = closed(root.path());
        let before = content(&disk.dir);
        assert!(matches!(disk.awaken(&ledger), Err(BackendError::Pausing)));
        disk.open_at = None;
        // No use opens it in passing.
        assert!(matches!(disk.sync(), Err(BackendError::Pausing)));
        let mut awake = disk.awaken(&ledger).unwrap().unwrap();
        assert_eq!(awake.store.get(&key).unwrap().unwrap(), "kept");
        assert_eq!(awake.ledger.generation, ledger.generation + 1);
        assert_eq!(files::load_ledger(root.path()), Some(awake.ledger));
        assert_eq!(content(&disk.dir), before);
        Box::new(disk).discard();
        assert_eq!(files::generations(root.path()).unwrap(), [2]);
    }

    #[test]
    fn a_large_store_stays_open() {
        let root = tempfile::tempdir().unwrap();
        let place = Place {
            idle: Duration::ZERO,
            ..place(root.path())
        };
        let mut disk = Disk::open(&place, 1).unwrap();
        let value = Bytes::from(vec![7; 64 * 1024]);
        let enough = CLOSED_MAX_BYTES / value.len() as u64 + 1;
        for number in 0..enough {
            let key = Key::value(&number.to_string());
            disk.apply(vec![(key, Some(value.clone()))], None).unwrap();
        }
        disk.size_bytes();
        disk.rest();
        assert!(disk.open.is_some());
        disk.size_bytes = CLOSED_MAX_BYTES;
        disk.rest();
        assert!(disk.open.is_none());
    }

    #[test]
    fn a_store_that_the_ledger_names_is_not_deleted() {
        let root = tempfile::tempdir().unwrap();
        let (disk, ledger, _) = closed(root.path());
        Box::new(disk).discard();
        let left = files::generations(root.path()).unwrap();
        assert_eq!(left, [ledger.generation]);
    }
}
