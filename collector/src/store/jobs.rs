//! How the background jobs went: a row a job, and their last runs.

use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// A run, and those since the last one that was written down.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    pub job: &'a str,
    pub scope: &'a str,
    pub interval_ms: i64,
    pub collector_id: Uuid,
    pub started_at: OffsetDateTime,
    pub finished_at: OffsetDateTime,
    pub outcome: &'a str,
    pub error: Option<&'a str>,
    pub duration_ms: i64,
    /// This one counted.
    pub runs: i64,
    pub failures: i64,
}

/// A job.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct JobRow {
    pub name: String,
    /// `fleet`: one collector does it for all; `collector`: each for itself.
    pub scope: String,
    pub interval_ms: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub last_started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub last_finished_at: OffsetDateTime,
    /// `ok`, `failed`, `timed_out` or `interrupted`.
    pub last_outcome: String,
    pub last_error: Option<String>,
    pub last_duration_ms: i64,
    /// The collector that ran it; of a fleet's job, the leader.
    pub last_leader: Uuid,
    pub runs_total: i64,
    pub failures_total: i64,
}

/// One of its last runs.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RunRow {
    #[serde(skip)]
    pub job: String,
    pub collector_id: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub finished_at: OffsetDateTime,
    pub outcome: String,
    pub error: Option<String>,
}

/// Writes a job's row.
pub async fn upsert(connection: &mut PgConnection, run: &Run<'_>) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into jobs as j (name, scope, interval_ms, last_started_at, last_finished_at, last_outcome, last_error,
             last_duration_ms, last_leader, runs_total, failures_total)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         on conflict (name) do update set scope = excluded.scope, interval_ms = excluded.interval_ms,
             last_started_at = excluded.last_started_at, last_finished_at = excluded.last_finished_at,
             last_outcome = excluded.last_outcome, last_error = excluded.last_error,
             last_duration_ms = excluded.last_duration_ms, last_leader = excluded.last_leader,
             runs_total = j.runs_total + excluded.runs_total,
             failures_total = j.failures_total + excluded.failures_total",
        run.job,
        run.scope,
        run.interval_ms,
        run.started_at,
        run.finished_at,
        run.outcome,
        run.error,
        run.duration_ms,
        run.collector_id,
        run.runs,
        run.failures,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Adds a run.
pub async fn insert_run(connection: &mut PgConnection, run: &Run<'_>) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "insert into job_runs (job, collector_id, started_at, finished_at, outcome, error)
         values ($1, $2, $3, $4, $5, $6)",
        run.job,
        run.collector_id,
        run.started_at,
        run.finished_at,
        run.outcome,
        run.error,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Keeps the last `kept` runs of a job.
pub async fn delete_old_runs(
    connection: &mut PgConnection,
    job: &str,
    kept: i64,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "delete from job_runs where run_id in (
             select run_id from job_runs where job = $1 order by run_id desc offset $2)",
        job,
        kept,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// When a job was last begun, as far as it was written down.
pub async fn find_last_started(
    connection: &mut PgConnection,
    job: &str,
) -> sqlx::Result<Option<OffsetDateTime>> {
    sqlx::query_scalar!("select last_started_at from jobs where name = $1", job)
        .fetch_optional(connection)
        .await
}

/// Every job, by name.
pub async fn list(connection: &mut PgConnection) -> sqlx::Result<Vec<JobRow>> {
    sqlx::query_as!(
        JobRow,
        "select name, scope, interval_ms, last_started_at, last_finished_at, last_outcome, last_error,
             last_duration_ms, last_leader, runs_total, failures_total
         from jobs order by name"
    )
    .fetch_all(connection)
    .await
}

/// The last runs of every job, newest first.
pub async fn list_runs(connection: &mut PgConnection) -> sqlx::Result<Vec<RunRow>> {
    sqlx::query_as!(
        RunRow,
        "select job, collector_id, started_at, finished_at, outcome, error from job_runs order by run_id desc"
    )
    .fetch_all(connection)
    .await
}
