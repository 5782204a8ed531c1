//! Packs in the store of objects, and the chunks in them: where each is, and whether it is lost.

use std::collections::HashMap;

use infratrack_shared::backup::{Algorithm, Entry, PackHash, Refs, Salt};
use infratrack_shared::ids::VolumeId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// A pack that is in the store.
#[derive(Clone, Copy, Debug)]
pub struct NewPack<'a> {
    pub volume: VolumeId,
    pub hash: PackHash,
    /// 1: content, 2: trees.
    pub kind: i16,
    pub key_id: &'a [u8],
    pub size_bytes: i32,
}

/// A pack as it stands.
#[derive(Clone, Copy, Debug)]
pub struct PackRow {
    pub pack_id: i64,
    pub size_bytes: i32,
    pub condemned_at: Option<OffsetDateTime>,
    pub lost_at: Option<OffsetDateTime>,
}

impl PackRow {
    /// It is there, and stays.
    pub fn is_sound(&self) -> bool {
        self.condemned_at.is_none() && self.lost_at.is_none()
    }
}

/// A pack of a volume.
pub async fn find(
    connection: &mut PgConnection,
    volume: VolumeId,
    hash: PackHash,
) -> sqlx::Result<Option<PackRow>> {
    sqlx::query_as!(
        PackRow,
        "select pack_id, size_bytes, condemned_at, lost_at from packs where volume_id = $1 and hash = $2",
        volume.0,
        hash.as_bytes().as_slice(),
    )
    .fetch_optional(connection)
    .await
}

/// Likewise, locked until the transaction ends. Who removes a pack's object holds this lock until its row is gone.
pub async fn lock(
    connection: &mut PgConnection,
    volume: VolumeId,
    hash: PackHash,
) -> sqlx::Result<Option<PackRow>> {
    sqlx::query_as!(
        PackRow,
        "select pack_id, size_bytes, condemned_at, lost_at from packs where volume_id = $1 and hash = $2 for update",
        volume.0,
        hash.as_bytes().as_slice(),
    )
    .fetch_optional(connection)
    .await
}

/// Adds a pack; `None` where it is known.
pub async fn insert(connection: &mut PgConnection, new: &NewPack<'_>) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar!(
        "insert into packs (volume_id, hash, kind, key_id, size_bytes, stored_at) values ($1, $2, $3, $4, $5, now())
         on conflict do nothing returning pack_id",
        new.volume.0,
        new.hash.as_bytes().as_slice(),
        new.kind,
        new.key_id,
        new.size_bytes,
    )
    .fetch_optional(connection)
    .await
}

/// A pack that was condemned or lost is there again.
pub async fn update_sound(connection: &mut PgConnection, pack_id: i64) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update packs set condemned_at = null, lost_at = null, stored_at = now() where pack_id = $1",
        pack_id,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// The chunks of a pack that is there again are, too.
pub async fn update_chunks_found(connection: &mut PgConnection, pack_id: i64) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update chunks set is_lost = false where pack_id = $1 and is_lost",
        pack_id,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Adds origins, sorted by salt; those that are known stay.
pub async fn insert_origins(
    connection: &mut PgConnection,
    volume: VolumeId,
    origins: &[(Salt, Algorithm)],
) -> sqlx::Result<u64> {
    let (salts, algorithms): (Vec<_>, Vec<_>) = origins
        .iter()
        .map(|(salt, algorithm)| (salt.as_bytes().to_vec(), i16::from(u8::from(*algorithm))))
        .unzip();
    let done = sqlx::query!(
        "insert into origins (volume_id, salt, algorithm)
         select $1, i.salt, i.algorithm from unnest($2::bytea[], $3::smallint[]) as i (salt, algorithm)
         on conflict do nothing",
        volume.0,
        &salts,
        &algorithms,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// The ids of a volume's origins, with what their algorithm is.
pub async fn list_origins(
    connection: &mut PgConnection,
    volume: VolumeId,
    origins: &[(Salt, Algorithm)],
) -> sqlx::Result<HashMap<Vec<u8>, (i64, i16)>> {
    let salts = origins.iter().map(|(salt, _)| salt.as_bytes().to_vec());
    let rows = sqlx::query!(
        "select salt, origin_id, algorithm from origins where volume_id = $1 and salt = any($2)",
        volume.0,
        &salts.collect::<Vec<_>>(),
    )
    .fetch_all(connection)
    .await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| (row.salt, (row.origin_id, row.algorithm)))
        .collect())
}

