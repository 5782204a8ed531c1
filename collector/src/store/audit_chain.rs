//! The hash chain over the audit log: what is not sealed yet, seals, checkpoints, and the reading of all of it.

use ipnet::IpNet;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// A row of the log as it is sealed.
#[derive(Clone, Debug)]
pub struct LogRow {
    pub audit_id: i64,
    pub at: OffsetDateTime,
    pub actor_kind: String,
    pub actor_name: String,
    pub actor_id: Option<String>,
    pub actor_address: Option<IpNet>,
    pub request_id: Option<String>,
    pub action: String,
    pub subject_kind: String,
    pub subject_id: String,
    /// JSON, as it was written to the byte.
    pub before: Option<String>,
    pub after: Option<String>,
}

/// A seal, or a checkpoint: up to here the chain has this hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    pub seq: i64,
    pub hash: Vec<u8>,
}

/// A seal with the id of its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    pub seq: i64,
    pub audit_id: i64,
    pub hash: Vec<u8>,
}

/// The oldest rows that are not sealed.
pub async fn list_pending(connection: &mut PgConnection, limit: i64) -> sqlx::Result<Vec<LogRow>> {
    sqlx::query_as!(
        LogRow,
        "select l.audit_id, l.at, l.actor_kind, l.actor_name, l.actor_id, l.actor_address, l.request_id, l.action,
             l.subject_kind, l.subject_id, l.before::text, l.after::text
         from audit_pending p join audit_log l using (audit_id)
         where not exists (select from audit_seals s where s.audit_id = p.audit_id)
         order by p.audit_id limit $1",
        limit,
    )
    .fetch_all(connection)
    .await
}

/// These rows are sealed.
pub async fn delete_pending(connection: &mut PgConnection, audit_ids: &[i64]) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from audit_pending where audit_id = any($1)",
        audit_ids
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// How many rows are not sealed.
pub async fn count_pending(connection: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "count!" from audit_pending"#)
        .fetch_one(connection)
        .await
}

/// The first row that was to be sealed and is not there.
pub async fn find_pending_without_row(connection: &mut PgConnection) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar!(
        "select audit_id from audit_pending p
         where not exists (select from audit_log l where l.audit_id = p.audit_id)
         order by audit_id limit 1"
    )
    .fetch_optional(connection)
    .await
}

/// The end of the chain; `None` where nothing was sealed yet.
pub async fn find_head(connection: &mut PgConnection) -> sqlx::Result<Option<Point>> {
    sqlx::query_as!(
        Point,
        "select seq, hash from audit_seals order by seq desc limit 1"
    )
    .fetch_optional(connection)
    .await
}

/// The seal at `seq`.
pub async fn find_seal(connection: &mut PgConnection, seq: i64) -> sqlx::Result<Option<Point>> {
    sqlx::query_as!(
        Point,
        "select seq, hash from audit_seals where seq = $1",
        seq
    )
    .fetch_optional(connection)
    .await
}

/// Adds seals, which follow each other.
pub async fn insert_seals(connection: &mut PgConnection, seals: &[Seal]) -> sqlx::Result<u64> {
    let seqs: Vec<_> = seals.iter().map(|seal| seal.seq).collect();
    let audit_ids: Vec<_> = seals.iter().map(|seal| seal.audit_id).collect();
    let hashes: Vec<_> = seals.iter().map(|seal| seal.hash.clone()).collect();
    let done = sqlx::query!(
        "insert into audit_seals (seq, audit_id, hash)
         select * from unnest($1::bigint[], $2::bigint[], $3::bytea[])",
        &seqs,
        &audit_ids,
        &hashes,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// The seals after `seq`, with the ids of their rows.
pub async fn list_seals(
    connection: &mut PgConnection,
    after_seq: i64,
    limit: i64,
) -> sqlx::Result<Vec<Seal>> {
    sqlx::query_as!(
        Seal,
        "select seq, audit_id, hash from audit_seals where seq > $1 order by seq limit $2",
        after_seq,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// The rows with these ids, as far as they are there.
pub async fn list_rows(
    connection: &mut PgConnection,
    audit_ids: &[i64],
) -> sqlx::Result<Vec<LogRow>> {
    sqlx::query_as!(
        LogRow,
        "select audit_id, at, actor_kind, actor_name, actor_id, actor_address, request_id, action, subject_kind,
             subject_id, before::text, after::text
         from audit_log where audit_id = any($1)",
        audit_ids,
    )
    .fetch_all(connection)
    .await
}

/// The first row with an id in `after..=to` that has no seal and does not wait for one.
pub async fn find_unsealed(
    connection: &mut PgConnection,
    after: i64,
    to: i64,
) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar!(
        "select audit_id from audit_log l
         where audit_id > $1 and audit_id <= $2
           and not exists (select from audit_seals s
               where s.audit_id = l.audit_id and s.audit_id > $1 and s.audit_id <= $2)
           and not exists (select from audit_pending p where p.audit_id = l.audit_id)
         order by audit_id limit 1",
        after,
        to,
    )
    .fetch_optional(connection)
    .await
}

/// The smallest and the largest id in the log.
pub async fn find_id_range(connection: &mut PgConnection) -> sqlx::Result<Option<(i64, i64)>> {
    let range = sqlx::query!("select min(audit_id) as first, max(audit_id) as last from audit_log")
        .fetch_one(connection)
        .await?;
    Ok(range.first.zip(range.last))
}

/// The last checkpoint, and when it was made.
pub async fn find_last_checkpoint(
    connection: &mut PgConnection,
) -> sqlx::Result<Option<(Point, OffsetDateTime)>> {
    let row = sqlx::query!("select seq, hash, at from audit_checkpoints order by seq desc limit 1")
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| {
        let point = Point {
            seq: row.seq,
            hash: row.hash,
        };
        (point, row.at)
    }))
}

/// Notes that a checkpoint is in the blob store.
pub async fn insert_checkpoint(
    connection: &mut PgConnection,
    point: &Point,
    at: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into audit_checkpoints (seq, hash, at) values ($1, $2, $3) on conflict (seq) do nothing",
        point.seq,
        point.hash,
        at,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Everything this transaction reads is of one moment, and it changes nothing.
pub async fn set_snapshot(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!("set transaction isolation level repeatable read, read only")
        .execute(connection)
        .await
        .map(drop)
}
