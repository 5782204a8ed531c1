//! What goes of backups: snapshots that nothing keeps, packs that nothing needs, volumes that have neither. Times are the
//! database's: the collectors of a fleet may disagree about theirs.

use infratrack_shared::ids::VolumeId;
use serde_json::Value;
use sqlx::PgConnection;
use time::Duration;
use uuid::Uuid;

/// Between what is said to go and its end.
pub const GRACE: Duration = Duration::hours(48);

fn grace() -> f64 {
    GRACE.as_seconds_f64()
}

/// A volume as retention sees it.
#[derive(Clone, Debug)]
pub struct KeepingRow {
    pub retention: Value,
    /// It was deleted long enough ago.
    pub is_over: bool,
}

/// Volumes of which snapshots may go, after `after`.
pub async fn list_with_snapshots(
    connection: &mut PgConnection,
    after: Uuid,
    limit: i64,
) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "select volume_id from volumes v
         where volume_id > $1 and (deleted_at is null or deleted_at < now() - make_interval(secs => $3))
             and exists (select from snapshots s where s.volume_id = v.volume_id and s.deleted_at is null)
         order by volume_id limit $2",
        after,
        limit,
        grace(),
    )
    .fetch_all(connection)
    .await
}

/// Locks a volume, deleted or not, against whoever commits or removes, until the transaction ends.
pub async fn lock(connection: &mut PgConnection, volume: Uuid) -> sqlx::Result<Option<KeepingRow>> {
    sqlx::query_as!(
        KeepingRow,
        r#"select retention, coalesce(deleted_at < now() - make_interval(secs => $2), false) as "is_over!"
         from volumes where volume_id = $1 for no key update"#,
        volume,
        grace(),
    )
    .fetch_optional(connection)
    .await
}

/// Says of snapshots that nobody keeps them, unless somebody holds one, or a run that is under way relies on it.
pub async fn update_deleted(
    connection: &mut PgConnection,
    snapshots: &[Uuid],
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update snapshots s set deleted_at = now()
         where snapshot_id = any($1) and deleted_at is null and held_at is null
             and not exists (select from backup_runs r where r.parent_id = s.snapshot_id and r.state = 'running')",
        snapshots,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// When a locked volume was last protected, by what it has left.
pub async fn update_protected(connection: &mut PgConnection, volume: Uuid) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update volumes v set
             last_snapshot_at = (select max(s.at) from snapshots s where s.volume_id = v.volume_id and s.deleted_at is null),
             last_ok_at = (select max(s.at) from snapshots s
                 where s.volume_id = v.volume_id and s.deleted_at is null and s.is_whole)
         where volume_id = $1",
        volume,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A snapshot whose time has come.
#[derive(Clone, Debug)]
pub struct DeletedRow {
    pub snapshot_id: Uuid,
    pub volume_id: Uuid,
    pub has_object: bool,
}

/// Snapshots that were deleted long enough ago, oldest first, after these.
pub async fn list_deleted(
    connection: &mut PgConnection,
    limit: i64,
) -> sqlx::Result<Vec<DeletedRow>> {
    sqlx::query_as!(
        DeletedRow,
        r#"select snapshot_id, volume_id, size_bytes is not null as "has_object!" from snapshots
         where deleted_at < now() - make_interval(secs => $2) order by deleted_at limit $1"#,
        limit,
        grace(),
    )
    .fetch_all(connection)
    .await
}

/// Removes the row of a snapshot that was deleted.
pub async fn delete_snapshot(connection: &mut PgConnection, snapshot: Uuid) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from snapshots where snapshot_id = $1 and deleted_at is not null",
        snapshot,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A volume that may have garbage.
#[derive(Clone, Copy, Debug)]
pub struct CollectedRow {
    pub volume_id: Uuid,
    /// It is time to look at all of its packs.
    pub is_due: bool,
}

/// Volumes whose packs were last looked at a day ago, or that have packs to remove; after `after`.
pub async fn list_to_collect(
    connection: &mut PgConnection,
    after: Uuid,
    limit: i64,
) -> sqlx::Result<Vec<CollectedRow>> {
    sqlx::query_as!(
        CollectedRow,
        r#"select volume_id, d.is_due as "is_due!" from volumes v
         cross join lateral (select coalesce(v.collected_at < now() - interval '1 day', true)
             and not exists (select from backup_runs r where r.volume_id = v.volume_id and r.state = 'running') as is_due) as d
         where volume_id > $1 and (d.is_due or exists (
             select from packs p where p.volume_id = v.volume_id and p.condemned_at < now() - make_interval(secs => $3)))
         order by volume_id limit $2"#,
        after,
        limit,
        grace(),
    )
    .fetch_all(connection)
    .await
}

/// Says that a volume's packs were all looked at.
pub async fn update_collected(connection: &mut PgConnection, volume: Uuid) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update volumes set collected_at = now() where volume_id = $1",
        volume,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Whether a run of the volume is under way: it may rely on every chunk that is not condemned.
pub async fn is_running(connection: &mut PgConnection, volume: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from backup_runs where volume_id = $1 and state = 'running') as "is_running!""#,
        volume,
    )
    .fetch_one(connection)
    .await
}

