//! A bucket or a copy of it, laid out as docs/formats/backup.md says: nothing else is needed to restore. Where chunks are is learned
//! from the packs' own tables.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use anyhow::{Context, ensure};
use infratrack_shared::backup::{
    Algorithm, ChunkId, Head, KeyId, MAX_PACK_BYTES, MAX_SNAPSHOT_BYTES, PackHash, Salt, Table,
};
use infratrack_shared::ids::{SnapshotId, VolumeId};
use infratrack_shared::wire::backup::Place;

use super::objects::{Folder, Objects};
use super::source::{Source, SourceError};

/// Of a pack, its table is at the end: most are no longer.
const TAIL_BYTES: u64 = 16 * 1024;
/// More than a wrapped key has.
const MAX_KEY_BYTES: usize = 64 * 1024;
/// Objects that are read at once.
const READS: usize = 8;
/// Of one read.
const READ_BYTES: u64 = 8 * 1024 * 1024;

/// One volume's objects.
pub struct Bucket {
    objects: Box<dyn Objects>,
    volume: VolumeId,
    /// With their sizes.
    packs: Vec<(PackHash, u64)>,
    /// Their places in `packs`.
    numbers: HashMap<PackHash, u32>,
    origins: Vec<(Salt, Algorithm)>,
    chunks: HashMap<ChunkId, Where>,
    /// Packs that can't be read, and why.
    damaged: Vec<(String, String)>,
    read_bytes: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Where {
    pack: u32,
    origin: u32,
    offset: u32,
    length: u32,
    counter: u16,
}

impl Bucket {
    /// The volumes of a bucket.
    pub fn volumes(objects: &dyn Objects) -> anyhow::Result<Vec<VolumeId>> {
        let names = objects.folders("backups/")?;
        let volumes = names.iter().filter_map(|name| name.parse().ok());
        let mut volumes: Vec<VolumeId> = volumes.collect();
        volumes.sort();
        Ok(volumes)
    }

    /// Reads the tables of a volume's packs in a directory.
    pub fn open(root: &Path, volume: VolumeId) -> anyhow::Result<Self> {
        Self::of(Box::new(Folder::new(root)), volume)
    }

    /// Reads the tables of a volume's packs. A pack whose table is none is as not there; [`Self::damaged`] names it.
    pub fn of(objects: Box<dyn Objects>, volume: VolumeId) -> anyhow::Result<Self> {
        let listed = objects.list(&format!("backups/{volume}/packs/"))?;
        let packs = listed.iter().filter_map(|(key, size)| {
            let (_, name) = key.rsplit_once('/')?;
            Some((name.parse().ok()?, *size))
        });
        let packs: Vec<(PackHash, u64)> = packs.collect();
        let mut bucket = Self {
            objects,
            volume,
            packs: Vec::new(),
            numbers: HashMap::new(),
            origins: Vec::new(),
            chunks: HashMap::new(),
            damaged: Vec::new(),
            read_bytes: AtomicU64::new(0),
        };
        let tables = each(&packs, |(hash, size)| bucket.table(hash, *size));
        for ((hash, size), table) in packs.into_iter().zip(tables) {
            if let Err(error) = table.and_then(|table| bucket.add((hash, size), table)) {
                let name = bucket.objects.name(&bucket.pack_key(&hash));
                bucket.damaged.push((name, format!("{error:#}")));
            }
        }
        Ok(bucket)
    }

    fn table(&self, hash: &PackHash, size: u64) -> anyhow::Result<Table> {
        ensure!(size <= MAX_PACK_BYTES as u64, "it is longer than a pack");
        let key = self.pack_key(hash);
        let from = size.saturating_sub(TAIL_BYTES);
        let mut tail = self.objects.range(&key, from..size)?;
        let last = tail.last_chunk().context("it is shorter than a pack")?;
        let length = Table::tail_bytes(last)?;
        let start = size.checked_sub(length as u64);
        let start = start.context("its table is longer than it is")?;
        if start < from {
            let mut whole = self.objects.range(&key, start..from)?;
            whole.append(&mut tail);
            tail = whole;
        } else {
            tail.drain(..tail.len() - length);
        }
        let head = self.objects.range(&key, 0..Table::HEAD_BYTES as u64)?;
        let table = Table::of_ends(&head, &tail, size)?;
        ensure!(
            table.volume_id == self.volume,
            "it is of volume {}",
            table.volume_id
        );
        Ok(table)
    }

