//! What the agent remembers of a volume's last snapshot, so that files which have not changed are not opened: one file for each
//! volume, streamed in the order of the walk. It is replaced only as a whole, when its snapshot is committed, or by what a run has
//! left that came to no end, when the next one begins. One that is damaged, or of another volume or key, is as none.
//!
//! While a run goes on there are two more, each a [`Log`]: the walk so far, and where chunks lie that the collector has. Of a run
//! that was stopped or killed, only files count whose chunks are all there.

mod log;
pub mod records;

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use infratrack_shared::backup::{KeyId, Refs, Salt};
use infratrack_shared::ids::{SnapshotId, VolumeId};
use uuid::Uuid;

pub use self::log::PlaceLog;
use self::log::{Log, LogReader};
pub(super) use self::records::{Fingerprint, Record, Row};
use self::records::{Reader, TreeHash, wrong};
use crate::backup::chunks::Places;

const MAGIC: &[u8; 8] = b"ITCACHE\x01";
/// Magic, volume, key, snapshot.
const HEAD_BYTES: usize = 8 + 16 + 16 + 16;
const HASH_BYTES: usize = 32;
/// Chunks of a file, from which on it is worth to be noted at once: some 32 MiB of content.
const MANY_CHUNKS: usize = 64;

/// The records of a file, without its head and its end.
type Old = Reader<BufReader<io::Take<File>>>;

/// One volume's, for one run.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
    volume: VolumeId,
    key: KeyId,
    parent: Option<SnapshotId>,
    lost: Refs,
    lost_origins: HashSet<Salt>,
    old: Option<Old>,
    /// `None` where it can't be written: the next run reads everything.
    new: Option<Log>,
    noted: Option<PlaceLog>,
    /// Levels that are open in what is written.
    depth: usize,
    is_in_file: bool,
    /// Chunks that were written since the log was.
    chunks: usize,
}

