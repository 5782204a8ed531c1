//! Which version of `packages` and `updates` a host's rows are, and the parts of those that are not there whole.

use infratrack_shared::digest::Digest;
use infratrack_shared::ids::HostId;
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// A version that is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    pub stream_ordinal: i64,
    pub version: i64,
    pub hash: Vec<u8>,
    pub body: Value,
}

/// A version to store.
#[derive(Clone, Debug)]
pub struct Version<'a> {
    pub host: HostId,
    pub key: &'a str,
    pub stream_ordinal: i64,
    pub version: i64,
    pub hash: Digest,
}

/// What is stored of a host under a key, locked until the transaction ends; the host's row in `hosts` is not.
pub async fn lock(
    connection: &mut PgConnection,
    host: HostId,
    key: &str,
) -> sqlx::Result<Option<Stored>> {
    sqlx::query_as!(
        Stored,
        "select stream_ordinal, version, hash, body from host_states where host_id = $1 and key = $2 for update",
        host.0,
        key,
    )
    .fetch_optional(connection)
    .await
}

/// Notes that a newer version is what is stored already.
pub async fn update_version(
    connection: &mut PgConnection,
    version: &Version<'_>,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update host_states set stream_ordinal = $3, version = $4, received_at = $5
         where host_id = $1 and key = $2",
        version.host.0,
        version.key,
        version.stream_ordinal,
        version.version,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Notes that a newer version is stored.
pub async fn upsert(
    connection: &mut PgConnection,
    version: &Version<'_>,
    body: &Value,
    skipped: i64,
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into host_states
             (host_id, key, stream_ordinal, version, hash, body, skipped, received_at, changed_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $8)
         on conflict (host_id, key) do update
         set stream_ordinal = excluded.stream_ordinal, version = excluded.version, hash = excluded.hash,
             body = excluded.body, skipped = excluded.skipped, received_at = excluded.received_at,
             changed_at = excluded.changed_at",
        version.host.0,
        version.key,
        version.stream_ordinal,
        version.version,
        version.hash.as_bytes().as_slice(),
        body,
        skipped,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Stores a part; one that is there stays. Its bytes are MessagePack.
pub async fn insert_part(
    connection: &mut PgConnection,
    version: &Version<'_>,
    part: i32,
    body: &[u8],
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into host_state_parts (host_id, key, stream_ordinal, version, part, body, received_at)
         values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing",
        version.host.0,
        version.key,
        version.stream_ordinal,
        version.version,
        part,
        body,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// How many parts of a version are there.
pub async fn count_parts(
    connection: &mut PgConnection,
    version: &Version<'_>,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from host_state_parts
           where host_id = $1 and key = $2 and stream_ordinal = $3 and version = $4"#,
        version.host.0,
        version.key,
        version.stream_ordinal,
        version.version,
    )
    .fetch_one(connection)
    .await
}

/// The parts of a version, in order.
pub async fn list_parts(
    connection: &mut PgConnection,
    version: &Version<'_>,
) -> sqlx::Result<Vec<Vec<u8>>> {
    sqlx::query_scalar!(
        "select body from host_state_parts
         where host_id = $1 and key = $2 and stream_ordinal = $3 and version = $4 order by part",
        version.host.0,
        version.key,
        version.stream_ordinal,
        version.version,
    )
    .fetch_all(connection)
    .await
}

/// Deletes the parts of this version, and of those that it takes the place of.
pub async fn delete_parts(
    connection: &mut PgConnection,
    version: &Version<'_>,
    with_own: bool,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from host_state_parts
         where host_id = $1 and key = $2
           and ((stream_ordinal, version) < ($3, $4) or $5 and (stream_ordinal, version) = ($3, $4))",
        version.host.0,
        version.key,
        version.stream_ordinal,
        version.version,
        with_own,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes what came before `before` and never became whole.
pub async fn delete_old_parts(
    connection: &mut PgConnection,
    before: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from host_state_parts where received_at < $1",
        before
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// The hashes of what is stored of a host, by key.
pub async fn list_hashes(
    connection: &mut PgConnection,
    host: HostId,
) -> sqlx::Result<Vec<(String, Digest)>> {
    let rows = sqlx::query!(
        "select key, hash from host_states where host_id = $1",
        host.0
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| Some((row.key, Digest::from_slice(&row.hash)?)))
        .collect())
}

/// How what is stored of a host under a key was read, and when it was last reported.
pub async fn find(
    connection: &mut PgConnection,
    host: HostId,
    key: &str,
) -> sqlx::Result<Option<(Value, OffsetDateTime)>> {
    let row = sqlx::query!(
        "select body, received_at from host_states where host_id = $1 and key = $2",
        host.0,
        key,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| (row.body, row.received_at)))
}

/// Notes the hash over all of them, which heartbeats are compared with.
pub async fn update_inventory_hash(
    connection: &mut PgConnection,
    host: HostId,
    hash: Digest,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update host_liveness set inventory_hash = $2 where host_id = $1",
        host.0,
        hash.as_bytes().as_slice(),
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
