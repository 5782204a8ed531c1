//! Packs and snapshots read again, whole: that they are there as they were stored. What is not is lost, and said to be; of a
//! pack, the next backup sends what it still has.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use infratrack_shared::backup::{MAX_PACK_BYTES, MAX_SNAPSHOT_BYTES, PackHash, Refs, Salt};
use infratrack_shared::codec;
use infratrack_shared::ids::{SnapshotId, VolumeId};
use sqlx::PgConnection;
use tokio::time::timeout;
use uuid::Uuid;

use super::garbage::{REFS, place};
use super::objects;
use crate::app::App;
use crate::blob::{BlobError, Key};
use crate::store::verification::{self as store, DueRow};
use crate::store::{garbage, packs, snapshots};

/// Reading or putting one object, with its tries.
const STORE: Duration = Duration::from_secs(150);

/// Lost chunks that are told of.
const MOST_LOST: i64 = 10_000;
/// Snapshots that are looked at for them.
const MOST_HIT: i64 = 1_000;

/// How an object was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Sound,
    /// It is there with other bytes.
    Damaged,
    Missing,
    /// It went meanwhile, as it was to.
    Gone,
}

impl Found {
    /// As it is counted; nothing that went is.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Sound => Some("ok"),
            Self::Damaged => Some("damaged"),
            Self::Missing => Some("missing"),
            Self::Gone => None,
        }
    }
}

/// What asks the store, with a limit of time.
pub(super) async fn within<T>(
    work: impl Future<Output = Result<T, BlobError>>,
) -> anyhow::Result<T> {
    let done = timeout(STORE, work).await;
    Ok(done.context("the store of objects does not answer")??)
}