/// The snapshots of a volume that keep chunks.
pub async fn list_keeping(connection: &mut PgConnection, volume: Uuid) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "select snapshot_id from snapshots where volume_id = $1 and deleted_at is null and refs is not null",
        volume,
    )
    .fetch_all(connection)
    .await
}

/// Chunks that stand for lost ones of the same content, at most so many.
pub async fn list_substitutes(
    connection: &mut PgConnection,
    volume: Uuid,
    limit: i64,
) -> sqlx::Result<Vec<(Vec<u8>, i32)>> {
    let rows = sqlx::query!(
        "select distinct o.salt, c.counter
         from origins lo join chunks l on l.origin_id = lo.origin_id and l.is_lost
         join chunks c on c.chunk_id = l.chunk_id and not c.is_lost
         join origins o on o.origin_id = c.origin_id and o.volume_id = lo.volume_id
         where lo.volume_id = $1 limit $2",
        volume,
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.salt, row.counter))
        .collect())
}

/// A pack to look at.
#[derive(Clone, Debug)]
pub struct PackRow {
    pub pack_id: i64,
    pub hash: Vec<u8>,
    pub kind: i16,
    pub key_id: Vec<u8>,
    pub size_bytes: i32,
    pub is_lost: bool,
}

/// A volume's packs that are old enough to go and are not condemned, after `after`.
pub async fn list_packs(
    connection: &mut PgConnection,
    volume: Uuid,
    after: i64,
    limit: i64,
) -> sqlx::Result<Vec<PackRow>> {
    sqlx::query_as!(
        PackRow,
        r#"select pack_id, hash, kind, key_id, size_bytes, lost_at is not null as "is_lost!" from packs
         where volume_id = $1 and pack_id > $2 and condemned_at is null
             and stored_at < now() - make_interval(secs => $4)
         order by pack_id limit $3"#,
        volume,
        after,
        limit,
        grace(),
    )
    .fetch_all(connection)
    .await
}

/// A volume's packs that were condemned long enough ago, after `after`.
pub async fn list_condemned(
    connection: &mut PgConnection,
    volume: Uuid,
    after: i64,
    limit: i64,
) -> sqlx::Result<Vec<PackRow>> {
    sqlx::query_as!(
        PackRow,
        r#"select pack_id, hash, kind, key_id, size_bytes, lost_at is not null as "is_lost!" from packs
         where volume_id = $1 and pack_id > $2 and condemned_at < now() - make_interval(secs => $4)
         order by pack_id limit $3"#,
        volume,
        after,
        limit,
        grace(),
    )
    .fetch_all(connection)
    .await
}

/// The chunks of packs, those of one origin together.
#[derive(Clone, Debug)]
pub struct ChunksRow {
    pub pack_id: i64,
    pub salt: Vec<u8>,
    pub counters: Vec<i32>,
    pub lengths: Vec<i32>,
}

/// What is in these packs.
pub async fn list_chunks(
    connection: &mut PgConnection,
    packs: &[i64],
) -> sqlx::Result<Vec<ChunksRow>> {
    sqlx::query_as!(
        ChunksRow,
        r#"select c.pack_id, o.salt, array_agg(c.counter) as "counters!", array_agg(c.length_bytes) as "lengths!"
         from chunks c join origins o using (origin_id) where c.pack_id = any($1)
         group by c.pack_id, o.origin_id"#,
        packs,
    )
    .fetch_all(connection)
    .await
}

/// Condemns packs: nobody is offered their chunks any more, and their time runs.
pub async fn condemn(connection: &mut PgConnection, packs: &[i64]) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update packs set condemned_at = now()
         where pack_id = any($1) and condemned_at is null and stored_at < now() - make_interval(secs => $2)",
        packs,
        grace(),
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Takes a condemnation back.
pub async fn spare(connection: &mut PgConnection, packs: &[i64]) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update packs set condemned_at = null where pack_id = any($1) and condemned_at is not null",
        packs,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Locks a pack that is still condemned, and was long enough ago, until its row is gone.
