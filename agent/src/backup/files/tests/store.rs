//! A pipeline as plain as can be: real packs in a directory that is laid out as the bucket is, and nothing at once.

use std::fs;
use std::path::{Path, PathBuf};

use infratrack_shared::backup::{
    Algorithm, ChunkId, Chunker, Compressor, Content, KeyId, PackBuilder, PackKind, Salt, Sizes,
    VolumeKey,
};
use infratrack_shared::ids::{SnapshotId, VolumeId};
use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::backup::Files;
use tempfile::TempDir;

use crate::backup::chunks::{Chunks, Meter, Place, Places, Stopped};
use crate::backup::files::{Cache, FilesError, PlaceLog, Sources, Walked, back_up};
use crate::backup::restore::{Bucket, Fetcher, Options, Restored, restore};
use crate::clock::Clock;

pub(crate) struct Store {
    pub(crate) bucket: PathBuf,
    pub(crate) volume: VolumeId,
    pub(crate) key: VolumeKey,
    chunker: Chunker,
    compressor: Compressor,
    packs: Vec<(PackKind, Salt, PackBuilder)>,
    pub(crate) places: Places,
    /// Of each kind, how many were taken that were not there.
    pub(crate) stored: Vec<PackKind>,
    pub(crate) kept: Vec<Place>,
    pub(crate) calls: usize,
    pub(crate) stop_after: usize,
    pub(crate) meanwhile: Option<Box<dyn FnMut()>>,
    /// Told of what is in the packs that are finished.
    pub(crate) noted: Option<PlaceLog>,
    meter: Meter,
}

impl Store {
    pub(crate) fn new(bucket: &Path) -> Self {
        let key = VolumeKey::new([7; 32]);
        Self {
            bucket: bucket.to_owned(),
            volume: VolumeId::random(),
            chunker: Chunker::new(&key, Sizes::USUAL),
            compressor: Compressor::new().unwrap(),
            key,
            packs: Vec::new(),
            places: Places::new(),
            stored: Vec::new(),
            kept: Vec::new(),
            calls: 0,
            stop_after: usize::MAX,
            meanwhile: None,
            noted: None,
            meter: Meter::default(),
        }
    }

    pub(crate) fn finish(&mut self) {
        let dir = self.bucket.join(format!("backups/{}/packs", self.volume));
        for (_, _, pack) in self.packs.drain(..) {
            let (hash, bytes) = pack.finish();
            let name = hash.to_string();
            let dir = dir.join(&name[..2]);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(name), bytes).unwrap();
        }
        if let Some(log) = &mut self.noted {
            let places: Vec<_> = self.places.iter().map(|(id, at)| (*id, *at)).collect();
            log.note(&places).unwrap();
        }
    }
}

impl Chunks for Store {
    fn chunker(&self) -> &Chunker {
        &self.chunker
    }

    fn store(&mut self, kind: PackKind, plain: &[u8]) -> Result<ChunkId, Stopped> {
        assert!(!plain.is_empty());
        self.calls += 1;
        if self.calls > self.stop_after {
            return Err(Stopped);
        }
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile();
        }
        let id = self.key.chunk_id(plain);
        if self.places.contains_key(&id) {
            return Ok(id);
        }
        let packed = self.compressor.pack(plain);
        let has_room = |pack: &PackBuilder| pack.has_room_for(packed.sealed_length());
        let at = self
            .packs
            .iter()
            .position(|(of, _, pack)| *of == kind && has_room(pack));
        let at = at.unwrap_or_else(|| {
            let pack = PackBuilder::new(self.volume, self.key.id(), kind);
            self.packs.push((kind, Salt::new(rand::random()), pack));
            self.packs.len() - 1
        });
        let (_, salt, pack) = &mut self.packs[at];
        let origin = (*salt, Algorithm::of_this_machine());
        let sealed = pack.push(&self.key, origin, id, packed).unwrap();
        self.places.insert(id, (sealed.salt, sealed.counter));
        self.stored.push(kind);
        Ok(id)
    }

    fn keep(&mut self, place: Place) {
        self.kept.push(place);
    }

    fn go_on(&mut self) -> Result<(), Stopped> {
        Ok(())
    }

    fn meter(&self) -> &Meter {
        &self.meter
    }
}

/// A tree to back up, a bucket, a cache and a place to restore to.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) store: Store,
    pub(crate) files: Files,
    pub(crate) snapshot: SnapshotId,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        for name in ["tree", "bucket", "cache", "out"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let files = Files {
            paths: vec![dir.path().join("tree").to_str().unwrap().to_owned()],
            ..Files::default()
        };
        let store = Store::new(&dir.path().join("bucket"));
        Self {
            store,
            dir,
            files,
            snapshot: SnapshotId::random(),
        }
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    /// Where the tree is below the target.
    pub(crate) fn out(&self) -> PathBuf {
        let out = self.dir.path().join("out");
        out.join(self.tree().strip_prefix("/").unwrap())
    }

    pub(crate) fn cache(&self) -> Cache {
        self.cache_of(self.store.key.id())
    }

    pub(crate) fn cache_of(&self, key: KeyId) -> Cache {
        Cache::open(&self.dir.path().join("cache"), self.store.volume, key)
    }

    pub(crate) fn try_run(&mut self, cache: &mut Cache) -> Result<Walked, FilesError> {
        (self.store.stored, self.store.kept) = (Vec::new(), Vec::new());
        let sources = Sources {
            files: &self.files,
            allowed: &[self.dir.path().canonicalize().unwrap()],
            // Late enough that no file is too young to be trusted.
            clock: Clock::from_fn(|| UnixMillis(i64::MAX)),
        };
        let walked = back_up(&sources, cache, &mut self.store);
        self.store.finish();
        walked
    }

    pub(crate) fn run(&mut self) -> Walked {
        let mut cache = self.cache();
        self.store.noted = cache.take_noted();
        let walked = self.try_run(&mut cache).unwrap();
        cache.commit(self.snapshot, &self.store.places).unwrap();
        walked
    }

    pub(crate) fn restore(&self, root: &Content) -> Restored {
        self.restore_with(root, &Options::default())
    }

    pub(crate) fn restore_with(&self, root: &Content, options: &Options) -> Restored {
        let bucket = Bucket::open(&self.store.bucket, self.store.volume).unwrap();
        let target = self.dir.path().join("out");
        restore(
            self.fetcher(&bucket),
            root,
            &target,
            options,
            &Meter::default(),
        )
        .unwrap()
    }

    pub(crate) fn fetcher<'a>(&'a self, bucket: &'a Bucket) -> Fetcher<'a> {
        Fetcher {
            source: bucket,
            key: &self.store.key,
            volume: self.store.volume,
        }
    }
}
