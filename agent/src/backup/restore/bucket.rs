//! A copy of the bucket in a directory, laid out as docs/formats/backup.md says: nothing else is needed to restore. Where chunks
//! are is learned from the packs' own tables.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use infratrack_shared::backup::{
    Algorithm, ChunkId, Head, KeyId, MAX_SNAPSHOT_BYTES, PackHash, Salt, Table,
};
use infratrack_shared::ids::{SnapshotId, VolumeId};
use infratrack_shared::wire::backup::Place;

use super::source::{Source, SourceError};

/// One volume's objects.
#[derive(Debug)]
pub struct Bucket {
    dir: PathBuf,
    volume: VolumeId,
    packs: Vec<PackHash>,
    origins: Vec<(Salt, Algorithm)>,
    chunks: HashMap<ChunkId, Where>,
    /// Packs that can't be read, and why.
    damaged: Vec<(PathBuf, String)>,
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
    pub fn volumes(root: &Path) -> anyhow::Result<Vec<VolumeId>> {
        let dir = root.join("backups");
        let names = names(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
        let mut volumes: Vec<VolumeId> =
            names.iter().filter_map(|name| name.parse().ok()).collect();
        volumes.sort();
        Ok(volumes)
    }

    /// Reads the tables of a volume's packs. A pack whose table is none is as not there; [`Self::damaged`] names it.
    pub fn open(root: &Path, volume: VolumeId) -> anyhow::Result<Self> {
        let dir = root.join("backups").join(volume.to_string());
        let packs = dir.join("packs");
        let mut bucket = Self {
            dir,
            volume,
            packs: Vec::new(),
            origins: Vec::new(),
            chunks: HashMap::new(),
            damaged: Vec::new(),
        };
        let first = names(&packs).with_context(|| format!("cannot list {}", packs.display()))?;
        for first in first {
            let below = packs.join(first);
            let mut names =
                names(&below).with_context(|| format!("cannot list {}", below.display()))?;
            names.sort();
            for name in names {
                let Ok(hash) = name.parse::<PackHash>() else {
                    continue;
                };
                if let Err(error) = bucket.add(hash) {
                    let path = bucket.pack_path(&hash);
                    bucket.damaged.push((path, format!("{error:#}")));
                }
            }
        }
        Ok(bucket)
    }

    fn add(&mut self, hash: PackHash) -> anyhow::Result<()> {
        let file = File::open(self.pack_path(&hash))?;
        let size = file.metadata()?.len();
        let mut head = vec![0; Table::HEAD_BYTES];
        file.read_exact_at(&mut head, 0)?;
        let mut last = [0; 8];
        file.read_exact_at(&mut last, size.saturating_sub(8))?;
        let mut tail = vec![0; Table::tail_bytes(&last)?];
        let start = size.checked_sub(tail.len() as u64);
        let start = start.context("its table is longer than it is")?;
        file.read_exact_at(&mut tail, start)?;
        let table = Table::of_ends(&head, &tail, size)?;
        ensure!(
            table.volume_id == self.volume,
            "it is of volume {}",
            table.volume_id
        );
        let pack = u32::try_from(self.packs.len())?;
        self.packs.push(hash);
        let mut origins: HashMap<(Salt, Algorithm), u32> = HashMap::new();
        for entry in table.entries {
            let origin = (entry.sealed.salt, entry.sealed.algorithm);
            let next = u32::try_from(self.origins.len())?;
            let number = *origins.entry(origin).or_insert(next);
            if number == next {
                self.origins.push(origin);
            }
            let place = Where {
                pack,
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
    pub fn damaged(&self) -> &[(PathBuf, String)] {
        &self.damaged
    }

    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// Compares every pack with its name: whether a byte of it has changed. Answers those that differ.
    pub fn check_packs(&self) -> Vec<(PathBuf, String)> {
        let mut wrong = self.damaged.clone();
        for hash in &self.packs {
            let path = self.pack_path(hash);
            let mut hasher = blake3::Hasher::new();
            let hashed = File::open(&path).and_then(|file| hasher.update_reader(file).map(|_| ()));
            match hashed {
                Ok(()) if hasher.finalize().as_bytes() == hash.as_bytes() => {}
                Ok(()) => wrong.push((path, "its bytes are not those of its name".to_owned())),
                Err(error) => wrong.push((path, error.to_string())),
            }
        }
        wrong
    }

    /// The newest snapshot whose head can be read.
    pub fn latest(&self) -> anyhow::Result<SnapshotId> {
        let dir = self.dir.join("snapshots");
        let names = names(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
        let heads = names.iter().filter_map(|name| {
            let id = name.parse().ok()?;
            let head = Head::of_snapshot(&self.snapshot(id).ok()?).ok()?;
            Some((head.started_at_ms, id))
        });
        let (_, id) = heads.max().context("the volume has no snapshot")?;
        Ok(id)
    }

    pub fn has(&self, snapshot: SnapshotId) -> bool {
        self.snapshot_path(snapshot).exists()
    }

    /// The wrapped key of this id.
    pub fn wrapped_key(&self, id: KeyId) -> anyhow::Result<Vec<u8>> {
        let path = self.dir.join("keys").join(format!("{id}.age"));
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn pack_path(&self, hash: &PackHash) -> PathBuf {
        let name = hash.to_string();
        self.dir.join("packs").join(&name[..2]).join(name)
    }

    fn snapshot_path(&self, id: SnapshotId) -> PathBuf {
        self.dir.join("snapshots").join(id.to_string())
    }
}

impl Source for Bucket {
    fn snapshot(&self, id: SnapshotId) -> Result<Vec<u8>, SourceError> {
        let path = self.snapshot_path(id);
        let read = || {
            let mut bytes = Vec::new();
            let file = File::open(&path)?;
            file.take(MAX_SNAPSHOT_BYTES as u64 + 1)
                .read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|source| SourceError::Unreadable {
            what: path.display().to_string(),
            source,
        })
    }

    fn places(&self, ids: &[ChunkId]) -> Result<Vec<Place>, SourceError> {
        let known = ids.iter().filter_map(|id| {
            let found = self.chunks.get(id)?;
            let (salt, algorithm) = *self.origins.get(found.origin as usize)?;
            Some(Place {
                id: *id,
                pack: *self.packs.get(found.pack as usize)?,
                offset: found.offset,
                length: found.length,
                salt,
                algorithm,
                counter: found.counter,
            })
        });
        Ok(known.collect())
    }

    fn read(&self, pack: &PackHash, range: Range<u32>) -> Result<Vec<u8>, SourceError> {
        let path = self.pack_path(pack);
        let read = || {
            let mut bytes = vec![0; range.len()];
            File::open(&path)?.read_exact_at(&mut bytes, u64::from(range.start))?;
            Ok(bytes)
        };
        read().map_err(|source| SourceError::Unreadable {
            what: path.display().to_string(),
            source,
        })
    }
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name()));
    let names = entries.collect::<io::Result<Vec<_>>>()?;
    let names = names.into_iter().filter_map(|name| name.into_string().ok());
    Ok(names.collect())
}
