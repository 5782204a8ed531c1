//! The snapshot that a command is about, found and opened.

use std::path::Path;

use anyhow::{Context, bail};
use infratrack_agent::backup::keys::Recovery;
use infratrack_agent::backup::restore::s3::{self, Location, S3};
use infratrack_agent::backup::restore::{
    self, Bucket, Fetcher, Folder, KeySources, Objects, Remote, Source,
};
use infratrack_agent::backup::run::{self, Host};
use infratrack_agent::cli::{Backup, BackupFrom};
use infratrack_agent::clock::Clock;
use infratrack_shared::backup::{Content, KeyId};
use infratrack_shared::ids::{SnapshotId, VolumeId};

/// Where it is read from.
#[expect(clippy::large_enum_variant, reason = "there is one")]
enum Store {
    Bucket(Bucket),
    Collector(Remote),
}

impl Store {
    fn source(&self) -> &dyn Source {
        match self {
            Self::Bucket(bucket) => bucket,
            Self::Collector(remote) => remote,
        }
    }

    fn volume(&self) -> VolumeId {
        match self {
            Self::Bucket(bucket) => bucket.volume(),
            Self::Collector(remote) => remote.volume(),
        }
    }

    fn wrapped_key(&self, id: KeyId) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Bucket(bucket) => bucket.wrapped_key(id),
            Self::Collector(remote) => remote.wrapped_key(id),
        }
    }

    fn latest(&self) -> anyhow::Result<SnapshotId> {
        match self {
            Self::Bucket(bucket) => bucket.latest(),
            Self::Collector(remote) => {
                let newest = remote.snapshots(None)?.snapshots.into_iter().next();
                Ok(newest.context("the volume has no snapshot")?.id)
            }
        }
    }
}

/// A snapshot, and what is needed to read it.
pub(super) struct Opened {
    store: Store,
    pub(super) snapshot: restore::Opened,
}

impl Opened {
    pub(super) fn open(
        host: Option<&Host>,
        arguments: &Backup,
        from: &BackupFrom,
    ) -> anyhow::Result<Self> {
        let store = match host {
            Some(host) if !from.is_bucket() => Store::Collector(collector(host, from)?),
            Some(_) | None => Store::Bucket(bucket(from)?),
        };
        let state_dir = arguments.backup_dir.as_deref();
        let state_dir = state_dir.unwrap_or(Path::new(run::STATE_DIR));
        let mut keys = KeySources::own(state_dir, store.volume());
        if let Some(identity) = &from.identity {
            keys.recovery = Some(Recovery::of_file(identity)?);
        }
        if let Some(key) = &from.key {
            keys = keys.with_file(key)?;
        }
        let id = match from.snapshot.as_str() {
            "latest" => store.latest()?,
            id => id.parse().context("a snapshot is a UUID or `latest`")?,
        };
        let key = |id| keys.find(id, || store.wrapped_key(id));
        let snapshot = restore::Opened::open(store.source(), store.volume(), id, key)?;
        let total = snapshot.manifest.errors_total;
        if total > 0 {
            tracing::warn!("snapshot {id} is incomplete: {total} things could not be read");
        }
        Ok(Self { store, snapshot })
    }

    pub(super) fn fetcher(&self) -> Fetcher<'_> {
        self.snapshot.fetcher(self.store.source())
    }

    pub(super) fn root(&self) -> &Content {
        &self.snapshot.manifest.root
    }

    /// Of packs, so far.
    pub(super) fn read_bytes(&self) -> u64 {
        self.store.source().read_bytes()
    }

    /// Packs of the volume that are not what their names say. The collector compares its own.
    pub(super) fn check_packs(&self) -> Vec<(String, String)> {
        match &self.store {
            Store::Bucket(bucket) => bucket.check_packs(),
            Store::Collector(_) => Vec::new(),
        }
    }
}

fn collector(host: &Host, from: &BackupFrom) -> anyhow::Result<Remote> {
    let wanted = from.volume.as_deref();
    let wanted = wanted.context("name a volume of this host, or one by its id")?;
    let volume = match wanted.parse() {
        Ok(volume) => volume,
        Err(_) => super::super::backup::find(host, wanted)?.id,
    };
    let collector = host.collector.clone();
    Ok(Remote::new(collector, volume, host.patience))
}

/// The bucket, or its copy.
fn objects(from: &BackupFrom) -> anyhow::Result<Box<dyn Objects>> {
    if let Some(dir) = &from.from {
        return Ok(Box::new(Folder::new(dir)));
    }
    let asked = &from.s3;
    let url = asked.s3.clone().context("it is not said from where")?;
    let credentials = match &asked.credentials {
        Some(path) => s3::credentials_of_file(path)?,
        None => s3::credentials_of_environment()?,
    };
    let location = Location {
        endpoint: asked.endpoint.clone(),
        region: asked.region.clone(),
        is_path_style: asked.path_style,
        is_insecure: asked.insecure_http,
        authorities: asked.ca.clone(),
        url,
    };
    let s3 = S3::new(&location, credentials, Clock::system(), run::PATIENCE);
    Ok(Box::new(s3.with_context(|| location.url.clone())?))
}

fn bucket(from: &BackupFrom) -> anyhow::Result<Bucket> {
    let objects = objects(from)?;
    let volume = volume(&*objects, from)?;
    let bucket = Bucket::of(objects, volume)?;
    for (path, what) in bucket.damaged() {
        tracing::warn!("{path}: {what}");
    }
    Ok(bucket)
}

/// The one that is named, or the one that has the snapshot, or the only one.
fn volume(objects: &dyn Objects, from: &BackupFrom) -> anyhow::Result<VolumeId> {
    if let Some(volume) = &from.volume {
        return volume
            .parse()
            .context("a bucket has volumes by their ids alone");
    }
    let volumes = Bucket::volumes(objects)?;
    if let Ok(id) = from.snapshot.parse::<SnapshotId>() {
        let has_it = |volume: &VolumeId| {
            let key = format!("backups/{volume}/snapshots/{id}");
            objects.range(&key, 0..1).is_ok()
        };
        let found = volumes.into_iter().find(has_it);
        return found.with_context(|| format!("no volume has snapshot {id}"));
    }
    match volumes.as_slice() {
        [] => bail!("there is no volume in {}", objects.name("backups/")),
        [volume] => Ok(*volume),
        many => bail!("there are {} volumes: name one", many.len()),
    }
}