/// An object whose bytes have this hash. `None`: it has others, or is not there.
pub(super) async fn read(
    app: &App,
    key: &Key,
    most: usize,
    hash: [u8; 32],
) -> anyhow::Result<Option<Bytes>> {
    let found = timeout(STORE, app.blob.find_bytes(key, most)).await;
    let bytes = match found.context("the store of objects does not answer")? {
        Ok(Some(bytes)) => bytes,
        Ok(None) | Err(BlobError::TooLarge { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let hashed = bytes.clone();
    let is = tokio::task::spawn_blocking(move || blake3::hash(&hashed)).await?;
    Ok((*is.as_bytes() == hash).then_some(bytes))
}

/// Reads a pack again; one that is not as it was stored is lost from now on, and all of its chunks: which of them are damaged
/// only a key could tell. It is read twice before that, the second time while nobody can mend or remove it.
pub async fn check(app: &App, volume: Uuid, pack: i64) -> anyhow::Result<Found> {
    let mut connection = app.pool.acquire().await?;
    let Some(hash) = store::find_hash(&mut connection, pack).await? else {
        return Ok(Found::Gone);
    };
    let hash: [u8; 32] = hash.as_slice().try_into().context("a pack's hash")?;
    let key = objects::pack(VolumeId(volume), PackHash::new(hash))?;
    drop(connection);
    if read(app, &key, MAX_PACK_BYTES, hash).await?.is_some() {
        let mut connection = app.pool.acquire().await?;
        store::update_verified(&mut connection, pack).await?;
        return Ok(Found::Sound);
    }
    let mut transaction = app.pool.begin().await?;
    packs::allow_time(&mut transaction).await?;
    // Before the pack, as everywhere. Who condemns must not miss what stands for its chunks from now on.
    garbage::lock(&mut transaction, volume).await?;
    if !store::lock_kept(&mut transaction, pack).await? {
        return Ok(Found::Gone);
    }
    if read(app, &key, MAX_PACK_BYTES, hash).await?.is_some() {
        store::update_verified(&mut transaction, pack).await?;
        transaction.commit().await?;
        return Ok(Found::Sound);
    }
    let is_there = within(app.blob.find_size(&key)).await?.is_some();
    let chunks = store::update_lost(&mut transaction, pack).await?;
    transaction.commit().await?;
    tracing::error!(object = %key, is_there, chunks, "a pack is lost: the next backup sends what it still has of it");
    Ok(if is_there {
        Found::Damaged
    } else {
        Found::Missing
    })
}

/// Reads a snapshot's object again.
async fn check_snapshot(app: &App, row: &store::DueSnapshotRow) -> anyhow::Result<Found> {
    let (volume, id) = (VolumeId(row.volume_id), SnapshotId(row.snapshot_id));
    let hash: [u8; 32] = row
        .hash
        .as_slice()
        .try_into()
        .context("a snapshot's hash")?;
    let key = objects::snapshot(volume, id)?;
    for _ in 0..2 {
        if read(app, &key, MAX_SNAPSHOT_BYTES, hash).await?.is_some() {
            let mut connection = app.pool.acquire().await?;
            store::update_snapshot_verified(&mut connection, id.0).await?;
            return Ok(Found::Sound);
        }
    }
    let is_there = within(app.blob.find_size(&key)).await?.is_some();
    let mut connection = app.pool.acquire().await?;
    if store::update_snapshot_lost(&mut connection, id.0).await? == 0 {
        return Ok(Found::Gone);
    }
    tracing::error!(object = %key, is_there, "a snapshot is lost: it can't be restored any more");
    Ok(if is_there {
        Found::Damaged
    } else {
        Found::Missing
    })
}

/// What a volume has lost.
#[derive(Clone, Debug, Default)]
pub struct Lost {
    pub chunks: usize,
    /// Those that need one of these chunks.
    pub snapshots: Vec<Uuid>,
}

/// What of a volume is lost and nothing stands for, and which snapshots it hits.
pub async fn find_lost(connection: &mut PgConnection, volume: VolumeId) -> sqlx::Result<Lost> {
    let chunks = store::list_lost_alone(connection, volume, MOST_LOST).await?;
    let mut lost = Lost {
        chunks: chunks.len(),
        snapshots: Vec::new(),
    };
    let places: Vec<_> = chunks
        .iter()
        .filter_map(|(salt, counter)| place(salt, *counter))
        .collect();
    if places.is_empty() {
        return Ok(lost);
    }
    for snapshot in store::list_newest(connection, volume, MOST_HIT).await? {
        let refs = snapshots::find_refs(connection, volume, SnapshotId(snapshot)).await?;
        let Some(refs) = refs else { continue };
        let refs: Refs =
            codec::decode(&refs, &REFS).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        let is_hit = |(salt, counter): &(Salt, u16)| refs.contains(salt, *counter);
        if places.iter().any(is_hit) {
            lost.snapshots.push(snapshot);
        }
    }
    Ok(lost)
}

/// Reads so many bytes of what was longest not read, a pack at least.
pub async fn verify(app: &App, mut bytes: i64) -> anyhow::Result<()> {
    loop {
        let mut connection = app.pool.acquire().await?;
        let due = store::list_due(&mut connection, 100).await?;
        let snapshots = store::list_due_snapshots(&mut connection, 100).await?;
        drop(connection);
        if due.is_empty() && snapshots.is_empty() {
            return Ok(());
        }
        for row in &snapshots {
            if bytes <= 0 {
                return Ok(());
            }
            bytes -= i64::from(row.size_bytes);
            counted(app, check_snapshot(app, row).await)?;
        }
        for DueRow {
            volume_id,
            pack_id,
            size_bytes,
        } in due
        {
            if bytes <= 0 {
                return Ok(());
            }
            bytes -= i64::from(size_bytes);
            counted(app, check(app, volume_id, pack_id).await)?;
        }
    }
}

fn counted(app: &App, found: anyhow::Result<Found>) -> anyhow::Result<()> {
    match found {
        Ok(found) => {
            if let Some(outcome) = found.name() {
                app.metrics.backup_verified(outcome);
            }
            Ok(())
        }
        Err(error) => {
            app.metrics.backup_verified("failed");
            Err(error)
        }
    }
}
