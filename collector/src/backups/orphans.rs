//! Objects that no row knows: packs whose host or collector ended between the store and the tables. They go when they are old.
//!
//! A database that was brought back from an older copy does not know what came after it either: while there is a snapshot that no
//! row knows, nothing of its volume is swept.

use std::collections::HashSet;

use infratrack_shared::backup::PackHash;
use infratrack_shared::ids::{SnapshotId, VolumeId};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::expiry::remove_object;
use super::verification::within;
use crate::app::App;
use crate::blob::{Entry, Key};
use crate::store::{garbage as store, locks};

/// Objects that are listed at once.
const PAGE: usize = 1_000;

/// Takes an object for this transaction: who adopts an orphan and who removes it never do both. `false`: another has it.
pub async fn hold(connection: &mut PgConnection, key: &Key) -> sqlx::Result<bool> {
    locks::try_lock(connection, &format!("infratrack object {key}")).await
}

/// Removes a volume's packs that are in no row, and were not put lately. Answers how many.
pub(super) async fn sweep(app: &App, volume: VolumeId) -> anyhow::Result<u64> {
    let mut connection = app.pool.acquire().await?;
    let before = store::find_orphans_before(&mut connection).await?;
    drop(connection);
    if has_unknown_snapshot(app, volume, before).await? {
        return Ok(0);
    }
    let prefix = Key::new(format!("backups/{volume}/packs"))?;
    let (mut after, mut removed): (Option<Key>, _) = (None, 0);
    loop {
        let page = within(app.blob.list(&prefix, after.as_ref(), PAGE)).await?;
        let Some(last) = page.last() else {
            return Ok(removed);
        };
        after = Some(last.key.clone());
        let old = page
            .iter()
            .filter(|entry| entry.modified_at.is_some_and(|at| at < before));
        let old: Vec<_> = old
            .filter_map(|entry| Some((entry, name(entry)?.parse::<PackHash>().ok()?)))
            .collect();
        let hashes: Vec<_> = old
            .iter()
            .map(|(_, hash)| hash.as_bytes().to_vec())
            .collect();
        let mut connection = app.pool.acquire().await?;
        let known = store::list_known_packs(&mut connection, volume, &hashes).await?;
        drop(connection);
        let known: HashSet<_> = known.into_iter().collect();
        for (entry, hash) in old {
            if !known.contains(hash.as_bytes().as_slice()) {
                removed += u64::from(remove(app, volume, (entry, hash), before).await?);
            }
        }
    }
}

/// The last part of an object's name.
fn name(entry: &Entry) -> Option<&str> {
    entry.key.as_str().rsplit('/').next()
}

/// Removes an orphan, if it is one still.
async fn remove(
    app: &App,
    volume: VolumeId,
    (entry, hash): (&Entry, PackHash),
    before: OffsetDateTime,
) -> anyhow::Result<bool> {
    let mut transaction = app.pool.begin().await?;
    if !hold(&mut transaction, &entry.key).await? {
        return Ok(false);
    }
    let hashes = [hash.as_bytes().to_vec()];
    let known = store::list_known_packs(&mut transaction, volume, &hashes).await?;
    let modified_at = within(app.blob.find_modified(&entry.key)).await?;
    if !known.is_empty() || modified_at.is_none_or(|at| at >= before) {
        return Ok(false);
    }
    remove_object(app, &entry.key).await?;
    transaction.commit().await?;
    tracing::info!(object = %entry.key, "removed a pack that no row knows");
    Ok(true)
}

/// Whether there is a snapshot in the store that the tables should know and do not.
async fn has_unknown_snapshot(
    app: &App,
    volume: VolumeId,
    before: OffsetDateTime,
) -> anyhow::Result<bool> {
    let prefix = Key::new(format!("backups/{volume}/snapshots"))?;
    let mut after: Option<Key> = None;
    loop {
        let page = within(app.blob.list(&prefix, after.as_ref(), PAGE)).await?;
        let Some(last) = page.last() else {
            return Ok(false);
        };
        after = Some(last.key.clone());
        let old = page
            .iter()
            .filter(|entry| entry.modified_at.is_some_and(|at| at < before));
        let ids = old.filter_map(|entry| name(entry)?.parse::<SnapshotId>().ok());
        let ids: HashSet<_> = ids.map(|id| id.0).collect();
        let listed: Vec<_> = ids.iter().copied().collect();
        let mut connection = app.pool.acquire().await?;
        let known = store::list_known_snapshots(&mut connection, &listed).await?;
        if let Some(unknown) = ids.into_iter().find(|id| !known.contains(id)) {
            tracing::warn!(
                %volume,
                snapshot = %unknown,
                "no row knows this snapshot in the store: no pack of its volume is swept"
            );
            return Ok(true);
        }
    }
}

/// Removes everything that the store has of a volume.
pub(super) async fn remove_all(app: &App, volume: VolumeId) -> anyhow::Result<()> {
    let prefix = Key::new(format!("backups/{volume}"))?;
    let mut after: Option<Key> = None;
    loop {
        let page = within(app.blob.list(&prefix, after.as_ref(), PAGE)).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Some(last.key.clone());
        for entry in page {
            remove_object(app, &entry.key).await?;
        }
    }
}
