//! Snapshots that no rule keeps: deleted, and some time after that removed.

use std::time::Duration;

use anyhow::Context;
use infratrack_shared::ids::{SnapshotId, VolumeId};
use serde_json::json;
use tokio::time::timeout;
use uuid::Uuid;

use super::objects;
use super::retention::{self, Rules, Snapshot};
use crate::app::App;
use crate::audit::{self, Actor, Change};
use crate::blob::Key;
use crate::store::backup_snapshots::{self, SnapshotRow};
use crate::store::garbage as store;

/// Snapshots that are deleted in one transaction.
const BATCH: usize = 500;
/// Removing one object, with its tries.
const REMOVE: Duration = Duration::from_secs(60);

/// Deletes the snapshots of a volume that its rules do not keep, the oldest first. Answers how many, and whether there may be
/// more.
pub async fn expire(app: &App, volume: Uuid) -> anyhow::Result<(u64, bool)> {
    let mut transaction = app.pool.begin().await?;
    let Some(keeping) = store::lock(&mut transaction, volume).await? else {
        return Ok((0, false));
    };
    let rows = backup_snapshots::list(&mut transaction, volume).await?;
    let doomed = if keeping.is_over {
        let free = rows.iter().filter(|row| row.held_at.is_none());
        free.map(|row| row.snapshot_id).collect()
    } else {
        let rules: Rules = serde_json::from_value(keeping.retention)?;
        // Rules that would keep nothing were never set: rather everything stays.
        if rules.check().is_err() {
            return Ok((0, false));
        }
        doomed(&rules, &rows)
    };
    let batch = &doomed[..doomed.len().min(BATCH)];
    let deleted = store::update_deleted(&mut transaction, batch).await?;
    if deleted == 0 {
        return Ok((0, false));
    }
    let counts = json!({"snapshots": deleted, "left": rows.len() as u64 - deleted});
    let change = Change::new("snapshot.expire", "volume", volume).after(counts);
    let actor = Actor::job("backup_retention");
    audit::record(&mut transaction, &actor, change, app.clock.now()).await?;
    transaction.commit().await?;
    tracing::info!(%volume, deleted, "deleted snapshots that no rule keeps");
    Ok((deleted, doomed.len() > BATCH))
}

/// Those that go by the rules, the oldest first.
fn doomed(rules: &Rules, rows: &[SnapshotRow]) -> Vec<Uuid> {
    let snapshots: Vec<_> = rows.iter().map(Snapshot::of).collect();
    let reasons = retention::decide(rules, &snapshots);
    let both = rows.iter().zip(reasons).rev();
    let doomed = both.filter(|(_, reasons)| reasons.is_empty());
    doomed.map(|(row, _)| row.snapshot_id).collect()
}

/// Removes snapshots that were deleted long enough ago, the object before the row. Answers how many; one that can't be
/// removed stands in the way of those after it until it can.
pub async fn remove(app: &App, most: i64) -> anyhow::Result<u64> {
    let mut connection = app.pool.acquire().await?;
    let rows = store::list_deleted(&mut connection, most).await?;
    drop(connection);
    let mut removed = 0;
    for row in rows {
        if row.has_object {
            let snapshot = SnapshotId(row.snapshot_id);
            remove_object(app, &objects::snapshot(VolumeId(row.volume_id), snapshot)?).await?;
        }
        let mut connection = app.pool.acquire().await?;
        removed += store::delete_snapshot(&mut connection, row.snapshot_id).await?;
    }
    Ok(removed)
}

/// Removes an object within a limit of time.
pub(super) async fn remove_object(app: &App, key: &Key) -> anyhow::Result<()> {
    let removed = timeout(REMOVE, app.blob.delete(key)).await;
    removed.context("the store of objects does not answer")??;
    Ok(())
}
