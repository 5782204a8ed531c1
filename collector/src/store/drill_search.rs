//! Restore drills as operators see them: their reports.

use serde::Serialize;
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

/// What a drill can be.
pub const STATES: [&str; 4] = ["running", "ok", "failed", "cancelled"];

/// A drill as it is listed: its whole report.
#[derive(Clone, Debug, Serialize, sqlx::FromRow, ToSchema)]
#[schema(as = Drill)]
pub struct DrillRow {
    #[serde(rename = "id")]
    pub drill_id: Uuid,
    pub volume_id: Uuid,
    pub volume: String,
    pub host_id: Uuid,
    pub host: String,
    /// `schedule`, `command` of somebody here, or `host`: of somebody there.
    pub trigger: String,
    pub asked_by: Option<String>,
    /// `full`: written, read back, compared, checked; `database`: written and checked; `validation`: read and opened.
    pub mode: String,
    /// `running | ok | failed | cancelled`.
    pub state: String,
    /// A stable word for why it is not ok.
    pub reason: Option<String>,
    pub detail: Option<String>,
    #[serde(with = "rfc3339")]
    pub started_at: OffsetDateTime,
    #[serde(with = "rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// The snapshot that was restored.
    pub snapshot_id: Option<Uuid>,
    #[serde(with = "rfc3339::option")]
    pub snapshot_at: Option<OffsetDateTime>,
    /// There was no room for all: `files` and `bytes` are of a sample, and `restore_ms` is what all would take by its bytes.
    pub is_sampled: bool,
    pub files: Option<i64>,
    pub bytes: Option<i64>,
    /// Of the snapshot.
    pub files_total: Option<i64>,
    pub bytes_total: Option<i64>,
    /// Read from the store.
    pub read_bytes: Option<i64>,
    /// What did not come back as the snapshot says.
    pub mismatches: Option<i64>,
    /// The first of these, where names may be known here.
    pub differing: Vec<String>,
    /// Until what was lost could be used again.
    pub restore_ms: Option<i64>,
    /// What was promised when it began.
    pub rto_s: Option<i32>,
    /// Whether it was kept; null: nothing was promised, or it did not come back.
    pub is_within_rto: Option<bool>,
    /// `[{name, outcome: ok | failed | skipped, detail}…]`.
    #[schema(value_type = Vec<Object>)]
    pub checks: Json<Value>,
    /// `[[name, version]…]`.
    #[schema(value_type = Vec<Vec<String>>)]
    pub tools: Json<Value>,
    /// `{files, bytes, …}` while it runs.
    #[schema(value_type = Object)]
    pub progress: Json<Value>,
    /// The agent's version.
    pub agent: String,
}

/// Which drills.
#[derive(Clone, Debug, Default)]
pub struct Which {
    pub volume_id: Option<Uuid>,
    pub host_id: Option<Uuid>,
    pub state: Option<String>,
}

const ROWS: &str = "select d.drill_id, d.volume_id, v.name as volume, d.host_id, h.name as host, d.trigger, d.asked_by, d.mode,
        d.state, d.reason, d.detail, d.started_at, d.ended_at, d.snapshot_id, s.at as snapshot_at, d.is_sampled, d.files,
        d.bytes, d.files_total, d.bytes_total, d.read_bytes, d.mismatches, d.differing, d.restore_ms, d.rto_s,
        case when d.state = 'ok' then d.restore_ms <= d.rto_s * 1000::bigint end as is_within_rto, d.checks, d.tools,
        d.progress, d.agent
    from drills d join volumes v using (volume_id) join hosts h on h.host_id = d.host_id
    left join snapshots s on s.snapshot_id = d.snapshot_id where true";

/// A drill.
pub async fn find(connection: &mut PgConnection, drill: Uuid) -> sqlx::Result<Option<DrillRow>> {
    let mut sql = QueryBuilder::new(ROWS);
    sql.push(" and d.drill_id = ").push_bind(drill);
    sql.build_query_as().fetch_optional(connection).await
}

/// Drills, newest first: those from before `before`.
pub async fn list(
    connection: &mut PgConnection,
    which: &Which,
    before: Option<(OffsetDateTime, Uuid)>,
    limit: i64,
) -> sqlx::Result<Vec<DrillRow>> {
    let mut sql = QueryBuilder::new(ROWS);
    push(&mut sql, which);
    if let Some((at, id)) = before {
        sql.push(" and (d.started_at, d.drill_id) < (")
            .push_bind(at)
            .push(", ")
            .push_bind(id)
            .push(")");
    }
    sql.push(" order by d.started_at desc, d.drill_id desc limit ")
        .push_bind(limit);
    sql.build_query_as().fetch_all(connection).await
}

/// How many match.
pub async fn count(connection: &mut PgConnection, which: &Which) -> sqlx::Result<i64> {
    let mut sql = QueryBuilder::new("select count(*) from drills d where true");
    push(&mut sql, which);
    sql.build_query_scalar().fetch_one(connection).await
}

fn push(sql: &mut QueryBuilder<Postgres>, which: &Which) {
    if let Some(volume_id) = which.volume_id {
        sql.push(" and d.volume_id = ").push_bind(volume_id);
    }
    if let Some(host_id) = which.host_id {
        sql.push(" and d.host_id = ").push_bind(host_id);
    }
    if let Some(state) = &which.state {
        sql.push(" and d.state = ").push_bind(state.clone());
    }
}