/// Adds the chunks of a pack, sorted by origin and counter. One that is known from another pack stays there, unless it
/// is lost there.
pub async fn insert_chunks(
    connection: &mut PgConnection,
    pack_id: i64,
    chunks: &[(i64, &Entry)],
) -> sqlx::Result<u64> {
    let origins: Vec<_> = chunks.iter().map(|(origin, _)| *origin).collect();
    let entries = || chunks.iter().map(|(_, entry)| entry);
    let counters: Vec<_> = entries().map(|e| i32::from(e.sealed.counter)).collect();
    let ids: Vec<_> = entries().map(|e| e.id.as_bytes().to_vec()).collect();
    let int = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let offsets: Vec<_> = entries().map(|e| int(e.range.start)).collect();
    let lengths = entries().map(|e| int(e.range.end - e.range.start));
    let lengths: Vec<_> = lengths.collect();
    let done = sqlx::query!(
        "insert into chunks (origin_id, counter, chunk_id, pack_id, offset_bytes, length_bytes)
         select i.origin_id, i.counter, i.chunk_id, $1, i.offset_bytes, i.length_bytes
         from unnest($2::bigint[], $3::integer[], $4::bytea[], $5::integer[], $6::integer[])
             as i (origin_id, counter, chunk_id, offset_bytes, length_bytes)
         on conflict (origin_id, counter) do update set pack_id = excluded.pack_id, offset_bytes = excluded.offset_bytes,
             length_bytes = excluded.length_bytes, is_lost = false
         where chunks.is_lost and chunks.chunk_id = excluded.chunk_id",
        pack_id,
        &origins,
        &counters,
        &ids,
        &offsets,
        &lengths,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A chunk that need not be sent.
#[derive(Clone, Debug)]
pub struct HeldRow {
    pub chunk_id: Vec<u8>,
    pub salt: Vec<u8>,
    pub counter: i32,
}

/// Those of these chunks that a volume has and keeps.
pub async fn list_held(
    connection: &mut PgConnection,
    volume: VolumeId,
    ids: &[Vec<u8>],
) -> sqlx::Result<Vec<HeldRow>> {
    sqlx::query_as!(
        HeldRow,
        "select c.chunk_id, o.salt, c.counter
         from chunks c join origins o using (origin_id) join packs p using (pack_id)
         where c.chunk_id = any($2) and o.volume_id = $1 and not c.is_lost and p.lost_at is null and p.condemned_at is null
         order by c.origin_id, c.counter",
        volume.0,
        ids,
    )
    .fetch_all(connection)
    .await
}

/// Where a chunk is.
#[derive(Clone, Debug)]
pub struct PlaceRow {
    pub origin_id: i64,
    pub chunk_id: Vec<u8>,
    pub hash: Vec<u8>,
    pub offset_bytes: i32,
    pub length_bytes: i32,
    pub salt: Vec<u8>,
    pub algorithm: i16,
    pub counter: i32,
}

/// Where these chunks of a volume are, each once, rather where it stays.
pub async fn list_places(
    connection: &mut PgConnection,
    volume: VolumeId,
    ids: &[Vec<u8>],
) -> sqlx::Result<Vec<PlaceRow>> {
    sqlx::query_as!(
        PlaceRow,
        "select distinct on (c.chunk_id) c.origin_id, c.chunk_id, p.hash, c.offset_bytes, c.length_bytes, o.salt, o.algorithm, c.counter
         from chunks c join origins o using (origin_id) join packs p using (pack_id)
         where c.chunk_id = any($2) and o.volume_id = $1 and not c.is_lost and p.lost_at is null
         order by c.chunk_id, p.condemned_at is not null, c.origin_id, c.counter",
        volume.0,
        ids,
    )
    .fetch_all(connection)
    .await
}

/// Chunks of one origin, whose counters are from `first` to `last`.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub origin_id: i64,
    pub first: i32,
    pub last: i32,
}

/// Where the chunks of these windows are, without those of packs that are to go.
pub async fn list_in_windows(
    connection: &mut PgConnection,
    windows: &[Window],
) -> sqlx::Result<Vec<PlaceRow>> {
    let origins: Vec<_> = windows.iter().map(|window| window.origin_id).collect();
    let first: Vec<_> = windows.iter().map(|window| window.first).collect();
    let last: Vec<_> = windows.iter().map(|window| window.last).collect();
    sqlx::query_as!(
        PlaceRow,
        "select c.origin_id, c.chunk_id, p.hash, c.offset_bytes, c.length_bytes, o.salt, o.algorithm, c.counter
         from unnest($1::int8[], $2::int4[], $3::int4[]) w (origin_id, first, last)
         join chunks c on c.origin_id = w.origin_id and c.counter between w.first and w.last
         join origins o on o.origin_id = c.origin_id join packs p using (pack_id)
         where not c.is_lost and p.lost_at is null and p.condemned_at is null",
        &origins,
        &first,
        &last,
    )
    .fetch_all(connection)
    .await
}

/// Lost chunks of a volume, at most so many.
pub async fn list_lost(
    connection: &mut PgConnection,
    volume: VolumeId,
    limit: i64,
) -> sqlx::Result<Vec<(Vec<u8>, i32)>> {
    let rows = sqlx::query!(
        "select o.salt, c.counter from origins o join chunks c using (origin_id)
         where o.volume_id = $1 and c.is_lost limit $2",
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

/// Ranges of counters of origins, one beside another, as statements take them.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    salts: Vec<Vec<u8>>,
    first: Vec<i32>,
    last: Vec<i32>,
}

impl Ranges {
    /// Everything that a snapshot needs.
    pub fn of(refs: &Refs) -> Self {
        let mut all = Self::default();
        for (salt, ranges) in refs.origins() {
            for (first, last) in ranges {
                all.salts.push(salt.as_bytes().to_vec());
                all.first.push(i32::from(*first));
                all.last.push(i32::from(*last));
            }
        }
        all
    }

    pub fn is_empty(&self) -> bool {
        self.salts.is_empty()
    }
}

/// Those of the ranges, at most so many, of which the volume lacks a chunk. One walk of the index for each range.
pub async fn list_torn(
    connection: &mut PgConnection,
    volume: Uuid,
    all: &Ranges,
    limit: i64,
) -> sqlx::Result<Ranges> {
    let rows = sqlx::query!(
        r#"select w.salt as "salt!", w.first as "first!", w.last as "last!"
         from unnest($2::bytea[], $3::integer[], $4::integer[]) as w (salt, first, last)
         left join origins o on o.volume_id = $1 and o.salt = w.salt
         cross join lateral (
             select count(*) as chunks from chunks c
             where c.origin_id = o.origin_id and c.counter between w.first and w.last and not c.is_lost
         ) as held
         where held.chunks <= w.last - w.first
         limit $5"#,
        volume,
        &all.salts,
        &all.first,
        &all.last,
        limit,
    )
    .fetch_all(connection)
    .await?;
    let mut torn = Ranges::default();
    for row in rows {
        torn.salts.push(row.salt);
        torn.first.push(row.first);
        torn.last.push(row.last);
    }
    Ok(torn)
}

/// The chunks of these ranges that the volume lacks, at most so many.
pub async fn list_missing(
    connection: &mut PgConnection,
    volume: Uuid,
    torn: &Ranges,
    limit: i64,
) -> sqlx::Result<Vec<(Vec<u8>, i32)>> {
    let rows = sqlx::query!(
        r#"select w.salt as "salt!", n.counter as "counter!"
         from unnest($2::bytea[], $3::integer[], $4::integer[]) as w (salt, first, last)
         cross join lateral generate_series(w.first, w.last) as n (counter)
         where not exists (
             select from origins o join chunks c using (origin_id)
             where o.volume_id = $1 and o.salt = w.salt and c.counter = n.counter and not c.is_lost)
         limit $5"#,
        volume,
        &torn.salts,
        &torn.first,
        &torn.last,
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.salt, row.counter))
        .collect())
}

/// The chunks of these ranges that are in packs which are to go, at most so many.
pub async fn list_condemned(
    connection: &mut PgConnection,
    volume: Uuid,
    all: &Ranges,
    limit: i64,
) -> sqlx::Result<Vec<(Vec<u8>, i32)>> {
    let rows = sqlx::query!(
        "select o.salt, c.counter
         from packs p join chunks c using (pack_id) join origins o using (origin_id)
         join unnest($2::bytea[], $3::integer[], $4::integer[]) as w (salt, first, last)
             on o.salt = w.salt and c.counter between w.first and w.last
         where p.volume_id = $1 and p.condemned_at is not null
         limit $5",
        volume,
        &all.salts,
        &all.first,
        &all.last,
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.salt, row.counter))
        .collect())
}

/// Lets the statements of this transaction take longer, and it wait for the store: whoever asks has many chunks.
pub async fn allow_time(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!(
        "select set_config('statement_timeout', '60s', true) as statement,
             set_config('idle_in_transaction_session_timeout', '200s', true) as idle"
    )
    .fetch_one(connection)
    .await
    .map(drop)
}