impl Cache {
    /// Opens what is known in `dir`, which is made where it is missing.
    pub fn open(dir: &Path, volume: VolumeId, key: KeyId) -> Self {
        let path = dir.join(volume.to_string());
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir);
        let mut cache = Self::known(path.clone(), volume, key);
        if let Err(error) = made.and_then(|()| cache.set_aside()) {
            cache.give_up(&error);
            return cache;
        }
        if fs::exists(cache.beside("left")).unwrap_or(false) {
            if let Err(error) = cache.recover() {
                tracing::warn!(cache = %path.display(), %error, "what the last run left is not used");
            }
            cache = Self::known(path, volume, key);
            cache.remove(&["left", "left-places"]);
        }
        if let Err(error) = cache.begin() {
            cache.give_up(&error);
        }
        cache
    }

    /// What the last run knew, to be read.
    fn known(path: PathBuf, volume: VolumeId, key: KeyId) -> Self {
        let mut cache = Self {
            path,
            volume,
            key,
            parent: None,
            lost: Refs::default(),
            lost_origins: HashSet::new(),
            old: None,
            new: None,
            noted: None,
            depth: 0,
            is_in_file: false,
            chunks: 0,
        };
        match cache.open_old() {
            Ok((parent, old)) => (cache.parent, cache.old) = (parent, Some(old)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(cache = %cache.path.display(), %error, "what was known of the volume is not used");
            }
        }
        cache
    }

    /// Begins to write what is known next time.
    fn begin(&mut self) -> io::Result<()> {
        let head = head(self.volume, self.key, None);
        self.new = Some(Log::create(&self.beside("walk"), &head)?);
        let places = Log::create(&self.beside("places"), &head)?;
        self.noted = Some(PlaceLog(places));
        Ok(())
    }

    /// Puts aside what a run left. Where that has been done, whoever took it in was stopped: its own logs are worth nothing.
    fn set_aside(&self) -> io::Result<()> {
        let is_there = |what: &str| fs::exists(self.beside(what));
        if is_there("left")? || !is_there("walk")? {
            return Ok(());
        }
        // What has no places beside it has none.
        match fs::rename(self.beside("places"), self.beside("left-places")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::rename(self.beside("walk"), self.beside("left"))
    }

    /// Takes in what a run left, with what was known of the rest.
    fn recover(&mut self) -> io::Result<()> {
        let head = head(self.volume, self.key, None);
        let mut left = LogReader::open(&self.beside("left"), &head)?;
        let Some(first) = Record::read(&mut left)? else {
            return Ok(());
        };
        let places = log::noted(&self.beside("left-places"), &head)?;
        let mut cache = Self::known(self.path.clone(), self.volume, self.key);
        cache.begin()?;
        cache.replay(first)?;
        while let Some(record) = Record::read(&mut left)? {
            cache.replay(record)?;
        }
        cache.keep(&places)
    }

    /// As the walk had it written.
    fn replay(&mut self, record: Record) -> io::Result<()> {
        let is_in_place = match &record {
            Record::Chunks(_) | Record::End(_) => self.is_in_file,
            Record::Leave => self.depth > 0,
            Record::Enter(_) | Record::Begin(..) | Record::Tree(..) => true,
        };
        if !is_in_place {
            return Err(wrong("a record is out of its place"));
        }
        match record {
            Record::Enter(name) => self.enter(&name),
            Record::Begin(name, fingerprint) => {
                self.find(&name);
                self.begin_file(&name, fingerprint);
            }
            Record::Chunks(rows) => self.chunks(rows),
            Record::End(node) => self.end_file(node),
            Record::Tree(hash, row) => self.piece(hash, row),
            Record::Leave => self.leave(),
        }
        Ok(())
    }

    /// Where it is to be noted which chunks the collector has, while the run goes on.
    pub fn take_noted(&mut self) -> Option<PlaceLog> {
        self.noted.take()
    }

    /// The snapshot that it is of, whose chunks have to stay while the run goes on.
    pub fn parent(&self) -> Option<SnapshotId> {
        self.parent
    }

    /// The collector has lost these chunks: what needs them is read again.
    pub fn distrust(&mut self, lost: Refs) {
        self.lost = lost;
    }

    /// A pack of each of these chunks is gone, and more may have gone with it: what needs any chunk of theirs is read again.
    pub fn distrust_origins(&mut self, gone: &Refs) {
        let origins = gone.origins().map(|(salt, _)| *salt);
        self.lost_origins.extend(origins);
    }

    /// The collector does not have the snapshot.
    pub fn forget(&mut self) {
        (self.old, self.parent) = (None, None);
    }

    /// The snapshot is committed: this is what is known of it.
    pub fn commit(self, snapshot: SnapshotId, places: &Places) -> io::Result<()> {
        self.replace(Some(snapshot), places)
    }

    /// Nothing of it holds: the next run reads everything.
    pub fn discard(mut self) -> io::Result<()> {
        self.new = None;
        self.remove(&["walk", "places"]);
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// There is no snapshot, yet these chunks are stored: what was done, and what was known of the rest.
    pub fn keep(mut self, places: &Places) -> io::Result<()> {
        if self.is_in_file {
            self.end_file(None);
        }
        if let Err(error) = self.copy_rest() {
            self.give_up(&error);
        }
        let parent = self.parent;
        self.replace(parent, places)
    }

    /// Closes what is open, with what the old one has there.
    fn copy_rest(&mut self) -> io::Result<()> {
        let Some(mut old) = self.old.take() else {
            (0..self.depth).for_each(|_| self.write(&Record::Leave));
            return Ok(());
        };
        old.skip_file()?;
        (0..old.absent()).for_each(|_| self.write(&Record::Leave));
        while let Some(record) = old.take()? {
            self.write(&record);
        }
        Ok(())
    }

    fn replace(mut self, parent: Option<SnapshotId>, places: &Places) -> io::Result<()> {
        let Some(walked) = self.new.take() else {
            return Ok(());
        };
        let mut from = walked.into_reader()?;
        let failed = failed(&mut from)?;
        from.rewind()?;
        let new = self.beside("new");
        let mut out = Hashed {
            out: BufWriter::with_capacity(64 * 1024, create(&new)?),
            hasher: blake3::Hasher::new(),
        };
        out.write_all(&head(self.volume, self.key, parent))?;
        let (mut failed, mut files) = (failed.into_iter().peekable(), 0_u64);
        while let Some(mut record) = Record::read(&mut from)? {
            let is_of_failed = match &mut record {
                Record::Begin(..) => {
                    files += 1;
                    failed.peek() == Some(&files)
                }
                Record::Chunks(rows) => {
                    for row in rows {
                        row.find(places);
                    }
                    failed.peek() == Some(&files)
                }
                Record::End(_) => failed.next_if_eq(&files).is_some(),
                Record::Tree(_, row) => {
                    row.find(places);
                    false
                }
                Record::Enter(_) | Record::Leave => false,
            };
            if !is_of_failed {
                record.write(&mut out)?;
            }
        }
        let hash = *out.hasher.finalize().as_bytes();
        out.write_all(&hash)?;
        let file = out
            .out
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        self.remove(&["walk", "places"]);
        Ok(())
    }

    fn remove(&self, which: &[&str]) {
        for what in which {
            // In most cases it is not there any more.
            let _ = fs::remove_file(self.beside(what));
        }
    }

    fn open_old(&self) -> io::Result<(Option<SnapshotId>, Old)> {
        let mut file = File::open(&self.path)?;
        let end = checked(&mut BufReader::with_capacity(64 * 1024, &mut file))?;
        file.seek(SeekFrom::Start(0))?;
        let mut begin = [0; HEAD_BYTES];
        file.read_exact(&mut begin)?;
        let parent = begin.last_chunk().map(|id| Uuid::from_bytes(*id));
        let parent = parent.filter(|id| !id.is_nil()).map(SnapshotId);
        if begin != head(self.volume, self.key, parent) {
            return Err(wrong("it is of another volume or key"));
        }
        let records = file.take(end - HEAD_BYTES as u64);
        let records = BufReader::with_capacity(64 * 1024, records);
        Ok((parent, Reader::new(records)))
    }

    fn beside(&self, what: &str) -> PathBuf {
        self.path.with_added_extension(what)
    }

    pub(super) fn enter(&mut self, name: &[u8]) {
        self.of_old(|old| old.enter(name));
        self.write(&Record::Enter(name.to_vec()));
        self.depth += 1;
    }

    pub(super) fn leave(&mut self) {
        self.of_old(Reader::leave);
        self.write(&Record::Leave);
        self.depth -= 1;
    }

    /// What is known of the file of this name. It is there to be read by [`Self::next_of_file`].
    pub(super) fn find(&mut self, name: &[u8]) -> Option<Fingerprint> {
        self.of_old(|old| old.find(name)).flatten()
    }

    pub(super) fn next_of_file(&mut self) -> Option<Record> {
        self.of_old(Reader::next_of_file)
    }

    /// A place that is known, and not of a lost chunk.
    pub(super) fn is_trusted(&self, row: &Row) -> bool {
        let place = row.place.as_ref();
        place.is_some_and(|(salt, counter)| {
            !self.lost.contains(salt, *counter) && !self.lost_origins.contains(salt)
        })
    }

    pub(super) fn find_piece(&mut self, hash: &TreeHash) -> Option<Row> {
        let found = self.of_old(|old| old.find_piece(hash)).flatten();
        found.filter(|row| self.is_trusted(row))
    }

    pub(super) fn begin_file(&mut self, name: &[u8], fingerprint: Fingerprint) {
        self.write(&Record::Begin(name.to_vec(), fingerprint));
        self.is_in_file = true;
    }

    pub(super) fn chunks(&mut self, rows: Vec<Row>) {
        self.chunks += rows.len();
        self.write(&Record::Chunks(rows));
    }

    pub(super) fn end_file(&mut self, node: Option<Vec<u8>>) {
        self.write(&Record::End(node));
        self.is_in_file = false;
        if self.chunks < MANY_CHUNKS {
            return;
        }
        self.chunks = 0;
        let flushed = self.new.as_mut().map(Log::flush);
        if let Some(Err(error)) = flushed {
            self.give_up(&error);
        }
    }

    pub(super) fn piece(&mut self, hash: TreeHash, row: Row) {
        self.write(&Record::Tree(hash, row));
    }

    fn of_old<T>(&mut self, ask: impl FnOnce(&mut Old) -> io::Result<T>) -> Option<T> {
        let answer = ask(self.old.as_mut()?);
        if let Err(error) = &answer {
            tracing::warn!(cache = %self.path.display(), %error, "the rest of what was known of the volume is not used");
            self.old = None;
        }
        answer.ok()
    }

    fn write(&mut self, record: &Record) {
        if let Some(out) = &mut self.new
            && let Err(error) = out.push(|block| record.write(block))
        {
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        self.new = None;
        tracing::warn!(cache = %self.path.display(), %error, "cannot remember this run; the next reads everything");
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // The logs stay: who is dropped before the end leaves them to the next.
        self.remove(&["new"]);
    }
}

impl Row {
    fn find(&mut self, places: &Places) {
        self.place = self.place.or_else(|| places.get(&self.id).copied());
    }
}

/// Which files, counted from 1, came to nothing: another of the same name may follow.
fn failed(from: &mut LogReader) -> io::Result<Vec<u64>> {
    let (mut failed, mut files) = (Vec::new(), 0);
    while let Some(record) = Record::read(from)? {
        match record {
            Record::Begin(..) => files += 1,
            Record::End(None) => failed.push(files),
            Record::End(Some(_))
            | Record::Chunks(_)
            | Record::Enter(_)
            | Record::Tree(..)
            | Record::Leave => {}
        }
    }
    Ok(failed)
}

/// Anew, for its owner alone.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn head(volume: VolumeId, key: KeyId, parent: Option<SnapshotId>) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(MAGIC);
    head[8..24].copy_from_slice(volume.0.as_bytes());
    head[24..40].copy_from_slice(key.as_bytes());
    head[40..].copy_from_slice(parent.unwrap_or_default().0.as_bytes());
    head
}

/// Where the hash begins, if it is that of everything before.
fn checked<R: BufRead + Seek>(from: &mut R) -> io::Result<u64> {
    let size = from.seek(SeekFrom::End(0))?;
    let end = size.checked_sub(HASH_BYTES as u64);
    let end = end.filter(|end| *end >= HEAD_BYTES as u64);
    let end = end.ok_or_else(|| wrong("it is too short"))?;
    from.seek(SeekFrom::Start(0))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(from.by_ref().take(end))?;
    let mut hash = [0; HASH_BYTES];
    from.read_exact(&mut hash)?;
    if *hasher.finalize().as_bytes() == hash {
        Ok(end)
    } else {
        Err(wrong("it is damaged"))
    }
}

struct Hashed<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
