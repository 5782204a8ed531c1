//! A snapshot that was opened with its volume's key: what a restore begins with.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};
use infratrack_shared::backup::{Head, KeyId, Manifest, VolumeKey};
use infratrack_shared::ids::{SnapshotId, VolumeId};

use super::fetch::Fetcher;
use super::source::Source;
use crate::backup::keys::{Keys, Recovery};

/// More than a wrapped key has.
const MAX_KEY_BYTES: u64 = 64 * 1024;

/// A snapshot, and the key that opens its chunks.
#[derive(Debug)]
pub struct Opened {
    pub head: Head,
    pub manifest: Manifest,
    pub key: VolumeKey,
}

impl Opened {
    /// Reads and opens a snapshot with the key that `key` finds.
    pub fn open(
        source: &dyn Source,
        volume: VolumeId,
        id: SnapshotId,
        key: impl FnOnce(KeyId) -> anyhow::Result<VolumeKey>,
    ) -> anyhow::Result<Self> {
        let bytes = source.snapshot(id)?;
        let head = Head::of_snapshot(&bytes).with_context(|| format!("snapshot {id}"))?;
        ensure!(
            (head.volume_id, head.snapshot_id) == (volume, id),
            "the object of snapshot {id} is snapshot {} of volume {}",
            head.snapshot_id,
            head.volume_id
        );
        let key = key(head.key_id)?;
        let (head, manifest) =
            Manifest::open(&bytes, &key).with_context(|| format!("snapshot {id}"))?;
        Ok(Self {
            head,
            manifest,
            key,
        })
    }

    /// Its chunks.
    pub fn fetcher<'a>(&'a self, source: &'a dyn Source) -> Fetcher<'a> {
        Fetcher {
            source,
            key: &self.key,
            volume: self.head.volume_id,
        }
    }
}

/// Where the key of a volume may come from.
#[derive(Debug)]
pub struct KeySources {
    /// Of this host; without any other, it is the only one that can.
    pub own: Keys,
    /// Opens what is wrapped.
    pub recovery: Option<Recovery>,
    /// Wrapped, beside what the store has.
    pub wrapped: Option<Vec<u8>>,
}

impl KeySources {
    /// The host's own keys alone.
    pub fn own(state_dir: &Path, volume: VolumeId) -> Self {
        Self {
            own: Keys::of(state_dir, volume),
            recovery: None,
            wrapped: None,
        }
    }

    /// With the wrapped key in a file.
    pub fn with_file(self, path: &Path) -> anyhow::Result<Self> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_KEY_BYTES).read_to_end(&mut bytes))
            .with_context(|| format!("cannot read {}", path.display()))?;
        let wrapped = Some(bytes);
        Ok(Self { wrapped, ..self })
    }

    /// The key of this id; `stored` reads what the store has of it, wrapped.
    pub fn find(
        &self,
        id: KeyId,
        stored: impl FnOnce() -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<VolumeKey> {
        if self.wrapped.is_none()
            && let Some(key) = self.own.find(id)?
        {
            return Ok(key);
        }
        let recovery = self.recovery.as_ref().with_context(|| {
            format!("this host does not have the key {id}: pass a recovery identity")
        })?;
        let stored = match &self.wrapped {
            Some(wrapped) => wrapped.clone(),
            None => stored()?,
        };
        let key = recovery.unwrap(self.own.volume(), &stored)?;
        ensure!(key.id() == id, "it is the key {}, not {id}", key.id());
        Ok(key)
    }
}
