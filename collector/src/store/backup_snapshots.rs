//! Snapshots as operators see them, and which of them somebody holds.

use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

/// The most snapshots of a volume that retention looks at: a rule keeps 10,000 at most.
const MOST: i64 = 100_000;

/// A snapshot as it is listed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = BackupSnapshot)]
pub struct SnapshotRow {
    #[serde(rename = "id")]
    pub snapshot_id: Uuid,
    pub volume_id: Uuid,
    pub run_id: Uuid,
    pub kind: String,
    /// Everything is in it.
    pub is_whole: bool,
    /// When it was begun; by the collector's clock, where the host's was wrong.
    #[serde(with = "rfc3339")]
    pub at: OffsetDateTime,
    pub is_clock_wrong: bool,
    #[serde(with = "rfc3339")]
    pub arrived_at: OffsetDateTime,
    pub files: i64,
    /// Of what the files have.
    pub bytes: i64,
    pub chunks: i64,
    #[serde(with = "rfc3339::option")]
    pub held_at: Option<OffsetDateTime>,
    pub held_by: Option<String>,
    pub held_because: Option<String>,
    /// It was found gone or damaged in the store: it can't be restored.
    #[serde(with = "rfc3339::option")]
    pub lost_at: Option<OffsetDateTime>,
}

/// A volume's snapshots, newest first: all that retention may keep.
pub async fn list(connection: &mut PgConnection, volume: Uuid) -> sqlx::Result<Vec<SnapshotRow>> {
    sqlx::query_as!(
        SnapshotRow,
        "select snapshot_id, volume_id, run_id, kind, is_whole, at, is_clock_wrong, arrived_at, files, bytes, chunks,
             held_at, held_by, held_because, lost_at
         from snapshots where volume_id = $1 and deleted_at is null
         order by at desc, snapshot_id desc limit $2",
        volume,
        MOST,
    )
    .fetch_all(connection)
    .await
}

/// A snapshot, for this transaction alone.
pub async fn find_for_update(
    connection: &mut PgConnection,
    snapshot: Uuid,
) -> sqlx::Result<Option<SnapshotRow>> {
    sqlx::query_as!(
        SnapshotRow,
        "select snapshot_id, volume_id, run_id, kind, is_whole, at, is_clock_wrong, arrived_at, files, bytes, chunks,
             held_at, held_by, held_because, lost_at
         from snapshots where snapshot_id = $1 and deleted_at is null for update",
        snapshot,
    )
    .fetch_optional(connection)
    .await
}

/// Keeps a snapshot, whatever the rules say.
pub async fn hold(
    connection: &mut PgConnection,
    snapshot: Uuid,
    (by, because): (&str, &str),
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update snapshots set held_at = $2, held_by = $3, held_because = $4 where snapshot_id = $1",
        snapshot,
        now,
        by,
        because,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Leaves a snapshot to the rules.
pub async fn release(connection: &mut PgConnection, snapshot: Uuid) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update snapshots set held_at = null, held_by = null, held_because = null where snapshot_id = $1",
        snapshot
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