pub async fn lock_condemned(connection: &mut PgConnection, pack: i64) -> sqlx::Result<bool> {
    let found = sqlx::query_scalar!(
        "select pack_id from packs where pack_id = $1 and condemned_at < now() - make_interval(secs => $2) for update",
        pack,
        grace(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(found.is_some())
}

/// Removes a pack's chunks, the origins that have none any more, and its row.
pub async fn delete_pack(connection: &mut PgConnection, pack: i64) -> sqlx::Result<()> {
    let origins = sqlx::query_scalar!(
        "with gone as (delete from chunks where pack_id = $1 returning origin_id) select distinct origin_id from gone",
        pack,
    );
    let origins = origins.fetch_all(&mut *connection).await?;
    sqlx::query!(
        "delete from origins o where origin_id = any($1) and not exists (select from chunks c where c.origin_id = o.origin_id)",
        &origins,
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!("delete from packs where pack_id = $1", pack)
        .execute(connection)
        .await
        .map(drop)
}

/// Where a chunk lies after a move.
#[derive(Clone, Debug, Default)]
pub struct Moved {
    pub origins: Vec<i64>,
    pub counters: Vec<i32>,
    pub offsets: Vec<i32>,
    pub lengths: Vec<i32>,
}

/// Says of chunks of these packs that they lie in another.
pub async fn update_moved(
    connection: &mut PgConnection,
    (from, to): (&[i64], i64),
    moved: &Moved,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update chunks c set pack_id = $2, offset_bytes = m.offset_bytes, length_bytes = m.length_bytes
         from unnest($3::bigint[], $4::integer[], $5::integer[], $6::integer[])
             as m (origin_id, counter, offset_bytes, length_bytes)
         where c.origin_id = m.origin_id and c.counter = m.counter and c.pack_id = any($1) and not c.is_lost",
        from,
        to,
        &moved.origins,
        &moved.counters,
        &moved.offsets,
        &moved.lengths,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Those of these packs that the volume knows.
pub async fn list_known_packs(
    connection: &mut PgConnection,
    volume: VolumeId,
    hashes: &[Vec<u8>],
) -> sqlx::Result<Vec<Vec<u8>>> {
    sqlx::query_scalar!(
        "select hash from packs where volume_id = $1 and hash = any($2)",
        volume.0,
        hashes,
    )
    .fetch_all(connection)
    .await
}

/// Those of these snapshots that are known.
pub async fn list_known_snapshots(
    connection: &mut PgConnection,
    snapshots: &[Uuid],
) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "select snapshot_id from snapshots where snapshot_id = any($1)",
        snapshots,
    )
    .fetch_all(connection)
    .await
}

/// Before this an object in no row has had its time.
pub async fn find_orphans_before(
    connection: &mut PgConnection,
) -> sqlx::Result<time::OffsetDateTime> {
    sqlx::query_scalar!(
        r#"select now() - make_interval(secs => $1) as "before!""#,
        grace(),
    )
    .fetch_one(connection)
    .await
}

/// Volumes that were deleted long enough ago and have neither snapshot nor pack.
pub async fn list_empty(connection: &mut PgConnection, limit: i64) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "select volume_id from volumes v
         where deleted_at < now() - make_interval(secs => $2)
             and not exists (select from snapshots s where s.volume_id = v.volume_id)
             and not exists (select from packs p where p.volume_id = v.volume_id)
             and not exists (select from backup_runs r where r.volume_id = v.volume_id and r.state = 'running')
         order by deleted_at limit $1",
        limit,
        grace(),
    )
    .fetch_all(connection)
    .await
}

/// Removes all rows of such a volume.
pub async fn delete_volume(connection: &mut PgConnection, volume: Uuid) -> sqlx::Result<u64> {
    sqlx::query!("delete from origins where volume_id = $1", volume)
        .execute(&mut *connection)
        .await?;
    sqlx::query!("delete from backup_grants where volume_id = $1", volume)
        .execute(&mut *connection)
        .await?;
    sqlx::query!("delete from drills where volume_id = $1", volume)
        .execute(&mut *connection)
        .await?;
    sqlx::query!("delete from backup_runs where volume_id = $1", volume)
        .execute(&mut *connection)
        .await?;
    sqlx::query!("delete from volume_keys where volume_id = $1", volume)
        .execute(&mut *connection)
        .await?;
    let done = sqlx::query!(
        "delete from volumes where volume_id = $1 and deleted_at is not null",
        volume
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
