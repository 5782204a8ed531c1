//! What plays of Ansible did: how far a run is known, its hosts, plays, tasks and results.

use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::changes::play::{Host, Play, Task, TaskResult};

/// How far a run is known.
#[derive(Clone, Debug)]
pub struct Known {
    pub change_id: Uuid,
    pub acked_seq: i64,
    pub brought_by: String,
}

/// A task of a run.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = PlayTask)]
pub struct TaskRow {
    pub task: String,
    pub batch: i32,
    pub first_seq: i64,
    pub play: String,
    #[serde(with = "rfc3339::option")]
    pub at: Option<OffsetDateTime>,
    #[serde(with = "rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    pub name: Option<String>,
    pub action: Option<String>,
    pub role: Option<String>,
    pub path: Option<String>,
    pub line: Option<i32>,
    pub tags: Vec<String>,
    pub is_handler: bool,
    pub check_mode: bool,
    /// Hosts that it left as they were.
    pub ok: i64,
    pub skipped: i64,
    pub changed: i64,
    /// Failed or unreachable.
    pub failed: i64,
    /// Of the failed ones.
    pub ignored: i64,
}

/// A result of a task on a host that was changed, failed or not reached.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = PlayResult)]
pub struct ResultRow {
    pub seq: i64,
    pub task: String,
    pub batch: i32,
    pub host: String,
    /// `changed | failed | unreachable | ok`.
    pub status: String,
    pub ignored: bool,
    #[serde(with = "rfc3339")]
    pub ended_at: OffsetDateTime,
    /// The record: items, attempts, message, …
    #[schema(value_type = Object)]
    pub body: Value,
}

/// How far a run is known; nobody else adds to it until the transaction ends.
pub async fn lock(connection: &mut PgConnection, run_id: Uuid) -> sqlx::Result<Option<Known>> {
    sqlx::query_as!(
        Known,
        "select r.change_id, p.acked_seq, r.brought_by from play_runs p join change_runs r using (run_id)
         where p.run_id = $1 for update of p",
        run_id
    )
    .fetch_optional(connection)
    .await
}