    fn add(&mut self, pack: (PackHash, u64), table: Table) -> anyhow::Result<()> {
        let number_of_pack = u32::try_from(self.packs.len())?;
        self.packs.push(pack);
        self.numbers.insert(pack.0, number_of_pack);
        let mut origins: HashMap<(Salt, Algorithm), u32> = HashMap::new();
        for entry in table.entries {
            let origin = (entry.sealed.salt, entry.sealed.algorithm);
            let next = u32::try_from(self.origins.len())?;
            let number = *origins.entry(origin).or_insert(next);
            if number == next {
                self.origins.push(origin);
            }
            let place = Where {
                pack: number_of_pack,
                origin: number,
                offset: entry.range.start,
                length: entry.range.end - entry.range.start,
                counter: entry.sealed.counter,
            };
            self.chunks.entry(entry.id).or_insert(place);
        }
        Ok(())
    }

    /// Packs that can't be read, and why.
    pub fn damaged(&self) -> &[(String, String)] {
        &self.damaged
    }

    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// Compares every pack with its name: whether a byte of it has changed. Answers those that differ.
    pub fn check_packs(&self) -> Vec<(String, String)> {
        let checked = each(&self.packs, |(hash, size)| self.check(hash, *size).err());
        let wrong = self.packs.iter().zip(checked).filter_map(|(pack, error)| {
            let name = self.objects.name(&self.pack_key(&pack.0));
            Some((name, format!("{:#}", error?)))
        });
        self.damaged.iter().cloned().chain(wrong).collect()
    }

    fn check(&self, hash: &PackHash, size: u64) -> anyhow::Result<()> {
        let (key, mut hasher, mut at) = (self.pack_key(hash), blake3::Hasher::new(), 0);
        while at < size {
            let end = size.min(at + READ_BYTES);
            hasher.update(&self.objects.range(&key, at..end)?);
            at = end;
        }
        ensure!(
            hasher.finalize().as_bytes() == hash.as_bytes(),
            "its bytes are not those of its name"
        );
        Ok(())
    }

    /// The newest snapshot whose head can be read.
    pub fn latest(&self) -> anyhow::Result<SnapshotId> {
        let prefix = format!("backups/{}/snapshots/", self.volume);
        let listed = self.objects.list(&prefix)?;
        let ids = listed.iter().filter_map(|(key, _)| {
            let name = key.strip_prefix(&prefix)?;
            name.parse().ok()
        });
        let ids: Vec<SnapshotId> = ids.collect();
        let heads = each(&ids, |id| {
            let head = Head::of_snapshot(&self.snapshot(*id).ok()?).ok()?;
            Some((head.started_at_ms, *id))
        });
        let newest = heads.into_iter().flatten().max();
        let (_, id) = newest.context("the volume has no snapshot")?;
        Ok(id)
    }

    /// The wrapped key of this id.
    pub fn wrapped_key(&self, id: KeyId) -> anyhow::Result<Vec<u8>> {
        let key = format!("backups/{}/keys/{id}.age", self.volume);
        Ok(self.objects.get(&key, MAX_KEY_BYTES)?)
    }

    fn pack_key(&self, hash: &PackHash) -> String {
        let name = hash.to_string();
        let (volume, first) = (self.volume, &name[..2]);
        format!("backups/{volume}/packs/{first}/{name}")
    }
}

impl Source for Bucket {
    fn snapshot(&self, id: SnapshotId) -> Result<Vec<u8>, SourceError> {
        let key = format!("backups/{}/snapshots/{id}", self.volume);
        // One that is longer is none.
        self.objects.get(&key, MAX_SNAPSHOT_BYTES + 1)
    }

    fn places(&self, ids: &[ChunkId]) -> Result<Vec<Place>, SourceError> {
        let known = ids.iter().filter_map(|id| {
            let found = self.chunks.get(id)?;
            let (salt, algorithm) = *self.origins.get(found.origin as usize)?;
            let (pack, _) = *self.packs.get(found.pack as usize)?;
            Some(Place {
                id: *id,
                pack,
                offset: found.offset,
                length: found.length,
                salt,
                algorithm,
                counter: found.counter,
            })
        });
        Ok(known.collect())
    }

    fn extent(&self, pack: &PackHash) -> Option<Range<u32>> {
        let (_, size) = self.packs.get(*self.numbers.get(pack)? as usize)?;
        Some(0..u32::try_from(*size).ok()?)
    }

    fn read(&self, pack: &PackHash, range: Range<u32>) -> Result<Vec<u8>, SourceError> {
        let range = u64::from(range.start)..u64::from(range.end);
        let read = self.objects.range(&self.pack_key(pack), range)?;
        let bytes = read.len() as u64;
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(read)
    }

    fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }
}

/// What `work` makes of each, a few at once, in their order.
fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(items.len()));
    let run = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            let result = work(item);
            let mut results = results.lock().expect("nobody panics with it");
            results.push((at, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..items.len().min(READS) {
            scope.spawn(run);
        }
        run();
    });
    let mut results = results.into_inner().expect("nobody panics with it");
    results.sort_unstable_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bucket({})", self.volume)
    }
}
