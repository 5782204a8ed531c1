//! Snapshots of volumes: what there is to restore, and which chunks it needs.

use infratrack_shared::ids::{BackupRunId, HostId, SnapshotId, VolumeId};
use infratrack_shared::wire::backup::Snapshot;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::unix_millis;

/// A snapshot to commit.
#[derive(Clone, Debug)]
pub struct NewSnapshot<'a> {
    pub snapshot: SnapshotId,
    pub volume: VolumeId,
    pub run: BackupRunId,
    pub host: HostId,
    pub key_id: Option<&'a [u8]>,
    pub kind: &'a str,
    pub is_whole: bool,
    pub at: OffsetDateTime,
    pub is_clock_wrong: bool,
    pub arrived_at: OffsetDateTime,
    pub files: i64,
    pub bytes: i64,
    /// `None`: another tool has it.
    pub object: Option<Object<'a>>,
}

/// What of a snapshot is in the store.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    pub size_bytes: i32,
    pub hash: [u8; 32],
    pub refs: &'a [u8],
    pub chunks: i64,
}

/// A snapshot by what it is told from others, and how its run may end by it.
#[derive(Clone, Debug)]
pub struct KnownRow {
    pub volume_id: Uuid,
    pub run_id: Uuid,
    pub hash: Option<Vec<u8>>,
    pub is_whole: bool,
    pub is_clock_wrong: bool,
    pub is_deleted: bool,
}

/// Commits a snapshot, where there is none of its id.
pub async fn insert(connection: &mut PgConnection, new: &NewSnapshot<'_>) -> sqlx::Result<u64> {
    let object = new.object;
    let hash = object.map(|object| object.hash.to_vec());
    let done = sqlx::query!(
        "insert into snapshots (snapshot_id, volume_id, run_id, host_id, key_id, kind, is_whole, at, is_clock_wrong,
             arrived_at, files, bytes, size_bytes, hash, refs, chunks)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
         on conflict do nothing",
        new.snapshot.0,
        new.volume.0,
        new.run.0,
        new.host.0,
        new.key_id,
        new.kind,
        new.is_whole,
        new.at,
        new.is_clock_wrong,
        new.arrived_at,
        new.files,
        new.bytes,
        object.map(|object| object.size_bytes),
        hash,
        object.map(|object| object.refs),
        object.map_or(0, |object| object.chunks),
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A snapshot, whose ever it is, deleted or not.
pub async fn find(
    connection: &mut PgConnection,
    snapshot: SnapshotId,
) -> sqlx::Result<Option<KnownRow>> {
    sqlx::query_as!(
        KnownRow,
        r#"select volume_id, run_id, hash, is_whole, is_clock_wrong, deleted_at is not null as "is_deleted!"
         from snapshots where snapshot_id = $1"#,
        snapshot.0,
    )
    .fetch_optional(connection)
    .await
}

/// What a snapshot of this volume needs, as it is on the wire. `None`: there is none, or it was deleted.
pub async fn find_refs(
    connection: &mut PgConnection,
    volume: VolumeId,
    snapshot: SnapshotId,
) -> sqlx::Result<Option<Vec<u8>>> {
    let refs = sqlx::query_scalar!(
        "select refs from snapshots where snapshot_id = $2 and volume_id = $1 and deleted_at is null",
        volume.0,
        snapshot.0,
    )
    .fetch_optional(connection)
    .await?;
    Ok(refs.flatten())
}

/// How long the object of a volume's snapshot is.
pub async fn find_size(
    connection: &mut PgConnection,
    volume: VolumeId,
    snapshot: SnapshotId,
) -> sqlx::Result<Option<i32>> {
    let size = sqlx::query_scalar!(
        "select size_bytes from snapshots where snapshot_id = $2 and volume_id = $1 and deleted_at is null",
        volume.0,
        snapshot.0,
    )
    .fetch_optional(connection)
    .await?;
    Ok(size.flatten())
}

struct ListedRow {
    snapshot_id: Uuid,
    host_id: Uuid,
    at: OffsetDateTime,
    is_whole: bool,
    files: i64,
    bytes: i64,
}

impl ListedRow {
    fn to_wire(&self) -> Snapshot {
        Snapshot {
            id: SnapshotId(self.snapshot_id),
            host: HostId(self.host_id),
            at: unix_millis(self.at),
            is_whole: self.is_whole,
            files: u64::try_from(self.files).unwrap_or_default(),
            bytes: u64::try_from(self.bytes).unwrap_or_default(),
        }
    }
}

/// What there is to restore of a volume, newest first, those before `before`.
pub async fn list(
    connection: &mut PgConnection,
    volume: VolumeId,
    before: Option<SnapshotId>,
    limit: i64,
) -> sqlx::Result<Vec<Snapshot>> {
    let rows = sqlx::query_as!(
        ListedRow,
        "select snapshot_id, host_id, at, is_whole, files, bytes from snapshots
         where volume_id = $1 and deleted_at is null and size_bytes is not null
             and ($2::uuid is null or (at, snapshot_id) <
                 (select b.at, b.snapshot_id from snapshots b where b.snapshot_id = $2 and b.volume_id = $1))
         order by at desc, snapshot_id desc limit $3",
        volume.0,
        before.map(|before| before.0) as _,
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().map(ListedRow::to_wire).collect())
}

/// The newest of a volume with everything in it.
pub async fn find_last_ok(
    connection: &mut PgConnection,
    volume: VolumeId,
) -> sqlx::Result<Option<Snapshot>> {
    let row = sqlx::query_as!(
        ListedRow,
        "select snapshot_id, host_id, at, is_whole, files, bytes from snapshots
         where volume_id = $1 and deleted_at is null and is_whole order by at desc, snapshot_id desc limit 1",
        volume.0,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.as_ref().map(ListedRow::to_wire))
}
