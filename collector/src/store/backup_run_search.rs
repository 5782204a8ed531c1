//! Runs of volumes as operators see them.

use serde::Serialize;
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

/// What a run can be.
pub const STATES: [&str; 5] = ["running", "ok", "incomplete", "failed", "cancelled"];

/// A run as it is listed.
#[derive(Clone, Debug, Serialize, sqlx::FromRow, ToSchema)]
#[schema(as = BackupRun)]
pub struct RunRow {
    #[serde(rename = "id")]
    pub run_id: Uuid,
    pub volume_id: Uuid,
    pub volume: String,
    pub host_id: Uuid,
    pub host: String,
    /// `schedule`, `command` of somebody here, or `host`: of somebody there.
    pub trigger: String,
    /// `running | ok | incomplete | failed | cancelled`.
    pub state: String,
    /// A stable word for why it is not ok.
    pub reason: Option<String>,
    pub detail: Option<String>,
    #[serde(with = "rfc3339")]
    pub started_at: OffsetDateTime,
    #[serde(with = "rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// What somebody wants of it: `go_on | pause | cancel`.
    #[serde(rename = "order")]
    pub orders: String,
    /// `{files, bytes, files_expected?, bytes_expected?, sent_bytes, packs}`.
    #[schema(value_type = Object)]
    pub progress: Json<Value>,
    pub files: Option<i64>,
    pub bytes: Option<i64>,
    /// Of content that was not there before.
    pub new_bytes: Option<i64>,
    /// Of packs.
    pub sent_bytes: Option<i64>,
    pub cpu_ms: Option<i64>,
    /// The first of what could not be read, where its names may be known here.
    pub errors: Vec<String>,
    pub errors_total: i64,
    pub snapshot_id: Option<Uuid>,
    /// The agent's version.
    pub agent: String,
}

/// Which runs.
#[derive(Clone, Debug, Default)]
pub struct Which {
    pub volume_id: Option<Uuid>,
    pub host_id: Option<Uuid>,
    pub state: Option<String>,
}

const ROWS: &str = "select r.run_id, r.volume_id, v.name as volume, r.host_id, h.name as host, r.trigger, r.state, r.reason,
        r.detail, r.started_at, r.ended_at, r.orders, r.progress, r.files, r.bytes, r.new_bytes, r.sent_bytes, r.cpu_ms,
        r.errors, r.errors_total, r.snapshot_id, r.agent
    from backup_runs r join volumes v using (volume_id) join hosts h on h.host_id = r.host_id where true";

/// A run.
pub async fn find(connection: &mut PgConnection, run: Uuid) -> sqlx::Result<Option<RunRow>> {
    let mut sql = QueryBuilder::new(ROWS);
    sql.push(" and r.run_id = ").push_bind(run);
    sql.build_query_as().fetch_optional(connection).await
}

/// Runs, newest first: those from before `before`.
pub async fn list(
    connection: &mut PgConnection,
    which: &Which,
    before: Option<(OffsetDateTime, Uuid)>,
    limit: i64,
) -> sqlx::Result<Vec<RunRow>> {
    let mut sql = QueryBuilder::new(ROWS);
    push(&mut sql, which);
    if let Some((at, id)) = before {
        sql.push(" and (r.started_at, r.run_id) < (")
            .push_bind(at)
            .push(", ")
            .push_bind(id)
            .push(")");
    }
    sql.push(" order by r.started_at desc, r.run_id desc limit ")
        .push_bind(limit);
    sql.build_query_as().fetch_all(connection).await
}

/// How many match.
pub async fn count(connection: &mut PgConnection, which: &Which) -> sqlx::Result<i64> {
    let mut sql = QueryBuilder::new("select count(*) from backup_runs r where true");
    push(&mut sql, which);
    sql.build_query_scalar().fetch_one(connection).await
}

/// Says what is wanted of a run; 0 where it has ended.
pub async fn update_orders(
    connection: &mut PgConnection,
    run: Uuid,
    order: &str,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "update backup_runs set orders = $2 where run_id = $1 and state = 'running'",
        run,
        order
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

fn push(sql: &mut QueryBuilder<Postgres>, which: &Which) {
    if let Some(volume_id) = which.volume_id {
        sql.push(" and r.volume_id = ").push_bind(volume_id);
    }
    if let Some(host_id) = which.host_id {
        sql.push(" and r.host_id = ").push_bind(host_id);
    }
    if let Some(state) = &which.state {
        sql.push(" and r.state = ").push_bind(state.clone());
    }
}
