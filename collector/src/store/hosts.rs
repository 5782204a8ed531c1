//! Hosts as operators see them: identity, state with its reasons, the latest values.

use infratrack_shared::ids::HostId;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// The instants that decide how silent is too silent; see [`crate::jobs::liveness`].
#[derive(Clone, Copy, Debug)]
pub struct Cutoffs {
    pub now: OffsetDateTime,
    /// Last seen before this: late.
    pub late_before: OffsetDateTime,
    /// Last seen before this: offline.
    pub offline_before: OffsetDateTime,
}

/// A host with its state.
#[derive(Clone, Debug)]
pub struct HostRow {
    pub host_id: Uuid,
    pub name: String,
    pub machine_id: Option<String>,
    pub tags: Vec<String>,
    pub created_at: OffsetDateTime,
    pub last_seen_at: Option<OffsetDateTime>,
    pub liveness: String,
    pub liveness_reason: Option<String>,
    pub status: String,
    pub reasons: Vec<String>,
    pub agent_version: Option<String>,
    pub skew_ms: Option<i64>,
    pub cpu_ratio: Option<f32>,
    pub memory_used_ratio: Option<f32>,
    pub disk_used_ratio: Option<f32>,
    pub failed_unit_count: Option<i32>,
    pub reboot_required: Option<bool>,
    pub spool_records: Option<i64>,
    pub cert_not_after: Option<OffsetDateTime>,
    /// How many hosts match, on all pages.
    pub total: i64,
}

/// Which hosts a list shows.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub status: Option<String>,
    pub liveness: Option<String>,
    /// Part of the name, in any case.
    pub q: Option<String>,
}

/// Makes a host.
pub async fn insert(
    connection: &mut PgConnection,
    host: HostId,
    name: &str,
    machine_id: Option<&str>,
    tags: &[String],
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "with host as (
             insert into hosts (host_id, name, machine_id, tags, created_at) values ($1, $2, $3, $4, $5)
             returning host_id
         )
         insert into host_liveness (host_id) select host_id from host",
        host.0,
        name,
        machine_id,
        tags,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Locks a host, so that what is issued to it is issued one after another; answers when it was retired.
pub async fn lock(
    connection: &mut PgConnection,
    host: HostId,
) -> sqlx::Result<Option<OffsetDateTime>> {
    // Not against rows that only refer to the host.
    sqlx::query_scalar!(
        "select retired_at from hosts where host_id = $1 for no key update",
        host.0
    )
    .fetch_one(connection)
    .await
}

/// Makes a clone's hidden host one like any other.
pub async fn update_own(connection: &mut PgConnection, host: HostId) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update hosts set conflict_of = null where host_id = $1",
        host.0
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Takes names and machine ids from the identity facts of `hosts`.
pub async fn update_identity(connection: &mut PgConnection, hosts: &[Uuid]) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update hosts h
         set name = coalesce(nullif(f.body ->> 'hostname', ''), h.name),
             machine_id = coalesce(f.body ->> 'machine_id', h.machine_id)
         from facts f
         where h.host_id = any($1) and f.host_id = h.host_id and f.key = 'facts.identity'
           and (h.name, h.machine_id) is distinct from
               (coalesce(nullif(f.body ->> 'hostname', ''), h.name), coalesce(f.body ->> 'machine_id', h.machine_id))",
        hosts,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Which hosts, from where, how many.
#[derive(Clone, Debug)]
pub struct Page {
    pub filter: Filter,
    /// Only this host, be it a hidden one.
    pub host: Option<HostId>,
    /// Name and id of the last host of the page before.
    pub after: Option<(String, Uuid)>,
    pub limit: i64,
}

/// One page of hosts by name.
pub async fn list(
    connection: &mut PgConnection,
    page: &Page,
    cutoffs: Cutoffs,
) -> sqlx::Result<Vec<HostRow>> {
    let (after_name, after_id) = page.after.clone().unzip();
    let pattern = page
        .filter
        .q
        .as_deref()
        .map(|q| format!("%{}%", escape_like(q)));
    sqlx::query_as!(
        HostRow,
        r#"with judged as (
             select h.host_id, h.name, h.machine_id, h.tags, h.created_at, l.last_seen_at, l.liveness_reason,
                 l.agent_version, l.skew_ms, l.cpu_ratio, l.memory_used_ratio, l.disk_used_ratio,
                 l.failed_unit_count, l.reboot_required, l.spool_records, c.not_after as cert_not_after,
                 host_reasons(l, c.not_after, $1, $2, $3) as reasons,
                 case when l.last_seen_at is null then 'never' when l.last_seen_at < $3 then 'offline'
                      when l.last_seen_at < $2 then 'late' else 'online' end as liveness
             from hosts h
             join host_liveness l using (host_id)
             left join lateral (
                 select max(not_after) as not_after from agent_certs a
                 where a.host_id = h.host_id and a.revoked_at is null
             ) c on true
             where h.retired_at is null
               and (h.host_id = $4 or $4 is null and h.conflict_of is null)
               and ($5::text is null or h.name ilike $5)
         ), matching as (
             select *, host_status(last_seen_at, reasons) as status, count(*) over () as total from judged
             where ($6::text is null or liveness = $6)
               and ($7::text is null or host_status(last_seen_at, reasons) = $7)
         )
         select host_id as "host_id!", name as "name!", machine_id, tags as "tags!", created_at as "created_at!",
             last_seen_at, liveness as "liveness!", liveness_reason, status as "status!", reasons as "reasons!",
             agent_version, skew_ms, cpu_ratio, memory_used_ratio, disk_used_ratio, failed_unit_count,
             reboot_required, spool_records, cert_not_after, total as "total!"
         from matching
         where $8::text is null or (name, host_id) > ($8, $9)
         order by name, host_id limit $10"#,
        cutoffs.now,
        cutoffs.late_before,
        cutoffs.offline_before,
        page.host.map(|host| host.0),
        pattern,
        page.filter.liveness,
        page.filter.status,
        after_name,
        after_id,
        page.limit,
    )
    .fetch_all(connection)
    .await
}

/// How many hosts there are in each status.
pub async fn count_by_status(
    connection: &mut PgConnection,
    cutoffs: Cutoffs,
) -> sqlx::Result<Vec<(String, i64)>> {
    let rows = sqlx::query!(
        r#"select host_status(l.last_seen_at, host_reasons(l, c.not_after, $1, $2, $3)) as "status!", count(*) as "count!"
           from hosts h
           join host_liveness l using (host_id)
           left join (
               select host_id, max(not_after) as not_after from agent_certs where revoked_at is null group by host_id
           ) c using (host_id)
           where h.retired_at is null and h.conflict_of is null
           group by 1 order by 1"#,
        cutoffs.now,
        cutoffs.late_before,
        cutoffs.offline_before,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.status, row.count))
        .collect())
}

/// `%`, `_` and `\` stand for themselves.
fn escape_like(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('%', "\\%")
        .replace('_', "\\_")
}
