//! What plays of Ansible came to, as it is looked at: results of tasks, and hosts with their recaps.

use serde::Serialize;
use serde_json::Value;
use sqlx::{PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

/// Results are counted up to here.
pub const COUNTED: i64 = 100_000;

/// A result of a task on a host that was changed, failed or not reached.
#[derive(Clone, Debug, Serialize, sqlx::FromRow, ToSchema)]
#[schema(as = PlayResult)]
pub struct ResultRow {
    pub seq: i64,
    pub task: String,
    pub batch: i32,
    /// Of the task; null where nothing tells.
    pub task_name: Option<String>,
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

/// A host as a play's inventory has it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = PlayHost)]
pub struct PlayHostRow {
    pub number: i32,
    pub name: String,
    pub ansible_host: Option<String>,
    pub fqdn: Option<String>,
    pub distribution: Option<String>,
    pub distribution_version: Option<String>,
    /// `{ok, changed, unreachable, failures, skipped, rescued, ignored}`, as Ansible gives it; null where the play did not
    /// get so far.
    #[schema(value_type = Option<Object>)]
    pub recap: Option<Value>,
    /// The host that it was found to be.
    pub host_id: Option<Uuid>,
}

/// Which results.
#[derive(Clone, Debug, Default)]
pub struct Which {
    /// Failed or unreachable.
    pub failed: bool,
    pub task: Option<(String, i32)>,
}

/// Results of a run in the order in which they came: those after this one.
pub async fn list(
    connection: &mut PgConnection,
    run_id: Uuid,
    which: &Which,
    after: i64,
    limit: i64,
) -> sqlx::Result<Vec<ResultRow>> {
    let mut sql = QueryBuilder::new("");
    push_list(&mut sql, run_id, which, after, limit);
    sql.build_query_as().fetch_all(connection).await
}

fn push_list(
    sql: &mut QueryBuilder<Postgres>,
    run_id: Uuid,
    which: &Which,
    after: i64,
    limit: i64,
) {
    sql.push(
        "select r.*, t.name as task_name from change_results r left join change_tasks t using (run_id, task, batch)
         where true",
    );
    push(sql, run_id, which);
    sql.push(" and seq > ").push_bind(after);
    sql.push(" order by seq limit ").push_bind(limit);
}

/// How many those are, up to [`COUNTED`].
pub async fn count(
    connection: &mut PgConnection,
    run_id: Uuid,
    which: &Which,
) -> sqlx::Result<i64> {
    let mut sql = QueryBuilder::new("select count(*) from (select from change_results where true");
    push(&mut sql, run_id, which);
    sql.push(" limit ").push_bind(COUNTED).push(") as counted");
    sql.build_query_scalar().fetch_one(connection).await
}

fn push(sql: &mut QueryBuilder<Postgres>, run_id: Uuid, which: &Which) {
    sql.push(" and run_id = ").push_bind(run_id);
    if which.failed {
        sql.push(" and status in ('failed', 'unreachable')");
    }
    if let Some((task, batch)) = &which.task {
        sql.push(" and task = ").push_bind(task.clone());
        sql.push(" and batch = ").push_bind(*batch);
    }
}

/// How results are looked for.
pub async fn explain(
    connection: &mut PgConnection,
    run_id: Uuid,
    which: &Which,
) -> sqlx::Result<String> {
    let mut sql = QueryBuilder::new("explain ");
    push_list(&mut sql, run_id, which, 0, 50);
    let lines: Vec<String> = sql.build_query_scalar().fetch_all(connection).await?;
    Ok(lines.join("\n"))
}

/// Hosts of a run by their numbers: those after this one.
pub async fn list_hosts(
    connection: &mut PgConnection,
    run_id: Uuid,
    after: i32,
    limit: i64,
) -> sqlx::Result<Vec<PlayHostRow>> {
    sqlx::query_as!(
        PlayHostRow,
        r#"select h.number, h.name, h.ansible_host, h.fqdn, h.distribution, h.distribution_version, h.recap,
             l.host_id as "host_id?"
           from play_hosts h
           left join change_links l on l.run_id = h.run_id and l.ordinal = h.number and l.role = 'play'
           where h.run_id = $1 and h.number > $2 order by h.number limit $3"#,
        run_id,
        after,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// How many hosts a run has.
pub async fn count_hosts(connection: &mut PgConnection, run_id: Uuid) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from play_hosts where run_id = $1"#,
        run_id
    )
    .fetch_one(connection)
    .await
}
