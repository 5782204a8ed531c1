//! Packs and snapshots in the store of objects: when each was last read, and which are lost.

use infratrack_shared::ids::VolumeId;
use sqlx::PgConnection;
use uuid::Uuid;

/// A pack that is to be read again.
#[derive(Clone, Copy, Debug)]
pub struct DueRow {
    pub volume_id: Uuid,
    pub pack_id: i64,
    pub size_bytes: i32,
}

/// Packs that were not read for 60 days, so that all are within 90: the longest not read first.
pub async fn list_due(connection: &mut PgConnection, limit: i64) -> sqlx::Result<Vec<DueRow>> {
    sqlx::query_as!(
        DueRow,
        "select volume_id, pack_id, size_bytes from packs
         where lost_at is null and condemned_at is null and coalesce(verified_at, stored_at) < now() - interval '60 days'
         order by coalesce(verified_at, stored_at) limit $1",
        limit,
    )
    .fetch_all(connection)
    .await
}

/// A snapshot's object that is to be read again.
#[derive(Clone, Debug)]
pub struct DueSnapshotRow {
    pub volume_id: Uuid,
    pub snapshot_id: Uuid,
    pub size_bytes: i32,
    pub hash: Vec<u8>,
}

/// Likewise, of snapshots.
pub async fn list_due_snapshots(
    connection: &mut PgConnection,
    limit: i64,
) -> sqlx::Result<Vec<DueSnapshotRow>> {
    sqlx::query_as!(
        DueSnapshotRow,
        r#"select volume_id, snapshot_id, size_bytes as "size_bytes!", hash as "hash!" from snapshots
         where deleted_at is null and lost_at is null and size_bytes is not null
             and coalesce(verified_at, arrived_at) < now() - interval '60 days'
         order by coalesce(verified_at, arrived_at) limit $1"#,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// How much of this there is.
#[derive(Clone, Copy, Debug)]
pub struct Sums {
    /// Bytes of all packs that are kept.
    pub bytes: i64,
    /// Bytes that were read in the last day.
    pub read_bytes: i64,
    /// Packs that were not read for 90 days.
    pub overdue: i64,
    /// Chunks that are lost, and nothing stands for.
    pub lost_chunks: i64,
}

/// How far reading has come.
pub async fn find_sums(connection: &mut PgConnection) -> sqlx::Result<Sums> {
    sqlx::query_as!(
        Sums,
        r#"select coalesce(sum(size_bytes), 0)::bigint as "bytes!",
             coalesce(sum(size_bytes) filter (where verified_at > now() - interval '1 day'), 0)::bigint as "read_bytes!",
             count(*) filter (where coalesce(verified_at, stored_at) < now() - interval '90 days') as "overdue!",
             (select count(*) from chunks l join origins lo using (origin_id) where l.is_lost and not exists (
                 select from chunks c join origins o using (origin_id)
                 where c.chunk_id = l.chunk_id and o.volume_id = lo.volume_id and not c.is_lost)) as "lost_chunks!"
         from packs where lost_at is null and condemned_at is null"#,
    )
    .fetch_one(connection)
    .await
}

/// A pack's name, where it is not lost yet.
pub async fn find_hash(connection: &mut PgConnection, pack: i64) -> sqlx::Result<Option<Vec<u8>>> {
    sqlx::query_scalar!(
        "select hash from packs where pack_id = $1 and lost_at is null",
        pack
    )
    .fetch_optional(connection)
    .await
}

/// All of a pack was read and found as it was stored.
pub async fn update_verified(connection: &mut PgConnection, pack: i64) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update packs set verified_at = now() where pack_id = $1",
        pack
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Locks a pack that is kept and not lost yet, until the transaction ends; its volume is locked.
pub async fn lock_kept(connection: &mut PgConnection, pack: i64) -> sqlx::Result<bool> {
    let found = sqlx::query_scalar!(
        "select pack_id from packs where pack_id = $1 and lost_at is null and condemned_at is null for update",
        pack,
    )
    .fetch_optional(connection)
    .await?;
    Ok(found.is_some())
}

/// Says that a pack is lost with its chunks. Answers how many.
pub async fn update_lost(connection: &mut PgConnection, pack: i64) -> sqlx::Result<u64> {
    sqlx::query!("update packs set lost_at = now() where pack_id = $1", pack)
        .execute(&mut *connection)
        .await?;
    let done = sqlx::query!(
        "update chunks set is_lost = true where pack_id = $1 and not is_lost",
        pack
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A snapshot's object was read and found as it was stored.
pub async fn update_snapshot_verified(
    connection: &mut PgConnection,
    snapshot: Uuid,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update snapshots set verified_at = now() where snapshot_id = $1",
        snapshot
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Says that a snapshot is lost; 0 where it was deleted meanwhile.
pub async fn update_snapshot_lost(
    connection: &mut PgConnection,
    snapshot: Uuid,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update snapshots set lost_at = now() where snapshot_id = $1 and deleted_at is null",
        snapshot
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A volume's newest snapshots that keep chunks.
pub async fn list_newest(
    connection: &mut PgConnection,
    volume: VolumeId,
    limit: i64,
) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "select snapshot_id from snapshots where volume_id = $1 and deleted_at is null and refs is not null
         order by at desc, snapshot_id desc limit $2",
        volume.0,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Lost chunks of a volume that no other of the same content stands for, at most so many.
pub async fn list_lost_alone(
    connection: &mut PgConnection,
    volume: VolumeId,
    limit: i64,
) -> sqlx::Result<Vec<(Vec<u8>, i32)>> {
    let rows = sqlx::query!(
        "select lo.salt, l.counter from origins lo join chunks l using (origin_id)
         where lo.volume_id = $1 and l.is_lost and not exists (
             select from chunks c join origins o using (origin_id)
             where c.chunk_id = l.chunk_id and o.volume_id = $1 and not c.is_lost)
         limit $2",
        volume.0,
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.salt, row.counter))
        .collect())
}
