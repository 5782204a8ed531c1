//! What is: the newest version of each state key, and what it was before.

use infratrack_shared::digest::Digest;
use infratrack_shared::ids::{HostId, InstanceId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// One state version to store.
#[derive(Clone, Debug)]
pub struct Fact {
    pub host: HostId,
    pub key: String,
    pub stream_ordinal: i64,
    pub version: u64,
    pub hash: Digest,
    pub body: serde_json::Value,
    /// The run of the agent that said so.
    pub instance: InstanceId,
}

/// A fact as it is shown.
#[derive(Clone, Debug, serde::Serialize, utoipa::ToSchema)]
pub struct FactRow {
    pub key: String,
    pub body: serde_json::Value,
    #[serde(with = "time::serde::rfc3339")]
    pub changed_at: OffsetDateTime,
}

/// Stores the facts that are newer than what is there, and a change row for each that differs.
/// Sorted by (host, key), without duplicates. Answers how many changes there were.
pub async fn upsert(
    connection: &mut PgConnection,
    facts: &[&Fact],
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let hosts: Vec<_> = facts.iter().map(|fact| fact.host.0).collect();
    let keys: Vec<_> = facts.iter().map(|fact| fact.key.clone()).collect();
    let ordinals: Vec<_> = facts.iter().map(|fact| fact.stream_ordinal).collect();
    let versions: Vec<_> = facts.iter().map(|fact| fact.version as i64).collect();
    let hashes: Vec<_> = facts
        .iter()
        .map(|fact| fact.hash.as_bytes().to_vec())
        .collect();
    let bodies: Vec<_> = facts.iter().map(|fact| fact.body.clone()).collect();
    let instances: Vec<_> = facts.iter().map(|fact| fact.instance.0).collect();
    let done = sqlx::query!(
        "with incoming as (
             select * from unnest($1::uuid[], $2::text[], $3::int8[], $4::int8[], $5::bytea[], $6::jsonb[],
                                  $8::uuid[])
                 as i (host_id, key, stream_ordinal, version, hash, body, instance)
         ), old as (
             select f.host_id, f.key, f.hash, f.body from facts f join incoming using (host_id, key)
         ), stored as (
             insert into facts (host_id, key, stream_ordinal, version, hash, body, changed_at, instance)
             select host_id, key, stream_ordinal, version, hash, body, $7, instance from incoming
             on conflict (host_id, key) do update
             set stream_ordinal = excluded.stream_ordinal, version = excluded.version,
                 hash = excluded.hash, body = excluded.body, instance = excluded.instance,
                 changed_at = case when facts.hash = excluded.hash or facts.body = excluded.body then facts.changed_at
                              else excluded.changed_at end
             where (facts.stream_ordinal, facts.version) < (excluded.stream_ordinal, excluded.version)
             returning host_id, key, hash, body, instance
         )
         insert into fact_changes (host_id, changed_at, key, old_body, new_body, instance)
         select s.host_id, $7, s.key, o.body, s.body, s.instance
         from stored s left join old o using (host_id, key)
         where o.hash is distinct from s.hash and o.body is distinct from s.body
         on conflict (host_id, changed_at, key) do nothing",
        &hosts,
        &keys,
        &ordinals,
        &versions,
        &hashes,
        &bodies,
        now,
        &instances,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes the facts that a newer list of `keys` leaves out, and adds a change row for each. Answers how
/// many there were.
pub async fn delete_unlisted(
    connection: &mut PgConnection,
    list: &Fact,
    keys: &[String],
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "with gone as (
             delete from facts
             where host_id = $1 and key like 'facts.%' and key <> all($2)
                   and (stream_ordinal, version) < ($3, $4)
             returning key, body
         )
         insert into fact_changes (host_id, changed_at, key, old_body)
         select $1, $5, key, body from gone
         on conflict (host_id, changed_at, key) do nothing",
        list.host.0,
        keys,
        list.stream_ordinal,
        list.version as i64,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// The hash of every fact of `hosts`.
pub async fn list_hashes(
    connection: &mut PgConnection,
    hosts: &[Uuid],
) -> sqlx::Result<Vec<(HostId, String, Digest)>> {
    let rows = sqlx::query!(
        "select host_id, key, hash from facts where host_id = any($1) and key like 'facts.%'",
        hosts,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| Some((HostId(row.host_id), row.key, Digest::from_slice(&row.hash)?)))
        .collect())
}

/// All facts of a host, by key.
pub async fn list(connection: &mut PgConnection, host: HostId) -> sqlx::Result<Vec<FactRow>> {
    sqlx::query_as!(
        FactRow,
        "select key, body, changed_at from facts where host_id = $1 order by key",
        host.0
    )
    .fetch_all(connection)
    .await
}

/// A fact as it is listed: without its body where that is long.
#[derive(Clone, Debug)]
pub struct ShortFact {
    pub key: String,
    pub body: Option<serde_json::Value>,
    /// The beginning of a long body, as text.
    pub start: Option<String>,
    pub changed_at: OffsetDateTime,
    /// How often it changed since it was told first, counted up to 100.
    pub change_count: i64,
}

/// Facts of a host by key: all, or those with `text` in key or body; bodies up to `most_bytes` whole.
pub async fn search(
    connection: &mut PgConnection,
    host: HostId,
    text: Option<&str>,
    most_bytes: i32,
    limit: i64,
) -> sqlx::Result<Vec<ShortFact>> {
    sqlx::query_as!(
        ShortFact,
        r#"select key, case when octet_length(body::text) <= $3 then body end as body,
             case when octet_length(body::text) > $3 then left(body::text, $3) end as start, changed_at,
             (select count(*) from (select from fact_changes c
                                    where c.host_id = f.host_id and c.key = f.key and c.old_body is not null
                                    limit 100) as counted) as "change_count!"
         from facts f
         where host_id = $1
           and ($2::text is null or strpos(lower(key), lower($2)) > 0 or strpos(lower(body::text), lower($2)) > 0)
         order by key limit $4"#,
        host.0,
        text,
        most_bytes,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// One fact of a host.
pub async fn find(
    connection: &mut PgConnection,
    host: HostId,
    key: &str,
) -> sqlx::Result<Option<FactRow>> {
    sqlx::query_as!(
        FactRow,
        "select key, body, changed_at from facts where host_id = $1 and key = $2",
        host.0,
        key,
    )
    .fetch_optional(connection)
    .await
}

/// What a fact was and what it became.
#[derive(Clone, Debug)]
pub struct ChangeRow {
    pub changed_at: OffsetDateTime,
    pub was_there: bool,
    pub is_there: bool,
    /// Null where there was nothing, or something of over 64 KiB.
    pub was: Option<serde_json::Value>,
    pub is: Option<serde_json::Value>,
    pub is_cut: bool,
}

/// Changes of one fact of a host before `before`, newest first.
pub async fn list_changes(
    connection: &mut PgConnection,
    host: HostId,
    key: &str,
    before: Option<OffsetDateTime>,
    limit: i64,
) -> sqlx::Result<Vec<ChangeRow>> {
    sqlx::query_as!(
        ChangeRow,
        r#"select changed_at, old_body is not null as "was_there!", new_body is not null as "is_there!",
             case when octet_length(old_body::text) <= 65536 then old_body end as was,
             case when octet_length(new_body::text) <= 65536 then new_body end as is,
             greatest(octet_length(old_body::text), octet_length(new_body::text)) > 65536 as "is_cut!"
         from fact_changes
         where host_id = $1 and key = $2 and ($3::timestamptz is null or changed_at < $3)
         order by changed_at desc limit $4"#,
        host.0,
        key,
        before,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// How often a fact of a host changed.
pub async fn count_changes(
    connection: &mut PgConnection,
    host: HostId,
    key: &str,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from fact_changes where host_id = $1 and key = $2"#,
        host.0,
        key,
    )
    .fetch_one(connection)
    .await
}
