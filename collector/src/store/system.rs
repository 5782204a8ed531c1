//! How the whole of it is: what agents are out there, how far their clocks are off, what waits, and how large it all is.

use sqlx::PgConnection;
use time::OffsetDateTime;

/// How many hosts have what.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct VersionCount {
    /// `null`: no agent of theirs said.
    pub version: Option<String>,
    pub hosts: i64,
}

/// Agents by version, the most common first, at most 50.
pub async fn count_agent_versions(
    connection: &mut PgConnection,
) -> sqlx::Result<Vec<VersionCount>> {
    sqlx::query_as!(
        VersionCount,
        r#"select l.agent_version as version, count(*) as "hosts!"
           from hosts h join host_liveness l using (host_id)
           where h.retired_at is null and h.conflict_of is null and h.deleted_at is null
           group by 1 order by 2 desc, 1 limit 50"#,
    )
    .fetch_all(connection)
    .await
}

/// How many hosts' clocks are off, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct SkewCounts {
    /// By over 30 s, into the past.
    pub behind: i64,
    /// By 5 s to 30 s, either way.
    pub off: i64,
    /// By 1 s to 5 s, either way.
    pub slightly_off: i64,
    /// Within 1 s.
    pub right: i64,
    /// By over 30 s, into the future.
    pub ahead: i64,
    /// No agent of theirs said.
    pub unknown: i64,
}

/// Counts hosts by how far their clocks are off.
pub async fn count_skews(connection: &mut PgConnection) -> sqlx::Result<SkewCounts> {
    sqlx::query_as!(
        SkewCounts,
        r#"select
             count(*) filter (where l.skew_ms <= -30000) as "behind!",
             count(*) filter (where abs(l.skew_ms) >= 5000 and abs(l.skew_ms) < 30000) as "off!",
             count(*) filter (where abs(l.skew_ms) >= 1000 and abs(l.skew_ms) < 5000) as "slightly_off!",
             count(*) filter (where abs(l.skew_ms) < 1000) as "right!",
             count(*) filter (where l.skew_ms >= 30000) as "ahead!",
             count(*) filter (where l.skew_ms is null) as "unknown!"
           from hosts h join host_liveness l using (host_id)
           where h.retired_at is null and h.conflict_of is null and h.deleted_at is null"#,
    )
    .fetch_one(connection)
    .await
}

/// What waits in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Waiting {
    /// Rows of the audit log for their seal.
    pub audit_rows: i64,
    /// Commands for their agents.
    pub commands: i64,
    /// Certificates, and revocations, for their entry in the CA's log.
    pub certificates: i64,
    /// Hosts for an operator to let them in.
    pub enrollments: i64,
    /// Records that could not be stored as what they are; up to 10,000 are counted.
    pub dead_letters: i64,
}

/// Counts what waits.
pub async fn count_waiting(
    connection: &mut PgConnection,
    now: OffsetDateTime,
) -> sqlx::Result<Waiting> {
    sqlx::query_as!(
        Waiting,
        r#"select
             (select count(*) from audit_pending) as "audit_rows!",
             (select count(*) from commands where confirmed_at is null and expires_at > $1) as "commands!",
             (select count(*) from agent_certs
              where issue_logged_at is null or (revoked_at is not null and revocation_logged_at is null))
                 as "certificates!",
             (select count(*) from enrollments e join enroll_tokens t using (token_id)
              where e.approved_at is null and e.host_id is null and t.approval_required) as "enrollments!",
             (select count(*) from (select from dead_letters limit 10000) as counted) as "dead_letters!""#,
        now,
    )
    .fetch_one(connection)
    .await
}

/// A table in parts, or the whole database.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct TableSize {
    pub name: String,
    pub partitions: i64,
    /// The names of the oldest part and of the newest.
    pub first: Option<String>,
    pub last: Option<String>,
    pub size_bytes: i64,
}

/// The tables in parts, by name.
pub async fn list_partitioned(connection: &mut PgConnection) -> sqlx::Result<Vec<TableSize>> {
    sqlx::query_as!(
        TableSize,
        r#"select p.relname::text as "name!", count(c.oid) as "partitions!", min(c.relname::text) as first,
             max(c.relname::text) as last,
             coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint as "size_bytes!"
           from pg_class p
           left join pg_inherits i on i.inhparent = p.oid
           left join pg_class c on c.oid = i.inhrelid
           where p.relkind = 'p' and p.relnamespace = current_schema()::regnamespace
           group by 1 order by 1"#,
    )
    .fetch_all(connection)
    .await
}

/// The size of the database.
pub async fn find_database_size(connection: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"select pg_database_size(current_database()) as "size!""#)
        .fetch_one(connection)
        .await
}