/// A run of which nothing is there yet.
pub async fn insert(connection: &mut PgConnection, run_id: Uuid) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into play_runs (run_id, acked_seq) values ($1, 0)",
        run_id
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Everything up to this record is here.
pub async fn update_acked(
    connection: &mut PgConnection,
    run_id: Uuid,
    acked_seq: i64,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update play_runs set acked_seq = $2 where run_id = $1",
        run_id,
        acked_seq,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Stores hosts; what is known of one is added to.
pub async fn upsert_hosts(
    connection: &mut PgConnection,
    run_id: Uuid,
    hosts: &[&Host],
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into play_hosts (run_id, number, name, ansible_host, machine_id, product_uuid, fqdn, distribution,
             distribution_version)
         select $1, number, name, ansible_host, machine_id, product_uuid, fqdn, distribution, distribution_version
         from jsonb_to_recordset($2) as i (number int, name text, ansible_host text, machine_id text, product_uuid text,
             fqdn text, distribution text, distribution_version text)
         on conflict (run_id, number) do update
         set ansible_host = coalesce(excluded.ansible_host, play_hosts.ansible_host),
             machine_id = coalesce(excluded.machine_id, play_hosts.machine_id),
             product_uuid = coalesce(excluded.product_uuid, play_hosts.product_uuid),
             fqdn = coalesce(excluded.fqdn, play_hosts.fqdn),
             distribution = coalesce(excluded.distribution, play_hosts.distribution),
             distribution_version = coalesce(excluded.distribution_version, play_hosts.distribution_version)",
        run_id,
        Json(hosts) as _,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// What is known by now of a run's hosts with these numbers.
pub async fn list_hosts(
    connection: &mut PgConnection,
    run_id: Uuid,
    numbers: &[i32],
) -> sqlx::Result<Vec<Host>> {
    sqlx::query_as!(
        Host,
        "select number, name, ansible_host, machine_id, product_uuid, fqdn, distribution, distribution_version
         from play_hosts where run_id = $1 and number = any($2) order by number",
        run_id,
        numbers,
    )
    .fetch_all(connection)
    .await
}

/// Stores the recap of hosts by their names.
pub async fn update_recap(
    connection: &mut PgConnection,
    run_id: Uuid,
    recap: &Map<String, Value>,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update play_hosts h set recap = r.value from jsonb_each($2) as r (name, value)
         where h.run_id = $1 and h.name = r.name",
        run_id,
        Json(recap) as _,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Stores batches of plays.
pub async fn insert_plays(
    connection: &mut PgConnection,
    run_id: Uuid,
    plays: &[&Play],
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into play_batches (run_id, play, batch, at, name, pattern, strategy, hosts, host_count)
         select $1, play, batch, at, name, pattern, strategy, hosts, host_count
         from jsonb_to_recordset($2) as i (play text, batch int, at timestamptz, name text, pattern text, strategy text,
             hosts text, host_count int)
         on conflict do nothing",
        run_id,
        Json(plays) as _,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Stores tasks; counts add up.
pub async fn upsert_tasks(
    connection: &mut PgConnection,
    run_id: Uuid,
    first_seq: i64,
    tasks: &[&Task],
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into change_tasks (run_id, task, batch, first_seq, play, at, ended_at, name, action, role, path, line,
             tags, is_handler, check_mode, ok, ok_hosts, skipped, skipped_hosts)
         select $1, task, batch, $2 + row_number() over (order by at, task) - 1, play, at, ended_at, name, action, role,
             path, line, tags, is_handler, check_mode, ok, ok_hosts, skipped, skipped_hosts
         from jsonb_to_recordset($3) as i (task text, batch int, play text, at timestamptz, ended_at timestamptz,
             name text, action text, role text, path text, line int, tags text[], is_handler bool, check_mode bool,
             ok bigint, ok_hosts text, skipped bigint, skipped_hosts text)
         order by task, batch
         on conflict (run_id, task, batch) do update
         set at = coalesce(change_tasks.at, excluded.at),
             ended_at = greatest(change_tasks.ended_at, excluded.ended_at),
             name = coalesce(change_tasks.name, excluded.name),
             action = coalesce(change_tasks.action, excluded.action),
             role = coalesce(change_tasks.role, excluded.role), path = coalesce(change_tasks.path, excluded.path),
             line = coalesce(change_tasks.line, excluded.line),
             tags = case when change_tasks.tags = '{}' then excluded.tags else change_tasks.tags end,
             is_handler = change_tasks.is_handler or excluded.is_handler,
             check_mode = change_tasks.check_mode or excluded.check_mode,
             ok = change_tasks.ok + excluded.ok, skipped = change_tasks.skipped + excluded.skipped,
             ok_hosts = concat_ws(',', nullif(change_tasks.ok_hosts, ''), nullif(excluded.ok_hosts, '')),
             skipped_hosts = concat_ws(',', nullif(change_tasks.skipped_hosts, ''), nullif(excluded.skipped_hosts, ''))",
        run_id,
        first_seq,
        Json(tasks) as _,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Stores results by their number in the run, and counts those that are stored into their tasks. Answers how many tasks
/// those are of.
pub async fn insert_results(
    connection: &mut PgConnection,
    run_id: Uuid,
    results: &[(i64, TaskResult)],
) -> sqlx::Result<u64> {
    let rows: Vec<_> = results
        .iter()
        .map(|(seq, result)| serde_json::json!({"seq": seq, "body": result}))
        .collect();
    let done = sqlx::query!(
        "with stored as (
             insert into change_results (run_id, seq, task, batch, host, status, ignored, ended_at, body)
             select $1, seq, body->>'task', (body->>'batch')::int, body->>'host', body->>'status',
                 (body->>'ignored')::boolean, (body->>'ended_at')::timestamptz,
                 jsonb_strip_nulls(body) - array['task', 'batch', 'host', 'status', 'ignored', 'ended_at']
             from jsonb_to_recordset($2) as i (seq bigint, body jsonb)
             on conflict do nothing
             returning task, batch, status, ignored
         ), counted as (
             select task, batch, count(*) filter (where status = 'changed') as changed,
                 count(*) filter (where status in ('failed', 'unreachable')) as failed,
                 count(*) filter (where ignored) as ignored
             from stored group by task, batch
         )
         update change_tasks t
         set changed = t.changed + c.changed, failed = t.failed + c.failed, ignored = t.ignored + c.ignored
         from counted c where t.run_id = $1 and t.task = c.task and t.batch = c.batch",
        run_id,
        Json(&rows) as _,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Takes over into a run what is known of it by now: how it ended, and the sums of its recap.
pub async fn update_run(
    connection: &mut PgConnection,
    run_id: Uuid,
    end: Option<(OffsetDateTime, &str)>,
    gaps: &[String],
    now: OffsetDateTime,
) -> sqlx::Result<u64> {
    let (ended_at, outcome) = end.unzip();
    let done = sqlx::query!(
        "update change_runs r
         set ended_at = greatest(r.started_at, coalesce($2::timestamptz, $5::timestamptz)), outcome = coalesce($3::text, case when r.outcome = 'interrupted' then 'running' else r.outcome end),
             warnings = r.warnings || $4,
             summary = jsonb_build_object('hosts', s.hosts, 'ok', s.ok, 'changed', s.changed, 'failures', s.failures,
                 'unreachable', s.unreachable, 'skipped', s.skipped, 'rescued', s.rescued, 'ignored', s.ignored)
         from (select count(*) as hosts, sum((recap->>'ok')::bigint) as ok, sum((recap->>'changed')::bigint) as changed,
                   sum((recap->>'failures')::bigint) as failures, sum((recap->>'unreachable')::bigint) as unreachable,
                   sum((recap->>'skipped')::bigint) as skipped, sum((recap->>'rescued')::bigint) as rescued,
                   sum((recap->>'ignored')::bigint) as ignored
               from play_hosts where run_id = $1) as s
         where r.run_id = $1",
        run_id,
        ended_at,
        outcome,
        gaps,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Tasks of a run in their order: those after this one.
pub async fn list_tasks(
    connection: &mut PgConnection,
    run_id: Uuid,
    after: i64,
    limit: i64,
) -> sqlx::Result<Vec<TaskRow>> {
    sqlx::query_as!(
        TaskRow,
        "select task, batch, first_seq, play, at, ended_at, name, action, role, path, line, tags, is_handler, check_mode,
             ok, skipped, changed, failed, ignored
         from change_tasks where run_id = $1 and first_seq > $2 order by first_seq limit $3",
        run_id,
        after,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// How many tasks a run has.
pub async fn count_tasks(connection: &mut PgConnection, run_id: Uuid) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from change_tasks where run_id = $1"#,
        run_id
    )
    .fetch_one(connection)
    .await
}
